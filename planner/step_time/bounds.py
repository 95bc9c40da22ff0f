"""What each part of a step waits for, and the one measurement that would make its predicted time narrower."""

from __future__ import annotations

from collections.abc import Iterable

from planner.config.run import RunConfig

COMPUTE, MEMORY, HOST, LINK = "arithmetic", "memory bandwidth", "the host", "the links"

# of the parts of a step, the resource whose rate gives their seconds
_BOUND = {
    "matrix products": COMPUTE,
    "attention": COMPUTE,
    "element-wise": MEMORY,
    "norms": MEMORY,
    "activations": MEMORY,
    "casts": MEMORY,
    "residual and copies": MEMORY,
    "embedding": MEMORY,
    "head and loss": COMPUTE,
    "offloading": "the link to the host",
    "launch overhead": HOST,
    "optimizer": MEMORY,
    "all-reduce": LINK,
    "sharding": LINK,
    "tensor parallel": LINK,
    "context parallel": LINK,
    "expert parallel": LINK,
    "stage transfers": LINK,
    "pipeline bubble": "other stages",
    "stragglers": "the slowest GPU",
}


def bounds_of(parts: Iterable[str], config: RunConfig) -> dict[str, str]:
    """Part → what its seconds are computed from. Raises KeyError for a part that has no row here."""
    found = {part: _BOUND[part] for part in parts}
    if "optimizer" in found and config.optimizer.name == "muon":
        found["optimizer"] = COMPUTE
    elif "optimizer" in found and config.optimizer.implementation == "for-loop":
        found["optimizer"] = HOST
    return found


def narrowed_by(config: RunConfig, basis: str) -> str:
    """The fact or measurement that would narrow the interval of a predicted time most; "" where nothing would."""
    if basis not in ("datasheet", "profile"):
        return ""
    if basis == "datasheet" and any(a.key == "software" for a in config.provenance.assumptions):
        return f"name what runs with --software: {config.hardware.software} is assumed"
    measured = "the first 100 steps of this very run, given as --tokens-per-second"
    if basis == "datasheet" and config.hardware.gpus == 1 and config.profile is None:
        return f"gptplan calibrate on this GPU, its file given as --profile; best: {measured}"
    return measured
