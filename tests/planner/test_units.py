"""Text to number and back: every accepted form, every refusal, and round trips."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from planner import units
from planner.errors import PlanError, UnitError

PARSERS: list[Callable[..., float]] = [
    units.parse_count,
    units.parse_number,
    units.parse_bytes,
    units.parse_duration,
    units.parse_money,
]

COUNTS = {
    125_000_000: ("125M", "125m", "125 M", "  125M\t", "+125M"),
    1_300_000_000: ("1.3B", "1.3b", "1.3G", "1.3g", "1,300M"),
    15 * 10**12: ("15T", "15t", "0.015P"),
    8000: ("8k", "8K", "8e3", "8.0E+3"),
    4 * 2**20: ("4Mi", "4mi", "4096Ki", "4 Mi"),
    2**30: ("1Gi", "1GI"),
    512: (".5Ki", "0512", "512."),
    1_000_000: ("1_000_000", "1,000,000", "1,000k", "1e6"),
    1_234_500: ("1,234.5k", "1.234_5M"),
    10**30: ("1e30",),
    100_000: ("0.1M",),  # 0.1 is not exact as a float
    4_503_599_627_370_497_000: ("4503599627370497k",),  # beyond the integers of a float
}
NUMBERS = {6e-4: ("6e-4", "0.0006"), 0.01: ("0.01", "1%"), 0.125: ("12.5 %",), 1979.0: ("1979", "1,979")}
BYTES = {
    80 * 10**9: ("80GB", "80gb", "80 GB", "8e10", "8e10 B", "80000MB"),
    80 * 2**30: ("80GiB", "80gib", "80 GiB"),
    1024: ("1KiB", "1,024", "1.024KB", "1.024kb"),
    2 * 10**12: ("2TB", "0.002PB"),
    2 * 2**40: ("2TiB", "2048 GiB"),
    512 * 2**20: ("512 MiB", "512MiB"),
    1_750_199_173: ("1.63 GiB",),  # rounded to a byte
}
DURATIONS = {
    9000.0: ("2h30m", "2h 30min", "2:30:00", "150m", "2.5h", "9000", "9e3", "9e3s", "2h29m60s"),
    129_600.0: ("1d12h", "1 d 12 h", "36:00:00", "1d0h720m"),
    6240.0: ("1 h 44 min",),
    45.0: ("45s", "45", "0:00:45"),
    0.5: ("500ms", "0.5s", "500000us"),
}
MONEY = {
    500.0: ("$500", "500", "500 USD", "500usd", "US$500", "$ 500", "500$", " $500.00 ", "0.5k USD"),
    2500.0: ("$2.5k", "2.5k$", "2.5K USD"),
    1234.5: ("$1,234.50",),
    77_100_000.0: ("$77.1M",),
}
TABLES: list[Mapping[int, tuple[str, ...]] | Mapping[float, tuple[str, ...]]] = [
    COUNTS,
    NUMBERS,
    BYTES,
    DURATIONS,
    MONEY,
]
READ = [
    (parser, text, value)
    for parser, table in zip(PARSERS, TABLES, strict=True)
    for value, texts in table.items()
    for text in texts
]

EVERYWHERE = {  # why -> texts that every parser refuses for it
    "empty": ("", "  "),
    "negative": ("-5", "-0.5", "-1e9"),
    "zero": ("0", "0.0", "0e999999999"),
    "not a finite number": ("nan", "inf", "-Infinity"),
    "too large": ("1e400", "1e999999999999999999999"),
    "too small": ("1e-400",),
    "101 characters": ("9" * 101,),
    "suffix 'Q' is not known": ("12Q", "12 Q"),
    "suffix 'e' is not known": ("1e",),
    "not a plain ASCII digit": ("١٢", "１２", "−5", "5\x00"),
    "hexadecimal": ("0x10",),
    "does not begin with a number": ("--", "--5", ".", "M", "_1", "$$"),
    "'.5' follows": ("1e9.5",),
    "'.3' follows": ("1.2.3",),
    "'/2' follows": ("1/2",),
    "one blank": ("5  %",),
    "groups of three": ("1,00", "1,5", "1,0000", "0,500", "1234,567", "1 000", "1,000,00"),
    "single underscores": ("1,000_000", "1__0", "1_"),
}
REFUSED = [(parser, text, why) for parser in PARSERS for why, texts in EVERYWHERE.items() for text in texts] + [
    (units.parse_count, "0.5", "0.5, and a count is a whole number"),
    (units.parse_count, "1.0005k", "1000.5"),
    (units.parse_count, "2.5e3k", "both an exponent and the suffix 'k'"),
    (units.parse_count, "1e31", "larger than 10^30"),
    (units.parse_count, "125 M B", "one suffix"),
    (units.parse_count, "1E", "suffix 'E' is not known"),
    (units.parse_count, "12%", "suffix '%' is not known"),
    (units.parse_number, "150TFLOPS", "suffix 'TFLOPS' is not known"),
    (units.parse_number, "1e2%", "both an exponent"),
    (units.parse_number, "9e200", "larger than 10^200"),
    (units.parse_bytes, "80Gb", "is a bit"),
    (units.parse_bytes, "80Gib", "is a bit"),
    (units.parse_bytes, "80b", "is a bit"),
    (units.parse_bytes, "1.5", "no fraction of a byte"),
    (units.parse_bytes, "1.5B", "no fraction of a byte"),
    (units.parse_bytes, "0.0001KB", "no fraction of a byte"),
    (units.parse_duration, "1:30", "h:mm:ss"),
    (units.parse_duration, "1:75:00", "h:mm:ss"),
    (units.parse_duration, "0:00:00", "zero"),
    (units.parse_duration, "30m2h", "from large to small"),
    (units.parse_duration, "2h2h", "from large to small"),
    (units.parse_duration, "2h30", "'h30' follows"),
    (units.parse_duration, "1h -30m", "follows"),
    (units.parse_money, "€5", "only US dollars"),
    (units.parse_money, "500 EUR", "only US dollars"),
    (units.parse_money, "A$5", "only US dollars"),
    (units.parse_money, "-$5", "negative"),
    (units.parse_money, "$-5", "negative"),
    (units.parse_money, "$5$", "'$' follows"),
    (units.parse_money, "$", "empty"),
    (units.parse_money, "$2Ki", "suffix 'Ki' is not known"),
]
HINTS = [
    (units.parse_count, "12KB", "did you mean k or B or Ki?"),
    (units.parse_count, "12mb", "did you mean M or B or Mi?"),
    (units.parse_count, "12Q", "known: k, M, B, T, G, P, Ki, Mi, Gi, Ti, Pi"),
    (units.parse_bytes, "80G", "did you mean GB or GiB?"),
    (units.parse_duration, "2H", "did you mean h?"),
]


@pytest.mark.parametrize(("parse", "text", "value"), READ)
def test_text_that_is_read(parse: Callable[..., float], text: str, value: float) -> None:
    got = parse(text, name="--x")
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(("parse", "text", "why"), REFUSED)
def test_text_that_is_refused_says_what_why_and_how_to_mend_it(
    parse: Callable[..., float], text: str, why: str
) -> None:
    with pytest.raises(UnitError) as caught:
        parse(text, name="--x")
    error = caught.value
    assert isinstance(error, PlanError)
    assert error.what.startswith("--x: '")
    assert error.what.isprintable()
    assert len(error.what) < 100
    assert why in error.why
    assert error.remedy
    assert str(error).count("\n") == 2


@pytest.mark.parametrize(("parse", "text", "hint"), HINTS)
def test_an_unknown_suffix_gets_the_nearest(parse: Callable[..., float], text: str, hint: str) -> None:
    with pytest.raises(UnitError) as caught:
        parse(text, name="--x")
    assert hint in caught.value.remedy


@pytest.mark.parametrize("parse", PARSERS)
def test_zero_is_read_only_where_allowed(parse: Callable[..., float]) -> None:
    assert parse("0", name="--x", allow_zero=True) == 0


WRITTEN: dict[Callable[..., str], dict[Any, str]] = {
    units.format_count: {0: "0", 12: "12", 12.5: "12.5", 19_073: "19,073", 19_073.4: "19,073", -19_073: "-19,073"}
    | {999_999: "999,999", 999_999.6: "1M", 124_439_808: "124M", 1_557_611_200: "1.56B", 999_999_999: "1B"}
    | {10**10: "10B", 15 * 10**12: "15T", 15 * 10**15: "15,000T", 10**30: "1e30"},
    units.format_count_exact: {124_439_808: "124,439,808", 2**60 + 1: "1.15e18"},
    units.format_bytes: {0: "0 B", 512: "512 B", 1_750_199_173: "1.63 GiB", 80 * 2**30: "80 GiB", -(2**20): "-1 MiB"}
    | {1023: "1,023 B", 1024: "1 KiB", 2**30 - 1: "1 GiB", 1010 * 2**20: "0.986 GiB", 123.4 * 2**30: "123 GiB"},
    units.format_bytes_decimal: {1_750_199_173: "1.75 GB", 80 * 10**9: "80 GB", 999_999: "1 MB"},
    units.format_flops: {7.5e18: "7.5e18 FLOPs", 3.8123e25: "3.81e25 FLOPs", 12: "12 FLOPs"},
    units.format_flops_rate: {150e12: "150 TFLOP/s", 989.5e12: "990 TFLOP/s", 1.979e15: "1.98 PFLOP/s"}
    | {12: "12 FLOP/s", 9.9999e14: "1 PFLOP/s"},
    units.format_rate: {218_345: "218,000 tokens/s", 0.31: "0.31 tokens/s"},
    units.format_fraction: {0.10491: "10.5 %", 1: "100 %", 0: "0 %", 1e-6: "<0.01 %", 0.00123: "0.123 %"},
    units.format_money: {34.72: "$34.7", 194_444.4: "$194,000", 77.1e6: "$77.1M", 0: "$0", 0.0043: "$0.0043"}
    | {999.996: "$1,000", 999_999.9: "$1M", 999.9e6: "$1B", -500: "-$500"},
    units.format_duration: {6240: "1 h 44 min", 1_051_200: "12 d 4 h", 1e8: "1,160 d", 200: "3 min 20 s", 3.2: "3.2 s"}
    | {0.85: "850 ms", 0.00025: "250 us", 0: "0 s", -90: "-1 min 30 s"}
    | {
        59.94: "59.9 s",
        59.96: "1 min",
        3599.7: "1 h",
        84_700: "23 h 30 min",
        86_399: "24 h",
        87_120: "24 h 10 min",
        359_900: "4 d 4 h",
        0.9999: "1 s",
    },
    units.format_number: {0.25: "0.25", 6e-4: "6e-4", 0.003: "0.003", 0: "0", 1234.6: "1,230", -2.5: "-2.5"}
    | {1.2346e9: "1.23e9"},
    units.spell_count: {0: "0", 125_000_000: "125M", 1_300_000_000: "1.3B", 524_288: "524288", 1000: "1k"}
    | {1500: "1500", 100_000: "100k", 10**10: "10B", 10**15: "1P", 10**30: "1e30"},
}
FORMATTERS = [write for write in WRITTEN if write is not units.spell_count]


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [(write, value, text) for write, table in WRITTEN.items() for value, text in table.items()],
)
def test_numbers_that_are_written(write: Callable[..., str], value: float, text: str) -> None:
    assert write(value) == text


def test_digits_and_units_can_be_chosen() -> None:
    assert units.format_number(math.pi, digits=5) == "3.1416"
    assert units.format_rate(12.5, unit="steps/s") == "12.5 steps/s"


@pytest.mark.parametrize("write", FORMATTERS)
def test_every_formatter_copes_with_what_is_not_a_number(write: Callable[..., str]) -> None:
    assert len(FORMATTERS) == len([name for name in vars(units) if name.startswith("format_")])
    assert write(None) == "unknown"
    assert write(math.nan) == "not a number"
    assert write(math.inf) == "infinite"
    assert write(-math.inf) == "-infinite"


@given(st.integers(1, 10**30) | st.builds(lambda d, z: d * 10**z, st.integers(1, 9999), st.integers(0, 26)))
def test_a_spelled_count_is_read_back_exactly(n: int) -> None:
    text = units.spell_count(n)
    assert units.parse_count(text, name="n") == n
    assert len(text) <= len(str(n))


@given(st.integers(1, 10**30))
def test_a_count_with_separators_is_read_back_exactly(n: int) -> None:
    assert units.parse_count(f"{n:,}", name="n") == units.parse_count(f"{n:_}", name="n") == n


@given(st.integers(1, 10**21))
def test_formatted_sizes_and_counts_are_read_back_within_rounding(n: int) -> None:
    assert units.parse_bytes(units.format_bytes(n), name="n") == pytest.approx(n, rel=0.005)
    assert units.parse_bytes(units.format_bytes_decimal(n), name="n") == pytest.approx(n, rel=0.005)
    if n < 10**18:
        assert units.parse_count(units.format_count(n), name="n") == pytest.approx(n, rel=0.005)


WITH_DIGITS = [write for write in FORMATTERS if write is not units.format_count_exact]


@pytest.mark.parametrize("write", WITH_DIGITS)
@given(st.integers(10**6, 10**30) | st.floats(1e-4, 1e14))
def test_no_number_for_people_has_more_than_three_significant_digits(write: Callable[..., str], x: float) -> None:
    """Counts and bytes in full aside. Each unit of a duration has its own digits, three in all of the smaller unit."""
    if x < 10**6 and write in (units.format_count, units.format_bytes, units.format_duration):
        return
    number = re.match(r"\D*([\d,.]+)", write(x))
    assert number is not None
    digits = number[1].replace(",", "").replace(".", "").strip("0")
    assert len(digits) <= 3, write(x)


@pytest.mark.parametrize("write", WITH_DIGITS)
@given(st.lists(st.none() | st.floats(1.0, 1e12), min_size=2, max_size=3))
def test_different_values_are_told_apart(write: Callable[..., str], values: list[float | None]) -> None:
    texts = units.told_apart(write, *values)
    assert len(texts) == len(values)
    for (a, x), (b, y) in itertools.combinations(zip(texts, values, strict=True), 2):
        if x is not None and y is not None and abs(x - y) > 1.0 + 1e-9 * max(x, y):
            assert a != b or write is units.format_duration, (a, x, y)
        assert x != y or a == b


def test_digits_are_added_only_where_they_are_needed() -> None:
    gib = 2**30
    assert units.told_apart(units.format_bytes, 79.21 * gib, 79.15 * gib) == ("79.21 GiB", "79.15 GiB")
    assert units.told_apart(units.format_bytes, 17.2345 * gib, 79.15 * gib) == ("17.2 GiB", "79.2 GiB")
    assert units.told_apart(units.format_bytes, 5 * gib, None, 5 * gib) == ("5 GiB", "unknown", "5 GiB")


@given(st.floats(1e-4, 1e9))
def test_formatted_durations_are_read_back_within_rounding(seconds: float) -> None:
    assert units.parse_duration(units.format_duration(seconds), name="t") == pytest.approx(seconds, rel=0.03)


@given(st.floats(0.01, 1e14))
def test_formatted_money_is_read_back_within_rounding(dollars: float) -> None:
    assert units.parse_money(units.format_money(dollars), name="c") == pytest.approx(dollars, rel=0.005, abs=0.005)


@given(st.floats(1e-150, 1e150))
def test_a_float_is_read_as_python_reads_it(x: float) -> None:
    assert units.parse_number(repr(x), name="x") == x


@pytest.mark.parametrize("parse", PARSERS)
@given(text=st.text() | st.text(alphabet="0123456789.,_+-eEkKMGBTiIhmsd$%: xUSD", max_size=15))
@example(text="1e" + "9" * 90)
@example(text="0." + "0" * 90 + "1e-200")
@example(text="\ud800")
def test_any_text_is_read_or_refused_with_a_unit_error(parse: Callable[..., float], text: str) -> None:
    try:
        value = parse(text, name="--x")
    except UnitError as error:
        assert error.why and error.remedy
    else:
        assert 0 < value < math.inf
