"""What a search may choose and must keep, from text: cards, numbers of GPUs, dollars, time, head-room."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import lcm
from typing import Literal

from planner import presets
from planner.config.options import LAYOUT, panels
from planner.config.run import CPU, RunConfig
from planner.errors import InputError, UnknownNameError
from planner.inputs.flags import Flags
from planner.units import parse_count, parse_duration, parse_money, parse_number

RankedBy = Literal["time", "cost", "energy", "head-room"]
RANKINGS: tuple[RankedBy, ...] = ("time", "cost", "energy", "head-room")
MOST_GPUS = 131_072
# options that a search chooses unless they are typed
SEARCHED = (
    *(name for name in panels()[LAYOUT] if name != "dp"),
    *("micro_batch", "loss_kind", "activation_checkpointing", "activation_checkpointing_every", "runtime"),
)


@dataclass(frozen=True, slots=True)
class SearchLimits:
    """What a layout must keep: dollars and seconds of the whole run (None: no limit), and the fraction of the usable
    memory that stays free."""

    usd: float | None = None
    seconds: float | None = None
    head_room: float = 0.0


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """Cards by preset name, numbers of GPUs, options that stay as the config has them, replicas if they are fixed."""

    cards: tuple[str, ...]
    gpus: tuple[int, ...]
    kept: frozenset[str] = frozenset()
    replicas: int | None = None
    limits: SearchLimits = SearchLimits()


def one_of_each(flags: Flags, base: RunConfig | None = None) -> Flags:
    """The flags of one run out of those of a search: the first card, and as few GPUs as the layout's flags allow.

    Over a base config its own number of GPUs stays: with it its batch does.
    """
    found = flags if flags.gpu is None else replace(flags, gpu=cards_of(flags.gpu)[0])
    if base is not None:
        return replace(found, gpus=None, dp=None)
    if flags.gpus is None:
        return found
    gpus_of(flags.gpus)  # what cannot be read is refused before anything else
    each, sharing = 1, flags.count("hsdp") or 1
    for name in ("tp", "pp", "cp"):
        each *= flags.count(name) or 1
    experts = flags.count("ep") or 1
    shared = flags.fsdp == "fsdp" or flags.zero not in (None, "0")
    return replace(found, gpus=str(each * lcm(sharing, experts, 2 if shared else 1)), dp=None)


def searched_config(config: RunConfig, flags: Flags, base: RunConfig | None) -> RunConfig:
    """The config whose steps a search keeps: that of a file has the file's sequences, whatever layout is typed."""
    t = config.training
    if base is None or flags.given("global_batch_tokens", "accumulation", "micro_batch", "seq"):
        sequences = t.micro_batch * t.accumulation * config.data_parallel
    else:
        sequences = base.training.micro_batch * base.training.accumulation * base.data_parallel
    each = config.data_parallel
    if flags.micro_batch is not None:
        return config
    if sequences % each:
        raise InputError(
            f"the file's {sequences} sequences of a step do not divide among {each} replicas",
            why="the layout that is typed leaves as many on the file's GPUs",
            remedy="give --global-batch-tokens",
        )
    batch = {"micro_batch": 1, "accumulation": sequences // each}
    return config.model_copy(update={"training": t.model_copy(update=batch)})


def space_of(flags: Flags, config: RunConfig, limits: SearchLimits) -> SearchSpace:
    """The space of `--gpu a,b --gpus 8..1024` and of the layout's flags, for the config that `one_of_each` leads to.

    What is typed stays: `--tp 8` searches the layouts with tp = 8. Raises InputError, UnknownNameError.
    """
    hardware = config.hardware
    cards = (hardware.gpu,) if flags.gpu is None else cards_of(flags.gpu)
    if CPU in cards:
        raise InputError(
            "--gpu cpu: a processor has no layout to search",
            why="one process trains on it",
            remedy="give a GPU preset, such as --gpu h100-80gb",
        )
    gpus = (hardware.gpus,) if flags.gpus is None else gpus_of(flags.gpus)
    kept = frozenset(flags.given(*SEARCHED))
    return SearchSpace(cards, gpus, kept, flags.count("dp"), limits)


def cards_of(text: str) -> tuple[str, ...]:
    """The presets of "h100-80gb,h200". Raises UnknownNameError."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in (CPU, *presets.gpu_ids()):
            raise UnknownNameError("GPU", name, presets.gpu_ids()).with_note("--gpu")
    return names


def gpus_of(text: str) -> tuple[int, ...]:
    """8 → (8,); 8,24 → both; 8..64 → the doublings of 8 up to 64. Raises UnitError, InputError."""
    found: list[int] = []
    for part in text.split(","):
        low, dots, high = part.partition("..")
        least = parse_count(low.strip(), name="--gpus")
        most = parse_count(high.strip(), name="--gpus") if dots else least
        if least > most or most > MOST_GPUS:
            raise InputError(
                f"--gpus: {part.strip()} is no range of GPUs",
                why=f"the smaller number stands first, and {MOST_GPUS:,} is the most that is searched",
                remedy="write 64, or 8,16,24, or 8..1024",
            )
        found += [least << i for i in range((most // least).bit_length())]
    return tuple(dict.fromkeys(found))


def limits_of(max_cost: str | None, within: str | None, head_room: str | None) -> SearchLimits:
    """The limits of `--max-cost $10k --within 7d --head-room 5%`. Raises UnitError, InputError."""
    room = 0.0 if head_room is None else parse_number(head_room, name="--head-room", allow_zero=True)
    if room >= 1:
        raise InputError(
            f"--head-room: {room:g} leaves no memory to train in",
            why="it is the fraction of the usable memory that stays free",
            remedy="write 0.05 or 5%",
        )
    return SearchLimits(
        None if max_cost is None else parse_money(max_cost, name="--max-cost"),
        None if within is None else parse_duration(within, name="--within"),
        room,
    )


def ranking_of(text: str) -> RankedBy:
    """What layouts are ranked by. Raises UnknownNameError."""
    for known in RANKINGS:
        if text == known:
            return known
    raise UnknownNameError("--by", text, RANKINGS)
