"""What several tests of a search need: a record of what was searched."""

from typing import Any

from psvit.arch import NetworkSpec
from psvit.search.budget import Budget
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
