"""``psvit-search explain``: look into trained networks, and write down and draw what is there."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import psvit
from psvit.archfile import ArchFile
from psvit.data.data import Data
from psvit.data.datasets import open_dataset
from psvit.data.decode import read_image
from psvit.data.pixels import stratified_order
from psvit.data.transforms import EvalTransform
from psvit.draw import draw_architecture
from psvit.engine.device import pick_device
from psvit.explain.config import ExplainConfig
from psvit.explain.gradcam import Array, captum_attr, check_supported, grad_cam, on_patches, over_image, places
from psvit.explain.plots import Seen, draw_attention, draw_gradcam, draw_heads, draw_tokens
from psvit.explain.similarity import MapSimilarity, TokenSimilarity, images_at_once, match_heads, measure
from psvit.model import PSViT
from psvit.networks import Network, find_network, is_file
from psvit.run.files import sha256, write_text
from psvit.weights import load_weights
from psvit.zoo import SPACES

_PICTURED = 8  # images of the split that Grad-CAM is drawn of
_AT_ONCE = 16  # images of a Grad-CAM
_VERSUS = "_versus"  # ends the file names of the second network's pictures


@dataclass(frozen=True)
class Subject:
    """A trained network that is looked into.

    Attributes:
        title: its name in tables and pictures, another one than any other's.
        ending: of the names of its pictures.
        weights: the file that its weights are from.
        module: on the device, in eval mode.
    """

    title: str
    ending: str
    network: Network
    weights: Path
    module: nn.Module


@dataclass(frozen=True)
class Similarity:
    """The similarity of maps for each stage, and of tokens for each of its layers."""

    maps: list[MapSimilarity]
    tokens: list[list[TokenSimilarity]]


def explain(config: ExplainConfig) -> Path:
    """Write similarity of attention maps and tokens, Grad-CAM and drawings of one network or two into a folder.

    Returns:
        The folder.

    Raises:
        ValueError: an unknown network, weights of another one, data of other classes, an image file that cannot be
            read, too few images, or captum is missing.
    """
    captum_attr()
    device, folder = pick_device(config.device), Path(config.save)
    dataset = open_dataset(config.data)
    data = Data(config.data, dataset)
    subjects = [_open(config.arch, config.weights, data, device)]
    if config.versus is not None and config.versus_weights is not None:
        subjects.append(_open(config.versus, config.versus_weights, data, device, subjects[0].title))
    order = stratified_order(data.labels(config.split), config.seed)[: config.num_images]
    if len(order) < 2:
        raise ValueError(f"the split {config.split} has {len(order)} image; explain compares images and needs 2")

    chosen = order[:_PICTURED]
    captions = [Path(path).name for path in config.pictures] or [f"{config.split} image {index}" for index in chosen]
    true = (
        [None] * len(captions) if config.pictures else [data.class_names[data.labels(config.split)[i]] for i in chosen]
    )
    given = [read_image(Path(path).expanduser()) for path in config.pictures]

    def pictures(size: tuple[int, int]) -> Tensor:
        """What Grad-CAM is drawn of, as a network sees it: uint8 (n, 3, *size)."""
        if given:
            return EvalTransform(size, dataset.photographs)(given)
        return next(data.pixel_batches(config.split, size, [chosen.tolist()]))[0]

    similarity = {}
    for subject in subjects:
        if isinstance(subject.module, PSViT):
            batches = _batches(subject, data, config.split, order, device)
            similarity[subject.title] = Similarity(*measure(subject.module, batches))
    seen = [_see(subject, pictures(subject.network.image_size), data, device) for subject in subjects]

    written = _write_tables(similarity, folder)
    for subject in subjects:
        written += _draw(subject, similarity.get(subject.title), len(order), folder)
    draw_gradcam(seen, captions, true, folder / "gradcam.png")
    about = {
        "data": config.data.name,
        "split": config.split,
        "images": len(order),
        "seed": config.seed,
        "networks": [
            _about(subject, similarity.get(subject.title), one, captions, true)
            for subject, one in zip(subjects, seen, strict=True)
        ],
        "tool": f"psvit-search {psvit.__version__}",
    }
    write_text(folder / "explain.json", json.dumps(about, indent=2, allow_nan=False) + "\n")
    for subject in subjects:
        print("\n".join(_lines(subject, similarity.get(subject.title))))
    print(f"wrote into {folder}: {', '.join([*written, 'gradcam.png', 'explain.json'])}")
    return folder


def _open(text: str, weights: str, data: Data, device: torch.device, other: str | None = None) -> Subject:
    """A network with its trained weights.

    Args:
        other: the title of the network that it stands beside.
    """
    network = find_network(text)
    if not is_file(text):  # a name is of any data
        network = network.for_data(data.classes, data.image_size)
    if data.classes != network.classes:
        raise ValueError(
            f"{text} is of {network.classes} classes, the data {data.config.name} of {data.classes}: name the data it "
            "was trained on (data=... data.root=...)"
        )
    title = network.name or "network"
    if isinstance(network, ArchFile) and network.spec.name in SPACES:
        title += f" {network.architecture}"
    module = network.build()
    check_supported(module, text)
    load_weights(Path(weights), module)
    if title == other:
        title += " (versus)"
    return Subject(title, _VERSUS if other else "", network, Path(weights), module.to(device).eval())


def _batches(subject: Subject, data: Data, split: str, order: Any, device: torch.device) -> Iterator[Tensor]:
    """The images of an order, normalised, on the device."""
    assert isinstance(subject.network, ArchFile)
    at_once = images_at_once(subject.network.spec, subject.network.architecture)
    numbers = (order[start : start + at_once].tolist() for start in range(0, len(order), at_once))
    for pixels, _ in data.pixel_batches(split, subject.network.image_size, numbers):
        yield data.normalize(pixels.to(device))


def _see(subject: Subject, pixels: Tensor, data: Data, device: torch.device) -> Seen:
    """Grad-CAM of images, uint8 (n, 3, *size)."""
    parts = [grad_cam(subject.module, data.normalize(part.to(device))) for part in torch.split(pixels, _AT_ONCE)]
    logits = torch.cat([logits for logits, _ in parts])
    maps = np.concatenate([maps for _, maps in parts])
    most, classes = logits.softmax(dim=1).max(dim=1)
    size = subject.network.image_size
    return Seen(
        subject.title,
        pixels.permute(0, 2, 3, 1).numpy(),
        over_image(maps, size),
        places(subject.module, maps),
        [data.class_names[index] for index in classes.tolist()],
        most.tolist(),
    )


def _write_tables(similarity: dict[str, Similarity], folder: Path) -> list[str]:
    """The numbers as CSV; layers and heads count from 1. Gives the names of the files."""
    layers, heads, tokens = [], [], []
    for network, found in similarity.items():
        for stage, maps in enumerate(found.maps, start=1):
            same, different = maps.layers(), maps.layers(different=True)
            for one in range(len(maps.letters)):
                for other in range(one, len(maps.letters)):
                    row = {"network": network, "stage": stage, "layer": one + 1, "other_layer": other + 1}
                    row |= {"same_map": maps.shared(one, other), "similarity": same[one, other]}
                    layers.append({**row, "different_images": different[one, other]})
            for one, other in maps.neighbours:
                table, chance = maps.heads(one, other), maps.heads(one, other, different=True)
                partners = match_heads(table)
                for (head, another), value in np.ndenumerate(table):
                    row = {"network": network, "stage": stage, "layer": one + 1, "other_layer": other + 1}
                    row |= {"head": head + 1, "other_head": another + 1, "matched": partners[head] == another}
                    heads.append({**row, "similarity": value, "different_images": chance[head, another]})
        for stage, (maps, each) in enumerate(zip(found.maps, found.tokens, strict=True), start=1):
            for layer, (letter, one_layer) in enumerate(zip(maps.letters, each, strict=True), start=1):
                row = {
                    "network": network,
                    "stage": stage,
                    "layer": layer,
                    "kind": letter,
                    "tokens": len(one_layer.each),
                }
                row |= {"similarity": one_layer.same, "different_images": one_layer.different}
                tokens.append({**row, "class_token": one_layer.class_token})
    tables = {"attention.csv": layers, "heads.csv": heads, "tokens.csv": tokens}
    names = [name for name, rows in tables.items() if rows]
    for name in names:
        write_text(folder / name, pd.DataFrame(tables[name]).to_csv(index=False, float_format="%.6g"))
    return names


def _draw(subject: Subject, similarity: Similarity | None, num_images: int, folder: Path) -> list[str]:
    """The pictures of one network but Grad-CAM; gives the names of the files."""
    if similarity is None:
        return []
    assert isinstance(subject.network, ArchFile)
    spec, architecture = subject.network.spec, subject.network.architecture

    def file(name: str, ending: str = "png") -> Path:
        return folder / f"{name}{subject.ending}.{ending}"

    draw_attention(similarity.maps, subject.title, num_images, file("attention"))
    written = [file("attention")]
    if draw_heads(similarity.maps, subject.title, num_images, file("heads")):
        written.append(file("heads"))
    grids: list[list[Array]] = []
    for stage, layers in enumerate(similarity.tokens):
        if spec.kind == "1d":
            lay_out = partial(on_patches, spec=spec, stage=stage)
            grids.append([lay_out(layer.each[None])[0] for layer in layers])
        else:
            grids.append([layer.each.reshape(spec.grids[stage]) for layer in layers])
    draw_tokens(similarity.tokens, architecture.stages, grids, subject.title, num_images, file("tokens"))
    written.append(file("tokens"))
    for ending in ("png", "svg"):
        draw_architecture(spec, architecture, file("architecture", ending), subject.network.name)
        written.append(file("architecture", ending))
    return [path.name for path in written]


def _neighbours(maps: Sequence[MapSimilarity], different: bool = False) -> list[float]:
    """The similarity of neighbouring layers that do not share a map."""
    return [
        float(stage.layers(different)[pair]) for stage in maps for pair in stage.neighbours if not stage.shared(*pair)
    ]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _number(value: float | None) -> float | None:
    """A number as JSON knows it."""
    return None if value is None or math.isnan(value) else value


def _about(
    subject: Subject, similarity: Similarity | None, seen: Seen, captions: Sequence[str], true: Sequence[str | None]
) -> dict[str, Any]:
    """What was found in a network, as JSON values."""
    cost = subject.network.cost
    about: dict[str, Any] = {
        "network": subject.title,
        "flops": cost.flops,
        "params": cost.params,
        "weights_sha256": sha256(subject.weights),
        "attention": None,
        "tokens": None,
    }
    if similarity is not None:
        pairs = [stage.shared(*pair) for stage in similarity.maps for pair in stage.neighbours]
        about["attention"] = {
            "neighbours": _mean(_neighbours(similarity.maps)),
            "different_images": _mean(_neighbours(similarity.maps, different=True)),
            "pairs": pairs.count(False),
            "pairs_that_share": pairs.count(True),
        }
        first, last = similarity.tokens[0][0], similarity.tokens[-1][-1]
        about["tokens"] = {
            "first_layer": _number(first.same),
            "first_layer_different_images": first.different,
            "last_layer": _number(last.same),
            "last_layer_different_images": last.different,
        }
    about["gradcam_from"] = seen.places
    about["gradcam"] = [
        {
            "image": caption,
            "true": of,
            "predicted": predicted,
            "probability": probability,
            "nothing_found": not found.any(),
        }
        for caption, of, predicted, probability, found in zip(
            captions, true, seen.predicted, seen.probabilities, seen.maps, strict=True
        )
    ]
    return about


def _lines(subject: Subject, similarity: Similarity | None) -> list[str]:
    """What was found in a network, in words."""
    if similarity is None:
        return [f"{subject.title}: has no attention maps to compare and is not drawn; Grad-CAM only"]
    maps, shared = similarity.maps, sum(stage.shared(*pair) for stage in similarity.maps for pair in stage.neighbours)
    here, elsewhere = _mean(_neighbours(maps)), _mean(_neighbours(maps, different=True))
    first, last = similarity.tokens[0][0], similarity.tokens[-1][-1]
    sharing = f"; {shared} more share a map" if shared else ""
    if here is None or elsewhere is None:
        attention = f"no neighbouring layers with maps of their own to compare{sharing}"
    else:
        count = len(_neighbours(maps))
        attention = (
            f"similarity of neighbouring layers {here:.3f}, on different images {elsewhere:.3f} "
            f"({count} pair{'s' if count > 1 else ''}{sharing})"
        )
    return [
        f"{subject.title}:",
        f"  attention maps: {attention}",
        f"  tokens: similarity {first.same:.3f} after the first layer, {last.same:.3f} after the last; of different "
        f"images {first.different:.3f} and {last.different:.3f}",
    ]
