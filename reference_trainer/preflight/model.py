"""Preflight checks of the model: first loss, gradients, causality, decay groups, over-fitting one sequence."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from planner.config.model import ModelConfig
from planner.config.run import RunConfig
from planner.counts.groups import key_of, rate_and_decay
from planner.runs.preflight import Check
from planner.units import format_duration, format_number
from reference_trainer.data.samples import MicroBatch, TokenData, batch
from reference_trainer.loop.startup import build
from reference_trainer.model.gpt import GPT
from reference_trainer.model.losses import IGNORED_TARGET
from reference_trainer.preflight.steps import steps_on
from reference_trainer.step.optimizer_step import loss_part
from reference_trainer.step.step import StepContext

OVERFIT_STEPS = 100
OVERFIT_SHARE = 0.7  # of the first loss; byte frequencies alone reach 0.8 (English text, ln 256)
FALLING = 0.98  # of the first loss; a model that learns nothing stays above it
FP16_SCALE = 2.0**10  # loss scale: without it small gradients are rounded to 0 in fp16
EXPERT_NOISE = 0.05  # another routing changes the shapes of the experts' matmuls, and so their rounding


# --- the first loss -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FirstLoss:
    """Expected first loss in nats per token. `tied`, `repeating`: what a tied head may add and subtract."""

    middle: float
    tolerance: float
    tied: float
    repeating: float


def expected_first_loss(model: ModelConfig, targets: int, repeated: float) -> FirstLoss:
    """The expected loss before the first update, from ln V and the initialisation.

    targets: number of distinct target tokens. repeated: fraction of targets equal to their input.

    The last hidden states are normalised, so a logit is a sum of h unit terms with weights N(0, σ²), σ = init_std. Its
    standard deviation is s = σ √h, and the mean of ln Σ exp over V logits is ln V + s²/2. The standard error over d
    distinct targets is s/√d; the tolerance is three of these plus 2 % of ln V. With a tied head the logit of the input
    token is up to s √h: this raises the loss of targets that differ from the input and lowers that of targets that
    repeat it.
    """
    deviation = model.init_std * math.sqrt(model.hidden)
    own = deviation * math.sqrt(model.hidden)
    if model.logit_softcap is not None:
        deviation, own = min(deviation, model.logit_softcap), min(own, model.logit_softcap)
    flat = math.log(model.vocab)
    if model.position == "learned":
        own /= math.sqrt(2)  # the position embedding is half of the variance
    excess = own - deviation**2 / 2 - flat
    tied = (excess if excess > 50 else math.log1p(math.exp(excess))) if model.tied_embeddings else 0.0
    tolerance = 3 * deviation / math.sqrt(max(targets, 1)) + 0.02 * flat
    middle = flat + deviation**2 / 2
    repeating = repeated * min(own, middle) if model.tied_embeddings else 0.0  # no target's loss is below 0
    return FirstLoss(middle, tolerance, tied, repeating)


def check_first_loss(model: GPT, config: RunConfig, given: MicroBatch) -> Check:
    """Check that the first loss is near ln V, the loss of a uniform prediction."""
    ids, targets = given.ids, given.targets
    model.eval()
    with torch.no_grad():
        # `forward` directly, not compiled: the program would be used once
        total = float(model.forward(ids, targets, given.documents))
    model.train()
    counted = targets[targets != IGNORED_TARGET]
    loss = total / max(counted.numel(), 1)
    repeated = int((targets == ids).sum()) / max(counted.numel(), 1)
    e = expected_first_loss(config.model, len(set(counted.tolist())), repeated)
    flat = math.log(config.model.vocab)
    low, high = e.middle - e.tolerance - e.repeating, e.middle + e.tolerance + e.tied
    usual = min(high, e.middle + e.tolerance + 1.0)  # a tied head that adds a nat or more is a warning
    expected = f"{low:.2f} to {usual:.2f}: ln {config.model.vocab:,} = {flat:.2f}, + {e.middle - flat:.2f} by init"
    values = {"loss": loss if math.isfinite(loss) else None, "ln_vocab": flat, "low": low, "high": usual}
    measured = f"{format_number(loss)} nats per token"
    if low <= loss <= usual:
        return Check("first loss", "ok", measured, expected, values=values)
    if usual < loss <= high:
        return Check(
            "first loss",
            "warning",
            measured,
            expected,
            f"the head is the embedding table, {config.model.hidden:,} wide: the model starts by repeating its input",
            "use --untied, or accept that the first steps are spent on unlearning this",
            values,
        )
    why = "too low: the model can see its targets" if loss < low else "too high: weights or logits are too large"
    remedy = "check the shift of the targets and the causal mask" if loss < low else "check the initialisation"
    return Check("first loss", "failed", measured, expected, why, remedy, values)


# --- gradients ----------------------------------------------------------------------------------------------------


def check_gradients(context: StepContext, given: MicroBatch) -> tuple[Check, Check]:
    """Check after one backward pass that the gradient norm is finite and every parameter has a nonzero gradient."""
    scale = FP16_SCALE if context.model.compute == torch.float16 else 1.0
    loss = loss_part(context.model, given, given.valid) * scale
    loss.backward()  # type: ignore[no-untyped-call]
    found = {name: _gradient(context, name, scale) for name, _ in context.model.named_parameters()}
    context.optimizer.zero_grad()
    return _norm_check(context.config, found), _all_check(found)


def _gradient(context: StepContext, name: str, scale: float) -> tuple[float, bool] | None:
    """L2 norm of a parameter's gradient and whether it is all zeros. The gradient may be on the master weight."""
    for holder in (dict(context.model.named_parameters())[name], context.optimizer.weights[name]):
        if holder.grad is not None:
            return float(holder.grad.double().norm()) / scale, not bool(holder.grad.any())
    return None


