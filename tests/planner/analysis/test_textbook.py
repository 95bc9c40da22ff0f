"""Sections 3 to 5 of the list of training math: each row's answer, to the digits that it prints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from planner.analysis.textbook.catalogue import calculations, find
from planner.analysis.textbook.vocabulary import OWN, quantity
from planner.errors import InputError, UnknownNameError
from planner.formulas.quantities import QUANTITIES
from planner.report.explain import calculation_text

ROWS = ["1.11", "1.14", "1.18"]
ROWS += [f"3.{i}" for i in range(1, 17)] + [f"4.{i}" for i in range(1, 12)] + [f"5.{i}" for i in range(1, 19)]


def answer(key: str, **values: Any) -> dict[str, Any]:
    found = find(key)
    assert found is not None
    return found.answer(values)


def digits(number: float, printed: str) -> bool:
    """Whether `number`, rounded as far as `printed` goes, is what is printed."""
    mantissa, _, exponent = printed.lower().partition("e")
    places = len(mantissa.partition(".")[2])
    return abs(number - float(printed)) <= 0.5000001 * 10.0 ** (int(exponent or 0) - places)


PRINTED: list[tuple[str, dict[str, Any], str, Any]] = [
    ("1.11", {}, "master_and_moments", "84e9"),
    ("1.11", {}, "moments", "56e9"),
    ("1.11", {}, "model_and_optimizer", "98e9"),
    ("1.14", {}, "left", "78.25e9"),
    ("1.18", {}, "usd", "77.1e6"),
    ("3.1", {}, "first_corrected", "2.74539"),
    ("3.1", {}, "first_moment", "0.744"),
    ("3.2", {}, "second_corrected", "18.67334"),
    ("3.2", {}, "second_moment", "0.055964016"),
    ("3.3", {}, "norm", "0.74162"),
    ("3.4", {}, "factor", "0.2"),
    ("3.4", {}, "clipped", "0.4"),
    ("3.9", {}, "adamw_bytes", "8"),
    ("3.9", {}, "adamw_8bit_bytes", "2.03125"),
    ("3.9", {}, "lion_bytes", "4"),
    ("3.9", {}, "sgd_momentum_bytes", "4"),
    ("3.9", {}, "muon_bytes", "4"),
    ("3.11", {}, "first_moment", ["0.1", "0.19", "0.271", "0.3439", "0.40951"]),
    ("3.11", {}, "first_corrected", ["1.0000000", "1.0000000", "1.0000000", "1.0000000", "1.0000000"]),
    ("3.11", {}, "first_factor", "3.690"),
    ("3.11", {}, "second_factor", "333.7"),
    ("3.12", {}, "adamw", "0.9989"),
    ("3.12", {}, "adam_l2", "0.9990"),
    ("3.13", {}, "linear", "6.0000e-4"),
    ("3.13", {}, "square_root", "4.243e-4"),
    ("4.1", {}, "probabilities", ["0.65900", "0.24243", "0.09857"]),
    ("4.1", {}, "loss", "0.41703"),
    ("4.2", {}, "logit_gradient", ["-0.34100", "0.24243", "0.09857"]),
    ("4.2", {}, "total", "0.000000000000"),
    ("4.3", {}, "mean_loss", "0.3185"),
    ("4.4", {}, "perplexity", ["4.953", "7.389", "12.18"]),
    ("4.6", {}, "log_sum_exp", "1002.40761"),
    ("4.8", {}, "scaled", "6.5536e-5"),
    ("4.9", {}, "loss", "0.8317"),
    ("4.9", {}, "perplexity", "2.297"),
    ("4.10", {}, "perplexity", ["1", "9.974", "99.48", "992.3"]),
    ("5.1", {}, "elements", "2359296"),
    ("5.2", {}, "elements", "7077888"),
    ("5.2", {}, "over_hidden_squared", "12"),
    ("5.3", {}, "bytes", "50331648"),
    ("5.4", {}, "elements", "4194304"),
    ("5.5", {}, "backward_flops", "134217728"),
    ("5.5", {}, "ratio", "2"),
    ("5.6", {}, "half_statistics", "31.75"),
    ("5.6", {}, "full_statistics", "31.51"),
    ("5.7", {}, "per_layer", "2.147e9"),
    ("5.7", {}, "per_layer", str(2 * 2**30)),
    ("5.7", {}, "all_layers", str(64 * 2**30)),
    ("5.8", {"eps": 0.0}, "batch_of_one", "1"),
    ("5.8", {"eps": 0.0}, "normed", ["0.10557", "-1.68328", "1.89443", "3.68328"]),
    ("5.18", {}, "by_pytorch", "0.6725"),
    ("5.18", {}, "by_text", "2.0925"),
    ("5.9", {"values": (3.0, 4.0)}, "normed", ["0.84853", "1.13137"]),
    ("5.10", {}, "square_derivative", "30"),
    ("5.10", {}, "weight_gradient", "-3.00000"),
    ("5.10", {}, "dead_gradient", "0.00000"),
    ("5.10", {}, "sigmoid_slope", "0.25"),
    ("5.11", {}, "ratio", "1.33333"),
    ("5.13", {}, "elements", "134217728"),
    ("5.13", {}, "bytes", "536870912"),
    ("5.16", {}, "weight_gradient", "0.00000"),
]


@pytest.mark.parametrize(("key", "values", "result", "printed"), PRINTED)
def test_printed_answers(key: str, values: dict[str, Any], result: str, printed: Any) -> None:
    found = answer(key, **values)[result]
    if isinstance(printed, str):
        assert digits(found, printed), found
    else:
        assert len(found) == len(printed)
        assert all(digits(f, p) for f, p in zip(found, printed, strict=True)), found


def test_every_row_is_there_once_and_answers() -> None:
    found = calculations()
    assert [c.id for c in found] == sorted(ROWS, key=lambda i: [int(p) for p in i.split(".")])
    assert len({c.name for c in found}) == len(found)
    for one in found:
        assert one.answer() and len(one.source) > 5 and one.checked_against and one.question and one.explanation
        assert find(one.name) is one


@pytest.mark.parametrize("key", ROWS)
def test_names_come_from_the_vocabulary(key: str) -> None:
    found = find(key)
    assert found is not None
    for name in (*found.defaults, *found.answer()):
        assert quantity(name).meaning, name


def agree(formula: Any, number: Any, values: Mapping[Any, Any]) -> bool:
    if isinstance(formula, Sequence):
        return len(formula) == len(number) and all(agree(f, n, values) for f, n in zip(formula, number, strict=True))
    return float(formula.evalf(30, subs=values)) == pytest.approx(float(number), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("key", [c.id for c in calculations() if c.arithmetic])
def test_formula_and_number_come_from_the_same_function(key: str) -> None:
    import sympy

    from planner.analysis.textbook.symbolic import formulas_of, shown_part

    found = find(key)
    assert found is not None
    formulas, symbols = formulas_of(found)
    values = {symbol: sympy.Float(number, 40) for symbol, number in symbols.items()}
    numbers = found.answer({name: shown_part(value) for name, value in found.defaults.items()})
    assert formulas, key
    for name, formula in formulas.items():
        assert agree(formula, numbers[name], values), name


def test_3_5_clipping_from_the_first_value_and_diverging() -> None:
    found = answer("3.5")
    assert found["active_from"] == 1 and found["diverging"] is True
    assert "lower the learning rate" in found["advice"] and "no cure" in found["advice"]
    calm = answer("3.5", norms=(0.5, 0.7, 1.4, 0.6))
    assert (calm["active_from"], calm["diverging"]) == (3, False)
    assert answer("3.5", norms=(0.5, 0.4))["active_from"] == 0


def test_3_6_both_rules_stop_at_the_critical_batch() -> None:
    free = answer("3.6", tokens_per_step=2 * 524288, loss=2.0)
    assert free["linear"] == pytest.approx(6e-4) and free["square_root"] == pytest.approx(4.243e-4, rel=1e-4)
    bounded = answer("3.6")
    assert 524288 < bounded["critical_batch_tokens"] < 4194304
    assert bounded["linear"] == pytest.approx(3e-4 * bounded["critical_batch_tokens"] / 524288)
    assert bounded == answer("3.6", tokens_per_step=10**12)


def test_own_names_are_no_second_vocabulary() -> None:
    assert not set(OWN) & set(QUANTITIES)


def test_3_7_matrices_decay_and_vectors_do_not() -> None:
    found = answer("3.7")
    assert "matrices" in found["decays"][0] and "embedding" in found["by_choice"][0]
    assert any("bias" in text for text in found["no_decay"]) and any("norm" in text for text in found["no_decay"])


def test_3_8_only_the_l2_decay_is_divided_by_the_root() -> None:
    found = answer("3.8", root=50.0)
    assert found["decay_by_adamw"] == pytest.approx(1e-4)
    assert found["decay_by_adamw"] / found["decay_by_adam_l2"] == pytest.approx(50)


def test_3_9_adafactor_has_rows_and_columns() -> None:
    assert answer("3.9", rows=1000, columns=1000)["adafactor_bytes"] == pytest.approx(4 * 2000 / 1e6)


def test_3_10_mean_over_tokens_is_not_the_mean_of_means() -> None:
    same = answer("3.10")
    assert same["full"] == same["accumulated"] == same["mean_of_means"] == 0.75
    other = answer("3.10", counts=(4.0, 4.0, 4.0, 2.0))
    assert other["full"] == pytest.approx(other["accumulated"]) and abs(other["full"] - other["mean_of_means"]) > 0.01


def test_3_14_shown_symbolically() -> None:
    assert answer("3.14", elements=3) == {"direction": ["0", "0", "0"], "mean": "0"}


def test_3_16_and_5_12_and_5_14_orders() -> None:
    assert answer("3.16")["order"] == ["zero_grad", "forward", "scale", "backward", "unscale", "clip", "step", "update"]
    assert answer("5.12")["order"] == ["forward", "scale", "backward", "unscale", "clip", "step"]
    assert answer("5.14") == {"order": ["dV", "dP", "dS", "dQ", "dK"], "independent": ["dV and dP", "dQ and dK"]}


def test_4_5_and_4_10_uniform_guess() -> None:
    assert answer("4.5", vocab=1000)["loss"] == math.log(1000)
    assert answer("4.10", vocab=1000)["uniform"] == pytest.approx(1000)


def test_4_7_shift() -> None:
    assert answer("4.7", given=9) == {"signals": 8, "inputs_seen": "x_1 … x_8", "targets_seen": "x_2 … x_9"}


def test_4_8_what_fp16_would_lose() -> None:
    found = answer("4.8")
    assert (found["kept_unscaled"], found["kept_scaled"]) == (False, True)
    assert found["smallest_fp16"] == pytest.approx(5.96e-8, rel=1e-3)


def test_4_11_jacobian_is_the_derivative() -> None:
    found = answer("4.11")
    assert found["difference"] == ["0"]
    assert found["jacobian"][0][0] == pytest.approx(0.65900 * 0.34100, abs=1e-5)
    assert all(abs(sum(row)) < 1e-15 for row in found["jacobian"])


def test_5_8_population_variance_and_a_batch_of_one() -> None:
    found = answer("5.8")
    assert digits(found["normed"][0], "0.10557")
    assert found["batch_of_one"] == 1 and answer("5.8", shift=-3.0)["batch_of_one"] == -3


def test_5_12_and_5_17_formats() -> None:
    assert answer("5.12")["largest"]["fp16"] == 65504
    assert answer("5.12")["needs_scale"] == {"bf16": False, "fp16": True, "fp32": False}
    bits = answer("5.17")["bits"]
    assert {k: (v["exponent"], v["mantissa"]) for k, v in bits.items()} == {
        "bf16": (8, 7), "fp16": (5, 10), "fp32": (8, 23)
    }  # fmt: skip


def test_5_15_sum_over_the_batch() -> None:
    assert answer("5.15")["bias_gradient"] == pytest.approx([-0.1, 0.8])


def test_5_16_open_chain_and_the_product_of_local_derivatives() -> None:
    assert answer("5.16", weights=(2.0, 3.0, 4.0))["weight_gradient"] == 12
    assert answer("5.16")["chain"].count("Derivative") == 3


def test_bad_names_and_values() -> None:
    with pytest.raises(UnknownNameError, match="beta1"):
        answer("3.1", beta=0.5)
    for key, values in [
        ("3.1", {"beta1": 1.0}),
        ("3.1", {"gradients": ()}),
        ("4.1", {"target": 3}),
        ("4.3", {"targets": (0,)}),
        ("4.4", {"losses": (1e9,)}),
        ("4.1", {"logits": (math.inf, 1.0)}),
        ("3.2", {"gradients": (1e200, 1e200)}),
        ("3.14", {"elements": 10**6}),
        ("4.7", {"given": 1}),
    ]:
        with pytest.raises(InputError, match="no answer"):
            answer(key, **values)


@pytest.mark.parametrize("length", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "key, name", [("3.1", "gradients"), ("3.3", "gradients"), ("5.8", "values"), ("5.9", "values")]
)
def test_a_formula_has_as_many_entries_as_were_typed(key: str, name: str, length: int) -> None:
    """It gives the answer of the typed values, not of as many as the question names."""
    import sympy

    from planner.analysis.textbook.symbolic import formulas_of

    found = find(key)
    assert found is not None
    typed = {name: tuple(float(2 * i + 1) for i in range(length))}
    formulas, symbols = formulas_of(found, typed)
    values = {symbol: sympy.Float(number, 40) for symbol, number in symbols.items()}
    numbers = found.answer(typed)
    assert formulas
    for result, formula in formulas.items():
        assert agree(formula, numbers[result], values), result


@pytest.mark.parametrize("length", [5, 12])
def test_a_long_vector_is_shown_whole_and_its_formula_says_that_it_is_cut(length: int) -> None:
    found = find("5.9")
    assert found is not None
    typed = {"values": tuple(float(i) for i in range(1, length + 1))}
    shown = calculation_text(found, typed, found.answer(typed))
    assert f"values = {', '.join(map(str, range(1, length + 1)))} " in shown
    assert "written for the first 3 entries of values" in shown
    whole = calculation_text(found, {}, found.answer())
    assert "written for" not in whole


def test_a_class_beyond_the_shown_logits_has_an_answer_and_no_formula() -> None:
    found = find("4.1")
    assert found is not None
    typed = {"logits": tuple(float(i) for i in range(10)), "target": 9}
    shown = calculation_text(found, typed, found.answer(typed))
    assert "loss = 0.458" in shown and "none is written for so long logits" in shown


def test_5_18_is_torch_s_running_mean() -> None:
    torch = pytest.importorskip("torch")
    norm = torch.nn.BatchNorm1d(1, momentum=0.1)
    for mean in (2.5, 3.0, 2.0):
        norm(torch.tensor([[mean - 1.0], [mean + 1.0]]))
    assert answer("5.18")["by_pytorch"] == pytest.approx(float(norm.running_mean[0]), rel=1e-6)
    assert answer("5.18", new_share=0.9)["by_text"] == pytest.approx(answer("5.18")["by_pytorch"])
