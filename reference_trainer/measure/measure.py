"""Measures what a model saves, computes and holds. The planner's predictions are checked against it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from planner.config.run import RunConfig
from planner.counts.run import recipe_of, tokens_per_step
from planner.counts.shape import has_window
from reference_trainer.model.gpt import GPT
from reference_trainer.step.precision import compute_type, weights_type


def build_model(config: RunConfig) -> GPT:
    """The config's model on the current default device."""
    recipe = recipe_of(config)
    return GPT(config.model, config.training, compute_type(recipe), weights_type(recipe))


def saved_bytes_by_operator(
    model: GPT, ids: Tensor, targets: Tensor, documents: Tensor | None = None
) -> dict[str, int]:
    """Bytes of distinct storages that autograd saves for backward in one forward pass, by module.

    Parameters and position tables are not counted: they are alive anyway. A storage belongs to the first module that
    saves it. Names leave out the block number, so one line is the sum of all blocks. Nothing of the pass is alive
    afterwards.
    """
    known = {_key(t) for t in [*model.parameters(), *(model.tables or ())] if t is not None}
    lines: dict[str, int] = {}
    keep: list[torch.UntypedStorage] = []

    with _module_stack(model) as stack:

        def pack(tensor: Tensor) -> Tensor:
            key = _key(tensor)
            if key not in known:
                known.add(key)
                keep.append(tensor.untyped_storage())  # an address is not used again while its storage lives
                name = stack[-1] if stack else "blocks"  # outside every module: a checkpointed block's input
                lines[name] = lines.get(name, 0) + tensor.untyped_storage().nbytes()
            return tensor.detach()  # a tensor with its graph, which holds this result: a cycle that nothing collects

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model(ids, targets, documents)
    del loss
    return lines


def _key(tensor: Tensor) -> int:
    return id(tensor.untyped_storage()) if tensor.is_meta else tensor.untyped_storage()._cdata


@contextmanager
def _module_stack(model: GPT) -> Iterator[list[str]]:
    """The names of the modules whose forward is running, outermost first, without the model itself."""
    stack: list[str] = []
    handles = []
    for name, module in model.named_modules():
        if not name or isinstance(module, nn.ModuleList):
            continue
        parts = name.split(".")
        label = ".".join(p for p in parts if not p.isdigit())

        def enter(_: nn.Module, args: Any, label: str = label) -> None:
            stack.append(label)

        def leave(*_: Any) -> None:
            stack.pop()

        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield stack
    finally:
        for handle in handles:
            handle.remove()


def model_flops_per_step(config: RunConfig) -> int:
    """Model FLOPs of one optimizer step, forward and backward, counted by PyTorch on the meta device.

    On that device attention is decomposed and counted in full: T^2 scores, forward x 3. Of a block with a sliding
    window, which computes them all here and hides most, the keys in the window are counted, as a plan does.
    Checkpointing and chunked losses are turned off, because model FLOPs do not include recomputation; so is
    autocast, which the device does not support. Document masking changes nothing.
    """
    unrepeated = {
        "activation_checkpointing": "none",
        "loss": "plain",
        "runtime": "eager",
        "attention_kernel": "math",
        "document_masking": False,
    }
    plain = config.model_copy(update={"training": config.training.model_copy(update=unrepeated)})
    with torch.device("meta"):
        model = build_model(plain)
        shape = (1, config.training.seq)
        ids, targets = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
        with FlopCounterMode(display=False) as counter:
            model(ids, targets).backward()
    sequences = tokens_per_step(config) // config.training.seq
    counted = counter.get_total_flops() - _hidden_by_windows(config, counter)
    return int(counted) * sequences


def _hidden_by_windows(config: RunConfig, counter: FlopCounterMode) -> int:
    """FLOPs of the scores that no key of a window has, in one sequence."""
    model, seq = config.model, config.training.seq
    hidden = max(0, seq - (model.sliding_window or seq))
    found = counter.get_flop_counts()
    blocks = [i for i in range(model.layers) if hidden and has_window(model, i)]
    scores = sum(found[f"GPT.blocks.{i}.attention"][torch.ops.aten.bmm] for i in blocks)
    return scores * hidden // seq
