"""The tensors that an older torch.compile saves for backward, for languini's GPT. Needs only that torch.

    python -m benchmarks.old_compiler [--layers 2] [--hidden 768] [--heads 12] [--head-dim 64] [--out FILE]

The program is that of github.com/languini-kitchen/languini-kitchen (languini/projects/gpt/lib.py and model.py at
0f185f9) in its operators and their order, with CUDA's autocast casts said where a processor's autocast has none: the
power of GELU and the softmax in fp32. Inductor's decompositions and the partitioner run as in a real compilation,
which then stops: nothing is generated, and no GPU is needed. In a fresh environment of Python 3.10:

    pip install torch==2.0.0 'numpy<2' && python -m benchmarks.old_compiler
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import torch._inductor.compile_fx
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.header import header

SEQ, SEQUENCES, VOCAB, MASK = 512, 4, 16384, 4096
VIEWS = {
    "aten.view", "aten.permute", "aten.transpose", "aten.slice", "aten.expand", "aten.unsqueeze", "aten.squeeze",
    "aten.t", "aten._unsafe_view", "aten.reshape", "aten.as_strided",
}  # fmt: skip


def gelu(x: Tensor) -> Tensor:
    """The tanh form, written out; the power in fp32 as CUDA's autocast takes it."""
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x.float(), 3.0))))


class Block(nn.Module):
    """Attention with three projections and einsums, and an MLP, each behind a LayerNorm."""

    def __init__(self, hidden: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads, self.head_dim, query = heads, head_dim, heads * head_dim
        self.attention_norm, self.mlp_norm = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.query, self.key, self.value = nn.Linear(hidden, query), nn.Linear(hidden, query), nn.Linear(hidden, query)
        self.out, self.up = nn.Linear(query, hidden), nn.Linear(hidden, 4 * hidden)
        self.down = nn.Linear(4 * hidden, hidden)
        self.register_buffer("mask", torch.tril(torch.ones(MASK, MASK)).view(1, 1, MASK, MASK))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, h] to [B, T, h]."""
        batch, length, _ = x.shape
        y = self.attention_norm(x)
        split = (batch, length, self.heads, self.head_dim)
        q = self.query(y).view(split).transpose(1, 2)
        k = self.key(y).view(split).transpose(1, 2)
        v = self.value(y).view(split).transpose(1, 2)
        scores = torch.einsum("bhid,bhjd->bhij", q, k) * float(self.head_dim) ** -0.5
        scores = scores.masked_fill(self.mask[:, :, :length, :length] == 0, float("-inf"))
        mixed = torch.einsum("bhjd,bhij->bhid", v, F.softmax(scores.float(), dim=-1))
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, self.heads * self.head_dim))
        out: Tensor = x + self.down(gelu(self.up(self.mlp_norm(x))))
        return out


class Model(nn.Module):
    """Scaled embedding and learned positions, the blocks, a last norm, an untied head."""

    def __init__(self, layers: int, hidden: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.embedding, self.positions = nn.Embedding(VOCAB, hidden), nn.Embedding(SEQ, hidden)
        self.blocks = nn.ModuleList(Block(hidden, heads, head_dim) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(hidden), nn.Linear(hidden, VOCAB, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        """ids [B, T] to logits [B, T, V]."""
        x = self.embedding(ids) * math.sqrt(self.embedding.embedding_dim)
        x = x + self.positions(torch.arange(0, ids.shape[1], dtype=torch.int64).unsqueeze(0))
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.head(self.norm(x))
        return out


class _EnoughSeen(Exception):
    """Raised in place of generating code."""


def kept(model: Model) -> list[dict[str, Any]]:
    """Tensors that forward hands on, each storage once: operator, type, elements for each token or whole."""
    found: list[dict[str, Any]] = []

    def inner(graph: Any, inputs: Any, **options: Any) -> Any:
        results = next(node for node in graph.graph.nodes if node.op == "output").args[0]
        seen = set()
        for node in results[1:]:  # the first is the logits; their product, which they are a view of, is among the rest
            base = node
            while base.op == "call_function" and _is_view(base):
                base = base.args[0]
            if base.op != "placeholder" and base not in seen:
                seen.add(base)
                value = base.meta.get("val", node.meta.get("val"))
                found.append({"operator": str(base.target), "dtype": str(value.dtype), "shape": list(value.shape)})
        raise _EnoughSeen

    def backend(graph: Any, inputs: Any) -> Any:
        return torch._inductor.compile_fx.compile_fx(graph, inputs, inner_compile=inner)

    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.compile(model, backend=backend, fullgraph=True)(torch.zeros((SEQUENCES, SEQ), dtype=torch.long))
    except Exception:
        if not found:
            raise
    return found


def _is_view(node: Any) -> bool:
    return str(getattr(node.target, "_overloadpacket", "")) in VIEWS


def report(options: argparse.Namespace) -> dict[str, Any]:
    """The shape, and how often each kind of tensor is kept."""
    shape = {name: getattr(options, name) for name in ("layers", "hidden", "heads", "head_dim")}
    tensors = Counter(json.dumps(tensor) for tensor in kept(Model(**shape)))
    sizes = {"seq": SEQ, "sequences": SEQUENCES, "vocab": VOCAB}
    rows = [{"times": times, **json.loads(tensor)} for tensor, times in sorted(tensors.items())]
    return {"header": header(), **shape, **sizes, "kept": rows}


def main() -> None:
    """Print the report or write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("layers", 2), ("hidden", 768), ("heads", 12), ("head-dim", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = report(options)
    lines = [json.dumps({k: v for k, v in found.items() if k != "kept"})[:-1] + ', "kept": [']
    text = "\n".join([*lines, ",\n".join(" " + json.dumps(row) for row in found["kept"]), "]}\n"])
    options.out.write_text(text, encoding="utf-8") if options.out else print(text, end="")


if __name__ == "__main__":
    main()
