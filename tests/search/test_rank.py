"""`psvit-search rank`: the drawing, the statistics, the jobs, and the whole on a supernet of digits."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import stats

from psvit.arch import Architecture, CellPath
from psvit.archfile import ArchFile, save_arch
from psvit.data.config import DataConfig
from psvit.data.data import Data, open_data
from psvit.engine.config import Recipe
from psvit.retrain.config import RetrainConfig
from psvit.retrain.train import retrain
from psvit.run import jobs
from psvit.run.jobs import Job, run_jobs
from psvit.run.signals import Stopped
from psvit.search import standalone
from psvit.search.budget import Budget
from psvit.search.config import RankConfig
from psvit.search.plots import draw_rank
from psvit.search.rank import correlations, draw_by_cost, kendall_tau, rank, rank_budget, shorten_warmup, spearman_rho
from psvit.search.standalone import Standalone, fitting, train_all
from psvit.supernet.checkpoint import TrainedSupernet
from psvit.supernet.inherit import inherit
from psvit.supernet.space import SearchSpace
from psvit.units import Band
from psvit.zoo import SPACES
from tests.hold import HANG, Hold, wait_until

ROOT = Path(__file__).parent.parent.parent
SMALL = SearchSpace(SPACES["2d_mini_4"], cells=2)  # 27 architectures


# ---------------------------------------------------------------------------------------------------- drawing


def by_cost(space: SearchSpace, budget: Budget) -> list[int]:
    """FLOPs of all architectures within a budget, rising, by going through all of the space."""
    costs = [space.cost(each) for each in space.within()]
    return sorted(cost.flops for cost in costs if cost.flops in budget.flops and cost.params in budget.params)


@pytest.mark.parametrize("number", [3, 7, 20])
def test_one_is_drawn_from_each_band_of_cost(number: int) -> None:
    space = SearchSpace(SPACES["2d_mini_4"], cells=3)
    budget = Budget(Band(2_500_000, 4_000_000), Band(None, 300_000))
    within = by_cost(space, budget)
    for seed in range(4):
        drawn = draw_by_cost(space, budget, number, seed)
        assert len(set(drawn)) == number
        for band, architecture in enumerate(drawn):
            first, last = band * len(within) // number, (band + 1) * len(within) // number
            cost = space.cost(architecture)
            assert within[first] <= cost.flops <= within[last - 1]
            assert cost.params <= 300_000


def test_all_are_equally_likely() -> None:
    counts = Counter(each for seed in range(200) for each in draw_by_cost(SMALL, Budget(), 3, seed))
    assert set(counts) == set(SMALL.within())
    assert stats.chisquare(list(counts.values())).pvalue > 0.001


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
        ({"archs": 2}, "archs is 2"),
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


# ---------------------------------------------------------------------------------------------------- statistics


def table(inherited: list[float], standalone: list[float], **columns: list) -> pd.DataFrame:
    """A frame with the columns of rank.csv, whose losses are 1 - top-1 unless given."""
    frame = pd.DataFrame({"inherited_top1": inherited, "standalone_top1": standalone}, dtype=float)
    frame["layers"] = [f"{'B' * (number + 1)}-B-B" for number in range(len(frame))]
    frame["flops"] = range(1000, 1000 + len(frame))
    frame["inherited_loss"], frame["standalone_loss"] = 1 - frame["inherited_top1"], 1 - frame["standalone_top1"]
    return frame.assign(**columns)


@pytest.mark.parametrize("levels", [4, 1000])
def test_tau_and_rho_are_scipys_with_ties_too(levels: int) -> None:
    rng = np.random.default_rng(levels)
    x, y = rng.integers(0, levels, (2, 5, 12)).astype(float)
    tau, rho = kendall_tau(x, y), spearman_rho(x, y)
    for row in range(5):
        assert tau[row] == pytest.approx(stats.kendalltau(x[row], y[row]).statistic)
        assert rho[row] == pytest.approx(stats.spearmanr(x[row], y[row]).statistic)
    assert np.isnan(kendall_tau(np.ones(4), x[0, :4]))
    assert np.isnan(spearman_rho(x[0, :4], np.ones(4)))


def test_figures_of_a_perfect_and_a_reversed_order() -> None:
    scores = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
    perfect, reverse = correlations(table(scores, scores), 0), correlations(table(scores, scores[::-1]), 0)
    for pair in ("top1", "loss", "loss_to_top1"):
        for figure in ("tau", "rho"):
            assert perfect[pair][figure] == pytest.approx({"value": 1, "low": 1, "high": 1})
            assert reverse[pair][figure] == pytest.approx({"value": -1, "low": -1, "high": -1})
    assert (perfect["regret"]["value"], perfect["picked"]) == (0, "BBBBBB-B-B")
    assert reverse["regret"]["value"] == pytest.approx(0.45)
    assert perfect["random_regret"]["value"] == pytest.approx(0.95 - np.mean(scores))


def test_loss_chooses_among_equal_top1_and_then_flops() -> None:
    frame = table([0.8, 0.9, 0.9, 0.9], [0.99, 0.7, 0.6, 0.5], inherited_loss=[0.1, 0.4, 0.3, 0.3])
    figures = correlations(frame, 0)
    assert (figures["picked"], figures["best"]) == ("BBB-B-B", "B-B-B")
    assert figures["regret"]["value"] == pytest.approx(0.39)


def test_intervals_are_those_of_a_plain_bootstrap() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=20)
    y = x + rng.normal(size=20)
    figures = correlations(table(x.tolist(), y.tolist()), 0)
    resamples = rng.integers(20, size=(1500, 20))
    for name, statistic in (("tau", stats.kendalltau), ("rho", stats.spearmanr)):
        drawn = [statistic(x[rows], y[rows]).statistic for rows in resamples]
        low, high = np.quantile(drawn, [0.025, 0.975])
        assert figures["top1"][name]["low"] == pytest.approx(low, abs=0.05)
        assert figures["top1"][name]["high"] == pytest.approx(high, abs=0.05)
    regrets = [y[rows].max() - y[rows][x[rows].argmax()] for rows in resamples]
    assert figures["regret"]["high"] == pytest.approx(np.quantile(regrets, 0.975), abs=0.1)


@pytest.mark.filterwarnings("error")
def test_degenerate_tables() -> None:
    few = correlations(table([0.5, 0.6, 0.7], [0.5, 0.7, 0.6]), 0)
    assert few["top1"]["tau"] == pytest.approx({"value": 1 / 3, "low": -1, "high": 1})
    assert few == correlations(table([0.5, 0.6, 0.7], [0.5, 0.7, 0.6]), 0)
    equal = correlations(table([0.5] * 4, [0.5, 0.7, 0.6, 0.7]), 0)
    assert equal["top1"]["tau"] == {"value": None, "low": None, "high": None}
    assert equal["random_regret"]["value"] == pytest.approx(0.075)
    corrupt = correlations(table([0.5, 0.6, np.nan, 0.7], [0.5, 0.7, 0.9, 0.6]), 0)
    assert (corrupt["networks"], corrupt["left_out"], corrupt["best"]) == (3, 1, "BB-B-B")
    assert corrupt["top1"] == few["top1"]
    nothing = correlations(table([np.nan], [0.5]), 0)
    assert (nothing["networks"], nothing["picked"], nothing["regret"]["value"]) == (0, None, None)
    for figures in (few, equal, corrupt, nothing):
        json.dumps(figures, allow_nan=False)


# ---------------------------------------------------------------------------------------------------- picture


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", ["some", "equal", "same inherited", "one", "none"])
def test_picture(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = {
        "some": table([0.7, 0.8, 0.9, 0.9, 0.9], [0.8, 0.85, 0.95, 0.95, 0.9]),
        "equal": table([0.7] * 4, [0.8] * 4),
        "same inherited": table([0.7] * 3, [0.8, 0.9, 0.95]),
        "one": table([0.7, np.nan], [0.8, 0.9]),
        "none": table([np.nan], [0.8]),
    }[case]
    figures, drawn = correlations(frame, 0), []
    monkeypatch.setattr(
        "psvit.search.plots.save_figure", lambda figure, path: drawn.append(figure) or save(figure, path)
    )
    draw_rank(frame, figures, tmp_path / "rank.png", "$space$")
    with Image.open(tmp_path / "rank.png") as image:
        assert image.size == (1200, 800)
    ax = drawn[0].axes[0]
    title = ax.get_title(loc="left")
    count = int(frame["inherited_top1"].notna().sum())
    assert title.startswith(f"$space$: {count} network")
    value = figures["top1"]["tau"]["value"]
    assert title.endswith("undefined" if value is None else f"tau {value:.2f} (-1.00 to 1.00)") or case == "some"
    if count:
        points = np.asarray(ax.collections[0].get_offsets())
        known = frame.dropna()
        assert len({tuple(point) for point in points}) == count  # each is to be seen
        np.testing.assert_array_equal(points[:, 1], known["standalone_top1"])
        np.testing.assert_allclose(points[:, 0], known["inherited_top1"], atol=0.01)
        np.testing.assert_allclose(ax.collections[0].get_array(), known["flops"] / 1000)


def save(figure: object, path: Path) -> None:
    from psvit.figures import save_figure

    save_figure(figure, path)


# ---------------------------------------------------------------------------------------------------- jobs


def ignore(job: Job, result: object) -> None:
    """What is done with a result."""


def test_jobs_give_their_results() -> None:
    results: dict[str, float] = {}
    run_jobs([Job(str(n), math.sqrt, n) for n in (4, 9, 16)], 2, lambda job, result: results.update({job.name: result}))
    assert results == {"4": 2, "9": 3, "16": 4}


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (Job("BS-B", math.sqrt, -1), "BS-B: math domain error"),
        (Job("BS-B", os._exit, 3), "BS-B: its process ended with exit status 3"),
        (Job("BS-B", signal.raise_signal, signal.SIGKILL), "BS-B: its process was ended by SIGKILL"),
    ],
)
def test_a_failed_job_is_named_and_ends_the_others(job: Job, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    start = jobs._start
    monkeypatch.setattr(jobs, "_start", lambda each: started.append(start(each)) or started[-1])
    with pytest.raises(ValueError, match=message):
        run_jobs([Job("sleeper", time.sleep, HANG), job, Job("never", time.sleep, HANG)], 2, ignore)
    assert len(started) == 2
    assert not any(process.is_alive() for process, _ in started)


SLEEPERS = """
import time
from pathlib import Path
from psvit.run.jobs import Job, run_jobs
from psvit.run.signals import Stopped

