"""Model types that are not read, and why; and the text model inside a multimodal config."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from planner.errors import InputError, UnknownNameError
from planner.inputs.huggingface.reading import MAY_BE_LONG

_HYBRID = "some of its layers are no attention: a state space, a convolution or a recurrence"
_ENCODER = "it is an encoder, or an encoder and a decoder, and this program counts decoders"
_OWN = "its blocks have parts that are not counted"
OTHER_KINDS: dict[str, str] = (
    dict.fromkeys(
        ("mamba", "mamba2", "falcon_mamba", "jamba", "bamba", "zamba", "zamba2", "falcon_h1", "qwen3_next", "lfm2",
         "lfm2_moe", "nemotron_h", "granitemoehybrid", "recurrent_gemma", "rwkv", "minimax", "olmo_hybrid",
         "kimi_linear", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "xlstm", "bailing_hybrid", "plamo2"),
        _HYBRID,
    )
    | dict.fromkeys(
        ("bert", "roberta", "distilbert", "albert", "electra", "deberta", "deberta-v2", "xlm-roberta", "modernbert",
         "nomic_bert", "eurobert", "t5", "mt5", "umt5", "longt5", "t5gemma", "bart", "mbart", "pegasus", "marian",
         "m2m_100", "led", "blenderbot", "whisper", "switch_transformers", "encoder-decoder", "xlnet", "ernie",
         "mpnet", "luke"),
        _ENCODER,
    )
    | dict.fromkeys(("gemma3n", "gemma3n_text", "gemma4", "gemma4_text", "deepseek_v32", "deepseek_v4", 
                     "apertus", "diffllama", "doge", "bitnet", "longcat_flash"), _OWN)
)  # fmt: skip
# multimodal types whose text_config is one of ours, and the class that their files name
MULTIMODAL = {
    "gemma3": "Gemma3ForConditionalGeneration",
    "llama4": "Llama4ForConditionalGeneration",
    "mistral3": "Mistral3ForConditionalGeneration",
    "llava": "LlavaForConditionalGeneration",
    "llava_next": "LlavaNextForConditionalGeneration",
    "idefics3": "Idefics3ForConditionalGeneration",
    "smolvlm": "SmolVLMForConditionalGeneration",
}
TIED = "tie_word_embeddings"


def refuse_kind(kind: object, outer: object, known: Iterable[str], path: Path) -> InputError:
    """The refusal of a model type, to be raised; `outer` is the file's own, `kind` perhaps that of its text model."""
    why = OTHER_KINDS.get(kind) if isinstance(kind, str) else None
    if why is None and isinstance(outer, str) and outer in MULTIMODAL:
        return UnknownNameError(f"model_type of text_config in a {outer} file:", str(kind)[:MAY_BE_LONG], known)
    if why is None:
        return UnknownNameError("Hugging Face model_type", str(kind)[:MAY_BE_LONG], known)
    return InputError(
        f"{path}: model_type {kind} is not counted",
        why=why,
        remedy="give the config.json of a decoder whose blocks are attention and MLP",
    )


def text_values(values: dict[str, Any], path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The config of the language model in a multimodal one, and the keys of the parts that are left out.

    The values themselves for any other type. Raises InputError for a class that is not the type's own.
    """
    outer = values["model_type"]
    text = values.get("text_config")
    if outer not in MULTIMODAL or not isinstance(text, dict):
        return values, ()
    named = values.get("architectures") or [MULTIMODAL[outer]]
    if named != [MULTIMODAL[outer]] or values.get("auto_map"):
        raise InputError(
            f"{path}: architectures = {str(named)[:MAY_BE_LONG]} is not counted",
            why=f"it is not the class of a {outer} model ({MULTIMODAL[outer]}), or has code of its own",
            remedy="give the config.json of its language model",
        )
    both = [v[TIED] for v in (values, text) if v.get(TIED) is not None]
    if len(both) == 2 and both[0] != both[1]:
        raise InputError(
            f"{path}: {TIED} is {both[0]}, and {both[1]} in text_config",
            why="the output head is counted by it",
            remedy="write the same in both places",
        )
    inner = {**text, TIED: both[0]} if both else dict(text)
    inner.pop("architectures", None)
    return inner, tuple(sorted(k for k in values if k.endswith("_config") and k != "text_config" and values[k]))
