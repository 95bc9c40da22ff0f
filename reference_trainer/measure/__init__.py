"""Measurements, to be compared with predictions."""
