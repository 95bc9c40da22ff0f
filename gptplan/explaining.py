"""What `gptplan explain` shows: a calculation, a number of a plan, or the list of both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from planner.analysis.textbook.catalogue import calculations
from planner.analysis.textbook.register import Calculation
from planner.config.run import RunConfig
from planner.errors import InputError, UnknownNameError
from planner.inputs.flags import Flags

EXAMPLE = Flags(params="125M", tokens="10B", gpu="a100-80gb")  # whose keys are listed where no plan is given
EXAMPLE_FLAGS = "--params 125M --tokens 10B --gpu a100-80gb"


def explain_calculation(found: Calculation, settings: Sequence[str], *, planned: bool, json: bool) -> None:
    """Compute a calculation with the typed arguments and show it.

    Raises InputError for flags of a plan beside it, and for arguments that cannot be used.
    """
    from gptplan.output import show, show_json
    from planner.analysis.textbook.arguments import arguments_of
    from planner.report.explain import calculation_json, calculation_text

    if planned:
        raise InputError(
            f"{found.id} ({found.name}) is a calculation of its own",
            why="flags of a plan do not enter it",
            remedy=f"change its arguments by --set: {', '.join(found.defaults) or 'it has none'}",
        )
    values = arguments_of(found, settings)
    results = found.answer(values)
    if json:
        show_json(calculation_json(found, values, results))
    else:
        show(calculation_text(found, values, results))


def explain_leaf(key: str, flags: Flags, config: Path | None, as_of: str | None, *, changed: bool, json: bool) -> None:
    """Show where a number of the plan comes from. Raises UnknownNameError, InputError, and what drafting raises."""
    from gptplan.output import columns, show, show_json
    from planner.analysis.explain.explain import Explainer
    from planner.report.explain import as_json, explanation_text

    if not flags.anything() and config is None:
        _refuse_unknown(key, as_of)
    if changed:
        raise InputError(
            f"--set changes a calculation's argument, and {key!r} is a number of a plan",
            why="a plan's numbers follow from its flags",
            remedy="change the flag itself, such as --gpus 8",
        )
    from gptplan.drafting import config_of

    found = Explainer(config_of(flags, config, as_of)).explain(key)
    if json:
        show_json(as_json(found))
    else:
        show(explanation_text(found, columns()))


def show_list(flags: Flags, config: Path | None, as_of: str | None, json: bool) -> None:
    """Every key that can be explained: of the plan asked for, else of an example that is named."""
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
    """Without a plan: a key that no plan has is refused with the nearest names, before the plan is asked for."""
    from planner.analysis.explain.explain import Explainer
    from planner.analysis.explain.keys import number_at

    example = Explainer(_config(EXAMPLE, None, as_of))
    names = [*(c.id for c in calculations()), *(c.name for c in calculations()), *example.all_keys()]
    try:
        number_at(example.document, key)
    except UnknownNameError:
        raise UnknownNameError("key", key, names) from None
    except InputError:
        pass  # unknown in the example; it may be known in the plan that is asked for next
    raise InputError(
        f"{key} is a number of a plan, and no plan is given",
        why="its value follows from a model and a token budget",
        remedy=f"add the flags of estimate: gptplan explain {key} {EXAMPLE_FLAGS}",
    )
