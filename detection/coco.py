"""Images and objects in COCO's format, read by torchvision's ``CocoDetection``, and checked before anything is trained.

COCO's boxes and polygons are in the pixels of the file as it is stored: its EXIF orientation is not applied.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import CocoDetection, VisionDataset

from psvit.data.formats import open_image
from psvit.data.names import printable
from psvit.detection.data_config import CocoConfig
from psvit.detection.listing import corners, has_area, read_listing
from psvit.detection.rle import need_pycocotools


class Target(TypedDict):
    """The objects of an image, as torchvision's Mask R-CNN wants them.

    Attributes:
        boxes: float32 (n, 4), pixels: left, top, right, bottom.
        labels: int64 (n,), from 1; 0 is the background.
        masks: uint8 (n, height, width), of zeros and ones.
        image_id: COCO's.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor
    image_id: int


class CocoImages(Dataset[tuple[Tensor, Target]]):
    """Images and what is to be learned from them: objects, without crowds and without boxes of no area.

    An image without any object is kept: there is nothing to be found in it.

    Attributes:
        listing: torchvision's, with all annotations, by which average precision is measured.
        category_ids: COCO's number of each class; the first one's label is 1.
        class_names: the name of each class, in the same order.
        image_ids: COCO's number of each image, rising; images that are left out are not among them.
        notes: lines that tell what is left out.
    """

    def __init__(self, listing: CocoDetection, left_out: frozenset[int], notes: Sequence[str] = ()) -> None:
        self.listing = listing
        self.category_ids: tuple[int, ...] = tuple(sorted(listing.coco.cats))
        self.class_names = tuple(str(listing.coco.cats[id]["name"]) for id in self.category_ids)
        listing.ids = [id for id in listing.ids if id not in left_out]
        self.image_ids: tuple[int, ...] = tuple(listing.ids)
        self.notes = tuple(notes)
        self._label = {id: label for label, id in enumerate(self.category_ids, start=1)}

    def __len__(self) -> int:
        return len(self.image_ids)

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) of an image, as listed."""
        image = self.listing.coco.imgs[self.image_ids[index]]
        return image["height"], image["width"]

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        """An image, float32 RGB (3, height, width) in 0..1, and its objects.

        Raises:
            ValueError: the file cannot be read, or is of another size than listed; the message names it.
        """
        picture, annotations = self.listing[index]
        height, width = self.size(index)
        if picture.size != (width, height):
            raise ValueError(
                f"{self._path(index)} has {picture.width} x {picture.height} pixels, and its listing says {width} x "
                f"{height}; restore the image that was annotated, in its original orientation"
            )
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float().div_(255)
        learned = self._learned(annotations, height, width)
        boxes = torch.tensor([corners(each, height, width) for each in learned], dtype=torch.float32).reshape(-1, 4)
        masks = np.zeros((len(learned), height, width), np.uint8)
        for mask, each in zip(masks, learned, strict=True):
            try:
                mask[:] = self.listing.coco.annToMask(each)
            except ValueError as error:
                raise ValueError(
                    f"{self._path(index)}: the mask of annotation {each['id']} is corrupt ({error}); repair or "
                    "remove it"
                ) from error
        labels = torch.tensor([self._label[each["category_id"]] for each in learned], dtype=torch.int64)
        target = Target(boxes=boxes, labels=labels, masks=torch.from_numpy(masks), image_id=self.image_ids[index])
        return pixels, target

    def count_objects(self) -> tuple[dict[str, int], int]:
        """How many objects of each class are to be learned, and how many images hold none; no image is read."""
        objects, empty = dict.fromkeys(self.class_names, 0), 0
        for index, id in enumerate(self.image_ids):
            learned = self._learned(self.listing.coco.imgToAnns[id], *self.size(index))
            empty += not learned
            for each in learned:
                objects[self.class_names[self._label[each["category_id"]] - 1]] += 1
        return objects, empty

    @staticmethod
    def _learned(annotations: Sequence[dict[str, Any]], height: int, width: int) -> list[dict[str, Any]]:
        return [each for each in annotations if not each.get("iscrowd") and has_area(each, height, width)]

    def _path(self, index: int) -> str:
        return os.path.join(self.listing.root, self.listing.coco.imgs[self.image_ids[index]]["file_name"])


def overview(train: CocoImages, val: CocoImages) -> Iterator[str]:
    """Lines on what is read, and as what."""
    (objects, empty), (others, _) = train.count_objects(), val.count_objects()
    yield (
        f"{len(train.class_names):,} classes; {len(train):,} images with {sum(objects.values()):,} objects to learn "
        f"from, {len(val):,} with {sum(others.values()):,} to validate on"
    )
    fewest, most = (pick(objects, key=lambda name: objects[name]) for pick in (min, max))
    yield f"objects per class: {objects[fewest]:,} ({printable(fewest)}) to {objects[most]:,} ({printable(most)})"
    if unseen := [name for name, number in others.items() if number and not objects[name]]:
        yield f"    nothing to learn from, but to validate on, of: {printable(', '.join(unseen))}"
    if empty:
        yield f"    images without an object: {empty:,} of {len(train):,}"


def flip_horizontal(image: Tensor, target: Target) -> tuple[Tensor, Target]:
    """An image (3, height, width) and its objects, right and left exchanged."""
    left, top, right, bottom = target["boxes"].unbind(1)
    width = image.shape[2]
    boxes = torch.stack([width - right, top, width - left, bottom], 1)
    return image.flip(2), {**target, "boxes": boxes, "masks": target["masks"].flip(2)}


def open_split(config: CocoConfig, split: str) -> CocoImages:
    """The images ``train`` or ``val`` of a data set; the first process tells what is left out.

    Raises:
        ValueError: as :func:`open_coco`, or ``data.root`` is not given or no folder.
    """
    assert split in ("train", "val")
    if config.root is None:
        raise ValueError(
            "detection needs to know where its images are; give data.root=DIR, in COCO's layout (psvit-search detect "
            "shapes --save DIR draws such images)"
        )
    root = Path(config.root).expanduser()
    if not root.is_dir():
        raise ValueError(f"data.root={root} {'is not a folder' if root.exists() else 'does not exist'}; give a folder")
    folder, file = (getattr(config, f"{split}_{what}") for what in ("images", "annotations"))
    images = open_coco(root / folder, root / file, config.corrupt)
    if os.environ.get("RANK", "0") == "0":
        for note in images.notes:
            print(note, file=sys.stderr, flush=True)
    return images


def open_coco(root: Path, annotations: Path, corrupt: str = "fail") -> CocoImages:
    """Open a listing and check all of it, without reading an image.

    Args:
        root: folder of the images.
        annotations: the JSON file that lists them and their objects.
        corrupt: ``skip`` leaves out images that are missing.

    Raises:
        ValueError: pycocotools is not installed; the listing is refused (:func:`read_listing`); images are missing.
    """
    need_pycocotools()
    dataset, odd = read_listing(annotations)
    listing = _Listing(root, dataset)
    coco = listing.coco
    missing = _missing(listing)
    if missing and corrupt == "fail":
        raise ValueError(
            f"{len(missing):,} of {len(listing.ids):,} images that {annotations} lists are missing below {root}, the "
            f"first is {printable(coco.imgs[missing[0]]['file_name'])}; add them, or skip them with data.corrupt=skip"
        )
    if len(missing) == len(listing.ids):
        raise ValueError(f"none of the images that {annotations} lists is below {root}; is it their folder?")
    notes = []
    if missing:
        notes.append(f"{annotations}: missing images, skipped: {len(missing):,} of {len(listing.ids):,}")
    return CocoImages(listing, frozenset(missing), [*notes, *odd.notes(annotations)])


class _Listing(CocoDetection):  # type: ignore[misc]  # torchvision has no types
    """torchvision's, of a listing that has been read; what is wrong with an image is told by its name."""

    def __init__(self, root: Path, dataset: dict[str, Any]) -> None:
        from pycocotools.coco import COCO

        VisionDataset.__init__(self, str(root))
        self.coco = COCO()
        self.coco.dataset = dataset
        with redirect_stdout(io.StringIO()):  # pycocotools tells how long it takes
            self.coco.createIndex()
        self.ids = sorted(self.coco.imgs)

    def _load_image(self, id: int) -> Image.Image:
        path = os.path.join(self.root, self.coco.imgs[id]["file_name"])
        try:
            with open_image(Path(path)) as picture:
                if picture.mode[0] in "IF":  # Pillow would cut off what is above 255
                    raise ValueError("its gray values have more than 8 bits")
                return picture.convert("RGB")
        except Exception as error:  # a broken file makes Pillow raise almost anything
            reason = (str(error) or repr(error)).splitlines()[0]
            raise ValueError(
                f"cannot read image {printable(path)} ({printable(reason)}); repair or remove it"
            ) from error


def _missing(listing: CocoDetection) -> list[int]:
    """The images that are not there; a folder is listed once, which is quick on a disk far away, too."""
    paths = {id: os.path.split(os.path.join(listing.root, listing.coco.imgs[id]["file_name"])) for id in listing.ids}
    there: dict[str, set[str]] = {}
    for folder in {folder for folder, _ in paths.values()}:
        try:
            there[folder] = set(os.listdir(folder))
        except OSError:
            there[folder] = set()
    return [id for id, (folder, name) in paths.items() if name not in there[folder]]
