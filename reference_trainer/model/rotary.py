"""Rotary angles of each kind of scaling, by the formulas of transformers 5.23's modeling_rope_utils.py."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from planner.config.model import ModelConfig
from planner.config.rope import BETA_FAST, BETA_SLOW, RopeScalingConfig
from planner.errors import ConfigError


def rotary_angles(model: ModelConfig, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin [T, 1, r/2] in fp32: 4 T r bytes in all (Su et al. 2021, arXiv 2104.09864).

    Scaled where the model has rope_scaling. Raises ConfigError for a kind that the trainer lacks.
    """
    scaling = model.rope_scaling
    refuse_scaling(scaling)
    if scaling is None:
        return _tables(speeds(model.rope_base, model.rope_dim, device), length)
    if scaling.kind == "dynamic":
        base = dynamic_base(model.rope_base, scaling.factor, length, model)
        return _tables(speeds(base, model.rope_dim, device), length)
    speed = scaled(speeds(model.rope_base, model.rope_dim, device), scaling, length, model)
    return _tables(speed, length, scaling.table_factor(model.context))


def local_angles(model: ModelConfig, length: int, device: torch.device) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """cos and sin [T, 1, r/2] of the blocks with a sliding window; None where all blocks are the same.

    Unscaled, as Gemma 3's and OLMo 3's are (transformers: rope_parameters.sliding_attention).
    """
    if model.local_rope_base is None:
        return None, None
    return _tables(speeds(model.local_rope_base, model.rope_dim, device), length)


def _tables(speed: Tensor, length: int, factor: float = 1.0) -> tuple[Tensor, Tensor]:
    angle = torch.arange(length, device=speed.device, dtype=torch.float32)[:, None, None] * speed
    return angle.cos().mul_(factor), angle.sin().mul_(factor)


def speeds(base: float, rope_dim: int, device: torch.device) -> Tensor:
    """Radians per token of each pair of channels, [r/2] in fp32: base^(-2i/r)."""
    half = rope_dim // 2
    return base ** (-torch.arange(half, device=device, dtype=torch.float32) / half)


def dynamic_base(base: float, factor: float, length: int, model: ModelConfig) -> float:
    """The base of dynamic NTK scaling: larger in sequences beyond the model's context, unchanged up to it."""
    rope_dim, longer = model.rope_dim, max(length, model.context) / model.context
    return float(base * (factor * longer - (factor - 1.0)) ** (rope_dim / (rope_dim - 2)))


def scaled(speed: Tensor, scaling: RopeScalingConfig, length: int, model: ModelConfig) -> Tensor:
    """Radians per token for a longer context, in a sequence of `length`.

    linear: all over the factor. llama3 (Llama 3.1): waves of more than original_context / low_freq_factor tokens over
    the factor, those of less than original_context / high_freq_factor as they are, between them a mean of both.
    yarn: `yarn_ramp`. longrope (Ding et al. 2024, arXiv 2402.13753): each over its own factor.
    """
    original = scaling.original_context or model.context
    if scaling.kind == "linear":
        return speed / scaling.factor
    if scaling.kind == "longrope":
        factors = scaling.long_factor if length > original else scaling.short_factor
        return speed / torch.tensor(factors, dtype=torch.float32, device=speed.device)
    if scaling.kind == "llama3":
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        assert low is not None and high is not None, "llama3 has both: the config says so"
        waves = original * speed / (2 * math.pi)  # in the original context
        slowed = 1 - ((waves - low) / (high - low)).clamp(0, 1)
    else:
        slowed = yarn_ramp(scaling, original, model.rope_base, speed)
    return (1 - slowed) * speed + slowed * speed / scaling.factor


def yarn_ramp(scaling: RopeScalingConfig, original: int, base: float, speed: Tensor) -> Tensor:
    """How much of each pair of channels is slowed down, 0 to 1: YaRN (Peng et al. 2023, arXiv 2309.00071, section 3.2).

    0 up to the pair that turns beta_fast times in the original context, 1 from the one that turns beta_slow times on,
    linear between them. Both pairs are rounded outwards unless `truncate` is false.
    """
    rope_dim = 2 * speed.numel()

    def pair(turns: float) -> float:
        """The pair of channels, a fraction, that turns so often in the original context."""
        return rope_dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

    first, last = pair(scaling.beta_fast or BETA_FAST), pair(scaling.beta_slow or BETA_SLOW)
    if scaling.truncate is not False:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, rope_dim - 1)
    last += 0.001 if first == last else 0.0  # as there: no division by zero
    pairs = torch.arange(rope_dim // 2, device=speed.device, dtype=torch.float32)
    return ((pairs - first) / (last - first)).clamp(0, 1)


def refuse_scaling(scaling: RopeScalingConfig | None) -> None:
    """Raises ConfigError for a scaling of the rotary angles that the trainer lacks."""
    missing = None if scaling is None else scaling.untrained
    if missing is not None:
        raise ConfigError(
            f"the reference trainer does not have {missing} (model.rope_scaling)",
            why="the model would be trained with other rotary angles than the config names",
            remedy="read the model's config.json again with --hf-config, or remove [model.rope_scaling], which trains "
            "at the original context",
        )
