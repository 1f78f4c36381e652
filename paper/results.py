"""What `retrain`, `ablate` and `detect` have measured on ImageNet-1k and COCO, found below a folder of runs. No torch.

ImageNet-1k and COCO 2017 are told by their numbers of images, so that a packed ImageNet counts and a part of it does
not. A result that cannot be read, or is not what its name says, is left out, with a line that says why.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from psvit.cost import Cost
from psvit.networks import find_network
from psvit.paper.published import ABLATIONS, CONFIGURATIONS, IMAGENET, Ablation
from psvit.retrain.results import DetectRecord, RetrainRecord
from psvit.run.records import read_object
from psvit.zoo import NETWORKS

OF_ROWS = {row.network for row in (*CONFIGURATIONS, *IMAGENET)} | {
    row.network for ablations in ABLATIONS.values() for row in ablations
}
_MAY_BE_IMAGENET = ("imagenet", "packed", "webdataset")
_TEST_IMAGES = 50_000  # of ImageNet-1k
_COCO = {"classes": 80, "num_val_images": 5_000}  # of COCO 2017


@dataclass(frozen=True)
class Result:
    """Top-1 on ImageNet-1k of one network, trained once.

    Attributes:
        network: its name, or an ablation's ``search_1d``.
        layers: of each stage; empty for a network of torchvision.
        flops, params: of the network.
        epochs: of its training.
        top1: in percent.
        path: the file that says so.
    """

    network: str
    layers: str
    flops: int
    params: int
    epochs: int
    top1: float
    path: Path


@dataclass(frozen=True)
class Detector:
    """Average precision on COCO of one detector.

    Attributes:
        network: name of its backbone.
        layers: of the backbone; empty for a network of torchvision.
        epochs: of its training.
        percent: ``box`` and ``mask`` -> name of the figure -> percent.
        path: the file that says so.
    """

    network: str
    layers: str
    epochs: int
    percent: dict[str, dict[str, float]]
    path: Path


Trained = TypeVar("Trained", Result, Detector)


@dataclass
class Found:
    """What has been measured.

    Attributes:
        results: of ``retrain``, on ImageNet-1k.
        tables: of ``ablate``, by the name of the table; a row and seed is a result.
        detectors: of ``detect``, on COCO.
        left_out: a line for each result that was not taken.
    """

    results: list[Result] = field(default_factory=list)
    tables: dict[str, list[Result]] = field(default_factory=dict)
    detectors: list[Detector] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def of(self, network: str) -> list[Result]:
        """What was measured of a network."""
        return [result for result in self.results if result.network == network]

    def ablated(self, table: str, row: Ablation) -> list[Result]:
        """What was measured of an ablation's row: in tables of ``ablate``, and alone."""
        folders = {result.path.parent for results in self.tables.values() for result in results}
        name = row.network or row.variant
        tabled = [result for result in self.tables.get(table, []) if result.network == name]
        return tabled + [result for result in self.of(name) if folders.isdisjoint(result.path.parents)]

    def detectors_of(self, network: str | None) -> list[Detector]:
        """What was measured of a backbone."""
        return [detector for detector in self.detectors if detector.network == network]

    def others(self) -> dict[tuple[str, str], list[Result]]:
        """Results of networks that no row names, by name and layers."""
        groups: dict[tuple[str, str], list[Result]] = {}
        for result in self.results:
            if result.network not in OF_ROWS:
                groups.setdefault((result.network, result.layers), []).append(result)
        return groups


@cache
def cost_of(network: str) -> Cost:
    """FLOPs and parameters of a row's network, counted once; torch counts torchvision's."""
    return find_network(network).cost


def summary(results: Sequence[Result]) -> str:
    """``77.92 ± 0.11 (3 x 300 epochs)``: the mean of several trainings and their sample standard deviation."""
    if not results:
        return ""
    top1 = [result.top1 for result in results]
    epochs = f"{results[0].epochs} epochs"
    if len(top1) == 1:
        return f"{top1[0]:.2f} ({epochs})"
    return f"{statistics.fmean(top1):.2f} ± {statistics.stdev(top1):.2f} ({len(top1)} x {epochs})"


def read_runs(runs: Path) -> Found:
    """Collect all results below a folder; those of other data are passed over."""
    found = Found()

    def collect(pattern: str, take: Callable[[Path, dict[str, Any]], None]) -> None:
        for path in sorted(runs.rglob(pattern)):
            try:
                take(path, read_object(path))
            except ValueError as error:
                found.left_out.append(f"{path}: {error}")

    def take_result(path: Path, document: dict[str, Any]) -> None:
        if "format" not in document:
            raise ValueError("$.format: is missing; start the command that wrote it again")
        if document["format"] == RetrainRecord.format:
            found.results += _read_result(RetrainRecord.from_json(document), path)
        elif document["format"] == DetectRecord.format:
            found.detectors += _read_detector(DetectRecord.from_json(document), path)

    def take_table(path: Path, document: dict[str, Any]) -> None:
        if document.get("scale") == "imagenet":
            found.tables.setdefault(_text(document.get("table"), "table"), []).extend(_read_table(document, path))

    collect("result.json", take_result)
    collect("table-*.json", take_table)
    _keep_longest(found)
    return found


