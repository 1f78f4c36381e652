"""Images with the objects that a detector finds in them, beside those that are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from psvit.figures import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILLION, save_figure

_MOST = 12  # images
_LEAST_SCORE = 0.5
_WIDTH, _HEADER, _TALLEST = 7.5, 0.72, 2.5  # inches
_GAP, _PAIR_GAP = 0.14, 0.04
_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, VERMILLION, SKY)


def draw_detections(
    images: Sequence[Tensor],
    targets: Sequence[Mapping[str, Any]] | None,
    predictions: Sequence[Mapping[str, Any]],
    class_names: Sequence[str],
    path: Path,
) -> None:
    """Draw a contact sheet, 1200 pixels wide: each image with what was found in it, beside it what is there.

    At most 12 images are drawn, and of what was found only scores of 0.5 or more. Colours stand for classes.

    Args:
        images: float (3, height, width) in 0..1, of any sizes.
        targets: of each image, ``boxes`` (n, 4), ``labels`` (n,) from 1 and ``masks`` (n, height, width); None where it
            is not known what there is.
        predictions: of each image, as torchvision's Mask R-CNN gives them: ``masks`` are (n, 1, height, width),
            probabilities, and ``scores`` (n,) are added.
        class_names: the first one's label is 1.
        path: a ``.png`` or ``.svg`` file.

    Raises:
        ValueError: there is no image, or the picture cannot be written.
    """
    from matplotlib.figure import Figure

    if not len(images):
        raise ValueError("there are no images to draw; give at least one")
    shown = range(min(_MOST, len(images)))
    cells = [
        [_kept(predictions[index])] if targets is None else [targets[index], _kept(predictions[index])]
        for index in shown
    ]
    pictures = len(cells[0])  # of one image
    per_row = 4 // pictures
    rows = [list(shown[start : start + per_row]) for start in range(0, len(shown), per_row)]
    heights = [_row_height([_ratio(images[index]) for index in row], pictures) for row in rows]
    height = _HEADER + sum(heights) + _GAP * len(rows)

    figure = Figure(figsize=(_WIDTH, height), facecolor="white")
    title = "Detections" if targets is None else "Ground truth (left), detections (right)"
    figure.text(_GAP / _WIDTH, 1 - 0.30 / height, title, fontsize=13, fontweight="bold", color=INK)
    part = f"{len(images):,} image{'s' if len(images) > 1 else ''}"
    if len(shown) < len(images):
        part = f"{len(shown)} of {part}"
    said = f"{part}; detections with a score of {_LEAST_SCORE:g} or more"
    figure.text(_GAP / _WIDTH, 1 - 0.54 / height, said, fontsize=9, color=GREY)
    bottom = height - _HEADER
    for row, tall in zip(rows, heights, strict=True):
        left, bottom = _GAP, bottom - tall
        for index in row:
            wide = tall * _ratio(images[index])
            for objects in cells[index]:
                ax = figure.add_axes((left / _WIDTH, bottom / height, wide / _WIDTH, tall / height))
                ax.axis("off")
                _draw(ax, images[index], objects, class_names)
                left += wide + _PAIR_GAP
            left += _GAP - _PAIR_GAP
        bottom -= _GAP
    save_figure(figure, path)


def _ratio(image: Tensor) -> float:
    return image.shape[2] / image.shape[1]


def _row_height(ratios: Sequence[float], pictures: int) -> float:
    """Inches, at which images of these ratios of width to height, each drawn so many times, fill a row."""
    gaps = _GAP * (len(ratios) + 1) + _PAIR_GAP * (pictures - 1) * len(ratios)
    return min(_TALLEST, (_WIDTH - gaps) / (pictures * sum(ratios)))


def _kept(prediction: Mapping[str, Any]) -> dict[str, Tensor]:
    """The objects of high scores, the highest last, so that it lies on top; masks as those of targets."""
    scores = prediction["scores"].detach().cpu()
    order = scores.argsort()
    order = order[scores[order] >= _LEAST_SCORE]
    kept = {key: prediction[key].detach().cpu()[order] for key in ("boxes", "labels", "scores")}
    return {**kept, "masks": prediction["masks"].detach().cpu()[order][:, 0] > 0.5}


def _draw(ax: Any, image: Tensor, objects: Mapping[str, Any], class_names: Sequence[str]) -> None:
    """An image, its objects' masks as tinted areas, their boxes and names."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    pixels: npt.NDArray[np.float64] = image.detach().cpu().permute(1, 2, 0).double().clamp(0, 1).numpy()
    labels = [int(label) for label in objects["labels"]]
    colours = [_COLOURS[(label - 1) % len(_COLOURS)] for label in labels]
    tinted = pixels.copy()
    for mask, colour in zip(objects["masks"], colours, strict=True):
        inside = torch.as_tensor(mask).cpu().numpy().astype(bool)
        tinted[inside] = 0.45 * pixels[inside] + 0.55 * np.array(to_rgb(colour))
    ax.imshow(tinted, interpolation="nearest" if max(pixels.shape) <= 256 else "auto")
    scores, width = objects.get("scores"), image.shape[2]
    boxes = [[edge - 0.5 for edge in box] for box in objects["boxes"].tolist()]  # pixels lie around their numbers
    for (left, top, right, bottom), colour in zip(boxes, colours, strict=True):
        ax.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, ec=colour, lw=1.2))
    for number, ((left, top, right, _), label, colour) in enumerate(zip(boxes, labels, colours, strict=True)):
        name = class_names[label - 1] + ("" if scores is None else f" {float(scores[number]):.2f}")
        on_right = left > 0.6 * width
        ax.text(
            min(right, width - 0.5) if on_right else max(left, -0.5),
            max(top, -0.5),
            name,
            fontsize=5.5,
            color="white",
            ha="right" if on_right else "left",
            va="bottom" if top > 0.08 * image.shape[1] else "top",  # above the box where there is room
            parse_math=False,
            clip_on=True,
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8},
        )
