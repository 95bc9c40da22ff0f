"""The reference trainer: executes a RunConfig with PyTorch and measures what it really does."""
