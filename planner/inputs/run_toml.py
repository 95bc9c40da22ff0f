"""Reads, checks and writes run.toml, atomically and with a comment of meaning and unit on every line."""

from __future__ import annotations

import re
import tomllib
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import ValidationError

from planner.config.layout import LayoutError
from planner.config.run import RunConfig
from planner.config.section import Section
from planner.counts.groups import parameter_groups
from planner.counts.run import gpu_of, recipe_of, steps_of, tokens_per_step
from planner.errors import ConfigError, UnknownNameError
from planner.files import read_text, write_atomically
from planner.inputs.impossible import impossibility
from planner.inputs.key_names import flags_named, meant_by_key, with_flag
from planner.inputs.profile_cache import without_profile
from planner.inputs.profile_file import (
    NOISY,
    noise_of,
    profile_beside,
    profile_name,
    profile_text,
    states_noise,
    write_with_profile,
)
from planner.json_input import LARGEST_WHOLE
from planner.units import format_count_exact as spell

if TYPE_CHECKING:
    from tomlkit.items import Table

HEADER = """\
gptplan run configuration. Base units throughout: byte, FLOP/s, token, USD.
`gptplan estimate --config FILE` shows its plan, `gptplan run FILE --out DIR` trains it.
Defaults that were used are listed under [provenance] with their rule."""

MOST_TOML = 1 << 20  # bytes; a run.toml has 13,000, and tomllib takes a second for a million
MOST_PARTS = 100  # of a key; ours have three
# possessive, and begun only where no part goes on: a line of a megabyte takes a tenth of a second
_LONG_KEY = re.compile(
    rf"""(?<![\w.-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){{{MOST_PARTS}}}""", re.ASCII
)


def load_config(path: str | PathLike[str]) -> RunConfig:
    """The config of a run.toml.

    Raises FileError if it cannot be read; ConfigError if it is not TOML, has unknown, missing or contradictory keys, or
    names a machine profile that is not beside it or was changed.
    """
    path = Path(path)
    text = read_text(path, MOST_TOML)
    if not text.strip():
        raise ConfigError(f"{path} is empty", remedy="write one with: gptplan plan … -o run.toml")
    try:
        _refuse_long_keys(text)
        values = tomllib.loads(text)
        _refuse_long_numbers(values)
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, arrays nested 1,000 deep
        raise ConfigError(f"{path} is not TOML", why=str(error), remedy="mend that line") from None
    if isinstance(values.get("profile"), str):
        values["profile"] = profile_beside(path, values["profile"])
    return config_from(values, str(path))


