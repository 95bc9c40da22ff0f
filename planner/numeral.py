"""One typed number with its suffix, as an exact fraction; what cannot be read is refused with the reason.

`units.py` says which suffixes there are and what the number counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

from planner.errors import UnitError, nearest

Units = Mapping[str, Fraction | int]

LARGEST_NUMERAL = 10**30  # no quantity of this field comes near it: beyond, somebody mistyped
EDGE = 200  # of exponents: with at most 100 digits, what passes lies within 10^-300 and 10^300 and fits a float
_LONGEST = 100  # characters
_NUMBER = re.compile(
    r"(?a)(?P<sign>[+-]?)(?P<whole>[1-9]\d{0,2}(?:,\d{3})+(?![\d_])|\d+(?:_\d+)*|)"
    r"(?P<part>(?:\.(?:\d+(?:_\d+)*)?)?)(?:[eE](?P<power>[+-]?\d+))?"
)


class Numeral(NamedTuple):  # not a dataclass: importing those takes 10 ms
    """One typed text, and what its error messages call it."""

    text: str
    name: str
    kind: str
    example: str

    def refuse(self, why: str, remedy: str = "") -> UnitError:
        what = f"{self.name}: {self.text[:40] + '…' * (len(self.text) > 40)!r} is not {self.kind}"
        return UnitError(what, why=why, remedy=remedy or f"write it like {self.example}")

    def body(self, text: str | None = None) -> str:
        """`text`, or what was typed, without surrounding blanks; refused if it cannot be a number."""
        body = (self.text if text is None else text).strip()
        if not body:
            raise self.refuse("it is empty")
        if len(body) > _LONGEST:
            raise self.refuse(f"it is {len(body)} characters long, and no quantity needs more than {_LONGEST}")
        if re.match(r"[+-]?0[xX]", body):
            raise self.refuse("hexadecimal numbers are not read")
        if body.lstrip("+-").lower() in ("nan", "inf", "infinity"):
            raise self.refuse("it is not a finite number")
        for c in body:
            if not (c.isascii() and c.isprintable()):
                raise self.refuse(f"{c!r} (U+{ord(c):04X}) is not a plain ASCII digit, letter or sign")
        return body

    def split(self, body: str, units: Units, *, fold: bool = True) -> tuple[Fraction, Fraction]:
        """The number and the factor of its suffix; `fold` reads suffixes in either case."""
        found = _NUMBER.match(body)
        assert found is not None  # every piece of the pattern may be empty
        digits = (found["whole"] + found["part"]).replace(",", "").replace("_", "")
        if not digits.strip("."):
            raise self.refuse("it does not begin with a number")
        if found["sign"] == "-":
            raise self.refuse("it is negative")
        rest = body[found.end() :]
        suffix = rest.removeprefix(" ")
        if not re.fullmatch(r"[A-Za-z]*|%", suffix):
            if re.match(r"[,_\d]| +\d", rest):
                raise self.refuse("only commas between groups of three (1,000,000) or single underscores part digits")
            raise self.refuse(f"{rest.strip()!r} follows the number; only one blank and one suffix may")
        known = {"": 1, **{unit.lower() if fold else unit: factor for unit, factor in units.items()}}
        factor = known.get(suffix.lower() if fold else suffix)
        if factor is None:
            hint = f"did you mean {' or '.join(close)}? " if (close := nearest(suffix, units)) else ""
            raise self.refuse(f"the suffix {suffix!r} is not known here", f"{hint}known: {', '.join(units)}")
        if found["power"] and factor != 1:
            raise self.refuse(f"it has both an exponent and the suffix {suffix!r}", "keep one of the two")
        number, power = Fraction(digits), int(found["power"] or 0)
        if number and abs(power) > EDGE:  # before the power is worked out: 1e999999999 would fill the memory
            raise self.refuse(f"its exponent is {power}: too {'large' if power > 0 else 'small'}")
        return number * Fraction(10) ** (power if number else 0), Fraction(factor)

    def bounded(self, value: Fraction, allow_zero: bool, largest: int = LARGEST_NUMERAL) -> Fraction:
        """`value`, if it is positive (or an allowed zero) and no larger than `largest`."""
        if value == 0 and not allow_zero:
            raise self.refuse("it is zero")
        if value > largest:
            raise self.refuse(f"it is larger than 10^{len(str(largest)) - 1}: too large")
        return value
