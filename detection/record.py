"""What a detector is trained and scored on, as its run folder records it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from psvit.data.images import file_sizes
from psvit.data.record import DataRecord, Listed, Split
from psvit.detection.coco import CocoImages
from psvit.detection.data_config import CocoConfig
from psvit.run.files import sha256


def detection_record(config: CocoConfig, train: CocoImages, val: CocoImages) -> DataRecord:
    """The record of images in COCO's format; neither images nor annotations are read again."""
    root = Path(config.root or "").expanduser()
    files = {"train": (train, root / config.train_annotations), "val": (val, root / config.val_annotations)}
    listed = {split: _listed(images, annotations) for split, (images, annotations) in files.items()}
    splits = {split: Split(each.images, each.sha256) for split, each in listed.items()}
    return DataRecord("coco", train.class_names, listed, splits)


def _listed(images: CocoImages, annotations: Path) -> Listed:
    """The digest is of the file of annotations, and of names and sizes of the images that are used."""
    coco = images.listing.coco
    names = [coco.imgs[id]["file_name"] for id in images.image_ids]
    digest = hashlib.sha256(sha256(annotations).encode())
    for name, size in zip(names, file_sizes(Path(images.listing.root), names), strict=True):
        digest.update(f"{name}\t{size}\n".encode("utf-8", "surrogateescape"))
    used = set(images.image_ids)
    by_class = tuple(len(used.intersection(coco.catToImgs[id])) for id in images.category_ids)
    return Listed(len(images), by_class, digest.hexdigest())
