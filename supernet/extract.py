"""``psvit-search inherit``: the weights that an architecture inherits, as a file to evaluate or to train on.

No torch before the task starts, so that its help shows at once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from psvit.arch import CellPath, NetworkSpec
from psvit.archfile import load_arch


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


def extract(config: InheritConfig) -> Path:
    """Write the weights of an architecture's canonical path, the one that a search scores.

    Returns:
        The file.

    Raises:
        ValueError: a faulty arch.json, one of another space, or no trained supernet.
    """
    from psvit.supernet.checkpoint import TrainedSupernet
    from psvit.supernet.inherit import inherit
    from psvit.weights import save_weights

    arch, trained = load_arch(Path(config.arch)), TrainedSupernet.open(Path(config.supernet))
    _same_space(config, arch.spec, trained.space.spec)
    trained.space.check(arch.architecture)
    path = CellPath.canonical(arch.architecture, trained.space.cells)
    about = {"network": asdict(arch.spec), "architecture": str(arch.architecture), "path": str(path)}
    save = Path(config.save)
    save_weights(save, inherit(trained.load(), path), {**about, "supernet_sha256": trained.sha256})
    print(f"wrote {save}, the weights that {arch.architecture} inherits from {trained.path} on the path {path}")
    print(f"to train them on: psvit-search retrain --arch {config.arch} --start {save}")
    return save


def _same_space(config: InheritConfig, spec: NetworkSpec, space: NetworkSpec) -> None:
    here, there = asdict(spec), asdict(space)
    for key in here:
        if key != "name" and here[key] != there[key]:
            raise ValueError(
                f"{config.arch} is of another space than the supernet {config.supernet}: {key} is {here[key]}, there "
                f"{there[key]}; give the supernet that it was searched in (--supernet RUN)"
            )
