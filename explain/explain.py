"""``psvit-search explain``: look into trained networks, and write down and draw what is there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import psvit
from psvit.archfile import ArchFile
from psvit.data.data import Data, open_data
from psvit.data.decode import read_image
from psvit.data.pixels import stratified_order
from psvit.data.splits import Integers
from psvit.data.transforms import EvalTransform
from psvit.draw import draw_architecture
from psvit.engine.device import pick_device
from psvit.explain.config import ExplainConfig
from psvit.explain.findings import Finding, Similarity, Subject, lines, to_json, write_tables
from psvit.explain.gradcam import Array, captum_attr, check_supported, grad_cam, on_patches, over_image, places
from psvit.explain.plots import Seen, draw_attention, draw_gradcam, draw_heads, draw_tokens
from psvit.explain.similarity import images_at_once, measure
from psvit.model import PSViT
from psvit.networks import find_network
from psvit.retrain.fit import open_trained
from psvit.run.files import write_text
from psvit.zoo import SPACES

_PICTURED = 8  # images of the split that Grad-CAM is drawn of
_AT_ONCE = 16  # images of a Grad-CAM
_VERSUS = "_versus"  # ends the file names of the second network's pictures


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
    data = open_data(config.data)
    subjects = [_open(config.arch, config.weights, data, device)]
    if config.versus is not None and config.versus_weights is not None:
        subjects.append(_open(config.versus, config.versus_weights, data, device, subjects[0].title))
    order = stratified_order(data.labels(config.split), config.seed)[: config.num_images]
    if len(order) < 2:
        raise ValueError(f"the split {config.split} has {len(order)} image; explain compares images and needs 2")
    shown = Shown.of(config, data, order[:_PICTURED])
    findings = [
        Finding(subject, _similarity(subject, config.split, order, device), _see(subject, shown, device))
        for subject in subjects
    ]

    written = write_tables(findings, folder)
    for finding in findings:
        written += _draw(finding, len(order), folder)
    draw_gradcam([finding.seen for finding in findings], shown.captions, shown.true, folder / "gradcam.png")
    about = {
        "data": config.data.name,
        "split": config.split,
        "images": len(order),
        "seed": config.seed,
        "networks": [to_json(finding, shown.captions, shown.true) for finding in findings],
        "tool": f"psvit-search {psvit.__version__}",
    }
    write_text(folder / "explain.json", json.dumps(about, indent=2, allow_nan=False) + "\n")
    for finding in findings:
        print("\n".join(lines(finding)))
    print(f"wrote into {folder}: {', '.join([*written, 'gradcam.png', 'explain.json'])}")
    return folder


def _open(text: str, weights: str, data: Data, device: torch.device, other: str | None = None) -> Subject:
    """A network with its trained weights.

    Args:
        other: the title of the network that it stands beside.
    """
    with torch.device("meta"):  # no memory and no time: its class alone is looked at
        check_supported(find_network(text).build(), text)
    trained = open_trained(text, Path(weights), data)
    network = trained.network
    title = network.name or "network"
    if isinstance(network, ArchFile) and network.spec.name in SPACES:
        title += f" {network.architecture}"
    if title == other:
        title += " (versus)"
    module = trained.module.to(device)
    return Subject(title, _VERSUS if other else "", network, Path(weights), module, trained.data)


@dataclass(frozen=True)
class Shown:
    """The images that Grad-CAM is drawn of: files of the user's, or the first of those that are compared.

    Attributes:
        captions: what to call each.
        true: the class of each, where that is known.
    """

    captions: Sequence[str]
    true: Sequence[str | None]
    _split: str
    _chosen: Integers
    _given: Sequence[Tensor]

    @classmethod
    def of(cls, config: ExplainConfig, data: Data, chosen: Integers) -> Shown:
        """The config's pictures, or, without any, the chosen images of its split.

        Raises:
            ValueError: a picture cannot be read.
        """
        if config.pictures:
            given = [read_image(Path(path).expanduser()) for path in config.pictures]
            captions = [Path(path).name for path in config.pictures]
            return cls(captions, [None] * len(given), config.split, chosen, given)
        labels = data.labels(config.split)[chosen]
        captions = [f"{config.split} image {index}" for index in chosen]
        return cls(captions, [data.class_names[label] for label in labels], config.split, chosen, [])

    def pixels(self, size: tuple[int, int], data: Data) -> Tensor:
        """As a network of this image size sees them: uint8 (n, 3, *size).

        Args:
            data: as the network sees them.
        """
        if self._given:
            return EvalTransform(size, data.preprocessing(size))(self._given)
        return next(data.pixel_batches(self._split, size, [self._chosen.tolist()]))[0]


def _similarity(subject: Subject, split: str, order: Integers, device: torch.device) -> Similarity | None:
    """The similarity over the images of an order; None for a network without attention maps of ours."""
    network, module, data = subject.network, subject.module, subject.data
    if not isinstance(module, PSViT) or not isinstance(network, ArchFile):
        return None
    at_once = images_at_once(network.spec, network.architecture)

    def batches() -> Iterator[Tensor]:
        numbers = (order[start : start + at_once].tolist() for start in range(0, len(order), at_once))
        for pixels, _ in data.pixel_batches(split, network.image_size, numbers):
            yield data.normalize(pixels.to(device))

    return Similarity(*measure(module, batches()))


def _see(subject: Subject, shown: Shown, device: torch.device) -> Seen:
    """Grad-CAM of the images that are shown."""
    size, data = subject.network.image_size, subject.data
    pixels = shown.pixels(size, data)
    parts = [grad_cam(subject.module, data.normalize(part.to(device))) for part in torch.split(pixels, _AT_ONCE)]
    logits = torch.cat([logits for logits, _ in parts])
    maps = np.concatenate([maps for _, maps in parts])
    most, classes = logits.softmax(dim=1).max(dim=1)
    return Seen(
        subject.title,
        pixels.permute(0, 2, 3, 1).numpy(),
        over_image(maps, size),
        places(subject.module, maps),
        [data.class_names[index] for index in classes.tolist()],
        most.tolist(),
    )


def _draw(finding: Finding, num_images: int, folder: Path) -> list[str]:
    """The pictures of one network but Grad-CAM; gives the names of the files."""
    subject, similarity = finding.subject, finding.similarity
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
