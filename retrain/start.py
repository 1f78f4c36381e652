"""Starting weights: inherited from a supernet, or trained before on other data or at another image size."""

from __future__ import annotations

import math
from pathlib import Path

from psvit.layers import Grid
from psvit.model import PSViT, interpolate_positions
from psvit.weights import load_tensors, read_about, read_tensors

_HEAD = ("head.weight", "head.bias")


def start_from(path: Path, network: PSViT, adapt: bool) -> str:
    """Load weights of this very network into it; learned positions of another image size are interpolated.

    Args:
        adapt: leave the head as it is, freshly drawn, where the file's has other classes.

    Returns:
        One line that says what was done.

    Raises:
        ValueError: the file is missing or damaged, or of another network; the message names the first tensor that does
            not fit.
    """
    tensors, own = read_tensors(path), network.state_dict()
    done = [f"starts from {path}"]
    classes = len(tensors.get("head.bias", own["head.bias"]))
    if classes != network.spec.classes:
        if not adapt:
            raise ValueError(
                f"{path}: its head has {classes} classes, the data {network.spec.classes}: say adapt=true to train a "
                "new head, or name the data that the weights are of"
            )
        tensors |= {name: own[name] for name in _HEAD}
        done.append(f"a new head for {network.spec.classes} classes instead of {classes}")
    positions = tensors.get("pos_embed")
    if positions is not None and positions.shape != own["pos_embed"].shape:
        first, grid = network.spec.class_tokens, network.spec.patch_grid
        before = _patch_grid(path, positions.shape[1] - first)
        if before is not None:
            tensors["pos_embed"] = interpolate_positions(positions, first, before, grid)
            done.append("positions interpolated from {}x{} to {}x{} patches".format(*before, *grid))
    load_tensors(path, tensors, network)
    return "; ".join(done)


def _patch_grid(path: Path, patches: int) -> Grid | None:
    """The grid that positions in a file are of: what its header says, else a square; None if neither fits."""
    try:
        network = read_about(path)["network"]
        rows, columns = (side // network["patch_size"] for side in network["image_size"])
    except (KeyError, TypeError, ValueError):  # weights that another program wrote
        rows = columns = math.isqrt(max(patches, 0))
    return (rows, columns) if rows * columns == patches else None
