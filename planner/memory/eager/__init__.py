"""The reference model on tensors that weigh but hold nothing: file by file the mirror of `reference_trainer/`."""
