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


def decode_counts(text: str) -> NDArray[np.int64]:
    """The run lengths that compressed ``counts`` stand for, read with suspicion: pycocotools reads beyond a bad end.

    Five bits a character, lowest first, with a sign; from the fourth run on, each is told as the difference to the run
    of the same kind before it.

    Raises:
        ValueError: it is no such text, or a run has a negative length; the message says which, and not whose.
    """
    try:
        codes = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        codes = np.array([-1])
    if ((codes < 0) | (codes > 63)).any():
        raise ValueError("a character that is none of 0 to o")
    goes_on = (codes & 32) != 0
    if len(codes) and goes_on[-1]:
        raise ValueError("it is cut short")
    starts = np.flatnonzero(np.concatenate([[True], ~goes_on])[:-1])
    place = np.arange(len(codes)) - np.repeat(starts, np.diff(np.append(starts, len(codes))))
    if (place > 6).any():  # 35 bits; an image has fewer pixels than 2**32
        raise ValueError("a run of more pixels than an image can have")
    last = ~goes_on
    values = np.add.reduceat((codes & 31) << (5 * place), starts) if len(codes) else codes
    values -= np.where(codes[last] & 16, 1 << (5 * (place[last] + 1)), 0)
    values[1::2], values[2::2] = np.cumsum(values[1::2]), np.cumsum(values[2::2])
    if (values < 0).any():
        raise ValueError("a run of negative length")
    return values


def box_of_runs(runs: NDArray[np.int64], height: int) -> tuple[float, float, float, float] | None:
    """Left, top, right and bottom of the ones, in pixels, of run lengths down the columns; None if there are none."""
    ends = np.cumsum(runs)[1::2]
    starts = ends - runs[1::2]
    starts, last = starts[ends > starts], ends[ends > starts] - 1
    if not len(starts):
        return None
    across = bool((starts // height != last // height).any())  # such a run goes on at the top of the next column
    top, bottom = (0, height - 1) if across else (int((starts % height).min()), int((last % height).max()))
    return float(starts[0] // height), float(top), float(last[-1] // height + 1), float(bottom + 1)