def _norm_check(config: RunConfig, found: dict[str, tuple[float, bool] | None]) -> Check:
    norm = math.sqrt(sum(one[0] ** 2 for one in found.values() if one))
    values = {"grad_norm": norm if math.isfinite(norm) else None}
    measured = f"global norm {format_number(norm)}"
    if math.isfinite(norm) and norm > 0:
        limit = config.optimizer.clip_norm
        note = "finite" if limit is None else f"finite; clipped to {format_number(limit)}"
        return Check("first gradient", "ok", measured, note, values=values)
    bad = [name for name, one in found.items() if one and not math.isfinite(one[0])]
    why = f"not finite in {bad[0]}" if bad else "all gradients are 0: no parameter would change"
    return Check("first gradient", "failed", measured, "finite, above 0", why, "check the initialisation", values)


def _all_check(found: dict[str, tuple[float, bool] | None]) -> Check:
    missing = [name for name, one in found.items() if one is None]
    zero = [name for name, one in found.items() if one and one[1]]
    measured = f"{len(found) - len(missing) - len(zero)} of {len(found)} tensors"
    values = {"tensors": len(found), "missing": len(missing), "zero": len(zero)}
    if not missing and not zero:
        return Check("all are trained", "ok", measured, "every tensor has a gradient", values=values)
    parts = [f"no gradient: {', '.join(missing[:4])}"] if missing else []
    parts += [f"gradient is all zeros: {', '.join(zero[:4])}"] if zero else []
    return Check(
        "all are trained",
        "failed" if missing else "warning",
        measured,
        "every tensor has a gradient",
        "; ".join(parts),
        "a tensor without a gradient is never updated; check the forward pass of the model",
        values,
    )


def check_decay_groups(context: StepContext) -> Check:
    """Check that each tensor is in exactly one optimizer group, with the lr and decay of the config."""
    rules, names, roles = context.config.optimizer, context.optimizer.weights, context.optimizer.roles
    found: dict[int, list[tuple[float, float]]] = {}
    for group in context.optimizer.param_groups:
        for w in group["params"]:
            found.setdefault(id(w), []).append((float(group["lr_factor"]), float(group["weight_decay"])))
    wrong = [name for name, w in names.items() if len(found.get(id(w), [])) != 1]
    expected_values = {name: rate_and_decay(rules, key_of(rules, name, roles[name])) for name, w in names.items()}
    mixed = [name for name, w in names.items() if name not in wrong and found[id(w)] != [expected_values[name]]]
    decayed = sum(w.numel() for name, w in names.items() if expected_values[name][1] > 0)
    others = sum(w.numel() for w in names.values()) - decayed
    measured = f"{decayed:,} parameters decay, {others:,} do not"
    expected = "each tensor in one group, as configured"
    values = {"decayed_parameters": decayed, "other_parameters": others}
    if wrong or mixed:
        why = f"in no group or in two: {', '.join(wrong[:4])}" if wrong else f"in the wrong one: {', '.join(mixed[:4])}"
        return Check("decay groups", "failed", measured, expected, why, "compare: gptplan groups", values)
    return Check("decay groups", "ok", measured, expected, values=values)


