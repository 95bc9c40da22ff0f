"""The flags that `estimate` and `plan` share: the table of options, read by Typer as a signature.

Every flag is text here: `planner` reads the units, so that a number is understood in one place only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from planner.config.options import BY_KEY, MODEL, OPTION, OPTIONS, RUN, Option, flag
from planner.config.renamed import OLD_NAMES
from planner.errors import InputError
from planner.files import refuse_unexpanded
from planner.inputs.flags import Flags

# old spelling of a flag: the option that it is today
OLD_FLAGS = {flag(old.partition(".")[2]): BY_KEY[new] for old, new in OLD_NAMES.items()}
OLD_COMMANDS = {"rates": "lr-find"}
Command = Callable[..., None]


def with_shared_flags(command: Command) -> Command:
    """Give `command(flags, config, …)` the shared flags; its own other parameters stay as they are."""

    def run(**values: Any) -> None:
        flags = Flags(**{name: _text(name, values.pop(name)) for name in OPTION})
        command(flags=flags, **values)

    own = inspect.signature(command, eval_str=True).parameters
    shared = [
        inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(option))
        for option in OPTIONS
    ]
    rest = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for name, p in own.items() if name != "flags"]
    parameters = [*shared, *rest]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    run.__doc__, run.__name__ = command.__doc__, command.__name__
    return run


def refuse_old_command(words: Iterable[str]) -> None:
    """Raises InputError for a command that was renamed, with its new name. No command has a second name."""
    for word in words:
        if word in OLD_COMMANDS:
            remedy = f"write gptplan {OLD_COMMANDS[word]}"
            raise InputError(f"there is no command {word}", why="it was renamed", remedy=remedy)


def refuse_other_names(words: Iterable[str], flags: Container[str]) -> None:
    """Raises InputError for a flag that was renamed, and for a key of run.toml that is written as a flag.

    flags: those that the command has. No flag has a second name.
    """
    for word in words:
        name = word.partition("=")[0]
        if not name.startswith("--") or name in flags:
            continue
        new = OLD_FLAGS.get(name)
        if new is not None:
            raise InputError(f"there is no flag {name}", why="it was renamed", remedy=f"write {_spelled(new)}")
        meant = _meant(name)
        if meant:
            why = "a key of run.toml has that name, and flags have their own"
            raise InputError(f"there is no flag {name}", why=why, remedy=meant)


def _meant(name: str) -> str:
    from planner.inputs.key_names import meant_by_flag  # the sections of a config, wanted for a wrong flag only

    return meant_by_flag(name, _spelled, "write one with gptplan plan -o run.toml, edit it, and give it with --config")


def _spelled(option: Option) -> str:
    return f"{option.flag} {option.kind.placeholder}"


def _text(name: str, value: str | bool | None) -> str | None:
    return OPTION[name].kind.choices[not value] if isinstance(value, bool) else value


def _annotation(option: Option) -> Any:
    shown: dict[str, Any] = {"help": option.sentence, "rich_help_panel": option.panel}
    if option.kind.parser == "switch":
        spelling = "/".join(map(flag, option.kind.choices))
        return Annotated[bool | None, typer.Option(spelling, **shown)]
    return Annotated[str | None, typer.Option(option.flag, metavar=option.kind.placeholder, **shown)]


def path_to_write(text: str | Path) -> Path:
    """The path of what a command will write. Raises FileError for one with a ~ in it that no shell has read."""
    refuse_unexpanded(path := Path(text))
    return path


ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Start from this run.toml; flags override it.", rich_help_panel=RUN),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--safetensors",
        metavar="FILE",
        help="Check the parameter count against the header of a .safetensors file, or of the files of an index.json.",
        rich_help_panel=MODEL,
    ),
]
AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of", metavar="DATE", help="Date of the plan, such as 2026-11-21; default today.", rich_help_panel=RUN
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object in base units; unknown is null.")]
DataPath = Annotated[
    Path | None,
    typer.Option("--data", metavar="PATH", help="Text, .jsonl, a folder of them, prepared data, or a .bin."),
]
TokenizerName = Annotated[
    str,
    typer.Option("--tokenizer", metavar="byte|FILE|tiktoken:NAME", help="Tokenizer for text that is not prepared."),
]
TextKey = Annotated[str, typer.Option("--text-key", metavar="KEY", help="Key of the text in a .jsonl file.")]
EndOfText = Annotated[str | None, typer.Option("--eot", metavar="ID", help="End-of-text token.")]
DeviceName = Annotated[str | None, typer.Option("--device", metavar="cpu|cuda", help="Default: a GPU if there is one.")]
