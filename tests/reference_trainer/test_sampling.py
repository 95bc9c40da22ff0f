"""Text from a checkpoint: the distribution is as configured, and the same seed gives the same text."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from planner.config.run import RunConfig
from planner.errors import CheckpointError, DataError, FileError, InputError
from planner.inputs.run_toml import config_text
from planner.printable import printable
from reference_trainer.data.codecs import decoded, decoder_for
from reference_trainer.data.corpus.tokenizers import package_errors
from reference_trainer.measure.measure import build_model
from reference_trainer.metrics.records import RunResult
from reference_trainer.sampling import (
    Sampling,
    continued,
    distribution,
    drawn_from,
    loaded_model,
    next_logits,
    sample,
    weights_of,
)

MakeConfig = Callable[..., RunConfig]
Train = Callable[..., RunResult]
CPU = torch.device("cpu")


@pytest.fixture
def learnt(tiny: MakeConfig, train: Train, tmp_path: Path) -> Path:
    """A run that has learnt one sentence by heart."""
    text = tmp_path / "sentence.txt"
    text.write_text("the quick brown fox jumps over it. " * 40, encoding="utf-8")
    config = tiny(steps=150, peak_lr=1e-2, checkpoint_every=75)
    train(config, "learnt", data_path=text)
    run_dir = tmp_path / "learnt"
    (run_dir / "config.toml").write_text(config_text(config), encoding="utf-8")
    (run_dir / "execution.json").write_text(json.dumps({"data": str(text)}), encoding="utf-8")
    return run_dir


def draw(path: Path, prompt: str = "the quick", said: list[str] | None = None, **choice: Any) -> Any:
    return sample(path, prompt, Sampling(**choice), CPU, (said if said is not None else []).append)


def test_samples_of_a_trained_run(learnt: Path) -> None:
    """One training serves all that is asked of a run directory."""
    greedy = draw(learnt, temperature=0.0, tokens=60)
    assert (greedy.step, greedy.tokenizer, greedy.prompt_tokens) == (150, "bytes", 9)
    # past the context of 32 the window slides, and the sentence goes on
    assert greedy.samples[0].text.startswith(" brown fox jumps over it. the quick brown fox jumps")
    assert draw(learnt, temperature=0.0, tokens=60).samples == greedy.samples

    hot = [draw(learnt, temperature=2.0, samples=2, seed=5, tokens=30) for _ in range(2)]
    assert hot[0].samples == hot[1].samples
    assert hot[0].samples[0].tokens != hot[0].samples[1].tokens
    assert draw(learnt, temperature=2.0, seed=6, tokens=30).samples[0].tokens == hot[0].samples[1].tokens
    # only the likeliest token is left: drawing is greedy
    for narrow in ({"top_k": 1}, {"top_p": 1e-9}):
        assert draw(learnt, temperature=2.0, tokens=60, **narrow).samples[0].tokens == greedy.samples[0].tokens

    said: list[str] = []
    long = draw(learnt, prompt="xyz " * 10 + "the quick", temperature=0.0, tokens=10, said=said)
    assert (long.prompt_tokens, long.kept_prompt_tokens, long.context_tokens) == (49, 32, 32)
    assert "the prompt has 49 tokens: the model sees the last 32" in said[0]

    older = draw(learnt / "checkpoints/step-00000075", temperature=0.0)
    assert older.step == 75 and older.samples[0].ended is False

    weights = learnt / "checkpoints/step-00000150/model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    said.clear()
    assert draw(learnt, said=said, temperature=0.0).step == 75
    assert "step-00000150 is damaged" in said[0]
    with pytest.raises(CheckpointError, match="is damaged"):
        draw(learnt / "checkpoints/step-00000150")
    with pytest.raises(FileError, match="neither a run directory nor a checkpoint"):
        draw(learnt / "nowhere")
    shutil.rmtree(learnt / "checkpoints")
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        draw(learnt)


def test_weights_that_do_not_fit_are_refused(tiny: MakeConfig, train: Train, tmp_path: Path) -> None:
    train(tiny(steps=1))
    (path,) = (tmp_path / "run/checkpoints").iterdir()
    own = dict(loaded_model(tiny(), path, CPU).named_parameters())
    stored = weights_of(path)
    assert set(own) == set(stored) and all(torch.equal(own[name], stored[name]) for name in stored)
    with pytest.raises(CheckpointError, match=r"blocks\.2"):
        loaded_model(tiny(layers=3), path, CPU)
    with pytest.raises(CheckpointError, match=r"different tensors: .*mlp"):
        loaded_model(tiny(ffn=128), path, CPU)


LOGITS = torch.tensor([0.0, 2.0, 1.0, -1.0])


def test_temperature_top_k_and_top_p() -> None:
    whole = LOGITS.double().softmax(0)
    assert torch.allclose(distribution(LOGITS, Sampling(temperature=1.0)), whole)
    cold = distribution(LOGITS, Sampling(temperature=0.5))
    assert torch.allclose(cold, (LOGITS.double() * 2).softmax(0))
    two = distribution(LOGITS, Sampling(temperature=1.0, top_k=2))
    assert two.tolist() == pytest.approx([0, math.e / (1 + math.e), 1 / (1 + math.e), 0])
    # whole is .087 .644 .237 .032: 0.64 is reached by the first alone, 0.65 by the first two
    assert distribution(LOGITS, Sampling(temperature=1.0, top_p=0.64)).count_nonzero() == 1
    assert distribution(LOGITS, Sampling(temperature=1.0, top_p=0.65)).count_nonzero() == 2
    assert torch.allclose(distribution(LOGITS, Sampling(temperature=1.0, top_p=1.0)), whole)
    assert drawn_from(torch.zeros(4), Sampling(temperature=0.0), torch.Generator()) == 0


def test_draws_follow_the_distribution() -> None:
    generator, n = torch.Generator().manual_seed(1), 4000
    choice = Sampling(temperature=1.0)
    counts = torch.bincount(torch.tensor([drawn_from(LOGITS, choice, generator) for _ in range(n)]), minlength=4)
    p = distribution(LOGITS, choice)
    assert ((counts / n - p).abs() <= 4 * (p * (1 - p) / n).sqrt()).all()


OPTIONS = [
    {},
    {"position": "rotary"},
    {"position": "alibi"},
    {"position": "rotary", "sliding_window": 8},
    {"position": "none", "norm": "rmsnorm", "mlp": "swiglu", "biases": "none"},
    {"logit_softcap": 30.0, "recipe": "pure-bf16"},
    {"runtime": "autocast", "recipe": "mixed-bf16", "loss": "chunked"},
    {"activation_checkpointing": "full", "dropout": 0.5},
]


@pytest.mark.parametrize("changes", OPTIONS, ids=str)
def test_every_option_of_the_model_can_be_sampled(tiny: MakeConfig, changes: dict[str, Any]) -> None:
    """The last position's logits are those of the whole row; positions never go past the trained length."""
    torch.manual_seed(0)
    model = build_model(tiny(seq=16, **changes)).eval()
    ids = torch.randint(256, (1, 16))
    with torch.no_grad():
        assert torch.allclose(
            next_logits(model, ids), model.logits(ids)[:, -1], atol=1e-2 if "recipe" in changes else 1e-5
        )
    seen: list[int] = []
    model.embedding.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    tokens, ended = continued(model, [1, 2, 3], Sampling(tokens=20), 0, None)
    assert len(tokens) == 20 and not ended and max(seen) == 16