# --- causality ----------------------------------------------------------------------------------------------------


def check_causality(model: GPT, given: MicroBatch) -> Check:
    """Check that changing a token changes no earlier hidden state: bit for bit, or up to rounding with experts.

    Uses the first row of the batch. The head works on each position alone, so this holds for the logits too.
    """
    row, length = given.ids[:1], given.ids.shape[1]
    documents = None if given.documents is None else given.documents[:1]
    model.eval()
    with torch.no_grad(), model.autocast_region(row.device):
        base = model.hidden_states(row, documents)
        leaks, effect = [], math.inf
        for at in sorted({1, length // 2, length - 1} - {0}):
            other = row.clone()
            other[0, at] = (other[0, at] + 1) % model.model.vocab
            moved = (model.hidden_states(other, documents) - base).abs().amax(-1)[0].float()
            leaks.append((float(moved[:at].max()), at))
            effect = min(effect, float(moved[at]))
    model.train()
    leak, at = max(leaks)
    allowed = EXPERT_NOISE * effect if model.model.moe else 0.0
    measured = f"changes by {format_number(leak)} before the token, {format_number(effect)} at it"
    values = {"before": leak, "at_token": effect, "allowed": allowed}
    expected = (
        "0 before the token" if not allowed else f"at most {format_number(allowed)} before the token, by rounding"
    )
    if leak <= allowed and effect > 0:
        return Check("causality", "ok", measured, expected, values=values)
    why = f"position {at} changes an earlier one" if effect > 0 else "no token has any effect on its own position"
    return Check("causality", "failed", measured, expected, why, "check the attention mask", values)


# --- one batch ----------------------------------------------------------------------------------------------------


def check_overfitting(config: RunConfig, data: TokenData, device: torch.device, seconds: float) -> Check:
    """Check that the loss falls when one sequence is trained repeatedly at the config's peak learning rate."""
    training = {"micro_batch": 1, "accumulation": 1, "steps": OVERFIT_STEPS, "tokens": None}
    schedule = {"kind": "constant", "warmup_steps": 0, "cooldown_steps": 0}
    short = config.model_copy(
        update={
            "training": config.training.model_copy(update=training),
            "schedule": config.schedule.model_copy(update=schedule),
        }
    )
    one = one_sequence(data, config)
    deadline = time.monotonic() + seconds
    losses = [loss for loss, _ in steps_on(build(short, device, one), 1, OVERFIT_STEPS, deadline)]
    first, last, done = losses[0], min(losses), len(losses)
    share = last / first
    measured = f"{format_number(first)} → {format_number(last)} in {done} steps ({100 * share:.0f} %)"
    expected = f"below {100 * OVERFIT_SHARE:.0f} % in {OVERFIT_STEPS} steps at the peak lr"
    values = {"first_loss": _finite(first), "lowest_loss": _finite(last), "steps": done, "share": _finite(share)}
    name = "one sequence over-fitted"
    if not math.isfinite(first) or not math.isfinite(losses[-1]):
        why = f"the loss is {losses[-1]} after {done} steps at the peak lr without warm-up"
        return Check(name, "failed", measured, expected, why, "plan with a lower --peak-lr", values)
    if share <= OVERFIT_SHARE:
        return Check(name, "ok", measured, expected, values=values)
    if done < OVERFIT_STEPS:
        why = f"{format_duration(seconds)} were not enough"
        return Check(name, "skipped", measured, expected, why, "give a longer --time-limit", values)
    if share < FALLING:
        why = "the loss falls slowly: the peak lr may be too low for this model"
        return Check(
            name, "warning", measured, expected, why, "find a better one with: gptplan lr-find RUN_TOML", values
        )
    why = "the model does not learn even one sequence"
    return Check(name, "failed", measured, expected, why, "check learning rate, targets and gradients", values)


def one_sequence(data: TokenData, config: RunConfig) -> TokenData:
    """A data set that contains only the first sample of the run."""
    ids, targets, *_ = batch(data, config, 0, 1)
    last = int(targets[0, -1]) if int(targets[0, -1]) != IGNORED_TARGET else int(ids[0, 0])
    tokens: Any = np.append(ids[0].numpy(), last).astype(data.tokens.dtype)
    return replace(data, tokens=tokens, valid_tokens=ids.shape[1], validation=None)


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None
