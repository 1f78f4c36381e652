"""Ctrl-C and SIGTERM ask a run to stop where nothing is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SAME = 5.0  # seconds


class Stopped(Exception):
    """A run was asked to stop, and has saved its work; the message says where, in one line."""


class StopSignals:
    """While this context is open, Ctrl-C and SIGTERM set ``requested``; a second one raises KeyboardInterrupt.

    A second SIGTERM within seconds of the first is the same one: a launcher passes on what its children got as well.
    Outside the main thread Python cannot catch signals, and this does nothing.
    """

    def __init__(self) -> None:
        self.requested, self._asked = False, 0.0
        self._before: dict[signal.Signals, Any] = {}
        self._process = os.getpid()

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A forked loader worker has inherited this handler. The terminal sends Ctrl-C to it as well, but it must
            # serve until the run has stopped; then the loader ends it by SIGTERM.
            if number == signal.SIGTERM:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                os.kill(os.getpid(), signal.SIGTERM)
        elif self.requested and (number == signal.SIGINT or time.monotonic() - self._asked > _SAME):
            raise KeyboardInterrupt
        elif not self.requested:
            self.requested, self._asked = True, time.monotonic()
