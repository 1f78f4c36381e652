"""What a pick is worth on images that did not pick it: against those images, and refused where none are left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from psvit.search.budget import Budget
from psvit.search.config import BudgetConfig
from psvit.search.crossfit import FoldSums, assign_folds, cross_fitted_score
from psvit.search.history import History
from psvit.search.pick import Answer, choose, read_scored
from psvit.search.records import SearchRecord
from psvit.search.tables import TOP
from psvit.search.trial import Trial
from tests.search.builders import SMALL, claims, history_record

IMAGES = 200
MEMBERS = sorted(SMALL.within(), key=lambda member: SMALL.cost(member).flops)[:120]
FLOPS = [SMALL.cost(member).flops for member in MEMBERS]
FOLDS_OF_IMAGES = assign_folds(np.arange(IMAGES) % 5, 0)
RNG = np.random.default_rng(0)
CORRECT = RNG.random((len(MEMBERS), IMAGES)) < 0.6
LOSS = RNG.random((len(MEMBERS), IMAGES)) + 0.3 * ~CORRECT


def write_search(folder: Path, rows: range, cross_fitted: bool, num_images: int = 1200) -> None:
    """A finished search that has scored some of the architectures on all images."""
    sums = FoldSums.of(CORRECT, LOSS, FOLDS_OF_IMAGES)
    trials = []
    for row in rows:
        cost, folds = SMALL.cost(MEMBERS[row]), (*sums.correct[row].tolist(), *sums.loss[row].tolist())
        scores = (float(CORRECT[row].mean()), float(LOSS[row].mean()))
        trials.append(Trial(MEMBERS[row], cost.flops, cost.params, *scores, IMAGES, 0, folds))
    record = history_record(searcher="random" if cross_fitted else "evolve")
    History(folder / "history.csv", record).append(trials)
    best = min(trials, key=lambda trial: trial.sort_key("loss"))
    SearchRecord(
        layers=str(best.architecture),
        flops=best.flops,
        params=best.params,
        path="B",
        top1=best.top1,
        loss=best.loss,
        num_images=IMAGES,
        scored=len(trials),
        failed=0,
        claims=replace(claims(), cross_fitted=cross_fitted, num_images=num_images),
        search=record,
        tool="psvit-search",
    ).save(folder / "result.json")


def write_top(folder: Path, row: int) -> None:
    """A table of the best whose only row has been scored on held-out images."""
    values = dict.fromkeys(TOP.columns, 0) | {"layers": str(MEMBERS[row]), "flops": FLOPS[row]}
    values |= {"fresh_top1": 0.61, "fresh_low": 0.55, "fresh_high": 0.67, "fresh_loss": 0.9}
    (folder / "top.csv").write_text(f"{TOP.header}\n{TOP.seal(1, ','.join(map(str, values.values())), 1)}\n")


def pick_within(folder: Path, flops: int, rank_by: str = "loss") -> Answer:
    return choose(read_scored(folder), Budget.parse(BudgetConfig(flops=str(flops))), rank_by)


@pytest.mark.parametrize("rank_by", ["loss", "top1"])
def test_each_fold_reports_on_what_the_others_pick_within_the_budget(tmp_path: Path, rank_by: str) -> None:
    """From the files alone, the estimate that outcomes image by image give."""
    write_search(tmp_path / "a", range(80), cross_fitted=True)
    write_search(tmp_path / "b", range(60, 120), cross_fitted=True)
    for flops in (FLOPS[30], FLOPS[-1]):
        inside = [row for row in range(len(MEMBERS)) if FLOPS[row] <= flops]
        chosen = []
        for fold in range(6):
            others = fold != FOLDS_OF_IMAGES
            scores = {row: (LOSS[row, others].sum(), -CORRECT[row, others].sum()) for row in inside}
            chosen.append(min(inside, key=lambda row: scores[row] if rank_by == "loss" else scores[row][::-1]))
        rows = sorted(set(chosen))
        top1, loss = (
            cross_fitted_score(values[rows], np.searchsorted(rows, chosen), FOLDS_OF_IMAGES)
            for values in (CORRECT, LOSS)
        )
        fresh = pick_within(tmp_path, flops, rank_by).fresh
        assert (fresh.kind, fresh.num_images) == ("cross-fitted", IMAGES)
        assert fresh.top1 is not None
        found = (fresh.top1.value, fresh.top1.low, fresh.top1.high, fresh.loss)
        assert found == pytest.approx((top1.value, top1.low, top1.high, loss.value))
        assert str(fresh).startswith("the first, cross-fitted on 200 images (each sixth of them")


def test_held_out_images_report_on_those_that_were_scored_on_them(tmp_path: Path) -> None:
    write_search(tmp_path, range(120), cross_fitted=False, num_images=100)
    best = int(LOSS[:31].mean(axis=1).argmin())
    budget = FLOPS[30]
    while FLOPS[best] > budget or LOSS[[f <= budget for f in FLOPS]].mean(axis=1).min() < LOSS[best].mean():
        best = min((row for row in range(120) if FLOPS[row] <= budget), key=lambda row: LOSS[row].mean())
    write_top(tmp_path, best)
    fresh = pick_within(tmp_path, budget).fresh
    assert str(fresh) == (
        "the first, held-out on 100 images (no search saw them): top-1 0.6100 (95% interval 0.5500 to 0.6700), "
        "loss 0.9000"
    )
    write_top(tmp_path, best - 1)
    fresh = pick_within(tmp_path, budget).fresh
    assert fresh.kind == "none"
    assert f"{MEMBERS[best]} is not one of them: search within this budget" in str(fresh)


def test_without_images_left_there_is_no_score(tmp_path: Path) -> None:
    write_search(tmp_path / "a", range(60), cross_fitted=True)
    write_search(tmp_path / "b", range(60, 120), cross_fitted=False)
    write_top(tmp_path / "b", 60)
    assert pick_within(tmp_path, FLOPS[30]).fresh.kind == "cross-fitted"  # b has nothing so cheap
    mixed = str(pick_within(tmp_path, FLOPS[-1]).fresh)
    assert mixed.startswith("no score of the first on images that did not pick it: a, b chose on different images")
    (tmp_path / "a/result.json").unlink()
    assert "result.json" in str(pick_within(tmp_path, FLOPS[30]).fresh)


@pytest.mark.parametrize("damage", ["rows lost", "zeros"])
def test_a_finished_search_that_has_lost_rows_is_not_picked_from(tmp_path: Path, damage: str) -> None:
    """Each row that is left is sound, and the best of them would be picked without a word."""
    write_search(tmp_path, range(60), cross_fitted=True)
    history = tmp_path / "history.csv"
    content = history.read_bytes()
    end = content.rindex(b"\n", 0, -1) + 1
    assert len(read_scored(tmp_path).frame) == 60
    history.write_bytes(content[:end] + (b"" if damage == "rows lost" else bytes(len(content) - end)))
    with pytest.raises(ValueError, match=r"history.csv has 59 of the 60 architectures that were scored; run the same"):
        read_scored(tmp_path)
    (tmp_path / "result.json").unlink()  # a search that runs has scored as far as this
    assert len(read_scored(tmp_path).frame) == 59
