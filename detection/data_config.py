"""Where the images and annotations of a detector lie. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from psvit.checks import check_at_least, check_choice
from psvit.data.config import CORRUPT


@dataclass
class CocoConfig:
    """A data set in COCO's format; the defaults are the layout of COCO 2017, and of ``detect shapes``.

    Attributes:
        root: folder that holds everything; the other paths are below it.
        train_images, val_images: folder of the images to learn from, and of those to score on.
        train_annotations, val_annotations: the JSON file that lists them.
        workers: loader processes for each rank; 0 loads in the training process. No effect on the result.
        corrupt: what becomes of images that are listed but not there: ``fail`` stops before anything is trained,
            ``skip`` leaves them out, of training and of scores, and says how many.
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
