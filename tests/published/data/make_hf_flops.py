"""Makes hf_flops.json: the FLOPs that PyTorch counts in a forward pass of the tiny dense models of make_hf_numels.py.

Run where transformers and torch are installed, neither of which the tests need: `python make_hf_flops.py`. Attention is
written out (eager), so that its products are counted. Experts are left out: PyTorch's counter does not see their
grouped products.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers
from make_hf_numels import CASES
from torch.utils.flop_counter import FlopCounterMode

SEQUENCES, LENGTH = 2, 16  # no longer than any window


def flops_of(kind: str, values: dict[str, object]) -> int:
    """FLOPs of a forward pass over SEQUENCES x LENGTH tokens."""
    config = transformers.AutoConfig.for_model(kind, **values)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(torch.zeros((SEQUENCES, LENGTH), dtype=torch.long), use_cache=False)
    return int(counter.get_total_flops())


def main() -> None:
    """Write the file beside this script."""
    found = {
        f"{kind} {name}": flops_of(kind, values)
        for kind, variants in CASES.items()
        for name, values in variants.items()
        if not any("expert" in key for key in values) and kind not in ("mixtral", "gpt_oss")
    }
    about = {"transformers": transformers.__version__, "torch": torch.__version__}
    values = {**about, "sequences": SEQUENCES, "length": LENGTH, "forward": found}
    Path(__file__).with_name("hf_flops.json").write_text(json.dumps(values, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
