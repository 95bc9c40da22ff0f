"""The generated parts of README.md and docs/*.md: `python -m docs.make`, or `--check` to compare only.

A block between `<!-- begin NAME -->` and `<!-- end NAME -->` is the output of a function, that of NAME in `BLOCKS`, run
here, so that no page can show what the program does not do.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib import import_module
from pkgutil import walk_packages
from tempfile import TemporaryDirectory

from docs.accuracy_page import hours_outside, memory_outside, memory_scores, speed_classes, speed_outside, speed_scores
from docs.model_types import model_types
from docs.readme import demo, demo_table, estimate, first_screen
from docs.shell import AS_OF, ROOT, command, commands, console
from docs.terminal import keys, tabs, wizard

PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    *(str(p.relative_to(ROOT)) for p in sorted((ROOT / "docs").rglob("*.md"))),
]


def help_of_commands() -> str:
    """Each command's --help."""
    from gptplan.app import COMMANDS

    lines = ["--help", *(f"{name} --help" for name in COMMANDS)]
    shown = [console(f"$ gptplan {line}", said) for line, said in zip(lines, commands(*lines), strict=True)]
    helps = zip(COMMANDS, shown[1:], strict=True)
    return "\n\n".join([shown[0], *(f"## gptplan {name}\n\n{text}" for name, text in helps)])


def schedule() -> str:
    """Three warm-ups laid over each other, without a model."""
    words = "--kind wsd --peak-lr 3e-4 --min-lr 10% --steps 100k --cooldown-ratio 20% --over warmup=1000,2000,5000"
    return console(f"$ gptplan schedule {words}", command("schedule", *words.split()))


def continuity() -> str:
    """The breakpoints of all kinds."""
    words = "--peak-lr 3e-4 --warmup-steps 2000 --steps 100k --continuity"
    kinds = "kind=cosine,linear,polynomial,inverse_sqrt,constant,wsd"
    shown = command("schedule", *words.split(), "--over", kinds)
    part = "Continuity" + shown.partition("\nContinuity")[2].partition("\n\n")[0]
    return console(f"$ gptplan schedule {words} --over {kinds}", "…", part)


def batch() -> str:
    """A rate at another batch, and a batch that does not divide."""
    words = "--peak-lr 3e-4 --tuned-batch 512Ki --global-batch-tokens 2M --seq 1024 --gpus 8 --micro-batch 4 --loss 3"
    return console(f"$ gptplan batch {words}", command("batch", *words.split()))


def search() -> str:
    """Eight cards of two kinds, in a week."""
    words = (
        "--model llama-3-8b --tokens 20B --global-batch-tokens 1Mi --gpu h100-80gb,a100-80gb --gpus 8..16 --within 7d"
    )
    shown = command("search", *words.split(), "--top", "5", "--as-of", AS_OF)
    return console(f"$ gptplan search {words} --top 5", shown)


def fit() -> str:
    """A micro-batch that is too large."""
    words = "--model llama-3-8b --tokens 20B --gpu h100-80gb --gpus 8 --fsdp --micro-batch 8 --accumulation 1"
    return console(f"$ gptplan fit {words}", command("fit", *words.split(), "--as-of", AS_OF))


def data() -> str:
    """A text prepared into a new directory."""
    with TemporaryDirectory() as folder:
        shown = command("data", "LICENSE", "-o", f"{folder}/prepared", "--val-share", "10%")
    return console("$ gptplan data LICENSE -o prepared --val-share 10%", shown.replace(f"{folder}/", ""))


def run_toml() -> str:
    """The config that `plan` emits, without the list of assumptions."""
    text = command("plan", "--model", "gpt2", "--tokens", "10B", "--gpu", "h100-80gb", "--as-of", AS_OF)
    return "```toml\n" + text.partition("\n[[provenance.assumptions]]")[0].rstrip() + "\n```"


