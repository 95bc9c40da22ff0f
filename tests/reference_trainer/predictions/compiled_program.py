"""The partitioned graphs and the generated program that torch.compile makes of the reference model.

The program runs on the meta device: every allocation and release happens as generated, but kernels do nothing and are
not even compiled.
"""

from __future__ import annotations

import operator
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
import torch._functorch.config
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from planner.config.model import ModelConfig
from planner.config.run import TrainingConfig
from planner.counts.shape import shape_of
from planner.memory.eager.context import SimulationContext
from reference_trainer.model.gpt import GPT
from tests.reference_trainer.model.test_gpt import sections

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # PyTorch's own, of its own scripting
    from torch._inductor import async_compile, codecache, compile_fx, cpu_vec_isa
    from torch._inductor import config as inductor_config

aten = torch.ops.aten
VIEWS = {
    aten.view.default, aten.permute.default, aten.transpose.int, aten.split.Tensor, aten.split_with_sizes.default,
    aten.slice.Tensor, aten.select.int, aten.expand.default, aten.unsqueeze.default, aten.squeeze.dim, aten.t.default,
}  # fmt: skip


# for `pytestmark` of the tests that compile: PyTorch warns of its own ways
WARNINGS = [
    pytest.mark.filterwarnings("ignore:dynamo_pgo force disabled"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
]
MIXED, NARROW, FP32 = (torch.bfloat16, torch.float32), (torch.bfloat16,) * 2, (torch.float32,) * 2  # compute, weights
SHAPE: dict[str, Any] = {
    "hidden": 96, "heads": 4, "kv_heads": 4, "head_dim": 24, "ffn": 320, "vocab": 1024, "seq": 64, "context": 64,
}  # fmt: skip


def context(changes: dict[str, Any], types: tuple[torch.dtype, torch.dtype]) -> SimulationContext:
    """A small model with some options changed, as the planner sees it."""
    model, training = sections(SHAPE | changes)
    compiled = training.model_copy(update={"runtime": "compiled"})
    return SimulationContext(model, compiled, shape_of(model), types[0].itemsize, types[1].itemsize)


class _EnoughSeen(Exception):
    """Raised in place of running what was compiled."""


def _compile(model: ModelConfig, training: TrainingConfig, types: tuple[torch.dtype, torch.dtype], inner: Any) -> None:
    """torch.compile as far as the forward pass's first run; `inner` is called for each of its graphs."""
    torch._dynamo.reset()
    gpt = GPT(model, training, *types)
    ids = torch.zeros(training.micro_batch, training.seq, dtype=torch.long)
    gpt.make_tables(training.seq, ids.device)

    def taken(gm: Any, inputs: Any, **options: Any) -> Any:
        inner(gm, inputs, options)

        def run(_: Any) -> None:
            raise _EnoughSeen

        run._boxed_call = True  # type: ignore[attr-defined]
        return run

    try:
        torch.compile(gpt, backend=lambda gm, x: compile_fx.compile_fx(gm, x, inner_compile=taken), dynamic=False)(
            ids, ids
        )
    except _EnoughSeen:
        return
    raise AssertionError("nothing was compiled")


def _results(graph: Any) -> Any:
    return next(node for node in graph.nodes if node.op == "output").args[0]


def _base(node: Any) -> Any:
    """The node whose storage a view shows."""
    while node.op == "call_function" and (
        node.target in VIEWS or (node.target is operator.getitem and node.args[0].target in VIEWS)
    ):
        node = node.args[0]
    return node


def partitioned_bytes(model: ModelConfig, training: TrainingConfig, types: tuple[torch.dtype, torch.dtype]) -> int:
    """Bytes that the partitioner hands from forward to backward, each storage once; parameters and inputs left out.

    A CPU's random state beside each recomputed block (5,056 bytes) is left out as well: it is no tensor of the model.
    """
    graphs: list[Any] = []
    _compile(model, training, types, lambda gm, inputs, options: graphs.append(gm))
    total, seen = 0, set()
    for node in _results(graphs[0].graph)[1:]:
        base = _base(node)
        value = base.meta.get("val")
        if base.op != "placeholder" and base not in seen and isinstance(value, torch.Tensor):
            seen.add(base)
            total += 0 if value.dtype == torch.uint8 else value.numel() * value.element_size()
    return total


class Program:
    """Forward and backward as generated: the callables, and the names of what goes in and comes out."""

    def __init__(self, model: ModelConfig, training: TrainingConfig, types: tuple[torch.dtype, torch.dtype]) -> None:
        self.parts: list[tuple[list[Any], list[str | None], Any]] = []

        def keep(gm: Any, inputs: Any, options: Any) -> None:
            given = [node for node in gm.graph.nodes if node.op == "placeholder"]
            names = [getattr(node, "name", None) for node in _results(gm.graph)]
            self.parts.append((given, names, compile_fx.compile_fx_inner(gm, inputs, **options).current_callable))

        with _generated_only():
            _compile(model, training, types, keep)


@contextmanager
def _generated_only() -> Iterator[None]:
    """Programs are generated, forward and backward, and their kernels do nothing."""

    def nothing(*_: Any, **__: Any) -> Any:
        return lambda *_: None

    with (
        inductor_config.patch(force_disable_caches=True),
        mock.patch.object(async_compile.AsyncCompile, "cpp_pybinding", nothing),
        # no vector instructions: the kernels are not run, a compiler need not be tried, and their text is shorter
        mock.patch.object(cpu_vec_isa, "valid_vec_isa_list", lambda: []),
        mock.patch.object(torch._functorch.config, "force_non_lazy_backward_lowering", True),
    ):
        try:
            yield
        finally:
            codecache.PyCodeCache.cache_clear()


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts storages of the meta device."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self.known: set[int] = set()

    def add(self, tree: Any) -> None:
        for leaf in tree_iter(tree):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage()._cdata not in self.known:
                storage = leaf.untyped_storage()
                self.known.add(storage._cdata)
                self.live += storage.nbytes()
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())

    def _free(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.live -= size

    def take_peak(self) -> int:
        """The highest since the last call."""
        peak, self.peak = self.peak, self.live
        return peak

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name() if isinstance(func, torch._ops.HigherOrderOperator) else ""
        if name == "run_and_save_rng_state":
            out = (torch.empty(0, dtype=torch.uint8, device="meta"), args[0](*args[1:], **(kwargs or {})))
        elif name == "run_with_rng_state":
            out = args[1](*args[2:], **(kwargs or {}))
        else:
            out = func(*args, **(kwargs or {}))
        self.add(out)
        return out


def _meta(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    if any(not isinstance(size, int) for size in value.shape):
        return torch.empty(0, dtype=value.dtype, device="meta")  # a random state
    return torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device="meta")


def replayed_peaks(
    model: ModelConfig, training: TrainingConfig, types: tuple[torch.dtype, torch.dtype], micro_batches: int = 2
) -> tuple[int, list[tuple[int, int]]]:
    """Bytes of parameters and inputs, and of each micro-batch the peaks of forward and of backward."""
    program, watch, found = Program(model, training, types), _Watch(), []
    (given, names, forward), (wanted, _, backward) = program.parts

    def empty(size: Any, stride: Any, dtype: torch.dtype) -> torch.Tensor:
        out = torch.empty_strided(size, stride, dtype=dtype, device="meta")
        watch.add(out)
        return out

    for part in (forward, backward):
        part.__globals__["empty_strided_cpu"] = empty
    inputs = [_meta(node.meta["val"]) for node in given]
    watch.add(inputs)
    state, gradients = watch.take_peak(), None
    for _ in range(micro_batches):
        with watch:
            results = forward(list(inputs))
        first = watch.take_peak()
        saved = dict(zip(names[1:], results[1:], strict=True))
        del results
        arguments = [saved.pop(node.name) if node.name in saved else _meta(node.meta["val"]) for node in wanted]
        assert all(left.dtype == torch.uint8 for left in saved.values()), list(saved)
        saved.clear()
        with watch:
            results = backward(arguments)
        found.append((first, watch.take_peak()))
        if gradients is None:
            gradients = [result for result in results if isinstance(result, torch.Tensor)]
        del results
    return state, found
