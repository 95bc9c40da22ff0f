"""How many GPUs a card's own links join: a server of eight, or a rack."""

from __future__ import annotations

from planner.config.run import RunConfig

GPUS_PER_NODE = 8  # as in the servers that the cards are sold in
DOMAINS = {"gb200": 72, "gb300": 72}  # GPUs that NVLink joins, where it is more than a server


def gpus_per_domain(gpu_id: str) -> int:
    """GPUs that the links of a card join, as it is sold."""
    return DOMAINS.get(gpu_id, GPUS_PER_NODE)


def domain_of(config: RunConfig) -> int:
    """GPUs of a run that links join: its own number if it has one."""
    return config.hardware.gpus_per_node or gpus_per_domain(config.hardware.gpu)
