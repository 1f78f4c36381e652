"""A look into a few steps of a run, by torch's profiler."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType

import torch
from torch.profiler import ProfilerActivity, schedule
from torch.profiler import profile as torch_profile

from psvit.run.files import write_text

WARMUP, STEPS = 5, 3  # steps before the trace, which are slower than the others, and steps in it


class Profiler:
    """Traces some steps after a warm-up, each of which ends with :meth:`step`.

    Writes ``trace.json.gz``, for https://ui.perfetto.dev, and ``operations.txt``, the operations that take longest.

    Args:
        folder: where to; None traces nothing.
    """

    def __init__(self, folder: Path | None, device: torch.device) -> None:
        self._folder, self._device = folder, device
        self._profile: torch_profile | None = None
        self._written = False
        if folder is not None:
            activities = [ProfilerActivity.CPU]
            if device.type == "cuda":
                activities.append(ProfilerActivity.CUDA)
            self._profile = torch_profile(
                activities=activities,
                schedule=schedule(wait=WARMUP - 1, warmup=1, active=STEPS, repeat=1),
                on_trace_ready=self._write,
            )

    def __enter__(self) -> Profiler:
        if self._profile is not None:
            self._profile.start()
        return self

    def step(self) -> None:
        """A step of the training has ended."""
        if self._profile is not None:
            self._profile.step()
            if self._written:
                self._profile.stop()
                self._profile = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._profile is not None:
            self._profile.stop()
            if not self._written:
                print(f"nothing was profiled: that needs {WARMUP + STEPS} steps in one go", file=sys.stderr)

    def _write(self, found: torch_profile) -> None:
        assert self._folder is not None
        self._written = True
        self._folder.mkdir(parents=True, exist_ok=True)
        trace, part = self._folder / "trace.json.gz", self._folder / ".part.trace.json.gz"
        found.export_chrome_trace(str(part))
        part.replace(trace)
        by = f"self_{'cuda' if self._device.type == 'cuda' else 'cpu'}_time_total"
        table = found.key_averages().table(sort_by=by, row_limit=25, max_name_column_width=60)
        operations = self._folder / "operations.txt"
        write_text(operations, table + "\n")
        print(f"profile of {STEPS} steps: {operations}, and {trace} for https://ui.perfetto.dev", file=sys.stderr)
