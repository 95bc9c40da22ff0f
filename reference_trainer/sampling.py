"""Samples text from a checkpoint.

There is no key-value cache: every new token recomputes its context, so n tokens cost about n forward passes. For the
small models of this trainer this takes seconds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from planner.activity import doing
from planner.bounds import MOST_SAMPLED_TOKENS, refuse_more_than
from planner.config.run import RunConfig
from planner.errors import CheckpointError, FileError, InputError
from planner.inputs.run_toml import load_config
from planner.log import Log
from planner.paths import is_file, is_folder
from planner.printable import printable
from planner.runs.directory import CONFIG
from planner.units import format_duration, format_rate
from reference_trainer.checkpoint.atomic import newest_valid, problem_with, step_in
from reference_trainer.checkpoint.stored_tensors import StoredTensors
from reference_trainer.data.codecs import decoder_for
from reference_trainer.measure.measure import build_model
from reference_trainer.model.gpt import GPT
from reference_trainer.model.losses import soft_capped

SEEDS = 2**63  # as of a config


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling options. temperature 0 is greedy; top_k, top_p: None is no limit. Sample i uses seed + i."""

    tokens: int = 200
    temperature: float = 0.8
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    samples: int = 1


@dataclass(frozen=True, slots=True)
class Sample:
    """One continuation: its tokens, their text (None: no decoder), and whether it reached an end-of-text token."""

    seed: int
    tokens: tuple[int, ...]
    text: str | None
    ended: bool


@dataclass(frozen=True, slots=True)
class Samples:
    """All samples and the checkpoint they come from. `context_tokens`: the context length of the model."""

    checkpoint: str
    step: int
    device: str
    prompt: str
    prompt_tokens: int
    kept_prompt_tokens: int
    context_tokens: int
    tokenizer: str | None
    seconds: float
    tokens_per_second: float
    samples: tuple[Sample, ...]


def sample(
    path: Path, prompt: str, choice: Sampling, device: torch.device, log: Log, tokenizer: str | None = None
) -> Samples:
    """Continue `prompt` with the checkpoint `path`, or the newest valid one if `path` is a run directory.

    Raises InputError for invalid options, FileError and CheckpointError for files that cannot be read.
    """
    refuse_invalid(choice)
    if not prompt.isprintable() and any("\ud800" <= c <= "\udfff" for c in prompt):
        raise InputError(
            f"--prompt {prompt!r} is not text", why="it is not UTF-8", remedy="type it in the terminal's own encoding"
        )
    run_dir, checkpoint = located(path, log)
    config = load_config(run_dir / CONFIG)
    codec = decoder_for(config, run_dir, tokenizer)
    if codec is None:
        log("the tokenizer of this run's data is unknown: showing token ids; to see text give --tokenizer")
        if prompt:
            raise InputError(
                "--prompt cannot be turned into tokens",
                why="the run was trained on tokens of an unknown tokenizer",
                remedy="give the tokenizer with --tokenizer, or omit --prompt",
            )
    with doing("loading the model"):
        model = loaded_model(config, checkpoint, device)
    ids = codec.encode(prompt) if codec and prompt else [codec.end if codec else 0]
    _refuse_large(ids, config.model.vocab)
    # positions past the trained length were never trained
    context = min(config.training.seq, config.model.context)
    kept = ids[-context:]
    if len(kept) < len(ids):
        log(f"the prompt has {len(ids):,} tokens: the model sees the last {context:,}, the length it was trained with")
    log(f"drawing {choice.samples} × up to {choice.tokens:,} tokens on {device}")
    begin = time.perf_counter()
    continuations = [
        continued(model, kept, choice, choice.seed + i, codec.stop if codec else None) for i in range(choice.samples)
    ]
    seconds = time.perf_counter() - begin
    return Samples(
        checkpoint=str(checkpoint),
        step=step_in(checkpoint),
        device=str(device),
        prompt=prompt,
        prompt_tokens=len(ids) if prompt else 0,
        kept_prompt_tokens=len(kept) if prompt else 0,
        context_tokens=context,
        tokenizer=codec.name if codec else None,
        seconds=seconds,
        tokens_per_second=sum(len(tokens) for tokens, _ in continuations) / seconds,
        samples=tuple(
            Sample(choice.seed + i, tuple(tokens), codec.decode(tokens) if codec else None, ended)
            for i, (tokens, ended) in enumerate(continuations)
        ),
    )


