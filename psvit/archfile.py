"""arch.json: a network on file. It alone is enough to build, cost and retrain the network; it holds no code. No torch.

UTF-8 JSON, ``"format": "psvit-arch"``, ``"version": 2``: the dimensions, the layers per stage, their FLOPs and
parameters (checked against the shapes on loading), what it was searched or trained on (names of its classes and the
preprocessing of its images; version 1 has none of this) and, for a searched network, where it came from.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psvit.arch import BASIC, LAYER_LETTERS, LAYER_NAMES, SHARING, Architecture, CellPath, NetworkSpec
from psvit.cost import Cost, network_cost
from psvit.preprocessing import TrainedOn
from psvit.run.files import write_text
from psvit.run.records import check_format, read_object, require, require_object
from psvit.zoo import NETWORKS, SPACES

if TYPE_CHECKING:
    from psvit.model import PSViT

FORMAT, VERSION, OLDEST = "psvit-arch", 2, 1

# where an architecture came from: key -> type of its value
_ORIGIN: dict[str, type] = {
    "score": dict,  # {"top1": share, "loss": cross entropy} of inherited weights on the search split
    "path": str,  # the supernet path that was scored, BIISII-...
    "search_split": dict,  # the dataset and split that scored it
    "budget": dict,  # what was allowed
    "seed": int,
    "searcher": str,
    "scored": int,  # how many architectures the search scored
    "supernet_sha256": str,  # of the supernet's weights
    "tool": str,  # name and version of the program
}


@dataclass(frozen=True)
class ArchFile:
    """The content of an arch.json.

    Attributes:
        spec: the dimensions.
        architecture: the layers of each stage.
        provenance: where it came from, plain JSON values; None for a network that was not searched.
        trained_on: names of its classes and preprocessing of its images, once it has met data.
    """

    spec: NetworkSpec
    architecture: Architecture
    provenance: dict[str, Any] | None = None
    trained_on: TrainedOn | None = None

    @property
    def name(self) -> str:
        """The name of the dimensions: of a network, or of the space that it was searched in."""
        return self.spec.name or f"psvit_{self.spec.kind}"

    @property
    def classes(self) -> int:
        """Outputs of the head."""
        return self.spec.classes

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of its images in pixels."""
        return self.spec.image_size

    @property
    def cost(self) -> Cost:
        """FLOPs and parameters."""
        return network_cost(self.spec, self.architecture)

    def build(self, drop_path: float = 0.0) -> PSViT:
        """The network with random weights; drop path rises to this rate."""
        from psvit.model import PSViT

        return PSViT(self.spec, self.architecture, drop_path)

    def for_data(self, classes: int, image_size: tuple[int, int] | None) -> ArchFile:
        """The same network for other classes and, unless None, another image size."""
        spec = self.spec.for_data(classes, image_size)
        return self if spec == self.spec else replace(self, spec=spec, trained_on=None)

    def meets(self, trained_on: TrainedOn) -> ArchFile:
        """The same network, with what it is trained on; the number of classes is its own."""
        assert len(trained_on.class_names) == self.classes
        return replace(self, trained_on=trained_on)

    def about(self) -> dict[str, Any]:
        """What it is, as plain values: for the header of its weights and for checkpoints."""
        about: dict[str, Any] = {"network": asdict(self.spec), "architecture": str(self.architecture)}
        return about if self.trained_on is None else about | {"trained_on": self.trained_on.to_json()}


def save_arch(path: Path, arch: ArchFile) -> None:
    """Write an arch.json, whole or not at all."""
    cost = arch.cost
    document = {
        "format": FORMAT,
        "version": VERSION,
        "network": asdict(arch.spec),
        "stages": [[LAYER_NAMES[letter] for letter in letters] for letters in arch.architecture.stages],
        "flops": cost.flops,
        "params": cost.params,
        "trained_on": None if arch.trained_on is None else arch.trained_on.to_json(),
        "origin": arch.provenance,
    }
    write_text(path, json.dumps(document, indent=2) + "\n")


