"""The learning rate of each update: linear warm-up, then cosine decay to the floor.

Update k = 1 … T uses the rate at k; the rate at 0 is only where warm-up starts. The branches (warm-up, decay,
after the end) are chosen in `shape.py`; each branch is arithmetic.
"""

from __future__ import annotations

from planner.formula import formula
from planner.ops import Num, cos, pi_like


@formula(gives="learning_rate", source="Goyal et al. 2017 (arXiv 1706.02677), section 2.2: gradual warm-up")
def warmup_rate(step: Num, warmup_steps: Num, peak_lr: Num) -> Num:
    """Rate during linear warm-up, 0 at step 0 and the peak at the last warm-up step."""
    return peak_lr * step / warmup_steps


@formula(gives="learning_rate", source="Loshchilov and Hutter 2017 (arXiv 1608.03983), eq. 5, one period")
def cosine_rate(step: Num, warmup_steps: Num, steps: Num, peak_lr: Num, min_lr: Num) -> Num:
    """Rate after warm-up: half a cosine from the peak to the floor."""
    progress = (step - warmup_steps) / (steps - warmup_steps)
    return min_lr + (peak_lr - min_lr) * (1 + cos(pi_like(step) * progress)) / 2
