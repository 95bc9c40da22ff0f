"""Random files: model configs, run.toml, training data, safetensors headers, machine profiles."""

from __future__ import annotations

import io
import json
import random
import struct
import zlib
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.fuzzing.changes import TEXTS, changed_bytes, changed_json, changed_text, json_bytes
from benchmarks.fuzzing.given import Given
from benchmarks.header import ROOT

DATA = ROOT / "tests" / "published" / "data"


@cache
def hf_configs() -> tuple[dict[str, Any], ...]:
    """Configs of every model type that a test counts against transformers."""
    cases = json.loads((DATA / "hf_numels_5.23.0.json").read_text(encoding="utf-8"))["cases"]
    return tuple(case["config"] for case in (cases.values() if isinstance(cases, dict) else cases))


@cache
def _all_values() -> tuple[Any, ...]:
    return tuple(value for config in hf_configs() for value in config.values())


def hf_config(rng: random.Random) -> Given:
    """A config.json of the hub, harmed; sometimes given to the command."""
    harmed = changed_json(rng.choice(hf_configs()), rng, _all_values())
    words = ("estimate", "--hf-config", "config.json", "--tokens", "1B") if rng.random() < 0.005 else ()
    return Given("hf configs", words, {"config.json": json_bytes(harmed, rng)})


@cache
def run_tomls() -> tuple[str, ...]:
    """run.toml as `gptplan plan` writes it, for unlike models."""
    from planner.inputs.draft import draft
    from planner.inputs.flags import Flags
    from planner.inputs.run_toml import config_text

    gpu = {"tokens": "1B", "gpu": "a100-80gb"}
    shapes: tuple[dict[str, str], ...] = (
        {"params": "8M"}, {"model": "llama-3.2-1b"}, {"model": "mixtral-8x7b"}, {"model": "deepseek-v3"},
        {"params": "8M", "schedule": "wsd", "optimizer": "muon", "eval_every": "10", "document_masking": "yes"},
    )  # fmt: skip
    return tuple(config_text(draft(Flags(**(gpu | shape)), as_of="2026-11-27", version="0")) for shape in shapes)


def run_toml(rng: random.Random) -> Given:
    """A run.toml with some lines harmed; sometimes given to the command."""
    text = rng.choice(run_tomls())
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        text = changed_text(text, rng)
    content = text.encode("utf-8", "replace")
    content = changed_bytes(content, rng) if rng.random() < 0.05 else content
    words = ("estimate", "--config", "run.toml") if rng.random() < 0.005 else ()
    return Given("run.toml", words, {"run.toml": content})


def training_data(rng: random.Random) -> Given:
    """Text, JSON-lines, CSV, tokens of llm.c and of numpy, a prepared directory, compressed lines; then harmed."""
    name, content = rng.choice(list(_sources().items()))
    if rng.random() < 0.9:
        content = changed_bytes(content, rng) if rng.random() < 0.6 else _harmed_lines(content, rng)
    if rng.random() < 0.15:
        name = f"{Path(name).stem}.{rng.choice(('txt', 'jsonl', 'json', 'bin', 'npy', 'gz', 'csv', 'xyz'))}"
    files = {f"data/{name}": content}
    if rng.random() < 0.2:
        other, more = rng.choice(list(_sources().items()))
        files[f"data/{other}"] = more
    return Given("data", (), files)


def _harmed_lines(content: bytes, rng: random.Random) -> bytes:
    return changed_text(content.decode("utf-8", "replace"), rng).encode("utf-8", "replace")


@cache
def _sources() -> dict[str, bytes]:
    import gzip

    import numpy as np

    tokens = np.random.default_rng(1).integers(0, 255, 300).astype(np.uint16)
    lines = b"".join(json.dumps({"text": f"document {n} é", "id": n}).encode() + b"\n" for n in range(20))
    header = np.zeros(256, np.int32)
    header[:3] = 20240520, 1, len(tokens)
    numpy_file = io.BytesIO()
    np.save(numpy_file, tokens)
    meta = {"format": "tokens", "vocab": 256, "dtype": "uint16", "tokens": 300, "end_of_text": 0}
    return {
        "a.txt": ("some words, with é and 字\n" * 20).encode(),
        "b.jsonl": lines,
        "c.csv": b"text,id\n" + b"".join(b'"words, quoted",%d\n' % n for n in range(20)),
        "d.bin": tokens.tobytes(),
        "e.bin": header.tobytes() + tokens.tobytes(),
        "f.npy": numpy_file.getvalue(),
        "g.jsonl.gz": gzip.compress(lines, mtime=0),
        "meta.json": json.dumps(meta).encode(),
        "meta.pkl": b"\x80\x04]\x94.",
        "h.zst": zlib.compress(lines),
        "i.json": json.dumps([{"text": "one"}]).encode(),
    }


TENSORS: dict[str, Any] = {
    "__metadata__": {"format": "pt"},
    "wte.weight": {"dtype": "F32", "shape": [8, 4], "data_offsets": [0, 128]},
    "h.0.attn.weight": {"dtype": "BF16", "shape": [4, 12], "data_offsets": [128, 224]},
    "h.0.ln.bias": {"dtype": "F16", "shape": [4], "data_offsets": [224, 232]},
}
INDEX: dict[str, Any] = {
    "metadata": {"total_size": 232},
    "weight_map": dict.fromkeys(list(TENSORS)[1:], "m.safetensors"),
}


def safetensors_file(rng: random.Random) -> Given:
    """A .safetensors file or an index of some, harmed in its header, its length, or anywhere."""
    header = TENSORS if rng.random() < 0.3 else changed_json(TENSORS, rng)
    text = json_bytes(header, rng)
    length = len(text) if rng.random() < 0.8 else rng.choice((0, 1, len(text) + 1, 1 << 20, 1 << 40, (1 << 64) - 1))
    content = struct.pack("<Q", length) + text + bytes(rng.choice((232, 232, 0, 231, 233)))
    if rng.random() < 0.3:
        content = changed_bytes(content, rng)
    files = {"m.safetensors": content}
    if rng.random() < 0.3:
        index = changed_json(INDEX, rng, (*TEXTS, "m.safetensors", "model.safetensors.index.json"))
        files["model.safetensors.index.json"] = json_bytes(index, rng)
    return Given("safetensors", (), files)


def profile(rng: random.Random) -> Given:
    """A machine profile, harmed, to be used by a plan for this processor."""
    from tests.planner.step_time.test_profile import made_up

    return Given("profiles", (), {"profile-cpu.json": json_bytes(changed_json(_smaller(made_up(), rng), rng), rng)})


def _smaller(profile: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """The profile with a third of its kernels cut to a few rows, so that harm hits the rest of it more often."""
    for tables in profile["kernels"].values():
        for kind in tables:
            tables[kind] = tables[kind][: rng.choice((3, 9, 27))]
    return profile
