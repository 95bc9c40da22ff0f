"""An engine: what it is called, which version was read, the fate of every key, and its files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from planner.config.run import CPU, RunConfig
from planner.counts.nodes import gpus_per_domain
from planner.engines.fates import OF_ALL, Carried, Fates, refusals, told_differences
from planner.errors import InputError

Sentences = Callable[[RunConfig], Iterator[str]]


def none_of(config: RunConfig) -> Iterator[str]:
    """No sentence: an engine without refused combinations, or without differences."""
    return iter(())


@dataclass(frozen=True, slots=True)
class Start:
    """How a process of the engine is started: the words behind the runner, each fit for a shell.

    folder: the variable that names the engine's own checkout, in which it is started; "": it is an installed package.
    environment: variables as NAME=value. before: lines of the script just before it.
    runner: torchrun, or accelerate, whose own launcher reads the file `settings`.
    """

    words: tuple[str, ...]
    folder: str = ""
    runner: str = "torchrun"
    settings: str = ""
    environment: tuple[str, ...] = ()
    before: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine as it was at one commit. problems: combinations it cannot express. differences: what it does otherwise.

    files: name and text of each file that it reads. fates: its own rows over `OF_ALL`. install: shell commands.
    """

    name: str
    title: str
    version: str
    commit: str
    where: str
    install: tuple[str, ...]
    own_fates: Fates
    files: Callable[[RunConfig], dict[str, str]]
    start: Callable[[RunConfig], Start]
    problems: Sentences = none_of
    differences: Sentences = none_of
    on_cpu: bool = False
    fates: Fates = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fates", {**OF_ALL, **self.own_fates})

    @property
    def stamp(self) -> str:
        """The engine and the version that was read, in a few words."""
        at = f" ({self.commit})" if self.commit else ""
        return f"{self.title} {self.version}{at}"


def all_differences(engine: Engine, config: RunConfig) -> list[str]:
    """What the engine does otherwise than the run.toml says, one sentence each."""
    return [*told_differences(config, engine.fates), *engine.differences(config)]


def refuse_inexpressible(engine: Engine, config: RunConfig) -> None:
    """Raises InputError with every key of a config that the engine cannot express."""
    found = refusals(config, engine.fates, engine.title)
    if config.hardware.gpu == CPU and not engine.on_cpu:
        found.append(f"hardware.gpu = cpu ({engine.title} trains on GPUs)")
    found += engine.problems(config)
    if found:
        raise InputError(
            f"{engine.title} cannot express this run",
            why="; ".join(found),
            remedy="change these keys, or export to another engine; nothing is written that would train another run",
        )


@dataclass(frozen=True, slots=True)
class Machines:
    """Nodes of a run and processes on each, one process for each GPU."""

    nodes: int
    processes: int


def machines_of(config: RunConfig) -> Machines:
    """The nodes of a run. Raises InputError where its GPUs fill no whole number of them."""
    gpus = config.hardware.gpus
    each = 1 if config.hardware.gpu == CPU else config.hardware.gpus_per_node or gpus_per_domain(config.hardware.gpu)
    if gpus <= each:
        return Machines(1, gpus)
    if gpus % each:
        raise InputError(
            f"hardware.gpus = {gpus} fill no whole number of nodes with {each} GPUs",
            why="a launcher starts as many processes on each node",
            remedy=f"set hardware.gpus to {gpus // each * each} or {(gpus // each + 1) * each}, or gpus_per_node",
        )
    return Machines(gpus // each, each)


def carried_keys(engine: Engine) -> dict[str, str]:
    """The keys that an engine's files carry, and the arguments that do."""
    return {key: fate.arguments for key, fate in engine.fates.items() if isinstance(fate, Carried)}
