"""The optimizer of a draft: what was typed, the file's own where it is the same optimizer, else published defaults."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from planner import presets
from planner.config.run import IMPLEMENTATIONS, WITH_OWN_STATE_TYPE, OptimizerConfig, RunConfig
from planner.errors import InputError
from planner.formulas.itemsize import ITEMSIZES
from planner.inputs.flags import Assumptions, Flags
from planner.inputs.run_toml import explain_validation
from planner.rules import rules

CLIP_NORM = 1.0
MOMENTUM = {"sgd": "beta1", "muon": "momentum"}  # optimizers with a momentum: the key that holds it


def optimizer_of(flags: Flags, base: RunConfig | None, recipe: str, assumptions: Assumptions) -> OptimizerConfig:
    """The whole section; `recipe` is the id of the run's recipe.

    Raises UnknownNameError for unknown names and InputError for combinations that no optimizer has.
    """
    old = base.optimizer if base else None
    typed = flags.keys("optimizer")
    name = typed.get("name") or (old.name if old else "adamw")
    momentum = _momentum(name, flags)
    typed |= momentum
    same = old if old and old.name == name else None
    if not same or (momentum and "optimizer" in assumptions.found):
        _assume_published(name, momentum, assumptions)
    values = same.model_dump() if same else _defaults(name, old, assumptions)
    state_dtype = typed.get("state_dtype") or values["state_dtype"]
    if state_dtype is not None and name not in WITH_OWN_STATE_TYPE:
        raise InputError(
            f"--state-dtype {state_dtype}: {name} keeps its state in one type only",
            why="no implementation of it does otherwise",
            remedy=f"leave it out, or take --optimizer {' or '.join(WITH_OWN_STATE_TYPE)}",
        )
    ways = _ways(name, state_dtype, presets.recipe(recipe))
    every = tuple(dict.fromkeys(way for ways_of_one in IMPLEMENTATIONS.values() for way in ways_of_one))
    way = typed.get("implementation")
    if way is not None and way not in ways:
        raise InputError(
            f"--optimizer-implementation {way}: {name} with {state_dtype or 'its usual'} moments has no such update",
            why=f"there is {' and '.join(ways)}",
            remedy=f"give --optimizer-implementation {ways[0]}, or leave it out",
        )
    if way is None:
        way = values["implementation"] if values["implementation"] in ways else ways[0]
        if way != "fused":
            assumptions.add(
                "optimizer_implementation", way, f"default: the first that {name} has of {', '.join(every)}"
            )
    try:
        return OptimizerConfig(**values | typed | {"name": name, "implementation": way, "state_dtype": state_dtype})
    except ValidationError as error:
        raise InputError(*explain_validation(error, "optimizer")) from None


def _momentum(name: str, flags: Flags) -> dict[str, float]:
    """The key that --momentum sets; none where it was not typed. Raises InputError where there is no momentum."""
    value = flags.number("momentum")
    if value is None:
        return {}
    if name not in MOMENTUM:
        raise InputError(
            f"--momentum has no effect on {name}",
            why=f"{' and '.join(MOMENTUM)} have a momentum; the averages of others are its betas, in run.toml",
            remedy=f"leave it out, or take --optimizer {' or '.join(MOMENTUM)}",
        )
    if value == 1:
        raise InputError(
            "--momentum: 1 never forgets a gradient",
            why="the velocity would be the sum of all gradients",
            remedy="give less than 1, such as 0.9",
        )
    return {MOMENTUM[name]: value}


def _defaults(name: str, old: OptimizerConfig | None, assumptions: Assumptions) -> dict[str, Any]:
    """Published values of another optimizer than the file's; clipping is the run's matter and stays."""
    rule = rules("optimizers")[name]
    if old is None:
        assumptions.add("clip_norm", str(CLIP_NORM), "GPT-3 appendix B (arXiv 2005.14165)")
    kept = {key: rule[key] for key in ("beta1", "beta2", "eps", "weight_decay")}
    kept |= (
        {"clip_norm": old.clip_norm, "clip_value": old.clip_value, "groups": old.groups}
        if old
        else {"clip_norm": CLIP_NORM}
    )
    return kept | {"implementation": IMPLEMENTATIONS[name][0], "state_dtype": None}


def _assume_published(name: str, momentum: dict[str, float], assumptions: Assumptions) -> None:
    """Note what comes from the optimizer's paper: not its momentum where that was typed."""
    rule = rules("optimizers")[name]
    said = [rule["title"]]
    if rule["beta2"]:
        said.append(f"betas {rule['beta1']} and {rule['beta2']}")
    elif rule["beta1"] and not momentum:
        said.append(f"momentum {rule['beta1']}")
    if name.startswith("adamw"):
        said.append("eps 1e-8")
    assumptions.add("optimizer", ", ".join([*said, f"decay {rule['weight_decay']:g}"]), rule["source"])


def _ways(name: str, state_dtype: str | None, recipe: presets.Recipe) -> tuple[str, ...]:
    """Implementations that there are; PyTorch's own AdamW keeps moments of the weights' type only."""
    updated = recipe.master_weights_bytes_per_parameter or recipe.weights_bytes_per_parameter
    moments = state_dtype or recipe.moments_dtype
    if name == "adamw" and moments is not None and ITEMSIZES[moments] != updated:
        return ("for-loop",)
    return IMPLEMENTATIONS[name]
