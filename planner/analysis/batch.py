"""Answers about the batch from whatever facts were typed: its size, legal neighbours, steps, data, another rate."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from planner.analysis.ranges import critical_batch_of
from planner.config.run import RunConfig
from planner.counts.run import resolve
from planner.errors import InputError
from planner.formulas import batch
from planner.inputs.batch import nearest_batches
from planner.inputs.flags import Flags, refuse_contradictions
from planner.inputs.schedule import LENGTHS, Horizon, length_of
from planner.rules import rules
from planner.units import parse_count, parse_number

LOSSES = (0.1, 30.0)  # nats per token; a uniform guess over a million words has 13.8
MODEL_FLAGS = ("params", "model", "hf_config", "family", "layers", "hidden")


@dataclass(frozen=True, slots=True)
class BatchFacts:
    """What is known of a run; None is unknown. Tokens and sequences are counts, the rate has no unit."""

    micro_batch: int | None = None
    accumulation: int | None = None
    gpus: int = 1
    seq: int | None = None
    wanted_tokens: int | None = None
    tokens: int | None = None
    steps: int | None = None
    warmup_steps: int | None = None
    dataset_tokens: int | None = None
    peak_lr: float | None = None
    critical_batch: float | None = None
    critical_source: str = "unknown: give --critical-batch, or --loss, or a model"


@dataclass(frozen=True, slots=True)
class Legal:
    """A batch that every device can share, and its accumulation."""

    tokens: int
    accumulation: int


@dataclass(frozen=True, slots=True)
class Data:
    """A data set in sequences: side by side, every token once a target; and windows that start at every token."""

    dataset_tokens: int
    sequences: int | None
    windows: int | None
    epochs: float | None
    worth_tokens: float | None


@dataclass(frozen=True, slots=True)
class Scaled:
    """The peak of this batch, by each rule, from the one tuned at another; bounded: up to the critical batch."""

    tuned_batch: int
    peak_lr: float
    linear: float
    square_root: float
    linear_bounded: float | None
    square_root_bounded: float | None
    critical_batch: float | None
    critical_source: str


@dataclass(frozen=True, slots=True)
class BatchReport:
    """All answers; None where a fact is missing."""

    sequences_per_step: int | None
    tokens_per_step: int | None
    legal: tuple[Legal, ...]
    steps: int | None
    steps_exactly: float | None
    warmup_steps: int | None
    warmup_tokens: int | None
    warmup_share: float | None
    data: Data | None
    rate: Scaled | None


def names_a_model(flags: Flags) -> bool:
    """Whether a model was typed, so that the whole config is wanted."""
    return bool(flags.given(*MODEL_FLAGS))


def facts_of_flags(flags: Flags) -> BatchFacts:
    """The facts of the flags alone. Raises InputError for text that cannot be read and contradictions."""
    refuse_contradictions(flags)
    seq, wanted = flags.count("seq"), flags.count("global_batch_tokens")
    facts = BatchFacts(
        micro_batch=flags.count("micro_batch"),
        accumulation=flags.count("accumulation"),
        gpus=_replicas(flags),
        seq=seq,
        wanted_tokens=wanted,
        tokens=flags.count("tokens"),
        steps=flags.count("steps"),
        dataset_tokens=flags.count("dataset_tokens"),
        peak_lr=flags.number("peak_lr"),
    )
    if not flags.given(*(f"warmup_{unit}" for unit in LENGTHS)):
        return facts
    steps = _steps(facts)
    if steps is None and flags.warmup_ratio is not None:
        raise InputError(
            "--warmup-ratio: the steps of the run are not known",
            why="the warm-up is a share of them",
            remedy="give --steps, or --tokens and --global-batch-tokens",
        )
    warmup = length_of(flags, "warmup", Horizon(int(steps or 0), _per_step(facts), "--tokens"))
    return replace(facts, warmup_steps=warmup)


def _replicas(flags: Flags) -> int:
    """Replicas as the flags give them: --dp, or all GPUs over those that share each sequence."""
    each = math.prod(flags.count(name) or 1 for name in ("tp", "pp", "cp"))
    return flags.count("dp") or max(1, (flags.count("gpus") or 1) // each)


def facts_of(config: RunConfig) -> BatchFacts:
    """The facts of a run; its critical batch is that at the loss which Kaplan's law predicts."""
    run = resolve(config)
    t, tokens = config.training, run.requested_tokens
    critical, loss = critical_batch_of(max(run.parameters.non_embedding, 1), tokens)
    return BatchFacts(
        micro_batch=t.micro_batch,
        accumulation=t.accumulation,
        gpus=config.data_parallel,
        seq=t.seq,
        wanted_tokens=run.tokens_per_step,
        tokens=t.tokens,
        steps=t.steps,
        warmup_steps=config.schedule.warmup_steps,
        dataset_tokens=t.dataset_tokens,
        peak_lr=config.schedule.peak_lr,
        critical_batch=critical,
        critical_source=f"{rules('batch')['source']}; at a loss of {loss:.2f}, predicted from size and data",
    )


