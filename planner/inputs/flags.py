"""The flags of a plan as text, one field for each row of the table of options, and their parsing by the row's kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field, field, make_dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from planner.config.options import EITHER, MAIN, OPTION, OPTIONS, Option, ended_by, flag, of_section
from planner.config.run import Assumption, RunConfig
from planner.errors import InputError, UnitError, UnknownNameError
from planner.units import TERA, parse_count, parse_money, parse_number, parse_rate

FROM_ZERO = ("number or zero", "number, 0 for none", "fraction")  # kinds of real numbers that may be 0
LARGEST = 10**18  # the largest count in a config
OPTION_NAMES = (*MAIN, *(option.name for option in OPTIONS if option.name not in MAIN))  # in the order of the form


class _Texts:
    __slots__ = ()

    def given(self, *names: str) -> list[str]:
        """Those of `names` that have a text."""
        return [n for n in names if getattr(self, n) is not None]

    def anything(self) -> bool:
        """Whether any flag has a text."""
        return bool(self.given(*OPTION_NAMES))

    def value(self, name: str) -> Any:
        """The parsed value in base units, None without a text. Raises UnitError, UnknownNameError or InputError."""
        text = getattr(self, name)
        option = OPTION[name]
        if text is None:
            return None
        try:
            return _PARSERS[option.kind.parser](text, option)
        except InputError as error:
            raise error.with_note(f"in run.toml: {option.key}") if option.key else error from None

    def count(self, name: str) -> int | None:
        """The value of an option that takes a whole number."""
        found: int | None = self.value(name)
        return found

    def number(self, name: str) -> float | None:
        """The value of an option that takes a real number."""
        found: float | None = self.value(name)
        return found

    def keys(self, section: str) -> dict[str, Any]:
        """Key of a section → parsed value, for the flags that have a text."""
        return {o.key.rpartition(".")[2]: self.value(o.name) for o in of_section(section) if self.given(o.name)}


if TYPE_CHECKING:

    class Flags(_Texts):
        """A frozen dataclass: a text for each option, None where it was not given. It is made from the table."""

        __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

        def __init__(self, **texts: str | None) -> None: ...
        def __getattr__(self, name: str) -> str | None: ...

else:
    Flags = make_dataclass(
        "Flags",
        [(name, "str | None", field(default=None)) for name in OPTION_NAMES],
        bases=(_Texts,),
        namespace={"__module__": __name__, "__doc__": "A text for each option, None where it was not given."},
        frozen=True,
        slots=True,
    )


def _count(text: str, option: Option) -> int:
    found = parse_count(text, name=option.flag, allow_zero=option.kind.parser != "count")
    if found > LARGEST:
        raise UnitError(
            f"{option.flag}: {text[:40]!r} is larger than 10^18",
            why="a config holds no larger number",
            remedy="check its suffix and its exponent",
        )
    return found


def _number(text: str, option: Option) -> float:
    return parse_number(text, name=option.flag, allow_zero=option.kind.parser in FROM_ZERO)


def _fraction(text: str, option: Option) -> float:
    found = _number(text, option)
    if found > 1:
        raise InputError(f"{option.flag}: {found:g} is above 1", why="it is a fraction", remedy="write 0.02 or 2%")
    return found


def _choice(text: str, option: Option) -> str:
    if text not in option.kind.choices:
        raise UnknownNameError(option.flag, text, option.kind.choices)
    return text


_PARSERS: dict[str, Callable[[str, Option], Any]] = {
    "count": _count,
    "count or zero": _count,
    "seed": lambda text, option: parse_count(text, name=option.flag, allow_zero=True),
    "count, 0 for none": lambda text, option: _count(text, option) or None,
    "number, 0 for none": lambda text, option: _number(text, option) or None,
    "number": _number,
    "number or zero": _number,
    "rate": lambda text, option: parse_rate(text, name=option.flag),
    "teraflops": lambda text, option: _number(text, option) * TERA,
    "fraction": _fraction,
    "fraction above zero": _fraction,
    "money": lambda text, option: parse_money(text, name=option.flag, allow_zero=True),
    "choice": _choice,
    "yes or no": lambda text, option: _choice(text, option) == "yes",
    "switch": lambda text, option: _choice(text, option) == option.kind.choices[0],
    "text": lambda text, option: text,
}


def refuse_contradictions(flags: Flags) -> None:
    """Raises InputError for two flags that fix the same thing: neither has priority."""
    for names, why in EITHER:
        found = flags.given(*names)
        if len(found) > 1:
            spelled = " and ".join(flag(n) for n in found)
            raise InputError(f"{spelled} contradict each other", why=why, remedy=f"give one of {spelled}")


class Assumptions:
    """Collects the assumptions of a draft: those of the file that no flag ended, then its own."""

    def __init__(self, flags: Flags, base: RunConfig | None) -> None:
        typed = flags.given(*OPTION_NAMES)
        ended = {key for name in typed for key in ended_by(name)}
        self.typed = ended.intersection(typed)
        carried = base.provenance.assumptions if base else ()
        self.found = {a.key: a for a in carried if a.key not in ended}

    def add(self, key: str, value: object, source: str) -> None:
        """Record that `key` was not given, which value it got, and by which rule; nothing for a flag that was typed."""
        if key not in self.typed:
            self.found[key] = Assumption(key=key, value=str(value), source=source)
