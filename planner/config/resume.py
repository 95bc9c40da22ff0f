"""What a config may change between a run and its continuation: a rule, with its reason, for every key.

    allowed     said in a line, and obeyed
    warned      said with what no longer holds, and obeyed
    same batch  as warned while micro_batch times accumulation times gpus stays what it was, else refused
    on request  refused, but for --new-schedule, which makes a warning of it
    refused     the run stops before anything is trained

A checkpoint keeps the values of `settings_of`. A key that it lacks came later and counts as today's default.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic_core import to_jsonable_python

from planner.config.options import OPTIONS
from planner.config.renamed import settings_with_new_names
from planner.config.resume_rules import WITHOUT_FLAG, Rule
from planner.config.run import RunConfig
from planner.config.section import Section

Verdict = Literal["allowed", "warned", "refused"]
NEW_SCHEDULE = "--new-schedule"
# sections that a resumed run is compared in; the rest of a config is provenance
COMPARED = ("model", "training", "optimizer", "schedule", "hardware", "parallel", "evaluation", "guard", "checkpoints")


@dataclass(frozen=True, slots=True)
class Change:
    """One value that differs between a checkpoint and the config that continues from it."""

    key: str
    before: object
    now: object
    verdict: Verdict
    reason: str

    def text(self) -> str:
        """`training.steps was 8, is now 9`."""
        return f"{self.key} was {self.before}, is now {self.now}"


def _rules() -> Iterator[tuple[str, Rule]]:
    """Each key with its rule; a section within a section, such as model.moe, is one key."""
    for option in OPTIONS:
        if option.resume is not None:
            yield ".".join(option.key.split(".")[:2]), option.resume
    for rule, _, keys in WITHOUT_FLAG:
        yield from ((".".join(key.split(".")[:2]), rule) for key in keys)


RULE_OF = dict(_rules())
_UNKNOWN = Rule("refused", "this version has no rule for it")


def keys_of_a_config() -> Iterator[str]:
    """Every key of a RunConfig by its dotted name; a section within a section (model.moe) is one key."""
    for name, field in RunConfig.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from (f"{name}.{key}" for key in kind.model_fields)
        else:
            yield name


def settings_of(config: RunConfig) -> dict[str, Any]:
    """What a checkpoint keeps of its config: every value of the compared sections, by dotted name."""
    return {
        f"{section}.{key}": value
        for section in COMPARED
        for key, value in getattr(config, section).model_dump(mode="json").items()
    }


def hash_of(settings: dict[str, Any]) -> str:
    """sha256 of settings, hex: two runs of one config have the same."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def changes(stored: dict[str, Any], now: dict[str, Any], new_schedule: bool = False) -> tuple[Change, ...]:
    """What the settings `now` change against those of a checkpoint, refusals first.

    stored: as `settings_of` gave them, perhaps in an older version. new_schedule: what is refused but on request is
    warned of.
    """
    before = _completed(settings_with_new_names(stored), now)
    found = [
        Change(key, before.get(key), now.get(key), *_judged(key, before, now, new_schedule))
        for key in sorted(set(before) | set(now))
        if before.get(key) != now.get(key)
    ]
    order: tuple[Verdict, ...] = ("refused", "warned", "allowed")
    return tuple(sorted(found, key=lambda change: order.index(change.verdict)))


def _completed(stored: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Stored settings with the defaults of keys that came later; words that older formats left out are as they are."""
    missing: dict[str, Any] = {}
    for key in now.keys() - stored.keys():
        section, _, name = key.partition(".")
        kind: Any = RunConfig.model_fields[section].annotation
        field = kind.model_fields[name]
        # format 1 left out what is allowed to change, and the number of devices, which was one
        if key == "hardware.gpus":
            missing[key] = 1
        elif RULE_OF.get(key, _UNKNOWN).verdict == "allowed":
            missing[key] = now[key]
        elif not field.is_required():
            missing[key] = to_jsonable_python(field.get_default(call_default_factory=True))
    return {key: _completed_within(_annotation(key), value) for key, value in stored.items()} | missing


def _annotation(key: str) -> Any:
    """The type of a key's value; None for a key that no section has."""
    section, _, name = key.partition(".")
    kind: Any = RunConfig.model_fields[section].annotation if section in COMPARED else None
    return kind.model_fields[name].annotation if kind is not None and name in kind.model_fields else None


def _completed_within(annotation: Any, value: Any) -> Any:
    """A value with today's defaults in the sections that it is made of: model.moe is one, optimizer.groups a list."""
    kind = _section_of(annotation)
    if kind is None:
        return value
    if isinstance(value, list | tuple):
        return [_completed_within(kind, each) for each in value]
    if not isinstance(value, dict):
        return value
    fields = kind.model_fields
    later = {
        name: to_jsonable_python(field.get_default(call_default_factory=True))
        for name, field in fields.items()
        if name not in value and not field.is_required()
    }
    return later | {
        name: _completed_within(fields[name].annotation, each) if name in fields else each
        for name, each in value.items()
    }


def _section_of(annotation: Any) -> type[Section] | None:
    """The section class in a type such as `MoeConfig | None` or `tuple[GroupConfig, ...]`; None: it has none."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((kind for kind in map(_section_of, get_args(annotation)) if kind is not None), None)


def _judged(key: str, before: dict[str, Any], now: dict[str, Any], new_schedule: bool) -> tuple[Verdict, str]:
    rule = RULE_OF.get(key, _UNKNOWN)
    if rule.verdict == "on request":
        return ("warned" if new_schedule else "refused"), rule.reason
    if rule.verdict == "same batch":
        if _sequences(before) == _sequences(now):
            return "warned", rule.reason
        return "refused", "micro_batch times accumulation times gpus, the batch, is another"
    return rule.verdict, rule.reason


def _sequences(settings: dict[str, Any]) -> int:
    """Of one optimizer step, on all devices."""
    keys = ("training.micro_batch", "training.accumulation", "hardware.gpus")
    return math.prod(int(settings[key]) for key in keys)


def needs_request(found: tuple[Change, ...]) -> bool:
    """Whether all that is refused would be allowed with --new-schedule."""
    refused = [change for change in found if change.verdict == "refused"]
    return bool(refused) and all(RULE_OF.get(change.key, _UNKNOWN).verdict == "on request" for change in refused)


def rules_table() -> str:
    """The rules as Markdown."""
    lines = ["| keys | a change is | because |", "|---|---|---|"]
    words = {"same batch": "warned of while their product stays, else refused", "warned": "warned of",
             "on request": f"refused without `{NEW_SCHEDULE}`"}  # fmt: skip
    for rule in dict.fromkeys(RULE_OF.values()):
        keys = ", ".join(f"`{key}`" for key, each in RULE_OF.items() if each == rule)
        lines.append(f"| {keys} | {words.get(rule.verdict, rule.verdict)} | {rule.reason} |")
    return "\n".join(lines)
