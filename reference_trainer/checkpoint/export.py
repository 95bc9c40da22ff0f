"""Exports a checkpoint as model.safetensors and config.json with Hugging Face's names and layout.

Weights are renamed, a fused projection is split or interleaved, matrices are transposed for GPT-2; no
number changes. Both files appear together, or none.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from planner.activity import doing
from planner.config.model import ModelConfig
from planner.errors import CheckpointError, FileError
from planner.exports.huggingface import hf_type, hf_values
from planner.inputs.run_toml import explain_validation
from planner.log import Log
from planner.paths import exists, is_file, is_folder
from reference_trainer.checkpoint.atomic import newest_valid, problem_with
from reference_trainer.checkpoint.checkpoint import MODEL, State, read_state, refuse_nonfinite
from reference_trainer.checkpoint.manifest import MANIFEST
from reference_trainer.checkpoint.stored_tensors import StoredTensors
from reference_trainer.device.disk import sync

NamedTensors = Iterator[tuple[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Exported:
    """The written directory, its step and model type, and the number of padding rows of the vocabulary."""

    directory: str
    checkpoint: str
    step: int
    model_type: str
    dtype: str
    parameters: int
    padding_rows: int
    size_bytes: int


@doing("reading the checkpoint and writing the model")
def export(source: Path, out: Path, log: Log) -> Exported:
    """Write the newest valid checkpoint of the run `source`, or the checkpoint `source`, to the new directory `out`.

    Raises FileError for a path that is neither or cannot be written, CheckpointError for a damaged checkpoint,
    InputError if no Hugging Face model type can express the model.
    """
    try:
        occupied = exists(out) and (not is_folder(out) or any(out.iterdir()))
    except OSError as error:
        raise FileError(f"{out} cannot be used", why=error.strerror or str(error), remedy="give another -o") from None
    if occupied:
        raise FileError(f"{out} exists already", why="nothing is overwritten unasked", remedy="give another -o")
    path = _checkpoint(source, log)
    state = read_state(path)
    model = _model(path, state)
    kind = hf_type(model)
    weights = dict(StoredTensors(path, MODEL))
    refuse_nonfinite(weights, str(path / MODEL))
    named = {name: t.contiguous() for name, t in LAYOUTS[kind](weights, model)}
    dtype = str(next(iter(named.values())).dtype).removeprefix("torch.")
    config = json.dumps(hf_values(model, dtype), indent=2) + "\n"
    _write(out, named, config)
    return Exported(
        directory=str(out),
        checkpoint=str(path),
        step=state.step,
        model_type=kind,
        dtype=dtype,
        parameters=sum(t.numel() for t in named.values()),
        padding_rows=model.vocab - (model.tokenizer_vocab or model.vocab),
        size_bytes=sum(file.stat().st_size for file in out.iterdir()),
    )


def _checkpoint(source: Path, log: Log) -> Path:
    if is_file(source / MANIFEST):
        problem = problem_with(source)
        if problem:
            raise CheckpointError(f"{source} is damaged", why=problem, remedy="name another checkpoint, or its run")
        return source
    newest = newest_valid(source / "checkpoints", log)
    if newest is None:
        raise FileError(
            f"{source} holds no checkpoint",
            why=f"it has neither {MANIFEST} nor a folder checkpoints with one",
            remedy="name the directory of a run, or one of its checkpoints/step-…",
        )
    return newest


def _model(path: Path, state: State) -> ModelConfig:
    """The model that a checkpoint's settings describe; format 1 has no name."""
    section = {key.removeprefix("model."): v for key, v in state.settings.items() if key.startswith("model.")}
    try:
        return ModelConfig.model_validate({"name": f"the model of {path.name}", "source": str(path)} | section)
    except ValidationError as error:
        what, why, remedy = explain_validation(error, "model")
        raise CheckpointError(f"{path}: {what}", why=why, remedy=remedy) from None


