"""Racing: the test against brute force, races against full scoring, and races that are killed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from psvit.arch import Architecture, NetworkSpec
from psvit.search.racing import is_worse, race, schedule, survivors
from psvit.supernet.space import SearchSpace
from tests.search.builders import history_record

SPACE = SearchSpace(NetworkSpec("2d", (16, 16), 4, (8, 16, 24), (1, 2, 3), 5), cells=3)
ALL = sorted(SPACE.within())
RECORD = history_record()
PLACE = {architecture: row for row, architecture in enumerate(ALL)}


@dataclass
class Outcome:
    correct: np.ndarray
    loss: np.ndarray


class Table:
    """Made-up outcomes of all architectures on all images, of which some are read; is killed at one of its calls."""

    def __init__(self, num_images: int, seed: int, spread: float = 1.5, killed_at: int | None = None) -> None:
        rng = np.random.default_rng(seed)
        ease, skill = rng.normal(size=num_images), rng.normal(scale=spread, size=(len(ALL), 1)) + 1
        self.correct = rng.random((len(ALL), num_images)) < 1 / (1 + np.exp(-ease - skill))
        self.loss = np.where(self.correct, 0.1, 2.0).astype(np.float32) + rng.random(self.correct.shape).astype(
            np.float32
        )
        self.calls, self.killed_at = 0, killed_at
        self.scored: Counter[tuple[Architecture, int]] = Counter()

    def __call__(self, architectures: Sequence[Architecture], images: range) -> Outcome:
        self.calls += 1
        if self.calls == self.killed_at:
            raise KeyboardInterrupt
        self.scored.update((a, i) for a in architectures for i in images)
        rows = [PLACE[architecture] for architecture in architectures]
        part = slice(images.start, images.stop)
        return Outcome(self.correct[rows, part], self.loss[rows, part])

    def order(self) -> list[int]:
        return sorted(range(len(ALL)), key=lambda i: (-self.correct[i].sum(), self.loss[i].sum(dtype=np.float64)))


def flops(architectures: Sequence[Architecture]) -> int:
    return 10 * len(architectures)


def test_rounds_grow_by_the_square_root_of_two() -> None:
    assert schedule(143) == [71, 101, 143]
    assert schedule(50) == [50]
    ends = schedule(10_000)
    assert ends[0] == 78
    assert ends[-1] == 10_000
    np.testing.assert_allclose(np.diff(np.log(ends)), math.log(2) / 2, rtol=0.02)


@pytest.mark.parametrize(("num_images", "seen"), [(20, 10), (30, 24), (40, 8)])
@pytest.mark.parametrize("level", [0.2, 0.01])
def test_the_test_errs_as_rarely_as_it_says(num_images: int, seen: int, level: float) -> None:
    """Whatever the images are, as long as the architecture is no worse over all of them: summed over all samples."""
    drawn = [(u, v) for u in range(seen + 1) for v in range(seen + 1 - u)]
    ahead, behind = np.array(drawn).T
    worse = is_worse(ahead, behind, seen, num_images - seen, level)
    assert not worse[behind <= ahead].any()
    assert worse.any()
    for better in range(num_images + 1):
        for worse_on in range(min(better, num_images - better) + 1):
            rest = num_images - better - worse_on
            errs = sum(
                math.comb(better, u) * math.comb(worse_on, v) * math.comb(rest, seen - u - v)
                for (u, v), dropped in zip(drawn, worse.tolist(), strict=True)
                if dropped
            )
            assert errs <= level * math.comb(num_images, seen), (better, worse_on)


def test_what_cannot_catch_up_is_worse_at_any_level() -> None:
    assert is_worse(np.array([0]), np.array([3]), 8, 2, 1e-300).tolist() == [True]  # two images cannot undo three
    assert is_worse(np.array([0]), np.array([3]), 8, 3, 1e-300).tolist() == [False]


def test_only_what_is_worse_than_every_leader_is_dropped() -> None:
    correct = np.zeros((4, 100), dtype=bool)
    correct[0, :90] = correct[1, :88] = correct[2, 5:70] = True  # the last is never right
    assert survivors(correct, 1000, 1, 1e-3).tolist() == [True, True, False, False]
    assert survivors(correct, 1000, 3, 1e-3).tolist() == [True, True, True, False]
    assert survivors(correct, 1000, 3, 0.0).tolist() == [True] * 4
    assert survivors(correct, 10, 1, 0.0).tolist() == [True, True, False, False]  # 10 images cannot make up for 25


def test_a_race_finds_what_full_scoring_finds(tmp_path: Path) -> None:
    used = []
    for seed in range(20):
        table, folder = Table(1000, seed), tmp_path / str(seed)
        folder.mkdir()
        raced = race(table, flops, ALL, 1000, keep=3, confidence=0.95, folder=folder, record=RECORD)
        finished = np.flatnonzero(raced.num_images == 1000)
        assert set(table.order()[:3]) <= set(finished)
        for i in range(len(ALL)):
            seen = slice(0, raced.num_images[i])
            assert raced.top1[i] == pytest.approx(table.correct[i, seen].mean(), abs=1e-12)
            assert raced.loss[i] == pytest.approx(table.loss[i, seen].mean(dtype=np.float64), abs=1e-6)
        record = raced.record
        scored = sum(each.num_images * each.architectures for each in record.rounds)
        assert scored == raced.num_images.sum() == len(table.scored)
        assert (record.flops, record.full_flops) == (10 * raced.num_images.sum(), 10 * 1000 * len(ALL))
        assert set(table.scored.values()) == {1}
        assert [each.kept for each in record.rounds[:-1]] == [each.architectures for each in record.rounds[1:]]
        used.append(record.image_share)
    assert max(used) < 0.5


@pytest.mark.slow
def test_the_best_is_kept_where_all_are_as_good(tmp_path: Path) -> None:
    """The confidence holds where it is hardest: the best is the best by chance."""
    for seed in range(20):
        table, folder = Table(300, 0), tmp_path / str(seed)
        folder.mkdir()
        table.correct[:] = np.random.default_rng(seed).random(table.correct.shape) < 0.8
        raced = race(table, flops, ALL, 300, keep=1, confidence=0.95, folder=folder, record=RECORD)
        assert raced.num_images[table.order()[0]] == 300


def test_without_logits_an_architecture_is_out(tmp_path: Path) -> None:
    table = Table(200, 0)
    best = table.order()[0]
    table.loss[best, 5] = np.nan
    raced = race(table, flops, ALL, 200, keep=3, confidence=0.95, folder=tmp_path, record=RECORD)
    assert np.isnan(raced.top1[best])
    assert np.isnan(raced.loss[best])
    assert raced.num_images[best] == 71
    assert np.isfinite(np.delete(raced.top1, best)).all()


@pytest.mark.parametrize("left", ["cut short", "zeros", "zeros but for its end"])
def test_killed_anywhere_and_resumed_equals_unbroken(
    left: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psvit.search.racing.TOGETHER", 100)
    unbroken = Table(300, 0)
    (tmp_path / "unbroken").mkdir()
    expected = race(unbroken, flops, ALL, 300, 2, 0.9, tmp_path / "unbroken", RECORD)
    for call in range(1, unbroken.calls + 1):
        folder = tmp_path / str(call)
        folder.mkdir()
        first, second = Table(300, 0, killed_at=call), Table(300, 0)
        with pytest.raises(KeyboardInterrupt):
            race(first, flops, ALL, 300, 2, 0.9, folder, RECORD)
        if last := sorted(folder.glob("round_*.bin"))[-1:]:  # and the last write was, as a loss of power leaves it
            whole = last[0].read_bytes()
            ends = {"cut short": b"", "zeros": bytes(500), "zeros but for its end": bytes(250) + whole[-250:]}
            last[0].write_bytes(whole[: -7 if left == "cut short" else -500] + ends[left])
        found = race(second, flops, ALL, 300, 2, 0.9, folder, RECORD)
        assert found.record == expected.record
        for name in ("num_images", "top1", "loss", "round"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        assert set(first.scored) | set(second.scored) == set(unbroken.scored)


def test_rounds_of_another_race_are_refused(tmp_path: Path) -> None:
    race(Table(200, 0), flops, ALL, 200, 1, 0.95, tmp_path, RECORD)
    with pytest.raises(ValueError, match="scores of another search: seed was 5 and is 6"):
        race(Table(200, 0), flops, ALL, 200, 1, 0.95, tmp_path, history_record(seed=6))
