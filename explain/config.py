"""Settings of ``psvit-search explain``. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from psvit.data.config import DataConfig
from psvit.retrain.config import SPLITS


@dataclass
class ExplainConfig:
    """Settings of ``psvit-search explain``.

    Attributes:
        runs: folder of all runs.
        name: name of the project; its runs are in ``runs/NAME/``.
        arch: network: an arch.json, a name (``deit_tiny_16``, ``1d_tiny_16:BSB-BB-B``), or ``torchvision:resnet18``.
        weights: its trained weights, a model.safetensors.
        versus: second network to compare with.
        versus_weights: its trained weights, a model.safetensors.
        split: images to look at: ``test``, ``search`` or ``train``.
        images: images to average the similarity over, drawn with the classes in proportion. All, where the split has
            fewer.
        pictures: image files for Grad-CAM, such as ``[a.jpg,b.jpg]``; by default the first eight of these images.
        save: folder for tables and plots.
        seed: random seed of the choice of images.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        data: dataset to take the images from.
    """

    runs: str = "runs"
    name: str = "default"
    arch: str = "???"
    weights: str = "???"
    versus: str | None = None
    versus_weights: str | None = None
    split: str = "test"
    images: int = 64
    pictures: list[str] = field(default_factory=list)
    save: str = "???"
    seed: int = 0
    device: str = "auto"
    data: DataConfig = field(default_factory=DataConfig)

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"split is {self.split!r}; use one of {', '.join(SPLITS)}")
        if self.images < 2:
            raise ValueError(f"images is {self.images}; use 2 or more: one image is compared with others")
        if self.versus is not None and self.versus_weights is None:
            raise ValueError(f"versus is {self.versus}, but its weights are not given; add --versus-weights FILE")
        if self.versus is None and self.versus_weights is not None:
            raise ValueError(f"versus_weights is {self.versus_weights}; say which network they are of: --versus NET")
