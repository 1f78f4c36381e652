"""Processes that wait where they have written a file, so that a test can stop or kill them just there.

A test that looks for a file and then kills its writer races against it: on a busy machine the writer may long have
ended. Here the writer waits for the test, however late that is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
HANG = 900  # seconds after which what should have happened long ago never will


def wait_until(true: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    """Wait for something to be true; fails if the process that makes it true ends before."""
    until = time.monotonic() + HANG
    while not true():
        ended = process is not None and process.poll() is not None
        assert true() or not ended, f"the process ended with {process.returncode}" if process else ""
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


class Hold:
    """Python processes with this environment wait when they have written a file for the n-th time.

    A process that is held goes on when it gets a signal that it handles, or at :meth:`release`.

    Args:
        gate: a folder of its own, which is made.
        file: the end of its path, from a folder's or its own name on.
        times: how often a process writes it before it waits.
    """

    def __init__(self, gate: Path, file: str, times: int = 1) -> None:
        self.gate = gate
        gate.mkdir()
        self.environment = {
            "PSVIT_TEST_HOLD": f"{file}:{times}:{gate}",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(ROOT)]),
        }

    def wait(self, process: subprocess.Popen[str] | None = None, number: int = 1) -> None:
        """Until so many processes are held; fails if ``process`` ends before."""
        wait_until(lambda: len(list(self.gate.iterdir())) >= number, process)

    def release(self, again: bool = False) -> None:
        """Let all that are held go on; ``again``: hold those that come later, as a process started anew."""
        opened = self.gate.with_name(f"{self.gate.name}-opened")
        self.gate.rename(opened)
        shutil.rmtree(opened)
        if again:
            self.gate.mkdir()
