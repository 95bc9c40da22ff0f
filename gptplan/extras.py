"""Optional parts: whether they are installed, said before anything is done."""

from __future__ import annotations

from importlib.util import find_spec

from planner.errors import MissingExtraError


def need_torch(purpose: str) -> None:
    """Raises MissingExtraError unless PyTorch and safetensors are installed; imports neither."""
    for package in ("torch", "safetensors"):
        if find_spec(package) is None:
            raise MissingExtraError(package, "train", purpose)


def need_matplotlib(purpose: str) -> None:
    """Raises MissingExtraError unless matplotlib is installed; does not import it."""
    if find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", "plot", purpose)


def need_textual_serve(purpose: str) -> None:
    """Raises MissingExtraError unless textual-serve is installed; does not import it."""
    if find_spec("textual_serve") is None:
        raise MissingExtraError("textual-serve", "serve", purpose)
