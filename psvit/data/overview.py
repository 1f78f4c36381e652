"""What a dataset is in two or three lines, as each training says it before its first step. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from psvit.data.names import printable

_USES = {"train": "learn from", "train+search": "learn from", "search": "search by", "test": "test on"}
_RARE = 10  # times as many images in the largest class as in the smallest, from where that is said
TYPICAL = 0.9  # top-1 whose standard error is told


def overview(dataset: str, classes: Mapping[str, int], splits: Mapping[str, int]) -> Iterator[str]:
    """Lines on what is read, and as what.

    Args:
        classes: name of each class -> its number of images to learn from.
        splits: name of each split that is used -> its number of images.
    """
    uses = ", ".join(f"{number:,} to {_USES[name]}" for name, number in splits.items())
    yield f"{dataset}: {len(classes):,} classes; {uses}"
    fewest, most = (pick(classes, key=lambda name: classes[name]) for pick in (min, max))
    yield f"images per class: {classes[fewest]:,} ({printable(fewest)}) to {classes[most]:,} ({printable(most)})"
    if classes[most] >= _RARE * classes[fewest]:
        yield "    the classes are far from even: top-1 may be high for knowing the large ones alone"
    if "search" in splits:
        images, error = splits["search"], standard_error(splits["search"])
        yield f"search split: {images:,} images; a top-1 of {TYPICAL} there has a standard error of {error:.4f}"


def standard_error(images: int) -> float:
    """Of a top-1 of 0.9 on so many images."""
    return float(np.sqrt(TYPICAL * (1 - TYPICAL) / images))
