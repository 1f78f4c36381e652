"""Settings of ``psvit-search predict`` and ``export``. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from psvit.checks import check_at_least
from psvit.data.config import DataConfig


@dataclass
class PredictConfig:
    """Settings of ``psvit-search predict``.

    Attributes:
        model: trained network: the run folder of ``retrain``, its arch.json, or a file of ``export``.
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


FILES = ("torch-export", "onnx", "openvino")  # of other runtimes
FORMATS = (*FILES, "hub")


@dataclass
class ExportConfig:
    """Settings of ``psvit-search export``.

    Attributes:
        model: trained network: the run folder of ``retrain``, or its arch.json.
        to: ``torch-export``, ``onnx``, ``openvino``, or several with a comma between; ``hub`` is a folder for hubs.
        save: folder for the files.
        data: dataset on whose test split they are compared with torch and scored.
    """

    model: str = "???"
    to: str = "torch-export"
    save: str = "export"
    data: DataConfig = field(default_factory=DataConfig)

    def __post_init__(self) -> None:
        for name in self.formats:
            if name not in FORMATS:
                raise ValueError(f"to is {name!r}; use {', '.join(FORMATS)}, or several with a comma between")

    @property
    def formats(self) -> tuple[str, ...]:
        """Each once, in the order given."""
        return tuple(dict.fromkeys(self.to.split(",")))