def _write(out: Path, named: dict[str, Tensor], config: str) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".tmp-{out.name}-", dir=out.parent))
        try:
            save_file(named, temporary / MODEL, metadata={"format": "pt"})  # transformers asks for the format
            (temporary / "config.json").write_text(config, encoding="utf-8")
            for file in temporary.iterdir():
                file.chmod(0o644)  # safetensors writes 0600, and a model is there to be shared
                sync(file)
            temporary.chmod(0o755)  # mkdtemp's 0700 is for secrets
            sync(temporary)
            os.rename(temporary, out)
            sync(out.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    except (OSError, SafetensorError) as error:
        raise FileError(
            f"{out} cannot be written", why=getattr(error, "strerror", None) or str(error), remedy="give another -o"
        ) from error


# --- layouts ----------------------------------------------------------------------------------------------------------


def _pairs(weights: dict[str, Tensor], ours: str, theirs: str, *, transposed: bool = False) -> NamedTensors:
    """The weight and the bias of a layer, if it has them."""
    for part in ("weight", "bias"):
        if f"{ours}.{part}" in weights:
            t = weights[f"{ours}.{part}"]
            yield f"{theirs}.{part}", t.T if transposed and t.dim() == 2 else t


def _gpt2(weights: dict[str, Tensor], model: ModelConfig) -> NamedTensors:
    """Matrices are stored [inputs, outputs]; queries, keys and values stay fused."""
    yield from _pairs(weights, "embedding", "transformer.wte")
    yield from _pairs(weights, "position", "transformer.wpe")
    for i in range(model.layers):
        ours, theirs = f"blocks.{i}", f"transformer.h.{i}"
        yield from _pairs(weights, f"{ours}.attention_norm", f"{theirs}.ln_1")
        yield from _pairs(weights, f"{ours}.attention.qkv", f"{theirs}.attn.c_attn", transposed=True)
        yield from _pairs(weights, f"{ours}.attention.proj", f"{theirs}.attn.c_proj", transposed=True)
        yield from _pairs(weights, f"{ours}.mlp_norm", f"{theirs}.ln_2")
        yield from _pairs(weights, f"{ours}.mlp.up", f"{theirs}.mlp.c_fc", transposed=True)
        yield from _pairs(weights, f"{ours}.mlp.down", f"{theirs}.mlp.c_proj", transposed=True)
    yield from _pairs(weights, "norm", "transformer.ln_f")
    yield from _pairs(weights, "head", "lm_head")


def _gpt_neox(weights: dict[str, Tensor], model: ModelConfig) -> NamedTensors:
    """Query, key and value of each head are adjacent."""
    yield from _pairs(weights, "embedding", "gpt_neox.embed_in")
    for i in range(model.layers):
        ours, theirs = f"blocks.{i}", f"gpt_neox.layers.{i}"
        yield from _pairs(weights, f"{ours}.attention_norm", f"{theirs}.input_layernorm")
        for name, t in _pairs(weights, f"{ours}.attention.qkv", f"{theirs}.attention.query_key_value"):
            # t [3 a d] or [3 a d, h]
            yield name, t.view(3, model.heads, model.head_dim, -1).transpose(0, 1).reshape(t.shape)
        yield from _pairs(weights, f"{ours}.attention.proj", f"{theirs}.attention.dense")
        yield from _pairs(weights, f"{ours}.mlp_norm", f"{theirs}.post_attention_layernorm")
        yield from _pairs(weights, f"{ours}.mlp.up", f"{theirs}.mlp.dense_h_to_4h")
        yield from _pairs(weights, f"{ours}.mlp.down", f"{theirs}.mlp.dense_4h_to_h")
    yield from _pairs(weights, "norm", "gpt_neox.final_layer_norm")
    yield from _pairs(weights, "head", "embed_out")


def _llama(weights: dict[str, Tensor], model: ModelConfig) -> NamedTensors:
    """Also for Mistral, Qwen2, Qwen3, OLMo 2 and OLMo 3: three projections instead of one.

    OLMo's norms stand on the outputs of the sub-layers: a block has those or the ones before.
    """
    widths = [model.heads * model.head_dim, model.kv_heads * model.head_dim, model.kv_heads * model.head_dim]
    yield from _pairs(weights, "embedding", "model.embed_tokens")
    for i in range(model.layers):
        ours, theirs = f"blocks.{i}", f"model.layers.{i}"
        yield from _pairs(weights, f"{ours}.attention_norm", f"{theirs}.input_layernorm")
        for name, t in _pairs(weights, f"{ours}.attention.qkv", ""):
            for letter, rows in zip("qkv", torch.split(t, widths), strict=True):
                yield f"{theirs}.self_attn.{letter}_proj{name}", rows
        yield from _pairs(weights, f"{ours}.attention.query_norm", f"{theirs}.self_attn.q_norm")
        yield from _pairs(weights, f"{ours}.attention.key_norm", f"{theirs}.self_attn.k_norm")
        yield from _pairs(weights, f"{ours}.attention.proj", f"{theirs}.self_attn.o_proj")
        yield from _pairs(weights, f"{ours}.mlp_norm", f"{theirs}.post_attention_layernorm")
        yield from _pairs(weights, f"{ours}.attention_post_norm", f"{theirs}.post_attention_layernorm")
        yield from _pairs(weights, f"{ours}.mlp_post_norm", f"{theirs}.post_feedforward_layernorm")
        for part in ("gate", "up", "down"):
            yield from _pairs(weights, f"{ours}.mlp.{part}", f"{theirs}.mlp.{part}_proj")
    yield from _pairs(weights, "norm", "model.norm")
    yield from _pairs(weights, "head", "lm_head")


LAYOUTS: dict[str, Callable[[dict[str, Tensor], ModelConfig], NamedTensors]] = {
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "llama": _llama,
    "mistral": _llama,
    "qwen2": _llama,
    "qwen3": _llama,
    "olmo2": _llama,
    "olmo3": _llama,
}
