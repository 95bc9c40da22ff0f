"""The learning rate of each update: linear warm-up, then one of six decays.

Update k = 1 … T uses the rate at k; warm-up starts from the rate at 0. `counts/schedule.py`
chooses the segment of a step; each segment is arithmetic. The progress of a decay is q = (k - W) / (T - W).
"""

from __future__ import annotations

from planner.formulas.formula import formula
from planner.formulas.ops import Num, cos, maximum, pi_like, sqrt


@formula(gives="learning_rate", source="Goyal et al. 2017 (arXiv 1706.02677), section 2.2: gradual warm-up")
def warmup_rate(step: Num, warmup_steps: Num, peak_lr: Num) -> Num:
    """Rate during linear warm-up, 0 at step 0 and the peak at the last warm-up step."""
    return peak_lr * step / warmup_steps


@formula(gives="learning_rate", source="Loshchilov and Hutter 2017 (arXiv 1608.03983), eq. 5, one period")
def cosine_rate(step: Num, warmup_steps: Num, steps: Num, peak_lr: Num, min_lr: Num) -> Num:
    """Rate after warm-up: half a cosine from the peak to the floor."""
    progress = (step - warmup_steps) / (steps - warmup_steps)
    return min_lr + (peak_lr - min_lr) * (1 + cos(pi_like(step) * progress)) / 2


@formula(gives="learning_rate", source="Devlin et al. 2018 (BERT, arXiv 1810.04805), appendix A.2: linear decay")
def linear_rate(step: Num, warmup_steps: Num, steps: Num, peak_lr: Num, min_lr: Num) -> Num:
    """Rate after warm-up: a straight line from the peak to the floor."""
    progress = (step - warmup_steps) / (steps - warmup_steps)
    return min_lr + (peak_lr - min_lr) * (1 - progress)


@formula(gives="learning_rate", source="Chen et al. 2016 (DeepLab, arXiv 1606.00915): the poly policy")
def polynomial_rate(step: Num, warmup_steps: Num, steps: Num, peak_lr: Num, min_lr: Num, decay_power: Num) -> Num:
    """Rate after warm-up: the remaining share of the decay, to a power; 1 is the straight line."""
    progress = (step - warmup_steps) / (steps - warmup_steps)
    return min_lr + (peak_lr - min_lr) * (1 - progress) ** decay_power


@formula(gives="learning_rate", source="Vaswani et al. 2017 (arXiv 1706.03762), section 5.3, scaled to its peak")
def inverse_sqrt_rate(step: Num, root_start: Num, peak_lr: Num, min_lr: Num) -> Num:
    """Rate after warm-up: falls as one over the root of the step, never below the floor; the run's end does not enter.

    `root_start` is the last warm-up step; without warm-up it is 1, the first update.
    """
    return maximum(min_lr, peak_lr * sqrt(root_start / step))


@formula(gives="learning_rate", source="definition of a constant rate")
def constant_rate(peak_lr: Num) -> Num:
    """Rate after warm-up where nothing decays."""
    return peak_lr


@formula(gives="learning_rate", source="Hu et al. 2024 (MiniCPM, arXiv 2404.06395), section 4: warm-up, stable, decay")
def cooldown_rate(step: Num, steps: Num, cooldown_steps: Num, peak_lr: Num, min_lr: Num) -> Num:
    """Rate of the last steps of a constant rate: a straight line from the peak to the floor at the last step."""
    return min_lr + (peak_lr - min_lr) * (steps - step) / cooldown_steps