def test_an_end_of_text_ends_the_sample(tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([65, 256, 66])
    monkeypatch.setattr("reference_trainer.sampling.drawn_from", lambda *_: next(answers))
    model = build_model(tiny(vocab=257)).eval()
    assert continued(model, [1], Sampling(tokens=3), 0, 256) == ([65], True)


def write_meta(directory: Path, name: str, sha256: str | None = None) -> None:
    """The meta.json of data that the tokenizer of that name made."""
    part = {"documents": 1, "tokens": 9, "bytes": 9, "bytes_per_token": 1.0, "fingerprint": "0", "shards": []}
    meta = {
        "format": "gptplan-data",
        "version": 1,
        "tokenizer": {"name": name, "vocab": 257, "end_of_text": 256, "sha256": sha256},
        "split": {"rule": "hash", "share": 0.1},
        "train": part,
        "validation": part,
    }
    (directory / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def test_codecs(tiny: MakeConfig, tmp_path: Path) -> None:
    codec = decoder_for(tiny(vocab=257), tmp_path)
    assert codec is not None and codec.end == 256 and codec.decode(codec.encode("é\n")) == "é\n"
    assert codec.decode([0xC3, 256, 65]) == "\ufffd\ufffdA"
    small = decoder_for(tiny(vocab=256), tmp_path)
    assert small is not None and small.end == ord("\n")
    assert decoder_for(tiny(vocab=300), tmp_path) is None  # unknown data: ids
    write_meta(tmp_path, "byte")
    (tmp_path / "book.txt").write_text("text", encoding="utf-8")
    (tmp_path / "tokens.bin").write_bytes(b"\0\0" * 9)
    for data, known in ((None, True), ("book.txt", True), ("tokens.bin", False), (".", True)):
        recorded = None if data is None else str(tmp_path / data)
        (tmp_path / "execution.json").write_text(json.dumps({"data": recorded}), encoding="utf-8")
        assert (decoder_for(tiny(vocab=300), tmp_path) is not None) is known, data
    named = decoder_for(tiny(vocab=300), tmp_path, "byte")
    assert named is not None and named.stop == 256
    write_meta(tmp_path, "x.json", "1" * 64)
    assert decoder_for(tiny(vocab=300), tmp_path) is None
    with pytest.raises(DataError, match="not the one that made the data"):
        decoder_for(tiny(vocab=300), tmp_path, "byte")
    assert printable("a\x1b[2J\tb\n") == "a\ufffd[2J\tb\n"


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"top_p": 1.5}, "is out of range"),
        ({"temperature": 0.0, "samples": 2}, "all be the same text"),
        ({"temperature": 0.0, "top_k": 3}, "no effect"),
    ],
)
def test_choices_that_cannot_be_drawn(tmp_path: Path, choice: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        draw(tmp_path, **choice)


def test_a_tokenizer_that_is_named(tiny: MakeConfig, tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(["the quick brown fox jumps over it"] * 3, trainer)
    made.save(str(tmp_path / "tokenizer.json"))
    codec = decoder_for(tiny(vocab=400), tmp_path, str(tmp_path / "tokenizer.json"))
    assert codec is not None and codec.stop == codec.end == made.token_to_id("<|endoftext|>")
    ids = codec.encode("the fox é")
    assert codec.decode(ids) == "the fox é" and len(ids) < 9


def test_a_token_that_the_tokenizer_lacks_is_shown_and_ends_nothing() -> None:
    """The rows that pad a vocabulary are drawn as others are; tiktoken has no text for them, and panics of others."""
    tiktoken = pytest.importorskip("tiktoken")
    inner = tiktoken.Encoding("x", pat_str=".", mergeable_ranks={b"a": 0, b"b": 1}, special_tokens={"<e>": 3})
    assert decoded(inner, [0, 1, 3]) == "ab<e>"
    assert decoded(inner, [0, 2, 1, 99, 99]) == "a\ufffdb\ufffd\ufffd" and decoded(inner, [7]) == "\ufffd"
    with pytest.raises(DataError, match="cannot read this text"), package_errors("it cannot read this text"):
        inner.encode_ordinary("z")  # a PanicException, which is no Exception
    with pytest.raises(KeyboardInterrupt), package_errors("Ctrl-C is not the package's"):
        raise KeyboardInterrupt
