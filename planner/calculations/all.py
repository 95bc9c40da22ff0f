"""Every topic, imported so that its calculations are registered."""

from planner.calculations import batches, chains, clipping, facts, loss, norms, optimizers, scores, shapes

__all__ = ["batches", "chains", "clipping", "facts", "loss", "norms", "optimizers", "scores", "shapes"]