def load_arch(path: Path) -> ArchFile:
    """Read and check an arch.json.

    Raises:
        ValueError: the file is missing or no JSON, or anything in it is unknown, of a wrong type, impossible, or does
            not match; the message holds the JSON path of the fault.
    """
    if not os.path.exists(path):
        raise ValueError(f"{path}: there is no such file; a search writes arch.json into its run folder")
    try:
        return _parse(read_object(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _parse(document: Any) -> ArchFile:
    check_format(document, FORMAT, VERSION, oldest=OLDEST)
    known = {"format", "version", "network", "stages", "flops", "params", "origin"}
    known |= {"trained_on"} if document["version"] > 1 else set()
    require_object(document, "$", known, required=known - {"origin", "trained_on"})
    spec = parse_network(document["network"])
    architecture = _parse_stages(document["stages"])
    if len(architecture.stages) != spec.stages:
        raise ValueError(f"$.stages: has {len(architecture.stages)} stages, but $.network has {spec.stages} widths")
    cost = network_cost(spec, architecture)
    for key, counted in (("flops", cost.flops), ("params", cost.params)):
        require(document[key], int, f"$.{key}")
        if document[key] != counted:
            raise ValueError(f"$.{key}: is {document[key]}, but the network has {counted}")
    provenance = document.get("origin")
    if provenance is not None:
        require_object(provenance, "$.origin", set(_ORIGIN), required=set())
        for key, value in provenance.items():
            require(value, _ORIGIN[key], f"$.origin.{key}")
        if "path" in provenance:
            _check_path(provenance["path"], architecture)
    return ArchFile(spec, architecture, provenance, _parse_trained_on(document.get("trained_on"), spec))


def _parse_trained_on(value: Any, spec: NetworkSpec) -> TrainedOn | None:
    if value is None:
        return None
    trained_on = TrainedOn.from_json(value, "$.trained_on")
    if len(trained_on.class_names) != spec.classes:
        raise ValueError(
            f"$.trained_on.class_names: names {len(trained_on.class_names)} classes, but $.network has {spec.classes}"
        )
    return trained_on


def parse_network(value: Any) -> NetworkSpec:
    """The dimensions in JSON: all of them, or the name of known ones with whatever differs from them.

    Raises:
        ValueError: an unknown key, a wrong type or dimensions that do not fit; with the path below ``$.network``.
    """
    types = {field.name: field.type for field in fields(NetworkSpec)}
    require_object(value, "$.network", set(types), required=set())
    for key, item in value.items():
        where = f"$.network.{key}"
        if types[key] == "str":
            require(item, str, where)
        elif types[key] == "int":
            require(item, int, where)
        else:
            require(item, list, where)
            for position, entry in enumerate(item):
                require(entry, int, f"{where}[{position}]")
    given: dict[str, Any] = {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}
    name = given.get("name", "")
    if name in SPACES or name in NETWORKS:
        given = asdict(SPACES[name] if name in SPACES else NETWORKS[name][0]) | given
    missing = {"kind", "image_size", "patch_size", "widths", "heads", "classes"} - given.keys()
    if missing:
        raise ValueError(f"$.network: lacks {', '.join(sorted(missing))}, and the name {name!r:.60} is not a known one")
    try:
        return NetworkSpec(**given)
    except ValueError as error:
        raise ValueError(f"$.network: {error}") from None


def _parse_stages(value: Any) -> Architecture:
    require(value, list, "$.stages")
    words = []
    for stage, layers in enumerate(value):
        require(layers, list, f"$.stages[{stage}]")
        word = ""
        for cell, layer in enumerate(layers):
            where = f"$.stages[{stage}][{cell}]"
            require(layer, str, where)
            if layer not in (LAYER_NAMES[BASIC], LAYER_NAMES[SHARING]):
                raise ValueError(f"{where}: unknown layer {layer!r:.60}; use basic or sharing")
            word += LAYER_LETTERS[layer]
        words.append(word)
    try:
        return Architecture(tuple(words))
    except ValueError as error:
        raise ValueError(f"$.stages: {error}") from None


def _check_path(text: str, architecture: Architecture) -> None:
    try:
        path = CellPath.parse(text)
    except ValueError as error:
        raise ValueError(f"$.origin.path: {error}") from None
    if path.architecture != architecture:
        raise ValueError(f"$.origin.path: is {text:.120}, a different architecture from $.stages")
