"""What was found in networks, as tables, as JSON and in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from psvit.data.data import Data
from psvit.explain.plots import Seen
from psvit.explain.similarity import MapSimilarity, TokenSimilarity, match_heads
from psvit.networks import Network
from psvit.run.files import sha256, write_text

Row = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """A trained network that is looked into.

    Attributes:
        title: its name in tables and pictures, another one than any other's.
        ending: of the names of its pictures.
        weights: the file that its weights are from.
        module: on the device, in eval mode.
        data: as the weights are to see them.
    """

    title: str
    ending: str
    network: Network
    weights: Path
    module: nn.Module
    data: Data


@dataclass(frozen=True)
class Similarity:
    """The similarity of maps for each stage, and of tokens for each of its layers."""

    maps: list[MapSimilarity]
    tokens: list[list[TokenSimilarity]]

    def neighbours(self, different: bool = False) -> list[float]:
        """The similarity of neighbouring layers that do not share a map, on the same or on different images."""
        return [
            float(stage.layers(different)[pair])
            for stage in self.maps
            for pair in stage.neighbours
            if not stage.shared(*pair)
        ]

    @property
    def sharing(self) -> int:
        """How many pairs of neighbouring layers share a map."""
        return sum(stage.shared(*pair) for stage in self.maps for pair in stage.neighbours)


@dataclass(frozen=True)
class Finding:
    """What was found in a network; ``similarity`` is None where there are no attention maps to compare."""

    subject: Subject
    similarity: Similarity | None
    seen: Seen


def write_tables(findings: Sequence[Finding], folder: Path) -> list[str]:
    """Write the numbers as CSV; layers and heads count from 1.

    Returns:
        The names of the files; a table without a row is not written.
    """
    tables: dict[str, list[Row]] = {"attention.csv": [], "heads.csv": [], "tokens.csv": []}
    for finding in findings:
        if finding.similarity is None:
            continue
        for stage, (maps, tokens) in enumerate(
            zip(finding.similarity.maps, finding.similarity.tokens, strict=True), start=1
        ):
            of = {"network": finding.subject.title, "stage": stage}
            tables["attention.csv"] += [of | row for row in _layers(maps)]
            tables["heads.csv"] += [of | row for row in _heads(maps)]
            tables["tokens.csv"] += [of | row for row in _tokens(maps.letters, tokens)]
    names = [name for name, rows in tables.items() if rows]
    for name in names:
        write_text(folder / name, pd.DataFrame(tables[name]).to_csv(index=False, float_format="%.6g"))
    return names


def _layers(maps: MapSimilarity) -> Iterator[Row]:
    """Each pair of a stage's layers."""
    same, different = maps.layers(), maps.layers(different=True)
    for one in range(len(maps.letters)):
        for other in range(one, len(maps.letters)):
            yield {
                "layer": one + 1,
                "other_layer": other + 1,
                "same_map": maps.shared(one, other),
                "similarity": same[one, other],
                "different_images": different[one, other],
            }


def _heads(maps: MapSimilarity) -> Iterator[Row]:
    """Each pair of heads of neighbouring layers of a stage."""
    for one, other in maps.neighbours:
        table, chance = maps.heads(one, other), maps.heads(one, other, different=True)
        partners = match_heads(table)
        for (head, another), value in np.ndenumerate(table):
            yield {
                "layer": one + 1,
                "other_layer": other + 1,
                "head": head + 1,
                "other_head": another + 1,
                "matched": partners[head] == another,
                "similarity": value,
                "different_images": chance[head, another],
            }


def _tokens(letters: str, layers: Sequence[TokenSimilarity]) -> Iterator[Row]:
    """The tokens after each of a stage's layers."""
    for number, (letter, layer) in enumerate(zip(letters, layers, strict=True), start=1):
        yield {
            "layer": number,
            "kind": letter,
            "tokens": len(layer.each),
            "similarity": layer.same,
            "different_images": layer.different,
            "class_token": layer.class_token,
        }


def to_json(finding: Finding, captions: Sequence[str], true: Sequence[str | None]) -> dict[str, Any]:
    """What was found in a network, as JSON values.

    Args:
        captions: what each image of the Grad-CAM is called.
        true: its class, where that is known.
    """
    subject, similarity, seen = finding.subject, finding.similarity, finding.seen
    cost = subject.network.cost
    return {
        "network": subject.title,
        "flops": cost.flops,
        "params": cost.params,
        "weights_sha256": sha256(subject.weights),
        "attention": None if similarity is None else _attention(similarity),
        "tokens": None if similarity is None else _first_and_last(similarity),
        "gradcam_from": seen.places,
        "gradcam": [
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
        ],
    }


def _attention(similarity: Similarity) -> dict[str, Any]:
    neighbours = similarity.neighbours()
    return {
        "neighbours": _mean(neighbours),
        "different_images": _mean(similarity.neighbours(different=True)),
        "pairs": len(neighbours),
        "pairs_that_share": similarity.sharing,
    }


def _first_and_last(similarity: Similarity) -> dict[str, Any]:
    """The tokens after the network's first layer and after its last."""
    first, last = similarity.tokens[0][0], similarity.tokens[-1][-1]
    return {
        "first_layer": _number(first.same),
        "first_layer_different_images": first.different,
        "last_layer": _number(last.same),
        "last_layer_different_images": last.different,
    }


def lines(finding: Finding) -> list[str]:
    """What was found in a network, in words."""
    title, similarity = finding.subject.title, finding.similarity
    if similarity is None:
        return [f"{title}: has no attention maps to compare and is not drawn; Grad-CAM only"]
    here, elsewhere = _mean(similarity.neighbours()), _mean(similarity.neighbours(different=True))
    first, last = similarity.tokens[0][0], similarity.tokens[-1][-1]
    sharing = f"; {similarity.sharing} more share a map" if similarity.sharing else ""
    if here is None or elsewhere is None:
        attention = f"no neighbouring layers with maps of their own to compare{sharing}"
    else:
        count = len(similarity.neighbours())
        attention = (
            f"similarity of neighbouring layers {here:.3f}, on different images {elsewhere:.3f} "
            f"({count} pair{'s' if count > 1 else ''}{sharing})"
        )
    return [
        f"{title}:",
        f"  attention maps: {attention}",
        f"  tokens: similarity {first.same:.3f} after the first layer, {last.same:.3f} after the last; of different "
        f"images {first.different:.3f} and {last.different:.3f}",
    ]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _number(value: float | None) -> float | None:
    """A number as JSON knows it."""
    return None if value is None or math.isnan(value) else value
