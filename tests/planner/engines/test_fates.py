"""No key of a run.toml is dropped in silence: each is carried, told, refused by its name, or without effect."""

from __future__ import annotations

import pytest

from planner.config.run import RunConfig
from planner.engines.engine import all_differences
from planner.engines.export import ENGINES, RECORD, engine_export
from planner.engines.fates import Carried, Differs, Fixed, Irrelevant, all_keys
from planner.errors import PlanError
from tests.planner.engines.configs import BASES, base_of, before, every_key, others


def _outcome(config: RunConfig, engine: str) -> tuple[str, object]:
    """What an export comes to: refused with its reasons, or the files and the differences."""
    try:
        done = engine_export(config, engine)
    except PlanError as error:
        return "refused", error.why
    return "files", ({name: text for name, text in done.files.items() if name != RECORD}, done.differences)


def test_each_engine_has_a_base_and_a_fate_for_every_key() -> None:
    assert set(BASES) == set(ENGINES)
    for engine in ENGINES.values():
        missing = set(every_key(base_of(engine.name), engine.name)) - set(engine.fates)
        unknown = set(engine.fates) - {*all_keys(), *every_key(base_of(engine.name), engine.name)}
        assert not missing and not unknown, (engine.name, missing, unknown)


@pytest.mark.parametrize("name", ENGINES)
def test_every_key_is_carried_told_refused_or_without_effect(name: str) -> None:
    engine, base = ENGINES[name], base_of(name)
    silent, tried = [], 0
    for key in every_key(base, name):
        fate, start = engine.fates[key], _outcome(before(base, key), name)
        found = [(other, _outcome(other, name)) for other in others(base, key)]
        tried += len(found)
        kinds = set()
        for other, (kind, what) in found:
            if kind == "refused":
                kinds.add("named" if f"{key} = " in str(what) or f"{key}." in str(what) else "refused")
            else:
                kinds.add("same" if (kind, what) == start else "changed")
            if isinstance(fate, Differs) and kind == "files":
                told = any(key in one for one in all_differences(engine, other)) or "changed" in kinds
                kinds.add("told" if told else "silent")
        good = {
            Carried: kinds & {"changed", "named", "refused"} and "same" not in kinds,
            Fixed: kinds <= {"named", "refused"},
            Irrelevant: kinds <= {"same", "refused"},
            Differs: kinds <= {"told", "changed", "refused", "named"},
        }[type(fate)]
        if (found and not good) or (not found and key != "schema_version"):
            silent.append((key, type(fate).__name__, sorted(kinds)))
    assert not silent, silent
    assert tried > 100


@pytest.mark.parametrize("name", ENGINES)
def test_a_refusal_names_every_key_in_the_way(name: str) -> None:
    base = base_of(name)
    both = base.model_copy(
        update={
            "optimizer": base.optimizer.model_copy(update={"clip_value": 0.5}),
            "checkpoints": base.checkpoints.model_copy(update={"keep_every": 7}),
        }
    )
    kind, why = _outcome(both, name)
    assert kind == "refused" and "optimizer.clip_value = 0.5" in str(why) and "checkpoints.keep_every = 7" in str(why)
