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


def brute_force(frame: pd.DataFrame, costs: list[str]) -> set[str]:
    trials = [
        trial for trial in frame.to_dict("records") if not math.isnan(trial["loss"]) and not math.isnan(trial["top1"])
    ]
    trials = [trial for trial in trials if trial["num_images"] == max(t["num_images"] for t in trials)]

    def makes_needless(other: dict, trial: dict) -> bool:
        scores = (other["top1"], -other["loss"]), (trial["top1"], -trial["loss"])
        equal = scores[0] == scores[1] and all(other[cost] == trial[cost] for cost in costs)
        if equal:
            return other["layers"] < trial["layers"]
        return scores[0] >= scores[1] and all(other[cost] <= trial[cost] for cost in costs)

    return {trial["layers"] for trial in trials if not any(makes_needless(other, trial) for other in trials)}


@pytest.mark.parametrize("costs", [["flops"], ["params"], ["flops", "params"], ["flops", "params", "latency"]])
def test_front_equals_brute_force(costs: list[str]) -> None:
    for seed in range(15):
        frame = random_frame(seed)
        front = pareto_front(frame, costs)
        assert front["layers"].is_unique
        assert set(front["layers"]) == brute_force(frame, costs)
        assert len(front) >= 4
        pd.testing.assert_frame_equal(front, frame.loc[front.index])  # whole rows
        assert front[costs].apply(tuple, axis=1).is_monotonic_increasing


def test_one_cost_rises_with_the_score() -> None:
    front = pareto_front(random_frame(1))
    assert front["flops"].is_monotonic_increasing
    assert front["top1"].is_monotonic_increasing


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