def refuse_invalid(choice: Sampling) -> None:
    """Raises InputError if options contradict each other or are out of range."""
    refuse_more_than(MOST_SAMPLED_TOKENS, choice.tokens, "--tokens", "every new token is a pass through the model")
    together = choice.tokens * choice.samples
    refuse_more_than(MOST_SAMPLED_TOKENS, together, "--samples times --tokens", "all texts are kept until the end")
    if choice.seed + choice.samples > SEEDS:
        raise InputError(
            f"--seed {str(choice.seed)!r} is out of range",
            why=f"seeds are below 2**63, and sample i uses seed + i; there are {choice.samples} samples",
            remedy="give a smaller --seed",
        )
    if choice.top_p is not None and not 0 < choice.top_p <= 1:
        raise InputError(f"--top-p {choice.top_p:g} is out of range", remedy="give a number above 0 and up to 1")
    if choice.temperature == 0 and choice.samples > 1:
        raise InputError(
            f"--samples {choice.samples} at temperature 0 would all be the same text",
            why="temperature 0 is greedy: it always takes the most likely token",
            remedy="give a --temperature above 0, or one sample",
        )
    if choice.temperature == 0 and (choice.top_k or choice.top_p):
        raise InputError(
            "--top-k and --top-p have no effect at temperature 0",
            why="temperature 0 is greedy: it always takes the most likely token",
            remedy="give a --temperature above 0, or omit them",
        )


def _refuse_large(ids: list[int], vocab: int) -> None:
    if max(ids) >= vocab:
        raise InputError(
            f"the prompt contains token {max(ids)}, but the vocabulary of the model has {vocab} tokens",
            why="the model has no embedding for it",
            remedy="give another --prompt",
        )


# --- loading ------------------------------------------------------------------------------------------------------


def located(path: Path, log: Log) -> tuple[Path, Path]:
    """The run directory and checkpoint at `path`. Raises FileError, CheckpointError."""
    if is_file(path / CONFIG):
        found = newest_valid(path / "checkpoints", log)
        if found is None:
            raise CheckpointError(
                f"{path} has no checkpoint yet",
                why="the run stopped before its first checkpoint, or has just started",
                remedy=f"resume it with: gptplan run --resume {path}",
            )
        return path, found
    run_dir = path.absolute().parent.parent
    if path.name.startswith("step-") and is_folder(path) and is_file(run_dir / CONFIG):
        problem = problem_with(path)
        if problem:
            raise CheckpointError(
                f"{path} is damaged", why=problem, remedy=f"sample from the newest valid one: gptplan sample {run_dir}"
            )
        return run_dir, path
    raise FileError(
        f"{path} is neither a run directory nor a checkpoint in one",
        why="a run directory has a config.toml and a folder checkpoints/ with step-…",
        remedy="check the path",
    )


