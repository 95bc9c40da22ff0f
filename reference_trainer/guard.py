"""No NaN or infinity reaches the weights: the update is skipped, and a run of them ends the training."""

from __future__ import annotations

import math

from planner.errors import PlanError

MOST_IN_A_ROW = 3  # one is a bad batch or a rounding accident; three on different data are a diverged model


class NonFiniteGuard:
    """Judges each step by its loss and gradient norm; a gradient that is not finite makes the norm not finite."""

    def __init__(self) -> None:
        self.in_a_row = 0

    def allows(self, loss: float, grad_norm: float, scale: float = 1.0) -> bool:
        """Whether the optimizer may use these gradients.

        scale: factor on the loss in backward. Above 1 an infinite gradient of a finite loss is the scaler's search for
        the largest factor that fits fp16, and no sign of a diverged model.
        """
        good = math.isfinite(loss) and math.isfinite(grad_norm)
        if good:
            self.in_a_row = 0
        elif scale <= 1.0 or not math.isfinite(loss):
            self.in_a_row += 1
        return good

    def stop_if_diverged(self, step: int) -> None:
        """Raises PlanError after the third bad step in a row."""
        if self.in_a_row >= MOST_IN_A_ROW:
            raise PlanError(
                f"training stopped at step {step}: loss or gradient not finite {self.in_a_row} steps in a row",
                why="none of these updates was applied; the weights and the last checkpoint are finite",
                remedy="plan with a lower peak rate, a longer warm-up or a smaller clip norm, and look at the data",
            )
