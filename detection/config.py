"""Settings of ``psvit-search detect train`` and ``detect evaluate``. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from psvit.checks import check_at_least, check_choice, check_share
from psvit.detection.data_config import CocoConfig
from psvit.engine.config import PRECISIONS, LoopRecipe
from psvit.retrain.config import TrainedNetworkConfig, TrainNetworkConfig


@dataclass
class DetectRecipe(LoopRecipe):
    """How a detector is trained; the defaults are the usual schedule "1x" of transformers on COCO.

    Attributes:
        min_sizes: pixels of an image's shorter side; of several, one is drawn per image and epoch. Evaluation uses the
            largest.
        max_size: pixels of an image's longer side, at most. The shorter side of a long image shrinks with it.
        flip: probability of a horizontal flip.
        drop_path: drop-path rate of a PSViT's last layer. It rises linearly from 0 over depth.
        box_samples: proposals per image that the box head learns from. At most a quarter of them contain objects, and
            the mask head learns from these.
    """

    epochs: int = 12
    batch_size: int = 16
    lr: float = 1e-4
    warmup_epochs: float = 0.1
    decay_epochs: list[float] | None = field(default_factory=lambda: [8.0, 11.0])
    compile: str = "false"
    min_sizes: list[int] = field(default_factory=lambda: [800])
    max_size: int = 1333
    flip: float = 0.5
    drop_path: float = 0.1
    box_samples: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "min_sizes", "box_samples", prefix="recipe.")
        check_share(self, "flip", prefix="recipe.")
        check_share(self, "drop_path", prefix="recipe.", one=False)
        if not self.min_sizes:
            raise ValueError("recipe.min_sizes is []; give pixels of the shorter side, as [800]")
        if self.max_size < max(self.min_sizes):
            raise ValueError(f"recipe.max_size is {self.max_size}, less than the shorter side {max(self.min_sizes)}")


@dataclass
class HeadConfig:
    """Sizes of a Mask R-CNN behind its backbone; the defaults are torchvision's.

    Attributes:
        fpn_channels: channels of each level of the feature pyramid.
        box_width: width of the box head's two linear layers.
        mask_layers: convolutions of the mask head.
        mask_width: channels of these convolutions.
        proposals: regions per image that the heads look at; twice as many in training.
    """

    fpn_channels: int = 256
    box_width: int = 1024
    mask_layers: int = 4
    mask_width: int = 256
    proposals: int = 1000

    def __post_init__(self) -> None:
        check_at_least(self, 1, *vars(self), prefix="heads.")


@dataclass
class DetectTrainConfig(TrainNetworkConfig):
    """Settings of ``psvit-search detect train``.

    Attributes:
        arch: backbone: an arch.json, a name (``psvit_2d_tiny_8``), or ``torchvision:resnet50``.
        start: weights of the backbone as a classifier, a model.safetensors of ``retrain``; None starts from scratch.
        watch: measure average precision after each epoch, too. On COCO that takes long.
        heads: sizes of the heads.
        data: dataset in COCO's format.
        recipe: training recipe.
    """

    watch: bool = False
    heads: HeadConfig = field(default_factory=HeadConfig)
    data: CocoConfig = field(default_factory=CocoConfig)
    recipe: DetectRecipe = field(default_factory=DetectRecipe)


@dataclass
class DetectEvaluateConfig(TrainedNetworkConfig):
    """Settings of ``psvit-search detect evaluate``.

    Attributes:
        arch: backbone, as for ``detect train``, whose run folder has its arch.json.
        weights: the detector's weights, a model.safetensors of ``detect train``. Its header knows all sizes.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        precision: ``fp32``, ``bf16`` or ``fp16`` autocast, or ``auto`` for bf16 on a GPU and fp32 on a CPU.
        save: draw some images and what was found in them into this .png or .svg file.
        data: dataset in COCO's format.
    """

    precision: str = "auto"
    save: str | None = None
    data: CocoConfig = field(default_factory=CocoConfig)

    def __post_init__(self) -> None:
        check_choice(self, PRECISIONS, "precision")
