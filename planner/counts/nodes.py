"""How many GPUs a card's own links join, a server or a rack, and how many network cards lead out of it."""

from __future__ import annotations

from planner import presets
from planner.config.run import RunConfig
from planner.rules import rules


def gpus_per_domain(gpu_id: str) -> int:
    """GPUs that the links of a card join, as it is sold; of a card that does not say it, a usual server's."""
    found = presets.gpu(gpu_id).link_domain if gpu_id in presets.gpu_ids() else None
    return found or int(rules("time")["nodes"]["gpus"])


def domain_of(config: RunConfig) -> int:
    """GPUs of a run that links join: its own number if it has one."""
    return config.hardware.gpus_per_node or gpus_per_domain(config.hardware.gpu)


def network_cards_of(config: RunConfig) -> float:
    """Network cards of a domain of the run: as the card is sold, in proportion where the run's domain is another.

    Of a card that does not say it: one for each GPU.
    """
    domain, gpu = domain_of(config), config.hardware.gpu
    cards = presets.gpu(gpu).network_cards if gpu in presets.gpu_ids() else None
    return float(domain) if cards is None else cards * domain / gpus_per_domain(gpu)
