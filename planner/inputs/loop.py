"""The sections that steer the training loop: what was typed, else the file's, else their defaults."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import ValidationError

from planner.config.loop import CheckpointConfig, EvaluationConfig, GuardConfig
from planner.config.run import RunConfig
from planner.config.section import Section
from planner.errors import InputError, UnknownNameError
from planner.inputs.flags import Flags, yes_or_no
from planner.inputs.run_toml import explain_validation


def loop_sections(flags: Flags, base: RunConfig | None) -> dict[str, Section]:
    """`evaluation`, `guard` and `checkpoints` of a config. Raises InputError and its kinds."""
    evaluation = {"every": flags.count("eval_every"), "tokens": flags.count("eval_tokens")}
    guard = {
        "on_spike": _known(flags.on_spike, get_args(GuardConfig.model_fields["on_spike"].annotation), "spike policy")
    }
    return {
        "evaluation": _changed(
            EvaluationConfig, base and base.evaluation, evaluation | {"patience": flags.count("patience")}
        ),
        "guard": _changed(GuardConfig, base and base.guard, guard),
        "checkpoints": _changed(
            CheckpointConfig,
            base and base.checkpoints,
            {"keep": flags.count("keep_checkpoints"), "asynchronous": yes_or_no(flags, "async_save")},
        ),
    }


def _known(text: str | None, known: tuple[str, ...], kind: str) -> str | None:
    if text is not None and text not in known:
        raise UnknownNameError(kind, text, known)
    return text


def _changed(section: type[Section], old: Section | None, flags: dict[str, Any]) -> Section:
    values = old.model_dump() if old else {}
    try:
        return section(**values | {key: value for key, value in flags.items() if value is not None})
    except ValidationError as error:
        raise InputError(*explain_validation(error)) from None
