"""`psvit-search finals`: which images judge, who enters, and the whole on a supernet of digits."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from psvit.archfile import load_arch
from psvit.data.data import open_data
from psvit.data.pixels import Pixels
from psvit.engine.config import Recipe
from psvit.intervals import mean_interval, wilson
from psvit.run.jobs import Job
from psvit.run.signals import Stopped
from psvit.search import finals as finals_module
from psvit.search import standalone
from psvit.search.config import BudgetConfig, FinalsConfig, SearchConfig, SearchRunConfig
from psvit.search.crossfit import assign_folds
from psvit.search.finalists import Judges
from psvit.search.finals import finals
from psvit.search.records import FinalRecord
from psvit.search.run import search
from psvit.supernet.checkpoint import TrainedSupernet
from tests.search.builders import note_splits

LABELS = np.random.default_rng(0).integers(0, 4, 300)


@pytest.mark.parametrize("adaptive", [False, True])
def test_images_that_rank_and_images_that_judge_are_others(adaptive: bool) -> None:
    searched = 200
    folds = assign_folds(LABELS[:searched], 3)
    judges = Judges.of(folds, LABELS, adaptive, seed=1)
    ranks = np.arange(300) < searched if adaptive else np.isin(np.arange(300), np.flatnonzero(folds < 3))
    assert (judges.ranks == ranks).all()
    assert ((judges.part == -1) == ranks).all()
    sizes = [(judges.part == part).sum() for part in range(3)]
    assert max(sizes) - min(sizes) <= 1
    for label in range(4):
        of_class = [((judges.part == part) & (label == LABELS)).sum() for part in range(3)]
        assert max(of_class) - min(of_class) <= 1


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"has left 30 images to judge a final; it needs 36.*search_fraction"):
        Judges.of(assign_folds(LABELS[:60], 0), LABELS[:60], adaptive=False, seed=0)


def here(jobs: list[Job], at_once: int, done: Callable) -> None:
    """Stands in for run_jobs: everything in this process, which has one thread."""
    for job in jobs:
        done(job, job.call(job.argument))


@pytest.fixture(scope="module")
def config(supernet_run: Path, quick: Recipe, tmp_path_factory: pytest.TempPathFactory) -> FinalsConfig:
    """A final of four, of an exhaustive search."""
    folder = tmp_path_factory.mktemp("final") / "search"
    settings = SearchConfig(searcher="exhaustive", budget=BudgetConfig(flops="3.2M"), baseline=2)
    search(SearchRunConfig(out=str(folder), supernet=str(supernet_run), device="cpu", search=settings))
    return FinalsConfig(
        run=str(folder), out=str(folder / "final"), keep=4, control=2, device="cpu", recipe=replace(quick, epochs=2)
    )


@pytest.fixture(scope="module")
def read() -> set[str]:
    """The splits whose images were read."""
    return set()


@pytest.fixture(scope="module")
def whole(config: FinalsConfig, read: set[str]) -> FinalsConfig:
    """A final without a break, one network after the other in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(standalone, "run_jobs", here)
        note_splits(patch, read)
        finals(config)
    return config


def outcomes(config: FinalsConfig, epochs: int, layers: str) -> dict[str, np.ndarray]:
    return load_file(Path(config.out) / "networks" / f"{epochs}-epochs" / layers / "outcomes.safetensors")


@pytest.mark.slow
def test_each_round_keeps_the_half_that_is_better_on_its_images(whole: FinalsConfig, read: set[str]) -> None:
    record = FinalRecord.load(Path(whole.out) / "final.json")
    assert [(each.epochs, len(each.networks)) for each in record.rounds] == [(1, 4), (2, 2)]
    assert record.searched in {each.layers for each in record.rounds[0].networks}
    for number, played in enumerate(record.rounds):
        losses = [each.loss for each in played.networks]
        assert losses == sorted(losses)
        assert [each.kept for each in played.networks] == [place < len(losses) / 2 for place in range(len(losses))]
        follow = [each.layers for each in played.networks if each.kept]
        there = record.rounds[number + 1].networks if number == 0 else [record]
        assert {each.layers for each in there} == set(follow)
    assert read == {"train", "search"}
    history = pd.read_csv(Path(whole.run) / "history.csv").set_index("layers")
    assert (history.loc[[each.layers for each in record.control], "flops"] / record.flops - 1).abs().max() <= 0.02


@pytest.mark.slow
def test_the_claim_is_of_images_that_did_nothing_else(whole: FinalsConfig, supernet_run: Path) -> None:
    """The parts are found again from the losses that the record has of each."""
    record = FinalRecord.load(Path(whole.out) / "final.json")
    trained = TrainedSupernet.open(supernet_run)
    data = open_data(trained.data)
    order = Pixels(data, "search", (32, 32), None, trained.data.split_seed).order
    labels = data.labels("search")[order]
    judges = Judges.of(assign_folds(labels, trained.data.split_seed), labels, adaptive=False, seed=0)
    own = outcomes(whole, 2, record.layers)
    assert (own["labels"] == data.labels("search")).all()
    images = order[judges.part == 2]
    assert record.num_images == len(images)
    assert record.loss == mean_interval(own["loss"][images])
    assert (record.top1.low, record.top1.high) == pytest.approx(wilson(own["correct"][images].mean(), len(images)))
    others = [outcomes(whole, 2, each.layers) for each in record.control]
    gain = np.stack([other["loss"][images] - own["loss"][images] for other in others])
    assert record.gain_loss == mean_interval(gain)
    assert record.gain_loss.value == pytest.approx(gain.mean())
    first = record.rounds[0].networks[0]
    assert first.loss == pytest.approx(outcomes(whole, 1, first.layers)["loss"][order[judges.part == 0]].mean())


