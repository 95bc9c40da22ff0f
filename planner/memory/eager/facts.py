"""What the mirror of a run knows: the model, the run, the sizes that follow, and whose kernels are mirrored."""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm

from planner.config.model import ModelConfig
from planner.config.run import RunConfig, TrainingConfig
from planner.counts.run import recipe_of
from planner.counts.shape import Shape, shape_of


@dataclass(frozen=True, slots=True)
class Facts:
    """compute, weights: bytes of an element in the compute type, and of a weight (and the residual stream)."""

    model: ModelConfig
    training: TrainingConfig
    shape: Shape
    compute: int
    weights: int
    cuda: bool = False

    @property
    def tokens(self) -> int:
        """Tokens of one micro-batch."""
        return self.training.micro_batch * self.training.seq

    @property
    def autocast(self) -> bool:
        """Whether PyTorch's autocast does the casting."""
        return self.training.runtime == "autocast" and self.compute != self.weights

    @property
    def cast_to(self) -> int:
        """Bytes of what leaves the residual stream."""
        return self.weights if self.autocast else self.compute

    def rotates(self, block: int) -> bool:
        """Whether block `block` (from 0) has rotary embedding."""
        every = self.model.no_position_every
        return self.model.position == "rotary" and not (every and (block + 1) % every == 0)

    def windowed(self, block: int) -> bool:
        """Whether block `block` sees a window of keys only."""
        every = self.model.full_attention_every
        return self.model.sliding_window is not None and not (every and (block + 1) % every == 0)

    def recomputes(self, block: int) -> bool:
        """Whether block `block` keeps its input only."""
        t = self.training
        whole = t.activation_checkpointing in ("full", "offloaded")
        return whole and block % t.activation_checkpointing_every == 0

    @property
    def cuts(self) -> bool:
        """Whether each micro-batch makes masks of its own, of the documents that it cuts apart."""
        return self.training.document_masking and self.training.attention_kernel != "flex"

    @property
    def windows(self) -> set[bool]:
        """Which kinds of blocks there are: with a sliding window (True), without (False)."""
        return {self.windowed(block) for block in range(self.shape.layers)}

    @property
    def hides(self) -> bool:
        """Whether a sliding window is shorter than the sequence, so that it hides something."""
        return self.model.sliding_window is not None and self.model.sliding_window < self.training.seq

    def masked(self, block: int) -> bool:
        """Whether a table is added to the scores of block `block`."""
        return self.cuts or self.model.position == "alibi" or (self.windowed(block) and self.hides)

    @property
    def period(self) -> int:
        """Blocks after which the kinds repeat."""
        m = self.model
        everies = [m.no_position_every, m.full_attention_every, self.training.activation_checkpointing_every]
        return lcm(*(every for every in everies if every))

    def kind(self, block: int) -> tuple[bool, ...]:
        """What block `block` differs in from others."""
        moe = self.model.moe
        expert = moe is not None and block >= moe.first_dense_layers
        own_mask = self.cuts and self.windowed(block)  # there are two then, and who saves one keeps it alive
        return expert, self.rotates(block), self.masked(block), own_mask, self.recomputes(block)


def facts_of(config: RunConfig, cuda: bool = False) -> Facts:
    """What a config says about the walk."""
    recipe = recipe_of(config)
    weights = recipe.weights_bytes_per_parameter
    return Facts(config.model, config.training, shape_of(config.model), recipe.compute_bytes, weights, cuda)
