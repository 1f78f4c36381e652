"""Mask R-CNN (arXiv 1703.06870) on a feature pyramid: torchvision's, with sizes of ours and anchors by stride."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper

from psvit.data.images import IMAGENET_MEAN, IMAGENET_STD
from psvit.detection.backbone import PyramidBackbone, make_backbone
from psvit.detection.config import DetectRecipe, HeadConfig
from psvit.model import PSViT
from psvit.networks import Network
from psvit.weights import read_trained_on

Target = dict[str, Any]
_RATIOS = (0.5, 1.0, 2.0)  # height / width of anchors


class Detector(MaskRCNN):  # type: ignore[misc]  # torchvision has no types
    """Finds objects: their boxes, classes and masks.

    In training ``detector(images, targets)`` gives the losses of Mask R-CNN by name; in eval mode ``detector(images)``
    gives a dict for each image: ``boxes`` (n, 4) as x1, y1, x2, y2 in pixels, ``labels`` (n,) from 1, ``scores`` (n,)
    and ``masks`` (n, 1, height, width), probabilities. Images are float32 (3, height, width), 0 to 1, of any sizes; a
    target has ``boxes``, ``labels`` and ``masks`` (n, height, width), and ``short_side``, the pixels that the image's
    shorter side is to have in training.

    Args:
        backbone: a feature pyramid with ``out_channels``, ``strides`` and ``lateral_levels``.
        classes: kinds of objects, without the background.
        heads: sizes.
        min_size, max_size: pixels of an image's shorter side, and of its longer side at most.
        box_samples: proposals an image that the box head learns from.
        mean, std: of the images that the backbone has learned from.
    """

    def __init__(
        self,
        backbone: nn.Module,
        classes: int,
        heads: HeadConfig,
        min_size: int,
        max_size: int,
        box_samples: int = 512,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        channels, strides = heads.fpn_channels, _strides(backbone)
        lateral = strides[: int(backbone.lateral_levels)]  # type: ignore[arg-type]
        super().__init__(
            backbone,
            rpn_anchor_generator=_anchors(strides, len(lateral)),
            rpn_pre_nms_top_n_train=2 * heads.proposals,
            rpn_pre_nms_top_n_test=heads.proposals,
            rpn_post_nms_top_n_train=2 * heads.proposals,
            rpn_post_nms_top_n_test=heads.proposals,
            box_roi_pool=_crops(lateral, 7),
            box_head=TwoMLPHead(channels * 7 * 7, heads.box_width),
            box_predictor=FastRCNNPredictor(heads.box_width, classes + 1),
            box_batch_size_per_image=box_samples,
            mask_roi_pool=_crops(lateral, 14),
            mask_head=MaskRCNNHeads(channels, [heads.mask_width] * heads.mask_layers, 1),
            mask_predictor=MaskRCNNPredictor(heads.mask_width, heads.mask_width, classes + 1),
        )
        coarsest = lateral[-1]  # a level above it is every second value, at any size
        self.transform = _Transform(
            min_size, max_size, [*mean], [*std], size_divisible=coarsest * math.ceil(32 / coarsest)
        )
        for answers in (self.rpn.head, self.roi_heads.box_predictor, self.roi_heads.mask_predictor):
            answers.register_forward_hook(_in_float32)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """In training, keep only what enters each layer of the backbone.

        Raises:
            ValueError: the backbone is no PSViT.
        """
        self._psvit("recipe.checkpoint_activations=false").set_grad_checkpointing(enable)

    def compile_layers(self, backend: str = "inductor") -> None:
        """Compile the layers of the backbone.

        Raises:
            ValueError: the backbone is no PSViT.
        """
        self._psvit("recipe.compile=false").compile_layers(backend)

    def layer_depths(self) -> dict[str, int]:
        """Depth of each parameter for layer-wise learning rates: all but the network itself is above its last layer.

        Raises:
            ValueError: the backbone is no PSViT.
        """
        depths = self._psvit("recipe.layer_decay=null").layer_depths()
        top = max(depths.values()) + 1  # the network has no norm and head left
        names = (name for name, _ in self.named_parameters())
        return {name: depths.get(name.removeprefix("backbone.body."), top) for name in names}

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay leaves alone, beside biases and norms."""
        if not isinstance(self.backbone, PyramidBackbone):
            return set()
        return {f"backbone.body.{name}" for name in self.backbone.body.no_weight_decay()}

    def _psvit(self, without: str) -> PSViT:
        if not isinstance(self.backbone, PyramidBackbone):
            raise ValueError(f"only a PSViT backbone can do this; say {without}")
        return self.backbone.body


