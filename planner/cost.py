"""Time to money, energy and CO2-equivalent."""

from __future__ import annotations

from planner.formula import formula
from planner.ops import Num


@formula(gives="gpu_seconds", source="definition")
def gpu_seconds(seconds: Num, gpus: Num) -> Num:
    """GPU time of a run."""
    return seconds * gpus


@formula(gives="usd", source="definition")
def run_cost(gpu_seconds: Num, usd_per_gpu_second: Num) -> Num:
    """Cost of a run at a price per GPU and second."""
    return gpu_seconds * usd_per_gpu_second


@formula(gives="energy", source="Patterson et al. 2021 (arXiv 2104.10350): power x time x PUE")
def run_energy(gpu_seconds: Num, power: Num, pue: Num) -> Num:
    """Energy drawn from the grid, GPUs only (no host, no network) times the building's overhead."""
    return gpu_seconds * power * pue


@formula(gives="co2e", source="Patterson et al. 2021 (arXiv 2104.10350): energy x carbon intensity of the grid")
def run_co2e(energy: Num, grid_intensity: Num) -> Num:
    """CO2-equivalent of that energy."""
    return energy * grid_intensity
