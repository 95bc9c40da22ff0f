"""Layer statistics every N steps, computed on the device: update relative to weight, gradients, activations.

Nothing here waits for the device. A layer is a part of a block, `blocks.3.mlp`, or a part outside the blocks, `head`.

    update_ratio/LAYER     RMS of the update / RMS of the weights before it, from a sample of each tensor
    grad_rms/LAYER         RMS of the step's gradient before clipping; grad_max/LAYER: its largest absolute element
    activation_rms/BLOCK   RMS of a block's output, the residual stream; activation_max/BLOCK: its largest element
    zero_share/BLOCK.mlp   fraction of zeros in the input of the last MLP matrix: dead units of a ReLU
    weight_norm            global norm of the weights after the step
    clipped_share          fraction of gradient elements above `optimizer.clip_value`, if that is set

Activations are those of the first micro-batch. A compiled program runs no hooks, so it has no activation statistics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from planner.config.run import RunConfig
from reference_trainer.optim.updater import Updater
from reference_trainer.step.step import StepContext

# elements of a tensor whose values before the step are kept: the standard error of the RMS of n independent values is
# 1 / sqrt(2 n), here 0.3 %; smaller tensors are measured completely
SAMPLED_ELEMENTS = 2**16


def layer_of(name: str) -> str:
    """The layer of a parameter: `blocks.3.mlp` of `blocks.3.mlp.up.weight`, `embedding` of `embedding.weight`."""
    parts = name.split(".")
    return ".".join(parts[:3] if parts[0] == "blocks" else parts[:1])


def shows_activations(config: RunConfig) -> bool:
    """Whether hooks can see activations: not in a compiled program."""
    return config.training.runtime != "compiled"


def kept_bytes(weights: Iterable[Tensor]) -> int:
    """Bytes of the weight samples that are kept from `before_update` to `after_update`."""
    return sum(_sample(w).numel() * w.element_size() for w in weights)


def gradients_of(optimizer: Updater) -> dict[str, Tensor]:
    """The current gradients by parameter name, times the loss scale; in fp32 if the master weights have them."""
    holders = optimizer.weights if optimizer.has_master and optimizer.wide_gradients else optimizer.parameters
    return {name: w.grad for name, w in holders.items() if w.grad is not None}


def global_norm(tensors: Iterable[Tensor]) -> Tensor:
    """L2 norm over all elements, summed in fp32, without copying a tensor."""
    detached = [t.detach() for t in tensors]
    if all(t.dtype == torch.float32 for t in detached):
        return torch.nn.utils.get_total_norm(detached)  # a few kernels for all tensors
    # get_total_norm would round the norm of each bf16 tensor to bf16
    each = torch.stack([torch.linalg.vector_norm(t, dtype=torch.float32) for t in detached])
    norm: Tensor = torch.linalg.vector_norm(each)
    return norm


class LayerStatistics:
    """A `step.Watcher` that measures the steps divisible by `every`."""

    def __init__(self, every: int) -> None:
        self.every = every
        self._measured: dict[str, Tensor] = {}
        self._before: dict[str, Tensor] = {}
        self._hooks: list[RemovableHandle] = []

    def before_step(self, context: StepContext, step: int) -> None:
        """Attach hooks to the blocks."""
        self._measured = {}
        if step % self.every == 0 and shows_activations(context.config):
            for index, block in enumerate(context.model.blocks):
                self._hooks.append(block.register_forward_hook(self._residual_hook(f"blocks.{index}")))
                down = getattr(block.mlp, "down", None)
                if isinstance(down, nn.Module):  # the experts of a mixture are not modules
                    self._hooks.append(down.register_forward_pre_hook(self._zeros_hook(f"blocks.{index}.mlp")))

    def after_micro(self, context: StepContext, step: int, micro: int) -> None:
        """Remove the hooks after the first micro-batch; measure the unclipped gradients after the last."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        if step % self.every == 0 and micro == context.config.training.accumulation - 1:
            self._measure_gradients(context.optimizer)

    def before_update(self, context: StepContext, step: int) -> None:
        """Keep a sample of the weights."""
        if step % self.every == 0:
            self._before = {name: _sample(w).clone() for name, w in context.optimizer.weights.items()}

    def after_update(self, context: StepContext, step: int) -> dict[str, Tensor]:
        """The statistics; empty for steps that are not measured."""
        if step % self.every:
            return {}
        weights, before = context.optimizer.weights, self._before
        changed, old = {}, {}
        for name, w in weights.items():
            changed[name] = (_sample(w).float() - before[name].float()).square().mean() * w.numel()
            old[name] = before[name].float().square().mean() * w.numel()
        top, bottom = _by_layer(changed, _summed), _by_layer(old, _summed)
        self._measured |= {f"update_ratio/{layer}": (top[layer] / bottom[layer]).sqrt() for layer in top}
        self._measured["weight_norm"] = global_norm(weights.values())
        self._before = {}
        return self._measured

    @torch.no_grad()
    def _measure_gradients(self, optimizer: Updater) -> None:
        scale, gradients = optimizer.scale_tensor, gradients_of(optimizer)
        squares = {n: torch.linalg.vector_norm(g, dtype=torch.float32).square() for n, g in gradients.items()}
        largest = {n: torch.linalg.vector_norm(g, math.inf).float() for n, g in gradients.items()}
        sizes: dict[str, int] = {}
        for name, g in gradients.items():
            sizes[layer_of(name)] = sizes.get(layer_of(name), 0) + g.numel()
        for layer, square in _by_layer(squares, _summed).items():
            self._measured[f"grad_rms/{layer}"] = (square / sizes[layer]).sqrt() / scale
        for layer, most in _by_layer(largest, lambda values: torch.stack(values).max()).items():
            self._measured[f"grad_max/{layer}"] = most / scale
        limit = optimizer.clip_value
        if limit is not None:
            above = [(g.abs() > limit * scale).sum() for g in gradients.values()]
            self._measured["clipped_share"] = torch.stack(above).sum() / sum(sizes.values())

    def _residual_hook(self, name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, out: Tensor) -> None:
            # with checkpointing the block runs again in backward: only the first pass counts
            if f"activation_rms/{name}" not in self._measured:
                x = out.detach()
                norm = torch.linalg.vector_norm(x, dtype=torch.float32)
                self._measured[f"activation_rms/{name}"] = norm / math.sqrt(x.numel())
                self._measured[f"activation_max/{name}"] = torch.linalg.vector_norm(x, math.inf)

        return hook

    def _zeros_hook(self, name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if f"zero_share/{name}" not in self._measured:
                x = inputs[0].detach()
                self._measured[f"zero_share/{name}"] = 1.0 - torch.count_nonzero(x) / x.numel()

        return hook


def _sample(w: Tensor) -> Tensor:
    """At most `SAMPLED_ELEMENTS` elements, evenly spread, as a view. The stride shares no factor with the width."""
    flat = w.detach().reshape(-1)
    stride = -(-flat.numel() // SAMPLED_ELEMENTS)
    while stride > 1 and math.gcd(stride, w.shape[-1]) > 1:
        stride += 1
    return flat[::stride]


def _summed(values: list[Tensor]) -> Tensor:
    return torch.stack(values).sum()


def _by_layer(tensors: dict[str, Tensor], joined: Callable[[list[Tensor]], Tensor]) -> dict[str, Tensor]:
    layers: dict[str, list[Tensor]] = {}
    for name, value in tensors.items():
        layers.setdefault(layer_of(name), []).append(value)
    return {layer: joined(values) for layer, values in layers.items()}
