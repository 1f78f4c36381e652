"""PSViT: stages of basic and sharing layers with token pooling between them, mean over the tokens, linear head.

DeiT is the same code: one stage, no pooling, class-token readout.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from psvit.arch import SHARING, Architecture, NetworkSpec
from psvit.calls import LayerRunner
from psvit.layers import Attention, BasicLayer, Grid, PatchEmbedding, SharingLayer, TokenPooling

Layer = BasicLayer | SharingLayer


class NetworkBase(nn.Module):
    """Everything of a network but its layers: patch embedding, positions, token pooling, final norm and head.

    A standalone :class:`PSViT` and the supernet stand on the same frame, so that weights pass from one to the other by
    name.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        width = spec.widths[0]
        self.patch_embed = PatchEmbedding(spec.channels, spec.patch_size, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width)) if spec.class_tokens else None
        self.pos_embed = nn.Parameter(torch.zeros(1, spec.tokens[0], width))
        self.pools = nn.ModuleList(
            TokenPooling(spec.kind, before, after, spec.pool_kernel, spec.pooling)
            for before, after in zip(spec.widths[:-1], spec.widths[1:], strict=True)
        )
        self.norm = nn.LayerNorm(spec.widths[-1], eps=1e-6)
        self.head: nn.Module = nn.Linear(spec.widths[-1], spec.classes)
        self.calls = LayerRunner(spec.stages)

    def init_weights(self) -> None:
        """Initialise as DeiT does: truncated normal of 0.02 for linear maps and positions, zero biases."""
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        if self.cls_token is not None:
            nn.init.trunc_normal_(self.cls_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def embed(self, images: Tensor) -> tuple[Tensor, Grid]:
        """Images (B, channels, height, width) -> tokens (B, N, D) with positions, and their grid.

        Images of another size than the network's get interpolated positions.

        Raises:
            ValueError: the patch does not divide the image.
        """
        x, grid = self.patch_embed(images)
        positions = self._positions(grid)
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
            grid = (1, x.shape[1])
        return x + positions, grid

    def _positions(self, grid: Grid) -> Tensor:
        """Learned positions (1, N, D) for a grid of patches."""
        if grid == self.spec.patch_grid:
            return self.pos_embed
        return interpolate_positions(self.pos_embed, self.spec.class_tokens, self.spec.patch_grid, grid)

    def pool_into(self, stage: int, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """Pool the tokens on their way into a stage (from 0); nothing is pooled before the first."""
        return self.pools[stage - 1](x, grid) if stage else (x, grid)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Normed tokens (B, N, D) -> logits (B, classes), or the feature vector (B, D) if ``pre_logits``."""
        x = x[:, 0] if self.spec.readout == "class_token" else x.mean(dim=1)
        return x if pre_logits else self.head(x)

    def run_stage(self, stage: int, layers: Sequence[tuple[str, Layer]], x: Tensor) -> Tensor:
        """The layers of a stage (from 0), each with its letter, one after the other: (B, N, D) -> (B, N, D).

        A basic layer hands on its attention map only if the next layer shares it; layers that share in a row use the
        same.
        """
        maps: Tensor | None = None
        following = [letter for letter, _ in layers[1:]] + [None]
        for (letter, layer), next_letter in zip(layers, following, strict=True):
            if letter == SHARING:
                x = self.calls.sharing(stage, layer, x, maps)
            elif next_letter == SHARING:
                x, maps = self.calls.kept(stage, layer, x)
            else:
                x = self.calls.basic(stage, layer, x)
        return x

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay leaves alone, beside biases and norms."""
        return {"pos_embed", "cls_token"}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """In training, keep only what enters each layer and compute the rest again for the backward pass."""
        self.calls.checkpoint = enable

    def keep_factors(self) -> None:
        """Share maps by their factors Q and K in eval mode, too: for images so large that a map fills the memory."""
        for module in self.modules():
            if isinstance(module, Attention):
                module.factors = True

    def compile_layers(self, backend: str = "inductor") -> None:
        """Compile the layers by ``torch.compile``: each kind once a stage, however many of them there are."""
        self.calls.compile(backend)

    def layer_depths(self) -> dict[str, int]:
        """Depth of each parameter for layer-wise learning rates: embedding 0, layers 1 to L, norm and head L + 1.

        Token pooling belongs to the first layer behind it; both layers of a supernet's cell have the cell's depth.
        """
        lengths = [len(cast("nn.ModuleList", stage)) for stage in cast("nn.ModuleList", self.stages)]
        firsts = [1 + sum(lengths[:stage]) for stage in range(len(lengths))]
        depths = {}
        for name, _ in self.named_parameters():
            part, *at = name.split(".")
            if part == "stages":
                depths[name] = firsts[int(at[0])] + int(at[1])
            elif part == "pools":
                depths[name] = firsts[int(at[0]) + 1]
            else:
                depths[name] = sum(lengths) + 1 if part in ("norm", "head") else 0
        return depths


def interpolate_positions(positions: Tensor, first: int, before: Grid, after: Grid) -> Tensor:
    """Learned positions (1, first + N, D) for another grid (rows, columns) of patches; the class token's stays."""
    own, patches = positions.tensor_split([first], dim=1)
    image = patches.transpose(1, 2).reshape(1, -1, *before).float()
    image = F.interpolate(image, size=after, mode="bicubic", antialias=True)
    return torch.cat([own, image.flatten(2).transpose(1, 2).to(own.dtype)], dim=1)


def as_map(x: Tensor, grid: Grid) -> Tensor:
    """Tokens (B, N, D) on a grid -> a feature map (B, D, rows, columns)."""
    return x.transpose(1, 2).reshape(x.shape[0], -1, *grid)


def make_layer(letter: str, spec: NetworkSpec, stage: int, drop_path: float) -> Layer:
    """A basic (``B``) or sharing (``S``) layer of a stage (from 0)."""
    shape = spec.widths[stage], spec.heads[stage], spec.mlp_ratio, drop_path
    return SharingLayer(*shape) if letter == SHARING else BasicLayer(*shape)


def drop_path_rates(depth: int, last: float) -> list[float]:
    """Drop-path rates of ``depth`` layers, rising linearly from 0 to ``last``."""
    return [last * index / max(depth - 1, 1) for index in range(depth)]


class PSViT(NetworkBase):
    """A PSViT (arXiv 2108.03428), or a DeiT, of given dimensions and layers.

    Args:
        spec: the dimensions.
        architecture: the layers of each stage.
        drop_path: drop-path rate of the last layer; it rises linearly from 0 over depth.

    Raises:
        ValueError: the architecture has another number of stages than the dimensions.
    """

    def __init__(self, spec: NetworkSpec, architecture: Architecture, drop_path: float = 0.0) -> None:
        if len(architecture.stages) != spec.stages:
            raise ValueError(f"{architecture} has {len(architecture.stages)} stages, but the network has {spec.stages}")
        super().__init__(spec)
        self.architecture = architecture
        rates = iter(drop_path_rates(sum(architecture.depths), drop_path))
        self.stages = nn.ModuleList(
            nn.ModuleList(make_layer(letter, spec, stage, next(rates)) for letter in letters)
            for stage, letters in enumerate(architecture.stages)
        )
        self.init_weights()

    def forward_features(self, images: Tensor) -> Tensor:
        """Images (B, channels, height, width) -> normed tokens of the last stage (B, N, D)."""
        *_, (x, _) = self._walk(images)
        return self.norm(x)

    def _walk(self, images: Tensor) -> Iterator[tuple[Tensor, Grid]]:
        """Images (B, channels, height, width) -> tokens (B, N, D) behind each stage, and their grid."""
        x, grid = self.embed(images)
        for stage, letters in enumerate(self.architecture.stages):
            x, grid = self.pool_into(stage, x, grid)
            layers = cast("Sequence[Layer]", self.stages[stage])
            x = self.run_stage(stage, [*zip(letters, layers, strict=True)], x)
            yield x, grid

    def stage_maps(self, images: Tensor) -> list[Tensor]:
        """Images (B, channels, height, width) -> the tokens behind each stage as a feature map (B, D, rows, columns).

        They are those before the final norm.

        Raises:
            ValueError: the network is a PSViT-1D, or a DeiT.
        """
        if self.spec.kind == "1d":
            raise ValueError(
                f"{self.spec.name or 'this PSViT-1D'} pools a sequence with a class token, so its tokens form no "
                "feature map; use a PSViT-2D, such as psvit_2d_tiny_8"
            )
        return [as_map(x, grid) for x, grid in self._walk(images)]

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, channels, height, width) -> logits (B, classes)."""
        return self.forward_head(self.forward_features(images))

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """Put a new head of ``num_classes`` outputs in place; 0 leaves the feature vector."""
        head: nn.Module = nn.Identity()
        if num_classes:
            old = self.norm.weight
            head = nn.Linear(self.spec.widths[-1], num_classes, device=old.device, dtype=old.dtype)
            nn.init.trunc_normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)
        self.head = head.train(self.training)
