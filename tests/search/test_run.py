"""Searches from end to end on a supernet of digits: scores, results, going on, and faults."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from psvit.archfile import load_arch
from psvit.data.data import Data, open_data
from psvit.data.pixels import Pixels
from psvit.engine.signals import Stopped
from search import run as search_run
from search.config import BudgetConfig, SearchConfig, SearchRunConfig
from search.evaluator import Evaluator, Outcomes
from search.history import History
from search.run import search
from supernet.checkpoint import TrainedSupernet
from supernet.inherit import inherit

CPU = torch.device("cpu")


@pytest.fixture
def config(supernet_run: Path, tmp_path: Path) -> SearchRunConfig:
    settings = SearchConfig(budget=BudgetConfig("3.5M"), trials=12, population=4, parents=2, baseline=3)
    return SearchRunConfig(out=str(tmp_path / "evolve"), supernet=str(supernet_run), search=settings)


def naive(trained: TrainedSupernet, data: Data, paths: list) -> list[tuple[float, float]]:
    """Top-1 and loss of each path's extracted network, on all images in one batch."""
    supernet = trained.load()
    ((images, labels),) = data.eval_batches("search", (32, 32), 10_000)
    scores = []
    with torch.no_grad():
        for path in paths:
            logits = inherit(supernet, path)(images)
            right = (logits.argmax(1) == labels).double().mean().item()
            scores.append((right, torch.nn.functional.cross_entropy(logits, labels).item()))
    return scores


@pytest.mark.parametrize("placements", [0, 3])
def test_scores_are_those_of_the_extracted_networks(supernet_run: Path, placements: int) -> None:
    trained = TrainedSupernet.open(supernet_run)
    data, architectures = open_data(trained.data), list(trained.space.within())[::40]
    pixels = Pixels(data, "search", (32, 32), None, 0)
    evaluator = Evaluator(trained.load(), trained.space, pixels, CPU, batch_size=50, placements=placements)
    for architecture, score in zip(architectures, evaluator(architectures), strict=True):
        paths = evaluator._paths(architecture)
        assert len(paths) == max(1, placements)
        assert {path.architecture for path in paths} == {architecture}
        expected = naive(trained, data, paths)
        assert score.top1 == pytest.approx(sum(top1 for top1, _ in expected) / len(paths), abs=1e-9)
        assert score.loss == pytest.approx(sum(loss for _, loss in expected) / len(paths), abs=1e-5)


@pytest.mark.parametrize("searcher", ["evolution", "random"])
def test_a_search_leaves_the_best_within_the_budget(config: SearchRunConfig, searcher: str) -> None:
    config.search.searcher = searcher
    found = search(config)
    folder = Path(config.out)
    history = pd.read_csv(folder / "history.csv")
    assert len(history) == 12
    assert history["layers"].is_unique
    assert (history["flops"] <= 3_500_000).all()
    best = history.sort_values(["top1", "loss"], ascending=[False, True]).iloc[0]
    arch = load_arch(found.arch)
    assert str(arch.architecture) == best["layers"] == str(found.best.architecture)
    assert (arch.cost.flops, arch.cost.params) == (best["flops"], best["params"])
    assert arch.origin is not None
    assert arch.origin["score"] == {"top1": best["top1"], "loss": best["loss"]}
    assert arch.origin["supernet_sha256"] == TrainedSupernet.open(Path(config.supernet)).sha256
    baseline = pd.read_csv(folder / f"baseline_{best['layers']}.csv")
    assert 0 < len(baseline) <= 3
    assert baseline["flops"].between(0.98 * best["flops"], 1.02 * best["flops"]).all()
    assert best["layers"] not in set(baseline["layers"])
    for picture in ("scores.png", "progress.png", "architecture.png"):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")


def test_a_stopped_search_goes_on(config: SearchRunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search(config)
    scored = 0

    def stop_after_six(evaluator: Evaluator, architectures: list, images: range) -> Outcomes:
        nonlocal scored
        if scored >= 6:
            raise Stopped("stopped")
        scored += len(architectures)
        return original(evaluator, architectures, images)

    original = Evaluator.outcomes
    other = replace(config, out=str(tmp_path / "other"))
    monkeypatch.setattr(Evaluator, "outcomes", stop_after_six)
    with pytest.raises(Stopped):
        search(other)
    monkeypatch.undo()
    assert 0 < len(History(Path(other.out) / "history.csv")) < 12
    search(other)
    for name in ("history.csv", "arch.json", "result.json"):
        assert (Path(other.out) / name).read_bytes() == (Path(config.out) / name).read_bytes()


def test_more_trials_continue_a_finished_search(config: SearchRunConfig, tmp_path: Path) -> None:
    search(config)
    config.search.trials = 18
    search(config)
    whole = replace(config, out=str(tmp_path / "whole"))
    search(whole)
    for name in ("history.csv", "arch.json"):
        assert (Path(config.out) / name).read_bytes() == (Path(whole.out) / name).read_bytes()


def test_bad_input(
    config: SearchRunConfig, monkeypatch: pytest.MonkeyPatch, supernet_run: Path, tmp_path: Path
) -> None:
    config.search.budget = BudgetConfig("1M")
    with pytest.raises(ValueError, match="no architecture of 2d_mini_4 meets FLOPs at most 1 M: the space reaches"):
        search(config)
    assert not Path(config.out).exists()
    config.search.budget = BudgetConfig("3.5M")
    config.search.trials = config.search.population = 2
    search(config)
    monkeypatch.setattr(TrainedSupernet, "sha256", "another")
    with pytest.raises(ValueError, match="scores of another search: supernet_sha256 was"):
        search(config)


def test_a_budget_that_does_not_bind_is_noted(config: SearchRunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    config.search.budget = BudgetConfig("1G")
    config.search.trials = config.search.population = 2
    search(config)
    assert "does not bind" in capsys.readouterr().out


def test_another_search_split_is_refused(config: SearchRunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_run, "open_data", lambda data: open_data(replace(data, split_seed=1)))
    with pytest.raises(ValueError, match=r"the search split of digits .* is not the one"):
        search(config)
