"""Exported checkpoints: the config is read back to the same model, and transformers computes the same logits."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from planner.analysis.stored_weights import stored_of
from planner.config.model import ModelConfig
from planner.config.rope import RopeScalingConfig
from planner.config.run import RunConfig
from planner.errors import CheckpointError, FileError, InputError
from planner.exports.huggingface import TARGETS, hf_type
from planner.inputs.huggingface import model_from_hf
from planner.inputs.safetensors import stored_tensors
from reference_trainer.checkpoint.checkpoint import save, state_of
from reference_trainer.checkpoint.export import export
from reference_trainer.measure.measure import build_model
from reference_trainer.optim.updater import make_optimizer
from tests.reference_trainer.harm import cut, names, rewrite_manifest

MakeConfig = Callable[..., RunConfig]
LLAMA: dict[str, Any] = {
    "position": "rotary", "norm": "rmsnorm", "norm_parameters": "gain", "mlp": "swiglu", "biases": "none",
    "kv_heads": 1, "tied_embeddings": False,
}  # fmt: skip
NEOX: dict[str, Any] = {"position": "rotary", "rotary_dim": 4, "residual": "parallel", "tied_embeddings": False}
LLAMA_3: dict[str, Any] = {
    "kind": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_context": 24,
}  # fmt: skip
YARN: dict[str, Any] = {
    "kind": "yarn", "factor": 4.0, "original_context": 24, "beta_fast": 3.0, "beta_slow": 0.5,
}  # fmt: skip
YARN_EXACT = YARN | {"truncate": False, "mscale": 0.7, "mscale_all_dim": 0.2}
LONGROPE: dict[str, Any] = {
    "kind": "longrope", "factor": 4.0, "original_context": 19,
    "short_factor": (1.0, 1.1, 1.3, 2.0, 2.5, 3.0, 4.0, 5.0), "long_factor": (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0),
}  # fmt: skip
DYNAMIC = LLAMA | {"sliding_window": 9, "context": 16, "rope_scaling": {"kind": "dynamic", "factor": 4.0}}
OLMO = LLAMA | {"norm_placement": "post", "qk_norm": "full"}
TWO_BASES = OLMO | {"rope_base": 500.0, "local_rope_base": 10.0, "sliding_window": 15, "full_attention_every": 2}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {}),
    "gpt2 untied, relu": ("gpt2", {"tied_embeddings": False, "mlp": "relu", "ffn": 48}),
    "gpt2, squared relu": ("gpt2", {"mlp": "relu2"}),
    "neox": ("gpt_neox", NEOX),
    "neox sequential, all turned": ("gpt_neox", NEOX | {"residual": "sequential", "rotary_dim": None}),
    "neox, a sixth turned": ("gpt_neox", NEOX | {"heads": 1, "kv_heads": 1, "head_dim": 32, "rotary_dim": 6}),
    "llama": ("llama", LLAMA),
    "llama tied, wide heads": ("llama", LLAMA | {"tied_embeddings": True, "head_dim": 24}),
    "llama with biases": ("llama", LLAMA | {"biases": "all", "mlp": "geglu"}),
    "llama with attention biases": ("llama", LLAMA | {"biases": "attention"}),
    "mistral": ("mistral", LLAMA | {"sliding_window": 5}),
    "qwen2": ("qwen2", LLAMA | {"biases": "qkv"}),
    "qwen2 window": ("qwen2", LLAMA | {"biases": "qkv", "sliding_window": 5, "full_attention_every": 2}),
    "qwen3": ("qwen3", LLAMA | {"qk_norm": "head", "head_dim": 24, "tied_embeddings": True}),
    "qwen3 biased, window": ("qwen3", LLAMA | {"qk_norm": "head", "biases": "attention", "sliding_window": 5}),
    "gpt2, another epsilon": ("gpt2", {"norm_eps": 1e-2}),
    "neox, another base and epsilon": ("gpt_neox", NEOX | {"rope_base": 500.0, "norm_eps": 1e-2}),
    "llama, drawn narrower": ("llama", LLAMA | {"init_std": 0.006}),
    "llama 3": ("llama", LLAMA | {"rope_base": 500_000.0, "norm_eps": 1e-2}),
    "llama 3.1": ("llama", LLAMA | {"rope_base": 50.0, "rope_scaling": LLAMA_3}),
    "linear scaling": ("llama", LLAMA | {"rope_scaling": {"kind": "linear", "factor": 3.0}}),
    "neox, linear scaling": ("gpt_neox", NEOX | {"rope_scaling": {"kind": "linear", "factor": 3.0}}),
    "qwen2.5": ("qwen2", LLAMA | {"biases": "qkv", "rope_base": 1e6, "norm_eps": 1e-3}),
    "qwen3, own constants": ("qwen3", LLAMA | {"qk_norm": "head", "rope_base": 1e6, "norm_eps": 1e-2}),
    "mistral, scaled": ("mistral", LLAMA | {"sliding_window": 9, "rope_base": 50.0, "rope_scaling": LLAMA_3}),
    "yarn": ("llama", LLAMA | {"context": 96, "rope_scaling": YARN}),
    "yarn, by exact channels": ("qwen3", LLAMA | {"qk_norm": "head", "head_dim": 24, "rope_scaling": YARN_EXACT}),
    "yarn, neox": ("gpt_neox", NEOX | {"rope_scaling": {"kind": "yarn", "factor": 4.0, "original_context": 8}}),
    "dynamic, beyond its context": ("mistral", DYNAMIC),
    "longrope, short": ("llama", LLAMA | {"rope_scaling": LONGROPE | {"original_context": 20}}),
    "longrope, long": ("qwen2", LLAMA | {"biases": "qkv", "rope_scaling": LONGROPE}),
    "longrope, its own factor": ("llama", LLAMA | {"rope_scaling": LONGROPE | {"attention_factor": 1.7}}),
    "olmo2": ("olmo2", OLMO),
    "olmo3": ("olmo3", OLMO | {"sliding_window": 5, "full_attention_every": 2}),
    "olmo3, two bases": ("olmo3", TWO_BASES),
    "olmo3, scaled where all keys are seen": ("olmo3", TWO_BASES | {"rope_scaling": YARN}),
    "padded vocabulary": ("llama", LLAMA | {"vocab": 256, "tokenizer_vocab": 250}),
}


def config_for(tiny: MakeConfig, options: dict[str, Any]) -> RunConfig:
    """The tiny run with a model of these options."""
    scaling = options.get("rope_scaling")
    return tiny(**options | ({} if scaling is None else {"rope_scaling": RopeScalingConfig(**scaling)}))


def saved(config: RunConfig, folder: Path) -> tuple[Path, Any]:
    """A checkpoint of weights none of which is 0 or 1, and its model."""
    torch.manual_seed(3)
    model = build_model(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.randn_like(p) * 0.3 + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
    updater = make_optimizer(model, config)
    return save(folder / "run/checkpoints", updater, state_of(config, "data", 2, 256)), model


@pytest.mark.parametrize("case", CASES)
def test_the_config_is_read_back_to_the_same_model(tiny: MakeConfig, tmp_path: Path, case: str) -> None:
    kind, options = CASES[case]
    config = config_for(tiny, options)
    path, model = saved(config, tmp_path)
    done = export(path, tmp_path / "out", print)
    assert (done.model_type, done.step, done.dtype) == (kind, 2, "float32")
    assert names(tmp_path / "out") == ["config.json", "model.safetensors"] and names(tmp_path) == ["out", "run"]
    assert {oct(file.stat().st_mode & 0o777) for file in (tmp_path / "out").iterdir()} == {"0o644"}
    # how the weights were drawn is no key there: each type has a rule of its own for projections into the residual
    words = {"name": "", "source": "", "tokenizer_vocab": None, "init_residual": "scaled"}
    read = model_from_hf(tmp_path / "out/config.json").model_copy(update=words)
    assert read == config.model.model_copy(update=words)
    assert done.parameters == sum(p.numel() for p in model.parameters())
    assert stored_of(stored_tensors(tmp_path / "out/model.safetensors")).blocks == 2
    assert done.padding_rows == (6 if case == "padded vocabulary" else 0)


@pytest.mark.parametrize("case", CASES)
def test_transformers_computes_the_same_logits(tiny: MakeConfig, tmp_path: Path, case: str) -> None:
    """In fp32 on a CPU, "eager" attention: seen with transformers 5.23.0 and PyTorch 2.13.0."""
    transformers = pytest.importorskip("transformers")
    config = config_for(tiny, CASES[case][1])
    path, model = saved(config, tmp_path)
    export(path, tmp_path / "out", print)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs, loading = transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path / "out", output_loading_info=True, attn_implementation="eager"
        )
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), loading
    ids = torch.randint(0, 250, (3, 20), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        ours, other = model.eval().logits(ids), theirs.eval()(ids).logits
    assert other.dtype == torch.float32 and ours.std() > 0.3
    torch.testing.assert_close(other, ours, rtol=1e-5, atol=1e-5 * float(ours.abs().max()))
    for option in (
        "rope_base",
        "norm_eps",
        "rope_scaling",
        "local_rope_base",
    ):  # what differs from the default is seen in the logits
        field = ModelConfig.model_fields[option]
        if getattr(config.model, option) != field.default:
            usual = config.model_copy(update={"model": config.model.model_copy(update={option: field.default})})
            plain = build_model(usual)
            plain.load_state_dict(model.state_dict())
            with torch.no_grad():
                assert float((plain.eval().logits(ids) - other).abs().max()) > 1e-2, option
    moved = ids.clone()
    moved[:, 10] += 1  # the comparison sees a difference in one token
    with torch.no_grad():
        assert float((model.logits(moved) - other).abs().max()) > 1e-2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"position": "alibi"}, "model.position = alibi"),
        (LLAMA | {"mlp": "relu2"}, "model.mlp = relu2"),
        (LLAMA | {"qk_norm": "full"}, "model.qk_norm = full"),
        (LLAMA | {"logit_softcap": 30.0}, "model.logit_softcap = 30.0"),
        (LLAMA | {"norm_placement": "both"}, "model.norm_placement = both"),
        (LLAMA | {"sliding_window": 5, "full_attention_every": 2}, "model.full_attention_every = 2"),
        ({"head_dim": 24}, "model.head_dim = 24"),
        (LLAMA | {"rope_scaling": {"kind": "longrope", "factor": 4.0}}, "model.rope_scaling.kind = longrope"),
        ({"kv_heads": 1}, "model.kv_heads = 1"),
        ({"embedding_norm": True}, "model.embedding_norm = True"),
        ({"norm_parameters": "gain"}, "model.norm_parameters = gain"),
    ],
)
def test_what_no_type_has_is_refused_by_name(
    tiny: MakeConfig, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    config = config_for(tiny, options)
    with pytest.raises(InputError, match="no Hugging Face model type") as caught:
        hf_type(config.model)
    assert words in caught.value.why
    assert caught.value.why.count("model.") == caught.value.why.count("for ")  # one option for each nearest type
    path, _ = saved(config, tmp_path)
    with pytest.raises(InputError):
        export(path, tmp_path / "out", print)
    assert names(tmp_path) == ["run"]


def test_every_type_is_among_the_cases() -> None:
    assert {kind for kind, _ in CASES.values()} == set(TARGETS)


def test_a_run_gives_its_newest_whole_checkpoint(tiny: MakeConfig, tmp_path: Path) -> None:
    path, _ = saved(tiny(), tmp_path)
    later = path.with_name("step-00000004")
    later.mkdir()
    said: list[str] = []
    assert export(tmp_path / "run", tmp_path / "deep/out", said.append).step == 2
    assert "step-00000004 is damaged" in said[0]


def test_what_cannot_be_exported_leaves_no_trace(tiny: MakeConfig, tmp_path: Path) -> None:
    path, _ = saved(tiny(), tmp_path)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "file").write_text("mine")
    for out in (mine, mine / "file"):
        with pytest.raises(FileError, match="exists already"):
            export(path, out, print)
    with pytest.raises(FileError, match="cannot be written"):
        export(path, mine / "file" / "out", print)
    with pytest.raises(FileError, match="holds no checkpoint"):
        export(mine, tmp_path / "out", print)
    weights = load_file(path / "model.safetensors")
    weights["norm.weight"][0] = torch.nan
    save_file(weights, path / "model.safetensors")
    with pytest.raises(CheckpointError, match="is damaged"):
        export(path, tmp_path / "out", print)
    rewrite_manifest(path)
    with pytest.raises(CheckpointError, match=r"norm\.weight is not finite"):
        export(path, tmp_path / "out", print)
    cut(path / "model.safetensors")
    rewrite_manifest(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        export(path, tmp_path / "out", print)
    assert names(tmp_path) == ["mine", "run"] and names(mine) == ["file"]


def test_narrow_weights_stay_narrow(tiny: MakeConfig, tmp_path: Path) -> None:
    path, _ = saved(tiny(recipe="pure-bf16"), tmp_path)
    assert export(path, tmp_path / "out", print).dtype == "bfloat16"
    assert json.loads((tmp_path / "out/config.json").read_text())["torch_dtype"] == "bfloat16"
