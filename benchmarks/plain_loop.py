"""A plain training loop of the same mathematics, for comparison.

nanoGPT's options: learned positions, LayerNorm, GELU, biases, tied head, `scaled_dot_product_attention`, fused AdamW
with decay on matrices, clipping, cosine rate, random blocks of a memory-mapped .bin. Nothing is checked, logged or
saved; the loss is read once a step, as a progress line would.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from planner.config.run import RunConfig


class PlainBlock(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, hidden: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.qkv, self.out = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.up, self.down = nn.Linear(hidden, ffn), nn.Linear(ffn, hidden)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, hidden = x.shape
        q, k, v = self.qkv(self.norm1(x)).split(hidden, dim=2)
        q, k, v = (t.view(batch, length, self.heads, -1).transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, hidden))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class PlainGPT(nn.Module):
    """Embeddings, blocks, norm, tied head, mean loss."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        m = config.model
        self.tokens, self.places = nn.Embedding(m.vocab, m.hidden), nn.Embedding(m.context, m.hidden)
        self.blocks = nn.ModuleList(PlainBlock(m.hidden, m.heads, m.ffn) for _ in range(m.layers))
        self.norm, self.head = nn.LayerNorm(m.hidden), nn.Linear(m.hidden, m.vocab, bias=False)
        self.head.weight = self.tokens.weight
        for name, p in self.named_parameters():
            if p.dim() >= 2:
                deep = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * m.layers) if deep else 0.02)

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        x = self.tokens(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))
        loss: Tensor = F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))
        return loss


class PlainLoop:
    """One model in training; `steps` makes some steps and returns the seconds of each."""

    def __init__(self, config: RunConfig, data: Path, device: torch.device) -> None:
        self.config, self.data, self.device, self.done = config, data, device, 0
        torch.manual_seed(config.training.seed)
        self.model = PlainGPT(config).to(device)
        o = config.optimizer
        matrices = [p for p in self.model.parameters() if p.dim() >= 2]
        vectors = [p for p in self.model.parameters() if p.dim() < 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": o.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=0.0, betas=(o.beta1, o.beta2), eps=o.eps, fused=True,
        )  # fmt: skip

    def batch(self) -> tuple[Tensor, Tensor]:
        """Random blocks; the map is opened anew each time, as nanoGPT does."""
        t = self.config.training
        tokens = np.memmap(self.data, dtype=np.uint16, mode="r")
        starts = torch.randint(len(tokens) - t.seq - 1, (t.micro_batch,)).tolist()
        ids = torch.stack([torch.from_numpy(tokens[s : s + t.seq].astype(np.int64)) for s in starts])
        targets = torch.stack([torch.from_numpy(tokens[s + 1 : s + 1 + t.seq].astype(np.int64)) for s in starts])
        if self.device.type == "cuda":
            return (
                ids.pin_memory().to(self.device, non_blocking=True),
                targets.pin_memory().to(self.device, non_blocking=True),
            )
        return ids, targets

    def rate(self) -> float:
        """Linear warm-up, then a cosine to the floor."""
        s, total = self.config.schedule, self.config.training.steps or 1
        if self.done <= s.warmup_steps:
            return s.peak_lr * self.done / max(1, s.warmup_steps)
        share = (self.done - s.warmup_steps) / max(1, total - s.warmup_steps)
        return s.min_lr + 0.5 * (1 + math.cos(math.pi * share)) * (s.peak_lr - s.min_lr)

    def step(self) -> float:
        """One optimizer step; the mean loss."""
        self.done += 1
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        accumulation, total = self.config.training.accumulation, 0.0
        ids, targets = self.batch()
        for _ in range(accumulation):
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.config.training.recipe != "fp32"):
                loss = self.model(ids, targets) / accumulation
            ids, targets = self.batch()
            loss.backward()
            total += loss.item()
        if self.config.optimizer.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total

    def steps(self, count: int) -> list[float]:
        """Seconds of each of `count` steps."""
        found = []
        for _ in range(count):
            begin = time.perf_counter()
            self.step()
            found.append(time.perf_counter() - begin)
        return found
