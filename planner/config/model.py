"""The `[model]` section of a `RunConfig`: the architecture of a GPT-style decoder, validated at the door."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from planner.config.rope import ROPE_BASE, RopeScalingConfig
from planner.config.section import Count, Every, Layers, Natural, Positive, Section, Width

INIT_STD = 0.02  # of initial weights, where nothing else is said: GPT-2's (Radford et al. 2019)
LOSS_COEFFICIENT = 0.01  # of a loss that balances experts (Switch Transformer, arXiv 2101.03961, section 2.2)
BIAS_STEP = 0.001  # of a bias that balances experts, per optimizer step (DeepSeek-V3, arXiv 2412.19437, section 4.2)
NORM_EPS = 1e-5  # of norms, where nothing else is said: torch.nn.LayerNorm's


class MlaConfig(Section):
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): keys and values from one low-rank latent."""

    q_lora_rank: Count | None = Field(default=None, description="rank of the queries' latent; absent: none")
    kv_lora_rank: Count = Field(description="rank of the latent of keys and values")
    qk_nope_head_dim: Count = Field(description="channels of a query or key head without position")
    qk_rope_head_dim: Count = Field(description="channels of a query or key head with rotary embedding")
    v_head_dim: Count = Field(description="width of one value head")


class MoeConfig(Section):
    """A mixture of experts in place of the MLP: token-choice, nothing dropped."""

    experts: Count = Field(description="routed experts")
    top_k: Count = Field(description="routed experts that each token uses")
    expert_ffn: Count = Field(description="inner width of one routed expert")
    shared_ffn: Natural = Field(default=0, description="inner width of all shared experts together; 0: none")
    shared_gate: bool = Field(default=False, description="a learned gate multiplies the shared experts' output")
    first_dense_layers: Natural = Field(default=0, description="first blocks that keep an ordinary MLP of width ffn")
    every: Every | None = Field(
        default=None, description="of the blocks after these, every k-th has experts; absent: all have"
    )
    router_bias: bool = Field(default=False, description="the router has a bias")
    expert_biases: bool = Field(default=False, description="the routed experts' matrices have biases")
    balancing: Literal["none", "loss-pooled", "loss-mean", "loss-sum", "bias"] = Field(
        default="none",
        description="what spreads tokens over the experts: a loss of all blocks pooled (transformers), averaged "
        "(MegaBlocks) or summed (Switch) over the blocks, or a bias of the choice (DeepSeek-V3)",
    )
    balancing_rate: Positive | None = Field(
        default=None, description="coefficient of that loss, or step of that bias; absent: 0.01, 0.001"
    )

    @model_validator(mode="after")
    def _enough_experts(self) -> MoeConfig:
        if self.top_k > self.experts:
            raise ValueError(f"top_k ({self.top_k}) is above experts ({self.experts}): a token uses each at most once")
        if self.shared_gate and not self.shared_ffn:
            raise ValueError("shared_gate needs shared experts: give shared_ffn")
        if self.balancing_rate is not None and self.balancing == "none":
            raise ValueError('balancing_rate needs a balancing other than "none"')
        return self

    @property
    def has_balancing_loss(self) -> bool:
        """Whether a loss balances the experts."""
        return self.balancing.startswith("loss")

    @property
    def balancing_strength(self) -> float:
        """The coefficient of the balancing loss, or the step of the bias; 0 without either."""
        default = {"none": 0.0, "bias": BIAS_STEP}.get(self.balancing, LOSS_COEFFICIENT)
        return default if self.balancing_rate is None else self.balancing_rate


