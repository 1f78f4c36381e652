"""Settings of ``psvit-search retrain`` and ``evaluate``. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from psvit.checks import check_above, check_at_least, check_choice, check_share
from psvit.data.config import DataConfig
from psvit.engine.config import Recipe, TrainConfig

SPLITS = ("test", "search", "train")
MODES = ("hard", "soft")


@dataclass
class DistillConfig:
    """Distillation (DeiT, arXiv 2012.12877, section 4): the network learns from a trained teacher as well.

    Attributes:
        teacher: network to learn from as well: ``torchvision:regnet_y_16gf``, ``timm:regnety_160.deit_in1k``, or an
            arch.json; None learns from the labels alone.
        weights: file of the teacher's weights; None downloads those of its library, or takes the model.safetensors next
            to the arch.json. Safetensors, or a file of torch that holds tensors only.
        mode: learn the class that the teacher predicts (``hard``), or its probabilities (``soft``).
        alpha: share of the teacher in the loss; None is DeiT's, 0.5 if hard and 0.1 if soft.
        temperature: temperature of both networks' probabilities, if soft.
    """

    teacher: str | None = None
    weights: str | None = None
    mode: str = "hard"
    alpha: float | None = None
    temperature: float = 3.0

    def __post_init__(self) -> None:
        check_choice(self, MODES, "mode", prefix="distill.")
        check_share(self, "alpha", prefix="distill.")
        check_above(self, 0, "temperature", prefix="distill.")
        if self.weights is not None and self.teacher is None:
            raise ValueError("distill.weights is given, but no teacher; give distill.teacher=... as well")


@dataclass
class TrainNetworkConfig(TrainConfig):
    """What every command that trains one network has.

    Attributes:
        arch: the network, or the backbone of a detector.
        start: weights to start from, a safetensors file; None starts from scratch.
    """

    arch: str = "???"
    start: str | None = None


@dataclass
class TrainedNetworkConfig:
    """What every command that looks at a trained network has.

    Attributes:
        arch: the network, or the backbone of a detector.
        weights: its trained weights, a safetensors file.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
    """

    arch: str = "???"
    weights: str = "???"
    device: str = "auto"


@dataclass
class RetrainConfig(TrainNetworkConfig):
    """Settings of ``psvit-search retrain``.

    Attributes:
        arch: network to train: an arch.json, a name (``deit_tiny_16``, ``1d_tiny_16:BSB-BB-B``), or
            ``torchvision:resnet18``. A name takes classes and image size from the data.
        start: weights of this network to start from, a safetensors file; None starts from scratch.
        adapt: take classes and image size from the data where they differ from those of arch.json. The head of other
            classes in ``start`` is then initialised anew. Otherwise a difference is refused.
        hold_out: keep the search split out of training. By default everything but the test split trains the network.
        distill: teacher to learn from, in addition to the labels.
        data: dataset to train and test on.
        recipe: training recipe; that of the dataset, or of ``imagefolder`` if it has none.
    """

    adapt: bool = False
    hold_out: bool = False
    distill: DistillConfig = field(default_factory=DistillConfig)
    data: DataConfig = field(default_factory=DataConfig)
    recipe: Recipe = field(default_factory=Recipe)

    @property
    def split(self) -> str:
        """The images that the network learns from."""
        return "train" if self.hold_out else "train+search"


@dataclass
class EvaluateConfig(TrainedNetworkConfig):
    """Settings of ``psvit-search evaluate``.

    Attributes:
        arch: network: an arch.json, a name (``deit_tiny_16``, ``1d_tiny_16:BSB-BB-B``), or ``torchvision:resnet18``.
        weights: its trained weights, a model.safetensors.
        split: images to score on: ``test``, ``search`` or ``train``.
        batch_size: images per forward pass.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        data: dataset to score on.
    """

    split: str = "test"
    batch_size: int = 256
    data: DataConfig = field(default_factory=DataConfig)

    def __post_init__(self) -> None:
        check_choice(self, SPLITS, "split")
        check_at_least(self, 1, "batch_size")


@dataclass
class CompareConfig:
    """Settings of ``psvit-search compare``.

    Attributes:
        runs: run folders of retrainings, finished ones. The first one's network is compared with each other; several
            runs of a network, with other seeds, count as one.
        any_recipe: compare networks that were trained by other recipes, too.
        save: folder for the table, the record and a picture; None writes none.
    """

    runs: list[str] = field(default_factory=list)
    any_recipe: bool = False
    save: str | None = None

    def __post_init__(self) -> None:
        if len(self.runs) == 1:
            raise ValueError(f"runs is {self.runs[0]} alone; give two runs of retrain or more")
