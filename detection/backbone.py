"""Feature pyramids (arXiv 1612.03144): what a detector sees of a PSViT-2D or a ResNet.

Shapes: B images, F channels of the pyramid; a level of stride s has maps of (height / s) x (width / s).
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import ResNet, get_model
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from psvit.archfile import ArchFile
from psvit.model import PSViT
from psvit.networks import Network, find_network
from psvit.retrain.start import start_from

RESNETS = ("torchvision:resnet18", "torchvision:resnet34", "torchvision:resnet50", "torchvision:resnet101")
_EXAMPLES = "2d_tiny_8:LAYERS, psvit_2d_tiny_8, an arch.json of a 2d space"
_LEARNING = ("layer2", "layer3", "layer4")  # of a frozen ResNet


class PyramidBackbone(nn.Module):
    """The stages of a PSViT-2D as a feature pyramid: a norm and a lateral map for each, and two coarser levels on top.

    The norm of the last stage is the network's own final one; the others are new.

    Args:
        network: a PSViT-2D; it becomes a part of this module, without its head.
        channels: F.

    Attributes:
        out_channels: F.
        strides: of each level, ``(8, 16, 32, 64, 128)`` for three stages and patches of 8 px.
        lateral_levels: how many of the levels have a lateral map; those above are every second value of the one below.
        body: the network.
    """

    def __init__(self, network: PSViT, channels: int) -> None:
        super().__init__()
        spec = network.spec
        self.out_channels = channels
        self.strides = tuple(spec.patch_size * 2**level for level in range(spec.stages + 2))
        self.lateral_levels = spec.stages
        new = [nn.LayerNorm(width, eps=1e-6) for width in spec.widths[:-1]]
        self.norms = nn.ModuleList([*new, network.norm])
        network.norm = nn.Identity()  # type: ignore[assignment]
        network.reset_classifier(0)
        network.keep_factors()  # a written-out map of a large image would not fit into memory
        self.body = network
        self.fpn = FeaturePyramidNetwork([*spec.widths], channels, _TwoOnTop())

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Images (B, 3, height, width) -> maps (B, F, height / s, width / s) named "0", "1", ..., "pool", "pool2"."""
        maps = OrderedDict()
        for level, (norm, features) in enumerate(zip(self.norms, self.body.stage_maps(images), strict=True)):
            maps[str(level)] = norm(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous()
        return self.fpn(maps)


class _TwoOnTop(ExtraFPNBlock):  # type: ignore[misc]  # torchvision has no types
    """Two levels more, so that a pyramid that begins at stride 8 ends where a ResNet's anchors do, at 512 px."""

    def forward(self, results: list[Tensor], x: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        """As torchvision's ``LastLevelMaxPool``, twice."""
        coarser = F.max_pool2d(results[-1], 1, stride=2)
        return [*results, coarser, F.max_pool2d(coarser, 1, stride=2)], [*names, "pool", "pool2"]


def find_backbone(text: str) -> Network:
    """The network that a text names, as :func:`psvit.networks.find_network`, if a detector can stand on it.

    Raises:
        ValueError: nothing has this name; a network without feature maps, a PSViT-1D or a DeiT; or one of torchvision's
            that is not supported.
    """
    network = find_network(text)
    if isinstance(network, ArchFile):
        if network.spec.kind != "2d":
            raise ValueError(
                f"{text} is a 1d network: it pools its tokens as a sequence, so no grid is left, but a detector "
                f"needs feature maps; use a 2d network: {_EXAMPLES}"
            )
    elif network.name not in RESNETS:
        raise ValueError(f"{text} cannot be a detector's backbone; use {_EXAMPLES}, or {', '.join(RESNETS)}")
    return network


def make_backbone(
    network: Network, channels: int, drop_path: float = 0.0, start: Path | None = None, frozen: bool = False
) -> nn.Module:
    """A feature pyramid on a network, which starts from a classifier's weights or from random ones.

    Args:
        network: of :func:`find_backbone`, of any number of classes.
        drop_path: of a PSViT; a ResNet has none.
        start: its model.safetensors; the head is dropped.
        frozen: a ResNet's batch norm and its first layers do not learn, as in torchvision's detectors that start from
            weights; those from scratch learn in all parts. A PSViT always does.

    Returns:
        A module with ``out_channels``, ``strides``, one for each level, and ``lateral_levels``.

    Raises:
        ValueError: weights of another network.
    """
    model = network.build(drop_path)
    if start is not None:
        start_from(start, model, network.classes, adapt=True)
    if isinstance(model, PSViT):
        return PyramidBackbone(model, channels)
    assert isinstance(model, ResNet)
    if frozen:
        learned = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("fc.")}
        model = get_model(network.name.removeprefix("torchvision:"), norm_layer=FrozenBatchNorm2d)
        model.load_state_dict(learned, strict=False)  # all but the head
        for name, weight in model.named_parameters():
            weight.requires_grad_(name.startswith(_LEARNING))
    widths = [model.inplanes >> 3 - stage for stage in range(4)]
    names = {f"layer{stage + 1}": str(stage) for stage in range(4)}
    backbone = BackboneWithFPN(model, names, widths, channels)
    backbone.strides = tuple(4 * 2**level for level in range(5))
    backbone.lateral_levels = 4
    return backbone
