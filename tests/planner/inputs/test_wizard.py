"""The wizard's order: each field once, none that an answer excludes; an invalid answer changes nothing."""

from __future__ import annotations

from planner.config.options import MAIN, OPTION, panels
from planner.errors import InputError
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.inputs.wizard import BACK, CLEAR, END, WizardState, answer, begin, question
from planner.plan import Plan, estimate

START = Flags(params="125M", tokens="10B")


def plan_of(flags: Flags) -> Plan:
    return estimate(draft(flags, as_of="2026-01-31", version="0"), replay=False)


def asked(state: WizardState, panel: str = "y") -> list[str]:
    """The names of all questions from here on, nothing being answered."""
    found = []
    while state.at != END:
        found.append(state.at.name)
        state, message = answer(state, panel if state.at.kind == "panel" else "", plan_of)
        assert message == ""
    assert state.flags == START or state.answers != Flags()
    return found


def after(*lines: str) -> WizardState:
    state, message = begin(START, plan_of)
    for line in lines:
        assert not message
        state, message = answer(state, line, plan_of)
    assert not message
    return state


def test_every_field_is_asked_once_and_the_main_ones_first():
    names = asked(after())
    assert sorted(names) == sorted((*OPTION, *(p for p, n in panels().items() if set(n) - set(MAIN))))
    assert sorted(names[: len(MAIN)]) == sorted(MAIN)
    assert asked(after(), "n")[len(MAIN) :] == [p for p, n in panels().items() if set(n) - set(MAIN)]


def test_what_an_answer_excludes_is_not_asked():
    named = asked(after("gpt2"))
    assert {"params", "hf_config", "family"}.isdisjoint(named) and "heads" in named
    sized = asked(after("", "350M", "3B"))
    assert {"hf_config", "layers", "hidden", "heads", "experts", "position", "steps"}.isdisjoint(sized)
    assert {"vocab", "pad_vocab"} <= set(sized)


def test_an_answer_takes_the_place_of_the_example():
    assert after("gpt2").flags == Flags(model="gpt2", tokens="10B")
    assert after("gpt2", BACK, CLEAR).flags == START


def test_a_wrong_answer_changes_nothing():
    state = after("gpt2")
    for text in ("bananas", "-5", "1e400"):
        again, message = answer(state, text, plan_of)
        assert again is state and text[:4] in message


def test_back_and_forth_ends_where_it_began():
    state = after("gpt2", "5B", "512", "h100-80gb")
    there = state
    for _ in range(4):
        there, _ = answer(there, BACK, plan_of)
    assert there.at.name == "model" and there.flags == state.flags
    for _ in range(4):
        there, _ = answer(there, "", plan_of)
    assert (there.at, there.flags) == (state.at, state.flags)


def test_a_machine_with_an_unknown_gpu_is_asked_for_one_first():
    def picky(flags: Flags) -> Plan:
        if flags.gpu is None:
            raise InputError("this machine's GPU 'X' is in no preset")
        return plan_of(flags)

    state, message = begin(START, picky)
    assert state.at.name == "gpu" and "'X'" in message
    again, message = answer(state, "", picky)
    assert again is state and "'X'" in message
    state, message = answer(state, "h100-80gb", picky)
    assert message == "" and state.at.name == "model"


def test_brackets_say_the_value_and_the_rule():
    state = after("", "", "", "")
    found = question(state)
    assert found.value == "a100-80gb" and found.why == "default: the driver shows no GPU here"
    assert (
        question(answer(state, "h100-80gb", plan_of)[0].before or state).why == "default: the driver shows no GPU here"
    )
