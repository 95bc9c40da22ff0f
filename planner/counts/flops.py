"""FLOPs by operator: forward, backward and computed again, per token; and their sums in the named conventions.

The operators are the matrices of `tensors.py` and the two products of attention. Norms, activations, softmax, the
embedding look-up and the optimizer are bandwidth, not FLOPs, and are left out here as in every convention.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from planner.config.attention import WITHOUT_SCORES
from planner.config.model import ModelConfig
from planner.config.run import RunConfig, TrainingConfig
from planner.counts.run import Resolved
from planner.counts.shape import attended_keys, has_experts, has_window, shape_of
from planner.counts.tensors import ParameterTensor, parameter_tensors
from planner.formulas import flops
from planner.formulas.recording import real, whole

TABLES = ("embedding.weight", "position.weight")  # looked up, not multiplied
_EXPERT_TENSORS = ("mlp.router", "mlp.experts", "mlp.shared")  # other names of an MLP belong to dense blocks
SCORES, VALUES = "attention.scores", "attention.values"


@dataclass(frozen=True, slots=True)
class Flops:
    """FLOPs, forward and backward. `training_*` are for the tokens asked for."""

    training_6nd: float
    training_model: float
    training_hardware: float
    per_token_model: int
    per_token_model_causal: int
    per_token_hardware: int
    per_step_model: int


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator in all blocks that have it, FLOPs per token.

    `weights` that a token meets, of all blocks (0 for the products of attention). `recomputed`: in backward, what
    forward had made already, in all the ways named in `recomputed_by`.
    """

    name: str
    weights: int
    forward: int
    backward: int
    recomputed: int
    recomputed_by: tuple[str, ...]

    @property
    def model(self) -> int:
        """What MFU counts."""
        return self.forward + self.backward

    @property
    def hardware(self) -> int:
        """What HFU counts."""
        return self.model + self.recomputed


@dataclass(frozen=True, slots=True)
class Product:
    """An operator's forward FLOPs per token in all blocks that have it, and in those that keep only their input."""

    name: str
    weights: int
    forward: int
    checkpointed: int


def operators_of(config: RunConfig) -> tuple[Operator, ...]:
    """Every operator that multiplies matrices, in the order of a forward pass, the head last."""
    model = config.model
    products = _block_products(model, config.training)
    found = [_operator(product, config) for product in products]
    head = shape_of(model).vocab * shape_of(model).hidden
    forward = whole(flops.products_forward_flops_per_token(head))
    again = config.training.loss == "chunked"
    found.append(
        Operator(
            name="head",
            weights=head,
            forward=forward,
            backward=whole(flops.backward_flops_per_token(forward)),
            recomputed=forward if again else 0,
            recomputed_by=("chunked loss",) if again else (),
        )
    )
    return tuple(found)


def _block_products(model: ModelConfig, training: TrainingConfig) -> list[Product]:
    """The operators of the blocks: attention's products stand before its output projection."""
    s = shape_of(model)
    every = slice(None, None, training.activation_checkpointing_every)
    keys = keys_by_block(model, training.seq)
    with_experts = [has_experts(model, block) for block in range(s.layers)]
    blocks, checkpointed = _Blocks.among(with_experts), _Blocks.among(with_experts[every])
    found = []
    for tensor in parameter_tensors(model):
        if len(tensor.shape) < 2 or tensor.name in TABLES or tensor.name == "head.weight":
            continue
        if tensor.name == "attention.proj.weight":
            all_keys, again = Counter(keys), Counter(keys[every])
            scores = {k: whole(flops.scores_forward_flops_per_token(s.query_width, k)) for k in all_keys}
            values = {k: whole(flops.values_forward_flops_per_token(s.value_width, k)) for k in all_keys}
            for name, each in ((SCORES, scores), (VALUES, values)):
                of_all, of_again = (sum(each[k] * n for k, n in seen.items()) for seen in (all_keys, again))
                found.append(Product(name, 0, of_all, of_again))
        found.append(_product(tensor, model, blocks, checkpointed))
    return found


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Numbers of blocks: all, and those with experts."""

    every: int
    routed: int

    @classmethod
    def among(cls, with_experts: Sequence[bool]) -> _Blocks:
        return cls(len(with_experts), sum(with_experts))

    def having(self, tensor: ParameterTensor) -> int:
        """Blocks that have this tensor."""
        if not tensor.name.startswith("mlp."):
            return self.every
        return self.routed if tensor.name.startswith(_EXPERT_TENSORS) else self.every - self.routed


def _product(tensor: ParameterTensor, model: ModelConfig, blocks: _Blocks, checkpointed: _Blocks) -> Product:
    """A linear layer in the blocks that have it; of routed experts, those that a token uses."""
    moe, met = model.moe, tensor.count
    if moe is not None and len(tensor.shape) == 3:
        met = met // moe.experts * moe.top_k
    one, times = whole(flops.products_forward_flops_per_token(met)), blocks.having(tensor)
    name = tensor.name.removesuffix(".weight")
    return Product(name, met * times, one * times, one * checkpointed.having(tensor))


def keys_by_block(model: ModelConfig, seq: int) -> tuple[int, ...]:
    """Keys that a query's scores are counted against in each block, causal mask aside; `attended_keys` is their sum."""
    return tuple(seq if window is None else min(seq, window) for window in _windows(model))


