"""Document masking: each document is computed as if it were alone, and no target crosses a boundary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from planner.config.run import RunConfig
from planner.errors import ConfigError, DataError
from reference_trainer.data.samples import TokenData, batch, count_targets, sample_rows
from reference_trainer.measure.measure import build_model
from reference_trainer.model import document_masks as borders
from reference_trainer.model.losses import IGNORED_TARGET
from reference_trainer.step.precision import refuse_unrunnable
from tests.examples import examples

LENGTHS = (5, 1, 9, 17)  # of the documents of a sequence of 32
END = 63


def changed(config: RunConfig, **changes: Any) -> RunConfig:
    values = config.model_dump()
    for key, value in changes.items():
        values["model" if key in values["model"] else "training"][key] = value
    return RunConfig.model_validate(values)


def packed() -> tuple[Tensor, Tensor]:
    """Two sequences of documents that end with END; the second has them in reverse."""
    torch.manual_seed(1)
    ids = torch.randint(0, END, (2, sum(LENGTHS)))
    documents = torch.zeros_like(ids)
    for row, lengths in enumerate((LENGTHS, LENGTHS[::-1])):
        ends = np.cumsum(lengths)
        ids[row, torch.from_numpy(ends - 1)] = END
        documents[row] = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    return ids, documents


MODELS: dict[str, dict[str, Any]] = {
    "rotary": {"position": "rotary"},
    "ALiBi": {"position": "alibi"},
    "no position": {"position": "none"},
    "window": {"position": "rotary", "sliding_window": 4, "full_attention_every": 2},
    "windows and ALiBi": {"position": "alibi", "sliding_window": 4},
    "wide window": {"position": "rotary", "sliding_window": 99},
    "scores kept": {"position": "rotary", "attention_kernel": "math"},
    "checkpointed": {"position": "rotary", "activation_checkpointing": "full"},
}


@pytest.mark.parametrize("name", MODELS)
def test_a_document_is_computed_as_if_it_stood_alone(tiny: Callable[..., RunConfig], name: str) -> None:
    config = changed(tiny(seq=32), document_masking=True, **MODELS[name])
    torch.manual_seed(0)
    model = build_model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)  # so that attention is not nearly uniform
    ids, documents = packed()
    together = model.logits(ids, documents)
    across = model.logits(ids)
    for row in range(2):
        for number in range(len(LENGTHS)):
            inside = documents[row] == number
            alone = model.logits(ids[row][inside][None])[0]
            torch.testing.assert_close(together[row][inside], alone, rtol=1e-4, atol=1e-4)
    first = documents == 0
    torch.testing.assert_close(across[first], together[first], rtol=1e-4, atol=1e-4)
    assert (across[~first] - together[~first]).abs().max() > 0.01  # the cut is seen


def test_learned_positions_go_on(tiny: Callable[..., RunConfig]) -> None:
    """A later document sees its own rows of the table: other than alone, where it sees the first ones."""
    config = changed(tiny(seq=32), document_masking=True, position="learned")
    model = build_model(config)
    ids, documents = packed()
    together = model.logits(ids, documents)
    for number, same in ((0, True), (3, False)):
        inside = documents[0] == number
        alone = model.logits(ids[0][inside][None])[0]
        assert torch.allclose(together[0][inside], alone, rtol=1e-4, atol=1e-4) is same


def test_no_gradient_crosses_a_border(tiny: Callable[..., RunConfig]) -> None:
    config = changed(tiny(seq=32), document_masking=True, position="rotary")
    model = build_model(config)
    ids, documents = packed()
    reached: list[Tensor] = []
    model.embedding.register_forward_hook(lambda _, given, out: (out.retain_grad(), reached.append(out))[0])
    model.logits(ids, documents)[0, 20].sum().backward()
    seen = reached[0].grad
    assert seen is not None
    touched = seen[0].abs().sum(-1) > 0
    assert touched.nonzero().flatten().tolist() == [i for i in range(21) if documents[0, i] == documents[0, 20]]


def cut_data(lengths: list[int]) -> TokenData:
    """Documents of 1, 2, 3 … with END after each."""
    tokens = np.concatenate([np.append(np.full(length, 1 + n % 60), END) for n, length in enumerate(lengths)])
    whole = np.concatenate([tokens, np.ones(9, int)]).astype(np.uint16)
    return TokenData(whole, "", "", (len(whole) - 1) // 8 * 8, end_of_text=END)


@examples(40)
@given(lengths=st.lists(st.integers(0, 20), min_size=1, max_size=12), cuts=st.lists(st.integers(1, 4), min_size=1))
def test_fault_12_no_target_crosses_a_border_whatever_the_split(
    tiny: Callable[..., RunConfig], lengths: list[int], cuts: list[int]
) -> None:
    config = changed(tiny(seq=8, vocab=64), document_masking=True)
    data = cut_data(lengths)
    whole = batch(data, config, 3, sum(cuts))
    plain = batch(data, changed(config, document_masking=False), 3, sum(cuts))
    assert torch.equal(whole.ids, plain.ids) and whole.documents is not None and plain.documents is None
    ends = whole.ids == END
    assert bool((whole.targets[ends] == IGNORED_TARGET).all())
    assert torch.equal(whole.targets[~ends], plain.targets[~ends])
    assert whole.valid == int((whole.targets != IGNORED_TARGET).sum()) and plain.valid == plain.targets.numel()
    assert torch.equal(whole.documents[:, 1:], ends.cumsum(1)[:, :-1]) and not whole.documents[:, 0].any()
    begins = [3 + sum(cuts[:n]) for n in range(len(cuts))]
    parts = [batch(data, config, begin, count) for begin, count in zip(begins, cuts, strict=True)]
    for field in ("ids", "targets", "documents"):
        assert torch.equal(torch.cat([getattr(part, field) for part in parts]), getattr(whole, field))
    rows = sample_rows(data, config, 3, sum(cuts))
    assert sum(part.valid for part in parts) == whole.valid == count_targets(rows, data)


def test_without_an_end_of_text_nothing_is_cut(tiny: Callable[..., RunConfig]) -> None:
    data = TokenData(np.ones(99, np.uint16), "", "notes.txt: 99 tokens", 96)
    with pytest.raises(DataError, match="which token ends a text") as caught:
        batch(data, changed(tiny(seq=8), document_masking=True), 0, 1)
    assert "notes.txt" in caught.value.why and "--eot" in caught.value.remedy


def test_flex_attention_is_refused_on_a_processor(tiny: Callable[..., RunConfig]) -> None:
    config = changed(tiny(seq=8), document_masking=True, attention_kernel="flex")
    with pytest.raises(ConfigError, match="does not run on cpu") as caught:
        refuse_unrunnable(config, torch.device("cpu"))
    assert "CUDA only" in caught.value.why


@pytest.mark.parametrize("window", [None, 4])
def test_flex_attention_sees_what_the_dense_mask_shows(
    tiny: Callable[..., RunConfig], window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward only and not compiled, as far as PyTorch runs it on a processor: the rule, and how it is called."""
    monkeypatch.setattr(
        borders, "_compiled", {"create_block_mask": create_block_mask, "flex_attention": _plain}.__getitem__
    )
    options = {"position": "rotary", "sliding_window": window, "document_masking": True}
    ids, documents = packed()
    found = []
    for kernel in ("flash", "flex"):
        torch.manual_seed(0)
        model = build_model(changed(tiny(seq=32), **options, attention_kernel=kernel))
        with torch.no_grad():
            found.append(model.logits(ids, documents))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


def _plain(*given: Any, **named: Any) -> Any:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that uncompiled it makes all scores
        return flex_attention(*given, **named)
