"""`psvit-search ablate`: what is trained and what is not, tables and pictures, kills, and several processes."""

import csv
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from psvit.cli import compose
from psvit.cli.commands import COMMANDS
from psvit.cli.compose import CONF
from psvit.data.config import AugmentConfig, DataConfig
from psvit.engine.config import Recipe
from psvit.networks import find_arch
from psvit.paper import ablate
from psvit.paper.ablate import AblateConfig, ScaleConfig, make_table, mean_text, train, training
from psvit.paper.published import ABLATIONS, Ablation
from psvit.retrain.results import RetrainRecord
from psvit.search.config import BudgetConfig, SearchConfig
from psvit.search.records import SearchRecord
from psvit.supernet.config import SupernetPart
from psvit.units import Band
from tests.hold import HANG, Hold

ROOT = Path(__file__).parents[2]
PLAIN = AugmentConfig(crop_scale=[1, 1], flip=0, randaugment_ops=0, erasing=0, mixup=0, cutmix=0)
QUICK = Recipe(epochs=1, batch_size=8, lr=2e-3, warmup_epochs=0, drop_path=0.0, checkpoint_every=1, augment=PLAIN)
TWO = (Ablation("none: DeiT-Tiny", "none", 72.2), Ablation("wider: widths 1, 2, 3", "wider", None, "of our own"))


@pytest.fixture
def two_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of two rows, named ``two``."""
    monkeypatch.setitem(ABLATIONS, "two", TWO)


def settings(folder: Path, table: str = "two", **more: Any) -> AblateConfig:
    """An ablation of one epoch."""
    return AblateConfig(table, out=str(folder), device="cpu", recipe=replace(QUICK), **more)


def finished(config: AblateConfig, score: dict[tuple[str, int], float]) -> None:
    """Write what trainings leave behind, as if they had been."""
    rows = {row.variant for rows in config.tables.values() for row in rows}
    for variant in rows:
        for seed in config.seeds:
            task = training(config, variant, seed)
            folder = Path(task.retrain.out)
            layers = f"{task.supernet.space.name}:B{'S' * seed}-B-B" if task.supernet else task.retrain.arch
            arch = find_arch(layers)
            top1, cost = score.get((variant, seed), 0.5), arch.cost
            write_result(folder, top1=top1, layers=str(arch.architecture), flops=cost.flops, params=cost.params)


def write_result(folder: Path, **fields: Any) -> None:
    """What retrain writes."""
    others: dict[str, Any] = {
        "loss": 1.0,
        "metrics": {},
        "ema_top1": None,
        "ema_loss": None,
        "data": "digits",
        "num_test_images": 359,
        "trained_on": "train+search",
        "num_images": 1438,
        "epochs": 1,
        "seed": 0,
        "start": None,
        "teacher": None,
        "network": "deit_mini_4",
        "arch_sha256": "ab",
        "weights_sha256": "cd",
        "tool": "psvit-search 0",
    }
    RetrainRecord(**others | fields).save(folder / "result.json")


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Nothing is trained: the names of what would have been."""
    asked: list[str] = []
    monkeypatch.setattr(ablate, "run_jobs", lambda jobs, at_once, done: asked.extend(job.name for job in jobs))
    return asked


# ---------------------------------------------------------------------------------------------------- what is trained


def test_rows_that_tables_have_in_common_are_trained_once(tmp_path: Path, no_training: list[str]) -> None:
    config = settings(tmp_path, "all", seeds=[0, 4])
    with pytest.raises(AssertionError):  # there are no results
        ablate.ablate(config)
    variants = {row.variant for rows in ABLATIONS.values() for row in rows}
    rows = sum(len(rows) for rows in ABLATIONS.values())
    assert len(variants) < rows
    assert len(no_training) == len(set(no_training)) == 2 * len(variants)
    assert {"deit_mini_4, seed 0", "deit_mini_4_wider, seed 4", "search_2d, seed 0"} <= set(no_training)
    assert all(name.startswith("search") for name in no_training[:4])  # the longest first
    costs = [find_arch(name.partition(",")[0]).cost.flops for name in no_training[4:]]
    assert costs == sorted(costs, reverse=True)


@pytest.mark.parametrize("scale", sorted(path.stem for path in (CONF / "scale").glob("*.yaml")))
def test_every_scale_has_all_rows_and_the_budget_of_its_plain_network(scale: str) -> None:
    config = compose.settings(COMMANDS["ablate"], ["table=all", f"scale={scale}"])
    assert isinstance(config, AblateConfig)
    assert (config.scale.name, config.data.name, config.out) == (scale, scale, f"runs/default/ablate-{scale}")
    for variant in {row.variant for rows in config.tables.values() for row in rows}:
        training(config, variant, seed=0)
    budget = Band.parse(config.search.budget.flops).high
    assert budget is not None
    assert 0.95 * budget < find_arch(config.scale.network).cost.flops <= budget


