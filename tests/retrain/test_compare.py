"""Networks side by side: against means and intervals by hand, and what may not be compared."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from psvit.data.config import DataConfig
from psvit.data.data import open_data
from psvit.engine.outcomes import OUTCOMES, ImageOutcomes
from psvit.intervals import mean_interval, wilson
from psvit.retrain.compare import compare
from psvit.retrain.config import CompareConfig
from psvit.retrain.results import CompareRecord
from psvit.run.folder import RunFolder
from tests.retrain.test_results import RETRAINED

IMAGES = 359  # of the digits to test on
DATA = open_data(DataConfig())


def run(folder: Path, layers: str, seed: int = 0, top1: float = 0.8, **settings: object) -> Path:
    """A retraining that is right on a share of the images, drawn by its folder's name and seed."""
    rng = np.random.default_rng([seed, *folder.name.encode()])
    correct, labels = rng.random(IMAGES) < top1, DATA.labels("test")
    confidence = np.full(IMAGES, 0.5, np.float32)
    loss = rng.exponential(1, IMAGES).astype(np.float32)
    with RunFolder(folder, {"recipe": {"epochs": 2, "lr": 0.1}, "hold_out": False, "seed": seed} | settings):
        replace(RETRAINED, layers=layers, seed=seed, top1=float(correct.mean())).save(folder / "result.json")
        outcomes = ImageOutcomes(loss, correct, labels, np.where(correct, labels, (labels + 1) % 10), confidence)
        outcomes.save(folder / OUTCOMES, {})
        DATA.record(test=True).save(folder / "data.json")
    return folder


def outcomes(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    found = ImageOutcomes.load(folder / OUTCOMES)
    return found.correct.astype(float), found.loss.astype(float)


def test_pairs_are_compared_image_by_image_over_seeds(tmp_path: Path) -> None:
    ours = [run(tmp_path / f"a{seed}", "B-B-B", seed, 0.9) for seed in (2, 0, 1)]
    theirs = [run(tmp_path / f"b{seed}", "BS-B-B", seed, 0.6) for seed in (0, 2, 1)]
    record = compare(CompareConfig([str(path) for path in (*ours, *theirs)]))
    first, other = record.networks
    assert (first.network, first.seeds, other.seeds) == ("2d_mini_4 B-B-B", (0, 1, 2), (0, 1, 2))
    a, b = ([outcomes(tmp_path / f"{name}{seed}") for seed in range(3)] for name in "ab")
    assert first.top1.value == pytest.approx(np.mean([correct.mean() for correct, _ in a]))
    by_hand = mean_interval(np.stack([x[0] - y[0] for x, y in zip(a, b, strict=True)]))
    assert other.ahead_top1 == by_hand
    assert other.ahead_loss == mean_interval(np.stack([y[1] - x[1] for x, y in zip(a, b, strict=True)]))
    assert "better in top-1 by 0." in record.lines[0]
    swapped = compare(CompareConfig([str(path) for path in (*theirs, *ours)]))
    assert "worse in top-1 by 0." in swapped.lines[0]
    assert swapped.networks[1].ahead_top1 is not None
    assert swapped.networks[1].ahead_top1.value == pytest.approx(-by_hand.value)


@pytest.mark.parametrize(
    ("theirs", "pairs"), [((1, 2), [(1, 1), (0, 2)]), ((1,), [(1, 1)]), ((2, 3, 4), [(0, 2), (1, 3)])]
)
def test_trainings_of_one_seed_are_a_pair(
    tmp_path: Path, theirs: tuple[int, ...], pairs: list[tuple[int, int]]
) -> None:
    """Else what a seed does to both networks would be taken for a difference between them."""
    folders = [run(tmp_path / f"a{seed}", "B-B-B", seed, 0.9) for seed in (0, 1)]
    folders += [run(tmp_path / f"b{seed}", "BS-B-B", seed, 0.6) for seed in theirs]
    other = compare(CompareConfig([str(path) for path in folders])).networks[1]
    rows = [outcomes(tmp_path / f"a{a}")[0] - outcomes(tmp_path / f"b{b}")[0] for a, b in pairs]
    assert other.ahead_top1 == mean_interval(np.stack(rows))


def test_equals_are_not_told_apart_and_others_of_the_space_are_one_mean(tmp_path: Path) -> None:
    names = ("B-B-B", "BS-B-B", "BB-B-B", "B-BS-B")
    folders = [run(tmp_path / name, name) for name in names]
    record = compare(CompareConfig([str(path) for path in folders]))
    assert all("no difference in top-1 that this can tell" in line for line in record.lines[:3])
    assert record.others == 3
    correct = outcomes(folders[0])[0]
    top1 = record.networks[0].top1
    assert (top1.low, top1.high) == pytest.approx(wilson(correct.mean(), IMAGES))
    rows = [outcomes(folders[0])[0] - outcomes(path)[0] for path in folders[1:]]
    assert record.ahead_of_others == mean_interval(np.stack(rows))
    assert "against the mean of the 3 other architectures of its space" in record.lines[3]


def test_files_and_what_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(run(tmp_path / name, name)) for name in ("B-B-B", "BS-B-B")]
    record = compare(CompareConfig(runs, save=str(tmp_path / "made")))
    assert CompareRecord.load(tmp_path / "made/compare.json") == record
    printed = capsys.readouterr().out
    table = (tmp_path / "made/compare.md").read_text()
    assert table in printed
    assert table.count("\n| 2d_mini_4 B") == 2
    assert (tmp_path / "made/compare.png").read_bytes().startswith(b"\x89PNG")


def test_what_may_not_be_compared(tmp_path: Path) -> None:
    one, two = run(tmp_path / "one", "B-B-B"), run(tmp_path / "two", "BS-B-B", recipe={"epochs": 2, "lr": 0.2})
    with pytest.raises(ValueError, match=r"two was not trained as .*one: recipe\.lr was 0\.1 and is 0\.2.*any_recipe"):
        compare(CompareConfig([str(one), str(two)]))
    assert len(compare(CompareConfig([str(one), str(two)], any_recipe=True)).networks) == 2
    with pytest.raises(ValueError, match=r"2d_mini_4 B-B-B is there twice with the same seed"):
        compare(CompareConfig([str(one), str(two), str(one)], any_recipe=True))
    with pytest.raises(ValueError, match=r"all runs are of 2d_mini_4 B-B-B"):
        compare(CompareConfig([str(one), str(run(tmp_path / "again", "B-B-B", seed=1))]))
    with pytest.raises(ValueError, match=r"no finished retraining"):
        compare(CompareConfig([str(one), str(tmp_path)]))
    with pytest.raises(ValueError, match=r"give two runs of retrain or more"):
        CompareConfig([str(one)])
    data = DATA.record(test=True)
    replace(data, dataset="others").save(two / "data.json")
    with pytest.raises(ValueError, match=r"two is on other data than .*the dataset was digits and is others"):
        compare(CompareConfig([str(one), str(two)], any_recipe=True))
