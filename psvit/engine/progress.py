"""How far a run is, and when it will end, on stderr: a bar on a terminal, else a plain line now and then."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm


class Progress:
    """A tqdm bar over all steps of a run; where stderr is no terminal, at most 20 plain lines a run.

    Args:
        step: steps already done.
        total: steps of the whole run.
        epochs: epochs of the whole run.
        main: whether this process reports; the others are silent.
    """

    def __init__(self, step: int, total: int, epochs: int, main: bool) -> None:
        self._step, self._total, self._epochs = step, total, epochs
        terminal = sys.stderr.isatty()
        self._lines = main and not terminal
        self._bar = tqdm(initial=step, total=total, unit="step", disable=not (main and terminal), dynamic_ncols=True)
        self.start_epoch(0)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def start_epoch(self, epoch: int) -> None:
        """Measure speed anew, so that validation between epochs does not count."""
        self._epoch, self._images, self._started = epoch, 0, time.perf_counter()

    @property
    def images_per_second(self) -> float:
        """Training speed of this epoch so far, over all processes."""
        return self._images / max(time.perf_counter() - self._started, 1e-9)

    def advance(self, images: int, loss: float, lr: float) -> None:
        """A step is done."""
        self._step += 1
        self._images += images
        speed = f"{self.images_per_second:.0f} images/s"
        if self._lines:
            every = -(-self._total // 20)
            if self._step % every == 0:
                where = f"epoch {self._epoch}/{self._epochs}  step {self._step}/{self._total}"
                print(f"{where}  loss {loss:.4f}  lr {lr:.2e}  {speed}", file=sys.stderr, flush=True)
        else:
            self._bar.set_description(f"epoch {self._epoch}/{self._epochs}", refresh=False)
            self._bar.set_postfix_str(f"loss {loss:.4f}, lr {lr:.2e}, {speed}", refresh=False)
            self._bar.update()


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
