"""Where the images and annotations of a detector lie. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from psvit.checks import check_at_least, check_choice
from psvit.data.config import CORRUPT


@dataclass
class CocoConfig:
    """A dataset in COCO's format; the defaults are the layout of COCO 2017, and of ``detect shapes``.

    Attributes:
        root: folder that holds everything: ``annotations/``, ``train2017/`` and ``val2017/``. The other paths are
            below it.
        train_images: folder of the training images.
        train_annotations: JSON file that lists them.
        val_images: folder of the validation images.
        val_annotations: JSON file that lists them.
        workers: loader processes per rank; 0 loads in the main process. No effect on the result.
        corrupt: what to do with listed images that are missing: ``fail`` stops before training, ``skip`` leaves them
            out. They are then left out of training and of scores, and counted.
    """

    root: str | None = None
    train_images: str = "train2017"
    train_annotations: str = "annotations/instances_train2017.json"
    val_images: str = "val2017"
    val_annotations: str = "annotations/instances_val2017.json"
    workers: int = 0
    corrupt: str = "fail"

    def __post_init__(self) -> None:
        check_at_least(self, 0, "workers", prefix="data.")
        check_choice(self, CORRUPT, "corrupt", prefix="data.")
