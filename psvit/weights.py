"""Published weights: safetensors files whose header says, as JSON, what they are of. They hold no code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from psvit.preprocessing import TrainedOn
from psvit.run.files import write_atomically


def save_weights(path: Path, module: nn.Module, about: dict[str, Any]) -> None:
    """Write a module's weights, with ``about`` (plain JSON values) in the header, whole or not at all."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    content = save(tensors, metadata={"psvit": json.dumps(about, sort_keys=True)})
    write_atomically(path, lambda file: file.write(content))


def read_about(path: Path) -> dict[str, Any]:
    """What the header of a weights file says, without reading the weights.

    Raises:
        ValueError: the file is missing, cut short, no safetensors file, or not one of ours.
    """
    with _open(path) as file:
        about = (file.metadata() or {}).get("psvit")
    if about is None:
        raise ValueError(f"{path}: a safetensors file, but not one that psvit-search wrote")
    content: dict[str, Any] = json.loads(about)
    return content


def read_trained_on(path: Path) -> TrainedOn | None:
    """What the header of a weights file says of their data; None where it does not say, or another program wrote it.

    Raises:
        ValueError: the file is missing, cut short or no safetensors file, or its header cannot be true.
    """
    with _open(path) as file:
        about = (file.metadata() or {}).get("psvit")
    found = json.loads(about).get("trained_on") if about is not None else None
    try:
        return None if found is None else TrainedOn.from_json(found, "trained_on")
    except ValueError as error:
        raise ValueError(f"{path}: header: {error}") from None


def load_weights(path: Path, module: nn.Module) -> None:
    """Load a weights file into a module whose parameters have the same names and shapes.

    Raises:
        ValueError: as :func:`read_tensors` and :func:`load_tensors`.
    """
    load_tensors(path, read_tensors(path), module)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, whoever wrote it.

    Raises:
        ValueError: the file is missing, cut short or no safetensors file.
    """
    with _open(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def load_tensors(path: Path, tensors: Mapping[str, Tensor], module: nn.Module) -> None:
    """Load tensors into a module whose parameters have the same names and shapes.

    Args:
        path: the file that they are from, for the message.

    Raises:
        ValueError: they are of another network; the message names the first tensor that differs.
    """
    own = module.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        there = tuple(tensors[name].shape) if name in tensors else "missing"
        here = tuple(own[name].shape) if name in own else "unknown"
        if there != here:
            raise ValueError(
                f"{path}: weights of another network: {name} is {there} in the file, {here} in the network"
            )
    module.load_state_dict(tensors)


def _open(path: Path) -> Any:
    if not path.is_file():
        raise ValueError(f"{path}: there is no such weights file")
    try:
        return safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path}: not a valid safetensors file ({error}); it is truncated or of another kind"
        ) from None
