"""The reference model: one GPT whose options cover every architecture that the planner supports.

Every machine saves the same bytes for backward: each linear layer casts its weight to the compute
dtype, each norm computes in fp32 and its output is cast once, the residual stream has the dtype of the
weights, logits are fp32 before the loss, and norms, rotary embedding and dropout save only what they need
(`layers.py`). Under the runtime "autocast" the model casts nothing: PyTorch's autocast lists decide.
Shapes: B micro-batch, T sequence, h hidden, a heads, k key-value heads, d head_dim, V vocab.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint

from planner.config.model import ModelConfig
from planner.config.run import TrainingConfig
from planner.counts.roles import Role
from planner.counts.shape import has_experts, is_recomputed, shape_of
from planner.counts.untrained import refuse_untrained
from reference_trainer.model.attention import Attention, LatentAttention
from reference_trainer.model.balancing import ExpertBalance
from reference_trainer.model.document_masks import needs_dense_mask, window_kinds, with_block_masks, with_document_masks
from reference_trainer.model.layers import Dropout, make_linear, make_norm, make_table
from reference_trainer.model.losses import make_loss, soft_capped
from reference_trainer.model.mlp import MoE, make_mlp
from reference_trainer.model.positions import PositionTables, make_tables
from reference_trainer.model.roles import parameter_roles


class TransformerBlock(nn.Module):
    """A transformer block: attention and MLP, each with the configured norms before and after it.

    A missing norm is an identity. The input of each sub-layer is cast to the compute dtype once.
    """

    def __init__(
        self,
        model: ModelConfig,
        training: TrainingConfig,
        compute: torch.dtype,
        index: int,
        balance: ExpertBalance | None = None,
    ) -> None:
        super().__init__()
        self.compute, self.residual = compute, model.residual
        self.autocast = training.runtime == "autocast"

        def norm(wanted: bool) -> nn.Module:
            return make_norm(model, model.hidden) if wanted else nn.Identity()

        before, after = model.norm_placement != "post", model.norm_placement != "pre"
        self.attention_norm = norm(before)
        self.attention = (Attention if model.mla is None else LatentAttention)(model, training, index)
        self.attention_post_norm = norm(after)
        self.mlp_norm = norm(before and model.residual != "parallel-one-norm")
        if not has_experts(model, index):
            self.mlp = make_mlp(model, training, model.ffn, bool(shape_of(model).mlp_bias))
        else:
            assert balance is not None, "experts share what balances them"
            self.mlp = MoE(model, training, compute, balance, index)
        self.mlp_post_norm = norm(after)
        self.dropout = Dropout(training.dropout)

    def forward(self, x: Tensor, tables: PositionTables) -> Tensor:
        """The residual stream x [B, T, h] after this block."""
        # no needless names here: each would keep a tensor alive
        if self.residual == "parallel-one-norm":
            normed = self.cast(self.attention_norm(x))
            out: Tensor = x + self.dropout(self.attention(normed, tables)) + self.dropout(self.mlp(normed))
            return out
        if self.residual == "parallel":
            return x + self.attention_branch(x, tables) + self.mlp_branch(x)
        x = x + self.attention_branch(x, tables)
        return x + self.mlp_branch(x)

    def cast(self, x: Tensor) -> Tensor:
        """x in the compute dtype; unchanged under autocast."""
        return x if self.autocast else x.to(self.compute)

    def attention_branch(self, x: Tensor, tables: PositionTables) -> Tensor:
        """The attention sub-layer's output for the residual stream."""
        out: Tensor = self.attention_post_norm(self.dropout(self.attention(self.cast(self.attention_norm(x)), tables)))
        return out

    def mlp_branch(self, x: Tensor) -> Tensor:
        """The MLP sub-layer's output for the residual stream."""
        out: Tensor = self.mlp_post_norm(self.dropout(self.mlp(self.cast(self.mlp_norm(x)))))
        return out


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Create new parameters in this dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class GPT(nn.Module):
    """The decoder; `forward` returns the summed loss, so that accumulation can weight by tokens.

    compute: dtype of the operands of matrix products; weights: dtype of the parameters and the residual
    stream. The trainer handles the runtimes "compiled" and "fused": here they run as "eager". Raises
    ConfigError for a model with parts that are not here.
    """

    def __init__(
        self, model: ModelConfig, training: TrainingConfig, compute: torch.dtype, weights: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        refuse_untrained(model)
        self.model, self.options, self.compute = model, training, compute
        self.autocast = training.runtime == "autocast" and compute != weights
        with default_dtype(weights):
            self.embedding = make_table(model.vocab, model.hidden)
            self.embedding_norm = make_norm(model, model.hidden) if model.embedding_norm else nn.Identity()
            self.position = (
                make_table(model.position_rows or model.context, model.hidden) if model.position == "learned" else None
            )
            self.dropout = Dropout(training.dropout)
            self.balance = None if model.moe is None else ExpertBalance(model)
            self.blocks = nn.ModuleList(
                TransformerBlock(model, training, compute, i, self.balance) for i in range(model.layers)
            )
            self.norm = make_norm(model, model.hidden)
            self.head = make_linear(training, model.hidden, model.vocab, role=Role.HEAD)
            if model.tied_embeddings:
                self.head.weight = self.embedding.weight
        self.loss = make_loss(training, model.logit_softcap, compute)
        self.returned_logits: Tensor | None = None  # the last logits, where the config says that they are returned
        self.tables: PositionTables | None = None
        self.tables_for: tuple[int, torch.device] | None = None
        self.initialise()

    def initialise(self) -> None:
        """N(0, init_std²) everywhere, residual projections as init_residual says, biases 0, gains 1."""
        roles, usual = parameter_roles(self), self.model.init_std
        residual = usual / math.sqrt(2 * self.model.layers) if self.model.init_residual == "scaled" else usual
        for name, parameter in self.named_parameters():
            if roles[name] is Role.BIAS:
                nn.init.zeros_(parameter)
            elif roles[name] is not Role.GAIN:
                nn.init.normal_(parameter, mean=0.0, std=residual if roles[name].residual_std else usual)

    def make_tables(self, length: int, device: torch.device) -> PositionTables:
        """Rotary angles and masks of scores for `length` positions, computed once and kept."""
        if self.tables is None or self.tables_for != (length, device):
            cut = needs_dense_mask(self.options)
            self.tables = make_tables(self.model, length, self.compute, device, cut)
            self.tables_for = (length, device)
        return self.tables

    def tables_of(self, length: int, documents: Tensor | None, device: torch.device) -> PositionTables:
        """The tables of `length` positions, masked by `documents` [B, T]; None: each row is one document."""
        tables = self.make_tables(length, device)
        if documents is None or not self.options.document_masking:
            return tables
        windows = window_kinds(self.model)
        if needs_dense_mask(self.options):
            return with_document_masks(tables, documents, windows)
        return with_block_masks(tables, documents, windows, self.model.sliding_window)

    def hidden_states(self, ids: Tensor, documents: Tensor | None = None) -> Tensor:
        """The normalized last hidden states [B, T, h] of ids [B, T], in the compute dtype (autocast: the weights')."""
        length = ids.shape[1]
        tables = self.tables_of(length, documents, ids.device)
        x = self.embedding_norm(self.embedding(ids))
        if self.position is not None:
            x = x + self.position(torch.arange(length, device=ids.device))
        x = self.dropout(x)
        for index, block in enumerate(self.blocks):
            recomputed = is_recomputed(self.options, index)
            x = self.recomputed(block, x, tables) if recomputed else block(x, tables)
        out: Tensor = self.norm(x)
        return out if self.autocast else out.to(self.compute)

    def recomputed(self, block: nn.Module, x: Tensor, tables: PositionTables) -> Tensor:
        """The block under checkpointing; "offloaded" moves its input to pinned host memory until backward.

        On a CPU the input is on the host already, and "offloaded" is the same as "full".
        """
        offloaded = self.options.activation_checkpointing == "offloaded" and x.is_cuda
        keep = self.options.dropout > 0  # the random state: the same elements are dropped again
        with save_on_cpu(pin_memory=True) if offloaded else nullcontext():
            out: Tensor = checkpoint(block, x, tables, use_reentrant=False, preserve_rng_state=keep)
        return out

    @property
    def last(self) -> nn.Module:
        """The module after the last hidden states: the head, or a loss that includes the head's product."""
        return self.head if self.options.loss == "plain" else self.loss

    def autocast_region(self, device: torch.device) -> AbstractContextManager[object]:
        """The autocast region of a forward pass if the runtime is autocast, else an empty context."""
        return torch.autocast(device.type, dtype=self.compute) if self.autocast else nullcontext()

    def forward(self, ids: Tensor, targets: Tensor, documents: Tensor | None = None) -> Tensor:
        """Summed cross-entropy in nats over the targets [B, T] that are not -100.

        In training a loss that balances experts is added, times the number of these targets.
        documents: int64 [B, T], the document of each position, under document masking.
        """
        if self.balance is None:
            return self.language_loss(ids, targets, documents)
        return self.balance.add(self.language_loss(ids, targets, documents), targets)

    def language_loss(self, ids: Tensor, targets: Tensor, documents: Tensor | None = None) -> Tensor:
        """Summed cross-entropy alone, as `forward` takes its arguments."""
        assert documents is not None or not self.options.document_masking, "which documents to cut apart?"
        with self.autocast_region(ids.device):
            hidden = self.hidden_states(ids, documents)
            if self.options.returns_logits and torch.is_grad_enabled():
                logits = self.head(hidden)
                loss: Tensor = self.loss(logits.float(), targets)
                self.returned_logits = logits.detach()  # until the next pass has its own, as a caller's name would
                return loss
            # one expression: a name would keep the bf16 logits alive beside their fp32 copy
            plain = self.options.loss == "plain"
            total: Tensor = (
                self.loss(self.head(hidden).float(), targets) if plain else self.loss(hidden, self.head, targets)
            )
            return total

    def logits(self, ids: Tensor, documents: Tensor | None = None) -> Tensor:
        """Next-token logits [B, T, V] in fp32; without `documents` each row is one document."""
        with self.autocast_region(ids.device):
            return soft_capped(self.head(self.hidden_states(ids, documents)).float(), self.model.logit_softcap)
