"""How far something is that goes through many things, and when it will end: on stderr, a bar or a line a minute."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm


class Counter:
    """A tqdm bar over things of one kind; where stderr is no terminal, a plain line once a minute.

    Args:
        total: how many things there are.
        name: what is done with them.
        unit: what they are.
    """

    EVERY = 60.0  # seconds between two plain lines

    def __init__(self, total: int, name: str, unit: str) -> None:
        self._total, self._name, self._unit = total, name, unit
        self._skipped = self._done = 0
        self._bar = tqdm(total=total, desc=name, unit=f" {unit}", disable=None, dynamic_ncols=True)
        self._began = self._spoke = time.monotonic()

    def __enter__(self) -> Counter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def skip(self, number: int) -> None:
        """So many were done before; they tell nothing of the time that the others will take."""
        self._skipped += number
        if not self._bar.disable:
            self._bar.initial += number  # what tqdm leaves out of the speed
            self._bar.update(number)

    def advance(self, number: int) -> None:
        """So many more are done."""
        self._done += number
        self._bar.update(number)
        now = time.monotonic()
        if self._bar.disable and now - self._spoke >= self.EVERY:
            self._spoke = now
            so_far = self._skipped + self._done
            left = (now - self._began) / self._done * (self._total - so_far)
            print(
                f"{self._name}: {so_far:,} of {self._total:,} {self._unit} ({so_far / self._total:.0%}), "
                f"about {tqdm.format_interval(left)} left",
                file=sys.stderr,
                flush=True,
            )
