"""How alike attention maps of layers, and tokens within a layer, are: the two redundancies that the paper starts from.

Shapes: B images, N tokens, D width, H heads; L layers of a stage, M of them basic. Similarity is cosine similarity. An
attention map has no negative entry, and tokens have much in common whatever the image: both are alike to some degree
for any two images. So beside each similarity on one image stands that of two different images, the mean over all
pairs of them, which needs no pair to be gone through: for unit vectors u_i, v_i of n images,

    sum over i != j of u_i . v_j  =  (sum of u_i) . (sum of v_j) - sum of u_i . v_i.

Only sums are kept, so that memory does not grow with the number of images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from psvit.arch import BASIC, Architecture, NetworkSpec
from psvit.model import Layer, PSViT

Array = npt.NDArray[np.float64]

_MAP_BYTES = 2**28  # of the maps of a stage that are held at once, unless those of a single image are more
_MOST_IMAGES = 32


class Step(NamedTuple):
    """A layer of a network at work.

    Attributes:
        stage: from 0.
        layer: of the stage, from 0.
        letter: ``B`` or ``S``.
        tokens: (B, N, D) after the layer.
        map: (B, H, N, N), the attention map that the layer has used: its own, or the one that it shares.
    """

    stage: int
    layer: int
    letter: str
    tokens: Tensor
    map: Tensor


def walk(
    network: PSViT, images: Tensor, into_last: Callable[[Tensor], Tensor] = lambda tokens: tokens
) -> Iterator[Step]:
    """A network's layers, one after the other, with their attention maps; the network must be in eval mode.

    Args:
        images: (B, channels, height, width).
        into_last: what the tokens (B, N, D) pass through before they enter the last layer.
    """
    x, grid = network.embed(images)
    for stage, letters in enumerate(network.architecture.stages):
        x, grid = network.pool_into(stage, x, grid)
        layers = cast("Sequence[Layer]", network.stages[stage])
        for number, (letter, layer) in enumerate(zip(letters, layers, strict=True)):
            if (stage, number) == (network.spec.stages - 1, len(letters) - 1):
                x = into_last(x)
            if letter == BASIC:
                x, maps = layer(x, len(x))
            else:
                x = layer(x, maps)
            yield Step(stage, number, letter, x, maps)


@dataclass(frozen=True)
class MapSimilarity:
    """How alike the attention maps of a stage's layers are. Maps of two stages differ in size and are not compared.

    Attributes:
        letters: of the layers.
        same: (M, M, H, H) similarity of a head of a basic layer and a head of another, each map taken as a vector of
            N x N numbers, on the same image; the mean over images.
        different: (M, M, H, H) the same of two different images; the mean over all pairs of images.
    """

    letters: str
    same: Array
    different: Array

    @property
    def map_of(self) -> list[int]:
        """(L,) for each layer, which of the M maps it uses."""
        return [self.letters[: layer + 1].count(BASIC) - 1 for layer in range(len(self.letters))]

    def shared(self, one: int, other: int) -> bool:
        """Whether two layers (from 0) use the same map, so that they are alike by construction."""
        return self.map_of[one] == self.map_of[other]

    def heads(self, one: int, other: int, different: bool = False) -> Array:
        """(H, H) similarity of each head of a layer and each head of another."""
        of = self.map_of
        return (self.different if different else self.same)[of[one], of[other]]

    def layers(self, different: bool = False) -> Array:
        """(L, L) similarity of layers: the mean over heads that are matched one to one, as well as can be.

        Heads of two layers are in no order. They are matched for the same and for different images apart, so that the
        choice flatters neither.
        """
        table = self.different if different else self.same
        maps = np.array([[_matched_mean(heads) for heads in row] for row in table])
        return maps[np.ix_(self.map_of, self.map_of)]

    @property
    def neighbours(self) -> list[tuple[int, int]]:
        """Pairs of neighbouring layers (from 0)."""
        return [(layer, layer + 1) for layer in range(len(self.letters) - 1)]


def match_heads(heads: Array) -> list[int]:
    """(H, H) similarities -> for each head of the first layer its partner in the second, matched one to one."""
    partners: list[int] = linear_sum_assignment(heads, maximize=True)[1].tolist()
    return partners


def _matched_mean(heads: Array) -> float:
    return float(heads[range(len(heads)), match_heads(heads)].mean())


@dataclass(frozen=True)
class TokenSimilarity:
    """How alike the tokens after a layer are.

    Attributes:
        same: of two tokens of an image, the class token apart; the mean over all pairs and images. NaN for one token.
        different: of two tokens of two different images; the mean over all pairs of tokens and images.
        class_token: of the class token and the others of its image; None where there is none.
        each: (N,) of each token and the others of its image, without the class token; the mean over images.
    """

    same: float
    different: float
    class_token: float | None
    each: Array


class _MapSums:
    """What is summed over images to get a :class:`MapSimilarity`."""

    def __init__(self, letters: str) -> None:
        self.letters, self.images = letters, 0
        self._same: Tensor = torch.zeros(())
        self._sum: Tensor = torch.zeros(())

    def add(self, maps: list[Tensor]) -> None:
        """Maps (B, H, N, N) of the M basic layers."""
        self._heads = maps[0].shape[1]
        units = torch.cat(maps, dim=1).flatten(2)  # (B, M H, N N)
        units /= units.norm(dim=2, keepdim=True)
        self._same = self._same.to(units.device) + (units @ units.mT).sum(0, dtype=torch.float64)
        self._sum = self._sum.to(units.device) + units.sum(0)
        self.images += len(units)

    def similarity(self) -> MapSimilarity:
        pairs = self.images * (self.images - 1)
        same = self._same / self.images
        same.fill_diagonal_(1)  # of a head and itself: by construction, not by rounding
        different = ((self._sum @ self._sum.mT).double() - self._same) / pairs
        return MapSimilarity(self.letters, self._by_layer(same), self._by_layer(different))

    def _by_layer(self, table: Tensor) -> Array:
        """(M H, M H) -> (M, M, H, H)."""
        maps = len(table) // self._heads
        array: Array = table.reshape(maps, self._heads, maps, self._heads).transpose(1, 2).cpu().numpy()
        return array


class _TokenSums:
    """What is summed over images to get a :class:`TokenSimilarity`.

    Args:
        class_tokens: how many tokens come before those of patches.
    """

    def __init__(self, class_tokens: int) -> None:
        self._first, self._images = class_tokens, 0
        self._each = self._sum = self._squares = self._class = torch.zeros(())

    def add(self, tokens: Tensor) -> None:
        """Tokens (B, N, D) after the layer."""
        units = F.normalize(tokens.double(), dim=2)
        own, units = units.tensor_split([self._first], dim=1)
        sums = units.sum(1, keepdim=True)  # (B, 1, D)
        others = max(units.shape[1] - 1, 1)
        each = (
            ((units * sums).sum(2) - 1) / others if units.shape[1] > 1 else units.new_full(units.shape[:2], torch.nan)
        )
        self._each = self._each.to(each.device) + each.sum(0)
        self._sum = self._sum.to(each.device) + sums.sum((0, 1))
        self._squares = self._squares.to(each.device) + sums.square().sum()
        self._class = self._class.to(each.device) + (own * sums).sum() / units.shape[1]
        self._images += len(tokens)

    def similarity(self) -> TokenSimilarity:
        each: Array = (self._each / self._images).cpu().numpy()
        pairs = self._images * (self._images - 1) * len(each) ** 2
        return TokenSimilarity(
            same=float(each.mean()),
            different=float((self._sum.square().sum() - self._squares) / pairs),
            class_token=float(self._class / self._images) if self._first else None,
            each=each,
        )


@torch.inference_mode()
def measure(network: PSViT, batches: Iterable[Tensor]) -> tuple[list[MapSimilarity], list[list[TokenSimilarity]]]:
    """The similarity of maps for each stage, and of tokens for each layer of each stage.

    Args:
        network: in eval mode.
        batches: normalised images (B, channels, height, width) on the network's device, two of them at least in all.
    """
    stages, class_tokens = network.architecture.stages, network.spec.class_tokens
    maps = [_MapSums(letters) for letters in stages]
    tokens = [[_TokenSums(class_tokens) for _ in letters] for letters in stages]
    for images in batches:
        for stage, steps in groupby(walk(network, images), key=lambda step: step.stage):
            own = []
            for step in steps:
                tokens[stage][step.layer].add(step.tokens)
                if step.letter == BASIC:
                    own.append(step.map)
            maps[stage].add(own)
    assert all(sums.images > 1 for sums in maps), "different images need two"
    return [sums.similarity() for sums in maps], [[sums.similarity() for sums in stage] for stage in tokens]


def images_at_once(spec: NetworkSpec, architecture: Architecture) -> int:
    """How many images may pass a network together, so that the maps of a stage take 256 MiB at most, or are of one."""
    of_image = max(
        4 * basic * heads * tokens**2
        for (basic, _), heads, tokens in zip(architecture.counts, spec.heads, spec.tokens, strict=True)
    )
    return max(1, min(_MAP_BYTES // of_image, _MOST_IMAGES))
