"""What several tests of a search need: a record of what was searched, and claims."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from psvit.arch import NetworkSpec
from psvit.data.data import Data
from psvit.intervals import Estimate
from psvit.search.budget import Budget
from psvit.search.claims import Claims
from psvit.search.crossfit import Reliability
from psvit.search.history import HistoryRecord
from psvit.supernet.space import SearchSpace

SMALL = SearchSpace(NetworkSpec("2d", (16, 16), 4, (8, 16, 24), (1, 2, 3), 5, name="small"), cells=3)


def history_record(**changes: Any) -> HistoryRecord:
    """A record of a random search of a small space, with some fields changed."""
    fields: dict[str, Any] = {
        "supernet_sha256": "ab" * 32,
        "space": SMALL,
        "search_split": {"dataset": "digits", "images": 200},
        "num_images": 200,
        "placements": 0,
        "seed": 5,
        "rank_by": "loss",
        "searcher": "random",
        "budget": Budget(),
    }
    return HistoryRecord(**fields | changes)


def claims(**changes: Any) -> Claims:
    """Claims of a cross-fitted search whose images are enough, with some fields changed."""
    fields: dict[str, Any] = {
        "num_images": 1200,
        "cross_fitted": True,
        "top1": Estimate(0.9125, 0.89, 0.93),
        "loss": Estimate(0.25, 0.2, 0.3),
        "others": 3,
        "place": 2,
        "gain_top1": Estimate(0.02, -0.01, 0.05),
        "gain_loss": Estimate(0.04, 0.01, 0.07),
        "reliability": Reliability(tau_top1=0.61, tau_loss=0.72, loss=0.85, spread=0.01, num_images=1200),
        "tied": 7,
        "cheapest": "B-B-BS",
        "cheapest_flops": 2_500_000,
    }
    return Claims(**fields | changes)


def note_splits(patch: pytest.MonkeyPatch, read: set[str]) -> None:
    """From now on the splits whose images are read, in any of the ways there are, are noted."""
    for name in ("training_set", "pixel_batches", "image"):
        patch.setattr(Data, name, _noting(getattr(Data, name), read))


def _noting(method: Callable[..., Any], read: set[str]) -> Callable[..., Any]:
    def noted(data: Data, split: str, *args: object) -> Any:
        read.add(split)
        return method(data, split, *args)

    return noted


def trained_once(frame: pd.DataFrame) -> pd.DataFrame:
    """The trainings that the means of a frame of rank.csv are of, if each network has one."""
    columns = {"standalone_top1": "top1", "standalone_loss": "loss"}
    return frame[["layers", *columns]].rename(columns=columns).assign(seed=0)
