"""The reference model on fake tensors (sizes, no data): each file simulates its namesake in `reference_trainer/`."""
