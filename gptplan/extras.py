"""Optional parts: whether they are installed, said before anything is done."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from planner.errors import MissingExtraError, PlanError


def need_torch(purpose: str) -> None:
    """Load PyTorch and safetensors, which takes seconds.

    Raises MissingExtraError where one is not installed, PlanError where one cannot be loaded.
    """
    for package in ("torch", "safetensors"):
        if find_spec(package) is None:
            raise MissingExtraError(package, "train", purpose)
    for package in ("torch", "safetensors"):
        _load(package, purpose)


def _load(package: str, purpose: str) -> None:
    """Import a package; one message where a library of its own is missing or broken, or memory is short."""
    try:
        import_module(package)
    except Exception as error:  # an ImportError, OSError or MemoryError; under memory limits SystemError too
        said = str(error).strip().splitlines()
        raise PlanError(
            f"the package {package!r} is installed, but cannot be loaded: {purpose} needs it",
            why=": ".join([type(error).__name__, *said[:1]]),
            remedy=f"try it: python -c 'import {package}'; free memory, or install it again",
        ) from error


def need_matplotlib(purpose: str) -> None:
    """Raises MissingExtraError unless matplotlib is installed; does not import it."""
    if find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", "plot", purpose)


def need_textual_serve(purpose: str) -> None:
    """Raises MissingExtraError unless textual-serve is installed; does not import it."""
    if find_spec("textual_serve") is None:
        raise MissingExtraError("textual-serve", "serve", purpose)
