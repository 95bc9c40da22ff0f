"""`gptplan wizard`: answers give the plan of the same command; an invalid answer gives only a message."""

from __future__ import annotations

import io
import sys

import pytest

from planner.inputs.run_toml import load_config
from tests.processes import at_terminal

MAIN = {"model": "gpt2", "tokens": "5B", "gpu": "h100-80gb", "gpus": "8", "micro_batch": "4"}
ORDER = ("model", "tokens", "seq", "gpu", "gpus", "micro_batch")  # with a preset nobody is asked for --params
END = [""] * 40  # more lines than questions: the rest of them, and "not saved"


@pytest.fixture
def wizard(call, monkeypatch):
    """Answers, one a line, in this process."""

    def run(*lines: str, words: tuple[str, ...] = ()):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        return call("wizard", *words)

    return run


def answers(**fields: str) -> list[str]:
    return [fields.get(name, "") for name in ORDER]


def test_the_answers_give_the_plan_of_the_command(wizard, call):
    said = wizard(*answers(**MAIN), *END)
    words = "--model gpt2 --tokens 5B --gpu h100-80gb --gpus 8 --micro-batch 4"
    assert said.code == 0
    assert said.out.rstrip().endswith(f"Command\n  gptplan estimate {words}")
    assert said.out.startswith(call("estimate", *words.split()).out.rstrip())
    assert "micro-batch [" in said.err and "GPU-hour [" in said.err
    assert "the model's context" in said.err  # why the value in brackets


def test_empty_lines_take_the_example(wizard):
    said = wizard(*END)
    assert said.code == 0 and "--params 125M --tokens 10B" in said.out
    assert "125M: example value" in said.err and "\x1b" not in said.err + said.out


def test_a_wrong_answer_is_told_once_and_asked_again(wizard):
    said = wizard("gpt22", "gpt2", "many", "5B", *END)
    assert said.code == 0 and "--model gpt2 --tokens 5B" in said.out
    assert said.err.count("unknown model 'gpt22'") == 1 and said.err.count("model [") == 2
    assert said.err.count("is not a count") == 1 and said.err.count("training tokens [") == 2


def test_back_keeps_the_answers_and_a_dash_takes_one_back(wizard):
    said = wizard("gpt2", "5B", "512", "<", "<", "6B", "", *END)
    assert "--model gpt2 --tokens 6B --seq 512" in said.out
    assert "512: your answer" in said.err
    said = wizard("<", "gpt2", "<", "-", "", "350M", *END)
    assert "This is the first field." in said.err
    assert "--model" not in said.out and "--params 350M --tokens 10B" in said.out


def test_help_names_what_is_known(wizard):
    said = wizard("?", *END)
    assert "one of: " in said.err and "llama-2-7b" in said.err and said.err.count("\nmodel [") == 2


def test_a_shape_is_asked_for_what_is_missing(wizard):
    """--layers alone is no model: --hidden is the next question, and cannot be passed over."""
    said = wizard(*[""] * 13, "y", *[""] * 2, "6", "", "384", *END)
    assert "layers [12]" in said.err and "--hidden is needed" in said.err and "--hidden is missing" in said.err
    assert "gptplan estimate --tokens 10B --layers 6 --hidden 384" in said.out


def test_garbage_is_answered_with_messages(wizard, tmp_path):
    junk = ["\x00\x1b[2J", "🦙" * 50, "-1", "1e400", "9" * 5000, "--gpu", "%", "None", "' OR 1", "nan", "‮"]
    said = wizard(*[j for name in range(13) for j in junk], *[""] * 13, *junk, *END)
    assert said.code in (0, 2) and "Traceback" not in said.err and "\x1b" not in said.err
    assert "gptplan estimate" in said.out + said.err


def test_saving_overwrites_only_on_a_second_word(wizard, tmp_path):
    rest = [""] * (12 + 8)
    said = wizard("gpt2", *rest[1:], "run.toml")
    assert "wrote run.toml" in said.err and load_config(tmp_path / "run.toml").model.name == "gpt2"
    (tmp_path / "run.toml").write_text("mine")
    said = wizard("gpt2", *rest[1:], "run.toml", "", "no/where.toml", "")
    assert "exists already. Overwrite it?" in said.err and "cannot be written" in said.err
    assert (tmp_path / "run.toml").read_text() == "mine" and said.code == 0
    wizard("gpt2", *rest[1:], "run.toml", "y")
    assert load_config(tmp_path / "run.toml").model.name == "gpt2"
    said = wizard(*END[:13], words=("run.toml",))
    assert "--config run.toml" in said.err and "Traceback" not in said.err


def test_the_end_of_the_answers_says_the_command_so_far(wizard):
    said = wizard("gpt2", "5B")
    assert (said.code, said.out) == (2, "")
    assert "so far: gptplan estimate --model gpt2 --tokens 5B" in said.err
    assert "the input ended" in said.err and "Traceback" not in said.err


def test_a_line_without_end_is_not_read_into_memory(wizard):
    said = wizard("gpt2", "x" * 10**6)
    assert said.code == 2 and said.out == "" and "10,000 characters" in said.err
    assert "so far: gptplan estimate --model gpt2" in said.err and len(said.err) < 5000


def test_ctrl_c_at_a_terminal_is_130():
    with at_terminal([sys.executable, "-m", "gptplan", "wizard"]) as terminal:
        terminal.until(b"model [")
        terminal.type(b"gpt2\n")
        terminal.until(b"tokens [")
        code = terminal.interrupted()
    assert code == 130 and b"so far: gptplan estimate --model gpt2" in terminal.seen
    assert b"Traceback" not in terminal.seen
