"""A search that was killed, at any point, ends like one that was not."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from psvit.arch import Architecture, NetworkSpec
from psvit.search.history import History
from psvit.search.loop import Scored, run_search
from psvit.search.random_search import RandomSearch
from psvit.search.searcher import Searcher
from psvit.search.searchers import SEARCHERS
from psvit.search.trial import Trial
from psvit.supernet.space import SearchSpace
from psvit.units import Band
from tests.search.builders import history_record
from tests.search.test_searchers import maker

SPACE = SearchSpace(NetworkSpec("2d", (16, 16), 4, (8, 16, 24), (1, 2, 3), 5), cells=3)
ALLOWED = SPACE.within(Band(high=SPACE.cost(Architecture.parse("BB-BB-BB")).flops))
MAKERS = {name: partial(maker(kind, population=20, parents=5), ALLOWED, 0) for name, kind in SEARCHERS.items()}

searchers = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
Make = Callable[[], Searcher]


class Killed(Exception):
    pass


class Scorer:
    """Scores by a hash, fails now and then, counts, and is killed at one of its calls."""

    def __init__(self, killed_at: int | None = None) -> None:
        self.calls = 0
        self.scored: Counter[Architecture] = Counter()
        self.killed_at = killed_at

    def __call__(self, architectures: list[Architecture]) -> list[Scored]:
        self.calls += 1
        if self.calls == self.killed_at:
            raise Killed
        self.scored.update(architectures)
        chances = [hashlib.sha256(str(a).encode()).digest()[0] / 255 for a in architectures]
        return [
            Scored(math.nan, math.nan) if chance < 0.05 else Scored(chance, 1 / (chance + 1), (chance / 3,) * 12)
            for chance in chances
        ]


def search(make: Make, folder: Path, scorer: Scorer, trials: int = 55) -> History:
    history = History(folder / "history.csv", history_record())
    run_search(make(), scorer, SPACE, history, 9, trials, batch=20, chunk=7)
    return history


@searchers
def test_what_is_recorded(make: Make, tmp_path: Path) -> None:
    scorer = Scorer()
    history = search(make, tmp_path, scorer)
    assert len(history) == 55
    assert set(scorer.scored.values()) == {1}
    assert [trial.generation for trial in history.trials] == [0] * 20 + [1] * 20 + [2] * 15
    assert [trial.architecture for trial in history.trials] == list(scorer.scored)
    for trial in history.trials:
        cost = SPACE.cost(trial.architecture)
        assert trial.architecture in ALLOWED
        assert (trial.flops, trial.params) == (cost.flops, cost.params)
        expected = Scorer()([trial.architecture])[0]
        assert str(Scored(trial.top1, trial.loss, trial.folds)) == str(expected)


@searchers
def test_killed_anywhere_and_resumed_equals_unbroken(make: Make, tmp_path: Path) -> None:
    whole = Scorer()
    search(make, tmp_path / "unbroken", whole)
    unbroken = (tmp_path / "unbroken" / "history.csv").read_bytes()
    for call in range(1, whole.calls + 1):
        first, second = Scorer(killed_at=call), Scorer()
        folder = tmp_path / str(call)
        with pytest.raises(Killed):
            search(make, folder, first)
        search(make, folder, second)
        assert (folder / "history.csv").read_bytes() == unbroken
        assert first.scored + second.scored == whole.scored  # and nothing was scored twice


@searchers
def test_killed_while_writing_and_resumed_equals_unbroken(make: Make, tmp_path: Path) -> None:
    search(make, tmp_path, Scorer())
    path = tmp_path / "history.csv"
    unbroken = path.read_bytes()
    header = unbroken.index(b"\n") + 1
    for end in range(header, len(unbroken), 131):
        path.write_bytes(unbroken[:end])
        search(make, tmp_path, Scorer())
        assert path.read_bytes() == unbroken


@searchers
def test_a_finished_search_scores_nothing_and_more_trials_continue_it(make: Make, tmp_path: Path) -> None:
    search(make, tmp_path / "short", Scorer(), trials=30)
    again = Scorer()
    assert len(search(make, tmp_path / "short", again, trials=30)) == 30
    assert again.calls == 0
    search(make, tmp_path / "short", again, trials=55)
    assert sum(again.scored.values()) == 25
    search(make, tmp_path / "long", Scorer(), trials=55)
    assert (tmp_path / "short" / "history.csv").read_bytes() == (tmp_path / "long" / "history.csv").read_bytes()


@searchers
def test_the_search_ends_when_all_within_the_budget_is_scored(make: Make, tmp_path: Path) -> None:
    scorer = Scorer()
    history = search(make, tmp_path, scorer, trials=10_000)
    assert set(scorer.scored) == set(ALLOWED)
    assert len(history) == ALLOWED.count > 55
    assert len(search(make, tmp_path, Scorer(killed_at=1), trials=10_000)) == ALLOWED.count


def test_scores_reach_the_searcher(tmp_path: Path) -> None:
    class Recorder(RandomSearch):
        told: list[Trial] = []  # noqa: RUF012

        def tell(self, trials: list[Trial]) -> None:
            self.told = self.told + list(trials)

    searcher = Recorder(ALLOWED, 0)
    history = History(tmp_path / "history.csv")
    run_search(searcher, Scorer(), SPACE, history, 9, trials=30, batch=20)
    assert searcher.told == history.trials


def test_a_history_of_another_searcher_is_refused(tmp_path: Path) -> None:
    history = search(MAKERS["random"], tmp_path, Scorer())
    before = history.path.read_bytes()
    with pytest.raises(
        ValueError, match=r"history.csv does not hold what this search asks for in trials 1 to 20: .*out="
    ):
        search(MAKERS["evolve"], tmp_path, Scorer(killed_at=1))
    assert history.path.read_bytes() == before


def test_the_bar_is_quiet_unless_on_a_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    search(MAKERS["random"], tmp_path, Scorer())
    assert capfd.readouterr() == ("", "")
