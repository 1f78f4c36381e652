"""The search space: its paths and architectures, counted and drawn exactly, with or without a budget. No torch.

What a stage costs depends only on how many basic and sharing layers it has. So the architectures of a space fall into
few **cost classes**, one (basic, sharing) pair a stage: 21^3 = 9261 for 3 stages of 6 cells. A class that has ``b``
basic and ``s`` sharing layers in a stage holds C(b+s-1, s) words there, since the first layer is basic. Numbering the
architectures class by class therefore makes counting, numbering and uniform drawing within any budget exact and
immediate: nothing is drawn and thrown away.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from psvit.arch import BASIC, IDENTITY, SHARING, Architecture, CellPath, NetworkSpec
from psvit.cost import Cost, fixed_cost, layer_cost, network_cost
from psvit.units import Band, format_quantity

ANY = Band()  # an amount that no budget binds
_MOST_CLASSES = 10**7  # 80 MB for each number that a class has


def _six_digits(amount: int) -> str:
    return format_quantity(amount, digits=6)


@dataclass(frozen=True)
class Additive:
    """A cost that adds up over layers: FLOPs, parameters, or a latency in nanoseconds.

    Attributes:
        unit: what it is called in a message.
        fixed: of all that every architecture has.
        basic: of one basic layer, for each stage.
        sharing: of one sharing layer, for each stage.
        show: how an amount is written.
    """

    unit: str
    fixed: int
    basic: tuple[int, ...]
    sharing: tuple[int, ...]
    show: Callable[[int], str] = _six_digits

    def of(self, architecture: Architecture) -> int:
        """The cost of an architecture, which must have as many stages."""
        layers = zip(self.basic, self.sharing, architecture.counts, strict=True)
        return self.fixed + sum(
            basic * of_basic + sharing * of_sharing for of_basic, of_sharing, (basic, sharing) in layers
        )


@dataclass(frozen=True)
class Limit:
    """A band that an architecture's cost must lie in."""

    cost: Additive
    band: Band

    def __str__(self) -> str:
        return f"{self.cost.unit} {self.band.text(self.cost.show)}"


