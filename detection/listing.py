"""The one reader of COCO's listings: every field that is used later is checked when a listing is opened. No torch.

pycocotools is C code that trusts what it is given: run lengths that stop short make it read for ever, corners far away
make it take all memory. So nothing reaches it that has not passed here.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psvit.detection.rle import box_of_runs, decode_counts
from psvit.run.records import shown

SMALLEST = 1.0  # pixels that a box is wide and high, or nothing is learned from it
MOST_PIXELS = 178_956_970  # of an image; Pillow opens none that is larger
LONGEST_OUTLINE = 2**22  # pixels; rasterising takes 80 bytes for each
_LISTS = ("images", "annotations", "categories")
_HELP = "it must be an instances file in COCO's format, with images, annotations and categories"
_ID_BELOW = 2**53  # whole numbers that floats, which pycocotools calculates with, tell apart

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels."""
Polygons = list[NDArray[np.float64]]
"""Corners of each part of a mask: x, y, x, y, ..."""


@dataclass
class Oddities:
    """Objects, crowds left out, that can be read and are not what they should be: their ids.

    Attributes:
        objects: how many there are in all.
        shares: box and mask are given as shares of the image instead of pixels.
        outside: the mask is outside the image; it is taken away.
        disagree: the box is far from the mask.
        without_area: the box is too small, or no part of the polygon is a triangle: nothing to learn from.
    """

    objects: int = 0
    shares: list[int] = field(default_factory=list)
    outside: list[int] = field(default_factory=list)
    disagree: list[int] = field(default_factory=list)
    without_area: int = 0

    _WRONG = {  # noqa: RUF012  (no field: it has no annotation)
        "shares": (
            "have box and mask in shares of their image",
            "multiply x by its width and y by its height, COCO's are pixels",
        ),
        "outside": (
            "have their mask outside their image",
            "write polygons in pixels of the image as it is stored, from its upper left corner",
        ),
        "disagree": (
            "have a box that is far from their mask",
            "write bbox as [left, top, width, height], not as corners or centre",
        ),
    }

    def refuse_most(self, file: Path) -> None:
        """Raise ValueError if most objects have the same fault: then it is one of the listing."""
        for name, (what, remedy) in self._WRONG.items():
            ids = getattr(self, name)
            if 2 * len(ids) > self.objects:
                raise ValueError(
                    f"{file}: {len(ids):,} of {self.objects:,} objects {what}, the first is {ids[0]}; {remedy}"
                )

    def notes(self, file: Path) -> list[str]:
        """A line for each kind there is."""
        lines = [
            f"{file}: {len(ids):,} of {self.objects:,} objects {what}, the first is {ids[0]}"
            for name, (what, _) in self._WRONG.items()
            if (ids := getattr(self, name))
        ]
        if self.without_area:
            lines.append(f"{file}: objects without area, left out of training: {self.without_area:,}")
        return lines


def read_listing(file: Path) -> tuple[dict[str, Any], Oddities]:
    """Read and check a listing.

    Returns:
        The listing, with polygons as arrays (they take a third of the memory) and without those parts that are less
        than a triangle, which pycocotools would take for boxes, or outside the image; and what is odd about it.

    Raises:
        ValueError: it is missing, not in COCO's format, contradicts itself, has objects without a mask, or most of its
            objects have the same fault. One line, with the file and the id.
    """
    listing = _load(file)
    for key in _LISTS:
        if not isinstance(listing.get(key), list):
            raise ValueError(f"{file} has no list of {key!r}; {_HELP}")
        if not listing[key] and key != "annotations":
            raise ValueError(f"{file} lists no {key}; there is nothing to learn from")
    for key in _LISTS:
        _check_ids(listing[key], key, file)
    images = {image["id"]: image for image in listing["images"]}
    for image in listing["images"]:
        _check_image(image, file)
    _check_names(listing, file)
    categories = {category["id"] for category in listing["categories"]}
    odd, without_mask = Oddities(), []
    for each in listing["annotations"]:
        where = f"{file}: annotation {each['id']}"
        _check_links(each, where, images, categories)
        if not each.get("segmentation"):
            without_mask.append(each["id"])
            continue
        _check_object(each, where, images[each["image_id"]], odd)
    if without_mask:
        raise ValueError(
            f"{file}: of {len(without_mask):,} annotations there is no mask (segmentation), the first is "
            f"{without_mask[0]}; Mask R-CNN learns from masks: annotate them as polygons or RLE, or remove these"
        )
    odd.refuse_most(file)
    return listing, odd


def corners(annotation: dict[str, Any], height: int, width: int) -> Box:
    """The box of a checked annotation, as far as it lies in the image."""
    x, y, box_width, box_height = annotation["bbox"]
    return _clipped((x, y, x + box_width, y + box_height), height, width)


