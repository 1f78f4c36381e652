import numpy as np
import pytest
from pycocotools import mask as masks

from psvit.detection.rle import box_of_runs, decode_counts, run_lengths


def drawn(seed: int) -> np.ndarray:
    """A mask of many short runs, of few long ones, or of none."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 400, 2)
    mask = np.zeros((height, width), np.uint8)
    if seed % 3 == 0:
        return (rng.random((height, width)) < rng.random()).astype(np.uint8)
    top, left = rng.integers(height), rng.integers(width)
    mask[top : top + rng.integers(height + 1), left : left + rng.integers(width + 1)] = 1
    return mask


@pytest.mark.parametrize("seed", range(60))
def test_run_lengths_and_boxes_are_those_of_pycocotools(seed):
    mask = drawn(seed)
    encoded = masks.encode(np.asfortranarray(mask))
    runs = decode_counts(encoded["counts"].decode())
    assert runs.tolist() == run_lengths(mask)["counts"]
    left, top, width, height = masks.toBbox(encoded)
    found = box_of_runs(runs, len(mask))
    assert found == ((left, top, left + width, top + height) if mask.any() else None)
