"""How each number of `estimate --json` is obtained, by its key: the table behind `explain`.

A key matches the first pattern; of its rules the first that gives the number holds. Formulas are looked for among the
calls that the plan really made (`recording.py`), so that a rule names a formula and never repeats its arguments.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

REPLAY = "replay of the same step on fake tensors (reference_trainer/measure/replay.py): exact"
ALLOCATOR = "torch.cuda.memory_stats() of a run on a GPU"


@dataclass(frozen=True, slots=True)
class Called:
    """The number that a call of one of these formulas returned, or one that gives the quantity; `{0}` as in `Same`."""

    names: tuple[str, ...] = ()
    gives: str = ""


@dataclass(frozen=True, slots=True)
class Same:
    """The same number as another key; `{0}` is what the pattern's first star matched."""

    key: str


@dataclass(frozen=True, slots=True)
class Sum:
    """The sum of all numbers below another key."""

    below: str
    meaning: str
    source: str
    checked_against: str


@dataclass(frozen=True, slots=True)
class Own:
    """A formula called with other keys' numbers."""

    name: str
    arguments: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Read:
    """A number that is read from the memory simulation or from data, not computed by one formula.

    `origin`: account, preset, measured, chosen or constant. `depends`: settings whose defaults it depends on.
    """

    origin: str
    meaning: str
    source: str
    checked_against: str
    unit: str
    depends: tuple[str, ...] = ()


KeyRule = Called | Same | Sum | Own | Read

_ON_MEMORY = ("shape", "seq", "vocab", "recipe", "micro_batch", "activation_checkpointing", "optimizer")
_PARTS = Sum(
    "throughput.parts",
    "time of one optimizer step: its parts, one after the other",
    "eager kernels do not overlap; communication that is hidden behind them is no part",
    "measured steps of the reference trainer: inside the stated interval",
)


def _account(meaning: str, checked_against: str = REPLAY) -> Read:
    source = "simulation of one step of the reference model, allocation by allocation (docs/why/memory.md)"
    return Read("account", meaning, source, checked_against, "byte", _ON_MEMORY)


def _alive(below: str) -> Sum:
    source = "simulation of one step of the reference model, allocation by allocation (docs/why/memory.md)"
    return Sum(below, "bytes alive at the highest moment: the sum of the components at that moment", source, REPLAY)


def _chosen(*names: str, section: str) -> dict[str, tuple[KeyRule, ...]]:
    return {f"batch.{name}": (Same(f"config.{section}.{name}"),) for name in names}


