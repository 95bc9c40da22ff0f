"""A run directory, read without PyTorch."""
