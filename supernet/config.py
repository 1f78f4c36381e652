"""Settings of ``psvit-search train-supernet``. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from psvit.arch import NetworkSpec, parse_image_size
from psvit.checks import check_at_least, check_choice
from psvit.data.config import DataConfig
from psvit.engine.config import Recipe, TrainConfig
from psvit.supernet.sampling import SAMPLINGS, make_sampler

PATHS = ("image", "batch")
WEIGHTS = ("separate", "entangled")


@dataclass
class SpaceConfig:
    """A search space: the dimensions around the layers, and the cells of each stage.

    The dimensions are those of :class:`psvit.arch.NetworkSpec`. The number of classes and, where a dataset has one, the
    image size come from the data.

    Attributes:
        name: a label; has no effect.
        kind: ``1d`` for a sequence of tokens, ``2d`` for a grid.
        image_size: image size in pixels, ``224`` or ``224x160`` (height first).
        patch_size: side of a square patch in pixels.
        widths: token width of each stage.
        heads: attention heads of each stage.
        mlp_ratio: hidden width of the MLP over the token width.
        pool_kernel: kernel size of token pooling, odd.
        pooling: ``conv`` (the paper's strided convolution), ``max`` or ``average``.
        cells: cells per stage, and so the most layers that a stage can have.
    """

    name: str = "custom"
    kind: str = "2d"
    image_size: str = "224"
    patch_size: int = 8
    widths: list[int] = field(default_factory=list)
    heads: list[int] = field(default_factory=list)
    mlp_ratio: int = 4
    pool_kernel: int = 3
    pooling: str = "conv"
    cells: int = 6

    def __post_init__(self) -> None:
        check_at_least(self, 1, "cells", prefix="space.")

    @classmethod
    def of(cls, spec: NetworkSpec, cells: int = 6) -> SpaceConfig:
        """The configuration of named dimensions."""
        return cls(
            name=spec.name,
            kind=spec.kind,
            image_size="x".join(str(side) for side in dict.fromkeys(spec.image_size)),
            patch_size=spec.patch_size,
            widths=list(spec.widths),
            heads=list(spec.heads),
            mlp_ratio=spec.mlp_ratio,
            pool_kernel=spec.pool_kernel,
            pooling=spec.pooling,
            cells=cells,
        )

    def spec(self, classes: int, image_size: tuple[int, int] | None = None) -> NetworkSpec:
        """The dimensions for a dataset of so many classes and, unless None, that image size (height, width).

        Raises:
            ValueError: dimensions that do not fit each other, or an image that the patch does not divide.
        """
        return NetworkSpec(
            kind=self.kind,
            image_size=image_size or parse_image_size(self.image_size),
            patch_size=self.patch_size,
            widths=tuple(self.widths),
            heads=tuple(self.heads),
            classes=classes,
            mlp_ratio=self.mlp_ratio,
            pool_kernel=self.pool_kernel,
            pooling=self.pooling,
            name=self.name,
        )


@dataclass
class SupernetPart:
    """How a supernet learns, whatever its space and data.

    Attributes:
        recipe: training recipe; that of the dataset, or of ``imagefolder`` if it has none.
        sampling: how paths are drawn. The default, uniform over all architectures, is the reading of "uniform path
            sampling" that ranked best (docs/training.md).
        paths: draw one path per ``image``, or one per ``batch`` (as SPOS does).
        weights: whether the two layers of a cell have ``separate`` weights, or ``entangled`` ones that they share.
    """

    recipe: Recipe = field(default_factory=Recipe)
    sampling: str = field(default="canonical", metadata={"choices": SAMPLINGS})
    paths: str = "image"
    weights: str = "separate"

    def __post_init__(self) -> None:
        check_choice(self, PATHS, "paths")
        check_choice(self, WEIGHTS, "weights")
        make_sampler(self.sampling, self.paths, stages=1, cells=1)


@dataclass
class TrainSupernetConfig(SupernetPart, TrainConfig):
    """Settings of ``psvit-search train-supernet``.

    Attributes:
        space: search space: widths, heads and patch size of the networks.
        data: dataset to train on.
        watch: architectures to score after each epoch, to monitor progress; 0 for none. Their mean inherited top-1 and
            loss on the search split are logged.
    """

    space: SpaceConfig = field(default_factory=SpaceConfig)
    data: DataConfig = field(default_factory=DataConfig)
    watch: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, "watch")
