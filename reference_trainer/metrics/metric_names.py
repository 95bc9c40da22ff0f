"""Every key of metrics.jsonl and events.jsonl, with its unit and meaning.

docs/reference/metrics.md is generated from it, and a test checks it against what runs write.
"""

from __future__ import annotations

# when a row has the key
ALWAYS, WINDOW, STATISTICS, OPTIONAL = "every row", "last row of a log window", "every N steps", "with its option"

# key, with a capital word for what varies: (unit, when, meaning)
METRICS: dict[str, tuple[str, str, str]] = {
    "step": ("step", ALWAYS, "optimizer step, from 1; each once, also after a resume or rollback"),
    "tokens": ("token", ALWAYS, "positions trained on since the run's first step"),
    "valid_tokens": ("token", ALWAYS, "targets of this step that count in its loss"),
    "loss": (
        "nat/token",
        ALWAYS,
        "mean cross-entropy over the step's valid targets, before its update; null: not finite",
    ),
    "perplexity": ("1", ALWAYS, "exp(loss)"),
    "lr": ("1", ALWAYS, "learning rate that the optimizer used"),
    "grad_norm": ("1", ALWAYS, "global norm of the gradient before clipping; null: not finite"),
    "step_seconds": (
        "s",
        ALWAYS,
        "from the step's first work to its last: the device's events on a GPU, else the host",
    ),
    "data_seconds": ("s", ALWAYS, "time the host waited for the micro-batches of the step"),
    "data_share": ("1", ALWAYS, "data_seconds / step_seconds; on a GPU it may overlap with work still queued"),
    "tokens_per_second": ("token/s", ALWAYS, "positions of the step / step_seconds"),
    "mfu": ("1", ALWAYS, "flops_per_step / (step_seconds × peak_flops) of the start event; null: no peak is known"),
    "hfu": ("1", ALWAYS, "as mfu, with hardware_flops_per_step"),
    "allocated_bytes": ("byte", ALWAYS, "of tensors, at the reading; null on a CPU"),
    "reserved_bytes": ("byte", ALWAYS, "taken from the driver by PyTorch, at the reading; null on a CPU"),
    "updated": ("bool", ALWAYS, "whether the update was applied"),
    "spike": ("bool", ALWAYS, "whether the spike guard saw a spike"),
    "loss_sigmas": ("1", ALWAYS, "standard deviations of the loss above the mean of the guard's window"),
    "norm_sigmas": ("1", ALWAYS, "the same of the gradient norm"),
    "clipped": ("bool", ALWAYS, "whether grad_norm was above the limit; null: there is none"),
    "slow": (
        "bool",
        ALWAYS,
        "took five times as long as usual, and at least 1 s longer: stopped, or the machine was busy",
    ),
    "eta_seconds": (
        "s",
        ALWAYS,
        "steps left × median step_seconds of this call's last 64 steps; without evaluations and saves",
    ),
    "loss_scale": ("1", "fp16 only", "factor on the loss in backward"),
    "window_steps": ("step", WINDOW, "steps that were read together: 1 on a CPU, 10 on a GPU"),
    "window_seconds": (
        "s",
        WINDOW,
        "from the last reading (at first: the first step) to this one, without evaluations, saves and eval commands",
    ),
    "window_tokens_per_second": ("token/s", WINDOW, "positions of the window / window_seconds: what the user gets"),
    "window_idle_seconds": ("s", WINDOW, "window_seconds without the steps' own"),
    "power_watts": ("W", WINDOW, "mean of the card or processor package since the last reading; null: not reported"),
    "joules_per_token": ("J/token", WINDOW, "power_watts × window_seconds / positions of the window"),
    "device_used_bytes": ("byte", WINDOW, "used on the GPU, with CUDA contexts and other processes; null on a CPU"),
    "alloc_retries": (
        "1",
        WINDOW,
        "times that the allocator emptied its cache to find memory, in this call; null on a CPU",
    ),
    "validation_loss": ("nat/token", "after an evaluation", "of the weights after the step, on held-out data"),
    "expert_load": (
        "1",
        "with experts",
        "largest number of tokens of an expert / mean of its block, in the block where that is largest",
    ),
    "balancing_loss": ("1", "with a balancing loss", "what it adds to the loss that is minimised; not in `loss`"),
    "noise_gradient_sq": ("1", OPTIONAL, "unbiased estimate of the squared norm of the true gradient; --noise-scale"),
    "noise_trace": ("token", OPTIONAL, "unbiased estimate of the trace of one token's gradient covariance"),
    "noise_scale_tokens": ("token", OPTIONAL, "gradient-noise scale: average noise_trace / average noise_gradient_sq"),
    "update_ratio/LAYER": ("1", STATISTICS, "RMS of the update / RMS of the weights before it; --statistics-every N"),
    "grad_rms/LAYER": ("1", STATISTICS, "RMS of the gradient before clipping"),
    "grad_max/LAYER": ("1", STATISTICS, "largest absolute element of the gradient before clipping"),
    "activation_rms/BLOCK": ("1", STATISTICS, "RMS of the residual stream after the block, first micro-batch"),
    "activation_max/BLOCK": ("1", STATISTICS, "its largest absolute element"),
    "zero_share/BLOCK.mlp": (
        "1",
        STATISTICS,
        "fraction of zeros in the input of the last MLP matrix: dead units of a ReLU",
    ),
    "weight_norm": ("1", STATISTICS, "global norm of the weights after the step"),
    "clipped_share": ("1", STATISTICS, "elements of the gradient above optimizer.clip_value, where that is set"),
}

