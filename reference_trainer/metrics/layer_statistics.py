"""What a step did to each layer: update against weight, gradients, activations; on the device, every N steps.

Nothing here waits for the host. A layer is a part of a block, `blocks.3.mlp`, or a part outside of the blocks, `head`.

    update_ratio/LAYER     RMS of an update over RMS of the weights that it changed, from a sample of each tensor
    grad_rms/LAYER         RMS of the step's gradient before clipping; grad_max/LAYER: its largest absolute element
    activation_rms/BLOCK   RMS of a block's output, the residual stream; activation_max/BLOCK: its largest element
    zero_share/BLOCK.mlp   share of zeros among what enters the MLP's last matrix: dead units of a ReLU
    weight_norm            global norm of the weights after the step
    clipped_share          share of the gradient's elements above `optimizer.clip_value`, where there is one

Activations are those of the step's first micro-batch. A compiled program has no place for hooks: it shows none.
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

# elements of a tensor whose values before the step are kept: the RMS of so many independent ones is within 0.3 % (one
# standard error, 1 / sqrt(2 n)), and smaller tensors are measured whole
SAMPLED_ELEMENTS = 2**16


def layer_of(name: str) -> str:
    """The layer of a parameter: `blocks.3.mlp.up.weight` is of `blocks.3.mlp`, `embedding.weight` of `embedding`."""
    parts = name.split(".")
    return ".".join(parts[:3] if parts[0] == "blocks" else parts[:1])


def shows_activations(config: RunConfig) -> bool:
    """Whether modules are called one by one, so that their outputs can be seen."""
    return config.training.runtime != "compiled"


def kept_bytes(weights: Iterable[Tensor]) -> int:
    """Bytes of the samples that are kept between `before_update` and `after_update`."""
    return sum(_sample(w).numel() * w.element_size() for w in weights)


def gradients_of(optimizer: Updater) -> dict[str, Tensor]:
    """The gradients as they stand, by the parameter's name, times the loss scale; those of master weights in fp32."""
    holders = optimizer.weights if optimizer.has_master and optimizer.wide_gradients else optimizer.parameters
    return {name: w.grad for name, w in holders.items() if w.grad is not None}


def global_norm(tensors: Iterable[Tensor]) -> Tensor:
    """Euclidean norm over all elements, summed in fp32, without a copy of any tensor."""
    held = [t.detach() for t in tensors]
    if all(t.dtype == torch.float32 for t in held):
        return torch.nn.utils.get_total_norm(held)  # all in a few kernels
    # it would round each tensor's norm to bf16
    each = torch.stack([torch.linalg.vector_norm(t, dtype=torch.float32) for t in held])
    norm: Tensor = torch.linalg.vector_norm(each)
    return norm


class LayerStatistics:
    """A `step.Watcher`: measures steps divisible by `every`, and does nothing in the others."""

    def __init__(self, every: int) -> None:
        self.every = every
        self._found: dict[str, Tensor] = {}
        self._before: dict[str, Tensor] = {}
        self._hooks: list[RemovableHandle] = []

    def before_step(self, context: StepContext, step: int) -> None:
        """Look at the blocks' outputs from now on."""
        self._found = {}
        if step % self.every == 0 and shows_activations(context.config):
            for index, block in enumerate(context.model.blocks):
                self._hooks.append(block.register_forward_hook(self._residual_hook(f"blocks.{index}")))
                down = getattr(block.mlp, "down", None)
                if isinstance(down, nn.Module):  # a mixture's experts are no modules
                    self._hooks.append(down.register_forward_pre_hook(self._zeros_hook(f"blocks.{index}.mlp")))

    def after_micro(self, context: StepContext, step: int, micro: int) -> None:
        """After the first micro-batch the hooks go; after the last the gradients are whole, and not yet clipped."""
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
        """What was found; nothing in the steps between."""
        if step % self.every:
            return {}
        weights, before = context.optimizer.weights, self._before
        changed, old = {}, {}
        for name, w in weights.items():
            changed[name] = (_sample(w).float() - before[name].float()).square().mean() * w.numel()
            old[name] = before[name].float().square().mean() * w.numel()
        top, bottom = _by_layer(changed, _summed), _by_layer(old, _summed)
        self._found |= {f"update_ratio/{layer}": (top[layer] / bottom[layer]).sqrt() for layer in top}
        self._found["weight_norm"] = global_norm(weights.values())
        self._before = {}
        return self._found

    @torch.no_grad()
    def _measure_gradients(self, optimizer: Updater) -> None:
        scale, gradients = optimizer.scale_tensor, gradients_of(optimizer)
        squares = {n: torch.linalg.vector_norm(g, dtype=torch.float32).square() for n, g in gradients.items()}
        largest = {n: torch.linalg.vector_norm(g, math.inf).float() for n, g in gradients.items()}
        sizes: dict[str, int] = {}
        for name, g in gradients.items():
            sizes[layer_of(name)] = sizes.get(layer_of(name), 0) + g.numel()
        for layer, square in _by_layer(squares, _summed).items():
            self._found[f"grad_rms/{layer}"] = (square / sizes[layer]).sqrt() / scale
        for layer, most in _by_layer(largest, lambda found: torch.stack(found).max()).items():
            self._found[f"grad_max/{layer}"] = most / scale
        limit = optimizer.clip_value
        if limit is not None:
            above = [(g.abs() > limit * scale).sum() for g in gradients.values()]
            self._found["clipped_share"] = torch.stack(above).sum() / sum(sizes.values())

    def _residual_hook(self, name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, out: Tensor) -> None:
            # under checkpointing the block runs once more in backward: the first pass counts
            if f"activation_rms/{name}" not in self._found:
                x = out.detach()
                norm = torch.linalg.vector_norm(x, dtype=torch.float32)
                self._found[f"activation_rms/{name}"] = norm / math.sqrt(x.numel())
                self._found[f"activation_max/{name}"] = torch.linalg.vector_norm(x, math.inf)

        return hook

    def _zeros_hook(self, name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if f"zero_share/{name}" not in self._found:
                x = inputs[0].detach()
                self._found[f"zero_share/{name}"] = 1.0 - torch.count_nonzero(x) / x.numel()

        return hook


def _sample(w: Tensor) -> Tensor:
    """At most `SAMPLED_ELEMENTS` elements, evenly spread, as a view. The stride shares no factor with the width."""
    flat = w.detach().reshape(-1)
    stride = -(-flat.numel() // SAMPLED_ELEMENTS)
    while stride > 1 and math.gcd(stride, w.shape[-1]) > 1:
        stride += 1
    return flat[::stride]


def _summed(found: list[Tensor]) -> Tensor:
    return torch.stack(found).sum()


def _by_layer(found: dict[str, Tensor], joined: Callable[[list[Tensor]], Tensor]) -> dict[str, Tensor]:
    layers: dict[str, list[Tensor]] = {}
    for name, value in found.items():
        layers.setdefault(layer_of(name), []).append(value)
    return {layer: joined(values) for layer, values in layers.items()}