def test_what_is_finished_is_not_trained_again(tmp_path: Path, two_rows: None, no_training: list[str]) -> None:
    finished(settings(tmp_path, seeds=[0]), {})
    with pytest.raises(AssertionError):
        ablate.ablate(settings(tmp_path, seeds=[0, 1]))
    assert no_training == ["deit_mini_4, seed 1", "deit_mini_4_wider, seed 1"]
    no_training.clear()
    finished(settings(tmp_path, seeds=[1]), {})
    ablate.ablate(settings(tmp_path, seeds=[0, 1]))
    assert not no_training


def test_other_settings_are_refused(tmp_path: Path, two_rows: None, no_training: list[str]) -> None:
    finished(settings(tmp_path), {})
    ablate.ablate(settings(tmp_path))
    ablate.ablate(settings(tmp_path, jobs=3))
    with pytest.raises(ValueError, match=r"recipe.epochs was 1 and is 2.*name="):
        ablate.ablate(replace(settings(tmp_path), recipe=replace(QUICK, epochs=2)))
    with pytest.raises(ValueError, match=r"search.budget.flops was None and is 5M"):
        ablate.ablate(settings(tmp_path, search=SearchConfig(budget=BudgetConfig("5M"))))


def test_faults(tmp_path: Path, two_rows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong, words in (
        ({"table": "poling"}, "choose one of components, pooling, sharing, pooling_kind, two, all"),
        ({"seeds": []}, r"seeds=\[0,1,2\]"),
        ({"seeds": [1, 1]}, "different"),
        ({"jobs": -1}, "jobs is -1"),
    ):
        with pytest.raises(ValueError, match=words):
            replace(settings(tmp_path), **wrong)
    with pytest.raises(ValueError, match="no network is named 'deit_mini'"):
        ablate.ablate(settings(tmp_path, scale=ScaleConfig(network="deit_mini")))
    with pytest.raises(ValueError, match="no space is named '3d'"):
        ablate.ablate(settings(tmp_path, "components", scale=ScaleConfig(search_1d="3d")))
    (tmp_path / "deit_mini_4/seed0").mkdir(parents=True)
    (tmp_path / "deit_mini_4/seed0/result.json").write_text('{"top1": ')
    with pytest.raises(ValueError, match=r"seed0/result\.json: cannot be read as JSON .*; delete it and run the"):
        ablate.ablate(settings(tmp_path))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="search=auto works in one process"):
        ablate.ablate(settings(tmp_path, "components", search=SearchConfig(searcher="auto")))


# ---------------------------------------------------------------------------------------------------- tables


def test_mean_and_spread(tmp_path: Path, two_rows: None, no_training: list[str]) -> None:
    scores = {("none", 0): 0.91, ("none", 1): 0.95, ("none", 7): 0.96, ("wider", 0): 0.97, ("wider", 1): 0.98}
    config = settings(tmp_path, seeds=[0, 1, 7])
    finished(config, scores)
    ablate.ablate(config)
    table = json.loads((tmp_path / "table-two.json").read_text())
    assert (table["table"], table["scale"], table["data"], table["seeds"]) == ("two", "digits", "digits", [0, 1, 7])
    plain, wider = table["rows"]
    assert plain["top1"] == {"0": 0.91, "1": 0.95, "7": 0.96}
    assert (plain["mean"], plain["n"], plain["published"]) == (pytest.approx(0.94), 3, 72.2)
    assert plain["spread"] == pytest.approx(statistics.stdev([0.91, 0.95, 0.96]))
    assert plain["spread"] == pytest.approx(np.std([0.91, 0.95, 0.96], ddof=1))
    assert (wider["network"], wider["layers"], wider["published"]) == ("deit_mini_4_wider", "BB-BB-BB", None)
    assert (wider["flops"], wider["params"]) == (6_324_928, 200_314)

    lines = list(csv.DictReader((tmp_path / "table-two.csv").read_text().splitlines()))
    assert [line["variant"] for line in lines] == ["none", "wider"]
    assert [float(lines[0][f"top1_seed{seed}"]) for seed in (0, 1, 7)] == [0.91, 0.95, 0.96]
    text = (tmp_path / "table-two.md").read_text()
    row = next(line for line in text.splitlines() if "deit_mini_4 " in line)
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        *("none", "deit_mini_4", "32", "BBBBBB", "6.51 M", "80.3 K"),
        *("94.00 ± 2.65 % (n = 3)", "72.2 %"),
    ]
    assert "ImageNet-1k, not digits" in text
    assert "- wider: of our own." in text
    with Image.open(tmp_path / "table-two.png") as image:
        assert image.width == 1200


