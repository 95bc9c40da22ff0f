"""`RunConfig`: what a user may choose, validated at the door. It holds no formula and computes nothing.

Every number is in base units (byte, FLOP/s, token, USD). Sections are frozen; unknown keys are refused.
A config is whole: whatever was not typed has been filled in by `draft.py`, and each such value is listed
under `[provenance]`, so that a plan is a pure function of the file alone.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from planner.config.attention import refuse_attention
from planner.config.layout import refuse_layout
from planner.config.loop import CheckpointConfig, EvaluationConfig, GuardConfig
from planner.config.model import ModelConfig
from planner.config.parallel import ParallelConfig
from planner.config.renamed import with_new_names
from planner.config.section import Count, Every, Positive, Section, Share

SCHEMA_VERSION = 1
CPU = "cpu"  # the hardware name of this machine's processor; every other name is a GPU preset


class TrainingConfig(Section):
    """Data budget, batch and numerics. Exactly one of `tokens` and `steps` is given."""

    tokens: Count | None = Field(
        default=None, description="training tokens; the number of whole steps follows from them"
    )
    steps: Count | None = Field(default=None, description="optimizer steps, instead of tokens")
    dataset_tokens: Count | None = Field(default=None, description="distinct tokens of the data set; unknown if absent")
    seq: Count = Field(description="tokens per sequence")
    micro_batch: Count = Field(description="sequences per device in one forward and backward pass")
    accumulation: Count = Field(description="micro-batches per device in one optimizer step")
    recipe: str = Field(description="precision policy: dtypes of weights, gradients and matmuls")
    runtime: Literal["eager", "autocast", "compiled", "fused"] = Field(
        default="eager",
        description="how the model's code runs: eager with explicit casts, under autocast, compiled, or fused kernels",
    )
    attention_kernel: Literal["flash", "flash-only", "efficient", "cudnn", "math", "flex"] = Field(
        default="flash",
        description="flash: no scores stored, PyTorch chooses; flash-only, efficient, cudnn: this kernel; "
        "math: scores stored; flex: FlexAttention block mask, CUDA only",
    )
    document_masking: bool = Field(
        default=False,
        description="true: attention and targets stay within a document; false: attention crosses documents",
    )
    loss: Literal["plain", "chunked", "fused"] = Field(
        default="plain",
        description="plain: all logits at once; chunked: recomputed chunk by chunk; fused: gradients in forward",
    )
    loss_chunks: Count = Field(default=8, description="chunks of tokens of a chunked or fused loss")
    returns_logits: bool = Field(
        default=False, description="the program returns its logits with the loss, as nanoGPT does; they stay in memory"
    )
    dropout: Share = Field(
        default=0.0, description="fraction dropped from embeddings, attention weights and sub-layer outputs"
    )
    activation_checkpointing: Literal["none", "selective", "full", "offloaded"] = Field(
        description="none; selective: recompute attention cores; full: blocks; offloaded: block inputs on the host"
    )
    activation_checkpointing_every: Every = Field(
        default=1, description="full or offloaded: recompute one of every K blocks"
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(description="seed of initialisation and data order")
    checkpoint_every: Count | None = Field(default=None, description="optimizer steps between checkpoints")

    @model_validator(mode="after")
    def _one_horizon(self) -> TrainingConfig:
        if (self.tokens is None) == (self.steps is None):
            raise ValueError("give exactly one of tokens and steps: the other follows from the batch")
        return self

    @model_validator(mode="after")
    def _modes_agree(self) -> TrainingConfig:
        whole_blocks = self.activation_checkpointing in ("full", "offloaded")
        if self.activation_checkpointing_every != 1 and not whole_blocks:
            raise ValueError('activation_checkpointing_every needs activation_checkpointing = "full" or "offloaded"')
        if self.returns_logits and self.loss != "plain":
            raise ValueError('returns_logits needs loss = "plain": the other losses never hold all logits')
        if self.attention_kernel == "flex" and (not self.document_masking or self.dropout):
            raise ValueError('attention_kernel = "flex" needs document_masking = true and no dropout, which it lacks')
        return self


# how each optimizer's update can run, its default first
IMPLEMENTATIONS: dict[str, tuple[str, ...]] = {
    "adamw": ("fused", "foreach", "for-loop"),
    "adamw8bit": ("fused",),
    "lion": ("for-loop",),
    "adafactor": ("foreach", "for-loop"),
    "sgd": ("fused", "foreach", "for-loop"),
    "muon": ("fused", "foreach", "for-loop"),  # of the AdamW beside it; Muon itself stacks its matrices
}
WITH_WHOLE_MATRICES = ("adamw8bit", "adafactor", "muon")  # blocks, rows or products over a whole tensor
WITH_OWN_STATE_TYPE = ("adamw", "lion")  # optimizers whose moments may have another type than the weights


class GroupConfig(Section):
    """Parameters that have a rate, or a weight decay, of their own."""

    match: Annotated[str, Field(min_length=1)] = Field(
        description="parameters by name, with * and ? as in file names, such as blocks.*.mlp.*; the first match counts"
    )
    rate: Annotated[float, Field(ge=0.0)] = Field(default=1.0, description="factor on the learning rate; 0: frozen")
    weight_decay: Annotated[float, Field(ge=0.0)] | None = Field(
        default=None, description="weight decay of all matches, vectors too; absent: the optimizer's, on matrices only"
    )


class OptimizerConfig(Section):
    """The optimizer, weight decay, and clipping by value and by the global gradient norm."""

    name: Literal["adamw", "adamw8bit", "lion", "adafactor", "sgd", "muon"] = Field(
        default="adamw",
        description="adamw, adamw8bit, lion, adafactor, sgd, muon (with AdamW for the rest)",
    )
    implementation: Literal["fused", "foreach", "for-loop"] = Field(
        default="fused",
        description="implementation of the update: one kernel, lists of tensors, or a loop over tensors",
    )
    state_dtype: Literal["fp32", "bf16"] | None = Field(
        default=None, description="dtype of the moments; absent: that of the updated weights"
    )
    beta1: Share = Field(description="decay of the first moment, or momentum of sgd, which has no state if it is 0")
    momentum: Share = Field(default=0.95, description="muon's momentum; the betas belong to AdamW for the rest")
    beta2: Share = Field(description="decay of the second moment")
    eps: Positive = Field(description="added to the root of the second moment")
    weight_decay: Annotated[float, Field(ge=0.0)] = Field(description="on matrices; not on biases and norm gains")
    clip_norm: Positive | None = Field(default=None, description="largest global gradient norm; absent: no clipping")
    clip_value: Positive | None = Field(
        default=None, description="largest absolute gradient element, clipped before the norm; absent: no limit"
    )
    # last of all: in TOML no key of the section can follow its tables
    groups: tuple[GroupConfig, ...] = Field(
        default=(), strict=False, description="parameters with their own learning rate or weight decay"
    )

    @model_validator(mode="after")
    def _is_there(self) -> OptimizerConfig:
        ways = IMPLEMENTATIONS[self.name]
        if self.implementation not in ways:
            raise ValueError(f'implementation = "{self.implementation}": {self.name} has {" and ".join(ways)} only')
        if self.state_dtype is not None and self.name not in WITH_OWN_STATE_TYPE:
            raise ValueError(f'state_dtype = "{self.state_dtype}": {self.name} keeps its state in one type only')
        return self


class ScheduleConfig(Section):
    """Learning rate: linear warm-up, then the named decay. Update k = 1 … T uses the rate at k."""

    kind: Literal["cosine", "linear", "polynomial", "inverse_sqrt", "constant", "wsd"] = Field(
        default="cosine", description="decay after warm-up; wsd is constant with a cooldown"
    )
    peak_lr: Positive = Field(description="learning rate at the end of warm-up")
    min_lr: Annotated[float, Field(ge=0.0)] = Field(
        description="learning rate at the end of the decay; unused if constant"
    )
    warmup_steps: Annotated[int, Field(ge=0)] = Field(description="steps of linear warm-up")
    cooldown_steps: Annotated[int, Field(ge=0)] = Field(
        default=0, description="last steps of a wsd schedule, in which the rate falls linearly to min_lr"
    )
    decay_power: Positive = Field(default=2.0, description="exponent of a polynomial decay")

    @model_validator(mode="after")
    def _floor_below_peak(self) -> ScheduleConfig:
        if self.min_lr > self.peak_lr:
            raise ValueError(f"min_lr ({self.min_lr:g}) is above peak_lr ({self.peak_lr:g}): the rate would rise")
        return self

    @model_validator(mode="after")
    def _cooldown_has_an_effect(self) -> ScheduleConfig:
        if self.cooldown_steps and self.kind != "wsd":
            raise ValueError(
                f'cooldown_steps ({self.cooldown_steps}) beside kind = "{self.kind}": only a wsd rate has a cooldown'
            )
        return self


SPEED = ("tflops", "mfu", "tokens_per_second")  # keys of [hardware]; one at most is given


class HardwareConfig(Section):
    """What the run is planned for. `gpus` are all GPUs; `gpu = "cpu"` is this machine's processor."""

    gpu: str = Field(description="preset name of the GPU, or cpu")
    gpus: Count = Field(description="all GPUs; those that [parallel] leaves are data-parallel replicas")
    gpus_per_node: Count | None = Field(
        default=None, description="GPUs that the card's own links join; absent: as the card is sold, mostly 8"
    )
    allocator: Literal["default", "expandable"] = Field(
        default="default", description="PyTorch's caching allocator: fixed segments, or expandable ones"
    )
    software: Literal[
        "megatron-2021", "gpt-neox-2023", "pytorch-2023", "pytorch-2024", "pytorch-2026", "transformer-engine-2024"
    ] = Field(default="pytorch-2026", description="generation of kernels and compilers, for the predicted time")
    tflops: Positive | None = Field(
        default=None, description="achieved FLOP/s per GPU in the 6*N*D convention, if known; in FLOP/s, not in 1e12"
    )
    mfu: Annotated[float, Field(gt=0.0, le=1.0)] | None = Field(
        default=None, description="model FLOPs utilisation, if known (attention counted in full, dense peak)"
    )
    tokens_per_second: Positive | None = Field(
        default=None, description="measured speed of the whole run on all its GPUs, if known"
    )
    write_bandwidth: Positive | None = Field(
        default=None, description="byte/s that a server writes to its disk; absent: not known, a usual range is assumed"
    )
    usd_per_gpu_hour: Annotated[float, Field(ge=0.0)] | None = Field(
        default=None, description="your price; absent: the price list's"
    )

    @model_validator(mode="after")
    def _one_speed(self) -> HardwareConfig:
        given = [name for name in SPEED if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give {given[0]} or {given[1]}, not both: each alone fixes the speed")
        return self

    @property
    def speed_is_given(self) -> bool:
        """Whether a measured speed takes the place of the predicted one."""
        return any(getattr(self, name) is not None for name in SPEED)


class Assumption(Section):
    """A default that was used, its rule, and the rule's source."""

    key: str
    value: str
    source: str


class Provenance(Section):
    """When and how the file was made; which of its values were assumed."""

    as_of: str = Field(description="date of the plan, year-month-day; the age of prices is computed from it")
    gptplan: str = Field(description="version that wrote the file")
    assumptions: tuple[Assumption, ...] = Field(default=(), strict=False)


class RunConfig(Section):
    """A whole training run, as written to and read from run.toml."""

    schema_version: Literal[1] = 1
    model: ModelConfig
    training: TrainingConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    hardware: HardwareConfig
    parallel: ParallelConfig = ParallelConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    guard: GuardConfig = GuardConfig()
    checkpoints: CheckpointConfig = CheckpointConfig()
    provenance: Provenance
    profile: dict[str, object] | None = Field(
        default=None, strict=False, description="measured kernel times of the machine; absent: published specs are used"
    )

    @property
    def data_parallel(self) -> int:
        """Replicas of the model: GPUs over those that share each sequence."""
        return self.hardware.gpus // self.parallel.gpus_per_replica

    @model_validator(mode="before")
    @classmethod
    def _old_names(cls, values: object) -> object:
        return with_new_names(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _sections_agree(self) -> RunConfig:
        training, model = self.training, self.model
        if training.seq > model.context and model.position == "learned":
            raise ValueError(
                f"seq ({training.seq}) is longer than the model's {model.context} learned positions: "
                "the table has no row for the rest"
            )
        refuse_layout(self, WITH_WHOLE_MATRICES)
        refuse_attention(self, self.hardware.gpu == CPU)
        return self
