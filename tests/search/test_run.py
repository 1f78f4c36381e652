"""Searches from end to end on a supernet of digits: scores, results, going on, and faults."""

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from psvit.arch import CellPath
from psvit.archfile import load_arch
from psvit.data.data import Data, open_data
from psvit.data.pixels import Pixels
from psvit.engine.distributed import Processes
from psvit.run.signals import Stopped
from psvit.search.config import BudgetConfig, SearchConfig, SearchRunConfig
from psvit.search.evaluator import Evaluator, Outcomes, make_evaluator
from psvit.search.history import History, HistoryRecord
from psvit.search.records import RaceRecord, SearchRecord
from psvit.search.run import search
from psvit.search.tables import HISTORY
from psvit.supernet.checkpoint import TrainedSupernet
from psvit.supernet.inherit import inherit
from psvit.supernet.supernet import Supernet
from psvit.units import Band

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
            correct = (logits.argmax(1) == labels).double().mean().item()
            scores.append((correct, torch.nn.functional.cross_entropy(logits, labels).item()))
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


@pytest.mark.parametrize("searcher", ["evolve", "random"])
def test_a_search_leaves_the_best_within_the_budget(config: SearchRunConfig, searcher: str) -> None:
    config.search.searcher = searcher
    found = search(config)
    folder = Path(config.out)
    history = pd.read_csv(folder / "history.csv")
    assert len(history) == 12
    assert history["layers"].is_unique
    assert (history["flops"] <= 3_500_000).all()
    best = history.sort_values(["loss", "top1"], ascending=[True, False]).iloc[0]
    arch = load_arch(found.arch)
    assert str(arch.architecture) == best["layers"] == str(found.best.architecture)
    assert (arch.cost.flops, arch.cost.params) == (best["flops"], best["params"])
    assert arch.provenance is not None
    assert arch.provenance["score"] == {"top1": best["top1"], "loss": best["loss"]}
    assert arch.provenance["supernet_sha256"] == TrainedSupernet.open(Path(config.supernet)).sha256()
    baseline = pd.read_csv(folder / f"baseline_{best['layers']}.csv")
    assert 0 < len(baseline) <= 3
    assert baseline["flops"].between(0.98 * best["flops"], 1.02 * best["flops"]).all()
    assert best["layers"] not in set(baseline["layers"])
    result = SearchRecord.load(folder / "result.json")
    assert (result.layers, result.flops, result.params) == (best["layers"], best["flops"], best["params"])
    assert (result.top1, result.loss, result.scored, result.failed) == (best["top1"], best["loss"], 12, 0)
    assert (result.claims, result.claims.others) == (found.claims, len(baseline))
    adaptive = searcher == "evolve"  # searches on two thirds of the 143 images, and reports from the others
    assert set(history["num_images"]) == {96 if adaptive else 143}
    assert (found.claims.num_images, found.claims.cross_fitted) == (47 if adaptive else 143, not adaptive)
    fold_means = history.filter(like="loss_fold").sum(axis=1) / history["num_images"]
    assert fold_means.to_numpy() == pytest.approx(history["loss"].to_numpy(), abs=1e-6)
    assert result.search == HistoryRecord.load(folder / "history.json")
    for picture in ("scores.png", "progress.png", "architecture.png"):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")


