"""Several jobs at once, each in a process of its own; a failure or a stop of one ends all. No torch.

A process that is asked to stop (SIGTERM) may save its work first, as :func:`psvit.engine.loop.train` does; one whose
parent has been killed ends at once, so that none is left behind.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from psvit.run.signals import Stopped, StopSignals

_PATIENCE = 0.2  # seconds between two looks at whether a signal has come


@dataclass(frozen=True)
class Job:
    """A call to be made in another process.

    Attributes:
        name: what messages call it.
        call: a function of a module; it raises ValueError for a user's fault and may raise Stopped.
        argument: of the call; like its result, something that can be pickled.
    """

    name: str
    call: Callable[[Any], Any]
    argument: Any


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(jobs: Sequence[Job], at_once: int, done: Callable[[Job, Any], None]) -> None:
    """Run jobs in their order, ``at_once`` at a time; ``done(job, result)`` is called here when one has ended.

    Raises:
        ValueError: a job has failed; the line begins with its name. The others were asked to stop, and have.
        Stopped: Ctrl-C or SIGTERM came; all jobs were asked to stop, and have.
    """
    waiting = deque(jobs)
    running: dict[Connection, tuple[Job, SpawnProcess]] = {}
    with StopSignals() as signals:
        try:
            while waiting or running:
                while waiting and len(running) < at_once and not signals.requested:
                    job = waiting.popleft()
                    process, answers = _start(job)
                    running[answers] = job, process
                ready = set(wait(list(running), _PATIENCE))
                if signals.requested:
                    raise Stopped("stopped; run the same command again to resume")
                for answers in [each for each in running if each in ready]:
                    job, process = running.pop(answers)
                    done(job, _answer(job, process, answers))
        finally:
            _stop([process for _, process in running.values()])


def _start(job: Job) -> tuple[SpawnProcess, Connection]:
    """A process that works on a job, and where its answer comes in."""
    context = get_context("spawn")  # a fork would inherit threads and a GPU that it cannot use
    answers, answer = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(job, answer), name=job.name)
    # A terminal sends Ctrl-C to all processes, but only this one shall act on it: it then asks the others to stop. The
    # helper of multiprocessing is started first, since that would lift the mask.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    answer.close()  # the process holds the only other end: when it dies, the answer is an end of file
    return process, answers


def _work(job: Job, answer: Connection) -> None:
    """In the other process: make the call and send what came of it."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        answer.send(("done", job.call(job.argument)))
    except (ValueError, Stopped) as error:
        answer.send(("stopped" if isinstance(error, Stopped) else "failed", str(error)))


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _answer(job: Job, process: SpawnProcess, answers: Connection) -> Any:
    """What a job's process has sent, which has ended."""
    try:
        kind, value = answers.recv()
    except EOFError:
        kind, value = "died", None
    finally:
        answers.close()
    process.join()
    if kind == "done":
        return value
    if kind == "stopped":
        raise Stopped(value)
    raise ValueError(f"{job.name}: {value if kind == 'failed' else _death(process.exitcode)}")


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return (
            f"its process was ended by {name}; if memory ran out, use a smaller jobs=; "
            "run the same command again to resume"
        )
    return f"its process ended with exit status {code}; its error is printed above"


def _stop(processes: Iterable[SpawnProcess]) -> None:
    """Ask processes to stop and wait until they have saved their work; whatever interrupts that kills them."""
    processes = list(processes)
    try:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.kill()
            process.join()
