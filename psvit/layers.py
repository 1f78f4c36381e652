"""The layers of PSViT: basic and sharing layers, token pooling, patch embedding.

Shapes: B images, N tokens, D width, H heads, d = D / H; R x C the grid of tokens (a sequence is a grid of one row).
An attention map is softmax(QK^T / sqrt d), the quantity that a sharing layer takes over (paper, section "attention
sharing"). It is handed on in one of two forms, which mean the same:

- written out, (B, H, N, N), in eval mode: computed once, so that a sharing layer saves Q, K and QK^T;
- as its factors Q and K, (B, N, 2, H, d), in training: each sharing layer multiplies them anew inside torch's fused
  attention. That is N^2 D multiply-adds more, but the H N^2 numbers of a map would have to be kept for the backward
  pass: 25 times the tokens themselves in the first stage of 2d_tiny_8.

Parameter names are timm's where timm has the layer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Grid = tuple[int, int]


class Mlp(nn.Module):
    """Two linear maps with a GELU between: (B, N, D) -> (B, N, D)."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, ratio * width)
        self.fc2 = nn.Linear(ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


def _split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, N, D) -> (B, H, N, d)."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def _join_heads(x: Tensor) -> Tensor:
    """(B, H, N, d) -> (B, N, D)."""
    return x.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Multi-head self-attention that can hand on its maps.

    A map that is written out costs memory and speed, so in eval mode only images whose map a later layer shares take
    that way; the others go through torch's fused attention.

    Attributes:
        factors: hand on Q and K in eval mode, too.
    """

    factors = False

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, kept: int | None) -> tuple[Tensor, Tensor | None]:
        """(B, N, D) -> (B, N, D), and the maps of the first ``kept`` images: None keeps all, 0 none.

        Maps are (kept, H, N, N) in eval mode. In training, or with ``factors``, they are the factors (B, N, 2, H, d) of
        all images, a view that costs nothing.
        """
        # in compiled code the numbers of images are symbols: "if kept" would compile each number apart on torch 2.6
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        if self.training or self.factors:
            mixed = F.scaled_dot_product_attention(q, k, v)
            return self.proj(_join_heads(mixed)), None if kept == 0 else qkv[:, :, :2]
        attention_map, parts = None, []
        if kept != 0:
            scores = q[:kept] @ k[:kept].transpose(-2, -1)
            attention_map = (scores * q.shape[-1] ** -0.5).softmax(dim=-1)
            parts.append(attention_map.to(v.dtype) @ v[:kept])
        if kept is not None and kept < x.shape[0]:
            parts.append(F.scaled_dot_product_attention(q[kept:], k[kept:], v[kept:]))
        mixed = parts[0] if len(parts) == 1 else torch.cat(parts)
        return self.proj(_join_heads(mixed)), attention_map

    def share(self, x: Tensor, given: Tensor) -> Tensor:
        """(B, N, D) with given maps (B, ...) -> (B, N, D), by V and the projection alone (entangled weights)."""
        width = x.shape[-1]
        bias = self.qkv.bias[2 * width :]
        return self.proj(_attend(given, F.linear(x, self.qkv.weight[2 * width :], bias), self.heads))


class SharedAttention(nn.Module):
    """Self-attention with given maps: V and the output projection, no Q and K."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.v = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def share(self, x: Tensor, given: Tensor) -> Tensor:
        """(B, N, D) with given maps (B, ...) -> (B, N, D)."""
        return self.proj(_attend(given, self.v(x), self.heads))


