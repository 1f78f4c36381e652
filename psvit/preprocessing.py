"""What turns a picture into what a network sees: it is part of a trained network, as its weights are. No torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from psvit.run.records import require_object, typed

Colour = tuple[float, float, float]

RESIZES = ("cover", "stretch")
# A photograph is looked at in its middle: this share of its shorter side, the custom of ImageNet (224 of 256 pixels).
EVAL_CROP = 0.875
EVAL_CROP_FROM = 64  # pixels: smaller images have no margin to spare


@dataclass(frozen=True)
class Preprocessing:
    """How an image of any size becomes the network's input.

    Attributes:
        mean, std: of RGB values in 0..1, by which they are normalised.
        resize: ``cover`` keeps the image's shape, makes it cover the network's size / ``crop`` and cuts the middle out;
            ``stretch`` makes it the network's size.
        crop: share of the resized image's sides that is kept, 0 to 1; 1 where it is stretched.
        interpolation: of the resizing, antialiased; only ``bicubic`` is known.
        channels: only ``RGB`` is known.

    Raises:
        ValueError: a value that cannot be; names the field.
    """

    mean: Colour
    std: Colour
    resize: str
    crop: float
    interpolation: str = "bicubic"
    channels: str = "RGB"

    def __post_init__(self) -> None:
        for name, known in (("resize", RESIZES), ("interpolation", ("bicubic",)), ("channels", ("RGB",))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r:.60}; it must be {' or '.join(known)}")
        if not 0 < self.crop <= 1 or (self.resize == "stretch" and self.crop != 1):
            raise ValueError(f"crop is {self.crop}; it must be a share above 0, and 1 where images are stretched")
        if not all(map(math.isfinite, self.mean)) or not all(0 < value < math.inf for value in self.std):
            raise ValueError(f"mean is {self.mean} and std {self.std}; they must be finite, and std above 0")

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, value: Any, where: str = "$") -> Preprocessing:
        """What plain values describe.

        Args:
            where: their place in the file.

        Raises:
            ValueError: an unknown or missing key, a wrong type or a value that cannot be; begins with its place.
        """
        kinds: dict[str, Any] = {"mean": Colour, "std": Colour, "resize": str, "crop": float}
        kinds |= {"interpolation": str, "channels": str}
        require_object(value, where, set(kinds), required=set(kinds))
        given = {key: typed(kind, value[key], f"{where}.{key}") for key, kind in kinds.items()}
        try:
            return cls(**given)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None


def usual_preprocessing(mean: Colour, std: Colour, photographs: bool, size: tuple[int, int]) -> Preprocessing:
    """How images of a dataset, seen at (height, width), are scored by custom: of photographs from 64 px the middle."""
    if photographs and min(size) >= EVAL_CROP_FROM:
        return Preprocessing(mean, std, "cover", EVAL_CROP)
    return Preprocessing(mean, std, "stretch", 1.0)


@dataclass(frozen=True)
class TrainedOn:
    """What a network was trained on, as far as whoever uses it must know: it belongs to its weights and its arch.json.

    Attributes:
        class_names: what each output stands for.
        preprocessing: of its images; their size is the network's own.
    """

    class_names: tuple[str, ...]
    preprocessing: Preprocessing

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"class_names": list(self.class_names), "preprocessing": self.preprocessing.to_json()}

    @classmethod
    def from_json(cls, value: Any, where: str = "$") -> TrainedOn:
        """What plain values describe.

        Raises:
            ValueError: as :meth:`Preprocessing.from_json`, or a class is named twice.
        """
        require_object(value, where, {"class_names", "preprocessing"}, required={"class_names", "preprocessing"})
        names: tuple[str, ...] = typed(tuple[str, ...], value["class_names"], f"{where}.class_names")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"{where}.class_names: names {twice!r} twice")
        return cls(names, Preprocessing.from_json(value["preprocessing"], f"{where}.preprocessing"))
