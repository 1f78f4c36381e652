"""Which images, how they are split, and how they are varied in training. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from psvit.checks import check_above, check_at_least, check_between, check_choice, check_share

CORRUPT = ("fail", "skip")
DECODE = ("auto", "cpu", "gpu")
STORES = ("jpeg", "raw")


@dataclass
class DataConfig:
    """A dataset and its splits.

    Attributes:
        name: name of the dataset, which ``data=NAME`` sets; psvit/data/datasets.py has the list.
        root: folder that holds the images; ``digits`` needs none.
        image_size: image size in pixels, ``224`` or ``224x160`` (height first); None is the space's own.
        search_fraction: share of the training images held out, stratified, to score architectures.
        test_fraction: share held out for testing when a folder has no ``val`` or ``test`` of its own.
        split_seed: seed of these splits. It is not the run's seed, so that several runs share one split.
        workers: loader processes per rank; 0 loads in the main process. No effect on the result.
        patience: seconds to wait for the next images of the loader workers; 0 waits for ever. No effect on the result.
        corrupt: what to do with an image that cannot be read: ``fail`` stops, ``skip`` leaves it out. In training
            another one takes its place, and a line says so. Images that score anything are never skipped.
        corrupt_limit: how many different images a process may skip before it stops after all.
        decode: where JPEGs are decoded for training on a GPU: ``cpu``, ``gpu``, or ``auto`` (on the GPU if possible).
            The two decoders differ by a rounding here and there.
    """

    name: str = "digits"
    root: str | None = None
    image_size: str | None = None
    search_fraction: float = 0.1
    test_fraction: float = 0.2
    split_seed: int = 0
    workers: int = 0
    patience: int = 50
    corrupt: str = "fail"
    corrupt_limit: int = 100
    decode: str = "auto"

    def __post_init__(self) -> None:
        check_share(self, "search_fraction", "test_fraction", prefix="data.", zero=False, one=False)
        check_at_least(self, 0, "workers", "patience", "corrupt_limit", prefix="data.")
        check_choice(self, CORRUPT, "corrupt", prefix="data.")
        check_choice(self, DECODE, "decode", prefix="data.")


@dataclass
class AugmentConfig:
    """How training images are augmented; the defaults are DeiT's (arXiv 2012.12877, table 9).

    Attributes:
        crop_scale: smallest and largest share of the image that a random resized crop keeps; [1, 1] only resizes.
        crop_ratio: narrowest and widest aspect ratio of that crop.
        flip: probability of a horizontal flip.
        rotate: largest rotation in degrees; 0 is none.
        color_jitter: strength of brightness, contrast and saturation jitter where RandAugment is off.
        randaugment_ops: RandAugment operations per image; 0 switches it off.
        randaugment_magnitude: their magnitude, 0 to 30. It is three times that of timm, which counts to 10.
        randaugment_std: standard deviation of the magnitude between operations, in the same unit.
        randaugment_probability: probability with which each of the operations is applied.
        erasing: probability of random erasing.
        mixup: alpha of mixup; 0 switches it off.
        cutmix: alpha of cutmix; 0 switches it off. When both are on, a fair coin chooses per batch.
        mix_probability: share of batches that are mixed at all.
        repeats: versions of each image in a batch, for repeated augmentation (arXiv 1901.09335).
    """

    crop_scale: list[float] = field(default_factory=lambda: [0.08, 1.0])
    crop_ratio: list[float] = field(default_factory=lambda: [3 / 4, 4 / 3])
    flip: float = 0.5
    rotate: float = 0.0
    color_jitter: float = 0.0
    randaugment_ops: int = 2
    randaugment_magnitude: int = 27
    randaugment_std: float = 1.5
    randaugment_probability: float = 0.5
    erasing: float = 0.25
    mixup: float = 0.8
    cutmix: float = 1.0
    mix_probability: float = 1.0
    repeats: int = 1

    def __post_init__(self) -> None:
        for key in ("crop_scale", "crop_ratio"):
            check_above(self, 0, key, prefix="augment.")
            low_high = getattr(self, key)
            if len(low_high) != 2 or low_high[0] > low_high[1]:
                raise ValueError(f"augment.{key} is {low_high}; give the smallest and the largest")
        check_share(self, "flip", "erasing", "mix_probability", "randaugment_probability", prefix="augment.")
        strengths = ("rotate", "color_jitter", "randaugment_ops", "randaugment_std", "mixup", "cutmix")
        check_at_least(self, 0, *strengths, prefix="augment.", why="0 switches it off")
        check_between(self, 0, 30, "randaugment_magnitude", prefix="augment.")
        check_at_least(self, 1, "repeats", prefix="augment.", why="more than 1 is repeated augmentation")


@dataclass
class PrepareConfig:
    """Settings of ``psvit-search prepare-data``.

    Attributes:
        save: folder of the cache.
        size: pixels of a JPEG's shorter side (never enlarged), or of both sides of a raw image.
        store: ``jpeg``, or ``raw`` for uint8 pixels, which take about five times the space and no time to decode.
        quality: JPEG quality, 1 to 100.
        workers: processes that read and resize; None is one per core. No effect on the result.
        verify: check an existing cache instead, and name the files that are damaged.
        data: dataset to pack, with all its splits.
    """

    save: str = "???"
    size: int = 256
    store: str = "jpeg"
    quality: int = 95
    workers: int | None = None
    verify: bool = False
    data: DataConfig = field(default_factory=DataConfig)

    def __post_init__(self) -> None:
        check_at_least(self, 1, "size")
        check_choice(self, STORES, "store")
        check_between(self, 1, 100, "quality")
        check_at_least(self, 0, "workers")


@dataclass
class CheckConfig:
    """Settings of ``psvit-search check``.

    Attributes:
        data: dataset to look at, with all its splits.
        cache: keep what was found of each file in the user's cache folder, and read only those that have changed.
        json: print JSON instead of text.
    """

    data: DataConfig = field(default_factory=DataConfig)
    cache: bool = True
    json: bool = False
