"""The module that torchtitan imports, around the numbers of a run."""

MODULE_TEXT = '''\
"""A run of torchtitan: --module gptplan_torchtitan --config run. Numbers stand in RUN; the rest builds its config."""

from functools import partial

import torch.nn as nn
from torchtitan.components.checkpoint import CheckpointManager
from torchtitan.components.loss import ChunkedLossWrapper, CrossEntropyLoss
from torchtitan.components.metrics import MetricsProcessor
from torchtitan.components.optimizer import (
    LRSchedulersContainer,
    OptimizersContainer,
    ParamGroupConfig,
    register_moe_load_balancing_hook,
)
from torchtitan.components.validate import Validator
from torchtitan.config import CompileConfig, DebugConfig, ParallelismConfig, TrainingConfig
from torchtitan.distributed.activation_checkpoint import FullAC
from torchtitan.distributed.pipeline_parallel import pipeline_llm
from torchtitan.hf_datasets.text_datasets import HuggingFaceTextDataLoader
from torchtitan.models.common import CosSinRoPE, Embedding, Linear
from torchtitan.models.common.config_utils import (
    get_attention_config,
    make_ffn_config,
    make_gqa_config,
    make_moe_config,
    make_routed_experts_config,
    make_router_config,
)
from torchtitan.models.common.nn_modules import RMSNorm
from torchtitan.models.common.param_init import skip_param_init
from torchtitan.models.qwen3 import parallelize_qwen3
from torchtitan.models.qwen3.model import Qwen3Model, Qwen3TransformerBlock
from torchtitan.models.qwen3.state_dict_adapter import Qwen3StateDictAdapter
from torchtitan.protocols.model_spec import ModelSpec
from torchtitan.trainer import Trainer

RUN = @RUN@

M = RUN["model"]
_normal = partial(nn.init.normal_, std=M["init_std"])
_output = partial(nn.init.normal_, std=M["init_std"] / ((2 * M["layers"]) ** 0.5 if M["scaled_residual"] else 1.0))
MATRIX, OUTPUT = {"weight": _normal}, {"weight": _output}


def norm(dim):
    return RMSNorm.Config(normalized_shape=dim, eps=M["eps"], param_init={"weight": nn.init.ones_})


def feed_forward(hidden_dim):
    made = make_ffn_config(dim=M["dim"], hidden_dim=hidden_dim, w1_param_init=MATRIX, w2w3_param_init=MATRIX)
    made.w2.param_init = OUTPUT
    return made


def experts():
    moe = M["moe"]
    return make_moe_config(
        num_experts=moe["num_experts"],
        router=make_router_config(
            dim=M["dim"],
            num_experts=moe["num_experts"],
            gate_param_init=MATRIX,
            top_k=moe["top_k"],
            score_func="softmax",
            route_norm=True,
        ),
        routed_experts=make_routed_experts_config(
            dim=M["dim"],
            hidden_dim=moe["hidden_dim"],
            num_experts=moe["num_experts"],
            top_k=moe["top_k"],
            param_init={"w1_EFD": _normal, "w2_EDF": _output, "w3_EFD": _normal},
            comm_backend="standard",
        ),
        shared_experts=feed_forward(moe["shared_dim"]) if moe["shared_dim"] else None,
        load_balance_coeff=moe["load_balance_coeff"],
    )


def block(index):
    sparse = M["moe"] is not None and index >= M["moe"]["first_dense_layers"]
    mlp = {"moe": experts()} if sparse else {"feed_forward": feed_forward(M["hidden_dim"])}
    attention = make_gqa_config(
        dim=M["dim"],
        n_heads=M["n_heads"],
        n_kv_heads=M["n_kv_heads"],
        head_dim=M["head_dim"],
        wqkv_param_init=MATRIX,
        wo_param_init=OUTPUT,
        inner_attention=get_attention_config(M["attention"]),
        fuse_qkv=True,
        rope=CosSinRoPE.Config(dim=M["head_dim"], max_seq_len=M["max_seq_len"], theta=M["theta"]),
        qk_norm=norm(M["head_dim"]) if M["qk_norm"] else None,
    )
    return Qwen3TransformerBlock.Config(
        attention_norm=norm(M["dim"]), ffn_norm=norm(M["dim"]), attention=attention, **mlp
    )


def model():
    tied = M["enable_weight_tying"]
    return Qwen3Model.Config(
        dim=M["dim"],
        vocab_size=M["vocab_size"],
        enable_weight_tying=tied,
        norm=norm(M["dim"]),
        tok_embeddings=Embedding.Config(
            num_embeddings=M["vocab_size"],
            embedding_dim=M["dim"],
            param_init={"weight": skip_param_init if tied else _normal},
        ),
        lm_head=Linear.Config(in_features=M["dim"], out_features=M["vocab_size"], param_init=MATRIX),
        layers=[block(index) for index in range(M["layers"])],
    )


def adamw(pattern, **changed):
    values = {**RUN["optimizer"], **changed}
    values["betas"] = tuple(values["betas"])
    return ParamGroupConfig(pattern=pattern, optimizer_name="AdamW", optimizer_kwargs=values)


def run():
    spec = ModelSpec(
        name="qwen3",
        flavor=M["name"],
        model=model(),
        parallelize_fn=parallelize_qwen3,
        pipelining_fn=pipeline_llm,
        post_optimizer_build_fn=register_moe_load_balancing_hook,
        state_dict_adapter=Qwen3StateDictAdapter,
    )
    loss = CrossEntropyLoss.Config(global_vocab_size=M["vocab_size"])
    training = {**RUN["training"], "max_norm": RUN["training"]["max_norm"] or float("inf")}
    return Trainer.Config(
        model_spec=spec,
        loss=ChunkedLossWrapper.Config(loss_fn=loss, num_chunks=RUN["loss_chunks"]) if RUN["loss_chunks"] else loss,
        optimizer=OptimizersContainer.Config(
            param_groups=[adamw(r"norm", weight_decay=0.0), adamw(r".*")],
            implementation=RUN["implementation"],
        ),
        lr_scheduler=LRSchedulersContainer.Config(**RUN["lr_scheduler"]),
        training=TrainingConfig(**training),
        parallelism=ParallelismConfig(**RUN["parallelism"]),
        checkpoint=CheckpointManager.Config(**RUN["checkpoint"]),
        activation_checkpoint=FullAC.Config() if RUN["full_checkpointing"] else None,
        compile=CompileConfig(enable=RUN["compile"]),
        metrics=MetricsProcessor.Config(log_freq=10),
        validator=Validator.Config(**RUN["validator"]),
        debug=DebugConfig(seed=RUN["seed"]),
        dataloader=HuggingFaceTextDataLoader.Config(dataset="c4"),
    )
'''
