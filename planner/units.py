"""One quantity, text to number and number to text. Nothing else in the repository converts units.

`parse_*(text, name=...)` reads what a person typed and gives base units (token, byte, s, USD). Arithmetic is exact up
to the last step, so "1.3B" is 1300000000. `name` is what the value is called in the message, such as "--tokens".
Whatever cannot be read raises `UnitError`; nothing is guessed. Zero is refused unless `allow_zero=True`.

`format_*(x)` writes base units for a person, with three significant digits; None is "unknown". Only counts below a
million, and `format_count_exact`, are written in full. `told_apart` adds digits where two numbers would read the same.
`spell_count` writes what `parse_count` reads, exactly.

Suffixes of counts are read in either case. A count has no thousandths and no bytes, so "m" is a million (not milli)
and "b" a billion (not byte). There is no "E" suffix: "1E" would be half of "1E9". GB is 10^9 bytes, GiB is 2^30.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Concatenate, ParamSpec

from planner.numeral import EDGE, LARGEST_NUMERAL, Numeral, Units

_P = ParamSpec("_P")

# The only table of prefixes. Everything below, read or written, is derived from it.
_DECIMAL = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}
_BINARY = {f"{p.upper()}i": 2 ** (10 * i) for i, p in enumerate(_DECIMAL, start=1)}
_SECONDS: Units = {"d": 86400, "h": 3600, "min": 60, "m": 60, "s": 1, "ms": Fraction("1e-3"), "us": Fraction("1e-6")}
_LARGE_WORDS = {"M": _DECIMAL["M"], "B": _DECIMAL["G"], "T": _DECIMAL["T"]}  # as people and prices say them
_WORDS = {"k": _DECIMAL["k"], **_LARGE_WORDS}
_COUNTS = {p: f for p, f in {**_WORDS, **_DECIMAL, **_BINARY}.items() if p[0] != "E"}
_BYTES_1000 = {"B": 1, **{f"{p.upper()}B": f for p, f in _DECIMAL.items()}}
_BYTES_1024 = {"B": 1, **{f"{p}B": f for p, f in _BINARY.items()}}

_DIGITS = 3  # significant digits of a number for people
CHOSEN = 12  # of a value that somebody chose, which is not rounded
LOSS_DIGITS = 4  # of a loss that is watched: it falls by less than a percent between two lines of a log
# for people: beyond these a number is written with an exponent, so that no text has more than fifteen digits
LARGEST_PLAIN, SMALLEST_PLAIN = 1e15, 1e-6
READ_BACK = 10  # significant digits of a number that is typed again, or whose digits are too many to read
LARGEST_SCALED = 1e6  # of a ladder's last rung

TERA = _DECIMAL["T"]  # of FLOP/s
HOUR = 3600  # s
KILOWATT_HOUR = _DECIMAL["k"] * HOUR  # J


def parse_count(text: str, *, name: str, allow_zero: bool = False) -> int:
    """A whole number of things: "125M", "1.3B", "4Mi", "1,000,000", "1e9". Up to 10^30. Raises UnitError."""
    flags = Numeral(text, name, "a count", "125M, 1.3B, 4Mi, 1,000,000 or 1e9")
    number, factor = flags.split(flags.body(), _COUNTS)
    value = flags.bounded(number * factor, allow_zero)
    if value.denominator != 1:
        raise flags.refuse(f"it comes to {float(value):.12g}, and a count is a whole number")
    return int(value)


def parse_rate(text: str, *, name: str) -> float:
    """A finite real above zero: "1M", "48.5k", "812.5". Below 10^200. Raises UnitError."""
    flags = Numeral(text, name, "a number per second", "1M, 48.5k or 812.5")
    number, factor = flags.split(flags.body(), _COUNTS)
    return float(flags.bounded(number * factor, False, 10**EDGE))


def parse_number(text: str, *, name: str, allow_zero: bool = False) -> float:
    """A finite real without unit: "6e-4", "0.01", "150", "1%" (0.01). Below 10^200. Raises UnitError."""
    flags = Numeral(text, name, "a number", "150, 0.01, 6e-4 or 1%")
    number, factor = flags.split(flags.body(), {"%": Fraction(1, 100)})
    return float(flags.bounded(number * factor, allow_zero, 10**EDGE))


def parse_bytes(text: str, *, name: str, allow_zero: bool = False) -> int:
    """A size in bytes: "80GB" (80·10^9), "80GiB" (80·2^30), "512 MiB", "1e9". Rounded to a byte. Raises UnitError."""
    flags = Numeral(text, name, "a size", "80GB (80 x 10^9 bytes), 80GiB (80 x 2^30 bytes) or 512 MiB")
    body = flags.body()
    if re.search(r"([A-Z]i?|[\d .])b$", body):  # Gb is a gigabit; "gb" in one case is how people type GB
        raise flags.refuse("a small b after a capital letter or a digit is a bit", "write B for bytes: 80GB or 80GiB")
    number, factor = flags.split(body, {**_BYTES_1000, **_BYTES_1024})
    value = flags.bounded(number * factor, allow_zero)
    if value and (value < 1 or (factor == 1 and value.denominator != 1)):
        raise flags.refuse(f"it comes to {float(value):.12g} bytes, and there is no fraction of a byte")
    return round(value)


def parse_duration(text: str, *, name: str, allow_zero: bool = False) -> float:
    """Seconds: "2h30m", "1d 12h", "90m" (minutes), "500ms", "1:30:00" (h:mm:ss), "45". Raises UnitError."""
    flags = Numeral(text, name, "a duration", "2h30m, 90m, 1d12h, 45s, 500ms or 1:30:00")
    body = flags.body()
    if ":" in body:
        clock = re.fullmatch(r"(\d+):([0-5]\d):([0-5]\d)", body)
        if clock is None:
            raise flags.refuse("a time with colons has hours, minutes and seconds (h:mm:ss)", "write 1:30:00 or 1h30m")
        body = "{}h{}m{}s".format(*clock.groups())
    total, above = Fraction(0), Fraction(LARGEST_NUMERAL)
    # No unit contains an "e", so that "1e3s" stays one piece here.
    compound = re.fullmatch(r"(?:[\d.,_]+ ?[a-df-zA-DF-Z]+ ?){2,}", body)
    pieces = re.findall(r"[\d.,_]+ ?[a-zA-Z]+", body) if compound else [body]
    for piece in pieces:
        number, factor = flags.split(piece, _SECONDS, fold=False)
        if factor >= above:
            raise flags.refuse("its units do not go from large to small, each once")
        total, above = total + number * factor, factor
    return float(flags.bounded(total, allow_zero))


def parse_money(text: str, *, name: str, allow_zero: bool = False) -> float:
    """US dollars: "$500", "500 USD", "$2.5k", "2.5k$", "$1,234.50". Other currencies are refused. Raises UnitError."""
    flags = Numeral(text, name, "an amount of US dollars", "$500, 500 USD, $2.5k or $1,234.50")
    bare = re.sub(r"US\$|USD", "$", text.strip(), flags=re.IGNORECASE)
    if re.search(r"[€£¥₹₩₽]|^[A-Z]+ ?\$|[A-Z]{3}", bare):
        raise flags.refuse("only US dollars are known, and no exchange rate is assumed", "convert it: $500 or 500 USD")
    body = flags.body(re.sub(r"^([+-]?)\$ ?|\$$", r"\1", bare, count=1))  # once: "$5$" is refused
    number, factor = flags.split(body, _WORDS)
    return float(flags.bounded(number * factor, allow_zero))


def spell_count(n: int) -> str:
    """The shortest text that `parse_count` reads back as exactly n: "125M", "1.3B", "524288". 0 <= n <= 10^30."""
    assert 0 <= n <= LARGEST_NUMERAL, n
    # Decimal suffixes only, which read as the same number to everybody; an exponent only from 10^18 on.
    spelled = [str(n)]  # first: on a tie plain digits win
    for suffix, factor in {**_WORDS, "P": _DECIMAL["P"]}.items():
        whole, part = divmod(n, factor)
        spelled.append(f"{whole}.{str(part).zfill(len(str(factor)) - 1)}".rstrip("0").rstrip(".") + suffix)
    if n >= _DECIMAL["E"]:
        digits = str(n).rstrip("0")
        spelled.append(f"{digits}e{len(str(n)) - len(digits)}")
    return min(spelled, key=len)


def _total(spell: Callable[Concatenate[float, _P], str]) -> Callable[Concatenate[float | None, _P], str]:
    """Completes a formatter of finite numbers >= 0: None, not finite, negative."""

    @functools.wraps(spell)
    def whole(x: float | None, /, *args: _P.args, **kwargs: _P.kwargs) -> str:
        if x is None:
            return "unknown"
        if not math.isfinite(x):
            return "not a number" if math.isnan(x) else "infinite" if x > 0 else "-infinite"
        return ("-" if x < 0 else "") + spell(abs(x), *args, **kwargs)

    return whole


def _plain(x: float, digits: int) -> str:
    """x with `digits` significant digits, thousands separators, no trailing zeros."""
    if x >= LARGEST_PLAIN or 0 < x < SMALLEST_PLAIN:
        return _scientific(x, digits)
    rounded = float(f"{x:.{digits}g}")
    text = f"{rounded:,.{max(0, digits - 1 - (math.floor(math.log10(rounded)) if rounded else 0))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _scientific(x: float, digits: int) -> str:
    mantissa, power = f"{x:.{digits - 1}e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(power)}"


def _scaled(x: float, ladder: Mapping[str, int], digits: int, gap: str = "") -> str:
    """x over the first rung that leaves less than 1,000 once rounded: 999,999,999 is "1B", 1,010 MiB "0.986 GiB"."""
    *_, largest = ladder.values()
    if x >= LARGEST_SCALED * largest:
        base = next((suffix for suffix, factor in ladder.items() if factor == 1), "")
        return _scientific(x, digits) + gap + base
    shown = ""
    for suffix, factor in ladder.items():
        number = _plain(x / factor, digits)
        shown = number + gap + suffix
        if x / factor < 1000 and float(number.replace(",", "")) < 1000:
            break
    return shown


@_total
def format_number(x: float, digits: int = _DIGITS) -> str:
    """A number without unit: "0.25", "1,230", "6e-4", "1.23e9"."""
    return _plain(x, digits) if x == 0 or 1e-3 <= x < 1e6 else _scientific(x, digits)


@_total
def format_count(n: float, digits: int = _DIGITS) -> str:
    """A count: exact below a million ("19,073"), else "124M"."""
    if round(n) < _DECIMAL["M"]:
        return f"{round(n):,}" if n >= 1000 or n == int(n) else _plain(n, digits)
    return _scaled(n, _LARGE_WORDS, digits)


@_total
def format_count_exact(n: float) -> str:
    """A count in full: "124,439,808"; from 10^15 on "1.235e15", for nobody reads more digits."""
    return f"{round(n):,}" if n < LARGEST_PLAIN else _scientific(n, _DIGITS)


@_total
def format_bytes(n: float, digits: int = _DIGITS) -> str:
    """Bytes in powers of 1024: "1.63 GiB"; exact below a KiB."""
    return f"{n:,.0f} B" if n < 1024 else _scaled(n, _BYTES_1024, digits, " ")


@_total
def format_bytes_decimal(n: float, digits: int = _DIGITS) -> str:
    """Bytes in powers of 1000: "1.75 GB"."""
    return _scaled(n, _BYTES_1000, digits, " ")


@_total
def format_flops(x: float, digits: int = _DIGITS) -> str:
    """A number of operations (FLOP): "7.5e18 FLOPs"."""
    return f"{_plain(x, digits) if x < 1e6 else _scientific(x, digits)} FLOPs"


@_total
def format_flops_rate(x: float, digits: int = _DIGITS) -> str:
    """FLOP/s: "150 TFLOP/s"."""
    return _scaled(x, {"": 1, **_DECIMAL}, digits, " ") + "FLOP/s"


@_total
def format_rate(x: float, unit: str = "tokens/s", digits: int = _DIGITS) -> str:
    """A rate in base units: "218,000 tokens/s"."""
    return f"{_plain(x, digits)} {unit}"


@_total
def format_fraction(x: float, digits: int = _DIGITS) -> str:
    """A fraction of one as a percentage: "10.5 %", "0.123 %"; "<0.01 %" below that."""
    return "<0.01 %" if 0 < x < 0.00005 else f"{_plain(100 * x, digits)} %"


@_total
def format_money(x: float, digits: int = _DIGITS) -> str:
    """US dollars: "$0.0043", "$34.7", "$194,000", "$77.1M"."""
    return "$" + (_plain(x, digits) if round(x) < _DECIMAL["M"] else _scaled(x, _LARGE_WORDS, digits))


@_total
def format_duration(seconds: float, digits: int = _DIGITS) -> str:
    """Seconds as two units: "12 d 4 h", "24 h 10 min", "1 h 44 min", "3 min 20 s"; below a minute "3.2 s", "850 ms".

    Rounded in the smaller unit. Days from two of them on: "1 d" would hide up to half an hour of a day.
    """
    # `finer` is the resolution of the next line: 59.96 s is "1 min" because it would round to "60 s" there.
    for unit, below, finer in (("d", "h", 60.0), ("h", "min", 1.0), ("min", "s", 0.1)):
        big, small = int(_SECONDS[unit]), int(_SECONDS[below])
        if round(seconds / finer) * finer >= big * (2 if unit == "d" else 1):
            first, second = divmod(float(f"{round(seconds / small):.{digits}g}"), big // small)
            return f"{_plain(first, digits)} {unit}" + (f" {second:.0f} {below}" if second and first < 100 else "")
    rounded = float(f"{seconds:.{digits}g}")
    unit = "s" if rounded >= 1 or not rounded else "ms" if rounded >= 1e-3 else "us"
    return f"{_plain(seconds / float(_SECONDS[unit]), digits)} {unit}"


def told_apart(spell: Callable[..., str], *values: float | None) -> tuple[str, ...]:
    """Each value by a formatter, with as many digits as it takes to tell different ones apart: 79.21 of 79.15 GiB.

    spell: one of the formatters with `digits`. At most fifteen digits, which is what a float tells apart.
    """
    texts: tuple[str, ...] = ()
    for digits in range(_DIGITS, 16):
        texts = tuple(spell(value, digits=digits) for value in values)
        if len(set(texts)) == len(set(values)):
            break
    return texts
