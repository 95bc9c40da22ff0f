"""A few lines of each trainer's log, in its own format, of one run of 60 steps with 0.25 s each."""

from __future__ import annotations

STEPS = range(1, 61)
SLOW = 10  # steps that compile

_SECONDS = {step: 5.0 if step <= SLOW else 0.25 for step in STEPS}
TOKENS = 131_072  # a step of the config that the tests plan
GPUS = 8


def _nanogpt() -> str:
    lines = ["number of parameters: 123.59M", "step 0: train loss 10.9874, val loss 10.9861"]
    lines += [f"iter {s - 1}: loss {11 - s / 20:.4f}, time {_SECONDS[s] * 1000:.2f}ms, mfu 38.11%" for s in STEPS]
    return "\n".join(lines)


def _nanochat() -> str:
    lines = ["Vocab size: 65,536"]
    lines += [
        f"step {s - 1:05d}/00060 ({s / 0.6:.2f}%) | loss: {11 - s / 20:.6f} | lrm: 1.00 | "
        f"dt: {_SECONDS[s] * 1000:.2f}ms | tok/sec: {int(TOKENS / _SECONDS[s]):,} | mfu: 45.20 | total time: 0.10m"
        for s in STEPS
    ]
    return "\n".join([*lines, "Peak memory usage: 20480.00MiB"])


def _torchtitan() -> str:
    colour = "\x1b[31m"
    return "\n".join(
        f"[titan] 2026-11-01 10:00:00,000 - root - INFO - {colour}step: {s:2}  \x1b[32mloss: {11 - s / 20:8.5f}  "
        f"\x1b[38;2;180;60;0mgrad_norm:  1.2345  \x1b[36mmemory: 20.00GiB(25.28%)  "
        f"\x1b[34mtps: {round(TOKENS / _SECONDS[s] / GPUS):,}  \x1b[35mtflops: 41.55  \x1b[39mmfu: 4.20%\x1b[0m"
        for s in STEPS
    )


def _megatron() -> str:
    lines = [
        f" [2026-11-01 10:00:00.123456] iteration {s:8d}/      60 | consumed samples: {s * 128:12d} | "
        f"elapsed time per iteration (ms): {_SECONDS[s] * 1000:.1f} | throughput per GPU (TFLOP/s/GPU): 41.2 | "
        f"learning rate: 6.000000E-05 | global batch size:   128 | lm loss: {11 - s / 20:.6E} | loss scale: 1.0 | "
        "grad norm: 1.234 | number of skipped iterations:   0 | number of nan iterations:   0 |"
        for s in STEPS
    ]
    memory = (
        "[Rank 0] (after 2 iterations) memory (MB) | allocated: 9000.00 | max allocated: 20480.00 | "
        "reserved: 21000.00 | max reserved: 21504.00"
    )
    return "\n".join([*lines[:2], memory, *lines[2:]])


def _litgpt() -> str:
    lines = ["Verifying settings ...", "Measured TFLOPs: 12.34"]
    lines += [
        f"Epoch 1 | iter {2 * s} step {s} | loss train: {11 - s / 20:.3f}, val: n/a | iter time: "
        f"{_SECONDS[s] * 500:.2f} ms (step) remaining time: 0:01:00"
        for s in STEPS
    ]
    return "\n".join([*lines, "| Memory Usage", "| - Memory Used   : 21.47 GB"])


def _llmc() -> str:
    lines = ["device memory usage: 20480 MiB / 81559 MiB"]
    lines += [
        f"step {s:4d}/60 | loss {11 - s / 20:7.6f} (+nanz)| norm 1.2345 (+nanz)| lr 6.00e-05 | "
        f"{_SECONDS[s] * 1000:.2f} ms | 38.1% bf16 MFU | {TOKENS / _SECONDS[s]:.0f} tok/s"
        for s in STEPS
    ]
    return "\n".join([*lines, "total average iteration time: 250.000000 ms"])


def _hf() -> str:
    lines = ["  0%|          | 0/60 [00:00<?, ?it/s]\r"]
    for s in STEPS:
        lines.append(f" {s}%|██        | {s}/60 [00:10<00:20, {1 / _SECONDS[s]:.2f}it/s]\r")
        if s % 10 == 0:
            lines.append(
                f"{{'loss': '{11 - s / 20:.4f}', 'grad_norm': '1.23', 'learning_rate': '6e-05', 'epoch': '0.1'}}"
            )
    end = "{'train_runtime': '80.0', 'train_steps_per_second': '0.75', 'train_loss': '9.5'}"
    return "\n".join([*lines, end])


LOGS = {
    "nanogpt": _nanogpt(),
    "nanochat": _nanochat(),
    "torchtitan": _torchtitan(),
    "megatron-lm": _megatron(),
    "litgpt": _litgpt(),
    "llm.c": _llmc(),
    "hf-trainer": _hf(),
}
