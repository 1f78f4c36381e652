"""Settings of ``psvit-search predict``. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from psvit.checks import check_at_least


@dataclass
class PredictConfig:
    """Settings of ``psvit-search predict``.

    Attributes:
        model: trained network: the run folder of ``retrain``, or its arch.json.
        pictures: image files, folders of them at any depth, or ``-`` for a list of files on standard input.
        top: classes to name for each picture.
        csv: print CSV, a line for each class that is named.
        json: print JSON, one object.
        batch_size: images per forward pass.
        workers: processes that read pictures; None is as many as pay. No effect on the result.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
    """

    model: str = "???"
    pictures: list[str] = field(default_factory=list)
    top: int = 1
    csv: bool = False
    json: bool = False
    batch_size: int = 64
    workers: int | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        check_at_least(self, 1, "top", "batch_size")
        check_at_least(self, 0, "workers")
        if self.csv and self.json:
            raise ValueError("csv and json are both asked for; leave one of them out")
