"""Logs and profiles of other people's trainers, set beside a plan."""
