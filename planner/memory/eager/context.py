"""The context of a simulation: the model, the run, the sizes that follow, and the device whose kernels run."""

from __future__ import annotations

from dataclasses import dataclass, replace

from planner.config.model import ModelConfig
from planner.config.parallel import ParallelConfig
from planner.config.run import TrainingConfig
from planner.counts.attention import gpu_attention
from planner.counts.ranks import WHOLE_MODEL, Rank
from planner.counts.run import Resolved
from planner.counts.shape import Shape, alternation, has_experts, has_rotary, has_window, is_recomputed

ONE_GPU = ParallelConfig()


@dataclass(frozen=True, slots=True)
class SimulationContext:
    """What a simulated step needs to know. compute_bytes: itemsize of the compute type; weight_bytes: itemsize of the
    weights and of the residual stream. model and shape are those of one GPU: its blocks, its part of each width."""

    model: ModelConfig
    training: TrainingConfig
    shape: Shape
    compute_bytes: int
    weight_bytes: int
    cuda: bool = False
    parallel: ParallelConfig = ONE_GPU
    rank: Rank = WHOLE_MODEL
    gpu: str | None = None

    @property
    def tokens(self) -> int:
        """Tokens of one micro-batch that a sub-layer reads."""
        return self.training.micro_batch * self.training.seq

    @property
    def stream_tokens(self) -> int:
        """Tokens of the residual stream: with sequence parallelism a part of the micro-batch's."""
        return self.tokens // self.parallel.tp if self.parallel.sp else self.tokens

    @property
    def routed_experts(self) -> int:
        """Experts that a router scores, wherever they are."""
        return self.model.moe.experts * self.parallel.ep if self.model.moe else 0

    def plain_chunk(self) -> SimulationContext:
        """The chunk of blocks that waits for backward: without the loss, and of several without the embedding."""
        alone = self.training.runtime != "fused" and self.parallel.interleave == 1
        return replace(self, rank=replace(self.rank, embeds=self.rank.embeds and alone, has_head=False))

    @property
    def autocast(self) -> bool:
        """Whether PyTorch's autocast does the casting."""
        return self.training.runtime == "autocast" and self.compute_bytes != self.weight_bytes

    @property
    def cast_to(self) -> int:
        """Itemsize of what a sub-layer reads from the residual stream."""
        return self.weight_bytes if self.autocast else self.compute_bytes

    def has_rope(self, block: int) -> bool:
        """Whether block `block` (from 0) has rotary embedding."""
        return has_rotary(self.model, block)

    def windowed(self, block: int) -> bool:
        """Whether block `block` has a sliding window."""
        return has_window(self.model, block)

    def recomputes(self, block: int) -> bool:
        """Whether block `block` keeps only its input and is recomputed in backward."""
        return is_recomputed(self.training, block)

    @property
    def masks_documents(self) -> bool:
        """Whether each micro-batch makes its own masks, from the documents in it."""
        return self.training.document_masking and self.training.attention_kernel != "flex"

    @property
    def window_kinds(self) -> set[bool]:
        """Which kinds of blocks exist: with a sliding window (True), without (False)."""
        return {self.windowed(block) for block in range(self.shape.layers)}

    @property
    def window_binds(self) -> bool:
        """Whether a sliding window is shorter than the sequence, so that it masks some keys."""
        return self.model.sliding_window is not None and self.model.sliding_window < self.training.seq

    def has_mask(self, block: int) -> bool:
        """Whether a mask is added to the scores of block `block`."""
        return self.masks_documents or self.model.position == "alibi" or (self.windowed(block) and self.window_binds)

    def kernel(self, masked: bool) -> str:
        """The kernel of an attention that stores no scores, with a mask or without; a CPU has the flash kernel only."""
        if not self.cuda:
            return "flash"
        return gpu_attention(self.model, self.training, self.compute_bytes, self.gpu, masked)

    @property
    def period(self) -> int:
        """Number of blocks after which the kinds of blocks repeat."""
        return alternation(self.model, self.training)

    def block_kind(self, block: int) -> tuple[bool, ...]:
        """All that distinguishes block `block`: experts, rotary embedding, mask, window's own mask, recomputation."""
        expert = has_experts(self.model, block)
        own_mask = self.masks_documents and self.windowed(block)  # the first block to save a mask keeps it alive
        return expert, self.has_rope(block), self.has_mask(block), own_mask, self.recomputes(block)


def simulation_context(run: Resolved, cuda: bool = False) -> SimulationContext:
    """The context of a run's simulation; cuda: whether a GPU's kernels run, else a CPU's."""
    config, recipe = run.config, run.recipe
    # FSDP2 gathers the weights in the compute type, and the residual stream follows the embedding table
    weights = recipe.compute_bytes if config.parallel.shards_weights else recipe.weights_bytes_per_parameter
    rank, model, shape = run.rank or WHOLE_MODEL, config.model, run.shape
    if run.rank is not None and rank.chunk_layers != model.layers:
        model = model.model_copy(update={"layers": rank.chunk_layers})
        shape = replace(shape, layers=rank.chunk_layers)
    compute = recipe.compute_bytes
    return SimulationContext(
        model, config.training, shape, compute, weights, cuda, config.parallel, rank, config.hardware.gpu
    )