def presets() -> str:
    """Every model with its exact count, and the names of the other presets."""
    from planner.presets import gpu_ids, model_ids, recipe_ids

    lines = ["| model | parameters | one token uses | count | shape | style |", "|---|---|---|---|---|---|"]
    lines += [_model_row(id) for id in model_ids()]
    others = [("GPUs", gpu_ids()), ("recipes", recipe_ids())]
    named = [f"**{kind}** ({len(ids)}): {', '.join(f'`{i}`' for i in ids)}" for kind, ids in others]
    return "\n\n".join([f"**models** ({len(model_ids())}):", "\n".join(lines), *named])


def _model_row(id: str) -> str:
    from planner.config.model import ModelConfig
    from planner.counts.parameters import parameters_of
    from planner.presets import model

    preset = model(id)
    m = ModelConfig(name=id, source=preset.source, **preset.shape)
    counted = parameters_of(m)
    active = f"{counted.active:,}" if counted.active != counted.total else "all"
    grouped = f", {m.kv_heads} for keys" if m.kv_heads != m.heads else ""
    shape = f"{m.layers} x {m.hidden}, {m.heads} heads of {m.head_dim}{grouped}"
    experts = f", {m.moe.experts} experts, {m.moe.top_k} used" if m.moe else ""
    style = f"{m.position}, {m.norm}, {m.mlp}{experts}{', latent attention' if m.mla else ''}"
    return f"| `{id}` | {counted.total:,} | {active} | {preset.parameters_check} | {shape} | {style} |"


def formulas() -> str:
    """Every registered formula by topic: LaTeX from the function, unit, source, and what it is checked against."""
    import planner
    from planner.analysis.explain.symbolic import formula_equation
    from planner.formulas.formula import FORMULAS
    from planner.formulas.quantities import QUANTITIES

    for module in walk_packages(planner.__path__, "planner."):  # whichever hold formulas register them
        import_module(module.name)
    topics: dict[str, list[str]] = {}
    # in reading order, whatever was imported first
    where = {name: (f.function.__module__, f.function.__code__.co_firstlineno) for name, f in FORMULAS.items()}
    for name, f in sorted(FORMULAS.items(), key=lambda item: where[item[0]]):
        what = " ".join((f.function.__doc__ or "").split())
        _, latex = formula_equation(f)
        arguments = (f"${symbol_latex(QUANTITIES[a].symbol)}$ `{a}`" for a in f.arguments)
        topics.setdefault(f.function.__module__, []).append(
            f"### `{name}`\n\n{what}\n\n$${latex}$$\n\n"
            f"- gives: `{f.gives}`, {QUANTITIES[f.gives].meaning} ({QUANTITIES[f.gives].unit})\n"
            f"- from: {', '.join(arguments)}\n"
            f"- source: {f.source}\n- checked against: {f.checked_against}"
        )
    about = {topic: (import_module(topic).__doc__ or "").strip().splitlines()[0] for topic in topics}
    return "\n\n".join(f"## {about[topic]}\n\n" + "\n\n".join(entries) for topic, entries in topics.items())


def symbol_latex(symbol: str) -> str:
    """A symbol of the vocabulary as LaTeX."""
    import sympy

    return str(sympy.latex(sympy.Symbol(symbol)))


def explain() -> str:
    """A number of the first screen's estimate, explained."""
    words = ["explain", "flops.training_6nd", "--params", "125M", "--tokens", "10B"]
    one = ["explain", "3.1", "--set", "beta1=0.95"]
    return "\n\n".join(console(f"$ gptplan {' '.join(call)}", command(*call)) for call in (words, one))


def calculations() -> str:
    """The calculations of `explain`, each with its answers."""
    from planner.analysis.textbook.catalogue import calculations
    from planner.report.explain import shown

    lines = ["| number | name | question | answer | source |", "|---|---|---|---|---|"]
    for c in calculations():
        answers = "; ".join(f"{name.replace('_', ' ')} {shown(value)}" for name, value in c.answer().items())
        lines.append(f"| {c.id} | `{c.name}` | {c.question} | {answers} | {c.source} |")
    return "\n".join(lines)


