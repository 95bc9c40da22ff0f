"""What a changed key does to a run that is resumed: the rules, and the keys of a config that have no flag."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NO_LONGER_EQUAL = "bit-equality with an uninterrupted run is no longer promised"


@dataclass(frozen=True, slots=True)
class Rule:
    """What a change of a key does when a run is resumed, and why; `planner.config.resume` explains the verdicts."""

    verdict: Literal["allowed", "warned", "same batch", "on request", "refused"]
    reason: str


WEIGHTS = Rule("refused", "the stored weights have these shapes and this meaning")
INITIAL = Rule("allowed", "the weights are drawn once, before the first step")
TOKENIZER = Rule("refused", "the tokens would be another tokenizer's")
DESCRIPTION = Rule("allowed", "a description, or read by the planner alone")
SCHEDULE = Rule("on request", "the learning rate of every later step follows from it")
SAMPLE_ORDER = Rule("refused", "the samples and their order depend on the sequence length")
DATA_ORDER = Rule("refused", "the order of the data follows from it")
BATCH = Rule("same batch", f"the same samples are summed in another order: {NO_LONGER_EQUAL}")
RECIPE = Rule("refused", "weights and moments have this recipe's types")
ROUNDING = Rule("warned", f"the same mathematics with other rounding: {NO_LONGER_EQUAL}")
LOSS = Rule("refused", "another loss is minimised")
SAVING = Rule("allowed", "when checkpoints are written, and which are kept, changes no weight")
OPTIMIZER = Rule("refused", "the stored moments are this optimizer's")
MOMENTS = Rule("refused", "the stored moments were averaged, and the weights moved, under the old value")
PREDICTION = Rule("allowed", "for the predictions alone")
EVALUATION = Rule("allowed", "evaluations change no weight; best loss and patience count on")
GUARD = Rule("warned", f"later steps are judged by another rule than earlier ones: {NO_LONGER_EQUAL}")
ORIGIN = Rule("allowed", "where the config comes from")

# keys without a flag: their rule, why they have none, and the keys
WITHOUT_FLAG: tuple[tuple[Rule, str, tuple[str, ...]], ...] = (
    (WEIGHTS, "part of a published model: it comes with --model or --hf-config", (
        "model.context", "model.position_rows", "model.no_position_every", "model.norm_parameters",
        "model.embedding_norm", "model.residual", "model.full_attention_every", "model.logit_softcap", "model.mla",
        "model.moe.shared_gate", "model.moe.first_dense_layers", "model.moe.every", "model.moe.router_bias",
        "model.moe.expert_biases", "model.head_bias", "model.attention_sinks", "model.attention_chunk",
        "model.untrained", "model.rope_scaling", "model.local_rope_base",
    )),
    (INITIAL, "part of a published model: it comes with --model or --hf-config", ("model.init_residual",)),
    (TOKENIZER, "kept by --pad-vocab", ("model.tokenizer_vocab",)),
    (DESCRIPTION, "written by the planner", ("model.name", "model.source", "model.nominal_parameters")),
    (ROUNDING, "describes other programs than the trainer", ("training.returns_logits",)),
    (MOMENTS, "published values of the optimizer; edit run.toml", (
        "optimizer.beta1", "optimizer.beta2", "optimizer.momentum", "optimizer.eps", "optimizer.weight_decay",
        "optimizer.groups",
    )),
    (GUARD, "rarely changed; edit run.toml", (
        "guard.spike_sigmas", "guard.spike_window", "guard.nonfinite_limit", "guard.rollback_skips",
        "guard.rollback_budget", "guard.rollback_rate",
    )),
    (SAVING, "rarely changed; edit run.toml", ("checkpoints.keep_every",)),
    (ORIGIN, "written by the planner", (
        "schema_version", "provenance.as_of", "provenance.gptplan", "provenance.assumptions", "profile",
    )),
)  # fmt: skip
