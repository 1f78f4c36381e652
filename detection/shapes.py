"""Task of ``psvit-search detect shapes``: draw images of shapes, with boxes and masks in COCO's format. No torch.

They are there to try a detector on, in minutes: small, medium and large objects by COCO's measure, some of them partly
hidden, on plain, graded and noisy ground; crowds; images with nothing in them. Beside them lie images of one shape
each, in one folder a class, for a classifier whose weights a detector can start from. An image is a function of (seed,
split, index, size) alone.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from psvit.checks import check_at_least
from psvit.detection.rle import encode, need_pycocotools, run_lengths
from psvit.run.files import write_atomically, write_text
from psvit.run.random import numpy_rng

# Numbered with gaps, as COCO's own are.
CATEGORIES = {1: "circle", 2: "square", 4: "triangle", 7: "star"}
SETTINGS = "shapes.json"  # what a folder is drawn by

# COCO's small, medium and large objects: square roots of their areas, in pixels.
SMALL, LARGE = 32, 96
SMALLEST = 12
SINGLE = 32  # pixels of an image of one shape
_EMPTY_EVERY, _CROWD_EVERY = 10, 8  # of so many images one has nothing in it, or a crowd
_TURN = 0.3  # radians, to either side of upright
_VISIBLE = 0.6  # a shape of which less can be seen is not drawn

Mask = NDArray[np.bool_]


@dataclass
class ShapesConfig:
    """Settings of ``psvit-search detect shapes``.

    Attributes:
        save: folder to make.
        num_images: training images.
        num_val_images: validation images.
        size: pixels of an image's shorter side. The longer one has up to half as many again.
        singles: images of a single shape, in ``singles/``, to train a classifier on; 0 draws none. They have 32 x 32
            pixels, and a quarter as many are there to test it.
        seed: random seed of all that is drawn.
    """

    save: str = "???"
    num_images: int = 400
    num_val_images: int = 100
    size: int = 64
    singles: int = 4000
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(self, 1, "num_images", "num_val_images")
        check_at_least(self, 4 * SMALLEST, "size", why="smaller images have no room for the shapes")
        if self.singles and self.singles < 4 * len(CATEGORIES):
            raise ValueError(f"singles is {self.singles}; use 0, or {4 * len(CATEGORIES)} or more, some of each class")


def draw_shapes(config: ShapesConfig) -> Path:
    """Draw both splits in COCO's layout; prints one line. The same settings give the same bytes.

    Raises:
        ValueError: the folder holds anything else, pycocotools is not installed, or the disk is full.
    """
    need_pycocotools()
    root = Path(config.save).expanduser()
    _claim(root, config)
    for split, number in (("train", config.num_images), ("val", config.num_val_images)):
        listed: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index in range(number):
            picture, objects = draw_image(config.seed, split, index, config.size)
            id = 2 * index + 1 + (split == "val")
            name = f"{id:012d}.png"
            write_atomically(root / f"{split}2017" / name, partial(picture.save, format="PNG"))
            listed.append({"id": id, "file_name": name, "width": picture.width, "height": picture.height})
            annotations += [{"id": 100 * id + number, "image_id": id, **each} for number, each in enumerate(objects)]
        listing = {
            "info": {"description": f"shapes drawn by psvit-search, seed {config.seed}, {split}"},
            "images": listed,
            "annotations": annotations,
            "categories": [
                {"id": number, "name": name, "supercategory": "shape"} for number, name in CATEGORIES.items()
            ],
        }
        write_text(root / "annotations" / f"instances_{split}2017.json", json.dumps(listing))
        for index in range(config.singles if split == "train" else config.singles // 4):
            picture, name = draw_single(config.seed, split, index)
            write_atomically(root / "singles" / split / name / f"{index:06d}.png", partial(picture.save, format="PNG"))
    print(
        f"{root}: {config.num_images:,} images to learn from and {config.num_val_images:,} to score on, with "
        f"{', '.join(CATEGORIES.values())}; next: psvit-search detect train experiment=detect/shapes data.root={root}"
    )
    if config.singles:
        print(
            f"{root / 'singles'}: {config.singles:,} images of one shape each, for a classifier that the detector "
            f"starts from; first: psvit-search retrain experiment=retrain/shapes data.root={root / 'singles'}"
        )
    return root


def _claim(root: Path, config: ShapesConfig) -> None:
    """Make the folder ours; nobody's data are drawn over."""
    settings = json.dumps({**asdict(config), "save": ""})
    marker = root / SETTINGS
    if marker.is_file():
        if marker.read_text() != settings:
            raise ValueError(
                f"{root} holds shapes drawn with other settings ({SETTINGS}); give another folder with --save"
            )
    elif root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ValueError(f"{root} holds something else; give a new folder with --save")
    write_text(marker, settings)


