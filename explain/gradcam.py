"""Grad-CAM (arXiv 1610.02391): where in an image a network finds what speaks for a class. Captum computes it.

For features A (B, D, R, C), a channel's weight is the mean over the positions of the gradient of the class's logit, and
the map (B, R, C) is what of the weighted sum of channels is positive. A convolutional network's features are its last
ones. Ours are the patch tokens as they enter the last layer: behind it, a network that reads out the class token alone
has no gradient at the others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from psvit.arch import NetworkSpec
from psvit.explain.similarity import walk
from psvit.model import PSViT

Array = npt.NDArray[np.float64]

SUPPORTED = "the ResNets: resnet18 to resnet152, resnext*, wide_resnet*"


def captum_attr() -> Any:
    """The module ``captum.attr``.

    Raises:
        ValueError: captum is not installed.
    """
    try:
        import captum.attr
    except ImportError:
        raise ValueError("Grad-CAM needs captum, which is not installed: pip install captum") from None
    return captum.attr


class WithFeatures(nn.Module):
    """A PSViT whose patch tokens pass the module ``features`` as a map (B, D, R, C) on their way into the last layer.

    A grid of tokens is a map of its own; a sequence is one row. The network is frozen, so that no gradient goes back
    further than that.

    Args:
        network: in eval mode.
    """

    def __init__(self, network: PSViT) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.features = nn.Identity()
        rows, columns = network.spec.grids[-1]
        self._grid = rows, columns - network.spec.class_tokens

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, channels, height, width) -> the network's logits (B, classes)."""
        *_, last = walk(self.network, images, self._through_features)
        return self.network.forward_head(self.network.norm(last.tokens))

    def _through_features(self, tokens: Tensor) -> Tensor:
        own, patches = tokens.tensor_split([self.network.spec.class_tokens], dim=1)
        features = self.features(patches.mT.reshape(len(patches), -1, *self._grid).requires_grad_())
        return torch.cat([own, features.flatten(2).mT], dim=1)


def check_supported(module: nn.Module, name: str) -> None:
    """Raise ValueError unless we know which features of a network Grad-CAM is to look at."""
    from torchvision.models import ResNet

    if not isinstance(module, PSViT | ResNet):
        raise ValueError(
            f"{name}: explain supports psvit-search's own networks and, from torchvision, {SUPPORTED}; choose one of "
            "these"
        )


def grad_cam(module: nn.Module, images: Tensor) -> tuple[Tensor, Array]:
    """The logits of images, and the Grad-CAM of each one's most likely class.

    Args:
        module: a PSViT, which is frozen, or a ResNet of torchvision; in eval mode.
        images: (B, channels, height, width), normalised, on the module's device.

    Returns:
        Logits (B, classes); maps (B, R, C) over the whole image, of any grid, nowhere negative.
    """
    attr, wrapped = captum_attr(), WithFeatures(module) if isinstance(module, PSViT) else module
    with torch.no_grad():
        logits: Tensor = wrapped(images)
    method = attr.LayerGradCam(wrapped, wrapped.features if isinstance(module, PSViT) else module.layer4)
    maps: Tensor = method.attribute(images, target=logits.argmax(dim=1), relu_attributions=True)
    array: Array = maps.detach()[:, 0].double().cpu().numpy()
    if isinstance(module, PSViT) and module.spec.kind == "1d":
        array = on_patches(array[:, 0], module.spec, module.spec.stages - 1)
    return logits, array


def places(module: nn.Module, maps: Array) -> str:
    """In words, how many places maps of :func:`grad_cam` (B, R, C) were computed at."""
    if isinstance(module, PSViT) and module.spec.kind == "1d" and module.spec.stages > 1:
        return f"{module.spec.tokens[-1] - 1} tokens of a sequence"
    return f"{maps.shape[1]} × {maps.shape[2]} {'tokens' if isinstance(module, PSViT) else 'features'}"


def on_patches(values: Array, spec: NetworkSpec, stage: int) -> Array:
    """Values of a sequence's tokens in a stage (from 0), without the class token, on the grid of patches.

    Each pooling has a stride of 2 and is centred, so token j of stage s is centred on index j 2^s of the first
    sequence. There the class token is 0 and patch p, row by row, p + 1: it lies between tokens (p + 1) / 2^s rounded
    down and up, and its value is interpolated between theirs. Patches before the first of these tokens, or behind the
    last, have the value of the nearest. Neighbours in the sequence are neighbours in a row; from the end of a row it
    goes on to the beginning of the next, which is how PSViT-1D itself pools.

    Args:
        values: (B, N - 1).

    Returns:
        (B, rows, columns) of ``spec.patch_grid``.
    """
    rows, columns = spec.patch_grid
    last = values.shape[1]
    places = np.clip(np.arange(1, rows * columns + 1) / 2**stage, 1, last)
    below = np.floor(places).astype(int)
    share = places - below
    above = np.minimum(below + 1, last)
    patches: Array = (1 - share) * values[:, below - 1] + share * values[:, above - 1]
    return patches.reshape(-1, rows, columns)


def over_image(maps: Array, size: tuple[int, int]) -> Array:
    """Maps (B, R, C) of any grid, each divided by its largest value and interpolated to (B, height, width).

    A map that is zero everywhere stays so: nothing speaks for the class.
    """
    largest = maps.max(axis=(1, 2), keepdims=True)
    scaled = torch.from_numpy(maps / np.where(largest > 0, largest, 1))[:, None]
    interpolated: Array = captum_attr().LayerAttribution.interpolate(scaled, size, "bilinear")[:, 0].numpy()
    return interpolated
