"""``outcomes.safetensors``: what became of each image in a trained network, so that networks can be compared paired."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, cat

from psvit.engine.scoring import METRICS
from psvit.run.files import write_atomically
from psvit.weights import read_tensors

OUTCOMES = "outcomes.safetensors"


@dataclass(frozen=True)
class ImageOutcomes:
    """Outcomes of a network on a split, in the split's order.

    Attributes:
        loss: float32 (n,) cross entropy.
        correct: bool (n,) whether the most likely class is the right one.
        labels: int64 (n,) class of each image.
        predicted: int64 (n,) the most likely class.
        confidence: float32 (n,) its probability.
    """

    loss: NDArray[np.float32]
    correct: NDArray[np.bool_]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float32]

    def save(self, path: Path, about: dict[str, Any]) -> None:
        """Write the file, whole or not at all; ``about`` (plain JSON values) goes into its header."""
        from safetensors.numpy import save

        content = save(vars(self), metadata={"psvit": json.dumps(about, sort_keys=True)})
        write_atomically(path, lambda file: file.write(content))

    @classmethod
    def load(cls, path: Path) -> ImageOutcomes:
        """Read the file.

        Raises:
            ValueError: it is missing, cut short or holds something else.
        """
        tensors = {name: tensor.numpy() for name, tensor in read_tensors(path).items()}
        shapes = {value.shape for value in tensors.values()}
        if set(tensors) != set(cls.__annotations__) or len(shapes) != 1 or len(next(iter(shapes))) != 1:
            raise ValueError(f"{path}: holds no outcomes of images; delete it and run the training's command again")
        return cls(**tensors)


class OutcomeWatch:
    """Collects the outcomes of one of the networks that :func:`psvit.engine.scoring.measure_all` goes through.

    Args:
        number: of the network.
    """

    def __init__(self, number: int = 0) -> None:
        self._number = number
        self._batches: list[tuple[Tensor, ...]] = []

    def __call__(self, number: int, logits: Tensor, labels: Tensor) -> None:
        """Take note of logits (B, classes) and labels (B,)."""
        if number == self._number:
            outcomes = (METRICS[name].per_image(logits, labels) for name in ("loss", "top1"))
            confidence, predicted = logits.softmax(dim=1).max(dim=1)
            self._batches.append(tuple(each.cpu() for each in (*outcomes, labels, predicted, confidence)))

    def result(self) -> ImageOutcomes:
        """All batches, one after the other."""
        return ImageOutcomes(*(cat(column).numpy() for column in zip(*self._batches, strict=True)))
