"""Makes presets/rules/huggingface.toml: what transformers itself says of every model_type that is read.

Run where transformers and torch are installed, neither of which the tests need: `python make_hf_types.py`. Per type:
the classes of its language model and of the model without a head, other names of its keys, its keys and their defaults.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import transformers
from make_hf_numels import CASES
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_MAPPING_NAMES

OUT = Path(__file__).parents[3] / "presets" / "rules" / "huggingface.toml"


def own_defaults(kind: str) -> dict[str, Any]:
    """The defaults that a type's own class states, before anything is derived from others; None is left out."""
    cls = CONFIG_MAPPING[kind]
    base = {f.name for f in dataclasses.fields(transformers.PreTrainedConfig)}
    fields = [f for f in dataclasses.fields(cls) if f.name not in base or f.name == "tie_word_embeddings"]
    found = {f.name: getattr(cls, f.name, None) for f in fields}
    return {k: v for k, v in sorted(found.items()) if isinstance(v, bool | int | float | str)}


def toml(value: Any) -> str:
    """A value as TOML; JSON says these alike."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {toml(v)}" for k, v in value.items()) + " }" if value else "{}"
    return json.dumps(value)


def main() -> None:
    """Write the file."""
    shared = set(transformers.PreTrainedConfig().to_dict())
    lines = [
        'as_of = "2026-11-21"',
        f'source = "configuration classes of transformers {transformers.__version__}, read by make_hf_types.py"',
        "# per type: classes of the language model; the model without a head; other names of keys (transformers'",
        "# attribute_map); what a key has where the file has none; and the keys that the type has beside those",
        f"shared_keys = {toml(sorted(shared))}",
        "",
        "[type]",
        f'source = "transformers {transformers.__version__}, configuration_*.py and modeling_auto.py"',
    ]
    for kind in CASES:
        cls, causal = CONFIG_MAPPING[kind], MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]
        defaults = own_defaults(kind)
        every = set(json.loads(cls().to_json_string(use_diff=False))) - set(defaults) - shared
        lines += [
            "",
            f"[type.{kind}]",
            f'classes = ["{causal}"]',
            f'headless = ["{MODEL_MAPPING_NAMES[kind]}"]',
            f"names = {toml(dict(cls.attribute_map))}",
            f"defaults = {toml(defaults)}",
            f"keys = {toml(sorted(every))}",
        ]
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
