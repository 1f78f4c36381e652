"""Trainings killed by SIGKILL at random moments, with each way to draw paths, end with the bits of an unbroken one.

``PSVIT_KILLS=20 pytest tests/supernet/test_killed.py -s`` kills each 20 times, the default is 2. What is killed are
processes forked off one that has torch already, so that most moments fall into the training; the command as users start
it is killed in ``tests/cli/test_killed.py``.
"""

import multiprocessing
import os
import random
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from psvit.engine.config import Recipe
from psvit.engine.metrics import TIMED
from psvit.supernet.config import SpaceConfig, TrainSupernetConfig
from psvit.supernet.sampling import SAMPLINGS
from psvit.supernet.train import train_supernet
from psvit.zoo import SPACES

KILLS = int(os.environ.get("PSVIT_KILLS", "2"))
CASES = [
    *((sampling, "image", "separate") for sampling in SAMPLINGS),
    ("uniform", "batch", "separate"),
    ("canonical-depth", "image", "entangled"),
]


def train_on_one_thread(config: TrainSupernetConfig) -> None:
    torch.set_num_threads(1)
    train_supernet(config)


def result(run: Path) -> list[bytes]:
    """The weights, and the metrics but for the speed."""
    metrics = pd.read_csv(run / "metrics.csv").drop(columns=list(TIMED))
    return [(run / "supernet.safetensors").read_bytes(), metrics.to_csv().encode()]


@pytest.mark.slow
@pytest.mark.parametrize(("sampling", "paths", "weights"), CASES)
def test_killed_and_resumed_is_unbroken(sampling: str, paths: str, weights: str, quick: Recipe, tmp_path: Path) -> None:
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["psvit.supernet.train"])
    recipe = replace(quick, epochs=2, batch_size=160, checkpoint_every=1, ema_decay=0.9, drop_path=0.1)
    config = TrainSupernetConfig(
        space=SpaceConfig.of(SPACES["2d_mini_4"], cells=2),
        recipe=recipe,
        sampling=sampling,
        paths=paths,
        weights=weights,
        watch=1,
    )

    def start(name: str) -> multiprocessing.process.BaseProcess:
        process = server.Process(target=train_on_one_thread, args=(replace(config, out=str(tmp_path / name)),))
        process.start()
        return process

    began = time.monotonic()
    unbroken = start("unbroken")
    unbroken.join()
    assert unbroken.exitcode == 0
    whole = time.monotonic() - began
    expected = result(tmp_path / "unbroken")

    rng = random.Random(f"{sampling} {paths} {weights}")
    kills = runs = 0
    while kills < KILLS:
        runs += 1
        while True:
            process = start(f"broken{runs}")
            process.join(rng.uniform(0, 0.6 * whole))
            if process.exitcode is not None or kills == KILLS:
                process.join()
                assert process.exitcode == 0
                break
            process.kill()
            process.join()
            kills += 1
        assert result(tmp_path / f"broken{runs}") == expected
    print(f"\n{sampling}, {paths}, {weights}: {kills} kills in {runs} runs of {whole:.1f} s; all as the unbroken one")
