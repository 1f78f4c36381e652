"""The Pareto front against brute force."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from psvit.search.front import fully_scored, pareto_front


def random_frame(seed: int, trials: int = 150) -> pd.DataFrame:
    """Trials with many ties in every column; some failed, some were scored on fewer images."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "number": range(1, trials + 1),
            "layers": [f"B-{'B' * i}" for i in rng.permutation(trials)],
            "flops": rng.integers(1, 40, trials),
            "params": rng.integers(1, 40, trials),
            "latency": rng.integers(1, 40, trials),
            "loss": rng.choice([0.5, 0.25, 0.125], trials),
            "num_images": rng.choice([100, 50], trials, p=[0.9, 0.1]),
        }
    )
    frame["top1"] = ((frame["flops"] + frame["params"] + rng.integers(0, 60, trials)) // 8) / 20
    frame.loc[frame["number"] % 17 == 0, ["top1", "loss"]] = math.nan
    frame.loc[frame["number"] % 23 == 0, ["top1", "loss"]] = [1.0, math.nan]
    return frame


def brute_force(frame: pd.DataFrame, costs: list[str], rank_by: str) -> set[str]:
    trials = [
        trial for trial in frame.to_dict("records") if not math.isnan(trial["loss"]) and not math.isnan(trial["top1"])
    ]
    trials = [trial for trial in trials if trial["num_images"] == max(t["num_images"] for t in trials)]

    def makes_needless(other: dict, trial: dict) -> bool:
        scores = [(each["top1"], -each["loss"])[:: 1 if rank_by == "top1" else -1] for each in (other, trial)]
        equal = scores[0] == scores[1] and all(other[cost] == trial[cost] for cost in costs)
        if equal:
            return other["layers"] < trial["layers"]
        return scores[0] >= scores[1] and all(other[cost] <= trial[cost] for cost in costs)

    return {trial["layers"] for trial in trials if not any(makes_needless(other, trial) for other in trials)}


@pytest.mark.parametrize("rank_by", ["loss", "top1"])
@pytest.mark.parametrize("costs", [["flops"], ["params"], ["flops", "params"], ["flops", "params", "latency"]])
def test_front_equals_brute_force(costs: list[str], rank_by: str) -> None:
    for seed in range(15):
        frame = random_frame(seed)
        if rank_by == "loss":  # else three values are too few for a front
            frame["loss"] = 1 - frame["top1"] + np.random.default_rng(seed).choice([0, 0.05], len(frame))
        front = pareto_front(frame, costs, rank_by)
        assert front["layers"].is_unique
        assert set(front["layers"]) == brute_force(frame, costs, rank_by)
        assert len(front) >= 2
        pd.testing.assert_frame_equal(front, frame.loc[front.index])  # whole rows
        assert front[costs].apply(tuple, axis=1).is_monotonic_increasing


def test_one_cost_rises_with_the_score() -> None:
    by_loss, by_top1 = pareto_front(random_frame(1)), pareto_front(random_frame(1), rank_by="top1")
    assert by_loss["flops"].is_monotonic_increasing
    assert by_loss["loss"].is_monotonic_decreasing
    assert by_top1["flops"].is_monotonic_increasing
    assert by_top1["top1"].is_monotonic_increasing


def test_front_does_not_depend_on_the_order() -> None:
    frame = random_frame(2)
    shuffled = frame.sample(frac=1, random_state=0)
    for costs in (["flops"], ["flops", "params"]):
        pd.testing.assert_frame_equal(pareto_front(frame, costs), pareto_front(shuffled, costs))


def test_only_the_largest_number_of_images_counts() -> None:
    frame = pd.DataFrame(
        {
            "layers": ["B-B", "BB-B", "BB-BB", "BS-B"],
            "flops": [1, 2, 3, 4],
            "top1": [0.99, 0.8, 0.9, math.nan],
            "loss": [0.1, 0.5, 0.4, math.nan],
            "num_images": [50, 100, 100, 200],  # the last one failed
        }
    )
    assert list(pareto_front(frame)["layers"]) == ["BB-B", "BB-BB"]
    assert list(fully_scored(frame)["layers"]) == ["BB-B", "BB-BB"]


def test_nothing_scored_has_an_empty_front() -> None:
    frame = random_frame(3)
    for empty in (frame.head(0), frame.assign(loss=math.nan)):
        assert pareto_front(empty, ["flops", "params"]).empty
