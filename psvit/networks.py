"""What can be trained, scored and looked at, by name: our networks, and torchvision's classifiers beside them.

No torch before one is built or counted.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from psvit.arch import Architecture
from psvit.archfile import ArchFile, load_arch
from psvit.cost import Cost
from psvit.preprocessing import TrainedOn
from psvit.zoo import NETWORKS, SPACES

if TYPE_CHECKING:
    from torch import nn

TORCHVISION = "torchvision:"


class Network(Protocol):
    """A classifier that can be built, whoever wrote its code; an :class:`ArchFile` is one of ours."""

    @property
    def name(self) -> str:
        """What it is called in tables and messages."""
        ...

    @property
    def classes(self) -> int:
        """Outputs of its head."""
        ...

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of its images in pixels."""
        ...

    @property
    def trained_on(self) -> TrainedOn | None:
        """Names of its classes and preprocessing of its images, once it has met data."""
        ...

    @property
    def cost(self) -> Cost:
        """FLOPs (multiply-adds an image) and parameters."""
        ...

    def build(self, drop_path: float = 0.0) -> nn.Module:
        """The network with random weights: images (B, channels, height, width) -> logits (B, classes)."""
        ...

    def for_data(self, classes: int, image_size: tuple[int, int] | None) -> Network:
        """The same network for other classes and, unless None, another image size."""
        ...

    def meets(self, trained_on: TrainedOn) -> Network:
        """The same network, with what it is trained on; the number of classes is its own."""
        ...

    def about(self) -> dict[str, Any]:
        """What it is, as plain values: for the header of its weights and for checkpoints."""
        ...


@dataclass(frozen=True)
class TorchvisionNetwork:
    """A classifier of torchvision, ``torchvision:resnet18``, that is trained as ours are.

    Raises:
        ValueError: torchvision has none of this name, or its answer in training is not logits alone.
    """

    name: str
    classes: int = 1000
    image_size: tuple[int, int] = (224, 224)
    trained_on: TrainedOn | None = None

    def __post_init__(self) -> None:
        from torchvision import models

        short, names = self.name.removeprefix(TORCHVISION), models.list_models(module=models)
        if short not in names:
            close = " or ".join(get_close_matches(short, names, n=3))
            guess = f"did you mean {close}?" if close else "torchvision.models.list_models() lists them"
            raise ValueError(f"{self.name}: torchvision has no such classifier; {guess}")
        if short in ("googlenet", "inception_v3"):
            raise ValueError(f"{self.name}: returns several outputs in training; choose another one")

    def build(self, drop_path: float = 0.0) -> nn.Module:
        """The network with torchvision's random weights; it has no drop path, whatever the rate."""
        from torchvision import models

        short = self.name.removeprefix(TORCHVISION)
        network: nn.Module = models.get_model(short, weights=None, num_classes=self.classes)
        return network

    @cached_property
    def cost(self) -> Cost:
        """What a forward pass is counted to cost; it is run without data."""
        import torch

        from psvit.flops import count_flops

        with torch.device("meta"):
            network = self.build().eval()
            flops = count_flops(network, torch.empty(1, 3, *self.image_size))
        return Cost(flops, sum(weight.numel() for weight in network.parameters()))

    def for_data(self, classes: int, image_size: tuple[int, int] | None) -> Network:
        fitted = replace(self, classes=classes, image_size=image_size or self.image_size, trained_on=None)
        return self if fitted == replace(self, trained_on=None) else fitted

    def meets(self, trained_on: TrainedOn) -> Network:
        assert len(trained_on.class_names) == self.classes
        return replace(self, trained_on=trained_on)

    def about(self) -> dict[str, Any]:
        about: dict[str, Any] = {"network": {"name": self.name, "classes": self.classes}}
        about["network"]["image_size"] = list(self.image_size)
        return about if self.trained_on is None else about | {"trained_on": self.trained_on.to_json()}


def find_network(text: str) -> Network:
    """The network that a text names: all of :func:`find_arch`, or ``torchvision:resnet18``.

    Raises:
        ValueError: nothing has this name, or the arch.json is faulty.
    """
    return TorchvisionNetwork(text) if text.startswith(TORCHVISION) else find_arch(text)


def find_arch(text: str) -> ArchFile:
    """The network of ours that a text names.

    Args:
        text: the path of an arch.json, a named network (``deit_tiny_16``), or a space or network and layers
            (``1d_tiny_16:BSB-BB-B``).

    Raises:
        ValueError: nothing has this name, or the arch.json is faulty.
    """
    if text in NETWORKS:
        return ArchFile(*NETWORKS[text])
    if is_file(text):
        return load_arch(Path(text))
    name, colon, layers = text.partition(":")
    known = SPACES | {network: spec for network, (spec, _) in NETWORKS.items()}
    if name not in known:
        begin = [other for other in known if name and other.startswith(name)]
        close = " or ".join(begin[:4] or get_close_matches(name, known, n=3))
        hint = f"did you mean {close}?" if close else f"give an arch.json, or one of {', '.join(known)}"
        raise ValueError(f"no network is named {name!r:.200}; {hint}")
    if not colon:
        raise ValueError(f"{name} is a space of many networks; give its layers, such as {name}:BSB-BB-B")
    try:
        architecture = Architecture.parse(layers)
    except ValueError as error:
        raise ValueError(f"{text}: {error}") from None
    spec = known[name]
    if len(architecture.stages) != spec.stages:
        raise ValueError(f"{text}: the number of stages is {len(architecture.stages)}, but {name} has {spec.stages}")
    return ArchFile(spec, architecture)


def is_file(text: str) -> bool:
    """Whether a text means an arch.json and not a name."""
    return os.path.isfile(text) or text.endswith(".json")  # Path.is_file raises on a name that is too long
