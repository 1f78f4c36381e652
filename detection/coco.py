"""Images and objects in COCO's format, read by torchvision's ``CocoDetection``, and checked before anything is trained.

COCO's boxes and polygons are in the pixels of the file as it is stored: its EXIF orientation is not applied.
"""

from __future__ import annotations

import io
import math
import os
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import CocoDetection

from psvit.data.formats import open_image
from psvit.data.names import printable
from psvit.detection.data_config import CocoConfig
from psvit.detection.rle import need_pycocotools

SMALLEST = 1.0  # pixels that a box is wide and high, or nothing is learned from it


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
        learned = [each for each in annotations if not each.get("iscrowd") and _has_area(each, height, width)]
        boxes = torch.tensor([_corners(each, height, width) for each in learned], dtype=torch.float32).reshape(-1, 4)
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

    def _path(self, index: int) -> str:
        return os.path.join(self.listing.root, self.listing.coco.imgs[self.image_ids[index]]["file_name"])


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
        ValueError: pycocotools is not installed; the listing is missing, is none of COCO's, contradicts itself, or has
            objects without a mask; images are missing.
    """
    need_pycocotools()
    listing = _load(root, annotations)
    coco = listing.coco
    _check_images(coco.dataset, annotations)
    without_area = _check_annotations(coco, annotations)
    missing = _missing(listing)
    if missing and corrupt == "fail":
        raise ValueError(
            f"{len(missing):,} of {len(listing.ids):,} images that {annotations} lists are missing below {root}, the "
            f"first is {coco.imgs[missing[0]]['file_name']}; add them, or skip them with data.corrupt=skip"
        )
    if len(missing) == len(listing.ids):
        raise ValueError(f"none of the images that {annotations} lists is below {root}; is it their folder?")
    notes = []
    if missing:
        notes.append(f"{annotations}: missing images, skipped: {len(missing):,} of {len(listing.ids):,}")
    if without_area:
        notes.append(f"{annotations}: objects without area, left out of training: {without_area:,}")
    return CocoImages(listing, frozenset(missing), notes)


class _Listing(CocoDetection):  # type: ignore[misc]  # torchvision has no types
    """torchvision's reader; what is wrong with an image is told by its name."""

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


def _load(root: Path, annotations: Path) -> CocoDetection:
    try:
        with redirect_stdout(io.StringIO()):  # pycocotools tells how long it takes
            return _Listing(str(root), str(annotations))
    except OSError as error:
        raise ValueError(
            f"cannot read {annotations}: {error.strerror}; data.root must hold COCO's annotations/, train2017/ and "
            "val2017/, or say where yours are (data.train_annotations=..., data.train_images=...)"
        ) from error
    except ValueError as error:  # of json, or of UTF-8
        raise ValueError(
            f"{annotations} is not JSON ({str(error).splitlines()[0]}); download or write it again"
        ) from error
    except KeyError as error:
        raise ValueError(f"{annotations} has an entry without {error}; write it in COCO's format") from error
    except (AssertionError, TypeError) as error:
        raise ValueError(f"{annotations} is not in COCO's format: {error}; it lists images and objects") from error


def _check_images(dataset: dict[str, Any], file: Path) -> None:
    """Raise ValueError unless there are images and categories, each of them whole and listed once."""
    for key in ("images", "annotations", "categories"):
        if not isinstance(dataset.get(key), list):
            raise ValueError(
                f"{file} has no list of {key!r}; it must be an instances file in COCO's format, with images, "
                "annotations and categories"
            )
    for key in ("images", "annotations", "categories"):
        if not dataset[key] and key != "annotations":
            raise ValueError(f"{file} lists no {key}; there is nothing to learn from")
        ids = Counter(entry["id"] for entry in dataset[key])
        for id, times in ids.items():
            if type(id) is not int or times > 1:
                wrong = "is not a whole number" if type(id) is not int else "appears twice"
                raise ValueError(f"{file}: the id {id!r} of {key} {wrong}; renumber them")
    for image in dataset["images"]:
        sides = [image.get(side) for side in ("height", "width")]
        if not isinstance(image.get("file_name"), str) or not all(type(side) is int and side > 0 for side in sides):
            raise ValueError(f"{file}: image {image['id']} lacks its file_name, height or width; write all of them")
    for category in dataset["categories"]:
        if "name" not in category:
            raise ValueError(f"{file}: category {category['id']} has no name; give it one")


def _check_annotations(coco: Any, file: Path) -> int:
    """Raise ValueError unless every object is of a listed image and category, with a box and a mask.

    Gives the number of objects, crowds left out, of which nothing can be learned: their box is too small, or all parts
    of their polygon are less than a triangle. Such parts are dropped, as pycocotools would take some of them for boxes.
    """
    without_area, without_mask = 0, []
    for each in coco.dataset["annotations"]:
        where = f"{file}: annotation {each['id']}"
        for key, known in (("image_id", coco.imgs), ("category_id", coco.cats)):
            if each[key] not in known:
                raise ValueError(
                    f"{where} has {key} {each[key]!r}, which is not listed; list it or remove the annotation"
                )
        image = coco.imgs[each["image_id"]]
        box = each.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(_is_finite(side) for side in box):
            raise ValueError(f"{where} has no bbox of four numbers; write it as [left, top, width, height]")
        mask = each.get("segmentation")
        if not mask:
            without_mask.append(each["id"])
        elif isinstance(mask, dict):
            if mask.get("size") != [image["height"], image["width"]] or not isinstance(mask.get("counts"), list | str):
                raise ValueError(f"{where} has a mask whose size is not its image's; write it as RLE, size and counts")
        else:
            each["segmentation"] = _polygons(mask)
            if each["segmentation"] is None:
                raise ValueError(f"{where} has a segmentation that is neither polygons nor RLE; write one of these")
        if mask and not each.get("iscrowd") and not _has_area(each, image["height"], image["width"]):
            without_area += 1
    if without_mask:
        raise ValueError(
            f"{file}: of {len(without_mask):,} annotations there is no mask (segmentation), the first is "
            f"{without_mask[0]}; Mask R-CNN learns from masks: annotate them as polygons or RLE, or remove these"
        )
    return without_area


def _is_finite(number: Any) -> bool:
    return type(number) in (int, float) and math.isfinite(number)


def _polygons(mask: Any) -> list[NDArray[np.float64]] | None:
    """The parts of a mask that are triangles or more, or None if it is anything else than lists of numbers.

    As arrays they take a third of the memory of Python's numbers, which each loader worker would come to hold.
    """
    if not isinstance(mask, list):
        return None
    try:
        parts = [np.array(part, np.float64) for part in mask]
    except (TypeError, ValueError):
        return None
    if not all(part.ndim == 1 and np.isfinite(part).all() for part in parts):
        return None
    return [part for part in parts if len(part) >= 6 and len(part) % 2 == 0]


def _corners(annotation: dict[str, Any], height: int, width: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a box, as far as it lies in the image."""
    x, y, box_width, box_height = annotation["bbox"]
    return max(x, 0), max(y, 0), min(x + box_width, width), min(y + box_height, height)


def _has_area(annotation: dict[str, Any], height: int, width: int) -> bool:
    left, top, right, bottom = _corners(annotation, height, width)
    return right - left >= SMALLEST and bottom - top >= SMALLEST and bool(annotation["segmentation"])


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