# ---------------------------------------------------------------------------------------------------- one image


def draw_image(seed: int, split: str, index: int, size: int) -> tuple[Image.Image, list[dict[str, Any]]]:
    """An image, and its objects as COCO's annotations without ids.

    Objects are placed from the front to the back: of each only what is not hidden is drawn, and is its mask.
    """
    rng = numpy_rng(seed, f"shapes {split}", index)
    height, width = rng.permutation([size, int(rng.integers(size, size * 3 // 2 + 1))])
    ground, pixels = _background(rng, height, width)
    hidden = np.zeros((height, width), bool)

    def place(number: int, centre: NDArray[np.float64], side: float) -> Mask | None:
        """Draw what can be seen of a shape; None if that is too little."""
        colour = _unlike(rng, ground)
        whole = _raster(_corners(CATEGORIES[number], centre, side, rng.uniform(-_TURN, _TURN)), height, width)
        visible = whole & ~hidden
        if visible.sum() < max(_VISIBLE * side**2, 0.25 * SMALLEST**2):
            return None
        pixels[visible] = colour
        hidden[:] |= visible
        return visible

    found: list[tuple[int, Mask, bool]] = []  # category, mask, whether it is a crowd
    numbers = list(CATEGORIES)
    if index % _EMPTY_EVERY != _EMPTY_EVERY - 3:
        if index % _CROWD_EVERY == _CROWD_EVERY - 5:
            number, middle = rng.choice(numbers), rng.uniform(0.3, 0.7, 2) * (width, height)
            around = [middle + rng.normal(0, 2 * SMALLEST, 2) for _ in range(12)]
            members = [mask for centre in around if (mask := place(number, centre, 1.5 * SMALLEST)) is not None]
            if members:
                found.append((number, np.any(members, axis=0), True))
        for _ in range(rng.integers(1, 7)):
            number, side = rng.choice(numbers), _side(rng, size)
            margin = np.minimum(0.4 * side, np.array([width, height]) / 2)
            mask = place(number, rng.uniform(margin, np.array([width, height]) - margin), side)
            if mask is not None:
                found.append((number, mask, False))
    objects = [_annotate(int(number), mask, crowd, way) for way, (number, mask, crowd) in enumerate(found, start=index)]
    return Image.fromarray(pixels.astype(np.uint8)), objects


def draw_single(seed: int, split: str, index: int) -> tuple[Image.Image, str]:
    """An image of one shape, and the shape's name; the classes take turns."""
    rng = numpy_rng(seed, f"single {split}", index)
    ground, pixels = _background(rng, SINGLE, SINGLE)
    name = list(CATEGORIES.values())[index % len(CATEGORIES)]
    side = float(np.exp(rng.uniform(np.log(SMALLEST), np.log(0.8 * SINGLE))))
    corners = _corners(name, rng.uniform(0.4, 0.6, 2) * SINGLE, side, rng.uniform(-_TURN, _TURN))
    pixels[_raster(corners, SINGLE, SINGLE)] = _unlike(rng, ground)
    return Image.fromarray(pixels.astype(np.uint8)), name


def _unlike(rng: np.random.Generator, ground: NDArray[np.int64]) -> NDArray[np.int64]:
    """A colour far from the ground's in every channel."""
    return (ground + rng.integers(64, 193, 3)) % 256


def _background(rng: np.random.Generator, height: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """A plain, graded or noisy ground: its mean colour, and its pixels (height, width, 3)."""
    colour = rng.integers(40, 216, 3)
    pixels = np.broadcast_to(colour.astype(float), (height, width, 3)).copy()
    kind = rng.choice(["plain", "gradient", "noise"])
    if kind == "gradient":
        rows, columns = np.linspace(-1, 1, height)[:, None, None], np.linspace(-1, 1, width)[None, :, None]
        pixels += (rows * rng.uniform(-1, 1) + columns * rng.uniform(-1, 1)) * rng.uniform(-20, 20, 3)
    elif kind == "noise":
        pixels += rng.normal(0, 12, pixels.shape)
    return colour, pixels.clip(0, 255)


def _side(rng: np.random.Generator, size: int) -> float:
    """Square root of a shape's area: small, medium or large, as far as the image has room."""
    most = 0.9 * size
    bands = [(SMALLEST, SMALL, 0.35), (SMALL, LARGE, 0.5), (LARGE, 3 * LARGE, 0.15)]
    fitting = [(low, min(high, most), share) for low, high, share in bands if low < most]
    shares = np.array([share for *_, share in fitting])
    low, high, _ = fitting[rng.choice(len(fitting), p=shares / shares.sum())]
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _corners(shape: str, centre: NDArray[np.float64], side: float, turn: float) -> NDArray[np.float64]:
    """(n, 2) corners of a shape whose area is ``side`` squared, turned by an angle from upright."""
    corners = {"circle": 64, "square": 4, "triangle": 3, "star": 10}[shape]
    radius = np.ones(corners)
    if shape == "star":
        radius[1::2] = 0.45
    first = np.pi / 4 if shape == "square" else -np.pi / 2  # the others stand on a side, or have a tip above
    angles = turn + first + np.arange(corners) * 2 * np.pi / corners
    points = radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    x, y = points.T
    area = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
    return centre + points * side / np.sqrt(area)


def _raster(corners: NDArray[np.float64], height: int, width: int) -> Mask:
    canvas = Image.new("1", (width, height))
    ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in corners], fill=1)
    return np.array(canvas)


# ---------------------------------------------------------------------------------------------------- annotations


def _annotate(number: int, mask: Mask, crowd: bool, way: int) -> dict[str, Any]:
    """An object as COCO writes it down; its mask as polygon, as run lengths and as compressed ones in turn.

    Crowds are run lengths, as COCO's are, and so is what has a hole, which no polygon of COCO's has.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top = int(columns[0]), int(rows[0])
    polygons = outline(mask) if way % 3 == 0 and not crowd else None
    return {
        "category_id": number,
        "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
        "area": int(mask.sum()),
        "iscrowd": int(crowd),
        "segmentation": polygons or (encode(mask) if way % 3 == 2 and not crowd else run_lengths(mask)),
    }


def outline(mask: Mask) -> list[list[int]] | None:
    """The polygons, [x, y, x, y, ...], that run along the pixels of a mask, or None if it has a hole.

    Pixels that touch at a corner alone belong to different polygons.
    """
    framed = np.pad(mask, 1)
    inside = framed[1:-1, 1:-1]
    # sides of pixels with nothing beyond, so directed that the mask is on their right hand as y grows downwards
    sides = {
        (1, 0): (inside & ~framed[:-2, 1:-1], (0, 0)),
        (0, 1): (inside & ~framed[1:-1, 2:], (1, 0)),
        (-1, 0): (inside & ~framed[2:, 1:-1], (1, 1)),
        (0, -1): (inside & ~framed[1:-1, :-2], (0, 1)),
    }
    leaving: dict[tuple[int, int], list[tuple[int, int]]] = {}  # the directions in which sides leave a corner
    for direction, (is_side, (dx, dy)) in sides.items():
        for row, column in np.argwhere(is_side):
            leaving.setdefault((int(column) + dx, int(row) + dy), []).append(direction)
    polygons = []
    while leaving:
        start = corner = min(leaving, key=lambda point: (point[1], point[0]))
        polygon: list[tuple[int, int]] = []
        direction = (0, 0)
        while True:
            ways = leaving[corner]
            right_turn = (-direction[1], direction[0])
            chosen = right_turn if right_turn in ways else ways[0]
            ways.remove(chosen)
            if not ways:
                del leaving[corner]
            if chosen != direction:
                polygon.append(corner)
            direction = chosen
            corner = corner[0] + direction[0], corner[1] + direction[1]
            if corner == start:
                break
        twice_area = sum(x * y2 - x2 * y for (x, y), (x2, y2) in pairwise([*polygon, polygon[0]]))
        if twice_area < 0:  # it runs the other way: the edge of a hole
            return None
        polygons.append([number for point in polygon for number in point])
    return polygons
