"""Roles of a model's parameters: each layer's constructor states them, initialisation and optimizers read them."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from planner.counts.roles import Role

M = TypeVar("M", bound=nn.Module)
ATTRIBUTE = "parameter_roles"  # of a module: {name of one of its own parameters: its role}


def assign_roles(module: M, **roles: Role) -> M:
    """The same module, with a role for each of its own parameters; names that it does not have are harmless."""
    object.__setattr__(module, ATTRIBUTE, roles)
    return module


def parameter_roles(model: nn.Module) -> dict[str, Role]:
    """The role of every parameter by its full name, in the model's order; a tied weight once, under its first name."""
    found: dict[str, Role] = {}
    for prefix, module in model.named_modules():
        for name, role in getattr(module, ATTRIBUTE, {}).items():
            found[f"{prefix}.{name}" if prefix else name] = role
    return {name: found[name] for name, _ in model.named_parameters()}