# event: (meaning, its keys beside time, event and step)
EVENTS: dict[str, tuple[str, dict[str, str]]] = {
    "start": (
        "a run begins",
        {
            "device": "cpu, cuda:0 …",
            "device_name": "as the driver gives it",
            "torch": "version",
            "parameters": "their number",
            "data": "what it is trained on",
            "data_sources": "files, documents and bytes that were read, and the files that were not, with the reason",
            "data_fingerprint": "sha256",
            "tokens_per_step": "positions, token",
            "flops_per_step": "model FLOPs of a step",
            "hardware_flops_per_step": "with recomputation in backward",
            "peak_flops": "dense peak of the compute type, FLOP/s; null: unknown",
            "mfu_convention": "what MFU counts",
            "hfu_convention": "what HFU counts",
        },
    ),
    "resume": ("a run continues after `step`", {"…": "as start"}),
    "evaluation": (
        "held-out data was evaluated",
        {"loss": "nat/token", "best": "whether the best so far", "seconds": "s"},
    ),
    "eval command": ("the eval command printed its numbers", {"numbers": "the object that it printed", "seconds": "s"}),
    "eval command stopped": ("a signal stopped the eval command; --resume runs it again", {"seconds": "s"}),
    "eval command failed": ("the eval command failed", {"message": "why", "seconds": "s"}),
    "checkpoint": (
        "a checkpoint was written",
        {"bytes": "byte", "seconds": "s, of writing", "stalled_seconds": "s, that training waited"},
    ),
    "checkpoint failed": ("a checkpoint could not be written", {"message": "why"}),
    "spike": ("the guard saw a spike", {"loss_sigmas": "standard deviations", "norm_sigmas": "standard deviations"}),
    "update skipped": ("loss or gradient was not finite", {"loss": "as text", "grad_norm": "as text"}),
    "rollback": ("back to `step`", {"spike_step": "step", "skipped_steps": "whose data is skipped"}),
    "slow step": ("a step, or a gap between steps, was far too long", {"seconds": "s", "usual_seconds": "s"}),
    "allocator retries": ("the allocator had to empty its cache", {"count": "in this call"}),
    "signal": ("a signal stopped the run", {"signal": "its name"}),
    "diverged": ("too many steps in a row were not finite", {"message": "the error message"}),
    "stopped": ("the call ended before the last step", {"exit_code": "0, 130, 143", "message": "why, after an error"}),
    "finished": ("the run is complete", {"exit_code": "0"}),
}


def metric_of(key: str) -> str:
    """The entry of METRICS for a key of a row: `grad_rms/head` is `grad_rms/LAYER`. Raises KeyError for an unknown."""
    family, slash, _ = key.partition("/")
    entry = next((name for name in METRICS if slash and name.startswith(f"{family}/")), key)
    if entry not in METRICS:
        raise KeyError(key)
    return entry
