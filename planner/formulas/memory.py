"""Bytes that live as long as the run: weights, gradients, optimizer states; the rule of thumb; sharding."""

from __future__ import annotations

from planner.formulas.formula import formula
from planner.formulas.ops import Num


@formula(
    gives="bytes",
    source="rule of thumb: 2 (half-precision weights) + 4 (master) + 4 (m) + 4 (v); no gradient",
    checked_against="none: a rule of thumb; the memory breakdown of the recipe is shown next to it",
)
def rule_14_bytes(parameters: Num) -> Num:
    """The 14-byte rule: model and optimizer without the gradient. A rule of thumb, not a recipe that can run."""
    return 14 * parameters


@formula(gives="bytes", source="definition")
def weights_bytes(parameters: Num, weight_bytes: Num) -> Num:
    """All weights, in the type they are stored in."""
    return parameters * weight_bytes


@formula(gives="bytes", source="definition")
def master_weights_bytes(parameters: Num, master_bytes: Num) -> Num:
    """fp32 copies of weights that are kept in fewer bits; 0 where the weights are fp32."""
    return parameters * master_bytes


@formula(gives="bytes", source="definition")
def gradients_bytes(parameters: Num, gradient_bytes: Num) -> Num:
    """All gradients, once backward has made them."""
    return parameters * gradient_bytes


@formula(gives="bytes", source="Loshchilov and Hutter 2019 (arXiv 1711.05101): a first and a second moment each")
def optimizer_bytes(parameters: Num, state_bytes: Num) -> Num:
    """Moments of the optimizer."""
    return parameters * state_bytes


_ENTRY = 98  # byte of a tensor's JSON entry, mean over the reference model's names
_JSON = 5000  # byte: extra.safetensors, manifest.json and state.json, which lists every setting; 4,985 measured


@formula(
    gives="bytes",
    source="safetensors format: 8 bytes, a JSON entry per tensor, the data; entries measured",
    checked_against="size of the files that a run of the reference trainer writes: 1 %",
)
def checkpoint_bytes(saved_weights_bytes: Num, optimizer_bytes: Num, entries: Num) -> Num:
    """The weights that are updated, the optimizer's state, a header entry for every tensor in the files."""
    return saved_weights_bytes + optimizer_bytes + entries * _ENTRY + _JSON


@formula(gives="bytes", source="Rajbhandari et al. 2020 (ZeRO, arXiv 1910.02054), section 5")
def sharded_state_bytes(parameters: Num, unsharded_bytes: Num, sharded_bytes: Num, shards: Num) -> Num:
    """Bytes per device when part of the state is divided among `shards` devices."""
    return parameters * (unsharded_bytes + sharded_bytes / shards)


@formula(gives="bytes", source="definition")
def left_bytes(capacity_bytes: Num, bytes: Num) -> Num:
    """Bytes of a card left after `bytes`."""
    return capacity_bytes - bytes
