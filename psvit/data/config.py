"""Which images, how they are split, and how they are varied in training. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class DataConfig:
    """A dataset and its splits.

    Attributes:
        name: ``digits``, ``imagefolder``, ``imagenet``, ``cifar10`` or ``cifar100``.
        root: folder that holds the images; ``digits`` needs none.
        image_size: ``224`` or height x width ``224x160``; None is what the space was made for.
        search_fraction: share of the training images held out, stratified, to score architectures.
        test_fraction: share held out for testing when a folder has no ``val`` or ``test`` of its own.
        split_seed: seed of these splits; separate from the run's seed, so that several runs share one split.
        workers: loader processes for each rank; 0 loads in the training process. No effect on the result.
    """

    name: str = "digits"
    root: str | None = None
    image_size: str | None = None
    search_fraction: float = 0.1
    test_fraction: float = 0.2
    split_seed: int = 0
    workers: int = 0

    def __post_init__(self) -> None:
        for key in ("search_fraction", "test_fraction"):
            if not 0 < getattr(self, key) < 1:
                raise ValueError(f"data.{key} is {getattr(self, key)}; it is a share between 0 and 1")
        if self.workers < 0:
            raise ValueError(f"data.workers is {self.workers}; use 0 or more")


@dataclass
class AugmentConfig:
    """How training images are varied; the defaults are DeiT's (arXiv 2012.12877, table 9).

    Attributes:
        crop_scale: smallest and largest share of the image that a random resized crop keeps; [1, 1] only resizes.
        crop_ratio: narrowest and widest aspect ratio of that crop.
        flip: probability of a horizontal flip.
        rotate: largest rotation in degrees; 0 is none.
        color_jitter: strength of brightness, contrast and saturation jitter where RandAugment is off.
        randaugment_ops: RandAugment operations an image; 0 switches it off.
        randaugment_magnitude: their magnitude, 0 to 30.
        erasing: probability of random erasing.
        mixup: alpha of mixup; 0 switches it off.
        cutmix: alpha of cutmix; 0 switches it off. When both are on, a fair coin chooses for each batch.
        mix_probability: share of batches that are mixed at all.
    """

    crop_scale: list[float] = field(default_factory=lambda: [0.08, 1.0])
    crop_ratio: list[float] = field(default_factory=lambda: [3 / 4, 4 / 3])
    flip: float = 0.5
    rotate: float = 0.0
    color_jitter: float = 0.0
    randaugment_ops: int = 2
    randaugment_magnitude: int = 9
    erasing: float = 0.25
    mixup: float = 0.8
    cutmix: float = 1.0
    mix_probability: float = 1.0

    def __post_init__(self) -> None:
        for key in ("crop_scale", "crop_ratio"):
            low_high = getattr(self, key)
            if len(low_high) != 2 or not 0 < low_high[0] <= low_high[1]:
                raise ValueError(f"augment.{key} is {low_high}; give the smallest and the largest, both above 0")
        for key in ("flip", "erasing", "mix_probability"):
            if not 0 <= getattr(self, key) <= 1:
                raise ValueError(f"augment.{key} is {getattr(self, key)}; it is a probability between 0 and 1")
        for key in ("rotate", "color_jitter", "randaugment_ops", "mixup", "cutmix"):
            if getattr(self, key) < 0:
                raise ValueError(f"augment.{key} is {getattr(self, key)}; use 0 to switch it off, or more")
        if not 0 <= self.randaugment_magnitude <= 30:
            raise ValueError(f"augment.randaugment_magnitude is {self.randaugment_magnitude}; use 0 to 30")