def with_critical(facts: BatchFacts, critical_batch: str | None, loss: str | None) -> BatchFacts:
    """The facts with a critical batch that was typed, in tokens per step, or that follows from a loss, nats per token.

    Raises InputError for text that cannot be read, and for both at once.
    """
    if critical_batch is not None and loss is not None:
        raise InputError(
            "--critical-batch and --loss contradict each other", why="one follows from the other", remedy="give one"
        )
    if critical_batch is not None:
        known = parse_count(critical_batch, name="--critical-batch")
        return replace(facts, critical_batch=float(known), critical_source="as given")
    if loss is None:
        return facts
    table, value = rules("batch"), parse_number(loss, name="--loss")
    if not LOSSES[0] <= value <= LOSSES[1]:
        raise InputError(
            f"--loss: {value:g} is outside {LOSSES[0]:g} to {LOSSES[1]:g}",
            why="no language model has such a loss in nats per token",
            remedy="give it in nats per token, such as 3.2",
        )
    found = float(batch.critical_batch(value, table["scale_tokens"], table["exponent"]))
    return replace(facts, critical_batch=found, critical_source=f"{table['source']}; at a loss of {value:g}")


def report_of(facts: BatchFacts, tuned_batch: int | None) -> BatchReport:
    """All that follows from the facts; tuned_batch: tokens per step for which the peak rate was tuned.

    Raises InputError when a rate is to be scaled and a part of the question is missing.
    """
    per_step, steps = _per_step(facts), _steps(facts)
    sequences = None
    if facts.micro_batch is not None and facts.accumulation is not None:
        sequences = int(batch.sequences_per_step(facts.micro_batch, facts.accumulation, facts.gpus))
    exactly = facts.tokens / per_step if facts.tokens is not None and per_step else None
    warmup = facts.warmup_steps
    return BatchReport(
        sequences_per_step=sequences,
        tokens_per_step=per_step,
        legal=_legal(facts),
        steps=steps,
        steps_exactly=exactly,
        warmup_steps=warmup,
        warmup_tokens=int(batch.warmup_tokens(warmup, per_step)) if warmup is not None and per_step else None,
        warmup_share=float(batch.warmup_share(warmup, steps)) if warmup is not None and steps else None,
        data=_data(facts, steps, per_step),
        rate=None if tuned_batch is None else _scaled(facts, tuned_batch, per_step),
    )


def _per_step(facts: BatchFacts) -> int | None:
    if facts.wanted_tokens is not None:
        return facts.wanted_tokens
    if facts.micro_batch is None or facts.accumulation is None or facts.seq is None:
        return None
    sequences = batch.sequences_per_step(facts.micro_batch, facts.accumulation, facts.gpus)
    return int(batch.tokens_per_step(sequences, facts.seq))


def _steps(facts: BatchFacts) -> int | None:
    per_step = _per_step(facts)
    if facts.steps is not None or facts.tokens is None or per_step is None:
        return facts.steps
    return int(batch.whole_steps(facts.tokens, per_step))


def _legal(facts: BatchFacts) -> tuple[Legal, ...]:
    if facts.wanted_tokens is None or facts.seq is None:
        return ()
    unit = int(batch.tokens_per_step(batch.sequences_per_step(facts.micro_batch or 1, 1, facts.gpus), facts.seq))
    pair = dict.fromkeys(nearest_batches(facts.wanted_tokens, unit))
    return tuple(Legal(tokens, tokens // unit) for tokens in pair if tokens)


def _data(facts: BatchFacts, steps: int | None, per_step: int | None) -> Data | None:
    known, seq = facts.dataset_tokens, facts.seq
    if known is None:
        return None
    trained = int(batch.trained_tokens(steps, per_step)) if steps is not None and per_step else facts.tokens
    long_enough = seq is not None and known > seq
    scale = rules("batch")["repetition"]["scale"]
    worth = None if trained is None else trained if trained <= known else batch.effective_tokens(trained, known, scale)
    return Data(
        dataset_tokens=known,
        sequences=int(batch.whole_sequences(known, seq)) if long_enough else None,
        windows=int(batch.sliding_windows(known, seq, 1)) if long_enough else None,
        epochs=None if trained is None else float(batch.epochs(trained, known)),
        worth_tokens=None if worth is None else float(worth),
    )


def _scaled(facts: BatchFacts, tuned: int, per_step: int | None) -> Scaled:
    if facts.peak_lr is None or per_step is None:
        missing = "the peak rate" if facts.peak_lr is None else "the new batch"
        raise InputError(
            f"--tuned-batch: {missing} is missing",
            why="a rate tuned at one batch is scaled to another",
            remedy="give " + ("--peak-lr 3e-4" if facts.peak_lr is None else "--global-batch-tokens 1Mi"),
        )
    critical, peak = facts.critical_batch, facts.peak_lr
    # the bound holds on both sides: between two batches beyond it, the rate does not change
    bound = None if critical is None else [float(batch.batch_of_the_rate(b, critical)) for b in (tuned, per_step)]
    return Scaled(
        tuned_batch=tuned,
        peak_lr=peak,
        linear=float(batch.linear_scaled_rate(peak, tuned, per_step)),
        square_root=float(batch.sqrt_scaled_rate(peak, tuned, per_step)),
        linear_bounded=None if bound is None else float(batch.linear_scaled_rate(peak, *bound)),
        square_root_bounded=None if bound is None else float(batch.sqrt_scaled_rate(peak, *bound)),
        critical_batch=critical,
        critical_source=facts.critical_source,
    )
