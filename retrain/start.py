"""Starting weights: inherited from a supernet, or trained before on other data or at another image size."""

from __future__ import annotations

import math
from pathlib import Path

from torch import Tensor, nn

from psvit.layers import Grid
from psvit.model import PSViT, interpolate_positions
from psvit.weights import load_tensors, read_about, read_tensors, read_trained_on


def start_from(
    path: Path, network: nn.Module, classes: int, adapt: bool, class_names: tuple[str, ...] | None = None
) -> str:
    """Load weights of this very network into it; learned positions of another image size are interpolated.

    Args:
        classes: outputs of the network's head.
        adapt: leave the head as it is, freshly drawn, where the file's has other classes.
        class_names: what its outputs are to stand for; those of the file are put in this order, where they are known.

    Returns:
        One line that says what was done.

    Raises:
        ValueError: the file is missing or damaged, or of another network; the message names the first tensor that does
            not fit.
    """
    tensors, own = read_tensors(path), network.state_dict()
    done, known = [f"starts from {path}"], read_trained_on(path)
    if class_names is not None and known is not None and len(known.class_names) == classes:
        done += _name_outputs(path, tensors, network, known.class_names, class_names, adapt)
    # the head, whatever its name: weights and biases of which only the first side, the classes, differs
    head = [
        name
        for name, here in own.items()
        if name in tensors and len(here.shape) and len(here) == classes != len(tensors[name])
        if here.shape[1:] == tensors[name].shape[1:]
    ]
    if head:
        before = len(tensors[head[0]])
        if not adapt:
            raise ValueError(
                f"{path}: its head has {before} classes, the data {classes}: set adapt=true to train a new head, or "
                "give the data that the weights were trained on"
            )
        tensors |= {name: own[name] for name in head}
        done.append(f"a new head for {classes} classes instead of {before}")
    positions = tensors.get("pos_embed")
    if isinstance(network, PSViT) and positions is not None and positions.shape != own["pos_embed"].shape:
        first, grid = network.spec.class_tokens, network.spec.patch_grid
        there = _patch_grid(path, positions.shape[1] - first)
        if there is not None:
            tensors["pos_embed"] = interpolate_positions(positions, first, there, grid)
            done.append("positions interpolated from {}x{} to {}x{} patches".format(*there, *grid))
    load_tensors(path, tensors, network)
    return "; ".join(done)


def _name_outputs(
    path: Path,
    tensors: dict[str, Tensor],
    network: nn.Module,
    theirs: tuple[str, ...],
    ours: tuple[str, ...],
    adapt: bool,
) -> list[str]:
    """Put the outputs of the file's head in the order of our classes, or take a new head; says what was done."""
    if theirs == ours:
        return []
    head = [
        name
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and len(layer.weight) == len(ours)
    ][-1]
    parts = [name for name in (f"{head}.weight", f"{head}.bias") if name in tensors]
    other = sorted(set(theirs) ^ set(ours))
    if not other:
        order = [theirs.index(name) for name in ours]
        tensors |= {name: tensors[name][order] for name in parts}
        return ["its outputs put in the order of the classes"]
    if not adapt:
        whose = "it has" if other[0] in theirs else "the data has"
        raise ValueError(
            f"{path}: its head knows other classes than the data, of which only {whose} {other[0]!r}; set adapt=true "
            "to train a new head, or give the data that the weights were trained on"
        )
    own = network.state_dict()
    tensors |= {name: own[name] for name in parts}
    return ["a new head for other classes"]


def _patch_grid(path: Path, patches: int) -> Grid | None:
    """The grid that positions in a file are of: what its header says, else a square; None if neither fits."""
    try:
        network = read_about(path)["network"]
        rows, columns = (side // network["patch_size"] for side in network["image_size"])
    except (KeyError, TypeError, ValueError):  # weights that another program wrote
        rows = columns = math.isqrt(max(patches, 0))
    return (rows, columns) if rows * columns == patches else None