def _read_result(record: RetrainRecord, path: Path) -> list[Result]:
    """The result of a retraining; nothing if its data are not ImageNet-1k."""
    if not _is_imagenet(record.data, record.num_test_images):
        return []
    for given, what in (
        (record.teacher, "it learned from a teacher"),
        (record.start, "it started from trained weights"),
    ):
        if given is not None:
            raise ValueError(f"{what}, {given!r}, which no row of the paper does")
    if record.trained_on != "train+search":
        raise ValueError("it was not trained on all training images (hold_out=true)")
    cost = Cost(record.flops, record.params)
    return [_checked(record.network, record.layers or "", cost, record.epochs, record.top1, path)]


def _read_table(document: dict[str, Any], path: Path) -> list[Result]:
    """The results of an ablation's table, of every row and seed."""
    if not _is_imagenet(document.get("data"), _number(document, "test_images")):
        return []
    results = []
    rows = document.get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("has no rows")
    for row in rows:
        variant, top1 = _text(row.get("variant"), "variant"), row.get("top1")
        if not isinstance(top1, dict):
            raise ValueError(f"the row {variant} has no top1 by seed")
        network, epochs = Ablation("", variant, None).network, _number(document, "epochs")
        layers = _text(row.get("layers"), "layers") if network else ""  # each seed may find others
        cost = Cost(_number(row, "flops"), _number(row, "params"))
        results += [_checked(network or variant, layers, cost, epochs, value, path) for value in top1.values()]
    return results


def _is_imagenet(data: Any, num_test_images: int) -> bool:
    """Whether a result is on ImageNet-1k's validation images; packed ones are told by their number."""
    if num_test_images != _TEST_IMAGES and data == "imagenet":
        raise ValueError(f"it was tested on {num_test_images:,} images, but ImageNet-1k has {_TEST_IMAGES:,}")
    return num_test_images == _TEST_IMAGES and data in _MAY_BE_IMAGENET


def _checked(network: str, layers: str, cost: Cost, epochs: int, top1: Any, path: Path) -> Result:
    """A result, of the very network that its name says."""
    result = Result(
        *(_text(network, "network"), _text(layers, "layers"), cost.flops, cost.params),
        *(epochs, 100 * _share(top1, "top1"), path),
    )
    if network in OF_ROWS:
        _require_layers(network, layers)
        if cost != cost_of(network):
            raise ValueError(f"its classes or image size are not those of {network} on ImageNet-1k")
    return result


def _require_layers(network: str, layers: str) -> None:
    """Refuse other layers in the dimensions of a named network, as ``deit_tiny_16:BB``."""
    if network in NETWORKS and layers != str(NETWORKS[network][1]):
        raise ValueError(f"its layers are {layers}, and {network} has {NETWORKS[network][1]}")


def _read_detector(record: DetectRecord, path: Path) -> list[Detector]:
    """The result of a detector; nothing if its data are not COCO 2017, which their numbers tell."""
    numbers = {key: getattr(record, key) for key in _COCO}
    if numbers != _COCO:
        if "coco" in _text(record.data, "data").lower():
            told = ", ".join(f"{key} {number:,} instead of {_COCO[key]:,}" for key, number in numbers.items())
            raise ValueError(f"its data are not all of COCO 2017: {told}")
        return []
    percent = {}
    for kind, figures in (("box", record.box), ("mask", record.mask)):
        if figures.get("AP") is None:
            raise ValueError(f"has no {kind}.AP")
        percent[kind] = {
            key: 100 * _share(value, f"{kind}.{key}") for key, value in figures.items() if value is not None
        }
    network, layers = _text(record.network, "network"), _text(record.layers or "", "layers")
    _require_layers(network, layers)
    return [Detector(network, layers, record.epochs, percent, path)]


def _keep_longest(found: Found) -> None:
    """Of several trainings of a network keep those of the most epochs: a mean over recipes would tell of none."""
    everything = [*found.results, *(result for results in found.tables.values() for result in results)]
    found.results = _longest(found.results, everything, found.left_out)
    found.tables = {name: _longest(results, everything, found.left_out) for name, results in found.tables.items()}
    found.detectors = _longest(found.detectors, found.detectors, found.left_out)


def _longest(some: Sequence[Trained], among: Sequence[Trained], left_out: list[str]) -> list[Trained]:
    """Those that were trained as long as any other of their network ``among`` all; a line for each of the rest."""
    most: dict[tuple[str, str], int] = {}
    for each in among:
        most[each.network, each.layers] = max(most.get((each.network, each.layers), 0), each.epochs)
    kept = []
    for each in some:
        epochs = most[each.network, each.layers]
        line = f"{each.path}: {each.network} was trained for {each.epochs} epochs, elsewhere for {epochs}"
        if each.epochs == epochs:
            kept.append(each)
        elif line not in left_out:
            left_out.append(line)
    return kept


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError(f"{name} is {value!r}; it must be a string")
    return value


def _number(document: dict[str, Any], key: str) -> int:
    value = document.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{key} is {value!r}; it must be a whole number")
    return value


def _share(value: Any, name: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError(f"{name} is {value!r}; it must be a fraction between 0 and 1")
    return float(value)
