"""The history of a search: exact, append-only, whole after a kill, and of one search only."""

from __future__ import annotations

import errno
import math
import os
import random
from itertools import permutations
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from psvit.arch import Architecture
from psvit.search.history import COLUMNS, History, Trial

IDENTITY: dict[str, Any] = {"supernet": "ab12", "seed": 0, "budget": {"flops": [None, 1000], "params": [None, None]}}


def trial(layers: str, top1: float, loss: float = 1.0, flops: int = 100) -> Trial:
    return Trial(Architecture.parse(layers), flops, 10, top1, loss, 100, 0)


TRIALS = [trial("B-B", 0.5, 1.25), trial("BS-B", 0.1 + 0.2, 1 / 3), trial("BB-BSB", 1.0, 5e-324)]


def test_floats_survive_exactly(tmp_path: Path) -> None:
    rng = random.Random(0)
    floats = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, 0.0, math.inf, *(rng.random() for _ in range(100))]
    trials = [Trial(Architecture.parse("B-BS"), 2**60 + 1, 3, value, -value, 7, i) for i, value in enumerate(floats)]
    history = History(tmp_path / "history.csv")
    history.append(trials[:50])
    history.append(trials[50:])
    assert History(tmp_path / "history.csv").trials == history.trials == trials


@pytest.mark.parametrize("cut", range(1, 24))
def test_a_line_cut_short_is_dropped_and_mended(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "history.csv"
    History(path, IDENTITY).append(TRIALS)
    whole = path.read_bytes()
    last = len(whole.splitlines(keepends=True)[-1])
    assert cut < last
    path.write_bytes(whole[: len(whole) - last + cut])
    history = History(path, IDENTITY)
    assert history.trials == TRIALS[:2]
    history.append(TRIALS[2:])
    assert path.read_bytes() == whole


def test_only_appending_touches_the_file(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    assert len(History(path)) == 0
    assert not path.exists()
    History(path, IDENTITY).append(TRIALS)
    with open(path, "a") as file:
        file.write("4," + "B" * 100)  # longer than the line that will take its place
    before = path.read_bytes()
    history = History(path)
    assert history.trials == TRIALS
    assert path.read_bytes() == before
    history.append(TRIALS[:1])
    assert History(path).trials == [*TRIALS, TRIALS[0]]
    assert path.read_bytes() == before[: before.rindex(b"\n") + 1] + b"4,B-B,100,10,0.5,1.25,100,0\n"


def test_a_full_disk_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "history.csv"
    history = History(path, IDENTITY)
    history.append(TRIALS[:1])

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ValueError, match=r"history.csv: No space left on device; what was recorded before is kept"):
            history.append(TRIALS[1:])
    assert history.trials == TRIALS[:1]
    history.append(TRIALS[1:])
    assert History(path).trials == TRIALS


def test_another_search_is_refused_and_the_difference_named(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    History(path, IDENTITY | {"seed": 7})  # nothing was scored: nothing to protect
    History(path, IDENTITY).append(TRIALS)
    assert History(path, IDENTITY).trials == TRIALS
    before = path.read_bytes()
    other = IDENTITY | {"seed": 1, "budget": {"flops": [None, 2000], "params": (None, None)}}
    with pytest.raises(ValueError, match="scores of another search") as refusal:
        History(path, other)
    message = str(refusal.value)
    for part in ("seed was 0", "1", "budget.flops was [None, 1000]", "[None, 2000]", "name=", "out="):
        assert part in message
    assert "params" not in message
    assert "supernet" not in message
    with pytest.raises(ValueError, match="split was not set"):
        History(path, IDENTITY | {"split": "x"})
    with pytest.raises(ValueError, match="supernet was ab12"):
        History(path, {key: value for key, value in IDENTITY.items() if key != "supernet"})
    assert path.read_bytes() == before
    path.with_suffix(".json").unlink()
    with pytest.raises(ValueError, match="does not tell of what search"):
        History(path, IDENTITY)


def test_two_histories_share_a_folder(tmp_path: Path) -> None:
    for name, identity in (("history", IDENTITY), ("baseline", {"equal_to": "B-B"})):
        History(tmp_path / f"{name}.csv", identity).append(TRIALS)
    assert len(History(tmp_path / "history.csv", IDENTITY)) == len(TRIALS)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("number,layers", "no,layers", "is no search history"),
        ("2,BS-B", "3,BS-B", "line 3: number 3 stands where 2 should"),
        ("BS-B", "SS-B", "line 3: stage 1, cell 1"),
        ("0.5", "half", "line 2: could not convert"),
        (",1.25,", ",1.25,1,", "line 2: too many values"),
    ],
)
def test_a_changed_file_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "history.csv"
    History(path).append(TRIALS)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        History(path)


def test_the_best_is_decided_by_value_not_by_order(tmp_path: Path) -> None:
    ranking = [
        trial("BB-B", 0.9, 2.0),
        trial("BS-B", 0.8, 0.5, flops=300),
        trial("B-BS", 0.8, 0.7, flops=100),
        trial("B-BB", 0.8, 0.7, flops=200),
        trial("BB-BB", 0.8, 0.7, flops=200),
        trial("BS-BS", math.nan, math.nan, flops=1),
        trial("BSS-BS", 1.0, math.nan, flops=2),
    ]
    for number, order in enumerate(permutations(ranking)):
        if number % 97 == 0:
            assert sorted(order, key=lambda t: t.sort_key) == ranking
    history = History(tmp_path / "history.csv")
    assert history.best() is None
    history.append(ranking[5:])
    assert history.best() is None
    history.append(ranking[:5])
    assert history.best() == History(tmp_path / "history.csv").best() == ranking[0]


def test_frame_is_the_file(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    history = History(path)
    assert list(history.frame().columns) == list(COLUMNS)
    history.append([*TRIALS, trial("BS-BS", math.nan, math.nan)])
    read = pd.read_csv(path, converters={"top1": float, "loss": float})
    pd.testing.assert_frame_equal(history.frame(), read, check_exact=True, check_dtype=False)
