"""gptplan: plan a GPT training run, run it, and see every prediction beside what really happened.

    import gptplan
    plan = gptplan.estimate(model="gpt2", tokens="10B", micro_batch=8)

Nothing but this file is imported before one of the names is used.
"""

TYPE_CHECKING = False  # of typing, which takes milliseconds; a type checker knows the name

__version__ = "0.1.0"

if TYPE_CHECKING:
    from gptplan.functions import compare, estimate, findings, fit, plan, save_config, search
    from gptplan.results import Comparison, Plan
    from planner.config.run import RunConfig
    from planner.errors import InputError, PlanError
    from planner.finding import Finding
    from planner.inputs.run_toml import load_config

__all__ = [
    "Comparison",
    "Finding",
    "InputError",
    "Plan",
    "PlanError",
    "RunConfig",
    "__version__",
    "compare",
    "estimate",
    "findings",
    "fit",
    "load_config",
    "plan",
    "save_config",
    "search",
]

if not TYPE_CHECKING:  # a type checker would take every other name for one of this module, too
    _MODULES = {
        "Comparison": "gptplan.results",
        "Finding": "planner.finding",
        "InputError": "planner.errors",
        "Plan": "gptplan.results",
        "PlanError": "planner.errors",
        "RunConfig": "planner.config.run",
        "compare": "gptplan.functions",
        "estimate": "gptplan.functions",
        "findings": "gptplan.functions",
        "fit": "gptplan.functions",
        "load_config": "planner.inputs.run_toml",
        "plan": "gptplan.functions",
        "save_config": "gptplan.functions",
        "search": "gptplan.functions",
    }

    def __getattr__(name):
        """The public name, imported at its first use. Raises AttributeError for any other."""
        if name not in _MODULES:
            raise AttributeError(f"module 'gptplan' has no attribute {name!r}; it has: {', '.join(__all__)}")
        from importlib import import_module

        value = globals()[name] = getattr(import_module(_MODULES[name]), name)
        return value

    def __dir__():
        return sorted({*globals(), *__all__})