def test_the_cheapest_that_is_tied_is_offered_or_preferred(
    config: SearchRunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    """A finished search is told of another preference: nothing is scored again, and arch.json changes."""
    config.search.searcher, folder = "random", Path(config.out)
    found = search(config)
    tied = found.claims.cheapest
    assert tied is not None
    assert tied != str(found.best.architecture)
    assert found.preferred == found.best
    assert str(load_arch(folder / "cheapest.json").architecture) == tied
    history = (folder / "history.csv").read_bytes()
    capsys.readouterr()

    config.search.prefer = "cheapest"
    again = search(config)
    assert "search.prefer=cheapest: arch.json is " in capsys.readouterr().out
    assert (again.best, again.claims) == (found.best, found.claims)
    assert str(again.preferred.architecture) == str(load_arch(again.arch).architecture) == tied
    assert str(load_arch(folder / "best.json").architecture) == str(found.best.architecture)
    assert not (folder / "cheapest.json").exists()
    assert (folder / "history.csv").read_bytes() == history
    record = SearchRecord.load(folder / "result.json")
    assert (record.layers, record.preferred) == (str(found.best.architecture), tied)
    score = history_row(folder, tied)
    arch = load_arch(again.arch)
    assert arch.provenance is not None
    assert arch.provenance["score"] == {"top1": score["top1"], "loss": score["loss"]}


def history_row(folder: Path, layers: str) -> pd.Series:
    return HISTORY.read(folder / "history.csv").set_index("layers").loc[layers]


def test_a_race_cannot_prefer_the_cheapest() -> None:
    with pytest.raises(ValueError, match=r"cannot say what is tied; leave search\.prefer=best"):
        SearchConfig(race=True, rank_by="top1", prefer="cheapest")


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
    monkeypatch.setattr(TrainedSupernet, "sha256", lambda trained: "another")
    with pytest.raises(ValueError, match="scores of another search: supernet_sha256 was"):
        search(config)


def test_a_budget_that_does_not_bind_is_noted(config: SearchRunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    config.search.budget = BudgetConfig("1G")
    config.search.trials = config.search.population = 2
    search(config)
    assert "does not bind" in capsys.readouterr().out


def test_exhaustive_search_finds_the_best_of_all(config: SearchRunConfig) -> None:
    config.search.searcher = "exhaustive"
    found = search(config)
    assert found is not None
    trained = TrainedSupernet.open(Path(config.supernet))
    members = list(trained.space.within(Band.parse("3.5M")))
    history = pd.read_csv(Path(config.out) / "history.csv")
    assert sorted(history["layers"]) == sorted(map(str, members))
    paths = [CellPath.canonical(member, trained.space.cells) for member in members]
    scores = naive(trained, open_data(trained.data), paths)
    truth = dict(zip(map(str, members), scores, strict=True))
    for row in history.itertuples():
        assert row.top1 == pytest.approx(truth[row.layers][0], abs=1e-9)
        assert row.loss == pytest.approx(truth[row.layers][1], abs=1e-5)
    best = min(truth, key=lambda layers: truth[layers][1])
    top = pd.read_csv(Path(config.out) / "top.csv")
    assert str(found.best.architecture) == best == top["layers"][0]
    assert list(top["layers"]) == list(history.sort_values("loss")["layers"].head(len(top)))
    front = pd.read_csv(Path(config.out) / "front.csv")
    for row in front.itertuples():
        better = history[(history["flops"] <= row.flops) & (history["params"] <= row.params)]
        assert better["loss"].min() == row.loss
    assert (Path(config.out) / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_a_race_ends_with_the_winner_of_full_scoring(config: SearchRunConfig, tmp_path: Path) -> None:
    config.search.searcher, config.search.rank_by = "exhaustive", "top1"
    config.search.race, config.search.race_keep, config.out = True, 2, str(tmp_path / "race")
    raced = search(config)
    assert raced is not None
    trained = TrainedSupernet.open(Path(config.supernet))
    data, members = trained.open_data(None, 0), list(trained.space.within(Band.parse("3.5M")))
    evaluator = make_evaluator(config, trained, data, CPU, Processes())
    scores = evaluator.outcomes(members, range(96)).scores()  # on what the race may see
    best = min(range(len(members)), key=lambda i: (-scores[i].top1, scores[i].loss))
    assert (raced.best.architecture, raced.best.top1) == (members[best], scores[best].top1)
    unseen = evaluator.outcomes([members[best]], range(96, 143))
    assert raced.claims.top1.value == pytest.approx(unseen.correct.mean())
    assert (raced.claims.reliability, raced.claims.tied, raced.claims.cheapest) == (None, None, None)
    record = RaceRecord.load(tmp_path / "race/race.json")
    history = HISTORY.read(tmp_path / "race/history.csv")
    assert sum(each.num_images * each.architectures for each in record.rounds) == history["num_images"].sum()
    assert record.image_share == pytest.approx(history["num_images"].mean() / 96)
    assert set(history["generation"]) <= set(range(len(record.rounds)))
    files = {path.name: path.read_bytes() for path in (tmp_path / "race").glob("*.csv")}
    search(config)  # and it is over
    assert {path.name: path.read_bytes() for path in (tmp_path / "race").glob("*.csv")} == files
    written = tmp_path / "race/history.csv"  # but where its history was cut short, the rest of it is written
    written.write_bytes(files["history.csv"][: len(files["history.csv"]) // 2])
    search(config)
    assert {path.name: path.read_bytes() for path in (tmp_path / "race").glob("*.csv")} == files


def test_a_score_on_some_images(config: SearchRunConfig) -> None:
    config.search.num_images, config.search.searcher = 40, "random"
    found = search(config)
    assert found is not None
    assert set(pd.read_csv(Path(config.out) / "history.csv")["num_images"]) == {40}
    assert found.best.top1 * 40 == pytest.approx(round(found.best.top1 * 40))
    config.search.num_images, config.out = 35, f"{config.out}-few"
    with pytest.raises(ValueError, match=r"scores on 35 images; it needs 36 at least: use a larger search\.num_images"):
        search(config)
    config.search.num_images = 9
    with pytest.raises(ValueError, match=r"search\.num_images is 9; 10 classes need at least 10 images"):
        search(config)


def test_architectures_without_a_score_are_named_and_counted(
    config: SearchRunConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def corrupt(self: TrainedSupernet) -> Supernet:
        supernet = original(self)
        with torch.no_grad():
            supernet.layer(1, 1, "S").mlp.fc1.bias[0] = math.nan
        return supernet

    original = TrainedSupernet.load
    monkeypatch.setattr(TrainedSupernet, "load", corrupt)
    config.search.searcher = "exhaustive"
    found = search(config)
    assert found is not None
    history = pd.read_csv(Path(config.out) / "history.csv")
    second = history["layers"].str.split("-").str[1]
    assert set(second[history["loss"].isna()]) == {word for word in second if word[1:2] == "S"}
    failed = int(history["loss"].isna().sum())
    assert SearchRecord.load(Path(config.out) / "result.json").failed == failed > 10
    notes = [line for line in capsys.readouterr().out.splitlines() if "has no score" in line]
    assert len(notes) == 10
    assert (
        notes[0] == f"note: {history['layers'][history['loss'].isna()].iloc[0]} has no score: its logits are not finite"
    )


def test_auto_is_not_for_a_search_itself(config: SearchRunConfig) -> None:
    config.search.searcher = "auto"
    with pytest.raises(ValueError, match="search=auto is for psvit-search run"):
        search(config)
