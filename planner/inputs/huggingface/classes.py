"""Which files of a known model_type are counted: by their class, and by keys that name tensors we do not read.

A model_type says which code reads a config, not which tensors the weights have: custom classes keep the name of the
type that they started from. The classes and keys of transformers itself stand in presets/rules/huggingface.toml.
"""

from __future__ import annotations

import re
from typing import Any

from planner.errors import InputError
from planner.inputs.huggingface.reading import MAY_BE_LONG, HfConfig

# other names of the same class: conversions of the first LLaMA; code published by MosaicML and by Microsoft
PUBLISHED_CLASSES = {"llama": ("LLaMAForCausalLM",), "mpt": ("MPTForCausalLM",), "phimoe": ("PhiMoEForCausalLM",)}
# names that published files have for a key of their type beside transformers' own
PUBLISHED_NAMES = {"gpt_oss": {"experts_per_token": "num_experts_per_tok"}}
_ANY = object()
# keys in published files of these types that speak of tensors and name none: the values with which they do not. The
# module for multi-token prediction is not counted, as in other types
PUBLISHED_VALUES: dict[str, dict[str, Any]] = {
    "cohere": {"use_embedding_sharing": True, "use_gated_activation": True},
    "cohere2": {"use_embedding_sharing": True, "use_gated_activation": True},
    "dots1": {"moe_layer_freq": 1},
    "ernie4_5": {"num_nextn_predict_layers": _ANY},
    "ernie4_5_moe": {
        "moe_capacity": _ANY, "moe_gate": "topk", "moe_gate_act": _ANY, "moe_use_aux_free": _ANY,
        "num_nextn_predict_layers": _ANY,
    },
    "hunyuan_v1_dense": {"cla_share_factor": _ANY, "num_experts": 1, "num_shared_expert": _ANY, "moe_topk": _ANY},
}  # fmt: skip
# keys without which those of the same type mean nothing, or which switch them on
SWITCHES = {"hunyuan_v1_dense": {"use_cla": (None, False), "num_experts": (None, 1)}}
CAUSAL, HEADLESS = "AutoModelForCausalLM", "AutoModel"
LAYERS = ("full_attention", "sliding_attention", "chunked_attention")
# words in the names of keys that come with other tensors, where the model type does not read the key
OTHER_TENSORS = re.compile(
    r"draft|medusa|eagle|hydra|specul|lora|adapter|head_type|multi_?query|experts?(_|$)|moe|(^|_)mtp(_|$)|nextn"
    r"|mamba|ssm|conv(_|$)|linear_attention|rwkv|cross_attention|bias(es)?(_|$)|qk_?(layer)?_?norm|qk_ln|sinks?(_|$)"
    r"|(^|_)gat(e|ed|ing)(_|$)|future_tokens|hyper_conn|^index_(topk|n_heads|head_dim)"
    r"|per_layer|altup|laurel|memory|shar(e|ed|ing)(_|$)|value_residual|prefix_(lm|projection)|embed_proj|embedding_size|head_hidden"
)
NOT_TENSORS = re.compile(
    r"^no_|initiali|dropout|_loss|loss_|alibi_bias|router_(aux|jitter|z)|output_router|skip_bias_add|scale_|_fp32|^_|num_labels"
)
# keys of older versions and of other tools, of which no count depends
HARMLESS = re.compile(
    r"^_|token|tokenizer|transformers|dtype|use_cache|auto_map|quantiz|rope|rotary_emb|unsloth|drop|pdrop|init|return_"
    r"|output_|generat|sampl|temperature|top_[kp]|beam|penalty|ngram|max_length|min_length|task_specific|checkpointing"
    r"|tie_|pretraining_tp|eps(ilon)?$|attn_impl|flash|loss|label|problem_type|torchscript|bfloat16|pruned|bad_words"
    r"|suppress|typical_p|finetuning|prefix$|gptplan|summary|softmax|fusion|slow_but_exact|offset_alibi|n_ctx|seq_length"
    r"|cache_impl|is_decoder|scale_|reorder|cuda|kernel|causal|bos|eos|pad_|sep_|license|version|_name"
)


