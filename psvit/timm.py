"""PSViT as a model of timm: ``import psvit.timm``, then ``timm.create_model`` knows our networks.

``create_model("psvit_2d_tiny_8")`` is a named network with random weights, ``create_model("local-dir:HUB",
pretrained=True)`` the trained one of a hub folder. Needs timm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import PyTorchModelHubMixin
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from psvit.arch import Architecture, NetworkSpec
from psvit.archfile import parse_network
from psvit.model import PSViT, as_map, interpolate_positions
from psvit.preprocessing import EVAL_CROP
from psvit.weights import read_tensors
from psvit.zoo import NETWORKS

Pool = Literal["", "avg", "token"]
_READOUTS: dict[str, Pool] = {"mean": "avg", "class_token": "token"}
ENTRY = "psvit"  # the entry of hub folders, whose config.json gives dimensions and layers
WEIGHTS = "model.safetensors"
NAMES = tuple(name for name in NETWORKS if name.startswith(f"{ENTRY}_"))


class TimmPSViT(PSViT, PyTorchModelHubMixin):
    """A :class:`~psvit.model.PSViT` with what timm asks of a model.

    Args:
        network: the dimensions, as in arch.json: all of them, or the name of known ones and what differs.
        layers: the layers of each stage, ``BSB-BB-B``.
        num_classes: outputs of the head; 0 for no head, None for those of the dimensions.
        in_chans: channels of the images.
        img_size: (height, width) or both in one, in pixels.
        global_pool: ``avg`` over all tokens, ``token`` for the class token, ``""`` for all tokens.
        drop_rate: dropout before the head.
        drop_path_rate: of the last layer; it rises linearly from 0.
        device, dtype: of the parameters.

    Raises:
        ValueError: dimensions or layers that cannot be, or a pooling that the network does not have.
    """

    def __init__(
        self,
        network: Mapping[str, Any],
        layers: str,
        num_classes: int | None = None,
        in_chans: int | None = None,
        img_size: int | Sequence[int] | None = None,
        global_pool: Pool | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        spec = parse_network(dict(network))
        classes = spec.classes if num_classes is None else num_classes
        spec = replace(
            spec,
            classes=classes or spec.classes,
            channels=in_chans or spec.channels,
            image_size=spec.image_size if img_size is None else _size(img_size),
        )
        super().__init__(spec, Architecture.parse(layers), drop_path_rate)
        self.num_features = self.head_hidden_size = self.embed_dim = spec.widths[-1]
        self.head_drop = nn.Dropout(drop_rate)
        self.feature_info = [
            {"num_chs": width, "reduction": spec.patch_size * 2**stage, "module": f"stages.{stage}"}
            for stage, width in enumerate(spec.widths)
        ]
        self.global_pool: Pool = _READOUTS[spec.readout]
        self.num_classes, self.in_chans = classes, spec.channels
        self._pool_by(global_pool)
        if not classes:
            self.reset_classifier(0)
        self.to(device=device, dtype=dtype)

    def _pool_by(self, how: Pool | None) -> None:
        if how is None:
            return
        if how not in ("", "avg", "token") or (how == "token" and not self.spec.class_tokens):
            raise ValueError(f"global_pool is {how!r}; use avg, token (a PSViT-1D) or '' (all tokens)")
        self.global_pool = how

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Normed tokens (B, N, D) -> logits (B, classes), or features (B, D) if ``pre_logits``.

        Without pooling, the same for each token: (B, N, ...).
        """
        if self.global_pool:
            x = x[:, 0] if self.global_pool == "token" else x.mean(dim=1)
        x = self.head_drop(x)
        return x if pre_logits else self.head(x)

    def reset_classifier(self, num_classes: int, global_pool: Pool | None = None) -> None:
        """Put a new head of ``num_classes`` outputs in place; 0 leaves the features, and ``""`` all tokens."""
        super().reset_classifier(num_classes)
        self.num_classes = num_classes
        self._pool_by(global_pool)

    def set_input_size(self, img_size: int | Sequence[int] | None = None, patch_size: int | None = None) -> None:
        """Learn positions for another image size from here on, beginning with interpolated ones.

        Raises:
            ValueError: another patch size, or one that does not divide the image.
        """
        if patch_size not in (None, self.spec.patch_size):
            raise ValueError(f"patch_size is {self.spec.patch_size} and cannot be changed to {patch_size}")
        if img_size is None:
            return
        spec = self.spec.for_data(self.spec.classes, _size(img_size))
        positions = interpolate_positions(self.pos_embed, spec.class_tokens, self.spec.patch_grid, spec.patch_grid)
        self.pos_embed = nn.Parameter(positions.detach(), self.pos_embed.requires_grad)
        self.spec = spec

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Images (B, channels, height, width) -> the normed tokens of the last stage (B, N, D), and those of stages.

        Args:
            indices: of the stages, from 0; a number takes as many of the last, None all.
            return_prefix_tokens: has no effect: a class token that is pooled with the others is no prefix.
            norm: norm the last stage's, too.
            stop_early: do not compute stages that are not asked for; ``intermediates_only`` then.
            output_fmt: ``NCHW`` for feature maps (B, D, rows, columns), of a PSViT-2D alone, or ``NLC`` for tokens
                (B, N, D).
            intermediates_only: leave the first out.

        Raises:
            ValueError: another format, or feature maps of a PSViT-1D.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ValueError(f"output_fmt is {output_fmt!r}; use NCHW or NLC")
        if output_fmt == "NCHW" and self.spec.kind == "1d":
            raise ValueError("the tokens of a PSViT-1D are a sequence and form no feature map; use output_fmt='NLC'")
        wanted, last = feature_take_indices(len(self.stages), indices)
        stages = []
        for stage, (tokens, grid) in enumerate(self._walk(x)):
            if stage in wanted:
                shown = self.norm(tokens) if norm and stage == self.spec.stages - 1 else tokens
                stages.append(as_map(shown, grid) if output_fmt == "NCHW" else shown)
            if stop_early and intermediates_only and stage == last:
                break
        return stages if intermediates_only else (self.norm(tokens), stages)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop what :meth:`forward_intermediates` does not need for these stages; returns their numbers, from 0."""
        wanted, last = feature_take_indices(len(self.stages), indices)
        self.architecture = Architecture(self.architecture.stages[: last + 1])
        self.stages, self.pools = self.stages[: last + 1], self.pools[:last]
        if prune_norm:
            self.norm = nn.Identity()  # type: ignore[assignment]
        if prune_head:
            self.reset_classifier(0, "")
        taken: list[int] = list(wanted)
        return taken

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns of parameters' names from the image to the head, for learning rates by layer or by stage."""
        first = () if coarse else (0,)  # token pooling belongs to the first layer behind it, as in layer_depths
        pools = [(rf"^pools\.{stage - 1}\b", (stage, *first)) for stage in range(1, len(self.stages))]
        stages = (r"^stages\.(\d+)" if coarse else r"^stages\.(\d+)\.(\d+)", None)
        return {"stem": r"^cls_token|^pos_embed|^patch_embed", "blocks": [*pools, stages]}


