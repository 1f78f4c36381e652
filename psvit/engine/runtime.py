"""Where a process of a run computes: its seed, its device, its place among the others, and the run's folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from psvit.data.record import DataRecord, record_data
from psvit.engine.config import TrainConfig
from psvit.engine.device import pick_device
from psvit.engine.distributed import Processes
from psvit.run.folder import RunFolder

ALONE = Processes()


@dataclass(frozen=True)
class Runtime:
    """A process of a run.

    Attributes:
        seed: of weights, data order, augmentation, paths, and whatever a forward pass draws.
        device: of this process.
        processes: this process among all of the run.
        profile: trace a few steps with torch's profiler.
    """

    seed: int
    device: torch.device
    processes: Processes = ALONE
    profile: bool = False

    @classmethod
    def of(cls, config: TrainConfig) -> Runtime:
        """What a command's settings and torchrun say.

        Raises:
            ValueError: an unknown device, or one that this machine does not have.
        """
        processes = Processes.from_environment()
        return cls(config.seed, pick_device(config.device, processes.local_rank), processes, config.profile)

    @contextmanager
    def open(self, config: TrainConfig, data: Callable[[], DataRecord]) -> Iterator[RunFolder]:
        """The folder of a run, in which the main process writes; inside this block the processes can talk.

        Args:
            data: what the run is made on; recorded in the folder, or compared with what is recorded there.

        Raises:
            ValueError: the folder holds another run, or one on other data, or another process was started with other
                settings.
        """
        settings = asdict(config)
        with (
            self.processes.group(self.device, settings),
            RunFolder(Path(config.out), settings, self.processes.main) as run,
        ):
            if self.processes.main:
                record_data(run.path, data())
            yield run
