"""Reads what was exported for nanoGPT with the checkout that NANOGPT names: prints parameters and rates as JSON."""

from __future__ import annotations

import ast
import json
import math
import os
import sys
from pathlib import Path

import torch


def main() -> None:
    folder = Path(os.environ["NANOGPT"])
    sys.path.insert(0, str(folder))
    from model import GPT, GPTConfig

    tree = ast.parse((folder / "train.py").read_text(encoding="utf-8"))
    # the settings of train.py, what configurator.py does to them, and its own function of the rate
    names: dict[str, object] = {"math": math, "torch": torch}
    plain = [n for n in tree.body if isinstance(n, ast.Assign) and n.lineno < _line_of(tree, "config_keys")]
    rate = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "get_lr"]
    exec(compile(ast.Module([*plain, *rate], []), "train.py", "exec"), names)
    before = set(names)
    exec(Path("gptplan_nanogpt.py").read_text(encoding="utf-8"), names)
    assert set(names) == before, set(names) - before  # every setting is one of train.py's
    shape = {name: names[name] for name in ("n_layer", "n_head", "n_embd", "block_size", "bias", "dropout")}
    with torch.device("meta"):
        model = GPT(GPTConfig(vocab_size=50304, **shape))
    updates = int(names["max_iters"]) + 1
    print(json.dumps({
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "rates": [names["get_lr"](it) for it in range(updates)],
        "rates_are_late": 0,
        "batch": [names["batch_size"], names["gradient_accumulation_steps"]],
    }))  # fmt: skip


def _line_of(tree: ast.Module, name: str) -> int:
    return next(
        node.lineno
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name
    )


if __name__ == "__main__":
    main()
