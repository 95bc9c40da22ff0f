"""A stored model checked against the config: parameters, types, blocks, width and vocabulary, as findings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from planner.config.model import ModelConfig
from planner.counts.parameters import Parameters, parameters_of
from planner.counts.shape import shape_of
from planner.finding import Finding
from planner.inputs.safetensors import StoredTensor

BLOCK = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d+)\.")
EMBEDDING = re.compile(r"(?:^|\.)(?:wte|embed_tokens|embed_in|word_embeddings|tok_embeddings|embedding)\.weight$")
HEAD = re.compile(r"(?:^|\.)(?:lm_head|embed_out|output|head)\.weight$")
# tensors that no gradient changes: rotary tables, GPT-2's and GPT-NeoX's masks, scales of fp8, DeepSeek's router bias
BUFFER = re.compile(
    r"(?:^|\.)(?:inv_freq|masked_bias|position_ids|cos_cached|sin_cached|weight_scale|weight_scale_inv|input_scale"
    r"|e_score_correction_bias)$"
)
MASK = re.compile(r"(?:^|\.)(?:attn|attention)\.bias$")
_NAMES_SHOWN = 3  # names in a message
MENDING = "name the model that the file holds by --model or --hf-config, or another file"


@dataclass(frozen=True, slots=True)
class Stored:
    """What a file holds. Counts are of elements; `blocks` of transformer blocks."""

    parameters: int
    by_dtype: dict[str, int]
    tensors: int
    buffers: tuple[str, ...]
    blocks: int
    in_blocks: int
    embedding: tuple[int, ...] | None
    head: tuple[int, ...] | None


def stored_of(tensors: tuple[StoredTensor, ...]) -> Stored:
    """The counts of a file's tensors, buffers apart."""
    buffers = tuple(t.name for t in tensors if _is_buffer(t))
    kept = [t for t in tensors if not _is_buffer(t)]
    by_dtype: Counter[str] = Counter()
    for t in kept:
        by_dtype[t.dtype] += t.elements
    block = {t.name: found.group(1) for t in kept if (found := BLOCK.search(t.name))}
    tables = [
        [t.shape for t in kept if pattern.search(t.name) and t.name not in block] for pattern in (EMBEDDING, HEAD)
    ]
    return Stored(
        parameters=sum(t.elements for t in kept),
        by_dtype=dict(by_dtype),
        tensors=len(kept),
        buffers=buffers,
        blocks=len(set(block.values())),
        in_blocks=sum(t.elements for t in kept if t.name in block),
        embedding=tables[0][0] if tables[0] else None,
        head=tables[1][0] if tables[1] else None,
    )


def _is_buffer(t: StoredTensor) -> bool:
    return bool(BUFFER.search(t.name)) or (bool(MASK.search(t.name)) and len(t.shape) != 1)


def weights_findings(tensors: tuple[StoredTensor, ...], model: ModelConfig, name: str) -> tuple[Finding, ...]:
    """What differs between a stored model and the config, group by group; one note where nothing does.

    name: how messages call the file.
    """
    stored, counted = stored_of(tensors), parameters_of(model)
    found = tuple(Finding("warning", code, f"{name}: {text}", MENDING) for code, text in _differences(stored, model))
    if found:
        return found
    types = ", ".join(f"{dtype} {n:,}" for dtype, n in sorted(stored.by_dtype.items()))
    return (
        Finding(
            "note",
            "weights_match",
            f"{name} holds the {counted.total:,} parameters of {model.name}: {types} in {stored.tensors} tensors, "
            f"{stored.blocks} blocks of width {model.hidden}, {model.vocab:,} rows{_head_said(stored, model)}"
            f"{_buffers_said(stored)}",
            "none needed",
        ),
    )


def _head_said(stored: Stored, model: ModelConfig) -> str:
    if not model.tied_embeddings:
        return ""
    return ", the tied head stored a second time" if stored.head else ", the tied head stored once"


def _buffers_said(stored: Stored) -> str:
    names = stored.buffers
    if not names:
        return ""
    more = ", …" if len(names) > _NAMES_SHOWN else ""
    return f"; {len(names)} buffers, which are no parameters, are not counted ({', '.join(names[:_NAMES_SHOWN])}{more})"


def _differences(stored: Stored, model: ModelConfig) -> Iterator[tuple[str, str]]:
    """A code and a text for each group that differs; the sum last, and only where it does."""
    counted = parameters_of(model)
    if stored.blocks != model.layers:
        yield "weights_layers", f"{stored.blocks} blocks are stored, {model.name} has {model.layers}"
    for what, shape in (("embedding", stored.embedding), ("head", stored.head)):
        if shape is not None and shape != (model.vocab, model.hidden):
            yield (
                f"weights_{what}",
                f"the {what} is stored as {' x '.join(map(str, shape))}, {model.name} has a vocabulary of "
                f"{model.vocab} and a width of {model.hidden}",
            )
    if stored.embedding is None:
        yield "weights_embedding", "no embedding table is found under a known name"
    if stored.head is None and not model.tied_embeddings:
        yield "weights_head", f"no output head is stored, and that of {model.name} is not the embedding table"
    expected = _expected_in_blocks(counted, model)
    if stored.in_blocks != expected:
        yield (
            "weights_blocks",
            f"the blocks hold {stored.in_blocks:,} parameters, those of {model.name} {expected:,}",
        )
    twice = model.vocab * model.hidden if model.tied_embeddings and stored.head else 0
    if stored.parameters - twice != counted.total:
        yield (
            "weights_parameters",
            f"{stored.parameters - twice:,} parameters are stored, {model.name} has {counted.total:,}: "
            f"{stored.parameters - twice - counted.total:+,}",
        )


def _expected_in_blocks(counted: Parameters, model: ModelConfig) -> int:
    s = shape_of(model)
    return counted.non_embedding - s.end_norms * s.norm_vectors * s.hidden - s.head_bias * s.vocab