def _size(size: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) in pixels."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def _fit_positions(state: dict[str, Tensor], model: TimmPSViT) -> dict[str, Tensor]:
    """Weights of one image size for a model of another."""
    positions = state.get("pos_embed")
    if positions is None or positions.shape == model.pos_embed.shape:
        return state
    config: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    before = model.spec.for_data(model.spec.classes, _size(config["input_size"][-2:])).patch_grid
    fitted = interpolate_positions(positions, model.spec.class_tokens, before, model.spec.patch_grid)
    return state | {"pos_embed": fitted}


def _create(variant: str, pretrained: bool, **arguments: Any) -> nn.Module:
    stages = len(str(arguments["layers"]).split("-"))
    if pretrained and (hub := _local_folder(arguments.get("pretrained_cfg"))):
        # read here: before 1.0.29 timm takes the safetensors of a folder for a pickle
        weights = {"source": "", "state_dict": read_tensors(hub / WEIGHTS)}
        arguments["pretrained_cfg_overlay"] = (arguments.get("pretrained_cfg_overlay") or {}) | weights
    model: nn.Module = build_model_with_cfg(
        TimmPSViT,
        variant,
        pretrained,
        pretrained_filter_fn=_fit_positions,
        feature_cfg={"out_indices": tuple(range(stages)), "feature_cls": "getter"},
        **arguments,
    )
    model.pretrained_cfg.pop("state_dict", None)  # type: ignore[operator,union-attr]  # the model has them
    return model


def _local_folder(config: Any) -> Path | None:
    """The folder that a pretrained_cfg was read from, a dict or timm's dataclass."""
    found = config if isinstance(config, dict) else vars(config) if config is not None else {}
    return Path(found["file"]) if found.get("source") == "local-dir" else None


def _preprocessing(spec: NetworkSpec) -> dict[str, Any]:
    return {
        "num_classes": spec.classes,
        "input_size": (spec.channels, *spec.image_size),
        "fixed_input_size": True,
        "crop_pct": EVAL_CROP,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }


default_cfgs = generate_default_cfgs({name: _preprocessing(NETWORKS[name][0]) for name in NAMES})


def psvit(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """The entry of hub folders; ``network`` and ``layers`` are as :class:`TimmPSViT` takes them."""
    return _create(ENTRY, pretrained, **arguments)


def _register(name: str) -> None:
    _, architecture = NETWORKS[name]

    def entry(pretrained: bool = False, **arguments: Any) -> nn.Module:
        return _create(name, pretrained, network={"name": name}, layers=str(architecture), **arguments)

    entry.__name__ = entry.__qualname__ = name
    entry.__doc__ = f"{name}: layers {architecture}."
    register_model(entry)


register_model(psvit)
for _name in NAMES:
    _register(_name)
