"""``search=auto``: the choice is kept, and made anew for another budget."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from psvit.search import auto
from psvit.search.auto import Choice, choose, settle
from psvit.search.config import BudgetConfig, SearchConfig, SearchRunConfig


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, Path]]:
    """The choices that were made: minutes and folder of each."""
    made: list[tuple[float, Path]] = []

    def choose(config: SearchRunConfig, minutes: float, project: Path) -> Choice:
        made.append((minutes, project))
        return Choice("exhaustive", "few are within the budget")

    monkeypatch.setattr(auto, "choose", choose)
    return made


def auto_search(flops: str, latency: str | None = None) -> SearchRunConfig:
    search = SearchConfig(BudgetConfig(flops, latency=latency), searcher="auto", auto_minutes=3, trials=7)
    return SearchRunConfig(search=search)


def test_a_searcher_that_is_named_is_kept(chosen: list[tuple[float, Path]], tmp_path: Path) -> None:
    config = SearchRunConfig(search=SearchConfig(searcher="nsga2"))
    assert settle(config, tmp_path) is config.search
    assert chosen == list(tmp_path.iterdir()) == []


def test_the_choice_is_kept_for_its_budget(
    chosen: list[tuple[float, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = auto_search("5M")
    settled = settle(config, tmp_path)
    assert settled == replace(config.search, searcher="exhaustive")
    assert chosen == [(3, tmp_path)]
    assert json.loads((tmp_path / "searcher.json").read_text())["why"] == "few are within the budget"
    assert settle(config, tmp_path) == settled
    assert len(chosen) == 1
    assert capsys.readouterr().out == 2 * "search=auto: few are within the budget: exhaustive\n"
    settle(auto_search("4M"), tmp_path)
    assert len(chosen) == 2


def test_the_table_of_latencies_that_it_was_made_by_is_the_searchs(
    chosen: list[tuple[float, Path]], tmp_path: Path
) -> None:
    (tmp_path / "latency.json").touch()
    assert settle(auto_search("5M"), tmp_path).latency.table is None
    config = auto_search("5M", "2ms")
    assert settle(config, tmp_path).latency.table == str(tmp_path / "latency.json")
    config.search.latency.table = "mine.json"
    assert settle(config, tmp_path).latency.table == "mine.json"


def test_exhaustive_search_is_taken_where_time_allows(supernet_run: Path, tmp_path: Path) -> None:
    settings = SearchConfig(budget=BudgetConfig("3.5M"))
    config = SearchRunConfig(out=str(tmp_path / "search"), supernet=str(supernet_run), search=settings)
    choice = choose(config, 60, Path(config.out))
    assert choice.searcher == "exhaustive"
    assert re.fullmatch(r"[\d,]+ architectures are within the budget; scoring .* take \d+\.\d minutes", choice.why)
    assert choose(config, 0, Path(config.out)).searcher == "evolve"
    assert not Path(config.out).exists()