def weights_of(path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint by name, on the CPU. Raises CheckpointError if they cannot be read."""
    if not any(path.glob("model*.safetensors")):
        raise CheckpointError(f"{path} has no weights", why="it contains no model*.safetensors")
    return dict(StoredTensors(path, "model.safetensors"))


def loaded_model(config: RunConfig, checkpoint: Path, device: torch.device) -> GPT:
    """The model with the weights of a checkpoint, in eval mode. Raises CheckpointError if they do not fit."""
    plain = {
        "activation_checkpointing": "none",
        "activation_checkpointing_every": 1,
    }  # no backward pass: checkpointing is useless
    if config.training.runtime == "compiled":
        plain["runtime"] = "eager"  # every sequence length would need its own compilation
    model = build_model(config.model_copy(update={"training": config.training.model_copy(update=plain)}))
    weights, own = weights_of(checkpoint), dict(model.named_parameters())
    wrong = sorted(set(weights) ^ set(own)) or [name for name, p in own.items() if weights[name].shape != p.shape]
    if wrong:
        raise CheckpointError(
            f"{checkpoint} does not match the model in config.toml",
            why=f"different tensors: {', '.join(wrong[:4])}",
            remedy="check whether config.toml was changed after training",
        )
    with torch.no_grad():
        for name, p in own.items():
            p.copy_(weights[name])
    return model.to(device).eval()


# --- sampling -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def continued(model: GPT, prompt: list[int], choice: Sampling, seed: int, stop: int | None) -> tuple[list[int], bool]:
    """Up to `choice.tokens` new tokens after `prompt`, and whether they ended with an end-of-text token.

    prompt: at least one token, at most the context length. The context then slides.
    """
    context = min(model.options.seq, model.model.context)
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)  # on the CPU, for the same samples on every device
    ids, new = list(prompt), list[int]()
    while len(new) < choice.tokens:
        shown = torch.tensor([ids[-context:]], device=device)
        token = drawn_from(next_logits(model, shown)[0].cpu(), choice, generator)
        if token == stop:
            return new, True
        ids.append(token)
        new.append(token)
    return new, False


def next_logits(model: GPT, ids: Tensor) -> Tensor:
    """The fp32 logits [B, V] of the token after ids [B, T]. The head is applied to the last position only."""
    with model.autocast_region(ids.device):
        last = model.hidden_states(ids)[:, -1:]
        return soft_capped(model.head(last).float(), model.model.logit_softcap)[:, 0]


def drawn_from(logits: Tensor, choice: Sampling, generator: torch.Generator) -> int:
    """A token sampled from fp32 logits [V]; at temperature 0 the most likely one (the first, if several are equal)."""
    if choice.temperature == 0:
        return int(logits.argmax())
    return int(torch.multinomial(distribution(logits, choice), 1, generator=generator))


def distribution(logits: Tensor, choice: Sampling) -> Tensor:
    """Probabilities [V] after temperature, then top-k, then top-p.

    top-p keeps the smallest set of most likely tokens whose probabilities reach p, at least one (nucleus sampling,
    Holtzman et al. 2020, arXiv 1904.09751, section 3.1). Computed in fp64, because p is compared with a sum over V.
    """
    wide = logits.double() / choice.temperature
    order = wide.argsort(descending=True, stable=True)
    sorted_logits = wide[order]
    if choice.top_k is not None:
        sorted_logits[choice.top_k :] = -torch.inf
    p = sorted_logits.softmax(0)
    if choice.top_p is not None:
        before = p.cumsum(0) - p
        p[before >= choice.top_p] = 0
    kept = torch.zeros_like(p)
    kept[order] = p / p.sum()
    return kept


# --- as text ------------------------------------------------------------------------------------------------------


def drawn_line(found: Samples) -> str:
    """One line: the checkpoint, the number of tokens, and the time they took."""
    count = sum(len(s.tokens) for s in found.samples)
    return (
        f"step {found.step:,} of {found.checkpoint}: {count:,} tokens in {format_duration(found.seconds)} "
        f"({format_rate(found.tokens_per_second)}; no key-value cache: each token recomputes up to "
        f"{found.context_tokens:,} tokens)"
    )


def texts_of(found: Samples) -> str:
    """Prompt and continuation of each sample; token ids if there is no decoder."""
    parts = []
    for s in found.samples:
        shown = found.prompt + s.text if s.text is not None else " ".join(map(str, s.tokens))
        end = "\n--- end of text" if s.ended else ""
        head = f"--- seed {s.seed}\n" if len(found.samples) > 1 else ""
        parts.append(head + printable(shown) + end)
    return "\n".join(parts)