def test_one_seed_has_no_spread(tmp_path: Path, two_rows: None, no_training: list[str]) -> None:
    config = settings(tmp_path, seeds=[3])
    finished(config, {})
    ablate.ablate(config)
    row, _ = json.loads((tmp_path / "table-two.json").read_text())["rows"]
    assert (row["spread"], row["mean"], row["n"]) == (None, 0.5, 1)
    assert mean_text(row) == "50.00 % (n = 1)"


def test_a_searched_row_tells_what_each_seed_has_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_training: list[str]
) -> None:
    monkeypatch.setitem(ABLATIONS, "found", (Ablation("search", "search_1d", 77.4),))
    config = settings(tmp_path, "found", seeds=[0, 1])
    finished(config, {})
    ablate.ablate(config)
    (row,) = json.loads((tmp_path / "table-found.json").read_text())["rows"]
    costs = [find_arch(f"1d_mini_4:{layers}").cost for layers in ("B-B-B", "BS-B-B")]
    assert (row["network"], row["layers"]) == ("1d_mini_4", "B-B-B, BS-B-B")
    assert (row["flops"], row["params"]) == (costs[1].flops, costs[1].params)
    assert [row["found"][seed]["flops"] for seed in ("0", "1")] == [cost.flops for cost in costs]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scores", [[0.9, 0.8, 0.95], [0.9, 0.9], [0.9]])
