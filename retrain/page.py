"""``report.html`` of a retraining: what the network reaches, where it is wrong, how sure it is, and what to do next."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pad, resize

from psvit.data.data import Data
from psvit.engine.outcomes import ImageOutcomes
from psvit.intervals import share
from psvit.page import picture_address, png_address, write_page
from psvit.retrain.errors import calibration, class_scores, confusion
from psvit.retrain.results import RetrainRecord
from psvit.run.folder import recorded_command

REPORT = "report.html"
SHEET = 48  # test images on the sheet of predictions
_MATRIX = 20  # classes whose confusions are a matrix; of more, the most frequent are listed
_ROWS, _SHOWN = 50, 12  # of the table of classes, and images of each kind
_SIDE = 96  # pixels of a thumbnail


def write_report(folder: Path, record: RetrainRecord, outcomes: ImageOutcomes, data: Data) -> None:
    """Write the page into the run folder.

    Args:
        outcomes: of the network on the test split of ``data``.
    """
    names, right = data.class_names, outcomes.correct
    counts = confusion(outcomes.labels, outcomes.predicted, len(names))
    scores, (bins, error) = class_scores(counts, names), calibration(outcomes.confidence, right)
    mistakes = np.flatnonzero(~right)
    unsure = np.flatnonzero(right)
    by_loss = mistakes[np.argsort(-outcomes.loss[mistakes], kind="stable")]
    by_doubt = unsure[np.argsort(outcomes.confidence[unsure], kind="stable")]
    facts: dict[str, Any] = {
        "record": record,
        "top1": share(right.sum(), len(right)),
        "classes": scores[:_ROWS],
        "num_classes": len(names),
        "names": names,
        "matrix": counts.tolist() if len(names) <= _MATRIX else None,
        "confusions": _most_frequent(counts, names),
        "bins": bins,
        "error": error,
        "worst": [_shown(data, outcomes, int(index)) for index in by_loss[:_SHOWN]],
        "least_sure": [_shown(data, outcomes, int(index)) for index in by_doubt[:_SHOWN]],
        "curves": picture_address(folder / "training.png"),
        "drawing": picture_address(folder / "architecture.png"),
        "folder": str(folder),
        "command": recorded_command(folder),
    }
    write_page(folder / REPORT, Path(__file__).with_name("report.html.j2"), facts)


def _most_frequent(counts: npt.NDArray[np.int64], names: tuple[str, ...]) -> list[tuple[str, str, int]]:
    """Pairs of classes that are mistaken most often: of which, for which, how often."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_SHOWN]
    pairs = (divmod(int(place), len(names)) for place in order if wrong.flat[place])
    return [(names[label], names[taken], int(wrong[label, taken])) for label, taken in pairs]


def _shown(data: Data, outcomes: ImageOutcomes, index: int) -> dict[str, Any]:
    """An image of the test split with what it is and what it was taken for."""
    buffer = io.BytesIO()
    Image.fromarray(thumbnail(data.image("test", index))).save(buffer, "PNG")
    return {
        "picture": png_address(buffer.getvalue()),
        "name": data.image_name("test", index),
        "label": data.class_names[outcomes.labels[index]],
        "predicted": data.class_names[outcomes.predicted[index]],
        "confidence": float(outcomes.confidence[index]),
    }


def thumbnail(image: Tensor) -> npt.NDArray[np.uint8]:
    """A whole image on a white square, uint8 (3, height, width) -> (96, 96, 3)."""
    height, width = image.shape[-2:]
    scale = _SIDE / max(height, width)
    small = resize(image, [max(1, round(height * scale)), max(1, round(width * scale))], antialias=True)
    left, top = (_SIDE - small.shape[2]) // 2, (_SIDE - small.shape[1]) // 2
    square = pad(small, [left, top, _SIDE - small.shape[2] - left, _SIDE - small.shape[1] - top], fill=255)
    pixels: npt.NDArray[np.uint8] = square.permute(1, 2, 0).numpy()
    return pixels
