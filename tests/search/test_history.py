"""The history of a search: exact, append-only, whole after a kill, and of one search only."""

from __future__ import annotations

import errno
import json
import math
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from psvit.arch import Architecture, CellPath
from psvit.search.budget import Budget
from psvit.search.history import History, HistoryRecord
from psvit.search.tables import FOLD_COLUMNS, HISTORY
from psvit.search.trial import Trial
from psvit.units import Band
from tests.search.builders import history_record

RECORD = history_record(seed=0, budget=Budget(Band(None, 1000)))


def trial(layers: str, top1: float, loss: float = 1.0, flops: int = 100) -> Trial:
    return Trial(Architecture.parse(layers), flops, 10, top1, loss, 100, 0)


TRIALS = [trial("B-B", 0.5, 1.25), trial("BS-B", 0.1 + 0.2, 1 / 3), trial("BB-BSB", 1.0, 5e-324)]


def test_floats_survive_exactly(tmp_path: Path) -> None:
    rng = random.Random(0)
    floats = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, 0.0, math.inf, *(rng.random() for _ in range(100))]
    folds = [(), tuple(rng.random() for _ in FOLD_COLUMNS)]
    trials = [
        Trial(Architecture.parse("B-BS"), 2**60 + 1, 3, value, -value, 7, i, folds[i % 2])
        for i, value in enumerate(floats)
    ]
    history = History(tmp_path / "history.csv")
    history.append(trials[:50])
    history.append(trials[50:])
    assert History(tmp_path / "history.csv").trials == history.trials == trials


@pytest.mark.parametrize("zeros", [False, True], ids=["", "zeros"])
@pytest.mark.parametrize("cut", range(1, 24))
def test_a_line_cut_short_is_dropped_and_mended(tmp_path: Path, cut: int, zeros: bool) -> None:
    """Whether it ends there, or has zeros where the rest had not reached the disk when the power went off."""
    path = tmp_path / "history.csv"
    History(path, RECORD).append(TRIALS)
    whole = path.read_bytes()
    last = len(whole.splitlines(keepends=True)[-1])
    assert cut < last
    path.write_bytes(whole[: len(whole) - last + cut] + (bytes(last - cut - 1) + b"\n") * zeros)
    assert len(HISTORY.read(path)) == 2
    history = History(path, RECORD)
    assert history.trials == TRIALS[:2]
    history.append(TRIALS[2:])
    assert path.read_bytes() == whole


