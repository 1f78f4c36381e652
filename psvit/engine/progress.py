"""How far a run is, and when it will end, on stderr: a bar on a terminal, else a plain line now and then."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

import torch
from tqdm import tqdm

from psvit.engine.device import peak_memory
from psvit.engine.metrics import TIMED

T = TypeVar("T")


class Progress:
    """A tqdm bar over all steps of a run, and its speed; where stderr is no terminal, at most 20 plain lines a run.

    Args:
        step: steps already done.
        total: steps of the whole run.
        epochs: epochs of the whole run.
        device: whose memory is shown.
        main: whether this process reports; the others are silent.
        bound: images a second at which all processes' devices would do nothing but matrix products; None if unknown.
    """

    def __init__(
        self,
        step: int,
        total: int,
        epochs: int,
        device: torch.device,
        main: bool = True,
        bound: float | None = None,
    ) -> None:
        self._step, self._total, self._epochs, self._device, self._bound = step, total, epochs, device, bound
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
        self._epoch, self._images, self._waited, self._started = epoch, 0, 0.0, time.perf_counter()

    def waiting(self, batches: Iterable[T]) -> Iterator[T]:
        """The same batches; the time until each of them comes counts as waiting for data."""
        iterator = iter(batches)
        while True:
            began = time.perf_counter()
            batch = next(iterator, None)
            self._waited += time.perf_counter() - began
            if batch is None:
                return
            yield batch

    def numbers(self) -> dict[str, float]:
        """The speed of this epoch so far, over all processes, and this process's memory: columns ``TIMED``.

        ``data_wait`` is a share of the time; ``utilisation`` (of the model's FLOPs, not of recomputed ones) is left out
        if unknown.
        """
        seconds = max(time.perf_counter() - self._started, 1e-9)
        speed = self._images / seconds
        values = {
            "images_per_second": round(speed, 1),
            "data_wait": round(self._waited / seconds, 3),
            "utilisation": None if self._bound is None else round(speed / self._bound, 4),
            "memory_mib": peak_memory(self._device) >> 20,
        }
        return {name: values[name] for name in TIMED if values[name] is not None}  # type: ignore[misc]

    def advance(self, num_images: int, loss: float, lr: float) -> None:
        """A step is done; ``loss`` is of the latest one of which it is known, NaN if of none."""
        self._step += 1
        self._images += num_images
        shown = "-" if math.isnan(loss) else f"{loss:.4f}"
        every = -(-self._total // 20)
        if self._lines and self._step % every == 0:
            where = f"epoch {self._epoch}/{self._epochs}  step {self._step}/{self._total}"
            print(f"{where}  loss {shown}  lr {lr:.2e}  {'  '.join(self._speed())}", file=sys.stderr, flush=True)
        elif not self._bar.disable:
            self._bar.set_description(f"epoch {self._epoch}/{self._epochs}", refresh=False)
            self._bar.set_postfix_str(f"loss {shown}, lr {lr:.2e}, {', '.join(self._speed())}", refresh=False)
            self._bar.update()

    def _speed(self) -> list[str]:
        numbers = self.numbers()
        parts = [f"{numbers['images_per_second']:.0f} images/s", f"data wait {numbers['data_wait']:.0%}"]
        if "utilisation" in numbers:
            parts.append(f"utilisation {numbers['utilisation']:.1%}")
        return [*parts, f"{numbers['memory_mib'] / 1024:.1f} GiB"]
