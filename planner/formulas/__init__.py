"""Registered formulas by topic: named numbers in, one number out."""
