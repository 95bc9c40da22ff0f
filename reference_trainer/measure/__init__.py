"""Measurements held against predictions."""
