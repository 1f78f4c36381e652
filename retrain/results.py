"""What the training of a network leaves in its run folder: weights, arch.json, curves, and result.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

import psvit
from psvit.archfile import ArchFile, save_arch
from psvit.engine.loop import Trained
from psvit.networks import Network
from psvit.retrain.plots import draw_training
from psvit.run.files import sha256, write_text
from psvit.weights import save_weights

WEIGHTS = "model.safetensors"
PLAIN_WEIGHTS = "model_plain.safetensors"


def save_trained(folder: Path, trained: Trained, network: Network, about: dict[str, Any]) -> list[nn.Module]:
    """Write weights, the arch.json of a network of ours, and the curves of the training.

    Args:
        about: what the header of the weights says.

    Returns:
        What the weights are of: the moving average and the plain network, or that alone where nothing was averaged.
    """
    models = {WEIGHTS: trained.ema or trained.model}
    if trained.ema is not None:
        models[PLAIN_WEIGHTS] = trained.model
    for name, model in models.items():
        save_weights(folder / name, model, about)
    if isinstance(network, ArchFile):
        save_arch(folder / "arch.json", network)
    draw_training(folder / "metrics.csv", folder / "training.png")
    return list(models.values())


def write_result(folder: Path, network: Network, measured: dict[str, Any]) -> None:
    """Write ``result.json``: what was measured and how, with the network before and the files' SHA-256 behind."""
    ours = isinstance(network, ArchFile)
    result = {
        "network": network.name,
        "layers": str(network.architecture) if isinstance(network, ArchFile) else None,
        **measured,
        "arch_sha256": sha256(folder / "arch.json") if ours else None,
        "weights_sha256": sha256(folder / WEIGHTS),
        "tool": f"psvit-search {psvit.__version__}",
    }
    write_text(folder / "result.json", json.dumps(result, indent=2) + "\n")


def tell_files(folder: Path, network: Network, picture: str) -> None:
    """Print where everything lies; ``picture`` is what was drawn beside the curves."""
    files = [*["arch.json"] * isinstance(network, ArchFile), "result.json", f"training.png and {picture}"]
    print(f"wrote {folder / WEIGHTS}, and {', '.join(files)} beside it")