def conventions() -> str:
    """Every FLOPs convention on one model, with who uses it."""
    import json

    from planner.units import format_number

    shown = command("flops", "--model", "llama-2-7b", "--seq", "4096", "--gpu", "h100-80gb", "--as-of", AS_OF, "--json")
    lines = ["| convention | FLOPs per token | GFLOPs | to ours | for | used by | source |"]
    lines.append("|---|---|--:|--:|---|---|---|")
    for c in json.loads(shown)["conventions"]:
        kind = "MFU" if c["kind"] == "model" else "HFU"
        numbers = (format_number(c["flops_per_token"] / 1e9), format_number(c["ratio"]))
        cells = (f"`{c['id']}`", c["formula"], *numbers, kind, f"{c['used_by']}: {c['note']}", c["source"])
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def resumption() -> str:
    """What a config may change between a run and its continuation."""
    from planner.config.resume import rules_table

    return rules_table()


def coverage() -> str:
    """How every choice of a config is known."""
    from benchmarks.coverage import table

    return table()


def metrics() -> str:
    """Every key of a row of metrics.jsonl."""
    from reference_trainer.metrics.metric_names import METRICS

    lines = ["| key | unit | in | meaning |", "|---|---|---|---|"]
    return "\n".join(lines + [f"| `{k}` | {unit} | {when} | {what} |" for k, (unit, when, what) in METRICS.items()])


def events() -> str:
    """Every event and its keys."""
    from reference_trainer.metrics.metric_names import EVENTS

    lines = ["| event | when | keys |", "|---|---|---|"]
    for name, (what, held) in EVENTS.items():
        lines.append(f"| {name} | {what} | {', '.join(f'`{key}` {meaning}' for key, meaning in held.items())} |")
    return "\n".join(lines)


def layouts() -> str:
    """Published layouts and the winners of searches, as recorded."""
    from benchmarks.layouts import recorded

    return recorded()


def faults() -> str:
    """Every fault with its tests."""
    from docs.faults import table

    return table()


def equality() -> str:
    """How far equivalent runs differ, as recorded."""
    from benchmarks.equality import table

    return table()


BLOCKS: dict[str, Callable[[], str]] = {
    "first-screen": first_screen,
    "estimate": estimate,
    "demo": demo,
    "demo-table": demo_table,
    "help": help_of_commands,
    "keys": keys,
    "tabs": tabs,
    "wizard": wizard,
    "schedule": schedule,
    "continuity": continuity,
    "batch": batch,
    "search": search,
    "fit": fit,
    "data": data,
    "run-toml": run_toml,
    "presets": presets,
    "model-types": model_types,
    "formulas": formulas,
    "explain": explain,
    "calculations": calculations,
    "conventions": conventions,
    "coverage": coverage,
    "metrics": metrics,
    "events": events,
    "resumption": resumption,
    "faults": faults,
    "layouts": layouts,
    "equality": equality,
    "speed-scores": speed_scores,
    "speed-classes": speed_classes,
    "speed-outside": speed_outside,
    "hours-outside": hours_outside,
    "memory-scores": memory_scores,
    "memory-outside": memory_outside,
}


def rendered(text: str) -> str:
    """The page with every block made anew. Raises KeyError for an unknown block name."""

    def fill(match: re.Match[str]) -> str:
        name = match.group(1)
        return f"<!-- begin {name} -->\n{BLOCKS[name]()}\n<!-- end {name} -->"

    return re.sub(r"<!-- begin ([\w-]+) -->\n.*?<!-- end \1 -->", fill, text, flags=re.S)


def main() -> None:
    """Write the pages, or with --check exit 1 and name those that are out of date."""
    check = "--check" in sys.argv[1:]
    stale = []
    for name in PAGES:
        path = ROOT / name
        old = path.read_text(encoding="utf-8")
        new = rendered(old)
        if new != old:
            stale.append(name)
            if not check:
                path.write_text(new, encoding="utf-8")
    if stale:
        print(f"{'out of date' if check else 'written'}: {', '.join(stale)}")
    if stale and check:
        print("make docs writes them")
        sys.exit(1)


if __name__ == "__main__":
    main()
