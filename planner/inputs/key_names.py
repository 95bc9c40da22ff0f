"""What a wrong name was meant to be: keys of run.toml beside their flags, and each where the other was written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from planner.config.options import BY_KEY, MODEL, OPTION, OPTIONS, Option, ended_by
from planner.config.resume import keys_of_a_config
from planner.errors import nearest

SECTION_KEYS = tuple(dict.fromkeys((*keys_of_a_config(), *BY_KEY)))  # section.key of every key in a config

# options without a key of their own, where the table does not say what they set
SETS = {
    "pad_vocab": "model.vocab",
    "norm_bias": "model.norm_parameters",
    "profile": "the profile beside run.toml, and hardware.gpu where nothing else does",
    "nodes": "hardware.gpus",
    "dp": "hardware.gpus",
    "momentum": "optimizer.momentum of muon and optimizer.beta1 of sgd",
}


def with_flag(key: str) -> str:
    """`training.attention_kernel (--attention)`; the key alone where it has no flag."""
    option = BY_KEY.get(key)
    return f"{key} ({option.flag})" if option else key


def flags_named(text: str, section: str) -> list[str]:
    """`kv_heads (--kv-heads)` for each key of the section that stands in `text` and has a flag; "": of any section."""
    words = dict.fromkeys(re.findall(r"[a-z][a-z0-9_]*", text))
    found = [BY_KEY.get(f"{section}.{word}") for word in words] if section else [_of_any(word) for word in words]
    return [f"{o.key.rpartition('.')[2]} ({o.flag})" for o in found if o is not None]


def _of_any(word: str) -> Option | None:
    same = [option for option in OPTIONS if option.key.rpartition(".")[2] == word]
    return same[0] if len(same) == 1 else None


def meant_by_key(name: str, section: str, known: Iterable[str]) -> str:
    """What an unknown key of a section was meant to be, as a sentence; "" where nothing is near.

    section: dotted name, "" for the file itself. known: the keys that the section has.
    """
    word, known = _plain(name), list(known)
    if word in known:
        return f"did you mean {word}?"
    option = OPTION.get(word)
    if option is not None and option.key:
        own, _, key = option.key.rpartition(".")
        where = key if own == section else f"{key} under [{own}]"
        return f"did you mean {where}? The flag {option.flag} sets {option.key}"
    if option is not None:
        return f"{option.flag} is a flag and no key: it sets {_set_by(option)}"
    elsewhere = [key for key in SECTION_KEYS if "." in key and key.rpartition(".")[2] == word]
    if elsewhere:
        places = " or ".join(f"{key.rpartition('.')[2]} under [{key.rpartition('.')[0]}]" for key in elsewhere)
        return f"did you mean {places}?"
    here = {o.name: o.key.rpartition(".")[2] for o in OPTIONS if o.key.rpartition(".")[0] == section}
    close = [here.get(found, found) for found in nearest(word, [*known, *here])]
    return f"did you mean {' or '.join(dict.fromkeys(close))}?" if close else ""


def meant_by_flag(name: str, spell: Callable[[Option], str], no_flag: str) -> str:
    """What an unknown flag or keyword was meant to be if it is a key of run.toml; "" if it is none.

    spell: how an option is given. no_flag: what to do about a key that is no option.
    """
    word = _plain(name)
    keys = [key for key in SECTION_KEYS if "." in key and word in (key.rpartition(".")[2], key.replace(".", "_"), key)]
    if not keys or word in OPTION:
        return ""
    options = [BY_KEY[key] for key in keys if key in BY_KEY]
    if options:
        return " or ".join(f"write {spell(option)} for {option.key}" for option in options)
    return f"{' and '.join(keys)} can be set in run.toml only: {no_flag}"


def _set_by(option: Option) -> str:
    if option.name in SETS:
        return SETS[option.name]
    if option.panel == MODEL:
        return "several keys of [model]"
    keys = [OPTION[name].key for name in ended_by(option.name) if name in OPTION and OPTION[name].key]
    return keys[0] if keys else "several keys"


def _plain(name: str) -> str:
    return name.lstrip("-").replace("-", "_").lower()
