"""A search in two processes, one of which is killed: all end, the dead one is named, and the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.hold import HANG, Hold

ROOT = Path(__file__).parent.parent.parent
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "psvit"]
SEARCH = ["evolve", "search.trials=240", "search.population=20", "search.placements=8", "search.baseline=4"]


def start(command: list[str], **variables: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | variables
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **streams)  # type: ignore[call-overload]


def process_of_rank(rank: int, parent: int) -> int:
    """The process that torchrun has started as this rank."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            parents = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if f"RANK={rank}".encode() in environment and int(parents[1]) == parent:
            return int(entry.name)
    raise AssertionError(f"no process of rank {rank}")


@pytest.mark.slow
def test_a_rank_that_dies_stops_all_and_the_same_command_goes_on(supernet_run: Path, tmp_path: Path) -> None:
    def arguments(out: str) -> list[str]:
        return [*SEARCH, f"supernet={supernet_run}", f"out={tmp_path / out}"]

    alone = start([sys.executable, "-m", "psvit", *arguments("alone")])
    output, _ = alone.communicate(timeout=HANG)
    assert alone.returncode == 0, output
    expected = pd.read_csv(tmp_path / "alone/history.csv")

    hold = Hold(tmp_path / "gate", "history.csv", times=4)  # its first line, and three times twenty trials
    running = start([*LAUNCH, *arguments("two")], **hold.environment)
    hold.wait(running)
    os.kill(process_of_rank(1, running.pid), signal.SIGKILL)
    output, _ = running.communicate(timeout=HANG)
    assert running.returncode != 0
    assert "rank      : 1 (local_rank: 1)" in output  # the report of torchrun, which is the last thing that is said
    assert "Signal 9 (SIGKILL)" in output
    history = tmp_path / "two/history.csv"
    assert len(pd.read_csv(history)) == 60

    again = start([*LAUNCH, *arguments("two")])
    output, _ = again.communicate(timeout=HANG)
    assert again.returncode == 0, output
    found = pd.read_csv(history)
    same = ["number", "layers", "flops", "params", "top1", "num_images", "generation"]
    pd.testing.assert_frame_equal(found[same], expected[same])
    assert (found["loss"] - expected["loss"]).abs().max() < 1e-5


@pytest.mark.slow
def test_faults_of_the_user_end_all_processes_with_one_line(supernet_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.yaml").write_text("seed: 1\n")
    process = start([*LAUNCH, "random", f"supernet={supernet_run}", f"out={out}"])
    output, _ = process.communicate(timeout=HANG)
    assert process.returncode != 0
    assert output.count("psvit-search:") == 1
    assert "holds a run with other settings" in output
    assert "psvit-search (process 1)" not in output