def make_detector(
    network: Network, classes: int, heads: HeadConfig, recipe: DetectRecipe, start: Path | None = None
) -> Detector:
    """A detector to be trained, with random weights or with a classifier's in its backbone.

    Raises:
        ValueError: weights of another network, or images smaller than its patches.
    """
    backbone = make_backbone(network, heads.fpn_channels, recipe.drop_path, start, frozen=start is not None)
    patch, smallest = _strides(backbone)[0], min(recipe.min_sizes)
    if smallest < patch:
        raise ValueError(
            f"recipe.min_sizes={recipe.min_sizes}: {smallest} px is less than a patch of {network.name}, {patch} px; "
            "use larger images"
        )
    known = None if start is None else read_trained_on(start)
    colours = (IMAGENET_MEAN, IMAGENET_STD) if known is None else (known.preprocessing.mean, known.preprocessing.std)
    return Detector(backbone, classes, heads, max(recipe.min_sizes), recipe.max_size, recipe.box_samples, *colours)


def _strides(backbone: nn.Module) -> tuple[int, ...]:
    strides: Any = backbone.strides
    return tuple(strides)


def _anchors(strides: Sequence[int], lateral_levels: int) -> AnchorGenerator:
    """Boxes of three shapes around each place of each level, 8 strides large on four stages and 4 on three.

    A PSViT-2D with patches of 8 px has one stage fewer than a ResNet and begins at twice its stride: so both have the
    same anchors, of 32 to 512 px.
    """
    times = 2 ** (lateral_levels - 1)
    return _Anchors(tuple((times * stride,) for stride in strides), (_RATIOS,) * len(strides))


def _crops(levels: Sequence[int], side: int) -> MultiScaleRoIAlign:
    """What cuts regions out of the levels of these strides, at ``side`` x ``side`` values.

    torchvision would take the scales from the first batch, which a very narrow image leads astray.
    """
    crops = MultiScaleRoIAlign([str(level) for level in range(len(levels))], side, sampling_ratio=2)
    crops.scales = [1 / stride for stride in levels]
    crops.map_levels = LevelMapper(int(math.log2(levels[0])), int(math.log2(levels[-1])))
    return crops


class _Anchors(AnchorGenerator):  # type: ignore[misc]
    """Anchors in float32, also where the maps are not: between 512 and 1024 bfloat16 knows every fourth pixel only."""

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        anchors: list[Tensor] = super().forward(image_list, [features[:1, :1].float() for features in feature_maps])
        return anchors


def _in_float32(module: nn.Module, given: Any, made: Any) -> Any:
    """What a head answers, in float32 under autocast too: boxes take the type of what moves them."""
    return made.float() if isinstance(made, Tensor) else type(made)(_in_float32(module, given, each) for each in made)


class _Transform(GeneralizedRCNNTransform):  # type: ignore[misc]
    """Images of a batch normalised, resized and padded; boxes and masks with them.

    torchvision's, but each training image is told its size, which else would depend on what was drawn before, and no
    side becomes less than a pixel.
    """

    def resize(self, image: Tensor, target: Target | None = None) -> tuple[Tensor, Target | None]:
        before = image.shape[-2:]
        short = self.min_size[-1] if target is None else target.get("short_side", self.min_size[-1])
        scale = min(short / min(before), self.max_size / max(before))
        after = [max(1, int(side * scale)) for side in before]
        image = F.interpolate(image[None], after, mode="bilinear", align_corners=False)[0]
        if target is not None:
            target["boxes"] = resize_boxes(target["boxes"], before, after)
            masks = target["masks"][:, None].to(torch.uint8)
            target["masks"] = F.interpolate(masks, after)[:, 0] if len(masks) else masks.new_zeros(0, *after)
        return image, target