def has_area(annotation: dict[str, Any], height: int, width: int) -> bool:
    """Whether something can be learned from a checked annotation: it has a mask, and a box of a pixel or more."""
    left, top, right, bottom = corners(annotation, height, width)
    return right - left >= SMALLEST and bottom - top >= SMALLEST and bool(annotation["segmentation"])


def _load(file: Path) -> dict[str, Any]:
    if os.path.exists(file) and not os.path.isfile(file):
        raise ValueError(f"{file} is not a regular file; give the listing itself (data.train_annotations=...)")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ValueError(
            f"cannot read {file}: {error.strerror}; data.root must hold COCO's annotations/, train2017/ and "
            "val2017/, or say where yours are (data.train_annotations=..., data.train_images=...)"
        ) from error
    try:
        listing = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # of json, or of UTF-8; lists in lists in lists
        raise ValueError(f"{file} is not JSON ({str(error).splitlines()[0]}); download or write it again") from error
    if not isinstance(listing, dict):
        raise ValueError(f"{file} is not in COCO's format: it is {shown(listing)}; {_HELP}")
    return listing


def _check_ids(entries: list[Any], key: str, file: Path) -> None:
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ValueError(f"{file}: {key}[{place}] is {shown(entry)}; it must be an object with an id")
        if "id" not in entry:
            raise ValueError(f"{file}: {key}[{place}] has no 'id'; number all of them")
        if type(entry["id"]) is not int or abs(entry["id"]) >= _ID_BELOW:
            raise ValueError(f"{file}: the id {shown(entry['id'])} of {key} is not a whole number; renumber them")
    id, times = Counter(entry["id"] for entry in entries).most_common(1)[0] if entries else (0, 1)
    if times > 1:
        raise ValueError(f"{file}: the id {id} of {key} appears twice; renumber them")


def _check_image(image: dict[str, Any], file: Path) -> None:
    sides = [image.get(side) for side in ("height", "width")]
    name = image.get("file_name")
    if not isinstance(name, str) or not name or not all(type(side) is int and side > 0 for side in sides):
        raise ValueError(f"{file}: image {image['id']} lacks its file_name, height or width; write all of them")
    if math.prod(sides) > MOST_PIXELS:  # type: ignore[arg-type]  # ints, as just seen
        raise ValueError(
            f"{file}: image {image['id']} is listed as {shown(sides[1])} x {shown(sides[0])} pixels, more than the "
            f"{MOST_PIXELS:,} that an image can have; write its real size"
        )
    try:
        name.encode()
    except UnicodeEncodeError:
        name = "\0"
    if "\0" in name:
        raise ValueError(f"{file}: image {image['id']} has a file_name that no file can have; write its real name")


def _check_names(listing: dict[str, Any], file: Path) -> None:
    """Raise ValueError if an image is listed twice, which parts its objects, or two categories are one."""
    for category in listing["categories"]:
        if not isinstance(category.get("name"), str) or not category["name"].strip():
            raise ValueError(f"{file}: category {category['id']} has no name; give it one")
    for key, name in (("images", "file_name"), ("categories", "name")):
        ids: dict[str, int] = {}
        for entry in listing[key]:
            other = ids.setdefault(entry[name], entry["id"])
            if other != entry["id"]:
                raise ValueError(
                    f"{file}: {key} {other} and {entry['id']} have the same {name}, {shown(entry[name])}; list it once"
                )


def _check_links(each: dict[str, Any], where: str, images: dict[int, Any], categories: set[int]) -> None:
    for key, known in (("image_id", images), ("category_id", categories)):
        value = each.get(key)
        if type(value) is not int or value not in known:
            raise ValueError(f"{where} has {key} {shown(value)}, which is not listed; list it or remove the annotation")


def _check_object(each: dict[str, Any], where: str, image: dict[str, Any], odd: Oddities) -> None:
    """Raise ValueError unless its box, mask, area and crowd flag can be read; add it to what is odd."""
    height, width = image["height"], image["width"]
    box = each.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_finite(side) for side in box):
        raise ValueError(f"{where} has no bbox of four numbers; write it as [left, top, width, height]")
    if min(box[2:]) < 0:
        raise ValueError(
            f"{where} has the bbox {shown(box)}, of negative width or height; write it as [left, top, width, height]"
        )
    if "area" in each and not (_is_finite(each["area"]) and each["area"] >= 0):
        raise ValueError(f"{where} has the area {shown(each['area'])}; write a number of pixels, or leave it out")
    crowd = each.get("iscrowd", 0)
    if type(crowd) not in (int, bool) or crowd not in (0, 1):
        raise ValueError(f"{where} has iscrowd {shown(crowd)}; write 0 or 1, or leave it out")
    mask = each["segmentation"]
    if isinstance(mask, dict):
        parts, extent = None, box_of_runs(_run_lengths(mask, where, height, width), height)
    else:
        parts = _polygons(mask, where)
        each["segmentation"], extent = _inside(parts, where, height, width)
    if not crowd:
        _tell_odd(each, parts, extent, (height, width), odd)


