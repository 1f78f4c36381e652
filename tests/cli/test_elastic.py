"""Two processes under torchrun, one of which is killed: torchrun starts both again, and nothing is lost.

``PSVIT_KILLS=5 pytest tests/cli/test_elastic.py -s`` kills five times; the default of 1 keeps the test short.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from psvit.engine.checkpoint import load_checkpoint
from tests.hold import HANG, Hold, wait_until

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("PSVIT_KILLS", "1"))
STEPS = 20 * (1 + KILLS)
# nothing that is drawn by process, so that one process can go on where two were: no drop path, no mixup
TRAINING = ["space.cells=2", "space.widths=[16,16,16]", "space.heads=[1,1,1]", "watch=0", "data.workers=1"]
TRAINING += ["recipe.batch_size=128", f"recipe.epochs={STEPS // 10}", "recipe.checkpoint_every=1"]
TRAINING += ["recipe.drop_path=0", "recipe.ema_decay=0.9"]


def command(processes: int) -> list[str]:
    task = ["-m", "psvit", "train-supernet", *TRAINING]
    if processes == 1:
        return [sys.executable, *task]
    elastic = ["--standalone", "--nproc-per-node", str(processes), "--max-restarts", str(KILLS)]
    return [sys.executable, "-m", "torch.distributed.run", *elastic, "--monitor-interval", "0.1", *task]


def start(folder: Path, processes: int, hold: Hold | None = None) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    with open(folder / "log.txt", "a") as log:
        return subprocess.Popen(
            command(processes),
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | (hold.environment if hold else {}),
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )


def finish(folder: Path, process: subprocess.Popen[str]) -> dict[str, torch.Tensor]:
    """Wait for the end; the supernet's weights."""
    assert process.wait(timeout=HANG) == 0, (folder / "log.txt").read_text()
    return load_file(folder / "runs/default/supernet/supernet.safetensors")


def workers_of(folder: Path) -> dict[int, int]:
    """The processes that train in a folder, by rank, and below them their loaders: process id -> rank."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").readlink() == folder:
                variables = dict(
                    line.partition("=")[::2] for line in (entry / "environ").read_text().split("\0") if "=" in line
                )
                if "RANK" in variables:
                    found[int(entry.name)] = int(variables["RANK"])
        except OSError:
            continue  # it has ended
    return found


def steps_done(folder: Path) -> int:
    checkpoint = folder / "runs/default/supernet/checkpoint.pt"
    return load_checkpoint(checkpoint)["step"] if checkpoint.exists() else 0


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Weights that two processes reach when nobody is killed."""
    folder = tmp_path_factory.mktemp("unbroken")
    return finish(folder, start(folder, 2))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the processes by /proc")
def test_torchrun_goes_on_after_a_kill_and_ends_with_the_same_bits(
    unbroken: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    rng, killed = random.Random(KILLS), []
    hold = Hold(tmp_path / "gate", "checkpoint.pt", times=rng.randint(1, 6))
    process, first = start(tmp_path / "run", 2, hold), rng.randrange(2)
    for kill in range(KILLS):
        hold.wait(process)  # the main process; the other one works on the next step, or waits for the main one there
        time.sleep(rng.uniform(0, 0.1))
        before = workers_of(tmp_path / "run")
        victim = min(pid for pid, rank in before.items() if rank == (first + kill) % 2)
        killed.append(((first + kill) % 2, steps_done(tmp_path / "run")))
        os.kill(victim, signal.SIGKILL)
        hold.release(again=kill + 1 < KILLS)
        # the killed, the survivor and both loaders: none may live on beside those that torchrun starts now
        wait_until(lambda old=set(before): not old & set(workers_of(tmp_path / "run")), process)
    weights = finish(tmp_path / "run", process)
    log = (tmp_path / "run/log.txt").read_text()
    assert "Traceback" not in log, log
    assert weights.keys() == unbroken.keys()
    for name, weight in weights.items():
        assert torch.equal(weight, unbroken[name]), name
    print(f"\nkilled {killed} (process, step on file) of {STEPS} steps; the weights are those of an unbroken run")


@pytest.mark.slow
@pytest.mark.skipif("PSVIT_KILLS" not in os.environ, reason="a minute; test_loop has it on toys: set PSVIT_KILLS")
def test_one_process_goes_on_where_two_have_stopped(unbroken: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """The order of images and the paths are those of the global step; sums are put together in another order."""
    hold = Hold(tmp_path / "gate", "checkpoint.pt", times=STEPS // 2)
    process = start(tmp_path / "run", 2, hold)
    hold.wait(process)
    process.send_signal(signal.SIGTERM)  # torchrun passes it on, and the processes stop together
    process.wait(timeout=HANG)
    assert STEPS // 2 <= steps_done(tmp_path / "run") < STEPS, (tmp_path / "run/log.txt").read_text()
    weights = finish(tmp_path / "run", start(tmp_path / "run", 1))
    (tmp_path / "alone").mkdir()
    alone = finish(tmp_path / "alone", start(tmp_path / "alone", 1))
    for name, weight in weights.items():
        torch.testing.assert_close(weight, alone[name], atol=2e-4, rtol=0, msg=name)
        torch.testing.assert_close(unbroken[name], alone[name], atol=2e-4, rtol=0, msg=name)
