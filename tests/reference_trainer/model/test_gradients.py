"""Gradients: of rotary embedding by finite differences, of attention those of its equations, and where dropout acts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck

from reference_trainer.model.attention import Attention, LatentAttention
from reference_trainer.model.gpt import TransformerBlock
from reference_trainer.model.layers import rotate
from reference_trainer.model.positions import PositionTables, make_tables
from reference_trainer.model.rotary import rotary_angles
from tests.reference_trainer.model.test_equations import (
    ATTENTION,
    LENGTH,
    attention_of_equations,
    latent_attention_of_equations,
    randomised,
    stream,
    tables_of,
)
from tests.reference_trainer.model.test_gpt import LLAMA, MLA, ROTARY, batch, built, sections


def wide(tables: PositionTables) -> PositionTables:
    """The tables in float64."""
    return PositionTables(*(None if table is None else table.double() for table in tables[:4]))


@pytest.mark.parametrize("rotary_dim", [8, 6, 2])
def test_the_gradient_of_rotary_embedding_is_that_of_finite_differences(rotary_dim: int) -> None:
    """Also with channels that are not turned, whose gradient passes through."""
    model, _ = sections(ROTARY | {"head_dim": 8, "hidden": 16, "rotary_dim": rotary_dim})
    cos, sin = (table.double() for table in rotary_angles(model, 5, torch.device("cpu")))
    x = torch.randn(2, 5, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert gradcheck(lambda x: rotate(x, cos, sin), x)


# of the cases of the equations, those without a norm of queries and keys: norms compute in fp32 on purpose
DIFFERENTIATED = [case for case, changes in ATTENTION.items() if "qk_norm" not in changes]


@pytest.mark.parametrize("kernel", ["flash", "math"])
@pytest.mark.parametrize("case", DIFFERENTIATED)
def test_the_gradient_of_attention_is_that_of_finite_differences(case: str, kernel: str) -> None:
    small = ATTENTION[case] | {"attention_kernel": kernel, "hidden": 12, "head_dim": 6}
    model, training = sections(small | ({"rotary_dim": 4} if "rotary_dim" in small else {}))
    attention = randomised(Attention(model, training, 0)).double()
    tables = wide(make_tables(model, 4, torch.float32, torch.device("cpu")))
    x = torch.randn(1, 4, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    assert gradcheck(lambda x: attention(x, tables), x, fast_mode=True)


def both_gradients(module: nn.Module, made: Tensor, slow: Tensor, x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Of one random sum of the output: gradients by the module and by its equations, for x and every parameter."""
    weight = torch.randn(made.shape, generator=torch.Generator().manual_seed(3))
    inputs = [x, *module.parameters()]
    return list(
        zip(
            torch.autograd.grad((made * weight).sum(), inputs),
            torch.autograd.grad((slow * weight).sum(), inputs),
            strict=True,
        )
    )


def assert_equal(pairs: list[tuple[Tensor, Tensor]]) -> None:
    """Up to 1e-4 of each one's norm; none of them is nothing."""
    for made, slow in pairs:
        assert slow.norm() > 0 and (made - slow).norm() <= 1e-4 * slow.norm()


@pytest.mark.parametrize("block", [0, 1])
@pytest.mark.parametrize("case", ATTENTION)
def test_the_gradients_of_attention_are_those_of_its_equations(case: str, block: int) -> None:
    model, training = sections(ATTENTION[case])
    attention = randomised(Attention(model, training, block))
    assert isinstance(attention, Attention)
    x = stream().requires_grad_()
    slow = attention_of_equations(attention, model, x, block)
    assert_equal(both_gradients(attention, attention(x, tables_of(model)), slow, x))


@pytest.mark.parametrize("more", [{}, {"q_lora_rank": 20}, {"v_head_dim": 20}])
def test_the_gradients_of_latent_attention_are_those_of_its_equations(more: dict[str, int]) -> None:
    model, training = sections(LLAMA | {"mla": MLA | more})
    attention = randomised(LatentAttention(model, training, 0))
    assert isinstance(attention, LatentAttention)
    x = stream().requires_grad_()
    slow = latent_attention_of_equations(attention, model, x)
    assert_equal(both_gradients(attention, attention(x, tables_of(model)), slow, x))


# --- where dropout acts -----------------------------------------------------------------------------------------------


class DropsAll(nn.Module):
    """A dropout of 1."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


BRANCHES: dict[str, dict[str, Any]] = {
    "sequential": {},
    "parallel": ROTARY | {"residual": "parallel"},
    "parallel, one norm": ROTARY | {"residual": "parallel-one-norm"},
    "norms after": LLAMA | {"norm_placement": "post"},
    "norms before and after": LLAMA | {"norm_placement": "both"},
}


@pytest.mark.parametrize("case", BRANCHES)
def test_every_branch_of_a_block_is_dropped(case: str) -> None:
    """If dropout leaves nothing, the residual stream passes unchanged: neither attention nor MLP goes around it."""
    model, training = sections(BRANCHES[case] | {"dropout": 0.5})
    block = randomised(TransformerBlock(model, training, torch.float32, 0))
    assert not torch.equal(block.eval()(stream(), tables_of(model)), stream())
    for name, parameter in block.named_parameters():
        if name.endswith("post_norm.bias"):
            nn.init.zeros_(parameter)
    block.dropout = DropsAll()
    assert torch.equal(block.train()(stream(), tables_of(model)), stream())


def test_the_embedding_is_dropped_with_its_positions() -> None:
    model = built({"dropout": 0.5, "position": "learned"})
    model.dropout = DropsAll()
    reached: list[Tensor] = []
    model.blocks[0].register_forward_pre_hook(lambda _, given: reached.append(given[0]))
    model.logits(batch()[0])
    assert len(reached) == 1 and not reached[0].any()


@pytest.mark.parametrize("case", [{}, LLAMA | {"mla": MLA}, {"attention_kernel": "math"}])
def test_attention_weights_are_dropped_in_training_only(case: dict[str, Any]) -> None:
    """Of the values, all ones, a query keeps 1 / (1 - p) times the sum of the weights that are left."""
    model, training = sections(case | {"dropout": 0.5})
    attention = (Attention if model.mla is None else LatentAttention)(model, training, 0)
    query = key = torch.randn(2, LENGTH, model.heads, 8, generator=torch.Generator().manual_seed(4))
    ones = torch.ones_like(query)
    torch.manual_seed(5)
    first, second = (attention.attend(query, key, ones, tables_of(model)) for _ in range(2))
    assert not torch.equal(first, second)
    assert set(first[:, 0].unique().tolist()) == {0.0, 2.0}  # the first query sees one key: kept and doubled, or not
    assert torch.allclose(attention.eval().attend(query, key, ones, tables_of(model)), ones)
