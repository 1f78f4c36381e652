"""Settings of ``psvit-search explain``. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from psvit.checks import check_at_least, check_choice
from psvit.data.config import DataConfig
from psvit.retrain.config import SPLITS, TrainedNetworkConfig


@dataclass
class ExplainConfig(TrainedNetworkConfig):
    """Settings of ``psvit-search explain``.

    Attributes:
        runs: folder of all runs.
        name: name of the project; its runs are in ``runs/NAME/``.
        arch: network: an arch.json, a name (``deit_tiny_16``, ``1d_tiny_16:BSB-BB-B``), or ``torchvision:resnet18``.
        weights: its trained weights, a model.safetensors.
        versus: second network to compare with.
        versus_weights: its trained weights, a model.safetensors.
        split: images to look at: ``test``, ``search`` or ``train``.
        num_images: images to average the similarity over, drawn with the classes in proportion. All, where the
            split has fewer.
        pictures: image files for Grad-CAM, such as ``[a.jpg,b.jpg]``; by default the first eight of these images.
        save: folder for tables and plots.
        seed: random seed of the choice of images.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        data: dataset to take the images from.
    """

    runs: str = "runs"
    name: str = "default"
    versus: str | None = None
    versus_weights: str | None = None
    split: str = "test"
    num_images: int = 64
    pictures: list[str] = field(default_factory=list)
    save: str = "???"
    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)

    def __post_init__(self) -> None:
        check_choice(self, SPLITS, "split")
        check_at_least(self, 2, "num_images", why="one image is compared with others")
        if self.versus is not None and self.versus_weights is None:
            raise ValueError(f"versus is {self.versus}, but its weights are not given; add --versus-weights FILE")
        if self.versus is None and self.versus_weights is not None:
            raise ValueError(f"versus_weights is {self.versus_weights}; name their network with --versus NET")