def _refuse_long_keys(text: str) -> None:
    """Raises ValueError for a key of very many parts: tomllib takes the square of them in time and memory."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") >= MOST_PARTS and _LONG_KEY.search(line):
            raise ValueError(f"line {number} has a key of more than {MOST_PARTS} parts")


def _refuse_long_numbers(values: Any) -> None:
    """Raises ValueError for a whole number that no message could show: `0xfff…` may have any length."""
    waiting = [values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, int) and abs(value) >= LARGEST_WHOLE:
            raise ValueError(f"it has a whole number of {value.bit_length()} bits, and TOML's have 64")


def config_from(values: dict[str, Any], name: str) -> RunConfig:
    """A config from plain values; `name` stands for them in messages. Raises ConfigError."""
    version = values.get("schema_version")
    if version is True or version != 1:  # True == 1
        raise ConfigError(
            f"{name}: schema_version is {'missing' if version is None else repr(version)}",
            why="this version reads 1",
            remedy="write the file anew with: gptplan plan … -o run.toml",
        )
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        what, why, remedy = explain_validation(error)
        raise ConfigError(f"{name}: {what}", why=why, remedy=remedy) from None
    _refuse_unknown_names(config, name)
    _refuse_impossible_run(config, name)
    return _without_noise(config)


def _without_noise(config: RunConfig) -> RunConfig:
    """The config without a machine profile of a busy machine, which older versions kept; its plans say why."""
    if config.profile is None or not states_noise(config.profile):
        return config
    why = (
        f"that of the file was taken on a busy machine: its noise is {noise_of(config.profile):.0%}, above {NOISY:.0%}"
    )
    return without_profile(config, why)


def _refuse_unknown_names(config: RunConfig, name: str) -> None:
    """A GPU and a recipe are names of presets, which no section sees."""
    for ask, key in ((gpu_of, "hardware.gpu"), (recipe_of, "training.recipe")):
        try:
            ask(config)
        except UnknownNameError as error:
            raise error.with_note(f"{name}: {with_flag(key)}") from None


def _refuse_impossible_run(config: RunConfig, name: str) -> None:
    """Refuse contradictions between sections: steps against the batch, parameter groups against the model."""
    steps, warmup, tokens = steps_of(config), config.schedule.warmup_steps, config.training.tokens
    per_step = tokens_per_step(config)
    if tokens is not None and tokens < per_step:
        raise ConfigError(
            f"{name}: {with_flag('training.tokens')} = {spell(tokens)} is less than one step of {spell(per_step)}",
            why="a step is never partial, so there would be none",
            remedy="give more tokens, or a smaller micro_batch or accumulation",
        )
    if warmup > steps:
        raise ConfigError(
            f"{name}: {with_flag('schedule.warmup_steps')} = {spell(warmup)} is longer "
            f"than the run of {spell(steps)} steps",
            why="the rate would never reach its peak",
            remedy="give fewer warmup_steps, or more tokens",
        )
    if warmup + config.schedule.cooldown_steps > steps:
        raise ConfigError(
            f"{name}: {with_flag('schedule.warmup_steps')} = {spell(warmup)} and "
            f"{with_flag('schedule.cooldown_steps')} = {spell(config.schedule.cooldown_steps)} "
            f"are longer than the run of {spell(steps)} steps",
            why="the rate cannot rise and fall at once",
            remedy="give fewer of them, or more tokens",
        )
    wrong = impossibility(config)
    if wrong:
        raise ConfigError(f"{name}: {wrong[0]}", *wrong[1:])
    if config.optimizer.groups:
        parameter_groups(config)


def explain_validation(error: ValidationError, section: str = "") -> tuple[str, str, str]:
    """The first error of a validation as (what, why, remedy); a misspelt key explains a missing one.

    section: dotted name of what was validated, "" for a whole config. Each key is named with its flag.
    """
    complaints = error.errors(include_url=False)
    first = next((c for c in complaints if c["type"] == "extra_forbidden"), complaints[0])
    location = (*section.split("."), *first["loc"]) if section else first["loc"]
    parts = [str(part) for part in location]
    where = with_flag(".".join(parts))
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _keys_at(location[:-1])
        meant = meant_by_key(parts[-1], ".".join(parts[:-1]), known)
        hint = meant + ("" if meant.endswith("?") else ";") + " " if meant else ""
        why = "an unknown key would be ignored in silence"
        return f"unknown key {where}{more}", why, f"{hint}known: {', '.join(known)}"
    if first["type"] == "missing":
        return f"{where} is missing{more}", "the config is not whole without it", "add it, or write the file anew"
    message = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "value_error":
        what, _, why = message.partition(": ")
        raised = first.get("ctx", {}).get("error")
        remedy = raised.remedy if isinstance(raised, LayoutError) else ""
        return f"{where}: {what}{more}" if where else f"{what}{more}", why, remedy or _remedy_of(what, where)
    message = _readable(message.replace("Input should be", "it must be"))
    return f"{where}: {message}{more}", f"found {_readable(repr(first['input'])[:60])}", "give a value of that kind"


def _readable(text: str) -> str:
    """The text with an exponent in every number of more than fifteen digits."""
    return re.sub(r"\d{16,}", lambda digits: spell(int(digits[0])), text)


def _remedy_of(what: str, section: str) -> str:
    """What to change about the keys that `what` says contradict each other, with their flags.

    The reason that follows it is prose, whose words may be those of other keys.
    """
    keys = flags_named(what, section)
    return f"change {' or '.join(keys)}" if keys else "change one of the two"


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    section: type[Any] = RunConfig
    for part in location:
        field = section.model_fields.get(str(part)) if issubclass(section, Section) else None
        found = [a for a in get_args(field.annotation) or (field.annotation,) if isinstance(a, type)] if field else []
        if not found:
            return []
        section = found[0]
    return sorted(section.model_fields) if issubclass(section, Section) else []


def config_text(config: RunConfig, profile: str | None = None) -> str:
    """The TOML of a config, each line with its meaning; reading it gives an equal config.

    profile: the name of the file that has its profile; None: the text holds the profile itself, if there is one.
    """
    import tomlkit  # 25 ms, wanted only where a file is written

    document = tomlkit.document()
    for line in HEADER.splitlines():
        document.add(tomlkit.comment(line))
    document.add(tomlkit.nl())
    document.add("schema_version", tomlkit.item(config.schema_version))
    if profile is not None and config.profile is not None:
        named = tomlkit.item(profile)
        named.comment(str(RunConfig.model_fields["profile"].description))
        document.add("profile", named)
    for name, value in config:
        if isinstance(value, Section):
            document.add(tomlkit.nl())
            document.add(name, _table(value))
    if profile is None and config.profile is not None:
        document.add(tomlkit.nl())
        document.add("profile", tomlkit.item(config.profile))
    return tomlkit.dumps(document)


def file_text(config: RunConfig, path: Path) -> str:
    """What `write_config` writes into `path`: it names the profile file beside it."""
    named = None if config.profile is None else profile_name(path, profile_text(config.profile))
    return config_text(config, named)


def write_config(path: Path, config: RunConfig, *, overwrite: bool = False) -> None:
    """Write a config, and beside it its machine profile if it has one: both or neither. Raises FileError."""
    text = file_text(config, path)
    if config.profile is None:
        write_atomically(path, text, overwrite=overwrite)
    else:
        write_with_profile(path, config.profile, text, overwrite=overwrite)


def _table(section: Section) -> Table:
    import tomlkit

    table = tomlkit.table()
    for name, value in section:
        if value is None:
            continue  # TOML has no null: absent is unknown, as everywhere
        if isinstance(value, Section):
            table.add(name, _table(value))
            continue
        if isinstance(value, tuple) and all(isinstance(item, Section) for item in value):
            array = tomlkit.aot()
            for item in value:
                array.append(_table(item))
            table.add(name, array)
            continue
        item = tomlkit.item(list(value) if isinstance(value, tuple) else value)
        meaning = type(section).model_fields[name].description
        if meaning:
            item.comment(meaning)
        table.add(name, item)
    return table
