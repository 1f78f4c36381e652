"""supernet.safetensors: a trained supernet, its space, and the data and split that it was trained on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from psvit.archfile import parse_network
from psvit.data.config import DataConfig
from psvit.data.data import Data, open_data
from psvit.data.record import DataRecord
from psvit.preprocessing import TrainedOn
from psvit.run.files import sha256
from psvit.supernet.space import SearchSpace
from psvit.supernet.supernet import Supernet
from psvit.weights import load_weights, read_about, save_weights

WEIGHTS = "supernet.safetensors"


@dataclass(frozen=True)
class TrainedSupernet:
    """A supernet on file; its weights are not read before :meth:`load`.

    Attributes:
        path: the file.
        space: what it was trained to hold.
        data: the settings of the data it was trained on.
        search_split: the record of the images that were held out to score architectures.
        record: what the data were.
        trained_on: names of its classes and preprocessing of its images.
        seed: of its training.
        weights: ``separate`` or ``entangled``.
        sampling: how the paths were drawn that it was trained on.
    """

    path: Path
    space: SearchSpace
    data: DataConfig
    search_split: dict[str, Any]
    record: DataRecord
    trained_on: TrainedOn
    seed: int
    weights: str
    sampling: str

    @classmethod
    def open(cls, run: Path) -> TrainedSupernet:
        """The supernet of a run folder of ``train-supernet``, or a file of weights.

        Raises:
            ValueError: there is none, or the file is cut short or no supernet.
        """
        path = run / WEIGHTS if run.is_dir() else run
        if not path.is_file():
            unfinished = (run / "checkpoint.pt").exists()
            what = "its training has not finished; resume it with" if unfinished else "train one first with"
            raise ValueError(f"{run}: holds no trained supernet; {what} psvit-search train-supernet")
        about = read_about(path)
        try:
            space = SearchSpace(parse_network(about["spec"]), about["cells"])
            data = DataConfig(**about["data"])
            record = DataRecord.from_json(about["data_record"], "$.data_record")
            known = TrainedOn.from_json(about["trained_on"], "$.trained_on")
            rest = (about[key] for key in ("seed", "weights", "sampling"))
            return cls(path, space, data, about["search_split"], record, known, *rest)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: is not a supernet of this version ({error}); give the run of train-supernet"
            ) from None

    def load(self) -> Supernet:
        """The supernet with its weights, on the CPU, in eval mode.

        Raises:
            ValueError: the weights are not those of the space.
        """
        supernet = Supernet(self.space.spec, self.space.cells, weights=self.weights)
        load_weights(self.path, supernet)
        return supernet.eval()

    def open_data(self, root: str | None, workers: int) -> Data:
        """The data that it was trained on, with the search split that was held out then.

        Args:
            root: where the images are now; None where they were.
            workers: loader processes.

        Raises:
            ValueError: the images, and so the split, are not those of the training.
        """
        config = replace(self.data, root=root or self.data.root, workers=workers)
        data = open_data(config)
        if changed := self.record.changes(data.record()):
            where = f" in {config.root}" if config.root else ""
            raise ValueError(
                f"{config.name}{where} is not what {self.path} was trained on: {'; '.join(changed)}; give the original "
                "folder as data_root=, or train a supernet on these images"
            )
        return data

    def check_placements(self, placements: int) -> None:
        """Refuse to score on random placements what has learned canonical paths only.

        Raises:
            ValueError: it has.
        """
        if placements and self.sampling.startswith("canonical"):
            raise ValueError(
                f"{self.path}: was trained with sampling={self.sampling}, so it knows canonical paths only: leave "
                "placements at 0, or train a supernet with sampling=uniform"
            )

    def sha256(self) -> str:
        """SHA-256 of the file, which is read for it; names the supernet in results."""
        return sha256(self.path)


def save_supernet(path: Path, supernet: Supernet, space: SearchSpace, about: dict[str, Any]) -> None:
    """Write a supernet's weights; ``about`` holds its data settings, search split, seed and sampling."""
    save_weights(
        path, supernet, {"spec": asdict(space.spec), "cells": space.cells, "weights": supernet.weights, **about}
    )
