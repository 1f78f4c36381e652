"""What the paper prints: every figure of its tables, for rows of ours to stand beside. No torch.

Chen et al., "PSViT: Better Vision Transformer via Token Pooling and Attention Sharing", arXiv 2108.03428. Parameters
(in millions) and FLOPs (multiply-adds, in billions) are text, as printed: "1.3" is all from 1.25 to 1.35. Accuracies
are top-1 on ImageNet-1k's validation images, in percent. A row that is ours alone has no figure and says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal

from psvit.units import Band


@dataclass(frozen=True)
class Published:
    """A row of a table of networks.

    Attributes:
        label: the paper's name of it.
        network: ours, as :func:`psvit.networks.find_network` takes it.
        params, flops: as printed, in millions and billions; None where the table has no such column.
        top1: in percent.
        rerun: top-1 of the paper's own training of it under its recipe, its starred rows.
        widths, heads, tokens: of the three stages, where they are printed.
    """

    label: str
    network: str | None
    params: str | None
    flops: str | None
    top1: float | None
    rerun: float | None = None
    widths: tuple[int, ...] = ()
    heads: tuple[int, ...] = ()
    tokens: tuple[int, ...] = ()


@dataclass(frozen=True)
class Ablation:
    """A row of an ablation.

    Attributes:
        label: what differs from DeiT-Tiny.
        variant: what :mod:`psvit.zoo` calls it behind ``deit_tiny_16_``; ``none`` is DeiT-Tiny itself; ``search_1d``
            and ``search_2d`` are what a search finds.
        top1: in percent; None in a row of ours.
        note: what a reader should know of the row.
        widths, depths: token width and number of layers of each stage, where they are printed.
    """

    label: str
    variant: str
    top1: float | None
    note: str = ""
    widths: tuple[int, ...] = ()
    depths: tuple[int, ...] = ()

    @property
    def network(self) -> str | None:
        """The named network at the paper's scale; None where a search finds it."""
        if self.variant.startswith("search_"):
            return None
        return ABLATED if self.variant == "none" else f"{ABLATED}_{self.variant}"


@dataclass(frozen=True)
class Detection:
    """A row of the table of detectors, Mask R-CNN with an FPN on COCO 2017.

    Attributes:
        label: the paper's name of the backbone.
        network: ours, as :func:`psvit.networks.find_network` takes it.
        box, mask: AP, AP50, AP75, AP of small, of medium and of large objects, in percent.
    """

    label: str
    network: str | None
    box: tuple[float, ...]
    mask: tuple[float, ...]


AP_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl")

CONFIGURATIONS: tuple[Published, ...] = (
    Published(
        "PSViT-1D-Tiny/8",
        "psvit_1d_tiny_8",
        *("3.8", "1.5", 72.71),
        widths=(64, 144, 192),
        heads=(1, 3, 3),
        tokens=(785, 393, 197),
    ),
    Published(
        "PSViT-1D-Tiny/16",
        "psvit_1d_tiny_16",
        *("15.6", "1.3", 77.40),
        widths=(192, 288, 384),
        heads=(3, 6, 6),
        tokens=(197, 99, 50),
    ),
    Published(
        "PSViT-1D-Small/8",
        "psvit_1d_small_8",
        *("13.9", "4.9", 80.70),
        widths=(144, 256, 384),
        heads=(3, 4, 6),
        tokens=(785, 393, 197),
    ),
    Published(
        "PSViT-1D-Small/16",
        "psvit_1d_small_16",
        *("53.8", "4.0", 78.32),
        widths=(288, 512, 768),
        heads=(6, 8, 12),
        tokens=(197, 99, 50),
    ),
)
"""The configurations of PSViT-1D: patches of 8 and 16 pixels at 224 pixels; tokens count the class token."""

IMAGENET: tuple[Published, ...] = (
    Published("ResNet18", "torchvision:resnet18", None, "1.8", 69.8, rerun=68.5),
    Published("DeiT-Tiny", "deit_tiny_16", None, "1.3", 72.2),
    Published("PSViT-1D-Tiny", "psvit_1d_tiny_16", None, "1.4", 77.4),
    Published("PSViT-2D-Tiny", "psvit_2d_tiny_8", None, "1.3", 78.8),
    Published("ResNet50", "torchvision:resnet50", None, "4.1", 76.1, rerun=78.5),
    Published("ResNeXt50-32x4d", "torchvision:resnext50_32x4d", None, "4.3", 77.6, rerun=79.1),
    Published("DeiT-Small", "deit_small_16", None, "4.6", 79.6),
    Published("PSViT-1D-Small", "psvit_1d_small_8", None, "4.9", 80.7),
    Published("PSViT-2D-Small", "psvit_2d_small_8", None, "4.4", 81.6),
    Published("ResNeXt101-64x4d", "torchvision:resnext101_64x4d", None, "15.6", 79.6, rerun=81.5),
    Published("ViT-Base", "vit_base_16", None, "17.6", 77.9),
    Published("DeiT-Base", "deit_base_16", None, "17.6", 81.8),
    Published("PSViT-1D-Base", "psvit_1d_base_8", None, "18.9", 82.6),
    Published("PSViT-2D-Base", "psvit_2d_base_8", None, "15.5", 82.9),
)
"""The comparison on ImageNet-1k; rows with a re-run are those that the paper trained again itself, and stars. Of the
patch sizes only their FLOPs tell: Tiny is the /16 of the configurations and Small the /8; Base is taken as /8, too."""

