"""Random command lines: options of every kind with good values, bad ones, twice, or without their value."""

from __future__ import annotations

import random
from collections.abc import Sequence

from benchmarks.fuzzing.changes import NUMBERS, TEXTS
from benchmarks.fuzzing.given import Given
from planner import presets
from planner.config.options import OPTIONS, Option

# they take the options of a plan, and answer in a fraction of a second; explain and --json do more than the others
COMMANDS = ("estimate",) * 6 + ("plan", "flops", "flops", "schedule", "schedule", "batch", "batch", "explain")
# refused, whatever comes behind: nothing here trains, opens a screen or measures the machine
REFUSED = (
    "groups",
    "compare",
    "postmortem",
    "export",
    "schema",
    "run",
    "sample",
    "data",
    "trace",
    "lr-find",
    "preflight",
)
GOOD = (
    "1",
    "2",
    "4",
    "8",
    "12",
    "64",
    "128",
    "256",
    "768",
    "1024",
    "50257",
    "0.1",
    "0.5",
    "1e-3",
    "3e-4",
    "125M",
    "1B",
)
FILES = ("run.toml", "missing.toml", ".", "/dev/null", "x" * 300)


def command_line(rng: random.Random) -> Given:
    """A command line and the files that it names."""
    command = rng.choice(COMMANDS)
    if rng.random() < 0.05:
        return Given("commands", (rng.choice((*REFUSED, "estimat", "", "-", "rates")), *_strays(rng)))
    words = [command, *_base(rng)]
    for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 5))):
        words += option_words(rng.choice(OPTIONS), rng)
    if rng.random() < 0.3:
        words += rng.choice(
            (["--json"], ["--list"], ["--help"], ["-o", rng.choice(("a.toml", "b/c.toml", ""))], ["--plot"])
        )
    if rng.random() < 0.1:
        words += _strays(rng)
    if rng.random() < 0.1:
        rng.shuffle(words)
    if words[0] not in COMMANDS:
        words.insert(0, command)
    return Given("commands", tuple(words))


def options(rng: random.Random) -> Given:
    """Options of a plan as name=value: a model and its tokens, and one to six of any others."""
    named = {"tokens": "1B", "gpu": rng.choice(presets.gpu_ids())}
    named |= (
        {"model": rng.choice(presets.model_ids())} if rng.random() < 0.4 else {"params": rng.choice(("125M", "8M"))}
    )
    for option in rng.sample(OPTIONS, rng.choice((1, 1, 2, 2, 3, 6))):
        if option.kind.placeholder != "FILE":
            named[option.name] = value_for(option, rng)
    if rng.random() < 0.1:
        del named[rng.choice(list(named))]
    return Given("options", tuple(f"{name}={value}" for name, value in named.items()))


def _base(rng: random.Random) -> list[str]:
    if rng.random() < 0.1:
        return []
    model = (
        ["--model", rng.choice(presets.model_ids())]
        if rng.random() < 0.4
        else ["--params", rng.choice(("125M", "1B", "8M"))]
    )
    return [*model, "--tokens", rng.choice(("10B", "1e9", "300M")), "--gpu", rng.choice(presets.gpu_ids())]


def option_words(option: Option, rng: random.Random) -> list[str]:
    """One option as words: mostly with a value that could be meant."""
    if option.kind.parser == "switch":
        return [rng.choice((option.flag, f"--no-{option.name.replace('_', '-')}", f"{option.flag}=1"))]
    value = value_for(option, rng)
    return rng.choice(([option.flag, value], [option.flag, value], [f"{option.flag}={value}"], [option.flag]))[
        : 1 + bool(value)
    ]


def value_for(option: Option, rng: random.Random) -> str:
    """A value: of its choices or its kind, or a nasty one."""
    if rng.random() < 0.35:
        return rng.choice(NUMBERS + TEXTS)
    if option.kind.choices:
        return rng.choice(option.kind.choices)
    names = {"model": presets.model_ids, "gpu": presets.gpu_ids, "recipe": presets.recipe_ids}
    if option.name in names:
        return rng.choice(names[option.name]())
    return rng.choice(FILES if option.kind.placeholder == "FILE" else GOOD)


def _strays(rng: random.Random) -> Sequence[str]:
    return rng.choices(
        (*TEXTS, "--unknown", "-x", "--help", "--json", "estimate", "--tokens", *FILES), k=rng.randrange(3)
    )
