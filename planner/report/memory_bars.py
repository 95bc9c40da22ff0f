"""The memory of a device as stacked bars of characters: a row per phase, a letter per component, the capacity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from planner.memory.breakdown import Memory
from planner.plan import Plan
from planner.report.plan import component_rows
from planner.report.text import COMPONENT_NAMES, Page
from planner.units import format_bytes

# a letter each, so that a bar can be read without colour; the last two are the device's, not the program's
COMPONENT_SIGNS = {
    "weights": "W",
    "master_weights": "M",
    "gradients": "G",
    "optimizer": "O",
    "activations": "A",
    "logits": "L",
    "temporary": "T",
    "communication": "D",
    "allocator": "R",
    "context": "C",
    "nccl": "N",
}
NAMES = COMPONENT_NAMES | {
    "allocator": "reserved beyond requested",
    "context": "context of the device",
    "nccl": "buffers of NCCL",
}
DEVICE = "device, at most"


@dataclass(frozen=True, slots=True)
class Bar:
    """A phase: its bytes, and the cells of each component from left to right."""

    name: str
    bytes: int
    cells: tuple[tuple[str, int], ...]
    is_peak: bool

    def size(self) -> str:
        """The bytes for people, with a mark at the peak."""
        return format_bytes(self.bytes) + (" ◄ peak" if self.is_peak else "")


@dataclass(frozen=True, slots=True)
class Bars:
    """All bars on one scale. `capacity`: the column of the usable memory, None if it is unknown or beyond the bars."""

    rows: tuple[Bar, ...]
    capacity: int | None
    note: str

    def used(self) -> tuple[str, ...]:
        """The components that have bytes anywhere."""
        found = {name for row in self.rows for name, _ in row.cells}
        return tuple(name for name in COMPONENT_SIGNS if name in found)


def memory_bars(plan: Plan, width: int, *, near: bool = False) -> Bars:
    """Bars of at most `width` cells, on the scale of the usable memory or of the highest bar, whichever is more.

    near: on the scale of the highest bar only, to show small bars.
    """
    m = plan.memory
    sizes: list[tuple[str, Mapping[str, int], bool]] = [(p.phase, p.at_peak, p.phase == m.peak_phase) for p in m.phases]
    beside = beside_tensors(m)
    if beside is not None:
        sizes.append((DEVICE, {**m.at_peak, **beside}, False))
    highest = max(sum(parts.values()) for _, parts, _ in sizes)
    scale = highest if near else max(m.usable_bytes or 0, highest)
    rows = tuple(
        Bar(name, sum(parts.values()), cells_of(parts, scale, width), is_peak) for name, parts, is_peak in sizes
    )
    seen = m.usable_bytes is not None and m.usable_bytes <= scale
    capacity = round((m.usable_bytes or 0) / scale * width) if seen else None
    note = f"a letter is {format_bytes(scale / width)}; usable {format_bytes(m.usable_bytes)}"
    return Bars(rows, capacity, note + (" ┃" if seen else ""))


def beside_tensors(m: Memory) -> dict[str, int] | None:
    """Bytes of a device besides the tensors at the peak; None if unknown."""
    if m.peak_reserved_bytes.value is None or m.context_bytes is None:
        return None
    reserved = max(0, m.peak_reserved_bytes.value - m.peak_requested_bytes)
    return {"allocator": reserved, "context": m.context_bytes} | (
        {"nccl": nccl} if (nccl := m.nccl_bytes.value) else {}
    )


def cells_of(parts: Mapping[str, int], scale: int, width: int) -> tuple[tuple[str, int], ...]:
    """Whole cells per part. Edges are rounded, not lengths, so that a bar ends where its sum does."""
    found, total, edge = [], 0, 0
    for name, size in parts.items():
        total += size
        end = round(total / scale * width)
        if size:
            found.append((name, end - edge))
        edge = end
    return tuple(found)


def component_table(plan: Plan) -> list[str]:
    """The components with their signs: maximum, at the peak, fraction; then the allocator and the context."""
    names = {name: sign for sign, name in ((COMPONENT_SIGNS[c], n) for c, n in COMPONENT_NAMES.items())}
    rows = [(names.get(row[0], ""), *row) for row in component_rows(plan.memory)]
    beside = beside_tensors(plan.memory)
    if beside is not None:
        whole = plan.memory.peak_requested_bytes + sum(beside.values())
        rows += [(COMPONENT_SIGNS[name], NAMES[name], "", format_bytes(size), "") for name, size in beside.items()]
        rows.append(("", DEVICE, "", format_bytes(whole), ""))
    return Page(indent=0).table(rows, {2, 3, 4})