def test_picture(scores: Sequence[float], tmp_path: Path, two_rows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(tmp_path, seeds=list(range(len(scores))))
    finished(config, {("none", seed): score for seed, score in enumerate(scores)} | {("wider", 0): 0.9})
    tasks = [training(config, row.variant, seed) for row in TWO for seed in config.seeds]
    figures: list[Any] = []
    monkeypatch.setattr(ablate, "save_figure", lambda figure, path: figures.append(figure))
    table = make_table("two", TWO, tasks, config)
    ablate.draw_table(table, tmp_path / "x.png")
    ax = figures[0].axes[0]
    points, means = ax.lines
    expected = [(score, 0) for score in scores] + [(top1, 1) for top1 in table["rows"][1]["top1"].values()]
    assert list(zip(*points.get_data(), strict=True)) == expected
    assert list(means.get_xdata()) == [statistics.fmean(scores), table["rows"][1]["mean"]]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["none", "wider"]
    low, high = ax.get_xlim()
    assert low < min(top1 for top1, _ in expected) <= max(top1 for top1, _ in expected) < high


# ---------------------------------------------------------------------------------------------------- trainings

# the command, with a table of two rows
PROGRAM = """
import sys
from psvit.paper.published import ABLATIONS, Ablation
ABLATIONS["two"] = (Ablation("none: DeiT-Tiny", "none", 72.2), Ablation("sharing", "sharing_2", 73.8))
from psvit.cli.main import main
if __name__ == "__main__":  # the processes of the trainings read this file, too
    sys.exit(main())
"""
WORDS = [
    *("recipe.epochs=3", "recipe.warmup_epochs=0", "recipe.batch_size=8", "recipe.checkpoint_every=1"),
    *("recipe.drop_path=0", "recipe.augment.mixup=0", "device=cpu", "data=imagefolder", "data.workers=0"),
]
OUT = "runs/default/ablate-digits"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen small images to train on, and eight to test on, of two classes."""
    return make_images(tmp_path_factory.mktemp("images"), train=8)


def make_images(root: Path, train: int) -> Path:
    """Small images of two classes: ``train`` of each to train on, four of each to test on."""
    rng = np.random.default_rng(0)
    for split, number in (("train", train), ("val", 4)):
        for name, grey in (("dark", 60), ("light", 190)):
            (root / split / name).mkdir(parents=True)
            for image in range(number):
                pixels = rng.normal(grey, 30, (32, 32, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{image}.png")
    return root


def start(
    folder: Path, images: Path, *before: str, words: Sequence[str] = (), hold: Hold | None = None
) -> subprocess.Popen[str]:
    """The command in a folder of its own."""
    folder.mkdir(exist_ok=True)
    (folder / "two_rows.py").write_text(PROGRAM)
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE")}
    return subprocess.Popen(
        [sys.executable, *before, "two_rows.py", "ablate", "two", *WORDS, f"data.root={images}", *words],
        cwd=folder,
        env=environment | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | (hold.environment if hold else {}),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def made(folder: Path) -> dict[str, bytes]:
    """Weights and tables, byte by byte."""
    files = [*(folder / OUT).glob("*/seed0/model.safetensors"), *(folder / OUT).glob("table-*")]
    return {str(path.relative_to(folder / OUT)): path.read_bytes() for path in sorted(files)}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """A table of two networks after three epochs, two at once."""
    folder = tmp_path_factory.mktemp("unbroken")
    process = start(folder, images, words=["jobs=2"])
    output, _ = process.communicate()
    assert process.returncode == 0, output
    (folder / "output").write_text(output)
    return folder


@pytest.mark.slow
def test_end_to_end(unbroken: Path) -> None:
    out = unbroken / OUT
    assert set(made(unbroken)) == {
        *("deit_mini_4/seed0/model.safetensors", "deit_mini_4_sharing_2/seed0/model.safetensors"),
        *(f"table-two.{ending}" for ending in ("json", "csv", "md", "png")),
    }
    table = json.loads((out / "table-two.json").read_text())
    printed = (unbroken / "output").read_text()
    for row in table["rows"]:
        result = json.loads((out / row["network"] / "seed0/result.json").read_text())
        assert row["top1"] == {"0": result["top1"]}
        for key in ("layers", "flops", "params"):
            assert row[key] == result[key]
        assert f"{row['network']}, seed 0: top-1 {result['top1']:.4f}" in printed
        log = (out / row["network"] / "seed0/log.txt").read_text()
        assert "epoch 3/3" in log
        assert "test top-1" in log
    assert (table["data"], table["test_images"]) == ("imagefolder", 8)
    assert "epoch 1/3" not in printed  # which is in the logs


@pytest.mark.slow
def test_stopped_and_killed_in_the_middle_it_goes_on(unbroken: Path, images: Path, tmp_path: Path) -> None:
    """One network after the other: stopped in the first, killed in the second, when the first is trained."""
    folder, first, second = tmp_path / "corrupt", "deit_mini_4_sharing_2/seed0", "deit_mini_4/seed0"

    def interrupt(where: str, number: signal.Signals) -> tuple[int, str]:
        hold = Hold(tmp_path / number.name, f"{where}/checkpoint.pt")
        process = start(folder, images, words=["jobs=1"], hold=hold)
        hold.wait(process)
        process.send_signal(number)
        output, _ = process.communicate(timeout=HANG)
        assert not (folder / OUT / where / "result.json").exists()
        return process.returncode, output

    code, output = interrupt(first, signal.SIGTERM)
    assert code == 130
    assert output.splitlines()[-1].endswith("ablate-digits; run the same command again to resume")
    assert interrupt(second, signal.SIGKILL)[0] == -signal.SIGKILL
    written = (folder / OUT / first / "model.safetensors").stat().st_mtime_ns
    process = start(folder, images, words=["jobs=1"])
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert made(folder) == made(unbroken)
    assert (folder / OUT / first / "model.safetensors").stat().st_mtime_ns == written


@pytest.mark.slow
def test_all_processes_of_torchrun_train_row_after_row(unbroken: Path, images: Path, tmp_path: Path) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = start(tmp_path, images, *torchrun)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert output.count("wrote runs/default/ablate-digits/table-two.json") == 1
    for network in ("deit_mini_4", "deit_mini_4_sharing_2"):  # the same batches; sums are put together in another order
        alone, together = (
            pd.read_csv(folder / OUT / network / "seed0/metrics.csv")["loss"] for folder in (unbroken, tmp_path)
        )
        np.testing.assert_allclose(together, alone, rtol=0.01)


def test_a_failing_row_ends_all_with_its_name(tmp_path: Path, two_rows: None) -> None:
    config = settings(tmp_path, data=DataConfig("imagefolder", str(tmp_path / "nowhere")), jobs=1)
    with pytest.raises(ValueError, match=r"^deit_mini_4, seed 0: .*nowhere") as error:
        ablate.ablate(config)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("table-*"))


def test_a_searched_row(tmp_path: Path) -> None:
    """Supernet, search and retraining of the cheapest architectures, in folders below the row's."""
    config = settings(
        tmp_path,
        "components",
        data=DataConfig("imagefolder", str(make_images(tmp_path / "images", train=24)), search_fraction=0.75),
        supernet=SupernetPart(replace(QUICK)),
        search=SearchConfig(BudgetConfig("3.5M"), searcher="exhaustive", baseline=1),
    )
    task = training(config, "search_1d", 2)
    assert task.read_result() is None
    train(task)
    folder = tmp_path / "search_1d/seed2"
    assert {path.name for path in folder.iterdir()} == {"supernet", "search", "retrain"}
    found, result = SearchRecord.load(folder / "search/result.json"), task.read_result()
    assert result is not None
    assert (result.layers, result.flops) == (found.layers, found.flops)
    assert found.flops <= 3_500_000
    assert found.search.seed == 2
