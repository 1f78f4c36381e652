"""Amounts as people write them: ``1.3G`` FLOPs, ``2ms``, and bands such as ``1.2G..1.3G``. No torch."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def parse_quantity(text: str) -> int:
    """``1.3G`` -> 1300000000; exact, units K, M, G and T.

    Raises:
        ValueError: not a number with such a unit.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\d+)?)\s*([KMGT]?)", text.strip(), re.IGNORECASE)
    if not match:
        raise ValueError(f"{text!r} is not an amount; write a number with K, M, G or T, such as 1.3G")
    return int(Decimal(match[1]) * _UNITS[match[2].upper()])


def format_quantity(amount: int, digits: int = 4) -> str:
    """1289937600 -> ``1.29 G``: at most ``digits`` significant digits."""
    for unit in ("T", "G", "M", "K"):
        if amount >= _UNITS[unit]:
            return f"{float(f'{amount / _UNITS[unit]:.{digits}g}'):g} {unit}"
    return str(amount)


_SECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


def parse_duration(text: str) -> int:
    """``1.5ms`` -> 1500000 nanoseconds; exact, units s, ms, us and ns.

    Raises:
        ValueError: not a number with such a unit.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|ms|us|ns)", text.strip(), re.IGNORECASE)
    if not match:
        raise ValueError(f"{text!r} is not a duration; write a number with s, ms, us or ns, such as 2ms")
    return int(Decimal(match[1]) * _SECONDS[match[2].lower()])


def format_duration(nanoseconds: int, digits: int = 4) -> str:
    """2130000 -> ``2.13 ms``: at most ``digits`` significant digits."""
    unit = next((unit for unit in _SECONDS if nanoseconds >= _SECONDS[unit]), "ns")
    return f"{float(f'{nanoseconds / _SECONDS[unit]:.{digits}g}'):g} {unit}"


@dataclass(frozen=True)
class Band:
    """A closed range of amounts, open at an end that is None."""

    low: int | None = None
    high: int | None = None

    def __post_init__(self) -> None:
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"the band {self.low:,}..{self.high:,} is reversed; write the smaller amount first")

    @classmethod
    def parse(cls, text: str | None, read: Callable[[str], int] = parse_quantity) -> Band:
        """``1.3G`` is "at most 1.3e9", ``1.2G..1.3G`` a band, ``1.2G..`` "at least"; None and "" do not bind.

        Args:
            read: what an end of the band means.

        Raises:
            ValueError: an amount that cannot be read, or a band that is upside down.
        """
        if not text:
            return cls()
        low, dots, high = str(text).partition("..")
        if not dots:
            return cls(high=read(low))
        return cls(read(low) if low.strip() else None, read(high) if high.strip() else None)

    def __contains__(self, amount: int) -> bool:
        return (self.low is None or amount >= self.low) and (self.high is None or amount <= self.high)

    def __str__(self) -> str:
        return self.text(partial(format_quantity, digits=6))

    def text(self, show: Callable[[int], str]) -> str:
        """``1.2 G to 1.3 G``, with amounts as ``show`` writes them."""
        low, high = (None if end is None else show(end) for end in (self.low, self.high))
        if low is None:
            return "any" if high is None else f"at most {high}"
        return f"at least {low}" if high is None else f"{low} to {high}"
