"""`psvit-search rank`: the drawing, and the whole on a supernet of digits."""

import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from psvit.arch import Architecture, CellPath
from psvit.archfile import ArchFile, save_arch
from psvit.data.data import open_data
from psvit.data.record import Listed, Split
from psvit.engine.config import Recipe
from psvit.retrain.config import RetrainConfig
from psvit.retrain.train import retrain
from psvit.run.jobs import Job
from psvit.run.signals import Stopped
from psvit.search import standalone
from psvit.search.budget import Budget
from psvit.search.candidates import candidates, draw_by_cost, rank_budget
from psvit.search.config import RankConfig
from psvit.search.correlation import correlations
from psvit.search.rank import rank, shorten_warmup
from psvit.search.records import RankRecord, StandaloneTable
from psvit.search.tables import RANK, STANDALONE
from psvit.supernet.checkpoint import TrainedSupernet
from psvit.supernet.inherit import inherit
from psvit.supernet.space import SearchSpace
from psvit.units import Band
from psvit.zoo import SPACES
from tests.hold import Hold
from tests.search.builders import note_splits

SMALL = SearchSpace(SPACES["2d_mini_4"], cells=2)  # 27 architectures


# ---------------------------------------------------------------------------------------------------- drawing


def by_cost(space: SearchSpace, budget: Budget) -> list[int]:
    """FLOPs of all architectures within a budget, rising, by going through all of the space."""
    costs = [space.cost(each) for each in space.within()]
    return sorted(cost.flops for cost in costs if cost.flops in budget.flops and cost.params in budget.params)


@pytest.mark.parametrize("number", [3, 7, 20])
def test_one_is_drawn_from_each_band_of_flops(number: int) -> None:
    space = SearchSpace(SPACES["2d_mini_4"], cells=3)
    budget = Budget(Band(2_500_000, 4_000_000), Band(None, 300_000))
    within = by_cost(space, budget)
    edges = np.linspace(within[0], within[-1] + 1, number + 1)
    there = np.histogram(within, edges)[0]
    for seed in range(4):
        drawn = draw_by_cost(space, budget, number, seed)
        assert len(set(drawn)) == number
        assert max(space.cost(each).params for each in drawn) <= 300_000
        flops = [space.cost(each).flops for each in drawn]
        assert flops == sorted(flops)
        per_band = np.histogram(flops, edges)[0]
        assert (per_band <= there).all()
        assert (per_band[there > 0] >= 1).all()


def test_all_of_a_band_are_equally_likely() -> None:
    drawn = [draw_by_cost(SMALL, Budget(), 3, seed) for seed in range(600)]
    counts = Counter(each for draw in drawn for each in draw)
    assert set(counts) == set(SMALL.within())
    costs = {each: SMALL.cost(each).flops for each in counts}
    for band in range(3):
        width = (max(costs.values()) + 1 - min(costs.values())) / 3
        low = min(costs.values()) + band * width
        inside = [counts[each] for each, flops in costs.items() if low <= flops < low + width]
        assert sum(inside) == 600
        assert stats.chisquare(inside).pvalue > 0.001


def test_architectures_are_named_by_layers_and_files(tmp_path: Path) -> None:
    space = SearchSpace(SPACES["2d_mini_4"])
    save_arch(tmp_path / "arch.json", ArchFile(space.spec, Architecture.parse("BSS-B-B")))
    pd.DataFrame({"place": [1, 2], "layers": ["B-B-BB", "B-B-B"]}).to_csv(tmp_path / "top.csv", index=False)
    named = f"{tmp_path / 'arch.json'}, B-B-BS,{tmp_path / 'top.csv'},B-B-B"
    found = candidates(RankConfig(archs=named), space)
    assert set(map(str, found)) == {"BSS-B-B", "B-B-BS", "B-B-BB", "B-B-B"}
    assert [space.cost(each).flops for each in found] == sorted(space.cost(each).flops for each in found)