@dataclass(frozen=True)
class SearchSpace:
    """All architectures of some dimensions with up to ``cells`` layers a stage.

    Raises:
        ValueError: no cell at all.
    """

    spec: NetworkSpec
    cells: int = 6

    def __post_init__(self) -> None:
        if self.cells < 1:
            raise ValueError(f"cells is {self.cells}; a stage needs at least one cell")

    @property
    def label(self) -> str:
        """What to call it in a message."""
        return self.spec.name or "this space"

    @property
    def paths(self) -> int:
        """Number of valid paths: 48,228,544 for 3 stages of 6 cells."""
        # of a stage: k identities, a basic layer, then anything: the sum of 3^(cells-1-k) over k
        return ((3**self.cells - 1) // 2) ** self.spec.stages

    @property
    def architectures(self) -> int:
        """Number of architectures: 63^3 = 250,047 for 3 stages of 6 cells."""
        return (2**self.cells - 1) ** self.spec.stages

    def check(self, architecture: Architecture) -> None:
        """Refuse an architecture of another space.

        Raises:
            ValueError: another number of stages, or more layers in a stage than cells.
        """
        if len(architecture.stages) != self.spec.stages:
            raise ValueError(f"{architecture} has {len(architecture.stages)} stages, the space {self.spec.stages}")
        CellPath.canonical(architecture, self.cells)

    def cost(self, architecture: Architecture) -> Cost:
        """FLOPs and parameters of an architecture of this space.

        Raises:
            ValueError: it is of another space.
        """
        self.check(architecture)
        return network_cost(self.spec, architecture)

    def placement(self, architecture: Architecture, rng: np.random.Generator) -> CellPath:
        """A path of this architecture, uniform over all of them.

        Raises:
            ValueError: the architecture is of another space.
        """
        self.check(architecture)
        stages = []
        for letters in architecture.stages:
            cells = [IDENTITY] * self.cells
            for cell, letter in zip(sorted(rng.permutation(self.cells)[: len(letters)]), letters, strict=True):
                cells[cell] = letter
            stages.append("".join(cells))
        return CellPath(tuple(stages))

    def within(self, flops: Band = ANY, params: Band = ANY, *further: Limit) -> Subspace:
        """The architectures within a budget of FLOPs, parameters and any further costs; may be empty."""
        return Subspace(self, self._limits(flops, params, *further))

    def feasible(self, flops: Band = ANY, params: Band = ANY, *further: Limit) -> Subspace:
        """The architectures within a budget, one at least.

        Raises:
            ValueError: nothing meets the budget; the message has the reachable range and the nearest architecture.
        """
        subspace = self.within(flops, params, *further)
        if not subspace.count:
            limits = self._limits(flops, params, *further)
            everything, nearest = self.within(), self.nearest(flops, params, *further)
            cost = self.cost(nearest)
            reach = [
                f"{reached.text(limit.cost.show)} {limit.cost.unit}"
                for limit in limits
                if limit.band != ANY and (reached := everything.reach(limit.cost))
            ]
            beside = "".join(f" and {limit.cost.show(limit.cost.of(nearest))} {limit.cost.unit}" for limit in further)
            raise ValueError(
                f"no architecture of {self.label} meets {budget_text(flops, params, *further)}: the space "
                f"reaches {' and '.join(reach)}; the nearest is {nearest} with {cost.flops:,} FLOPs and "
                f"{cost.params:,} parameters{beside}"
            )
        return subspace

    def nearest(self, flops: Band = ANY, params: Band = ANY, *further: Limit) -> Architecture:
        """An architecture that misses the bands least, by the sum of the relative distances to their ends."""
        miss = np.zeros(len(self._ways))
        for limit in self._limits(flops, params, *further):
            amounts, band = self._amounts(limit.cost), limit.band
            if band.low is not None:
                miss += np.maximum(1 - amounts / max(band.low, 1), 0)
            if band.high is not None:
                miss += np.maximum(amounts / max(band.high, 1) - 1, 0)
        return Architecture(
            tuple(_word(basic, sharing, 0) for basic, sharing in self._counts_of_class(int(miss.argmin())))
        )

    def _limits(self, flops: Band, params: Band, *further: Limit) -> tuple[Limit, ...]:
        of_flops, of_params = self._costs
        return Limit(of_flops, flops), Limit(of_params, params), *further

    @cached_property
    def _costs(self) -> tuple[Additive, Additive]:
        """FLOPs and parameters."""
        fixed, stages = fixed_cost(self.spec), range(self.spec.stages)
        basic, sharing = ([layer_cost(self.spec, stage, letter) for stage in stages] for letter in (BASIC, SHARING))
        return (
            Additive("FLOPs", fixed.flops, tuple(c.flops for c in basic), tuple(c.flops for c in sharing)),
            Additive("parameters", fixed.params, tuple(c.params for c in basic), tuple(c.params for c in sharing)),
        )

    @cached_property
    def _stage_counts(self) -> dict[tuple[int, int], int]:
        """(basic, sharing) layers of each class of one stage -> the number of that class."""
        counts = [(basic, sharing) for basic in range(1, self.cells + 1) for sharing in range(self.cells - basic + 1)]
        return {pair: number for number, pair in enumerate(counts)}

    @cached_property
    def _ways(self) -> npt.NDArray[Any]:
        """How many architectures each cost class has."""
        size = len(self._stage_counts) ** self.spec.stages
        if size > _MOST_CLASSES:
            raise ValueError(
                f"{self.spec.stages} stages of {self.cells} cells have {size:,} different costs, too many to count "
                f"exactly (at most {_MOST_CLASSES:,}); use fewer stages or cells"
            )
        integer = np.int64 if self.architectures < 2**63 else object
        ways: npt.NDArray[Any] = np.array([1], dtype=integer)
        stage_ways = np.array([_words(*pair) for pair in self._stage_counts], dtype=integer)
        for _ in range(self.spec.stages):
            ways = np.multiply.outer(ways, stage_ways).ravel()
        return ways

    def _amounts(self, cost: Additive) -> npt.NDArray[np.int64]:
        """A cost of each cost class."""
        amounts = np.array([cost.fixed])
        for of_basic, of_sharing in zip(cost.basic, cost.sharing, strict=True):
            stage = [basic * of_basic + sharing * of_sharing for basic, sharing in self._stage_counts]
            amounts = np.add.outer(amounts, stage).ravel()
        return amounts

    def _class_of(self, architecture: Architecture) -> int:
        number = 0
        for pair in architecture.counts:
            number = number * len(self._stage_counts) + self._stage_counts[pair]
        return number

    def _counts_of_class(self, number: int) -> list[tuple[int, int]]:
        pairs = list(self._stage_counts)
        return [pairs[i] for i in np.unravel_index(number, (len(pairs),) * self.spec.stages)]


class Subspace:
    """The architectures of a space within a budget, numbered from 0 to ``count - 1``.

    Attributes:
        space: the whole space.
        count: how many architectures are within the budget, exactly (``len`` cannot say numbers beyond 2^63).
        flops, params: the range that they reach, or None when there is none.
    """

    def __init__(self, space: SearchSpace, limits: Sequence[Limit]) -> None:
        self._inside = np.ones(len(space._ways), dtype=bool)
        for limit in limits:
            amounts, band = space._amounts(limit.cost), limit.band
            if band.low is not None:
                self._inside &= amounts >= band.low
            if band.high is not None:
                self._inside &= amounts <= band.high
        self._numbers = np.flatnonzero(self._inside)
        self._ends = np.cumsum(space._ways[self._inside])
        self.space = space
        self.count = int(self._ends[-1]) if len(self._ends) else 0
        self.flops, self.params = map(self.reach, space._costs)

    def reach(self, cost: Additive) -> Band | None:
        """The range of a cost over all architectures within the budget, or None when there is none."""
        amounts = self.space._amounts(cost)[self._inside]
        return Band(int(amounts.min()), int(amounts.max())) if len(amounts) else None

    def __contains__(self, architecture: Architecture) -> bool:
        try:
            return bool(self._inside[self.space._class_of(architecture)])
        except (KeyError, IndexError):  # of another space
            return False

    def __iter__(self) -> Iterator[Architecture]:
        """All architectures in the order of their numbers."""
        for number in self._numbers:
            pairs = self.space._counts_of_class(int(number))
            for stages in product(*([_word(*pair, i) for i in range(_words(*pair))] for pair in pairs)):
                yield Architecture(stages)

    def rank(self, architecture: Architecture) -> int:
        """The number of an architecture.

        Raises:
            ValueError: it is not within the budget, or of another space.
        """
        self.space.check(architecture)
        if architecture not in self:
            raise ValueError(f"{architecture} is not within the budget")
        at = bisect_left(self._numbers, self.space._class_of(architecture))
        number = 0
        for pair, word in zip(architecture.counts, architecture.stages, strict=True):
            number = number * _words(*pair) + _word_rank(word)
        return self._start(at) + number

    def unrank(self, number: int) -> Architecture:
        """The architecture of this number.

        Raises:
            IndexError: there is none.
        """
        if not 0 <= number < self.count:
            raise IndexError(f"no architecture has the number {number}; there are {self.count}")
        at = bisect_right(self._ends, number)
        number -= self._start(at)
        words = []
        for pair in reversed(self.space._counts_of_class(int(self._numbers[at]))):
            number, word = divmod(number, _words(*pair))
            words.append(_word(*pair, word))
        return Architecture(tuple(reversed(words)))

    def _start(self, at: int) -> int:
        """Number of the first architecture of the class at this place among those within the budget."""
        return int(self._ends[at - 1]) if at else 0

    def draw(self, rng: np.random.Generator) -> Architecture:
        """An architecture, uniform over all within the budget, of which there must be one."""
        assert self.count, "nothing to draw from; feasible() refuses such a budget"
        return self.unrank(_below(rng, self.count))

    def draw_unseen(self, rng: np.random.Generator, seen: Sequence[int]) -> Architecture | None:
        """An architecture, uniform over those whose numbers are not among ``seen`` (sorted); None when all are."""
        if len(seen) == self.count:
            return None
        number = _below(rng, self.count - len(seen))
        # seen[i] - i unseen ones come before seen[i], so the unseen one we want has so many seen ones before it:
        return self.unrank(number + bisect_right(range(len(seen)), number, key=lambda i: seen[i] - i))


def budget_text(flops: Band, params: Band, *further: Limit) -> str:
    """``FLOPs at most 1.3 G and parameters at most 16 M``; ``any cost`` when nothing binds."""
    parts = [f"{unit} {band}" for band, unit in ((flops, "FLOPs"), (params, "parameters")) if band != ANY]
    return " and ".join([*parts, *(str(limit) for limit in further if limit.band != ANY)]) or "any cost"


def _below(rng: np.random.Generator, bound: int) -> int:
    """A uniform whole number from 0 to ``bound - 1``; beyond the reach of numpy, uniform up to 2^-64."""
    if bound < 2**63:
        return int(rng.integers(bound))
    return int.from_bytes(rng.bytes(bound.bit_length() // 8 + 9), "little") % bound


def _words(basic: int, sharing: int) -> int:
    """How many stages have so many basic and sharing layers: the first layer is basic, the others in any order."""
    return math.comb(basic + sharing - 1, sharing)


def _word(basic: int, sharing: int, number: int) -> str:
    """The stage of this number among those of so many layers, in alphabetical order."""
    letters = BASIC
    basic -= 1
    while basic or sharing:
        begin_basic = math.comb(basic + sharing - 1, sharing) if basic else 0
        if number < begin_basic:
            letters, basic = letters + BASIC, basic - 1
        else:
            letters, sharing, number = letters + SHARING, sharing - 1, number - begin_basic
    return letters


def _word_rank(word: str) -> int:
    """The number of a stage, such that ``_word(basic, sharing, _word_rank(word)) == word``."""
    basic, sharing = word.count(BASIC) - 1, word.count(SHARING)
    number = 0
    for letter in word[1:]:
        if letter == BASIC:
            basic -= 1
        else:
            number += math.comb(basic + sharing - 1, sharing) if basic else 0
            sharing -= 1
    return number
