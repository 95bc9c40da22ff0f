"""The `[model.rope_scaling]` section: how rotary angles are changed for a longer context."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from planner.config.section import Count, Positive, Section

ROPE_BASE = 10_000.0  # of rotary embedding, where nothing else is said (Su et al. 2021, arXiv 2104.09864)
BETA_FAST, BETA_SLOW = 32.0, 1.0  # of yarn, where nothing else is said (Peng et al. 2023, arXiv 2309.00071)
TRAINED_SCALINGS = ("linear", "llama3", "dynamic", "yarn", "longrope")  # kinds that the reference trainer has
Factors = Annotated[tuple[Positive, ...], Field(min_length=1, strict=False)]
KEYS_OF_KIND: dict[str, tuple[str, ...]] = {  # keys that only some kinds have
    "low_freq_factor": ("llama3",), "high_freq_factor": ("llama3",),
    "beta_fast": ("yarn",), "beta_slow": ("yarn",), "truncate": ("yarn",), "mscale": ("yarn",),
    "mscale_all_dim": ("yarn",), "attention_factor": ("yarn", "longrope"),
    "short_factor": ("longrope",), "long_factor": ("longrope",),
}  # fmt: skip


class RopeScalingConfig(Section):
    """How rotary angles are slowed down for a longer context, by transformers' names and formulas."""

    kind: Literal["linear", "llama3", "dynamic", "yarn", "longrope", "by-layer"] = Field(
        description="linear: all angles over factor; llama3, yarn: the slow ones only; dynamic: a base that grows "
        "beyond context; longrope: a factor for each angle; by-layer: others in blocks with a window, not trained here"
    )
    factor: Annotated[float, Field(ge=1.0)] = Field(description="of the longer context over the original one")
    low_freq_factor: Positive | None = Field(
        default=None, description="llama3: waves longer than original_context over it are divided by factor"
    )
    high_freq_factor: Positive | None = Field(
        default=None, description="llama3: waves shorter than original_context over it stay as they are"
    )
    original_context: Count | None = Field(default=None, description="tokens of the context before it was made longer")
    beta_fast: Positive | None = Field(
        default=None, description="yarn: angles that turn so often in original_context stay as they are; absent: 32"
    )
    beta_slow: Positive | None = Field(
        default=None, description="yarn: angles that turn less often in it are divided by factor; absent: 1"
    )
    truncate: bool | None = Field(
        default=None, description="yarn: the channels between both begin and end at whole pairs; absent: true"
    )
    mscale: Positive | None = Field(default=None, description="yarn: of cos and sin, with mscale_all_dim (DeepSeek)")
    mscale_all_dim: Positive | None = Field(
        default=None, description="yarn: mscale is divided by it; latent attention has it in its scores"
    )
    attention_factor: Positive | None = Field(
        default=None, description="yarn, longrope: multiplies cos and sin; absent: from factor"
    )
    short_factor: Factors | None = Field(
        default=None, description="longrope: what each angle is divided by in sequences up to original_context"
    )
    long_factor: Factors | None = Field(default=None, description="longrope: the same in longer sequences")

    @model_validator(mode="after")
    def _is_whole(self) -> RopeScalingConfig:
        for key, kinds in KEYS_OF_KIND.items():
            if getattr(self, key) is not None and self.kind not in kinds:
                raise ValueError(f'{key} belongs to kind = "{kinds[0]}", not "{self.kind}"')
        low, high = self.low_freq_factor, self.high_freq_factor
        if self.kind == "llama3":
            if low is None or high is None or self.original_context is None:
                raise ValueError('kind = "llama3" needs low_freq_factor, high_freq_factor and original_context')
            if low >= high:
                raise ValueError(f"low_freq_factor ({low:g}) is not below high_freq_factor ({high:g})")
        fast, slow = self.beta_fast or BETA_FAST, self.beta_slow or BETA_SLOW
        if slow > fast:
            raise ValueError(f"beta_slow ({slow:g}) is above beta_fast ({fast:g})")
        if (self.short_factor is None) != (self.long_factor is None):
            raise ValueError("short_factor and long_factor belong together")
        return self

    def problem_with(self, rope_dim: int) -> str | None:
        """Why these keys do not fit heads with `rope_dim` rotary channels; None: they fit."""
        for name, factors in (("short_factor", self.short_factor), ("long_factor", self.long_factor)):
            if factors is not None and len(factors) != rope_dim // 2:
                return f"{name} has {len(factors)} numbers: rotary embedding turns {rope_dim // 2} pairs of channels"
        if self.kind == "dynamic" and rope_dim <= 2:
            return f"kind = dynamic needs more rotary channels than {rope_dim}: the base grows with a power of r/(r-2)"
        return None

    @property
    def untrained(self) -> str | None:
        """What the reference trainer lacks for these angles; None: it has them."""
        if self.kind not in TRAINED_SCALINGS:
            return f"{self.kind} rotary angles"
        if self.kind == "longrope" and self.short_factor is None:
            return "longrope rotary angles without their short_factor and long_factor"
        return None

    def table_factor(self, context: int) -> float:
        """What cos and sin are multiplied by; context: the model's, which stands for an absent original_context.

        yarn: attention_factor, else mscale over mscale_all_dim (both by `yarn_mscale`), else yarn_mscale of factor.
        longrope: attention_factor, else sqrt(1 + ln factor / ln original_context) (arXiv 2402.13753). Others: 1.
        Source: transformers 5.23, modeling_rope_utils.py.
        """
        if self.attention_factor is not None:
            return self.attention_factor
        if self.kind == "yarn":
            if self.mscale is not None and self.mscale_all_dim is not None:
                return yarn_mscale(self.factor, self.mscale) / yarn_mscale(self.factor, self.mscale_all_dim)
            return yarn_mscale(self.factor, 1.0)
        original = self.original_context or context
        if self.kind == "longrope" and self.factor > 1.0 and original > 1:
            return math.sqrt(1.0 + math.log(self.factor) / math.log(original))
        return 1.0

    @property
    def latent_score_factor(self) -> float:
        """What the scores of latent attention are multiplied by: yarn_mscale of mscale_all_dim, squared; else 1.

        Source: yarn_apply_mscale of transformers 5.23, modeling_deepseek_v3.py, as in DeepSeek's own code.
        """
        return 1.0 if self.mscale_all_dim is None else yarn_mscale(self.factor, self.mscale_all_dim) ** 2


def yarn_mscale(factor: float, mscale: float) -> float:
    """0.1 mscale ln(factor) + 1 (Peng et al. 2023, arXiv 2309.00071, equation 22; mscale is DeepSeek's)."""
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1.0 else 1.0