@pytest.mark.parametrize(
    ("archs", "words"),
    [
        ("B-B-B,BB-B-B", "2 architectures are too few"),
        ("B-B-B,BB-B-B,BBBBBBB-B-B", "BBBBBBB"),
        ("B-B-B,BB-B-B,S-B-B", "S-B-B"),
        ("B-B-B,BB-B-B,BBBBBB-BBBBBB-BBBBBB", "does not meet the budget"),
        ("none.csv", "cannot read none.csv"),
        ("none.json", "none.json"),
    ],
)
def test_names_that_cannot_be_ranked_are_refused(archs: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        candidates(RankConfig(archs=archs, flops="5M"), SearchSpace(SPACES["2d_mini_4"]))


def test_a_draw_of_everything_and_of_too_many() -> None:
    assert set(draw_by_cost(SMALL, Budget(), 27, 0)) == set(SMALL.within())
    with pytest.raises(ValueError, match=r"only 27 architectures meet any cost, fewer than the 28.*archs=27"):
        draw_by_cost(SMALL, Budget(), 28, 0)
    with pytest.raises(ValueError, match="the space reaches"):
        draw_by_cost(SMALL, Budget(Band(None, 1000)), 3, 0)


def test_equal_cost_is_a_band_of_two_percent() -> None:
    assert rank_budget(RankConfig(cost="equal", flops="5M")).flops == Band(4_900_000, 5_100_000)
    assert rank_budget(RankConfig(cost="equal", flops="4M..4.1M")).flops == Band(4_000_000, 4_100_000)
    assert rank_budget(RankConfig(flops="5M", params="1M")) == Budget(Band(None, 5_000_000), Band(None, 1_000_000))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"archs": "2"}, "archs is 2"),
        ({"seeds": 0}, "seeds is 0"),
        ({"cost": "same"}, "spread, equal"),
        ({"cost": "equal"}, "--flops"),
        ({"cost": "equal", "flops": "5M.."}, "--flops"),
        ({"jobs": -1}, "jobs is -1"),
    ],
)
def test_settings_are_checked(wrong: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RankConfig(**wrong)


def test_a_short_training_warms_up_for_a_part_of_it() -> None:
    assert shorten_warmup(Recipe(epochs=2, warmup_epochs=5)).warmup_epochs == pytest.approx(0.4)
    assert shorten_warmup(Recipe(epochs=100, warmup_epochs=5)) == Recipe(epochs=100, warmup_epochs=5)


# ---------------------------------------------------------------------------------------------------- the whole


def here(jobs: list[Job], at_once: int, done: Callable) -> None:
    """Stands in for run_jobs: everything in this process, which has one thread."""
    for job in jobs:
        done(job, job.call(job.argument))


@pytest.fixture(scope="module")
def config(supernet_run: Path, quick: Recipe, tmp_path_factory: pytest.TempPathFactory) -> RankConfig:
    out = str(tmp_path_factory.mktemp("rank") / "whole")
    recipe = replace(quick, epochs=2, warmup_epochs=0.25)
    return RankConfig(
        out=out, supernet=str(supernet_run), archs="3", seeds=2, flops="3.5M", seed=1, device="cpu", recipe=recipe
    )


@pytest.fixture(scope="module")
def read() -> set[str]:
    """The splits whose images were read."""
    return set()


@pytest.fixture(scope="module")
def whole(config: RankConfig, read: set[str]) -> RankConfig:
    """A run without a break, one network after the other in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(standalone, "run_jobs", here)
        note_splits(patch, read)
        rank(config)
    return config


def test_results(whole: RankConfig, read: set[str]) -> None:
    folder = Path(whole.out)
    frame = RANK.read(folder / "rank.csv")
    trained = TrainedSupernet.open(Path(whole.supernet))
    drawn = draw_by_cost(trained.space, rank_budget(whole), 3, 1)
    assert list(frame["layers"]) == [str(each) for each in drawn]
    assert (frame["flops"] <= 3_500_000).all()
    assert set(frame["seeds"]) == {2}
    standalone = STANDALONE.read(folder / "standalone.csv")
    assert list(zip(standalone["layers"], standalone["seed"], strict=True)) == [
        (str(each), seed) for each in drawn for seed in (1, 2)
    ]
    assert set(standalone["epochs"]) == {2}
    for score in ("top1", "loss"):
        means = standalone.groupby("layers", sort=False)[score].mean()
        assert list(frame[f"standalone_{score}"]) == pytest.approx(list(means))
    supernet, data = trained.load(), open_data(trained.data)
    ((images, labels),) = data.eval_batches("search", (32, 32), 10_000)
    for row, architecture in zip(frame.itertuples(), drawn, strict=True):
        cost = trained.space.cost(architecture)
        assert (row.flops, row.params) == (cost.flops, cost.params)
        with torch.no_grad():
            logits = inherit(supernet, CellPath.canonical(architecture, trained.space.cells))(images)
        assert row.inherited_top1 == pytest.approx((logits.argmax(1) == labels).double().mean().item())
        assert row.inherited_loss == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), abs=1e-5)
    record = RankRecord.load(folder / "rank.json")
    assert record.correlations == correlations(frame, standalone, 1)
    assert record.inherited.supernet_sha256 == trained.sha256()
    assert record.inherited.num_images == len(labels)
    assert record.num_train_images == data.size("train")
    assert (folder / "rank.png").read_bytes().startswith(b"\x89PNG")
    assert read == {"train", "search"}


def test_alone_is_what_retrain_reaches_with_the_search_split_held_out(whole: RankConfig, tmp_path: Path) -> None:
    row = STANDALONE.read(Path(whole.out) / "standalone.csv").iloc[-1]
    trained = TrainedSupernet.open(Path(whole.supernet))
    save_arch(tmp_path / "arch.json", ArchFile(trained.space.spec, Architecture.parse(row["layers"])))
    retrain(
        RetrainConfig(
            arch=str(tmp_path / "arch.json"),
            out=str(tmp_path / "run"),
            hold_out=True,
            seed=2,
            device="cpu",
            recipe=whole.recipe,
        )
    )
    last = pd.read_csv(tmp_path / "run/metrics.csv").iloc[-1]
    assert (row["top1"], row["loss"]) == (last["search_top1"], last["search_loss"])


@pytest.mark.slow
def test_stopped_in_the_middle_it_goes_on_with_the_same_bits(
    whole: RankConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes train until SIGTERM comes, then all goes on in this one: rank.csv is that of the unbroken run."""
    run, hold = tmp_path / "run", Hold(tmp_path / "gate", "checkpoint.pt")
    corrupt = replace(whole, out=str(run), jobs=2, recipe=replace(whole.recipe, checkpoint_every=1))
    for name, value in hold.environment.items():
        monkeypatch.setenv(name, value)

    def stop() -> None:
        hold.wait(number=2)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    with pytest.raises(Stopped, match=r"networks; run the same command again to resume"):
        rank(corrupt)
    thread.join()
    assert len(list(run.glob("networks/*"))) == 2
    assert len(list(run.glob("networks/*/checkpoint.pt"))) == 2
    assert not (run / "rank.csv").exists()
    monkeypatch.setattr(standalone, "run_jobs", here)
    rank(replace(corrupt, jobs=1))
    for name in ("rank.csv", "standalone.csv", "inherited.csv"):
        assert (run / name).read_bytes() == (Path(whole.out) / name).read_bytes(), name


def test_a_finished_run_trains_nothing_again(whole: RankConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    table = (Path(whole.out) / "rank.csv").read_bytes()
    monkeypatch.setattr(standalone, "run_jobs", pytest.fail)
    monkeypatch.setattr(standalone, "Evaluator", pytest.fail)
    assert list(rank(whole).frame["seeds"]) == [2, 2, 2]
    assert (Path(whole.out) / "rank.csv").read_bytes() == table


def test_trainings_of_a_table_serve_another_supernet(
    whole: RankConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(standalone, "run_jobs", pytest.fail)
    table = str(Path(whole.out) / "standalone.csv")
    found = rank(replace(whole, out=str(tmp_path / "all"), against=table, archs="16"))
    assert found.frame.equals(RANK.read(Path(whole.out) / "rank.csv"))
    assert found.figures == RankRecord.load(Path(whole.out) / "rank.json").correlations
    assert RankRecord.load(tmp_path / "all/rank.json").against == table
    two = str(sorted(found.frame["flops"])[1])
    with pytest.raises(ValueError, match="2 architectures are too few"):
        rank(replace(whole, out=str(tmp_path / "some"), against=table, flops=two))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"space": SMALL}, "its networks are of another space"),
        ({"data": {"classes": tuple("abcdefghij")}}, "the classes differ"),
        ({"data": {"listed": {"train": Listed(7, (7, *[0] * 9), "ab")}}}, "train had 7 images"),
        ({"data": {"splits": {"train": Split(7, "ab"), "search": Split(7, "ab")}}}, "are split in another way"),
    ],
)
def test_a_table_of_other_networks_or_images_is_refused(
    whole: RankConfig, tmp_path: Path, change: dict, words: str
) -> None:
    shutil.copy(Path(whole.out) / "standalone.csv", tmp_path / "other.csv")
    of = StandaloneTable.load(Path(whole.out) / "standalone.json")
    data = replace(of.data, **change.pop("data", {}))
    replace(of, data=data, **change).save(tmp_path / "other.json")
    with pytest.raises(ValueError, match=f"other.csv is no table for .*{words}"):
        rank(replace(whole, out=str(tmp_path / "run"), against=str(tmp_path / "other.csv")))
    assert not (tmp_path / "run").exists()


def test_other_runs_are_refused(whole: RankConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"recipe\.epochs was 2 and is 4"):
        rank(replace(whole, recipe=replace(whole.recipe, epochs=4)))
    with pytest.raises(ValueError, match="archs was 3 and is 4"):
        rank(replace(whole, archs="4"))
    monkeypatch.setattr(TrainedSupernet, "sha256", lambda trained: "another")
    with pytest.raises(ValueError, match="supernet_sha256"):
        rank(whole)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="without torchrun"):
        rank(whole)


def test_a_training_that_diverges_is_refused(
    whole: RankConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(standalone, "run_jobs", here)
    with pytest.raises(ValueError, match="the loss or its gradient is not finite"):
        rank(replace(whole, out=str(tmp_path / "run"), recipe=replace(whole.recipe, lr=1e30)))
    assert "epoch 1/2" in next(tmp_path.glob("run/networks/*/log.txt")).read_text()
    assert not list(tmp_path.glob("run/networks/*/result.json"))
