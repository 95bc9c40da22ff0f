"""Time to money, energy and CO2-equivalent."""

from __future__ import annotations

from planner.formulas.formula import formula
from planner.formulas.ops import Num
from planner.units import HOUR, KILOWATT_HOUR


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


@formula(gives="gpu_hours", source="definition: 3600 s are an hour")
def gpu_hours(seconds: Num, gpus: Num) -> Num:
    """GPU time of a run, in hours."""
    return gpu_seconds(seconds, gpus) / HOUR


@formula(gives="usd", source="definition")
def cost_of_hours(gpu_hours: Num, usd_per_gpu_hour: Num) -> Num:
    """Cost of a run at a price per GPU and hour."""
    return run_cost(gpu_hours * HOUR, usd_per_gpu_hour / HOUR)


@formula(gives="energy_kwh", source="Patterson et al. 2021 (arXiv 2104.10350): power x time x PUE")
def energy_of_hours(gpu_hours: Num, power: Num, pue: Num) -> Num:
    """Energy drawn from the grid, in kWh."""
    return run_energy(gpu_hours * HOUR, power, pue) / KILOWATT_HOUR


@formula(gives="co2e", source="Patterson et al. 2021 (arXiv 2104.10350): energy x carbon intensity of the grid")
def co2e_of_kwh(energy_kwh: Num, grid_intensity_kwh: Num) -> Num:
    """CO2-equivalent of an energy in kWh."""
    return run_co2e(energy_kwh * KILOWATT_HOUR, grid_intensity_kwh / KILOWATT_HOUR)