def _tell_odd(
    each: dict[str, Any], parts: Polygons | None, extent: Box | None, size: tuple[int, int], odd: Oddities
) -> None:
    """Count an object.

    Args:
        parts: its polygons, as listed; None of run lengths.
        extent: of what is left of its mask.
        size: height and width of its image.
    """
    odd.objects += 1
    if (
        parts
        and max(size) > 2
        and max(each["bbox"][2:]) < 1
        and all(0 <= part.min() <= part.max() <= 1 for part in parts)
    ):
        odd.shares.append(each["id"])
    elif parts and not each["segmentation"]:
        odd.outside.append(each["id"])
    elif not has_area(each, *size):
        odd.without_area += 1
    elif extent is not None and _is_far(corners(each, *size), _clipped(extent, *size)):
        odd.disagree.append(each["id"])


def _run_lengths(mask: dict[str, Any], where: str, height: int, width: int) -> NDArray[np.int64]:
    """The run lengths of a mask, compressed or not, which make up its image."""
    size, counts = mask.get("size"), mask.get("counts")
    if size != [height, width] or not all(type(side) is int for side in size) or not isinstance(counts, list | str):
        raise ValueError(f"{where} has a mask whose size is not its image's; write it as RLE, size and counts")
    if isinstance(counts, str):
        try:
            counts = decode_counts(counts).tolist()
        except ValueError as error:
            raise ValueError(
                f"{where} has a bad compressed RLE ({error}); write it by pycocotools.mask.encode"
            ) from None
    elif not all(type(run) is int and run >= 0 for run in counts):
        raise ValueError(f"{where} has run lengths that are not whole numbers from 0; write them anew")
    if sum(counts) != height * width:  # Python's numbers, which do not overflow
        raise ValueError(
            f"{where} has run lengths of {shown(sum(counts))} pixels in all, and its image has {height} x {width} = "
            f"{height * width}; write them anew, down to the last run"
        )
    return np.array(counts, np.int64)


def _polygons(mask: Any, where: str) -> Polygons:
    """The parts of a mask that are triangles or more."""
    parts = [_numbers(part) for part in mask] if isinstance(mask, list) else [None]
    if any(part is None for part in parts):
        raise ValueError(f"{where} has a segmentation that is neither polygons nor RLE; write one of these")
    return [part for part in parts if part is not None and len(part) >= 6 and len(part) % 2 == 0]


def _numbers(part: Any) -> NDArray[np.float64] | None:
    """A list of finite numbers as an array; None if it is anything else."""
    if not isinstance(part, list):
        return None
    try:
        numbers = np.array(part or [0.0])
    except ValueError:  # lists of several lengths
        return None
    if numbers.ndim != 1 or numbers.dtype.kind not in "iuf" or not np.isfinite(numbers).all():
        return None
    return numbers.astype(np.float64)


def _inside(parts: Polygons, where: str, height: int, width: int) -> tuple[Polygons, Box | None]:
    """Those parts that are in the image, at least partly, and not an image's size beyond; and their common extent."""
    kept, boxes = [], []
    for part in parts:
        x, y = part[0::2], part[1::2]
        left, top, right, bottom = box = float(x.min()), float(y.min()), float(x.max()), float(y.max())
        beyond = left < -width or top < -height or right > 2 * width or bottom > 2 * height
        if beyond or left >= width or top >= height or right <= 0 or bottom <= 0:
            continue
        length = np.abs(np.diff(x, append=x[:1])).sum() + np.abs(np.diff(y, append=y[:1])).sum()
        if length > LONGEST_OUTLINE:
            raise ValueError(
                f"{where} has a polygon {length:,.0f} pixels long, more than {LONGEST_OUTLINE:,}; write it as RLE"
            )
        kept.append(part)
        boxes.append(box)
    if not boxes:
        return [], None
    lows, highs = np.min(boxes, axis=0), np.max(boxes, axis=0)
    return kept, (float(lows[0]), float(lows[1]), float(highs[2]), float(highs[3]))


def _is_finite(number: Any) -> bool:
    return type(number) in (int, float) and abs(number) < _ID_BELOW  # NaN is not, either


def _clipped(box: Box, height: int, width: int) -> Box:
    left, top, right, bottom = box
    return max(left, 0), max(top, 0), min(right, width), min(bottom, height)


def _is_far(box: Box, extent: Box) -> bool:
    """Whether a side of a box is off by more than what drawing by hand and rounding explain."""
    largest = max(extent[2] - extent[0], extent[3] - extent[1])
    return max(abs(one - other) for one, other in zip(box, extent, strict=True)) > 2 + largest / 4
