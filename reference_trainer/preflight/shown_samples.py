"""The targets check of the preflight, and the samples that it shows."""

from __future__ import annotations

from torch import Tensor

from planner.config.run import RunConfig
from planner.printable import printable
from planner.runs.preflight import Check, ShownSample
from reference_trainer.data.codecs import Codec, codec_of
from reference_trainer.data.samples import TokenData, batch
from reference_trainer.model.losses import IGNORED_TARGET

SHOWN_SAMPLES = 2
SHOWN_TOKENS = 72


def check_targets(config: RunConfig, data: TokenData, text: bool) -> tuple[Check, tuple[ShownSample, ...]]:
    """Whether each target is the next input, in the first samples; and these samples.

    text: the data was read as text, so that its tokens are bytes.
    """
    count = min(SHOWN_SAMPLES, data.valid_tokens // config.training.seq)
    ids, targets, *_ = batch(data, config, 0, count)
    codec = codec_of(config.model.vocab, text)
    samples = tuple(ShownSample(i, _shown(codec, ids[i]), _shown(codec, targets[i])) for i in range(count))
    inner = targets[:, :-1]
    counted = inner != IGNORED_TARGET  # the last position of a document has no target
    wrong = int(((inner != ids[:, 1:]) & counted).sum())
    total = int(counted.sum())
    measured = f"{total - wrong:,} of {total:,} targets are the next input"
    values = {"targets": total, "wrong": wrong}
    if not wrong:
        return Check("targets", "ok", measured, "all, in the samples shown", values=values), samples
    why = "the model would learn another task than next-token prediction"
    return Check("targets", "failed", measured, "all", why, "check how the data makes its samples", values), samples


def _shown(codec: Codec | None, tokens: Tensor) -> str:
    some = [int(t) for t in tokens[:SHOWN_TOKENS] if int(t) != IGNORED_TARGET]
    if codec is None:
        return " ".join(map(str, some[: SHOWN_TOKENS // 4]))
    return printable(codec.decode(some)).replace("\n", "↵").replace("\t", "→")
