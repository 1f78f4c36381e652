"""What goes into trained weights and what comes out: how images are prepared, and what each output is called. No torch.

It stands in arch.json and in the header of a weights file under the same two keys, ``class_names`` and
``preprocessing``; whatever takes weights prepares images by it and finds classes by their names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psvit.run.records import plain, typed

RESIZE = ("cover", "squeeze")
INTERPOLATIONS = ("bicubic", "bilinear")
CHANNELS = ("RGB",)
_NAMED = 5  # classes in a message


@dataclass(frozen=True)
class Preprocessing:
    """From a picture of any size to what a network sees; its image size is the network's.

    Attributes:
        mean, std: that each channel, 0 to 1, is normalised by.
        resize: ``squeeze`` to the image size, or ``cover``: keep the shape until it covers the size / ``crop``.
        crop: share of the covered size that is kept, in the middle; 1 with ``squeeze``.
        interpolation: ``bicubic`` or ``bilinear``, antialiased.
        channels: their order, ``RGB``.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: str = "squeeze"
    crop: float = 1.0
    interpolation: str = "bicubic"
    channels: str = "RGB"

    def __post_init__(self) -> None:
        for key, known in (("resize", RESIZE), ("interpolation", INTERPOLATIONS), ("channels", CHANNELS)):
            if getattr(self, key) not in known:
                raise ValueError(f"{key} is {getattr(self, key)!r}; it must be {' or '.join(known)}")
        if not all(value > 0 for value in self.std):
            raise ValueError(f"std is {list(self.std)}; it must be above 0")
        if not 0 < self.crop <= 1 or (self.resize == "squeeze" and self.crop != 1):
            raise ValueError(f"crop is {self.crop}; it must be above 0 and at most 1, and 1 with squeeze")


@dataclass(frozen=True)
class Interface:
    """How images are prepared for trained weights, and the name of each of their outputs.

    Attributes:
        class_names: their place is the output.
    """

    class_names: tuple[str, ...]
    preprocessing: Preprocessing

    @classmethod
    def read(cls, document: dict[str, Any], where: str = "$") -> Interface | None:
        """That of an object in which it stands beside other keys; None where there is none.

        Raises:
            ValueError: a wrong type or value; begins with its place in the file.
        """
        if document.get("class_names") is None or document.get("preprocessing") is None:
            return None
        return typed(cls, {key: document[key] for key in ("class_names", "preprocessing")}, where)

    def to_json(self) -> dict[str, Any]:
        """The two keys as plain values."""
        return {"class_names": list(self.class_names), "preprocessing": plain(self.preprocessing)}

    def places(self, class_names: Sequence[str], subject: str) -> list[int]:
        """The output of each class of some data.

        Args:
            subject: what the weights are called in the message.

        Raises:
            ValueError: the data has classes that the weights do not know.
        """
        if tuple(class_names) == self.class_names:
            return [*range(len(class_names))]
        for name in class_names:
            if self.class_names.count(name) > 1:  # as ImageNet's two cranes
                raise ValueError(f"{subject} has several classes {name!r}; give data of its classes in its order")
        strange = [name for name in class_names if name not in self.class_names]
        if strange:
            raise ValueError(
                f"{subject} knows the classes {_listed(self.class_names)}, but not {_listed(strange)} of the data: "
                "give data of the classes that it was trained on"
            )
        return [self.class_names.index(name) for name in class_names]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(repr, names[:_NAMED])) + more
