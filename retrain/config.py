"""Settings of ``psvit-search retrain`` and ``evaluate``. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from psvit.data.config import DataConfig
from psvit.engine.config import Recipe, RunConfig

SPLITS = ("test", "search", "train")


@dataclass
class RetrainConfig(RunConfig):
    """Settings of ``psvit-search retrain``.

    Attributes:
        arch: the arch.json to train from scratch.
        adapt: take classes and image size from the data where they differ from arch.json's, instead of refusing.
        hold_out: keep the search split out of training; by default all that is not test trains the network.
    """

    arch: str = "???"
    adapt: bool = False
    hold_out: bool = False
    data: DataConfig = field(default_factory=DataConfig)
    recipe: Recipe = field(default_factory=Recipe)


@dataclass
class EvaluateConfig:
    """Settings of ``psvit-search evaluate``.

    Attributes:
        arch: the network's arch.json.
        weights: its model.safetensors.
        split: ``test``, ``search`` or ``train``.
        batch_size: images a forward pass.
    """

    arch: str = "???"
    weights: str = "???"
    split: str = "test"
    batch_size: int = 256
    device: str = "auto"
    data: DataConfig = field(default_factory=DataConfig)

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"split is {self.split!r}; use one of {', '.join(SPLITS)}")
