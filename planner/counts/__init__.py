"""A config as plain numbers: shape, parameters, steps, FLOPs, schedule."""
