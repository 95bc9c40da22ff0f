"""What a run takes beside its steps: evaluations, checkpoints, data, start and compilation; and the sum of all."""

from __future__ import annotations

from planner.formulas.formula import formula
from planner.formulas.ops import Num, ceil_div, floor_div, maximum

_ORDER = "order of the reference trainer's loop: steps, then the evaluation or the save that is due"


@formula(gives="passes_of_evaluation", source="definition: whole micro-batches, divided among the replicas")
def evaluation_passes(evaluation_tokens: Num, tokens_per_micro_batch: Num, data_parallel: Num) -> Num:
    """Forward passes of one evaluation on each replica."""
    return ceil_div(evaluation_tokens, tokens_per_micro_batch * data_parallel)


@formula(gives="occurrences", source=_ORDER)
def times_due(steps: Num, every_steps: Num) -> Num:
    """How often something is done that is due every so many steps."""
    return floor_div(steps, every_steps)


@formula(gives="seconds", source="a forward pass is a third of the model FLOPs; a pipeline fills first")
def evaluations_seconds(
    occurrences: Num, passes_of_evaluation: Num, stages: Num, micro_seconds: Num, forward_share: Num
) -> Num:
    """Time of all evaluations, each so many forward passes."""
    return occurrences * (passes_of_evaluation + stages - 1) * micro_seconds * forward_share


@formula(gives="seconds", source="definition: the state is divided among the servers that hold different parts of it")
def write_seconds(bytes: Num, writers: Num, write_bandwidth: Num) -> Num:
    """Time in which a checkpoint is written."""
    return bytes / (writers * write_bandwidth)


@formula(gives="seconds", source=_ORDER)
def waited_saves_seconds(saves: Num, seconds: Num) -> Num:
    """Time of all saves where training waits for each."""
    return saves * seconds


@formula(gives="seconds", source=_ORDER + "; a save waits for the one before it, and the last for the disk")
def background_saves_seconds(saves: Num, copy_seconds: Num, seconds: Num, compute_seconds: Num) -> Num:
    """Time that training loses to saves that a thread writes: each copy to the host, what the steps do not hide, the
    last write."""
    return saves * copy_seconds + (saves - 1) * maximum(0, seconds - compute_seconds) + seconds


@formula(gives="seconds", source="definition: a thread reads ahead, so that a step waits only for a slower disk")
def data_wait_seconds(steps: Num, seconds: Num, compute_seconds: Num) -> Num:
    """Time that all steps wait for their data."""
    return steps * maximum(0, seconds - compute_seconds)


@formula(gives="seconds", source="definition: a part that does not depend on the model, and its weights, one by one")
def start_seconds(setup_seconds: Num, parameters: Num, seconds_per_parameter: Num) -> Num:
    """Time from the start of the process to the second step, less that step: imports, weights, first kernels."""
    return setup_seconds + parameters * seconds_per_parameter


@formula(gives="seconds", source="definition: the compiler traces and lowers the blocks one by one")
def compile_seconds(compiler_seconds: Num, layers: Num, compiler_block_seconds: Num, programs: Num) -> Num:
    """Time of the compiler; programs: that of training is one, that of evaluation, without backward, a half."""
    return (compiler_seconds + layers * compiler_block_seconds) * programs


@formula(gives="seconds", source="definition: nothing of it runs beside the other")
def duration(
    steps_seconds: Num,
    evaluation_seconds: Num,
    saving_seconds: Num,
    data_seconds: Num,
    starting_seconds: Num,
    compiling_seconds: Num,
) -> Num:
    """Wall-clock time of a run: its steps, and what it does beside them."""
    return steps_seconds + evaluation_seconds + saving_seconds + data_seconds + starting_seconds + compiling_seconds