def mask_entries_per_sequence(model: ModelConfig, seq: int) -> int:
    """Scores of one head that the causal masks of all blocks leave in a sequence."""
    chunk = model.attention_chunk
    if chunk is None or chunk >= seq:
        return sum(whole(flops.mask_entries(seq, keys)) for keys in keys_by_block(model, seq))
    chunks, rest = divmod(seq, chunk)
    chunked = chunks * whole(flops.mask_entries(chunk, chunk)) + whole(flops.mask_entries(rest, rest))
    full = whole(flops.mask_entries(seq, seq))
    return sum(full if window is None else chunked for window in _windows(model))


def _windows(model: ModelConfig) -> list[int | None]:
    """Each block's sliding window or chunk; None for a block that sees all keys."""
    window = model.attention_chunk if model.sliding_window is None else model.sliding_window
    if window is None:
        return [None] * model.layers
    return [window if has_window(model, block) else None for block in range(model.layers)]


def _operator(product: Product, config: RunConfig) -> Operator:
    forward = product.forward
    again = {
        "flash attention": _flash(product, config),
        "selective checkpointing": _selective(product, config),
        "full checkpointing": _full(product, config),
    }
    return Operator(
        name=product.name,
        weights=product.weights,
        forward=forward,
        backward=whole(flops.backward_flops_per_token(forward)),
        recomputed=sum(again.values()),
        recomputed_by=tuple(name for name, count in again.items() if count),
    )


def _flash(product: Product, config: RunConfig) -> int:
    """Flash attention's backward forms the scores again: it never stored them."""
    wanted = config.training.attention_kernel in WITHOUT_SCORES and product.name == SCORES
    return product.forward if wanted else 0


def _selective(product: Product, config: RunConfig) -> int:
    """The attention core once more. Written out, its last product needs its inputs only; flash also its statistics."""
    t = config.training
    if t.activation_checkpointing != "selective":
        return 0
    core = (SCORES, VALUES) if t.attention_kernel in WITHOUT_SCORES else (SCORES,)
    return product.forward if product.name in core else 0


def _full(product: Product, config: RunConfig) -> int:
    """Checkpointed blocks forward once more, but their last product where only its inputs are needed."""
    t = config.training
    if t.activation_checkpointing not in ("full", "offloaded"):
        return 0
    if product.name in last_products(config):
        return 0
    return product.checkpointed


def last_products(config: RunConfig) -> tuple[str, ...]:
    """Last products of the blocks that a checkpointed block does not make again: backward needs their inputs only.

    torch.utils.checkpoint stops at the last tensor that backward asked for. A norm after the product, dropout, the
    router's weights or the shared experts' gate ask for its output, so that it is made again.
    """
    model = config.model
    if model.norm_placement != "pre" or config.training.dropout:
        return ()
    if model.moe is not None and model.moe.shared_ffn and not model.moe.shared_gate:
        return ("mlp.down", "mlp.shared.down")
    return ("mlp.down",)


def flops_of(run: Resolved) -> Flops:
    """FLOPs in the named conventions."""
    shape, counts, config = run.shape, run.parameters, run.config
    tokens, keys = run.requested_tokens, attended_keys(config.model, config.training.seq)
    args = (counts.active_linear, shape.query_width, shape.value_width, keys)
    model = whole(flops.model_flops_per_token(*args))
    again = sum(o.recomputed for o in operators_of(config))
    hardware = whole(flops.hardware_flops_per_token(model, again))
    return Flops(
        training_6nd=real(flops.training_flops_6nd(run.compute_parameters, tokens)),
        training_model=real(flops.total_flops(model, tokens)),
        training_hardware=real(flops.total_flops(hardware, tokens)),
        per_token_model=model,
        per_token_model_causal=whole(flops.model_flops_per_token_causal(*args)),
        per_token_hardware=hardware,
        per_step_model=whole(flops.total_flops(model, run.tokens_per_step)),
    )
