"""A network for the data at hand: found by its name, checked against the data or made to fit them, with weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from psvit.data.data import Data
from psvit.networks import Network, find_network, is_file
from psvit.weights import load_weights, read_trained_on


def fit_to_data(network: Network, data: Data, adapt: bool) -> Network:
    """The network, checked against the data that it is to learn; with ``adapt``, made to fit them.

    Raises:
        ValueError: the data has another number of classes, classes of other names, or another image size.
    """
    fitted = network.for_data(data.classes, data.image_size)
    if not adapt:
        _check_fits(network, fitted, data)
    return fitted.meets(data.trained_on(fitted.image_size))


def _check_fits(network: Network, fitted: Network, data: Data) -> None:
    remedy = "give the data it was searched on (data=... data.root=...), or set adapt=true to train it on this data"
    if fitted != network:
        here, there = (f"{each.classes} classes at {_pixels(each.image_size)}" for each in (network, fitted))
        raise ValueError(f"arch.json has {here}, the data {data.config.name} {there}: {remedy}")
    if network.trained_on is not None:
        missing = sorted(set(network.trained_on.class_names) - set(data.class_names))
        if missing:
            raise ValueError(f"arch.json has a class {missing[0]!r}, the data {data.config.name} has none: {remedy}")


@dataclass(frozen=True)
class TrainedNetwork:
    """A network with its weights, and data as it is to see them.

    Attributes:
        network: what it is.
        module: with its weights, on the CPU, in eval mode.
        data: preprocessed and labelled as those that the weights have learned from.
    """

    network: Network
    module: nn.Module
    data: Data


def open_trained(text: str, weights: Path, data: Data) -> TrainedNetwork:
    """The network that a text names with its trained weights, and the data that it is to be looked at with.

    A name takes classes and image size from the weights and the data; an arch.json has its own. Images are resized to
    the network's size and normalised as the weights say, or, where these do not say, as their dataset's are by custom.

    Raises:
        ValueError: nothing has this name; a faulty arch.json; weights that are missing, damaged or of another network;
            data of classes that the network does not know; or ``data.image_size`` is given and is another size.
    """
    network, known = find_network(text), read_trained_on(weights)
    known = network.trained_on if known is None else known
    seen = data if known is None else data.as_seen_by(known, str(weights))
    if not is_file(text):
        network = network.for_data(seen.classes, seen.image_size)
    _check_sees(text, network, seen)
    return TrainedNetwork(network, load_trained(network, weights), seen)


def _check_sees(text: str, network: Network, data: Data) -> None:
    if data.classes != network.classes:
        raise ValueError(
            f"{text} has {network.classes} classes, the data {data.config.name} {data.classes}: give the data it "
            "was trained on (data=... data.root=...)"
        )
    if data.config.image_size is not None and data.image_size != network.image_size:
        raise ValueError(
            f"{text} takes images of {_pixels(network.image_size)}, but data.image_size is {data.config.image_size}; "
            "omit data.image_size: images are resized to fit the network"
        )


def load_trained(network: Network, weights: Path) -> nn.Module:
    """A network with its trained weights, on the CPU, in eval mode.

    Raises:
        ValueError: the file is missing or damaged, or holds the weights of another network.
    """
    module = network.build()
    load_weights(weights, module)
    return module.eval()


def _pixels(size: tuple[int, int]) -> str:
    return f"{'x'.join(map(str, size))} px"
