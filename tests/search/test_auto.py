"""``search=auto``: exhaustive search where it is predicted to end in time."""

import re
from pathlib import Path

from psvit.search.auto import choose
from psvit.search.config import BudgetConfig, SearchConfig, SearchRunConfig


def test_exhaustive_search_is_taken_where_time_allows(supernet_run: Path, tmp_path: Path) -> None:
    settings = SearchConfig(budget=BudgetConfig("3.5M"))
    config = SearchRunConfig(out=str(tmp_path / "search"), supernet=str(supernet_run), search=settings)
    choice = choose(config, 60, Path(config.out))
    assert choice.searcher == "exhaustive"
    assert re.fullmatch(r"[\d,]+ architectures are within the budget; scoring .* take \d+\.\d minutes", choice.why)
    assert choose(config, 0, Path(config.out)).searcher == "evolve"
    assert not Path(config.out).exists()
