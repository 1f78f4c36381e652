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
        teacher: ``torchvision:regnet_y_16gf``, ``timm:regnety_160.deit_in1k``, or the path of an arch.json of ours;
            None learns from the labels alone.
        weights: file of the teacher's weights: safetensors, or one of torch that holds tensors only. None: the
            library's own pretrained weights, which it downloads, or the model.safetensors beside the arch.json.
        mode: ``hard`` learns the class that the teacher decides for, ``soft`` its probabilities.
        alpha: share of the teacher in the loss, the rest is the labels'; None is DeiT's: 0.5 if hard, 0.1 if soft.
        temperature: of both networks' probabilities, if soft.
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
            raise ValueError("distill.weights is given, but no teacher; say distill.teacher=... as well")


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
        arch: the network to train: an arch.json, a name such as ``deit_tiny_16`` or ``1d_tiny_16:BSB-BB-B``, or one of
            torchvision's, ``torchvision:resnet18``. A name takes classes and image size from the data.
        start: weights of this very network to start from, a safetensors file; None starts from scratch.
        adapt: take classes and image size from the data where they differ from arch.json's, instead of refusing; a
            head of other classes in ``start`` is made anew.
        hold_out: keep the search split out of training; by default all that is not test trains the network.
        distill: a teacher to learn from, beside the labels.
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
        arch: the network: an arch.json, or a name as for ``retrain``.
        weights: its model.safetensors.
        split: ``test``, ``search`` or ``train``.
        batch_size: images a forward pass.
    """

    split: str = "test"
    batch_size: int = 256
    data: DataConfig = field(default_factory=DataConfig)

    def __post_init__(self) -> None:
        check_choice(self, SPLITS, "split")
        check_at_least(self, 1, "batch_size")
