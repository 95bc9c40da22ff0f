"""Which parameters share a rate and a weight decay: the rules of `optimizer.groups`, and decay on matrices only.

The reference trainer asks `key_of` for each of its weights, the account of the update does, and `gptplan groups` shows
what comes of it; none of them has a rule of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from planner.config.run import OptimizerConfig, RunConfig
from planner.counts.roles import Role
from planner.counts.tensors import ParameterTensor, named_tensors
from planner.errors import ConfigError, nearest

Key = tuple[int, bool]  # index of the rule, that of "all others" being the last; whether the tensor is a vector
EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class ParameterGroup:
    """Tensors that are updated alike: factor on the schedule's rate, weight decay, how many there are."""

    rule: str
    optimizer: str
    rate: float
    weight_decay: float
    tensors: int
    parameters: int
    examples: tuple[str, ...]


def key_of(config: OptimizerConfig, name: str, role: Role) -> Key:
    """The group of a tensor, as a key that sorts: the first rule that matches its name, matrices before vectors."""
    found = (i for i, group in enumerate(config.groups) if fnmatchcase(name, group.match))
    return next(found, len(config.groups)), not role.decays


def rate_and_decay(config: OptimizerConfig, key: Key) -> tuple[float, float]:
    """Factor on the rate, and weight decay, of a group."""
    index, is_vector = key
    usual = 0.0 if is_vector else config.weight_decay
    if index == len(config.groups):
        return 1.0, usual
    own = config.groups[index]
    return own.rate, usual if own.weight_decay is None else own.weight_decay


def parameter_groups(config: RunConfig) -> tuple[ParameterGroup, ...]:
    """All groups of a run, in the order of the rules. Raises ConfigError for a rule that no parameter follows."""
    optimizer, found = config.optimizer, dict[tuple[Key, str], list[ParameterTensor]]()
    for tensor in named_tensors(config.model):
        kind = optimizer.name
        if kind == "muon" and not tensor.role.has_muon:
            kind = "adamw"
        found.setdefault((key_of(optimizer, tensor.name, tensor.role), kind), []).append(tensor)
    _refuse_idle_rules(config, {index for (index, _), _ in found})
    return tuple(_group(optimizer, key, kind, found[key, kind]) for key, kind in sorted(found))


def _group(config: OptimizerConfig, key: Key, kind: str, tensors: list[ParameterTensor]) -> ParameterGroup:
    rate, decay = rate_and_decay(config, key)
    rule = config.groups[key[0]].match if key[0] < len(config.groups) else "all others" if config.groups else "all"
    names = tuple(t.name for t in tensors[:EXAMPLES])
    parts = "vectors" if key[1] else "matrices"
    return ParameterGroup(f"{rule}, {parts}", kind, rate, decay, len(tensors), sum(t.count for t in tensors), names)


def _refuse_idle_rules(config: RunConfig, followed: set[int]) -> None:
    for index, group in enumerate(config.optimizer.groups):
        if index in followed:
            continue
        names = [t.name for t in named_tensors(config.model)]
        if any(fnmatchcase(name, group.match) for name in names):
            raise ConfigError(
                f'optimizer.groups: match = "{group.match}" is left without a parameter',
                why="the first match counts, and rules before it take all of them",
                remedy="put it before them, or take it out",
            )
        close = nearest(group.match, names) or names[:EXAMPLES]
        raise ConfigError(
            f'optimizer.groups: match = "{group.match}" is no parameter of {config.model.name}',
            why="a rule that nothing follows is a misspelt one",
            remedy=f"did you mean {' or '.join(close)}? * stands for any characters; gptplan groups shows all names",
        )
