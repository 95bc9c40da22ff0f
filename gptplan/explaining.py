"""The output of `gptplan explain`: a calculation, a number of a plan, or the list of both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from planner.analysis.textbook.catalogue import calculations
from planner.analysis.textbook.register import Calculation
from planner.config.run import RunConfig
from planner.errors import InputError, UnknownNameError
from planner.inputs.flags import Flags

EXAMPLE = Flags(params="125M", tokens="10B", gpu="a100-80gb")  # the plan whose keys are listed if none is given
EXAMPLE_FLAGS = "--params 125M --tokens 10B --gpu a100-80gb"


def explain_calculation(found: Calculation, settings: Sequence[str], *, planned: bool, json: bool) -> None:
    """Show a calculation with the arguments from --set.

    Raises InputError if flags of a plan are given too, or for arguments that cannot be used.
    """
    from gptplan.output import show, show_json
    from planner.analysis.textbook.arguments import arguments_of
    from planner.report.explain import calculation_json, calculation_text

    if planned:
        raise InputError(
            f"{found.id} ({found.name}) takes no flags of a plan",
            why="it is a calculation on its own, not a number of a plan",
            remedy=f"set its arguments with --set: {', '.join(found.defaults) or 'it has none'}",
        )
    values = arguments_of(found, settings)
    results = found.answer(values)
    if json:
        show_json(calculation_json(found, values, results))
    else:
        show(calculation_text(found, values, results))


def explain_leaf(key: str, flags: Flags, config: Path | None, as_of: str | None, *, changed: bool, json: bool) -> None:
    """Show where a number of the plan comes from. Raises UnknownNameError, InputError, and as `config_of`."""
    from gptplan.output import columns, show, show_json
    from planner.analysis.explain.explain import Explainer
    from planner.report.explain import as_json, explanation_text

    if not flags.anything() and config is None:
        _refuse_unknown(key, as_of)
    if changed:
        raise InputError(
            f"--set works for calculations only, and {key!r} is a number of a plan",
            why="a plan's numbers are computed from its flags",
            remedy="change the flag, such as --gpus 8",
        )
    from gptplan.drafting import config_of

    found = Explainer(config_of(flags, config, as_of)).explain(key)
    if json:
        show_json(as_json(found))
    else:
        show(explanation_text(found, columns()))


def show_list(flags: Flags, config: Path | None, as_of: str | None, json: bool) -> None:
    """Show every key that can be explained: of the given plan, else of the example."""
    from gptplan.output import show, show_json
    from planner.analysis.explain.explain import Explainer
    from planner.report.explain import list_json, list_text

    given = flags.anything() or config is not None
    keys = Explainer(_config(flags if given else EXAMPLE, config, as_of)).all_keys()
    plan = "this plan" if given else f"estimate {EXAMPLE_FLAGS}"
    if json:
        show_json(list_json(keys, plan))
    else:
        show(list_text(keys, plan))


def _config(flags: Flags, config: Path | None, as_of: str | None) -> RunConfig:
    from gptplan.drafting import config_of

    return config_of(flags, config, as_of)


def _refuse_unknown(key: str, as_of: str | None) -> None:
    """Without a plan: refuse an unknown key with the nearest names, else ask for a plan."""
    from planner.analysis.explain.explain import Explainer
    from planner.analysis.explain.keys import number_at

    example = Explainer(_config(EXAMPLE, None, as_of))
    names = [*(c.id for c in calculations()), *(c.name for c in calculations()), *example.all_keys()]
    try:
        number_at(example.document, key)
    except UnknownNameError:
        raise UnknownNameError("key", key, names) from None
    except InputError:
        pass  # null in the example; it may have a value in another plan
    raise InputError(
        f"{key} is a number of a plan, and no plan was given",
        why="its value depends on a model and a number of tokens",
        remedy=f"add the flags of estimate: gptplan explain {key} {EXAMPLE_FLAGS}",
    )