@pytest.mark.slow
def test_the_winner_is_an_architecture_file_and_the_report_shows_it(whole: FinalsConfig) -> None:
    record, arch = FinalRecord.load(Path(whole.out) / "final.json"), load_arch(Path(whole.out) / "arch.json")
    assert str(arch.architecture) == record.layers
    played = [(each.epochs, network.layers) for each in record.rounds for network in each.networks]
    trained = {*played, *((2, network.layers) for network in record.control)}  # a control may have played as well
    assert record.networks == len(trained)
    assert record.images == sum(epochs for epochs, _ in trained) * 1295
    page = (Path(whole.run) / "report.html").read_text()
    assert "The final" in page
    assert page.count("2 epochs") >= 1


@pytest.mark.slow
def test_stopped_in_the_middle_it_goes_on_to_the_same_end(
    whole: FinalsConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after five trainings; then it goes on, and trains the others only."""
    trained: list[str] = []

    def few(jobs: list[Job], at_once: int, done: Callable) -> None:
        for job in jobs:
            if len(trained) == 5:
                raise Stopped("asked to")
            trained.append(job.name)
            done(job, job.call(job.argument))

    again = replace(whole, out=str(tmp_path / "final"))
    monkeypatch.setattr(standalone, "run_jobs", few)
    with pytest.raises(Stopped, match="run the same command again to resume"):
        finals(again)
    assert not (tmp_path / "final/final.json").exists()
    trained.clear()
    finals(again)
    one, two = (FinalRecord.load(Path(each.out) / "final.json") for each in (whole, again))
    assert len(trained) == one.networks - 5
    assert replace(one, seconds=0.0) == replace(two, seconds=0.0)
    assert (tmp_path / "final/arch.json").read_bytes() == (Path(whole.out) / "arch.json").read_bytes()


def test_inherited_weights_are_where_it_starts(
    whole: FinalsConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standalone, "run_jobs", here)
    small = replace(whole, out=str(tmp_path / "final"), keep=2, control=0, init="inherit")
    still = replace(small, recipe=replace(small.recipe, epochs=1, lr=1e-12, min_lr=0.0))
    found = finals(still).record
    assert found.gain_loss is None
    history = pd.read_csv(Path(whole.run) / "history.csv").set_index("layers")
    for network in found.rounds[0].networks:  # nothing was learned: the scores are those of the search
        loss = outcomes(still, 1, network.layers)["loss"].mean()
        assert loss == pytest.approx(history.loc[network.layers, "loss"], abs=1e-3)


@pytest.mark.slow
def test_a_final_ends_where_the_next_round_would_take_too_long(
    whole: FinalsConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standalone, "run_jobs", here)
    monkeypatch.setattr(finals_module, "_seconds", lambda folder, images: 60.0)
    long = FinalRecord.load(Path(whole.out) / "final.json")
    assert len(long.rounds) == long.planned
    for minutes, rounds in ((11.9, 1), (12.0, 2)):  # 4 minutes for 4 epochs, then (2 + 2) * 2 epochs
        config = replace(whole, out=str(tmp_path / f"{rounds}"), max_minutes=minutes)
        for command in range(2):  # and again, as if resumed
            found = finals(config).record
            assert (len(found.rounds), found.planned) == (rounds, 2), command
        assert [each.kept for each in found.rounds[-1].networks] == [True] + (len(found.rounds[-1].networks) - 1) * [
            False
        ]
        assert found.layers == found.rounds[-1].networks[0].layers
        assert len(found.control) == 2
        assert any("ended it behind round 1 of 2" in line for line in found.lines) == (rounds == 1)
        for each in found.control:
            assert (tmp_path / f"{rounds}/networks/{rounds}-epochs/{each.layers}").is_dir()
        if rounds == 2:
            assert replace(found, seconds=0.0) == replace(long, seconds=0.0)


def test_what_cannot_be_a_final_is_refused(
    whole: FinalsConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"no finished search: there is no result\.json"):
        finals(replace(whole, run=str(tmp_path)))
    with pytest.raises(ValueError, match="keep was 4 and is 3"):
        finals(replace(whole, keep=3))
    with pytest.raises(ValueError, match="max_networks=3"):
        finals(replace(whole, out=str(tmp_path / "a"), max_networks=3))
    with pytest.raises(ValueError, match="init is 'random'; use one of scratch, inherit"):
        FinalsConfig(init="random")
    history = Path(whole.run) / "history.csv"
    content = history.read_bytes()
    try:
        history.write_bytes(content[: content.rindex(b"\n", 0, -1) + 1])
        with pytest.raises(ValueError, match=r"history\.csv has .* architectures that were scored"):
            finals(replace(whole, out=str(tmp_path / "b")))
    finally:
        history.write_bytes(content)
    monkeypatch.setattr(TrainedSupernet, "sha256", lambda trained: "another")
    with pytest.raises(ValueError, match="searched another supernet"):
        finals(whole)
