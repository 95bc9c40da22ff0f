"""The result of a search as text, as CSV and as one JSON object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

from planner.analysis.search.area import Layout
from planner.analysis.search.search import SearchResult, lost_seconds
from planner.config.layout import layout_in_full
from planner.report.scatter import scatter
from planner.report.text import WIDTH, Page, fits_in_words, sections_text
from planner.units import HOUR, format_bytes, format_duration, format_fraction, format_money

WHY_PARTS = 4


@dataclass(frozen=True, slots=True)
class LayoutRow:
    """A layout in base units; None is unknown. Keys are those of run.toml."""

    gpu: str
    gpus: int
    dp: int
    tp: int
    sp: bool
    pp: int
    interleave: int
    pp_schedule: str
    cp: int
    ep: int
    zero: int
    fsdp: bool
    reshard: bool
    hsdp: int | None
    ddp_bucket_view: bool
    micro_batch: int
    accumulation: int
    loss: str
    activation_checkpointing: str
    activation_checkpointing_every: int
    runtime: str
    step_seconds: float
    seconds: float
    usd: float | None
    energy_kwh: float | None
    used_bytes: int
    usable_bytes: int
    fits: bool | None
    why_open: str


@dataclass(frozen=True, slots=True)
class SearchDocument:
    """What `gptplan search --json` prints. runner_up_loses: seconds of a step by part; below 0 it gains.

    open: layouts that would be above the first if it were known that they fit. left_out: placements by reason.
    """

    by: str
    best: tuple[LayoutRow, ...]
    open: tuple[LayoutRow, ...]
    front: tuple[LayoutRow, ...]
    runner_up_loses: dict[str, float]
    left_out: dict[str, int]
    considered: int
    placements: int
    simulated: int


def layout_row(one: Layout) -> LayoutRow:
    """The numbers of a layout."""
    c = one.config
    sections = {**dict(c.training), **dict(c.parallel), **dict(c.hardware)}
    sections |= {"dp": c.data_parallel} | {name: getattr(one, name) for name in MEASURES}
    return LayoutRow(**{each.name: sections[each.name] for each in fields(LayoutRow)})


MEASURES = tuple(each.name for each in fields(Layout) if each.name != "config")


def search_document(result: SearchResult) -> SearchDocument:
    """The result as plain numbers."""
    lost = dict(lost_seconds(*result.plans)) if len(result.plans) == 2 else {}
    best, beside, front = (tuple(map(layout_row, found)) for found in (result.best, result.open, result.front))
    return SearchDocument(
        by=result.by,
        best=best,
        open=beside,
        front=front,
        runner_up_loses=lost,
        left_out=result.left_out,
        considered=result.considered,
        placements=result.placements,
        simulated=result.simulated,
    )


def search_csv(layouts: Sequence[Layout]) -> str:
    """A line per layout, base units; unknown is empty."""
    names = [each.name for each in fields(LayoutRow)]
    rows = [asdict(layout_row(one)) for one in layouts]
    lines = [",".join("" if row[name] is None else _cell(str(row[name])) for name in names) for row in rows]
    return "\n".join([",".join(names), *lines])


def _cell(text: str) -> str:
    """A field of CSV, quoted where it has a comma or a quotation mark (RFC 4180)."""
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"') else text


def search_text(result: SearchResult, width: int = WIDTH, plain: bool = False) -> str:
    """The best layouts, why the first wins, and the front of time and cost. plain: ASCII only."""
    page = Page(width)
    known = "" if result.best[0].fits else ": none is known to fit, these may"
    return sections_text(
        page.section(f"Best layouts by {result.by}{known}", *_table(page, result.best), *_reasons(page, result.best)),
        _open(page, result),
        _why(page, result),
        _front(page, result, plain),
        page.section(
            "Searched",
            page.line("layouts", f"{result.considered:,}", "timed, and their memory bounded from below"),
            page.line("placements", f"{result.placements:,}", "cards, GPUs and layouts; the best of each is ranked"),
            *(page.line("left out", f"{times:,}", why) for why, times in sorted(result.left_out.items())),
            page.line("memory", "peaks of what is shown, by the rule for allocated bytes, with context and NCCL"),
            page.line("verdict of the first", *fits_in_words(result.plans[0].memory)),
        ),
    )


def _table(page: Page, layouts: Sequence[Layout]) -> list[str]:
    rows = [("GPUs", "micro-batch", "checkpointing", "step", "run", "cost", "memory", "layout")]
    for one in layouts:
        c, t = one.config, one.config.training
        every = t.activation_checkpointing_every
        rows.append(
            (
                f"{c.hardware.gpus:,} {c.hardware.gpu}",
                f"{t.micro_batch} x {t.accumulation:,}",
                t.activation_checkpointing + (f" 1/{every}" if every > 1 else ""),
                format_duration(one.step_seconds),
                format_duration(one.seconds),
                format_money(one.usd),
                format_fraction(one.fraction_used),
                layout_in_full(c),
            )
        )
    return page.table(rows, {1, 3, 4, 5, 6})


def _open(page: Page, result: SearchResult) -> str:
    """The layouts that are not ranked because their verdict is open, and why it is."""
    if not result.open:
        return ""
    title = "Above the first if they fit, which is not known"
    return page.section(title, *_table(page, result.open), *_reasons(page, result.open))


def _reasons(page: Page, layouts: Sequence[Layout]) -> list[str]:
    return [page.line("open", why) for why in dict.fromkeys(one.why_open for one in layouts) if why]


def _why(page: Page, result: SearchResult) -> str:
    if len(result.plans) < 2:
        return ""
    first, second = result.best[:2]
    lost = [
        page.line(name, f"{'+' if seconds > 0 else '-'}{format_duration(abs(seconds))}")
        for name, seconds in lost_seconds(*result.plans)[:WHY_PARTS]
    ]
    needs = [format_bytes(one.used_bytes) for one in (first, second)]
    dear = [format_money(one.usd) for one in (first, second)]
    return page.section(
        "What the second loses in a step, by part",
        page.line("step", format_duration(second.step_seconds), f"the first: {format_duration(first.step_seconds)}"),
        *lost,
        page.line("memory", needs[1], f"the first: {needs[0]}"),
        page.line("cost of the run", dear[1], f"the first: {dear[0]}"),
    )


def _front(page: Page, result: SearchResult, plain: bool) -> str:
    """The layouts that none beats in both time and cost, as a table and a plot."""
    if len(result.front) < 2:
        return ""
    points = [(one.seconds / HOUR, one.usd or 0.0) for one in result.front]
    drawn = scatter(points, x="hours", y="USD", width=page.width, plain=plain)
    return page.section("Time against cost: none is beaten in both", *_table(page, result.front), "", *drawn)
