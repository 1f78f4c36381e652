"""Amounts, durations and bands: what is read, what is printed, what is refused."""

import pytest

from psvit.units import Band, format_duration, format_quantity, parse_duration, parse_quantity


def test_amounts_are_read_exactly() -> None:
    assert parse_quantity("1.3G") == 1_300_000_000
    assert parse_quantity("16m") == 16_000_000
    assert parse_quantity("4.35 K") == 4350
    assert parse_quantity("7") == 7
    assert parse_quantity("1.3e9") == 1_300_000_000
    for wrong in ("", "G", "-1G", "1.3GB", "1,3G", "nan"):
        with pytest.raises(ValueError, match="is not an amount"):
            parse_quantity(wrong)


def test_bands() -> None:
    assert 1_300_000_000 in Band.parse("1.3G")
    assert 1_300_000_001 not in Band.parse("1.3G")
    assert Band.parse("1.2G..1.3G") == Band(1_200_000_000, 1_300_000_000)
    assert Band.parse("1.2G..") == Band(1_200_000_000, None)
    assert 10**18 in Band.parse(None)
    with pytest.raises(ValueError, match="is reversed"):
        Band.parse("2G..1G")


def test_amounts_are_printed_short() -> None:
    assert [format_quantity(n) for n in (7, 1500, 15_606_280, 1_257_852_480)] == ["7", "1.5 K", "15.61 M", "1.258 G"]


def test_durations_are_read_exactly_and_printed_short() -> None:
    read = {"2ms": 2_000_000, "500 us": 500_000, "1.5MS": 1_500_000, "0.3s": 300_000_000, "40ns": 40}
    assert {text: parse_duration(text) for text in read} == read
    for wrong in ("", "2", "ms", "2m", "-2ms", "2 hours", "1e3us", "2M"):
        with pytest.raises(ValueError, match="is not a duration; write a number with s, ms, us or ns, such as 2ms"):
            parse_duration(wrong)
    printed = {7: "7 ns", 1500: "1.5 us", 2_130_000: "2.13 ms", 2_134_567: "2.135 ms", 3 * 10**9: "3 s", 0: "0 ns"}
    assert {amount: format_duration(amount) for amount in printed} == printed
