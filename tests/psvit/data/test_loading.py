"""Loader workers that die, hang, or find no shared memory: one line that says what to do, and never a wait for ever."""

import multiprocessing
import os
import signal
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from psvit.cli.main import main
from psvit.data import workers
from psvit.data.loading import load
from psvit.data.workers import affordable, worker_fault
from tests.hold import wait_until

Piece = namedtuple("Piece", "pixels rest")
MIB = 2**20


class Source(torch.utils.data.Dataset):
    """Pieces of a mebibyte by their numbers; something befalls the worker that loads the fourth."""

    def __init__(self, befalls: Callable[[], None] = lambda: None) -> None:
        self.befalls = befalls

    def __getitem__(self, key: int) -> Piece | ValueError:
        if key == 3:
            self.befalls()
        return Piece(torch.full((MIB,), key, dtype=torch.uint8)[: MIB // 2], {"key": torch.tensor(key)})


def shared_memory(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    answer = namedtuple("answer", "f_bavail f_frsize")(free // 4096, 4096)
    monkeypatch.setattr(os, "statvfs", lambda path: answer)


def loaded(count: int, **settings: int) -> list[int]:
    source = Source()
    return [int(piece.rest["key"]) for piece in load(source, range(count), pin=False, **settings)]


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_everything_comes_in_order(number: int, count: int) -> None:
    assert loaded(count, workers=number) == list(range(count))


def test_workers_have_started_when_the_first_piece_is_there() -> None:
    """Who asks for it does so in the main thread, and for the others in a thread, which must not start processes."""
    others = set(multiprocessing.active_children())  # of tests before
    pieces = load(Source(), range(9), workers=2, pin=False)
    assert int(next(pieces).rest["key"]) == 0
    assert len(set(multiprocessing.active_children()) - others) == 2
    pieces.close()


@pytest.mark.parametrize(
    ("free", "processes", "used"),
    [
        (64, 1, None),
        (9, 1, "2 of 2 are used, with 3 ready instead of 4"),  # 8 pieces: 2 in use, and 3 of each worker
        (9, 2, "2 of 2 are used, with 1 ready instead of 4"),
        (4, 1, "1 of 2 are used, with 1 ready instead of 4"),
        (1, 1, "none is used"),
    ],
)
def test_shared_memory_bounds_what_workers_have_ready(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture, free: int, processes: int, used: str | None
) -> None:
    shared_memory(monkeypatch, free * MIB)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))  # on this machine
    assert loaded(9, workers=2, ahead=4) == list(range(9))
    said = capfd.readouterr().err
    if used is None:
        assert said == ""
    else:
        assert said.startswith(f"note: /dev/shm has only {free / processes:.1f} MiB free, and loader workers hand over")
        assert f"1.0 MiB at a time: {used}" in said
        assert said.count("\n") == 1


def test_other_systems_have_no_limit_of_that_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "SHARED_MEMORY", "/none/such")
    assert affordable(2**50, 8, 4) == (8, 4)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed_ends_the_wait() -> None:
    with pytest.raises(ValueError, match=r"a loader worker was killed.*: memory has probably run out"):
        list(load(Source(die), range(9), workers=2, pin=False))


def test_a_worker_that_is_stuck_ends_the_wait() -> None:
    others = set(multiprocessing.active_children())  # of tests before
    with pytest.raises(ValueError, match=r"gave no images for 1 s: .*data\.patience=300.*data\.workers=0"):  # noqa: PT012
        for piece in load(Source(lambda: time.sleep(3600)), range(9), workers=1, pin=False, patience=1):
            came = int(piece.rest["key"])
    assert came == 2
    wait_until(lambda: set(multiprocessing.active_children()) <= others)


def test_what_is_in_vain_and_what_is_not() -> None:
    bus = "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out"
    assert "shared memory ran out" in str(worker_fault(RuntimeError(bus)))
    assert "was killed: memory" in str(worker_fault(RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")))
    assert worker_fault(RuntimeError("the size of tensor a must match")) is None
    assert worker_fault(KeyError("DataLoader worker")) is None


@pytest.fixture
def dies_while_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch raises its error from a signal's handler, wherever the main thread is."""
    from psvit.engine import loop

    def save(*arguments: object) -> None:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    monkeypatch.setattr(loop, "save_checkpoint", save)


@pytest.mark.usefixtures("dies_while_training")
def test_a_worker_that_dies_while_something_else_happens_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    assert main(["retrain", "--arch", "deit_mini_4", "--out", str(tmp_path / "run"), "recipe.epochs=1"]) == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("psvit-search")]
    assert "a loader worker was killed by a signal (Killed)" in line
