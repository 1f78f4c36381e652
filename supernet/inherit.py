"""``psvit-search inherit``: the weights that an architecture has in the supernet, as a network and as a file.

No torch before something is inherited, so that the command's help shows at once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from psvit.arch import IDENTITY, CellPath, NetworkSpec
from psvit.archfile import load_arch

if TYPE_CHECKING:
    from torch import Tensor

    from psvit.model import PSViT
    from psvit.supernet.supernet import Supernet


@dataclass
class InheritConfig:
    """Settings of ``psvit-search inherit``.

    Attributes:
        runs: folder of all runs.
        name: name of the project; its runs are in ``runs/NAME/``.
        arch: the architecture, an arch.json of the supernet's space.
        supernet: run folder of ``train-supernet``.
        save: safetensors file to write the weights to.
    """

    runs: str = "runs"
    name: str = "default"
    arch: str = "???"
    supernet: str = "???"
    save: str = "???"


def inherit(supernet: Supernet, path: CellPath) -> PSViT:
    """The standalone network of a path, with a copy of the path's weights; it gives the supernet path's logits.

    Raises:
        ValueError: a path of another number of stages or cells.
    """
    import torch

    from psvit.model import PSViT

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


def inherit_weights(config: InheritConfig) -> Path:
    """Write the weights of an architecture's canonical path, the one that a search scores.

    Returns:
        The file.

    Raises:
        ValueError: a faulty arch.json, one of another space, or no trained supernet.
    """
    from psvit.supernet.checkpoint import TrainedSupernet
    from psvit.weights import save_weights

    arch, trained = load_arch(Path(config.arch)), TrainedSupernet.open(Path(config.supernet))
    _check_same_space(config, arch.spec, trained.space.spec)
    trained.space.check(arch.architecture)
    path = CellPath.canonical(arch.architecture, trained.space.cells)
    about = {**arch.meets(trained.trained_on).about(), "path": str(path)}
    save = Path(config.save)
    save_weights(save, inherit(trained.load(), path), {**about, "supernet_sha256": trained.sha256()})
    print(f"wrote {save}, the weights that {arch.architecture} inherits from {trained.path} on path {path}")
    print(f"to train them on: psvit-search retrain --arch {config.arch} --start {save}")
    return save


def _check_same_space(config: InheritConfig, spec: NetworkSpec, space: NetworkSpec) -> None:
    """Refuse an architecture of other dimensions than the supernet's, its name apart."""
    here, there = asdict(spec), asdict(space)
    for key in here:
        if key != "name" and here[key] != there[key]:
            raise ValueError(
                f"{config.arch} is from another space than the supernet {config.supernet}: {key} is {here[key]} "
                f"here, {there[key]} there; give the supernet that it was searched in (--supernet RUN)"
            )