class ModelConfig(Section):
    """The architecture of a decoder: GPT-2, GPT-NeoX, Llama, Gemma, OLMo, DeepSeek and their relatives."""

    name: str = Field(description="name of the preset, or of the rule that chose the shape")
    layers: Layers = Field(description="transformer blocks")
    hidden: Width = Field(description="width of the residual stream")
    heads: Width = Field(description="query heads")
    kv_heads: Width = Field(description="key and value heads; fewer than heads is grouped-query attention")
    head_dim: Width = Field(description="width of one query or key head")
    ffn: Width = Field(description="inner width of the MLP")
    vocab: Count = Field(description="rows of the embedding table, padding included")
    tokenizer_vocab: Count | None = Field(default=None, description="tokens of the tokenizer; absent: same as vocab")
    context: Count = Field(description="longest sequence that the model supports")
    position: Literal["learned", "rotary", "alibi", "none"] = Field(
        description="learned table, rotary embedding, ALiBi's biases, or none"
    )
    position_rows: Count | None = Field(
        default=None, description="rows of the learned table; absent: same as context (OPT has 2 more)"
    )
    rotary_dim: Count | None = Field(default=None, description="channels of a head with rotary embedding; absent: all")
    rope_base: Annotated[float, Field(gt=1.0)] = Field(
        default=ROPE_BASE, description="base of the rotary angles: channel pair i of r turns by base^(-2i/r) a token"
    )
    local_rope_base: Annotated[float, Field(gt=1.0)] | None = Field(
        default=None,
        description="base in the blocks with a sliding window, without rope_scaling; absent: all blocks are the same",
    )
    no_position_every: Every | None = Field(
        default=None, description="every k-th block has no rotary embedding; absent: all have it"
    )
    norm: Literal["layernorm", "rmsnorm"] = Field(description="kind of normalisation")
    norm_parameters: Literal["gain+bias", "gain", "none"] = Field(description="learned vectors of each norm")
    norm_eps: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        default=NORM_EPS, description="added to the variance, or mean square, that a norm divides by the root of"
    )
    init_std: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        default=INIT_STD, description="standard deviation of the initial matrices and tables"
    )
    init_residual: Literal["scaled", "same"] = Field(
        default="scaled",
        description="scaled: matrices that write to the residual stream have init_std / sqrt(2 layers) (GPT-2); "
        "same: init_std like all others",
    )
    norm_placement: Literal["pre", "post", "both"] = Field(
        default="pre", description="before a sub-layer, on its output before the residual sum, or both"
    )
    qk_norm: Literal["none", "head", "each-head", "full"] = Field(
        default="none",
        description="norm of queries and keys: none, each head, each head with a gain of its own, or the full width",
    )
    embedding_norm: bool = Field(default=False, description="a norm right after the embedding")
    residual: Literal["sequential", "parallel", "parallel-one-norm"] = Field(
        default="sequential",
        description="attention and MLP one after the other, or parallel with separate or shared norms",
    )
    mlp: Literal["gelu", "gelu-written-out", "relu", "relu2", "swiglu", "geglu"] = Field(
        description="gelu (one kernel, or in separate operators), relu, relu2 (its square): two matrices; "
        "swiglu, geglu: three"
    )
    biases: Literal["none", "qkv", "proj", "mlp", "attention", "qkv+mlp", "proj+mlp", "all"] = Field(
        description="linear layers of the blocks with a bias: of q, k and v; the output projection; the MLP; "
        "attention is qkv+proj"
    )
    head_bias: bool = Field(default=False, description="the output head has a bias")
    attention_sinks: bool = Field(default=False, description="a learned logit per head in the softmax of the scores")
    tied_embeddings: bool = Field(description="the output head is the embedding table")
    sliding_window: Count | None = Field(
        default=None, description="keys that a query attends to; absent: all before it"
    )
    attention_chunk: Count | None = Field(
        default=None, description="a query attends to the keys of its own chunk of so many; absent: all before it"
    )
    full_attention_every: Every | None = Field(
        default=None,
        description="every k-th block has full attention in spite of sliding_window or attention_chunk; "
        "absent: none has",
    )
    logit_softcap: Positive | None = Field(default=None, description="logits are cap * tanh(logits / cap)")
    rope_scaling: RopeScalingConfig | None = Field(
        default=None, description="rotary angles for a longer context; absent: as rope_base gives them"
    )
    mla: MlaConfig | None = Field(default=None, description="multi-head latent attention; absent: plain heads")
    moe: MoeConfig | None = Field(default=None, description="mixture of experts; absent: dense")
    untrained: str | None = Field(
        default=None, description="what else the architecture computes and the reference trainer does not"
    )
    nominal_parameters: Count | None = Field(
        default=None, description="parameters as typed: the N of 6*N*D and of the 14-byte rule"
    )
    source: str = Field(description="source of this shape")

    @model_validator(mode="before")
    @classmethod
    def _older_files(cls, values: Any) -> Any:
        """Files of the first version said biases = true or false, and had no norm_parameters."""
        if isinstance(values, dict):
            biases = values.get("biases")
            if isinstance(biases, bool):
                values = values | {"biases": "all" if biases else "none"}
            if "norm_parameters" not in values and "norm" in values:
                whole = values["norm"] == "layernorm" and values.get("biases") == "all"
                values = values | {"norm_parameters": "gain+bias" if whole else "gain"}
        return values

    @model_validator(mode="after")
    def _shape_is_possible(self) -> ModelConfig:
        if self.heads % self.kv_heads:
            raise ValueError(
                f"heads ({self.heads}) is not divisible by kv_heads ({self.kv_heads}): "
                "every key-value head serves the same number of query heads"
            )
        if self.position == "rotary" and self.rope_dim % 2:
            raise ValueError(f"head_dim ({self.rope_dim}) is odd: rotary embedding turns pairs of channels")
        if self.norm == "rmsnorm" and self.norm_parameters == "gain+bias":
            raise ValueError('norm_parameters "gain+bias" belongs to layernorm: rmsnorm has no bias')
        problem = None if self.rope_scaling is None else self.rope_scaling.problem_with(self.rope_dim)
        if problem is not None:
            raise ValueError(problem)
        self._refuse_orphans()
        self._refuse_mixtures()
        return self

    def _refuse_orphans(self) -> None:
        """Options that mean nothing without another one."""
        if self.position != "rotary" and (self.rotary_dim or self.no_position_every):
            raise ValueError('rotary_dim and no_position_every need position = "rotary"')
        if self.position != "rotary" and (self.rope_base != ROPE_BASE or self.rope_scaling is not None):
            raise ValueError('rope_base and rope_scaling need position = "rotary"')
        if self.local_rope_base is not None and (self.position != "rotary" or self.sliding_window is None):
            raise ValueError('local_rope_base needs position = "rotary" and a sliding_window')
        if self.position_rows is not None and self.position != "learned":
            raise ValueError('position_rows needs position = "learned"')
        if self.position_rows is not None and self.position_rows < self.context:
            raise ValueError(
                f"position_rows ({self.position_rows}) is below context ({self.context}): some positions have no row"
            )
        if self.rotary_dim is not None and self.rotary_dim > self.head_dim:
            raise ValueError(f"rotary_dim ({self.rotary_dim}) is above head_dim ({self.head_dim})")
        if self.sliding_window is not None and self.attention_chunk is not None:
            raise ValueError("sliding_window and attention_chunk contradict each other")
        if self.full_attention_every is not None and self.sliding_window is None and self.attention_chunk is None:
            raise ValueError("full_attention_every needs a sliding_window or an attention_chunk")
        if self.tokenizer_vocab is not None and self.tokenizer_vocab > self.vocab:
            raise ValueError(
                f"tokenizer_vocab ({self.tokenizer_vocab}) is above vocab ({self.vocab}): some tokens would have no row"
            )

    def _refuse_mixtures(self) -> None:
        """Combinations that no counted model has."""
        if self.residual != "sequential" and self.norm_placement != "pre":
            raise ValueError('a parallel residual is counted with norm_placement = "pre" only')
        if self.moe is not None and self.residual != "sequential":
            raise ValueError("a mixture of experts is counted with a sequential residual only")
        if self.moe is not None and self.mlp == "gelu-written-out":
            raise ValueError("a mixture of experts is counted with a GELU of one kernel only")
        if self.moe is not None and self.layers // (self.moe.every or 1) <= self.moe.first_dense_layers // (
            self.moe.every or 1
        ):
            raise ValueError("first_dense_layers leaves no block with experts")
        mla = self.mla
        if mla is None:
            return
        if self.position != "rotary" or self.rotary_dim is not None or self.qk_norm != "none":
            raise ValueError("latent attention has its own rotary channels and norms: leave rotary_dim and qk_norm out")
        if self.head_dim != mla.qk_nope_head_dim + mla.qk_rope_head_dim or self.kv_heads != self.heads:
            raise ValueError(
                "under latent attention head_dim is qk_nope_head_dim + qk_rope_head_dim, and kv_heads equals heads"
            )
        if self.attention_sinks:
            raise ValueError("latent attention is counted without attention_sinks only")
        if self.biases not in ("none",):
            raise ValueError('latent attention is counted with biases = "none" only')

    @property
    def rope_dim(self) -> int:
        """Channels of a head that rotary embedding turns."""
        if self.mla is not None:
            return self.mla.qk_rope_head_dim
        return self.head_dim if self.rotary_dim is None else self.rotary_dim
