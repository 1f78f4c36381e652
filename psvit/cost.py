"""FLOPs and parameters of a network, exactly, from its shapes. No torch, no model is built.

FLOPs are multiply-adds of every matrix product and convolution, as the ViT literature prints them (DeiT-Tiny is 1.3 G):
Q, K, V, QK^T, map x V, projection, MLP, token pooling, patch embedding and head. They equal half of what
``torch.utils.flop_counter.FlopCounterMode`` counts on the network. A stage's cost depends only on how many basic and
sharing layers it has, which is what makes counting and drawing within a budget exact (``supernet/space.py``).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

from psvit.arch import BASIC, Architecture, NetworkSpec


@dataclass(frozen=True)
class Cost:
    """FLOPs (multiply-adds an image) and parameters."""

    flops: int
    params: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.params + other.params)

    def __mul__(self, times: int) -> Cost:
        return Cost(self.flops * times, self.params * times)


def layer_cost(spec: NetworkSpec, stage: int, layer: str) -> Cost:
    """Cost of one ``B`` or ``S`` layer of a stage (from 0).

    With N tokens of width D and an MLP ratio r, a basic layer costs N (4 + 2r) D^2 + 2 N^2 D multiply-adds and a
    sharing layer, which has no Q, K and QK^T, N (2 + 2r) D^2 + N^2 D.
    """
    tokens, width = spec.tokens[stage], spec.widths[stage]
    hidden = spec.mlp_ratio * width
    projections = 3 if layer == BASIC else 1  # Q, K, V or V alone
    products = 2 if layer == BASIC else 1  # QK^T and map x V, or the latter alone
    matrices = (projections + 1) * width * width + 2 * width * hidden
    biases = (projections + 1) * width + hidden + width
    norms = 2 * 2 * width
    return Cost(tokens * matrices + products * tokens * tokens * width, matrices + biases + norms)


def stem_cost(spec: NetworkSpec) -> Cost:
    """Cost of what comes before the first stage: patch embedding, class token and learned positions."""
    patches = spec.patch_grid[0] * spec.patch_grid[1]
    matrix = spec.channels * spec.patch_size**2 * spec.widths[0]
    tokens = spec.tokens[0] + spec.class_tokens  # positions of all tokens, and the class token itself
    return Cost(patches * matrix, matrix + spec.widths[0] + tokens * spec.widths[0])


def pool_cost(spec: NetworkSpec, stage: int) -> Cost:
    """Cost of the token pooling that leads into a stage (from 0); the first stage has none."""
    if stage == 0:
        return Cost(0, 0)
    taps = 1  # max and average pool without weights, then map linearly
    if spec.pooling == "conv":
        taps = spec.pool_kernel if spec.kind == "1d" else spec.pool_kernel**2
    matrix = taps * spec.widths[stage - 1] * spec.widths[stage]
    return Cost(spec.tokens[stage] * matrix, matrix + spec.widths[stage])


def head_cost(spec: NetworkSpec) -> Cost:
    """Cost of what comes after the last stage: final norm and linear head."""
    matrix = spec.widths[-1] * spec.classes
    return Cost(matrix, matrix + spec.classes + 2 * spec.widths[-1])


def fixed_cost(spec: NetworkSpec) -> Cost:
    """Cost of all that every architecture of these dimensions has: stem, token poolings and head."""
    total = stem_cost(spec) + head_cost(spec)
    for stage in range(spec.stages):
        total += pool_cost(spec, stage)
    return total


def stage_cost(spec: NetworkSpec, stage: int, basic: int, sharing: int) -> Cost:
    """Cost of a stage's (from 0) layers, given how many are basic and sharing; without the pooling before it."""
    return layer_cost(spec, stage, "B") * basic + layer_cost(spec, stage, "S") * sharing


def network_cost(spec: NetworkSpec, architecture: Architecture) -> Cost:
    """Cost of a whole network.

    Raises:
        ValueError: the architecture has another number of stages than the dimensions.
    """
    if len(architecture.stages) != spec.stages:
        raise ValueError(f"{architecture} has {len(architecture.stages)} stages, the network {spec.stages}")
    total = fixed_cost(spec)
    for stage, (basic, sharing) in enumerate(architecture.counts):
        total += stage_cost(spec, stage, basic, sharing)
    return total


_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def parse_quantity(text: str) -> int:
    """``1.3G`` -> 1300000000; exact, units K, M, G and T.

    Raises:
        ValueError: not a number with such a unit.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\d+)?)\s*([KMGT]?)", text.strip(), re.IGNORECASE)
    if not match:
        raise ValueError(f"{text!r} is no amount; write a number with K, M, G or T, such as 1.3G")
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
        raise ValueError(f"{text!r} is no duration; write a number with s, ms, us or ns, such as 2ms")
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
            raise ValueError(f"the band {self.low:,}..{self.high:,} is upside down; write the smaller amount first")

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