def sleep(name):
    Path(name).touch()
    time.sleep(900)

if __name__ == "__main__":
    try:
        run_jobs([Job(name, sleep, name) for name in ("asleep0", "asleep1", "asleep2")], 2, lambda job, result: None)
    except Stopped as stop:
        print(stop)
"""


def children(pid: int) -> set[int]:
    return {int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_is_left_behind(number: int, tmp_path: Path) -> None:
    """Ctrl-C goes to all processes of a terminal, SIGTERM and SIGKILL to the first one alone."""
    (tmp_path / "sleepers.py").write_text(SLEEPERS)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(
        [sys.executable, "sleepers.py"],
        cwd=tmp_path,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    wait_until(lambda: len(list(tmp_path.glob("asleep*"))) == 2, parent)
    started = children(parent.pid)
    assert len(started) == 3  # two sleepers and the helper of multiprocessing
    (os.killpg if number == signal.SIGINT else os.kill)(parent.pid, number)
    output, _ = parent.communicate(timeout=HANG)
    assert output == ("" if number == signal.SIGKILL else "stopped; the same command goes on\n")
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started))


def test_as_many_on_a_gpu_as_fit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(standalone, "cores", lambda: 16)
    assert [fitting(10, free) for free in (5, 35, 1000)] == [1, 3, 8]

    calls = []

    def run(jobs: list[Job], at_once: int, done: Callable) -> None:
        calls.append(([job.name for job in jobs], at_once, jobs[0].argument.threads))
        for job in jobs:
            job.argument.folder.mkdir()
            (job.argument.folder / "result.json").write_text('{"top1": 0.5, "loss": 1.0}')
            done(job, 70)

    monkeypatch.setattr(standalone, "run_jobs", run)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 200))
    monkeypatch.setattr(standalone, "free_memory", lambda device: 80)
    names = ["BBB-BB-B", "BBB-B-B", "BB-B-B", "B-B-B"]
    spec, data = SPACES["2d_mini_4"], DataConfig()
    tasks = [Standalone(tmp_path / name, spec, Architecture.parse(name), data, Recipe(), 0, "cuda:0") for name in names]
    assert train_all(tasks, 0) == [(0.5, 1.0)] * 4
    assert calls == [(names[:1], 1, 16), (names[1:], 2, 8)]  # 30 of 80 each
    assert train_all(tasks, 0) == [(0.5, 1.0)] * 4
    assert len(calls) == 2
    (tmp_path / "B-B-B/result.json").write_text("{")
    with pytest.raises(ValueError, match=r"B-B-B/result.json is damaged; delete"):
        train_all(tasks, 0)


# ---------------------------------------------------------------------------------------------------- the whole


def here(jobs: list[Job], at_once: int, done: Callable) -> None:
    """Stands in for run_jobs: everything in this process, which has one thread."""
    for job in jobs:
        done(job, job.call(job.argument))


@pytest.fixture(scope="module")
def config(supernet_run: Path, quick: Recipe, tmp_path_factory: pytest.TempPathFactory) -> RankConfig:
    out = str(tmp_path_factory.mktemp("rank") / "whole")
    recipe = replace(quick, epochs=2, warmup_epochs=0.25)
    return RankConfig(out=out, supernet=str(supernet_run), archs=3, flops="3.5M", seed=1, device="cpu", recipe=recipe)


@pytest.fixture(scope="module")
def read() -> set[str]:
    """The splits that were read."""
    return set()


@pytest.fixture(scope="module")
def whole(config: RankConfig, read: set[str]) -> RankConfig:
    """A run without a break, one network after the other in this process."""
    part = Data._part

    def watched(data: Data, split: str) -> object:
        read.add(split)
        return part(data, split)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(standalone, "run_jobs", here)
        patch.setattr(Data, "_part", watched)
        rank(config)
    return config


def test_results(whole: RankConfig, read: set[str]) -> None:
    folder = Path(whole.out)
    frame = pd.read_csv(folder / "rank.csv")
    trained = TrainedSupernet.open(Path(whole.supernet))
    drawn = draw_by_cost(trained.space, rank_budget(whole), 3, 1)
    assert list(frame["layers"]) == [str(each) for each in drawn]
    assert (frame["flops"] <= 3_500_000).all()
    assert set(frame["epochs"]) == {2}
    assert set(frame["seed"]) == {1}
    supernet, data = trained.load(), open_data(trained.data)
    ((images, labels),) = data.eval_batches("search", (32, 32), 10_000)
    for row, architecture in zip(frame.itertuples(), drawn, strict=True):
        cost = trained.space.cost(architecture)
        assert (row.flops, row.params) == (cost.flops, cost.params)
        with torch.no_grad():
            logits = inherit(supernet, CellPath.canonical(architecture, trained.space.cells))(images)
        assert row.inherited_top1 == pytest.approx((logits.argmax(1) == labels).double().mean().item())
        assert row.inherited_loss == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), abs=1e-5)
    figures = json.loads((folder / "rank.json").read_text())
    assert figures["how"]["supernet_sha256"] == trained.sha256
    assert figures["how"]["images"] == len(labels)
    assert {key: figures[key] for key in correlations(frame, 1)} == correlations(frame, 1)
    assert (folder / "rank.png").read_bytes().startswith(b"\x89PNG")
    assert read == {"train", "search"}


def test_alone_is_what_retrain_reaches_with_the_search_split_held_out(whole: RankConfig, tmp_path: Path) -> None:
    row = pd.read_csv(Path(whole.out) / "rank.csv").iloc[-1]
    trained = TrainedSupernet.open(Path(whole.supernet))
    save_arch(tmp_path / "arch.json", ArchFile(trained.space.spec, Architecture.parse(row["layers"])))
    retrain(
        RetrainConfig(
            arch=str(tmp_path / "arch.json"),
            out=str(tmp_path / "run"),
            hold_out=True,
            seed=1,
            device="cpu",
            recipe=whole.recipe,
        )
    )
    last = pd.read_csv(tmp_path / "run/metrics.csv").iloc[-1]
    assert (row["standalone_top1"], row["standalone_loss"]) == (last["search_top1"], last["search_loss"])


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
    with pytest.raises(Stopped, match=r"networks, and the same command goes on"):
        rank(corrupt)
    thread.join()
    assert len(list(run.glob("networks/*"))) == 2
    assert len(list(run.glob("networks/*/checkpoint.pt"))) == 2
    assert not (run / "rank.csv").exists()
    monkeypatch.setattr(standalone, "run_jobs", here)
    rank(replace(corrupt, jobs=1))
    for name in ("rank.csv", "inherited.csv"):
        assert (run / name).read_bytes() == (Path(whole.out) / name).read_bytes(), name


def test_a_finished_run_trains_nothing_again(whole: RankConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    table = (Path(whole.out) / "rank.csv").read_bytes()
    monkeypatch.setattr(standalone, "run_jobs", pytest.fail)
    monkeypatch.setattr(standalone, "Evaluator", pytest.fail)
    assert list(rank(whole).frame["seed"]) == [1, 1, 1]
    assert (Path(whole.out) / "rank.csv").read_bytes() == table


def test_other_runs_are_refused(whole: RankConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"recipe\.epochs was 2 and is 4"):
        rank(replace(whole, recipe=replace(whole.recipe, epochs=4)))
    with pytest.raises(ValueError, match="archs was 3 and is 4"):
        rank(replace(whole, archs=4))
    monkeypatch.setattr(TrainedSupernet, "sha256", "another")
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
