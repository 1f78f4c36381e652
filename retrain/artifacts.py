"""What a training leaves in its run folder beside result.json: weights, arch.json, curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from psvit.archfile import ArchFile, save_arch
from psvit.engine.loop import Trained
from psvit.networks import Network
from psvit.retrain.plots import draw_training
from psvit.weights import save_weights

WEIGHTS = "model.safetensors"
EMA_WEIGHTS = "model_ema.safetensors"


def save_trained(folder: Path, trained: Trained, network: Network, about: dict[str, Any]) -> list[nn.Module]:
    """Write weights, the arch.json of a network of ours, and the curves of the training.

    Args:
        about: what the header of the weights says.

    Returns:
        What was saved: the network and, where the recipe keeps one, its moving average.
    """
    models = {WEIGHTS: trained.model}
    if trained.ema is not None:
        models[EMA_WEIGHTS] = trained.ema
    for name, model in models.items():
        save_weights(folder / name, model, about)
    if isinstance(network, ArchFile):
        save_arch(folder / "arch.json", network)
    draw_training(folder / "metrics.csv", folder / "training.png")
    return list(models.values())


def tell_files(folder: Path, network: Network, *others: str) -> None:
    """Print where everything lies; ``others`` is what was made beside weights, record and curves."""
    files = [*["arch.json"] * isinstance(network, ArchFile), "result.json", "training.png", *others]
    print(f"wrote {folder / WEIGHTS}, and {', '.join(files[:-1])} and {files[-1]} next to it")