ABLATED = "deit_tiny_16"
"""The network that is ablated."""

ABLATION_FLOPS = "1.3"
"""All ablations are said to cost as much, in billions of multiply-adds."""

ABLATIONS: dict[str, tuple[Ablation, ...]] = {
    "components": (
        Ablation("none: DeiT-Tiny", "none", 72.2),
        Ablation("attention sharing", "sharing_2", 73.8),
        Ablation("token pooling, 1D", "wider", 76.3),
        Ablation("token pooling, 2D", "2d_pooling", 76.7),
        Ablation("sharing and pooling, 1D", "both", None, "ours; the paper has no such row"),
        Ablation("sharing and pooling, 2D", "2d_both", None, "ours; the paper has no such row"),
        Ablation("all with search, 1D", "search_1d", 77.4),
        Ablation("all with search, 2D", "search_2d", 78.8),
    ),
    "pooling": (
        Ablation(
            "deeper: widths 192, 192, 192",
            "deeper",
            75.0,
            "4, 8 and 20 layers",
            widths=(192, 192, 192),
            depths=(4, 8, 20),
        ),
        Ablation(
            "wider: widths 192, 288, 384",
            "wider",
            76.3,
            "4, 4 and 4 layers; the paper prints 192, 256, 384, which count 1.16 G; with 288 it is 1.25 G",
            depths=(4, 4, 4),
        ),
        Ablation(
            "wider: widths 192, 256, 384",
            "wider_256",
            76.3,
            "4, 4 and 4 layers; the same row of the paper, with the widths that it prints",
            widths=(192, 256, 384),
            depths=(4, 4, 4),
        ),
    ),
    "sharing": (
        Ablation("none: DeiT-Tiny", "none", 72.2),
        Ablation("every 2 layers share a map", "sharing_2", 73.8, "layers are added to hold 1.3 G"),
        Ablation("every 3 layers share a map", "sharing_3", 73.1, "layers are added to hold 1.3 G"),
    ),
    "pooling_kind": (
        Ablation("convolution", "wider", 76.3),
        Ablation("maximum, then a linear map", "max", None, "ours; no figure of the paper is known to us"),
        Ablation("average, then a linear map", "average", None, "ours; no figure of the paper is known to us"),
    ),
}
"""The ablations on DeiT-Tiny: what each component adds, two ways to spend what pooling saves, how many layers share a
map, and how tokens are pooled."""

DETECTION: tuple[Detection, ...] = (
    Detection(
        "ResNet18",
        "torchvision:resnet18",
        (34.8, 56.3, 37.5, 20.1, 37.0, 45.2),
        (32.8, 53.4, 34.8, 17.4, 25.1, 44.7),  # 25.1 is as printed, perhaps a slip
    ),
    Detection(
        "ResNet50",
        "torchvision:resnet50",
        (38.3, 60.4, 41.4, 23.3, 41.6, 48.9),
        (35.5, 57.2, 37.8, 19.6, 38.6, 47.7),
    ),
    Detection(
        "ResNet101",
        "torchvision:resnet101",
        (39.5, 61.3, 43.0, 23.4, 42.7, 51.1),
        (36.5, 58.2, 39.1, 19.6, 39.7, 49.4),
    ),
    Detection(
        "PSViT-2D-Tiny",
        "psvit_2d_tiny_8",
        (40.8, 64.7, 44.0, 25.3, 43.8, 53.9),
        (37.7, 60.1, 39.9, 21.2, 40.6, 52.8),
    ),
)
"""Detection and segmentation on COCO 2017: Mask R-CNN with an FPN on each backbone."""


def printed_band(text: str, unit: int) -> Band:
    """All whole amounts that round to what is printed, in units of 10^6 or 10^9; a half goes either way.

    ``printed_band("1.3", 10**9)`` is 1,250,000,000 to 1,350,000,000.
    """
    value = Decimal(text)
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int), f"{text!r} is not a number"
    half = Decimal(1).scaleb(exponent) / 2
    return Band(math.ceil((value - half) * unit), math.floor((value + half) * unit))
