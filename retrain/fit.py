"""A network for the data at hand: found by its name, checked against the data or made to fit them, with weights."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from psvit.data.data import Data
from psvit.networks import Network, find_network, is_file
from psvit.weights import load_weights


def fit_to_data(network: Network, data: Data, adapt: bool) -> Network:
    """The network, checked against the data that it is to learn; with ``adapt``, made to fit them.

    Raises:
        ValueError: the data has another number of classes or another image size.
    """
    fitted = network.for_data(data.classes, data.image_size)
    if fitted == network or adapt:
        return fitted
    here, there = (f"{each.classes} classes at {_pixels(each.image_size)}" for each in (network, fitted))
    raise ValueError(
        f"arch.json has {here}, the data {data.config.name} {there}: give the data it was searched on "
        "(data=... data.root=...), or set adapt=true to train it on this data"
    )


def open_network(text: str, data: Data) -> Network:
    """The network that a text names, checked against the data that it is to be looked at with.

    A name takes classes and image size from the data. An arch.json has its own; images are resized to them.

    Raises:
        ValueError: nothing has this name, the arch.json is faulty, the data has another number of classes, or
            ``data.image_size`` is given and is another size.
    """
    network = find_network(text)
    if not is_file(text):
        network = network.for_data(data.classes, data.image_size)
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
    return network


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
