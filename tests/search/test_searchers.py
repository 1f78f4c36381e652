"""What every registered searcher must do."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from psvit.arch import Architecture, NetworkSpec
from psvit.search.budget import Budget
from psvit.search.config import SearchConfig
from psvit.search.searcher import Searcher
from psvit.search.searchers import SEARCHERS, SearcherKind
from psvit.search.trial import Trial
from psvit.supernet.space import SearchSpace, Subspace
from psvit.units import Band
from psvit.zoo import SPACES

SMALL = SearchSpace(NetworkSpec("2d", (16, 16), 4, (8, 16, 24), (1, 2, 3), 5), cells=3).within()
MIDDLE = SMALL.space.cost(Architecture.parse("BB-BB-BB")).flops
CHEAP = SMALL.space.within(Band(high=MIDDLE))
TIGHT = SearchSpace(SPACES["1d_tiny_16"]).within(Band.parse("1.29G..1.3G"))

Make = Callable[[Subspace, int], Searcher]

# A searcher is tried as it is, and with each of these values of the settings that it reads.
EXTREMES: dict[str, tuple[Any, ...]] = {"population": (4,), "parents": (1,), "mutation": (0.0, 1.0)}
DRAWING = sorted(SEARCHERS.keys() - {"exhaustive"})  # that one asks for all, whatever the seed is


def maker(kind: SearcherKind, **changes: Any) -> Make:
    """What makes a searcher of a kind, by the registry, with a small population."""
    settings = SearchConfig(**{"searcher": kind.name, "population": 10, "parents": 4} | changes)
    return lambda subspace, seed: kind.make(settings, subspace, seed, Budget())


def makers() -> Iterator[tuple[str, Make]]:
    """Every searcher of the registry in all variations, by name."""
    for name, kind in SEARCHERS.items():
        yield name, maker(kind)
        for setting in kind.settings:
            for value in EXTREMES.get(setting, ()):
                yield f"{name}-{setting}={value}", maker(kind, **{setting: value})


def score(architecture: Architecture) -> Trial:
    """A rugged score that any process computes alike; about one in twenty fails."""
    chance = hashlib.sha256(str(architecture).encode()).digest()[0] / 255
    return Trial(architecture, 0, 0, math.nan if chance < 0.05 else chance, 0.0, 10, 0)


def search(searcher: Searcher, *sizes: int) -> list[Architecture]:
    """Ask and tell in batches of these sizes; what was asked for."""
    asked: list[Architecture] = []
    for size in sizes:
        batch = searcher.ask(size)
        searcher.tell([score(architecture) for architecture in batch])
        asked += batch
    return asked


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in makers()])
class TestEverySearcher:
    def test_stays_within_the_budget(self, make: Make) -> None:
        assert all(architecture in CHEAP for architecture in search(make(CHEAP, 0), *[10] * 6))
        assert all(architecture in TIGHT for architecture in search(make(TIGHT, 0), *[10] * 4))

    def test_never_asks_twice_even_before_it_is_told(self, make: Make) -> None:
        searcher = make(CHEAP, 0)
        asked = search(searcher, 10, 10, 7) + searcher.ask(10) + searcher.ask(10)
        assert len(set(asked)) == len(asked) == 47

    def test_honours_n(self, make: Make) -> None:
        searcher = make(SMALL, 0)
        for n in (1, 0, 13, 5):
            assert len(searcher.ask(n)) == n

    def test_is_a_function_of_its_seed(self, make: Make) -> None:
        first, again = (search(make(CHEAP, 3), 10, 10, 10) for _ in range(2))
        assert first == again

    def test_replay_gives_the_same_next_question(self, make: Make) -> None:
        searcher, replayed = make(CHEAP, 0), make(CHEAP, 0)
        asked = search(searcher, 10, 10, 10)
        replayed.tell([score(architecture) for architecture in asked])
        assert replayed.ask(10) == searcher.ask(10)

    def test_asks_for_fewer_are_the_first_of_more(self, make: Make) -> None:
        for told in ((), (10, 10)):
            few, many = make(CHEAP, 0), make(CHEAP, 0)
            search(few, *told)
            search(many, *told)
            assert few.ask(4) == many.ask(10)[:4]

    def test_finds_every_member_and_then_stops(self, make: Make) -> None:
        searcher = make(CHEAP, 0)
        asked = search(searcher, *[10] * (CHEAP.count // 10 + 1))
        assert sorted(asked) == sorted(CHEAP)
        assert searcher.ask(5) == []

    def test_does_not_ask_for_what_it_was_told(self, make: Make) -> None:
        members = list(CHEAP)
        searcher = make(CHEAP, 0)
        searcher.tell([score(architecture) for architecture in members[5:]])
        assert sorted(search(searcher, 3, 3)) == sorted(members[:5])

    def test_survives_scores_that_are_no_numbers(self, make: Make) -> None:
        searcher = make(CHEAP, 0)
        for _ in range(3):
            searcher.tell([Trial(a, 0, 0, math.nan, math.nan, 10, 0) for a in searcher.ask(10)])
        assert len(searcher.ask(10)) == 10


@pytest.mark.parametrize("name", DRAWING)
def test_another_seed_asks_for_others(name: str) -> None:
    make = maker(SEARCHERS[name])
    first, other = (search(make(CHEAP, seed), 10, 10, 10) for seed in (3, 4))
    assert first != other


def test_searches_do_not_depend_on_the_hash_seed() -> None:
    code = (
        "from tests.search.test_searchers import CHEAP, makers, search\n"
        "for name, make in makers():\n"
        "    print(name, *search(make(CHEAP, 0), *[10] * 5))"
    )
    root = Path(__file__).parents[2]
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(printed) == 1


def test_the_registry_names_searchers_and_settings_that_there_are() -> None:
    for name, kind in SEARCHERS.items():
        assert kind.name == name
        assert set(kind.settings) <= vars(SearchConfig()).keys()
        assert all("psvit-search" in command and name in command for command in kind.examples.values())
