"""Every option of a plan, one row each: its flag, its key in run.toml, what it takes, its help, and its resume rule.

Read by `--help`, the terminal planner's form, the wizard, the draft of a config, the effective values, and the rules
of resuming. No heavy import: `gptplan --help` reads it. To add an option, add a row here and a field to its section.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from planner.config import resume_rules as on_resume
from planner.config.resume_rules import Rule

MODEL, RUN, BATCH, NUMERICS, RATE = "Model", "Run", "Batch", "Numerics", "Learning rate"
HARDWARE, LAYOUT, LOOP = "Hardware and price", "Layout of several GPUs", "Training loop"


@dataclass(frozen=True, slots=True)
class Kind:
    """What an option takes: how its text is parsed, the placeholder of its help, and its choices, if it has some."""

    parser: str
    placeholder: str
    choices: tuple[str, ...] = ()


def _choice(*names: str, placeholder: str = "") -> Kind:
    return Kind("choice", placeholder or "|".join(names), names)


def _switch(on: str, off: str) -> Kind:
    return Kind("switch", "", (on, off))


def _count(placeholder: str = "N") -> Kind:
    return Kind("count", placeholder)


COUNT, COUNT_OR_ZERO, SEED = _count(), Kind("count or zero", "N"), Kind("seed", "N")
COUNT_OR_NONE, NUMBER_OR_NONE = Kind("count, 0 for none", "N"), Kind("number, 0 for none", "X")
NUMBER, LEARNING_RATE, TERAFLOPS = Kind("number", "X"), Kind("number", "LR"), Kind("teraflops", "X")
RATE_PER_SECOND = Kind("rate", "X")
FRACTION, PERCENTAGE_OF_PEAK = Kind("fraction", "FRACTION"), Kind("number or zero", "LR")
MONEY, PATH, NAME = Kind("money", "USD"), Kind("text", "FILE"), Kind("text", "NAME")
YES_NO = Kind("yes or no", "yes|no", ("yes", "no"))


@dataclass(frozen=True, slots=True)
class Option:
    """One row. `key`: its own key, as section.key; empty where a rule turns it into others.

    default: as text, a value or the rule that gives one. ends: the assumptions that typing it ends, if not its name.
    """

    name: str
    panel: str
    kind: Kind
    help: str
    key: str = ""
    resume: Rule | None = None
    label: str = ""
    default: str = ""
    ends: tuple[str, ...] | None = None

    @property
    def flag(self) -> str:
        """The command-line spelling."""
        return flag(self.name)

    @property
    def sentence(self) -> str:
        """The help with the default."""
        return f"{self.help} (default: {self.default})" if self.default else self.help

    @property
    def short(self) -> str:
        """The name in a form."""
        return self.label or self.name.replace("_", " ")


def flag(name: str) -> str:
    """The command-line spelling of an option."""
    return "--" + name.replace("_", "-")


_MODEL_ENDS = (
    "shape",
    "family",
    "heads",
    "ffn",
    "vocab",
    "norm_parameters",
    "top_k",
    "expert_ffn",
    "balancing",
    "balancing_rate",
    "hf_defaults",
    "hf_unread",
    "hf_text",
    "hf_simplified",
    "norm_eps",
    "rope_base",
)
_W, _R, _S = on_resume.WEIGHTS, on_resume.ROUNDING, on_resume.SCHEDULE

OPTIONS: tuple[Option, ...] = (
    # model
    Option("params", MODEL, COUNT, "Parameters, such as 125M: a rule picks a GPT-2 shape; N stays as typed.",
           label="parameters", ends=_MODEL_ENDS),
    Option("model", MODEL, NAME, "Model preset, such as gpt2 or llama-2-7b.", ends=_MODEL_ENDS),
    Option("hf_config", MODEL, PATH, "Hugging Face config.json of a gpt2, llama, qwen3, mixtral … model.",
           label="config.json", ends=_MODEL_ENDS),
    Option("family", MODEL, _choice("gpt2", "llama"), "Style of a shape typed by --layers and --hidden.",
           default="gpt2", ends=_MODEL_ENDS),
    Option("layers", MODEL, COUNT, "Transformer blocks.", "model.layers", _W, ends=("layers", "shape")),
    Option("hidden", MODEL, COUNT, "Width of the residual stream.", "model.hidden", _W, ends=("shape", "heads", "ffn")),
    Option("heads", MODEL, COUNT, "Query heads.", "model.heads", _W, ends=("heads", "shape")),
    Option("kv_heads", MODEL, COUNT, "Key-value heads (grouped-query attention).", "model.kv_heads", _W,
           "key-value heads", ends=("kv_heads", "shape")),
    Option("head_dim", MODEL, COUNT, "Width of one head.", "model.head_dim", _W, ends=("head_dim", "shape")),
    Option("ffn", MODEL, COUNT, "Inner width of the MLP.", "model.ffn", _W, "FFN width", ends=("ffn", "shape")),
    Option("vocab", MODEL, COUNT, "Vocabulary, padding included.", "model.vocab", _W, "vocabulary",
           ends=("vocab", "shape")),
    Option("pad_vocab", MODEL, _count("MULTIPLE"), "Round the vocabulary up to a multiple, such as 64 or 128.",
           label="pad vocabulary to"),
    Option("position", MODEL, _choice("learned", "rotary", "alibi", "none"), "Positional encoding.",
           "model.position", _W),
    Option("rotary_dim", MODEL, COUNT, "Channels of a head with rotary embedding.", "model.rotary_dim", _W),
    Option("rope_base", MODEL, NUMBER, "Base of the rotary angles, such as 500000.", "model.rope_base", _W,
           "RoPE base"),
    Option("norm", MODEL, _choice("layernorm", "rmsnorm"), "Kind of normalisation.", "model.norm", _W,
           ends=("norm_parameters",)),
    Option("norm_bias", MODEL, _switch("norm-bias", "no-norm-bias"), "Whether the norms have a bias beside their gain.",
           label="norms' bias", ends=("norm_parameters",)),
    Option("norm_eps", MODEL, NUMBER, "Added inside the root that a norm divides by, such as 1e-5.", "model.norm_eps",
           _W, "norm epsilon"),
    Option("init_std", MODEL, NUMBER, "Standard deviation of the initial weights, such as 0.006.", "model.init_std",
           on_resume.INITIAL, "initial deviation"),
    Option("norm_placement", MODEL, _choice("pre", "post", "both"), "Before a sub-layer, on its output, or both.",
           "model.norm_placement", _W),
    Option("qk_norm", MODEL, _choice("none", "head", "each-head", "full"),
           "Norm of queries and keys: per head, with one gain or a gain for each, or full width.",
           "model.qk_norm", _W, "QK norm"),
    Option("mlp", MODEL, _choice("gelu", "gelu-written-out", "relu", "relu2", "swiglu", "geglu"),
           "Activation of the MLP; swiglu and geglu have a gate.", "model.mlp", _W, "MLP"),
    Option("biases", MODEL, _choice("none", "qkv", "proj", "mlp", "attention", "qkv+mlp", "proj+mlp", "all"),
           "Linear layers with a bias.",
           "model.biases", _W),
    Option("tied", MODEL, _switch("tied", "untied"), "Whether the output head is the embedding table.",
           "model.tied_embeddings", _W, "embeddings"),
    Option("sliding_window", MODEL, COUNT_OR_NONE, "Keys that a query sees; 0: all before it.",
           "model.sliding_window", _W),
    Option("experts", MODEL, COUNT, "Routed experts in place of the MLP.", "model.moe.experts", _W),
    Option("top_k", MODEL, COUNT, "Routed experts that each token uses.", "model.moe.top_k", _W, "experts per token"),
    Option("expert_ffn", MODEL, COUNT, "Inner width of one expert.", "model.moe.expert_ffn", _W, "expert width"),
    Option("shared_ffn", MODEL, COUNT_OR_ZERO, "Inner width of all shared experts; 0: none.", "model.moe.shared_ffn",
           _W, "shared expert width"),
    Option("balancing", MODEL, _choice("none", "loss-pooled", "loss-mean", "loss-sum", "bias"),
           "How experts are balanced: a loss of the blocks pooled, averaged or summed, or a bias of the choice.",
           "model.moe.balancing", _W, default="the model's, or none", ends=("balancing", "balancing_rate")),
    Option("balancing_rate", MODEL, NUMBER, "Coefficient of the balancing loss, or step of the bias.",
           "model.moe.balancing_rate", _W, default="0.01 of a loss, 0.001 of a bias"),
    # run
    Option("tokens", RUN, COUNT, "Training tokens, such as 10B.", "training.tokens", _S, "training tokens"),
    Option("steps", RUN, COUNT, "Optimizer steps, instead of --tokens.", "training.steps", _S),
    Option("dataset_tokens", RUN, COUNT, "Distinct tokens of the data set, for the epochs.",
           "training.dataset_tokens", on_resume.DESCRIPTION, "data set tokens"),
    Option("seed", RUN, SEED, "Seed of initialisation and data order.", "training.seed", on_resume.DATA_ORDER,
           default="1337"),
    # batch
    Option("seq", BATCH, COUNT, "Tokens per sequence.", "training.seq", on_resume.SAMPLE_ORDER, "sequence length",
           default="the model's context or 1024"),
    Option("micro_batch", BATCH, COUNT, "Sequences per device in one pass.", "training.micro_batch",
           on_resume.BATCH, "micro-batch"),
    Option("accumulation", BATCH, COUNT, "Micro-batches per device and step.", "training.accumulation",
           on_resume.BATCH, ends=("accumulation", "global_batch_tokens")),
    Option("global_batch_tokens", BATCH, COUNT, "Tokens per optimizer step, instead of --accumulation.",
           label="global batch, tokens", ends=("accumulation", "global_batch_tokens")),
    # numerics
    Option("precision", NUMERICS, _choice("bf16", "fp32"), "Type of the matrix products.", ends=("recipe",)),
    Option("recipe", NUMERICS, NAME, "Types of weights, gradients and products, such as mixed-bf16 or master-bf16.",
           "training.recipe", on_resume.RECIPE, default="mixed-bf16"),
    Option("activation_checkpointing", NUMERICS, _choice("none", "selective", "full", "offloaded"),
           "Activation checkpointing (recompute in backward).", "training.activation_checkpointing", _R,
           "act. checkpointing", "none"),
    Option("activation_checkpointing_every", NUMERICS, _count("K"), "Full or offloaded: one of every K blocks.",
           "training.activation_checkpointing_every", _R, "one of K blocks", "1"),
    Option("runtime", NUMERICS, _choice("eager", "autocast", "compiled", "fused"), "How the model's code runs.",
           "training.runtime", _R, default="on a GPU compiled where its memory is known, else the recipe's"),
    Option("attention", NUMERICS, _choice("flash", "flash-only", "efficient", "cudnn", "math", "flex"),
           "Attention kernel; flash: PyTorch chooses one that stores no scores.",
           "training.attention_kernel", _R, "attention kernel", "flash"),
    Option("document_masking", NUMERICS, YES_NO, "Attention stays within a document of a sequence.",
           "training.document_masking", on_resume.LOSS, default="no"),
    Option("loss_kind", NUMERICS, _choice("plain", "chunked", "fused"),
           "plain: all logits at once; chunked: recomputed in chunks; fused: with its gradient.",
           "training.loss", _R, "loss", "plain"),
    Option("loss_chunks", NUMERICS, COUNT, "Chunks of tokens of a chunked or fused loss.", "training.loss_chunks",
           _R, default="8"),
    Option("dropout", NUMERICS, FRACTION, "Dropout, 0.1 or 10%.", "training.dropout", on_resume.LOSS, default="0"),
    Option("optimizer", NUMERICS,
           _choice("adamw", "adamw8bit", "lion", "adafactor", "sgd", "muon", placeholder="NAME"),
           "adamw, adamw8bit, lion, adafactor, sgd or muon.", "optimizer.name", on_resume.OPTIMIZER,
           default="adamw", ends=()),
    Option("optimizer_implementation", NUMERICS, _choice("fused", "foreach", "for-loop"), "How the update runs.",
           "optimizer.implementation", _R, "optimizer update", "the optimizer's first"),
    Option("state_dtype", NUMERICS, _choice("fp32", "bf16"), "Type of the moments of adamw and lion.",
           "optimizer.state_dtype", on_resume.OPTIMIZER, "moments dtype", "the weights'"),
    Option("momentum", NUMERICS, FRACTION, "Momentum of sgd or muon.", label="momentum", ends=("momentum",)),
    Option("clip_norm", NUMERICS, NUMBER_OR_NONE, "Largest global norm of the gradients; 0: no clipping.",
           "optimizer.clip_norm", on_resume.MOMENTS, default="1"),
    Option("clip_value", NUMERICS, NUMBER, "Largest gradient element; larger ones are clipped, before the norm is.",
           "optimizer.clip_value", on_resume.MOMENTS),
    # learning rate
    Option("schedule", RATE,
           _choice("cosine", "linear", "polynomial", "inverse_sqrt", "constant", "wsd", placeholder="KIND"),
           "cosine, linear, polynomial, inverse_sqrt, constant or wsd.", "schedule.kind", _S, default="cosine"),
    Option("peak_lr", RATE, LEARNING_RATE, "Learning rate at the end of warm-up.", "schedule.peak_lr", _S,
           "peak learning rate"),
    Option("min_lr", RATE, PERCENTAGE_OF_PEAK, "Learning rate at the end of the decay, 3e-5 or 10% of the peak.",
           "schedule.min_lr", _S, "min. learning rate", "10%"),
    Option("decay_power", RATE, NUMBER, "Exponent of a polynomial decay.", "schedule.decay_power", _S,
           "decay exponent", "2"),
    Option("warmup_steps", RATE, COUNT_OR_ZERO, "Warm-up in steps.", "schedule.warmup_steps", _S, "warm-up steps",
           "2% of the steps, at most 2,000"),
    Option("warmup_tokens", RATE, COUNT_OR_ZERO, "Warm-up in tokens.", label="warm-up tokens", ends=("warmup_steps",)),
    Option("warmup_ratio", RATE, FRACTION, "Warm-up as a fraction of the run, 0.02 or 2%.", label="warm-up fraction",
           ends=("warmup_steps",)),
    Option("cooldown_steps", RATE, COUNT_OR_ZERO, "Cooldown at the end of a wsd schedule in steps.",
           "schedule.cooldown_steps", _S, default="20% of the steps"),
    Option("cooldown_tokens", RATE, COUNT_OR_ZERO, "Cooldown in tokens.", ends=("cooldown_steps",)),
    Option("cooldown_ratio", RATE, FRACTION, "Cooldown as a fraction of the run, 0.2 or 20%.",
           label="cooldown fraction", ends=("cooldown_steps",)),
    # hardware
    Option("gpu", HARDWARE, NAME, "GPU preset, such as a100-80gb, or cpu for this machine's processor.",
           "hardware.gpu", on_resume.PREDICTION, "GPU", "this machine's, or a100-80gb"),
    Option("gpus", HARDWARE, COUNT, "All GPUs; those that --tp, --pp and --cp leave are data parallel.",
           "hardware.gpus", on_resume.BATCH, "number of GPUs", "1"),
    Option("nodes", HARDWARE, COUNT, "Servers, instead of --gpus: with --gpus-per-node GPUs each.", label="servers",
           ends=("gpus",)),
    Option("gpus_per_node", HARDWARE, COUNT, "GPUs that the card's own links join.", "hardware.gpus_per_node",
           on_resume.PREDICTION, "GPUs per server", "as the card is sold, mostly 8"),
    Option("allocator", HARDWARE, _choice("default", "expandable"),
           "PyTorch's caching allocator: fixed or expandable segments.", "hardware.allocator", on_resume.PREDICTION,
           default="default"),
    Option("software", HARDWARE,
           _choice("megatron-2021", "gpt-neox-2023", "pytorch-2023", "pytorch-2024", "pytorch-2026",
                   "transformer-engine-2024", placeholder="GENERATION"),
           "Kernels of that time: megatron-2021, gpt-neox-2023, pytorch-2023, -2024, -2026, transformer-engine-2024.",
           "hardware.software", on_resume.PREDICTION, "software generation", "pytorch-2026"),
    Option("tflops", HARDWARE, TERAFLOPS, "Achieved TFLOP/s per GPU by 6·N·D, if known; N of experts: active.",
           "hardware.tflops", on_resume.PREDICTION, "TFLOP/s per GPU"),
    Option("mfu", HARDWARE, Kind("fraction above zero", "FRACTION"), "Model FLOPs utilisation, if known, 0.4 or 40%.",
           "hardware.mfu", on_resume.PREDICTION, "MFU"),
    Option("tokens_per_second", HARDWARE, RATE_PER_SECOND,
           "Tokens per second of the whole run as measured, such as 1M; shown with the MFU that they mean.",
           "hardware.tokens_per_second", on_resume.PREDICTION, "tokens per second"),
    Option("profile", HARDWARE, PATH, "Kernel times that gptplan calibrate measured, here or elsewhere.",
           label="machine profile"),
    Option("write_bandwidth", HARDWARE, RATE_PER_SECOND,
           "Bytes per second that a server writes to its disk, such as 2G; a checkpoint's size over it is its time.",
           "hardware.write_bandwidth", on_resume.PREDICTION, "disk bandwidth", "1G, 0.3G to 3G"),
    Option("price_per_gpu_hour", HARDWARE, MONEY, "Your price, such as 2.50.", "hardware.usd_per_gpu_hour",
           on_resume.PREDICTION, "USD per GPU-hour", "the price list's"),
    # layout
    Option("dp", LAYOUT, COUNT, "Data-parallel replicas; gives --gpus, or agrees with it.", label="replicas",
           ends=("gpus",)),
    Option("fsdp", LAYOUT, _switch("fsdp", "no_fsdp"),
           "FSDP2: weights, gradients and optimizer state cut among the GPUs; else DDP.", "parallel.fsdp",
           on_resume.ROUNDING, "data parallel", "no_fsdp"),
    Option("reshard", LAYOUT, YES_NO, "FSDP2 frees a block's gathered weights after its forward pass.",
           "parallel.reshard", on_resume.ROUNDING, "reshard", "yes"),
    Option("hsdp", LAYOUT, COUNT, "FSDP2 in groups of so many GPUs; the groups are replicas.", "parallel.hsdp",
           on_resume.ROUNDING, "FSDP2 group", "one group of all"),
    Option("zero", LAYOUT, Kind("count or zero", "0..3"),
           "ZeRO: 1 cuts the optimizer state among replicas, 2 also gradients, 3 also weights.", "parallel.zero",
           on_resume.ROUNDING, "ZeRO stage", "0"),
    Option("ddp_bucket_view", LAYOUT, YES_NO, "DDP's buckets hold the gradients themselves, no second copy.",
           "parallel.ddp_bucket_view", on_resume.ROUNDING, "bucket view of DDP", "no"),
    Option("tp", LAYOUT, COUNT, "Tensor parallel: GPUs that share every matrix.", "parallel.tp", on_resume.ROUNDING,
           "tensor parallel", "1"),
    Option("sp", LAYOUT, _switch("sp", "no_sp"),
           "Sequence parallel: the --tp GPUs share norms and the residual stream by token.", "parallel.sp",
           on_resume.ROUNDING, "sequence parallel", "no_sp"),
    Option("pp", LAYOUT, COUNT, "Pipeline parallel: stages that the blocks are cut into.", "parallel.pp",
           on_resume.ROUNDING, "pipeline stages", "1"),
    Option("interleave", LAYOUT, COUNT, "Chunks of blocks on each stage.", "parallel.interleave", on_resume.ROUNDING,
           "chunks per stage", "1"),
    Option("pp_schedule", LAYOUT, _choice("1f1b", "interleaved", "zero-bubble", "dualpipe"),
           "Order of the micro-batches in the pipeline.", "parallel.pp_schedule", on_resume.ROUNDING,
           "pipeline schedule", "1f1b"),
    Option("cp", LAYOUT, COUNT, "Context parallel: GPUs that share every sequence.", "parallel.cp",
           on_resume.ROUNDING, "context parallel", "1"),
    Option("ep", LAYOUT, COUNT, "Expert parallel: GPUs among the replicas that share the experts.", "parallel.ep",
           on_resume.ROUNDING, "expert parallel", "1"),
    # training loop
    Option("checkpoint_every", LOOP, _count("STEPS"), "Steps between checkpoints.", "training.checkpoint_every",
           on_resume.SAVING, "checkpoint every"),
    Option("keep_checkpoints", LOOP, COUNT, "Newest checkpoints kept.", "checkpoints.keep", on_resume.SAVING,
           default="3"),
    Option("async_save", LOOP, YES_NO, "Write checkpoints while training goes on.", "checkpoints.asynchronous",
           on_resume.SAVING, "save in background", "on a GPU"),
    Option("eval_every", LOOP, _count("STEPS"), "Steps between evaluations on held-out data.", "evaluation.every",
           on_resume.EVALUATION, "evaluate every", "none"),
    Option("eval_tokens", LOOP, COUNT, "Validation tokens of one evaluation.", "evaluation.tokens",
           on_resume.EVALUATION, "evaluation tokens", "65536"),
    Option("patience", LOOP, COUNT, "Evaluations without a better loss before training stops.",
           "evaluation.patience", on_resume.EVALUATION),
    Option("on_spike", LOOP, _choice("warn", "skip", "rollback"), "What a spike of the loss does.", "guard.on_spike",
           on_resume.GUARD, "on a loss spike", "warn"),
)  # fmt: skip

OPTION: dict[str, Option] = {option.name: option for option in OPTIONS}
BY_KEY: dict[str, Option] = {option.key: option for option in OPTIONS if option.key}

# the options that every plan shows first, in this order
MAIN = (
    "params", "model", "tokens", "seq", "gpu", "gpus", "micro_batch", "global_batch_tokens", "precision",
    "activation_checkpointing", "peak_lr", "warmup_steps", "price_per_gpu_hour",
)  # fmt: skip

# options of which one at most may be typed, and why
EITHER = (
    (("params", "model", "hf_config"), "each chooses the model"),
    (("model", "family"), "a preset has its own style"),
    (("hf_config", "family"), "the file says which style it has"),
    (("params", "layers"), "the rule of --params chooses the layers"),
    (("params", "hidden"), "the rule of --params chooses the width"),
    (("tokens", "steps"), "one follows from the other and the batch"),
    (("accumulation", "global_batch_tokens"), "the batch in tokens fixes the accumulation"),
    (("precision", "recipe"), "a recipe contains the precision"),
    (("warmup_steps", "warmup_tokens", "warmup_ratio"), "each fixes the warm-up"),
    (("cooldown_steps", "cooldown_tokens", "cooldown_ratio"), "each fixes the cooldown"),
    (("tflops", "mfu", "tokens_per_second"), "each fixes the speed"),
    (("nodes", "gpus"), "each fixes the number of GPUs"),
)


def ended_by(name: str) -> tuple[str, ...]:
    """The assumptions that typing an option ends."""
    ends = OPTION[name].ends
    return (name,) if ends is None else ends


def value_at(config: object, key: str) -> Any:
    """The value of a config's key; None below a section that is absent, such as model.moe."""
    found: Any = config
    for part in key.split("."):
        found = None if found is None else getattr(found, part)
    return found


def of_section(section: str) -> tuple[Option, ...]:
    """The options whose key is directly in a section."""
    return tuple(o for o in OPTIONS if o.key.rpartition(".")[0] == section)


def panels() -> dict[str, tuple[str, ...]]:
    """The options of each panel, panels and options in the table's order."""
    names = dict.fromkeys(option.panel for option in OPTIONS)
    return {panel: tuple(o.name for o in OPTIONS if o.panel == panel) for panel in names}
