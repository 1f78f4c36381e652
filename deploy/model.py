"""A trained network that knows how to look at pictures and what its outputs are called: ``psvit.load``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from psvit.archfile import load_arch
from psvit.data.decode import read_image
from psvit.data.loading import load as load_pictures
from psvit.data.transforms import EvalTransform, Normalize
from psvit.deploy.formats import is_exported, open_file
from psvit.engine.device import pick_device
from psvit.preprocessing import TrainedOn
from psvit.retrain.artifacts import WEIGHTS
from psvit.retrain.fit import load_trained
from psvit.weights import read_trained_on


class Prediction(NamedTuple):
    """A class and its probability, 0 to 1."""

    name: str
    confidence: float


class Fault(NamedTuple):
    """A picture that cannot be read, and why."""

    path: str
    reason: str


class Model:
    """A trained network with its classes and its preprocessing; :func:`load` opens one.

    Attributes:
        module: images (B, 3, height, width), preprocessed, -> logits (B, classes); in eval mode.
        trained_on: names of the classes, and how pictures are prepared.
        image_size: (height, width) of what it sees.
        device: where it computes.
    """

    def __init__(
        self, module: nn.Module, trained_on: TrainedOn, image_size: tuple[int, int], device: torch.device
    ) -> None:
        self.module = module.eval().to(device)
        self.trained_on, self.image_size, self.device = trained_on, image_size, device
        how = trained_on.preprocessing
        self.transform, self._normalize = EvalTransform(image_size, how), Normalize(how.mean, how.std)

    @property
    def class_names(self) -> tuple[str, ...]:
        """What each output stands for."""
        return self.trained_on.class_names

    def predict(self, picture: Any, top: int = 5) -> list[Prediction]:
        """The most probable classes of a picture, the first one first.

        Args:
            picture: the path of a file, a PIL image, a uint8 array (height, width, 3), or a uint8 tensor
                (3, height, width), all RGB.

        Raises:
            ValueError: a file that cannot be read, or an array of another type or shape.
        """
        (answer,) = self.rank(self.probabilities(self.transform([_pixels(picture)])), top)
        return answer

    @torch.inference_mode()
    def probabilities(self, pixels: Tensor) -> Tensor:
        """uint8 (n, 3, *image_size), as ``transform`` makes them -> float32 (n, classes), on the CPU."""
        logits: Tensor = self.module(self._normalize(pixels.to(self.device)))
        return logits.float().softmax(dim=1).cpu()

    def rank(self, probabilities: Tensor, top: int) -> list[list[Prediction]]:
        """The ``top`` most probable classes of each of (n, classes)."""
        values, places = probabilities.topk(min(top, len(self.class_names)), dim=1)
        return [
            [Prediction(self.class_names[place], value) for place, value in zip(*row, strict=True)]
            for row in zip(places.tolist(), values.tolist(), strict=True)
        ]

    def predict_files(
        self, paths: Sequence[str], top: int, batch_size: int, workers: int
    ) -> Iterator[list[tuple[str, list[Prediction]] | Fault]]:
        """The predictions of many files, a batch at a time and in their order; a fault in place of an unreadable one.

        Args:
            workers: processes that read; 0 reads in this one.
        """
        numbers = range(0, len(paths), batch_size)
        batches = [paths[start : start + batch_size] for start in numbers]
        read = load_pictures(_Files(self.transform), batches, workers, self.device.type == "cuda")
        for batch, (pixels, faults) in zip(batches, read, strict=True):
            answers = iter(self.rank(self.probabilities(pixels), top) if len(pixels) else [])
            yield [Fault(path, faults[path]) if path in faults else (path, next(answers)) for path in batch]


@dataclass(frozen=True)
class _Files(Dataset[Any]):
    """Batches of files by their paths: uint8 (n, 3, height, width) of those that can be read, path -> fault."""

    transform: EvalTransform

    def __getitem__(self, paths: Sequence[str]) -> tuple[Tensor, dict[str, str]]:
        pixels, faults = [], {}
        for path in paths:
            try:
                pixels.append(self.transform([read_image(Path(path))]))
            except ValueError as error:
                faults[path] = str(error)
        return torch.cat(pixels) if pixels else torch.empty(0, 3, *self.transform.size, dtype=torch.uint8), faults


def _pixels(picture: Any) -> Tensor:
    """A picture as uint8 RGB (3, height, width)."""
    if isinstance(picture, str | PathLike):
        return read_image(Path(picture))
    if hasattr(picture, "convert"):  # of PIL
        picture = np.array(picture.convert("RGB"))
    pixels = torch.from_numpy(picture).permute(2, 0, 1) if isinstance(picture, np.ndarray) else picture
    if not isinstance(pixels, Tensor) or pixels.dtype != torch.uint8 or pixels.ndim != 3 or len(pixels) != 3:
        raise ValueError(
            "a picture must be a file, a PIL image, a uint8 array (height, width, 3) or a uint8 tensor "
            "(3, height, width)"
        )
    return pixels


def load(model: str | PathLike[str], device: str = "auto") -> Model:
    """The trained network of a run folder, an arch.json with its ``model.safetensors`` beside it, or a file of export.

    Args:
        device: where it computes; files of export compute on the CPU.

    Raises:
        ValueError: something is missing or faulty, they do not know the classes and the preprocessing, or a file of
            export is to compute on a GPU.
    """
    path = Path(model)
    if path.is_file() and is_exported(path):
        return _load_exported(path, device)
    if path.is_file() and path.suffix == ".bin":
        raise ValueError(f"{path} is the weights of an OpenVINO network; name the .xml beside it")
    arch_path = arch_beside(path, "a run folder of retrain, its arch.json, or a file of export")
    arch, weights = load_arch(arch_path), arch_path.parent / WEIGHTS
    known = read_trained_on(weights) or arch.trained_on
    if known is None:
        raise ValueError(
            f"{weights} does not say its classes and its preprocessing: an older version wrote it; run retrain again"
        )
    if len(known.class_names) != arch.classes:
        raise ValueError(f"{weights} names {len(known.class_names)} classes, but {arch_path} has {arch.classes}")
    return Model(load_trained(arch, weights), known, arch.image_size, pick_device(device))


def arch_beside(path: Path, accepted: str = "a run folder of retrain, or its arch.json") -> Path:
    """The arch.json of a run folder or a hub folder, or that is given itself.

    Args:
        accepted: what the message says should have been given.

    Raises:
        ValueError: there is none.
    """
    arch_path = path if path.suffix == ".json" else path / "arch.json"
    if not arch_path.is_file():
        raise ValueError(f"{path} holds no trained network; give {accepted}")
    return arch_path


def _load_exported(path: Path, device: str) -> Model:
    if device not in ("auto", "cpu"):
        raise ValueError(f"{path} computes on the CPU: leave device out")
    module, about = open_file(path)
    height, width = about.pop("image_size")
    return Model(module, TrainedOn.from_json(about, str(path)), (height, width), torch.device("cpu"))