KEY_RULES: dict[str, tuple[KeyRule, ...]] = {
    "schema_version": (Read("constant", "version of this format", "planner/config/run.py", "none: a name", "1"),),
    "config.schema_version": (
        Read("constant", "version of this format", "planner/config/run.py", "none: a name", "1"),
    ),
    "config.profile.*": (
        Read("measured", "measured on this machine", "gptplan calibrate", "none: it is the measurement", ""),
    ),
    "tokens.requested": (Same("config.training.tokens"), Called(("trained_tokens",))),
    "tokens.trained": (Called(("trained_tokens",)),),
    "model.parameters.nominal": (Same("config.model.nominal_parameters"), Same("model.parameters.total")),
    "model.parameters.embedding": (Called(("embedding_parameters",)),),
    "model.parameters.non_embedding": (Called(("non_embedding_parameters",)),),
    "model.parameters.*": (Called(("total_parameters",)),),
    "model.shape.seq": (Same("config.training.seq"),),
    "model.shape.*": (Same("config.model.{0}"),),
    "flops.training_6nd": (Called(("training_flops_6nd",)),),
    "flops.per_token_model": (Called(("model_flops_per_token",)),),
    "flops.per_token_model_causal": (Called(("model_flops_per_token_causal",)),),
    "flops.per_token_hardware": (Called(("hardware_flops_per_token",)),),
    "flops.*": (Called(("total_flops",)),),
    **_chosen("micro_batch", "accumulation", section="training"),
    "batch.data_parallel": (Same("config.hardware.gpus"), Called(("replicas_of_gpus",))),
    "batch.steps": (Same("config.training.steps"), Called(("whole_steps",))),
    "batch.warmup_steps": (Same("config.schedule.warmup_steps"),),
    "batch.*": (Called(("{0}",)),),
    "memory.rule_14_bytes": (Called(("rule_14_bytes",)),),
    "memory.weights_bytes": (Called(("weights_bytes",)), _account("weights, and the casts of them that stay")),
    "memory.master_weights_bytes": (Called(("master_weights_bytes",)),),
    "memory.gradients_bytes": (Called(("gradients_bytes",)),),
    "memory.optimizer_bytes": (_account("state of the optimizer: that of each parameter tensor, added up"),),
    "memory.checkpoint_bytes": (Called(("checkpoint_bytes",)),),
    "memory.saved_bytes": (
        Sum(
            "memory.saved_by_operator",
            "what autograd keeps for backward in one micro-batch",
            "the account of one step of the reference model, operator by operator (docs/why/memory.md)",
            "saved_tensors_hooks over the reference model: exact, operator by operator",
        ),
    ),
    "memory.saved_by_operator.*": (
        _account(
            "what this operator keeps for backward, in all blocks",
            "saved_tensors_hooks over the reference model: exact, operator by operator",
        ),
    ),
    "memory.peak_requested_bytes": (_alive("memory.at_peak"),),
    "memory.phases.*.peak_bytes": (_alive("memory.phases.{0}.at_peak"),),
    "memory.at_peak.*": (
        Same("memory.{0}_bytes"),
        _account("bytes of this component at the highest moment of the step"),
    ),
    "memory.phases.*.at_peak.*": (
        Same("memory.{1}_bytes"),
        _account("bytes of this component at the highest moment of the phase"),
    ),
    "memory.usable_bytes": (
        Read("preset", "memory that the driver shows", "{gpu}", "the driver's own figure", "byte", ("gpu",)),
    ),
    "memory.peak_allocated*": (_account("the requested bytes as the caching allocator rounds them", ALLOCATOR),),
    "memory.peak_reserved*": (_account("segments that the caching allocator takes from the driver", ALLOCATOR),),
    "memory.device_used*": (_account("reserved bytes and the CUDA context", "the driver's own figure"),),
    **{
        f"memory.{component}_bytes": (_account("the most bytes of this component at any moment of the step"),)
        for component in ("activations", "logits", "temporary", "communication")
    },
    "memory.*": (_account("read off the account of the step"),),
    "throughput.tokens_per_second_per_gpu": (Called(("tokens_per_second_per_gpu",)),),
    "throughput.tokens_per_second*": (Called(("tokens_per_second",)),),
    "throughput.step_seconds_low": (Called(("quickest_step",)), Same("throughput.step_seconds")),
    "throughput.step_seconds_high": (Called(("slowest_step",)), Same("throughput.step_seconds")),
    "throughput.step_seconds": (Called(("step_seconds_from_rate", "step_seconds_from_mfu")), _PARTS),
    "throughput.mfu*": (Called(("utilisation",)),),
    "throughput.hfu": (Called(("utilisation",)),),
    "throughput.parts.optimizer": (
        Called(("with_host_seconds",)),
        Read(
            "measured",
            "time of the parameter update, read off the measured kernel times",
            "{profile}",
            "measured steps of the reference trainer",
            "s",
            ("shape",),
        ),
    ),
    "throughput.parts.all-reduce": (
        Called(("exposed_seconds",)),
        Read("constant", "one device has nobody to exchange gradients with", "definition", "none", "s", ("gpus",)),
    ),
    "throughput.parts.sharding": (
        Called(("micro_batches_seconds",)),
        Read("constant", "no weights are gathered and no shards reduced", "definition", "none", "s", ("gpus",)),
    ),
    "throughput.parts.stragglers": (Called(("straggler_seconds",)),),
    "throughput.parts.*": (
        Called(("micro_batches_seconds",)),
        Read(
            "measured",
            "kernels of this kind in one step, each at the time that the profile has for its sizes",
            "{profile}",
            "measured steps of the reference trainer: inside the stated interval",
            "s",
            ("shape", "seq", "micro_batch", "accumulation"),
        ),
    ),
    "time.seconds*": (Called(("duration",)),),
    "time.times.*": (
        Read(
            "chosen",
            "how often this is done in the run; saves: the most, if every evaluation is the best so far",
            "planner/step_time/whole_run.py",
            "evaluations and saves that a run of the reference trainer counts: exact",
            "1",
            ("steps",),
        ),
    ),
    **{
        f"time.{parts}.{name}": (
            Called(formulas),
            Read(
                "constant",
                "there is nothing of it in this run, or it is in the speed given",
                "time.sources",
                "none",
                "s",
            ),
        )
        for parts in ("parts", "parts_low", "parts_high")
        for name, formulas in (
            ("steps", ("run_seconds",)),
            ("evaluations", ("evaluations_seconds",)),
            ("checkpoints", ("background_saves_seconds", "waited_saves_seconds")),
            ("data", ("data_wait_seconds",)),
            ("start", ("start_seconds",)),
            ("compilation", ("compile_seconds",)),
        )
    },
    "time.gpu_hours*": (Called(("gpu_hours",)),),
    "cost.usd_per_gpu_hour": (
        Same("config.hardware.usd_per_gpu_hour"),
        Read("preset", "price of one GPU for one hour", "{price}", "none: a price list", "USD/hour", ("gpu",)),
    ),
    "cost.usd*": (Called(("cost_of_hours",)),),
    "cost.energy_kwh": (Called(("energy_of_hours",)),),
    "cost.co2e_kg": (Called(("co2e_of_kwh",)),),
    "schedule.points.*.step": (
        Read("chosen", "an update that the program shows the rate of", "planner/plan.py", "none: a choice", "1"),
    ),
    "schedule.points.*.tokens": (
        Own("trained_tokens", {"steps": "schedule.points.{0}.step", "tokens_per_step": "batch.tokens_per_step"}),
    ),
    "schedule.points.*.lr": (
        Called(gives="learning_rate"),
        Same("config.schedule.peak_lr"),
        Same("config.schedule.min_lr"),
    ),
    "schedule.*": (Same("config.schedule.{0}"),),
}


def rules_of(key: str) -> tuple[tuple[KeyRule, ...], tuple[str, ...]]:
    """The rules of a key, and what the stars of its pattern matched; none for a key of the config."""
    for pattern, rules in KEY_RULES.items():
        matched = re.fullmatch(re.escape(pattern).replace(r"\*", "(.*)"), key)
        if matched:
            return rules, matched.groups()
    return (), ()
