"""Jobs in processes of their own: their results, their failures, and that none is left behind."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from psvit.run import jobs
from psvit.run.jobs import Job, run_jobs

ROOT = Path(__file__).parents[3]


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
        run_jobs([Job("sleeper", time.sleep, 60), job, Job("never", time.sleep, 60)], 2, ignore)
    assert len(started) == 2
    assert not any(process.is_alive() for process, _ in started)


SLEEPERS = """
import time
from psvit.run.jobs import Job, run_jobs
from psvit.run.signals import Stopped
if __name__ == "__main__":
    try:
        run_jobs([Job(str(n), time.sleep, 60) for n in range(3)], 2, lambda job, result: None)
    except Stopped as stop:
        print(stop)
"""


def children(pid: int) -> set[int]:
    return {int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


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
    wait_until(lambda: len(children(parent.pid)) == 3)  # two sleepers and the helper of multiprocessing
    started = children(parent.pid)
    time.sleep(0.3)
    (os.killpg if number == signal.SIGINT else os.kill)(parent.pid, number)
    output, _ = parent.communicate(timeout=60)
    assert output == ("" if number == signal.SIGKILL else "stopped; run the same command again to resume\n")
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started))
