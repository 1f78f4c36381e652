"""Settings of a search that cannot be meant are refused by name."""

import pytest

from psvit.search.config import SearchConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"race": True}, "search.race is for psvit-search exhaustive"),
        ({"race": True, "searcher": "exhaustive"}, "search.rank_by=top1"),
        ({"race": True, "searcher": "exhaustive", "rank_by": "top1", "placements": 2}, "leave search.placements at 0"),
        ({"rank_by": "luck"}, "search.rank_by is 'luck'"),
        ({"confidence": 1.0}, "search.confidence is 1.0"),
        ({"memory": "much"}, "'much' is not an amount"),
        ({"num_images": 0}, "search.num_images is 0"),
        ({"precision": "int8"}, "search.precision is 'int8'"),
        ({"searcher": "luck"}, "search.searcher is 'luck'; use one of exhaustive"),
    ],
)
def test_settings_that_cannot_be_meant(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SearchConfig(**settings)  # type: ignore[arg-type]
