"""Stratified splits that are a function of a seed alone. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psvit.data.names import printable
from psvit.run.random import numpy_rng

Integers = NDArray[np.int64]

SPLIT_NAMES = {"train": "train", "test": "test", "val": "val", "valid": "val", "validation": "val"}
"""What a split may be called, in lower case, and which split it is."""


def stratified_split(
    labels: NDArray[np.integer[Any]], fraction: float, seed: int, purpose: str, class_names: Sequence[str]
) -> tuple[Integers, Integers]:
    """Hold out about ``fraction`` of each class, at least one image and never all of them.

    What is held out of a class depends on the seed, the purpose and the number of its images; other classes have no
    effect on it.

    Args:
        labels: (n,) class of each image.
        purpose: a word such as ``search``; splits for different purposes are independent.

    Returns:
        The indices (into ``labels``, ascending) that stay and those that are held out.

    Raises:
        ValueError: a class has a single image, or none.
    """
    held_out = np.zeros(len(labels), bool)
    for label, name in enumerate(class_names):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            raise ValueError(
                f"class {printable(name)!r} has too few images to hold out a {purpose} split: {len(members)} left, "
                "and 2 are needed; add images or remove the class"
            )
        count = min(max(round(len(members) * fraction), 1), len(members) - 1)
        held_out[numpy_rng(seed, f"split {purpose}", label).permutation(members)[:count]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
