"""A path's weights, taken out of the supernet as a network of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from psvit.arch import IDENTITY, CellPath
from psvit.model import PSViT
from psvit.supernet.supernet import Supernet


def inherit(supernet: Supernet, path: CellPath) -> PSViT:
    """The standalone network of a path, with a copy of the path's weights; it gives the supernet path's logits.

    Raises:
        ValueError: a path of another number of stages or cells.
    """
    weights: dict[str, Tensor] = {
        name: tensor for name, tensor in supernet.state_dict().items() if not name.startswith("stages.")
    }
    for stage, word in enumerate(path.stages):
        chosen = [(cell, letter) for cell, letter in enumerate(word) if letter != IDENTITY]
        for depth, (cell, letter) in enumerate(chosen):
            for name, tensor in supernet.layer_weights(stage, cell, letter).items():
                weights[f"stages.{stage}.{depth}.{name}"] = tensor
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced at once
        network = PSViT(supernet.spec, path.architecture)
    network.load_state_dict({name: tensor.detach().clone() for name, tensor in weights.items()}, assign=True)
    return network.train(supernet.training)
