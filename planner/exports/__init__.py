"""A config in the words of other programs."""