def refuse_other_class(c: HfConfig, kind: str, known: dict[str, Any], tied: bool) -> None:
    """Raise InputError unless the file names a class that is counted, or none.

    tied: the head is the embedding table, so that the class without a head has the same tensors.
    """
    classes = [*known["classes"], *PUBLISHED_CLASSES.get(kind, ())]
    counted = classes + (known["headless"] if tied else [])
    for key, name in _named_classes(c):
        if name in counted or (key == f"auto_map.{HEADLESS}" and name in known["headless"]):
            continue
        why = f"{name} is not the class of a {kind} language model ({' or '.join(classes)}): it may have other tensors"
        if name in known["headless"]:
            why = f"{name} has no output head, and that of {classes[0]} is a table of its own"
        raise InputError(
            f"{c.path}: {key} = {name} is not counted",
            why=why,
            remedy=f"if its tensors are those of {classes[0]}, write that name there, and check the count against the "
            "weights with --safetensors model.safetensors",
        )


def _named_classes(c: HfConfig) -> list[tuple[str, str]]:
    """Key and name of each class that the file asks for. Raises InputError for a value that names none."""
    found = []
    architectures = c.get("architectures", [])
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise c.unsupported("architectures", "a list with the name of a class")
    found += [("architectures", name[:MAY_BE_LONG]) for name in architectures]
    own = c.get("auto_map", {})
    if not isinstance(own, dict):
        raise c.unsupported("auto_map", "an object of classes")
    for key in (CAUSAL, HEADLESS):
        code = own.get(key)
        if isinstance(code, str):
            found.append((f"auto_map.{key}", code.rpartition(".")[2][:MAY_BE_LONG]))
        elif code is not None:
            raise c.unsupported("auto_map", f"the name of a class under {key}")
    return found


def refuse_other_tensors(c: HfConfig, kind: str, known: dict[str, Any]) -> None:
    """Raise InputError for pruned heads, layers that are no attention, and unread keys whose name speaks of tensors."""
    c.only("pruned_heads", {}, ({},))
    types = c.values.get("layer_types") or []  # not read here, where no family has read it
    if not isinstance(types, list) or any(kind not in LAYERS for kind in types):
        raise c.unsupported("layer_types", "one of full_attention, sliding_attention for each layer")
    for key in unread_keys(c, known):
        speaks_of_tensors = OTHER_TENSORS.search(key) and not NOT_TENSORS.search(key)
        if speaks_of_tensors and not _is_harmless(c, kind, key) and c.values[key] not in (None, False, 0, "", [], {}):
            raise InputError(
                f"{c.path}: {key} = {repr(c.values[key])[:MAY_BE_LONG]} is not counted",
                why=f"a {kind} model has no such key: its parameters may be others",
                remedy="if it changes no tensor, take it out of the file, and check the count against the weights with "
                "--safetensors model.safetensors",
            )


def _is_harmless(c: HfConfig, kind: str, key: str) -> bool:
    """Whether a key of published files of a type has the value, and its switches, with which it names no tensor."""
    harmless = PUBLISHED_VALUES.get(kind, {})
    switches = SWITCHES.get(kind, {})
    if key not in harmless or any(c.values.get(switch) not in off for switch, off in switches.items()):
        return False
    return harmless[key] is _ANY or c.values[key] == harmless[key]


def unread_keys(c: HfConfig, known: dict[str, Any]) -> list[str]:
    """The keys of a file that neither its type in transformers nor the reader knows."""
    names = {*known["defaults"], *known["keys"], *known["names"], *c.read}
    return sorted(key for key in c.values if key not in names)


def unusual_keys(c: HfConfig, known: dict[str, Any]) -> list[str]:
    """Of the unread keys those that no tool or older version is known to write."""
    return [key for key in unread_keys(c, known) if not HARMLESS.search(key) and c.values[key] not in (None, False)]


def canonical(c: HfConfig, names: dict[str, str]) -> HfConfig:
    """The same config with other names of a key (transformers' attribute_map) under the key. Raises InputError."""
    values = dict(c.values)
    for other, key in names.items():
        if values.get(other) is None:
            continue
        if values.get(key) not in (None, values[other]):
            first, second = (repr(values[name])[:MAY_BE_LONG] for name in (key, other))
            raise InputError(
                f"{c.path}: {key} = {first} and {other} = {second} contradict each other",
                why="both name the same size",
                remedy="take the wrong one out",
            )
        values[key] = values[other]
    return c.changed(**values)
