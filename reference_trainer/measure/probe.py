"""Probes memory before training: two real optimizer steps on the real data with the storage tracker."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from planner.activity import doing
from planner.config.run import RunConfig
from planner.log import Log
from planner.units import format_bytes
from reference_trainer.data.samples import TokenData, batch
from reference_trainer.device.cuda_setup import release_memory
from reference_trainer.device.out_of_memory import is_shortage
from reference_trainer.measure.measure import build_model, saved_bytes_by_operator
from reference_trainer.measure.phase_counters import PhaseCounters
from reference_trainer.measure.replay import StorageTracker, Track, tracked_steps


@dataclass(frozen=True, slots=True)
class Probe:
    """Peaks by phase, and the bytes that autograd saved, by operator."""

    track: Track
    saved: dict[str, int]


NOTHING_PROBED = Probe(Track(), {})


def probe_if_possible(config: RunConfig, data: TokenData, device: torch.device, log: Log) -> Probe:
    """As `probe`, after a run: without results where there is no memory for it, which is logged.

    The run is over and has its own measurements. The trained model must be gone before: the probe builds another.
    """
    release_memory(device)
    try:
        return probe(config, data, device, log)
    except RuntimeError as error:
        if not is_shortage(error):
            raise
        log(f"the probe ran out of memory ({str(error).strip().partition(chr(10))[0]}): phases are not compared")
    release_memory(device)
    return NOTHING_PROBED


@doing("measuring the memory of two steps")
def probe(config: RunConfig, data: TokenData, device: torch.device, log: Log) -> Probe:
    """Measure saved bytes and the phases' peaks of `config` on `device`, on a temporary model.

    The two steps are run for real. On a CPU a tracker counts storages; on a GPU the allocator's counters are read,
    which include what kernels take for themselves. Resuming is not tried: on a GPU its phase is not measured.
    """
    t = config.training
    torch.manual_seed(t.seed)
    tracker = StorageTracker() if device.type == "cpu" else PhaseCounters(device)
    given = batch(data, config, 0, t.micro_batch)
    # one micro-batch serves as both: in training only one is there at a time
    parts = (given.ids, given.targets, given.documents)
    inputs = tuple(part.to(device) for part in parts if part is not None)
    with torch.device(device):  # for the weights alone: offloading makes its own tensors on the host
        model = build_model(config)
    model.make_tables(t.seq, inputs[0].device)  # "cuda" alone is another device than cuda:0
    saved = saved_bytes_by_operator(model, *inputs)
    tracked_steps(model, config, [inputs] * min(2, t.accumulation), tracker)
    del model, inputs
    track = tracker.track
    if device.type == "cuda":
        # a check of live weights stands for both saving and resuming; on a GPU a resume has no gradients alive
        track.phases = [p for p in track.phases if p.phase != "resume"]
        release_memory(device)
    log(f"probe: {format_bytes(sum(saved.values()))} saved for backward, peak {format_bytes(track.peak.peak_bytes)}")
    return Probe(track, saved)
