"""Runs killed by SIGKILL at random moments and started again end with the bits of an unbroken run.

``PSVIT_KILLS=20 pytest tests/cli/test_killed.py -s`` kills each command 20 times. The default is one kill, of the
commands that differ in how they go on, to keep the tests short. Each way to sample paths:
``tests/supernet/test_killed.py``.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from psvit.engine.metrics import TIMED

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("PSVIT_KILLS", "1"))
ALL = "PSVIT_KILLS" in os.environ
TRAINING = ["recipe.epochs=3", "recipe.batch_size=256", "recipe.checkpoint_every=1", "recipe.ema_decay=0.9"]


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command in a folder of its own, on one thread so that every run rounds alike."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "psvit", *arguments],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finish(folder: Path, *arguments: str) -> float:
    """Run the command to its end; the seconds it took."""
    began = time.monotonic()
    process = start(folder, *arguments)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return time.monotonic() - began


def result(run: Path) -> dict[str, bytes]:
    """What must not differ: weights, architectures and scores byte by byte, and the metrics but for the speed."""
    files = {
        path.name: path.read_bytes()
        for path in sorted(run.iterdir())
        if path.suffix in (".safetensors", ".csv", ".json", ".bin") and path.name != "metrics.csv"
    }
    if (run / "metrics.csv").exists():
        files["metrics"] = pd.read_csv(run / "metrics.csv").drop(columns=list(TIMED)).to_csv().encode()
    return files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained supernet and an architecture searched in it."""
    folder = tmp_path_factory.mktemp("unbroken")
    finish(folder, "train-supernet", *TRAINING)
    finish(folder, "random", "--flops", "5M", "search.trials=20", "search.baseline=5")
    return folder


SETTINGS = ["--flops", "5M", "search.baseline=20", "--supernet", "SUPERNET"]
ASKED = [*SETTINGS, "search.trials=400", "search.population=20"]
# command, its run folder
CASES = {
    "train-supernet": (["train-supernet", *TRAINING], "supernet"),
    "evolve": (["evolve", *ASKED], "evolve-5M"),
    "nsga2": (["nsga2", *ASKED], "nsga2-5M"),
    "random": (["random", *ASKED], "random-5M"),
    "exhaustive": (["exhaustive", *SETTINGS], "exhaustive-5M"),
    "race": (
        ["exhaustive", *SETTINGS, "search.race=true", "search.race_keep=1", "search.rank_by=top1"],
        "exhaustive-5M",
    ),
    "retrain": (["retrain", "--arch", "ARCH", *TRAINING, "recipe.epochs=6"], "retrain"),
}
AS_EVOLVE = ("random", "nsga2")  # go on as it does


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if ALL or case not in AS_EVOLVE])
def test_killed_and_resumed_is_unbroken(case: str, folder: Path, tmp_path: Path) -> None:
    arguments, name = CASES[case]
    places = {"SUPERNET": folder / "runs/default/supernet", "ARCH": folder / "runs/default/random-5M/arch.json"}
    arguments = [str(places.get(argument, argument)) for argument in arguments]
    whole = finish(tmp_path / "unbroken", *arguments)
    expected = result(tmp_path / "unbroken/runs/default" / name)
    assert len(expected) >= 2

    idle = finish(tmp_path / "unbroken", *arguments)  # everything is done: the time to start and look
    rng = random.Random(case)
    earliest, latest = 0.7 * idle, max(whole, 1.3 * idle)  # seconds after which a run is killed
    kills = rounds = 0
    while kills < KILLS:
        rounds += 1
        corrupt = tmp_path / f"broken{rounds}"
        while True:
            process = start(corrupt, *arguments)
            try:
                process.communicate(timeout=rng.uniform(earliest, latest))
                assert process.returncode == 0
                earliest, latest = 0.8 * earliest, 0.8 * latest  # it had ended by itself: come earlier next time
                break
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                process.communicate()
                kills += 1
            if kills >= KILLS:
                finish(corrupt, *arguments)
                break
        assert result(corrupt / "runs/default" / name) == expected
    print(f"\n{case}: {kills} kills in {rounds} runs of {whole:.0f} s; every result equal to the unbroken run's")