def test_only_appending_touches_the_file(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    assert len(History(path)) == 0
    assert not path.exists()
    History(path, RECORD).append(TRIALS)
    with open(path, "a") as file:
        file.write("4," + "B" * 100)  # longer than the line that will take its place
    before = path.read_bytes()
    history = History(path)
    assert history.trials == TRIALS
    assert path.read_bytes() == before
    history.append(TRIALS[:1])
    assert History(path).trials == [*TRIALS, TRIALS[0]]
    last = HISTORY.seal(4, "4,B-B,100,10,0.5,1.25,100,0" + 12 * ",nan")
    assert path.read_bytes() == before[: before.rindex(b"\n") + 1] + f"{last}\n".encode()


def test_a_full_disk_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "history.csv"
    history = History(path, RECORD)
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
    History(path, replace(RECORD, seed=7))  # nothing was scored: nothing to protect
    History(path, RECORD).append(TRIALS)
    assert History(path, RECORD).trials == TRIALS
    before = path.read_bytes()
    with pytest.raises(ValueError, match="scores of another search") as refusal:
        History(path, replace(RECORD, seed=1, budget=Budget(Band(None, 2000))))
    message = str(refusal.value)
    for part in ("seed was 0", "1", "budget.flops was [None, 1000]", "[None, 2000]", "name=", "out="):
        assert part in message
    assert "params" not in message
    assert "supernet" not in message
    with pytest.raises(ValueError, match="rank_by was loss and is top1"):
        History(path, replace(RECORD, rank_by="top1"))
    with pytest.raises(ValueError, match="equal_to was None and is B-B"):
        History(path, replace(RECORD, equal_to="B-B"))
    with pytest.raises(ValueError, match=r"space\.spec\.widths was"):
        History(path, replace(RECORD, space=replace(RECORD.space, spec=replace(RECORD.space.spec, widths=(8, 16, 48)))))
    assert path.read_bytes() == before


def test_scores_without_a_record_are_of_no_known_search(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    History(path, RECORD).append(TRIALS)
    path.with_suffix(".json").unlink()
    with pytest.raises(ValueError, match=r"history\.json: there is no such file; use another name= or out="):
        History(path, RECORD)
    path.with_suffix(".json").write_text('{"supernet_sha256": "ab", "seed": 0}')  # as they were before formats
    with pytest.raises(ValueError, match=r"history\.json: \$\.format: is missing; use another name= or out="):
        History(path, RECORD)


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    RECORD.save(tmp_path / "history.json")
    assert HistoryRecord.load(tmp_path / "history.json") == RECORD
    document = json.loads((tmp_path / "history.json").read_text())
    assert (document["format"], document["version"]) == ("psvit-history", 1)
    assert document["budget"] == {"flops": [None, 1000], "params": [None, None]}


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("format", "psvit-arch", r'\$\.format: is \'psvit-arch\'; it must be "psvit-history"; use another name='),
        ("version", 2, r"\$\.version: is 2; this program reads version 1: update psvit-search$"),
        ("seed", "0", r"\$\.seed: is '0'; it must be a whole number; use another name="),
        ("space/spec/widths/1", 16.5, r"\$\.space\.spec\.widths\[1\]: is 16\.5; it must be a whole number"),
        ("space/spec/heads", [1, 2, 5], r"\$\.space\.spec: .*24.*5"),
        ("space/cells", 0, r"\$\.space: cells is 0"),
        ("budget/flops", [5, 3], r"\$\.budget\.flops: the band 5\.\.3 is reversed"),
        ("budget/flops", [5], r"\$\.budget\.flops: has 1 values; it must have 2"),
        ("budget/latency", [5, 6], r"\$\.budget\.latency_table: is missing"),
        ("surprise", 1, r"\$\.surprise: unknown key; known are budget, "),
    ],
)
def test_a_damaged_record_is_refused_by_its_place(tmp_path: Path, where: str, value: Any, message: str) -> None:
    path = tmp_path / "history.json"
    document: Any = RECORD.to_json()
    *parents, last = [int(key) if key.isdigit() else key for key in where.split("/")]
    item = document
    for key in parents:
        item = item[key]
    item[last] = value
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=message) as refusal:
        HistoryRecord.load(path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert "\n" not in str(refusal.value)


def test_provenance_is_that_of_the_search() -> None:
    architecture = Architecture.parse("BS-B-BBS")
    provenance = RECORD.provenance(architecture, 0.5, 1.25, 7)
    assert provenance["path"] == str(CellPath.canonical(architecture, 3))
    assert (provenance["score"], provenance["scored"]) == ({"top1": 0.5, "loss": 1.25}, 7)
    assert (provenance["seed"], provenance["searcher"]) == (0, "random")
    assert provenance["budget"] == {"flops": [None, 1000], "params": [None, None]}


def test_two_histories_share_a_folder(tmp_path: Path) -> None:
    for name, record in (("history", RECORD), ("baseline", replace(RECORD, equal_to="B-B"))):
        History(tmp_path / f"{name}.csv", record).append(TRIALS)
    assert len(History(tmp_path / "history.csv", RECORD)) == len(TRIALS)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("number,layers", "no,layers", "is no search history: its first line must be number,layers,.*num_images"),
        ("2,BS-B", "3,BS-B", "line 3: number 3 stands where 2 should"),
        ("BS-B", "SS-B", "line 3: stage 1, cell 1"),
        ("0.5", "half", "line 2: could not convert"),
        (",1.25,", ",1.25,1,", "line 2: it has 21 values, not 20"),
        (",nan\n", "\n", "line 2: it has 19 values, not 20"),
    ],
)
def test_a_changed_file_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "history.csv"
    History(path).append(TRIALS)
    header, *lines = path.read_text().splitlines()
    plain = [HISTORY.unseal(row, line) for row, line in enumerate(lines, start=1)]
    changed = "\n".join([header.removesuffix(",crc32"), *plain, ""]).replace(old, new, 1)
    header, *lines = changed.splitlines()
    sealed = [HISTORY.seal(row, line) for row, line in enumerate(lines, start=1)]
    path.write_text("\n".join([f"{header},crc32", *sealed, ""]))
    with pytest.raises(ValueError, match=message):
        History(path)


@pytest.mark.parametrize("place", [1, 2, 3])
def test_no_byte_of_a_line_can_change_unnoticed(tmp_path: Path, place: int) -> None:
    path = tmp_path / "history.csv"
    History(path).append(TRIALS)
    content = path.read_bytes()
    starts = [at + 1 for at, byte in enumerate(content) if byte == ord("\n")]
    for at in range(starts[place - 1], starts[place] - 1):
        other = b"1" if content[at : at + 1] != b"1" else b"2"
        path.write_bytes(content[:at] + other + content[at + 1 :])
        with pytest.raises(ValueError, match=f"line {place + 1}: its checksum .*; the file was changed: cut it before"):
            History(path)


def test_the_best_has_a_score(tmp_path: Path) -> None:
    history = History(tmp_path / "history.csv")
    assert history.best("loss") is None
    history.append([trial("BS-BS", math.nan, math.nan), trial("BSS-BS", 1.0, math.nan)])
    assert history.best("loss") is history.best("top1") is None
    right = trial("BB-BB", 1.0, 0.5)
    history.append([*TRIALS[:2], right])
    assert history.best("loss") == History(tmp_path / "history.csv").best("loss") == TRIALS[1]
    assert history.best("top1") == History(tmp_path / "history.csv").best("top1") == right


def test_frame_is_the_file(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    history = History(path)
    assert list(history.frame().columns) == list(HISTORY.columns)
    history.append([*TRIALS, trial("BS-BS", math.nan, math.nan)])
    read = pd.read_csv(path, converters=dict.fromkeys(("top1", "loss", *FOLD_COLUMNS), float)).drop(columns="crc32")
    pd.testing.assert_frame_equal(history.frame(), read, check_exact=True, check_dtype=False)
