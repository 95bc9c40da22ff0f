"""The commands under "Use" in the README work, line after line, in an empty directory."""

from __future__ import annotations

import json
import random
import re
import shlex
from pathlib import Path

from tests.gptplan.calling import Call
from tests.machine_profile import keep_profile

README = Path(__file__).resolve().parents[2] / "README.md"
LONG = {"--layers 4 --hidden 256": "--layers 1 --hidden 32", "--seq 256": "--seq 32", "--steps 500": "--steps 12"}
GPT2 = {"model_type": "gpt2", "n_layer": 2, "n_embd": 64, "n_head": 2, "vocab_size": 50257, "n_positions": 1024}


def commands() -> list[str]:
    """The block's commands, without comments and pipes; those with a screen of their own are left out."""
    block = README.read_text(encoding="utf-8").partition("## Use")[2].partition("```console\n")[2].partition("```")[0]
    lines = [line.removeprefix("$ ").partition(" #")[0].partition(" |")[0].strip() for line in block.splitlines()]
    return [line for line in lines if line not in ("gptplan tui", "gptplan wizard")]


def test_every_line_works_after_the_one_before(call: Call, tmp_path: Path) -> None:
    """A smaller model and fewer steps stand for README's, where one would train for minutes."""
    letters = random.Random(0).choices
    texts = ["".join(letters("the model trains on every word", k=1000)) for _ in range(200)]
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (tmp_path / "config.json").write_text(json.dumps(GPT2))
    keep_profile(tmp_path / "cache")
    found = commands()
    assert len(found) > 15 and all(line.startswith("gptplan ") for line in found)
    for line in found:
        small = line.replace("corpus/*.jsonl", "corpus/a.jsonl")
        for text, shorter in LONG.items() if line.startswith("gptplan plan") else ():
            assert text in small, "README's example is another: adapt the test"
            small = small.replace(text, shorter)
        said = call(*shlex.split(small)[1:])
        # timings of a moment may be outside their tolerance: that is exit code 1
        assert said.code == 0 or (said.code == 1 and ("preflight" in line or "--strict" in line)), (line, said)
        assert said.out or "wrote run.toml" in said.err, line
        assert "the data cannot be used" not in said.out, said


def test_the_python_session_runs() -> None:
    """The first screen's four lines, as they stand there."""
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert "llama-3.2-1b" in repr(names["plan"])
