"""How far a training run is, on stderr: a bar on a terminal, else a plain line now and then."""

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