def _attend(given: Tensor, v: Tensor, heads: int) -> Tensor:
    """Maps (B, H, N, N), or their factors (B, N, 2, H, d), times V (B, N, D) -> (B, N, D)."""
    v = _split_heads(v, heads)
    if given.ndim == 4:
        return _join_heads(given.to(v.dtype) @ v)
    q, k = (part.transpose(1, 2) for part in given.unbind(2))
    return _join_heads(F.scaled_dot_product_attention(q, k, v))


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): in training, drop an image's branch at a rate and scale up the others.

    As torchvision's ``StochasticDepth`` by rows, but the rate is a tensor: as a number it would be part of compiled
    code, and each layer of another rate be compiled anew.
    """

    keep: Tensor | None

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.register_buffer("keep", torch.tensor(1 - rate) if rate else None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.keep is None or not self.training:
            return x
        kept = torch.rand((x.shape[0], *(1,) * (x.ndim - 1)), device=x.device) < self.keep
        return x * (kept / self.keep).to(x.dtype)


class _Layer(nn.Module):
    """What both kinds of layer have: two norms, an MLP and drop path around an attention."""

    attn: Attention | SharedAttention

    def __init__(self, width: int, mlp_ratio: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, mlp_ratio)
        self.drop_path = DropPath(drop_path)

    def share(self, x: Tensor, given: Tensor) -> Tensor:
        """(B, N, D) with the maps of an earlier basic layer (B, ...) -> (B, N, D)."""
        return self._add(x, self.attn.share(self.norm1(x), given))

    def _add(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.drop_path(attended)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class BasicLayer(_Layer):
    """A pre-norm ViT encoder layer; :meth:`share` uses its weights as a sharing layer's."""

    attn: Attention

    def __init__(self, width: int, heads: int, mlp_ratio: int, drop_path: float = 0.0) -> None:
        super().__init__(width, mlp_ratio, drop_path)
        self.attn = Attention(width, heads)

    def forward(self, x: Tensor, kept: int | None = 0) -> tuple[Tensor, Tensor | None]:
        """(B, N, D) -> (B, N, D), and the maps of the first ``kept`` images as :class:`Attention` gives them."""
        attended, maps = self.attn(self.norm1(x), kept)
        return self._add(x, attended), maps

    def sharing_weights(self) -> dict[str, Tensor]:
        """The state of a :class:`SharingLayer` that does what :meth:`share` does."""
        width = self.norm1.weight.shape[0]
        state = {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("attn.qkv.")}
        for kind in ("weight", "bias"):
            state[f"attn.v.{kind}"] = self.attn.qkv.get_parameter(kind)[2 * width :]
        return state


class SharingLayer(_Layer):
    """An encoder layer that takes the attention map of an earlier basic layer of its stage."""

    attn: SharedAttention

    def __init__(self, width: int, heads: int, mlp_ratio: int, drop_path: float = 0.0) -> None:
        super().__init__(width, mlp_ratio, drop_path)
        self.attn = SharedAttention(width, heads)

    def forward(self, x: Tensor, given: Tensor) -> Tensor:
        """(B, N, D) with given maps (B, ...) -> (B, N, D)."""
        return self.share(x, given)


class PatchEmbedding(nn.Module):
    """Non-overlapping patches, each mapped linearly: (B, channels, height, width) -> (B, N, D), row by row."""

    def __init__(self, channels: int, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> tuple[Tensor, Grid]:
        """The tokens and their grid.

        Raises:
            ValueError: the patch does not divide the image.
        """
        patch = self.proj.stride[0]
        height, width = images.shape[-2:]
        if height % patch or width % patch:
            raise ValueError(f"an image of {height}x{width} px cannot be cut into patches of {patch}x{patch} px")
        return self.proj(images).flatten(2).transpose(1, 2), (height // patch, width // patch)


class TokenPooling(nn.Module):
    """Fewer and wider tokens between two stages, by a convolution of stride 2 (paper, section "token pooling").

    PSViT-1D convolves the sequence, class token included; PSViT-2D the grid. For comparison, ``max`` and ``average``
    take the largest or the mean of each channel in the same window, and a convolution of kernel 1 widens what is left.
    """

    def __init__(self, kind: str, width_in: int, width_out: int, kernel: int, pooling: str = "conv") -> None:
        super().__init__()
        self.sequence = kind == "1d"
        convolution = nn.Conv1d if self.sequence else nn.Conv2d
        self.reduce: nn.Module | None = None
        if pooling == "conv":
            self.conv = convolution(width_in, width_out, kernel, stride=2, padding=kernel // 2)
            return
        self.conv = convolution(width_in, width_out, 1)
        if pooling == "max":
            maximum = nn.MaxPool1d if self.sequence else nn.MaxPool2d
            self.reduce = maximum(kernel, stride=2, padding=kernel // 2)
        else:  # what lies beyond the border does not count
            average = nn.AvgPool1d if self.sequence else nn.AvgPool2d
            self.reduce = average(kernel, stride=2, padding=kernel // 2, count_include_pad=False)

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """(B, N, D_in) on a grid -> (B, N_out, D_out) and the grid of N_out."""
        x = x.transpose(1, 2)
        if not self.sequence:
            x = x.reshape(*x.shape[:2], *grid)
        x = self.conv(x if self.reduce is None else self.reduce(x))
        grid = (x.shape[2], x.shape[3]) if x.ndim == 4 else (1, x.shape[2])
        return x.flatten(2).transpose(1, 2), grid
