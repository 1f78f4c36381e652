"""Masks as run lengths, the way COCO writes them down. pycocotools does the work; no torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def need_pycocotools() -> None:
    """Raise ValueError unless pycocotools is installed."""
    try:
        import pycocotools  # noqa: F401
    except ImportError as error:
        raise ValueError("detection needs pycocotools, which is not installed; pip install pycocotools") from error


def encode(mask: NDArray[Any]) -> dict[str, Any]:
    """A mask, (height, width) of zeros and others, as COCO's compressed RLE with text in ``counts``, fit for JSON."""
    need_pycocotools()
    from pycocotools import mask as masks

    encoded = masks.encode(np.asfortranarray(mask != 0, dtype=np.uint8))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode()}


def run_lengths(mask: NDArray[Any]) -> dict[str, Any]:
    """A mask as COCO's uncompressed RLE: lengths of runs, down the columns, of zeros and ones in turn."""
    flat = np.concatenate([[False], (mask != 0).ravel(order="F")])
    starts = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], starts, [mask.size]]))
    return {"size": list(mask.shape), "counts": counts.tolist()}
