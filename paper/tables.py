"""``psvit-search paper``: every table of the paper, its figures beside what is counted and measured here.

What needs no training is computed: FLOPs and parameters, tokens, sizes of the search spaces. Accuracies are read from
the results that ``retrain``, ``ablate`` and ``detect`` have left below the folder of runs.
"""

from __future__ import annotations

import csv
import io
import json
import statistics
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psvit.cost import Cost
from psvit.paper.published import (
    ABLATION_FLOPS,
    ABLATIONS,
    AP_NAMES,
    CONFIGURATIONS,
    DETECTION,
    IMAGENET,
    Ablation,
    Published,
    printed_band,
)
from psvit.paper.results import Found, cost_of, read_runs, summary
from psvit.run.files import write_text
from psvit.supernet.space import ANY, SearchSpace
from psvit.units import Band
from psvit.zoo import NETWORKS, SPACES

RUNS = "runs"
NEEDS_IMAGENET, NEEDS_COCO = "not measured: needs ImageNet", "not measured: needs COCO"
_WIDTH = 110  # columns of a terminal

# Why a count does not round to what the paper prints: network -> reason.
_RESNEXT = (
    "Counts convolutions and linear maps, as torch does. Adding two operations per batch-norm element and one per "
    "ReLU element gives 1.82, 4.12, 4.27 and 15.55 G for ResNet18, ResNet50, ResNeXt50 and ResNeXt101, "
    "which round to all four printed figures; how the paper counted is not known."
)
_POOLED_OTHERWISE = (
    "The row is ours: pooling without weights, then a linear map, with the layers of the convolution's row."
)
WHY = {
    "psvit_1d_tiny_16": "The paper prints 1.4 G here and 1.3 G in its configurations, with the same accuracy, 77.4; "
    "we use 1.3 G. The last table counts the architectures that meet either.",
    "torchvision:resnext50_32x4d": _RESNEXT,
    "torchvision:resnext101_64x4d": _RESNEXT,
    "deit_tiny_16_wider": "1.2488 G, 0.1 % less than would round to 1.3; with a pooling kernel of 5 it is 1.271 G. "
    "We know only that the paper's kernel is small; the widths are those of 1D-Tiny/16.",
    "deit_tiny_16_wider_256": "The printed widths give 1.16 G, or 1.18 G with a pooling kernel of 5.",
    "deit_tiny_16_max": _POOLED_OTHERWISE,
    "deit_tiny_16_average": _POOLED_OTHERWISE,
}
UNKNOWN = "The count differs from the printed figure, for reasons unknown to us."

Cell = str | int | float | None


@dataclass
class PaperConfig:
    """Settings of ``psvit-search paper``.

    Attributes:
        runs: folder of all runs, where measured results are looked for.
        save: write paper.md and one CSV file per table into this folder, too.
        json: print JSON instead of tables.
    """

    runs: str = RUNS
    save: str | None = None
    json: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    Attributes:
        name: of its CSV file.
        title: what it shows, and where the paper has it.
        columns: heading -> how its numbers are written.
        rows: a cell a column; None is nothing to tell.
        notes: lines below it.
    """

    name: str
    title: str
    columns: dict[str, str]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)

    @property
    def texts(self) -> list[list[str]]:
        """The rows as they are printed."""
        forms = self.columns.values()
        return [[_write(cell, form) for cell, form in zip(row, forms, strict=True)] for row in self.rows]

    def _is_number(self, column: int) -> bool:
        return bool([*self.columns.values()][column])

    def terminal(self) -> str:
        """Title, columns that line up, and the notes."""
        lines = [[*self.columns], *self.texts]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.columns))]

        def row(line: list[str]) -> str:
            cells = (
                text.rjust(width) if self._is_number(column) else text.ljust(width)
                for column, (text, width) in enumerate(zip(line, widths, strict=True))
            )
            return "  ".join(cells).rstrip()

        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        notes = [line for note in self.notes for line in textwrap.wrap(note, _WIDTH, break_on_hyphens=False)]
        return "\n".join([self.title, "", row(lines[0]), rule, *map(row, lines[1:]), *([""] if notes else []), *notes])

    def markdown(self) -> str:
        """The same, as Markdown."""
        rule = ["--:" if self._is_number(column) else "---" for column in range(len(self.columns))]
        lines = ["| " + " | ".join(line) + " |" for line in ([*self.columns], rule, *self.texts)]
        notes = [part for note in self.notes for part in ("", note)]
        return "\n".join([f"## {self.title}", "", *lines, *notes])

    def csv(self) -> str:
        """The same cells, numbers without marks between their digits."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([[*self.columns], *self.rows])
        return text.getvalue()

    def as_json(self) -> dict[str, Any]:
        """The same as plain values, a row as heading -> cell."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return {"title": self.title, "rows": rows, "notes": self.notes}


def _write(cell: Cell, form: str) -> str:
    if cell is None:
        return ""
    return cell if isinstance(cell, str) else format(cell, form)


def paper(config: PaperConfig) -> None:
    """Print all tables, and save them if asked to.

    Results that cannot be read, or that are not what a row says, are named in a line each and left out.

    Raises:
        ValueError: there is no such folder of runs, or the tables cannot be written.
    """
    if config.runs != RUNS and not Path(config.runs).is_dir():
        raise ValueError(f"runs={config.runs}: there is no such folder; it is where retrain and ablate write, as runs")
    found = read_runs(Path(config.runs))
    tables = make_tables(found)
    if config.save is not None:
        write_text(Path(config.save) / "paper.md", markdown(tables))
        for table in tables:
            write_text(Path(config.save) / f"{table.name}.csv", table.csv())
    if config.json:
        document = {"tables": {table.name: table.as_json() for table in tables}, "left_out": found.left_out}
        print(json.dumps(document, indent=2))
        return
    print("\n\n\n".join(table.terminal() for table in tables))
    if found.left_out:
        print("\n\nLeft out\n\n" + "\n".join(found.left_out))
    if config.save is not None:
        print(f"\nwrote {Path(config.save) / 'paper.md'}, with one CSV file per table next to it")


def markdown(tables: Iterable[Table]) -> str:
    """The text of ``paper.md``."""
    about = (
        "Written by `psvit-search paper`: the figures of *PSViT: Better Vision Transformer via Token Pooling and "
        "Attention Sharing* (arXiv 2108.03428), next to what this program counts or has measured, in the columns "
        "*here*."
    )
    parts = ["# The paper's tables", *textwrap.wrap(about, 118), "", *(table.markdown() + "\n" for table in tables)]
    return "\n".join([parts[0], "", *parts[1:]])


def make_tables(found: Found) -> list[Table]:
    """All tables, in the order of the paper, then what can be checked without its datasets."""
    further = further_table(found)
    return [
        configurations_table(found),
        imagenet_table(found),
        *(ablation_table(name, rows, found) for name, rows in ABLATIONS.items()),
        detection_table(found),
        networks_table(),
        checks_table(),
        *([further] if further.rows else []),
    ]


# ---------------------------------------------------------------------------------------------------- tables

_COUNTED = "Parameters, FLOPs (multiply-adds) and 'agrees': exact counts, and whether they round to what is printed."


def configurations_table(found: Found) -> Table:
    """The published configurations of PSViT-1D."""
    notes = _Notes()
    rows: list[list[Cell]] = []
    for row in CONFIGURATIONS:
        assert row.network is not None
        cost = cost_of(row.network)
        rows.append(
            [
                *(row.label, row.params, cost.params, row.flops, cost.flops, _agrees(row, cost, notes), row.top1),
                summary(found.of(row.network)) or NEEDS_IMAGENET,
            ]
        )
    columns = {"model": "", "params, M": ",", "params here": ",", "FLOPs, G": ",", "FLOPs here": ",", "agrees": ""}
    return Table(
        "configurations",
        "PSViT-1D, the published configurations",
        columns | {"top-1": ".2f", "top-1 here": ""},
        rows,
        [*notes.lines, _COUNTED, "Widths, heads, tokens and layers are in the table of networks below."],
    )


def imagenet_table(found: Found) -> Table:
    """The comparison on ImageNet-1k."""
    notes = _Notes()
    rows: list[list[Cell]] = []
    for row in IMAGENET:
        assert row.network is not None
        cost = cost_of(row.network)
        rows.append(
            [
                *(row.label, cost.params, row.flops, cost.flops, _agrees(row, cost, notes), row.top1, row.rerun),
                summary(found.of(row.network)) or NEEDS_IMAGENET,
            ]
        )
    columns = {"model": "", "params here": ",", "FLOPs, G": ",", "FLOPs here": ",", "agrees": ""}
    named = ", ".join(str(row.network) for row in IMAGENET)
    return Table(
        "imagenet",
        "ImageNet-1k, top-1",
        columns | {"top-1": ".1f", "re-run": ".1f", "top-1 here": ""},
        rows,
        [
            *notes.lines,
            "re-run: the paper's own training of the network under its recipe, its starred rows.",
            f"The networks, in the order of the rows: {named}. Which patch size the paper's Base has is not known.",
        ],
    )


def ablation_table(name: str, ablations: Sequence[Ablation], found: Found) -> Table:
    """One of the ablations on DeiT-Tiny."""
    notes = _Notes()
    rows: list[list[Cell]] = []
    for row in ablations:
        results = found.ablated(name, row)
        cost = cost_of(row.network) if row.network else None
        agrees = ""
        if cost is not None:
            agrees = _agrees(Published(row.label, row.network, None, ABLATION_FLOPS, None), cost, notes)
        elif results:
            cost = Cost(max(result.flops for result in results), max(result.params for result in results))
        counts = (cost.params, cost.flops) if cost else (None, None)
        rows.append(
            [
                *(row.label, row.variant, *counts, agrees, row.top1),
                summary(results) or NEEDS_IMAGENET,
            ]
        )
    columns = {"DeiT-Tiny with": "", "variant": "", "params here": ",", "FLOPs here": ",", "agrees": ""}
    return Table(
        f"ablation-{name}",
        f"Ablation: {_ABLATION_TITLES[name]}, all at {ABLATION_FLOPS} G",
        columns | {"top-1": ".1f", "top-1 here": ""},
        rows,
        [*notes.lines, *_row_notes(ablations)],
    )


def _row_notes(ablations: Sequence[Ablation]) -> list[str]:
    """``max, average: ours``: each note once, behind the rows that it is of."""
    variants: dict[str, list[str]] = {}
    for row in ablations:
        variants.setdefault(row.note, []).append(row.variant)
    return [f"{', '.join(of)}: {note}." for note, of in variants.items() if note]


_ABLATION_TITLES = {
    "components": "what sharing, pooling and search add",
    "pooling": "two ways to spend what pooling saves",
    "sharing": "how many layers share a map",
    "pooling_kind": "how tokens are pooled",
}


def detection_table(found: Found) -> Table:
    """Boxes and masks on COCO 2017."""
    rows: list[list[Cell]] = []
    for row in DETECTION:
        for kind, published in (("box", row.box), ("mask", row.mask)):
            results = found.detectors_of(row.network)
            rows.append([row.label, kind, "paper", *published, ""])
            measured: list[Cell] = [
                statistics.fmean(values) if values else None
                for values in (
                    [result.percent[kind][ap] for result in results if ap in result.percent[kind]] for ap in AP_NAMES
                )
            ]
            runs = f"{len(results)} x {results[0].epochs} epochs" if results else NEEDS_COCO
            rows.append([row.label, kind, "here", *measured, runs])
    return Table(
        "detection",
        "COCO 2017, Mask R-CNN with an FPN",
        {"backbone": "", "AP of": "", "whose": ""} | dict.fromkeys(AP_NAMES, ".1f") | {"runs": ""},
        rows,
        [
            "AP in percent; APs, APm and APl are of small, medium and large objects. How long the paper trained is not "
            "known to us. ResNet18's mask APm, 25.1, is as printed; beside its APs and APl it looks like a slip.",
        ],
    )


def networks_table() -> Table:
    """The dimensions and layers of every network of ours that stands in a row."""
    printed: dict[str, Sequence[int]] = {row.network: row.widths for row in CONFIGURATIONS if row.network}
    for ablations in ABLATIONS.values():
        printed |= {row.network: row.widths for row in ablations if row.network and row.widths}
    of_rows = [row.network for row in (*CONFIGURATIONS, *IMAGENET)]
    of_rows += [row.network for ablations in ABLATIONS.values() for row in ablations]
    names = dict.fromkeys(name for name in of_rows if name in NETWORKS)
    rows: list[list[Cell]] = []
    for name in names:
        assert name is not None
        spec, architecture = NETWORKS[name]
        widths = "the paper's" if tuple(printed.get(name, ())) == spec.widths else "ours"
        if len(spec.widths) == 1:
            widths = "DeiT's"
        numbers = (", ".join(map(str, values)) for values in (spec.widths, spec.heads, spec.tokens))
        rows.append([name, *numbers, _short(str(architecture)), widths])
    return Table(
        "networks",
        "Networks of ours behind these rows",
        {"network": "", "widths": "", "heads": "", "tokens": "", "layers": "", "widths are": ""},
        rows,
        [
            "B is a basic layer, S one that shares the map of the nearest B before it, 12B twelve basic ones; a dash "
            "is token pooling. Which layers the authors' networks had is not published: ours are members of their "
            "spaces that have the printed FLOPs and, where they are printed, parameters. The paper prints heads and "
            "tokens of the four 1D Tiny and Small networks, and 4, 8, 20 and 4, 4, 4 layers for deeper and wider; all "
            "other heads and layers are ours, or DeiT's.",
        ],
    )


def checks_table() -> Table:
    """What can be checked of the paper without training anything."""
    space = SearchSpace(SPACES["1d_tiny_16"])
    size = f"{space.spec.stages} stages of {space.cells} cells"
    rows: list[list[Cell]] = [
        [f"paths through {size}: basic, sharing or identity", None, f"{space.paths:,}"],
        [f"architectures of {size}, since many paths are the same one", None, f"{space.architectures:,}"],
    ]
    for patch, tokens in {row.network[-2:].strip("_"): row.tokens for row in CONFIGURATIONS if row.network}.items():
        spec = SPACES[f"1d_tiny_{patch}"]
        here = ", ".join(map(str, spec.tokens))
        rows.append([f"tokens of PSViT-1D, patches of {patch} px, 224 px", ", ".join(map(str, tokens)), here])
    grid = SPACES["2d_tiny_8"].tokens
    rows.append(["tokens of PSViT-2D, last stage against the first", "1/16", f"1/{grid[0] // grid[-1]}"])
    known: dict[str, Published] = {}
    for row in (*CONFIGURATIONS, *IMAGENET):
        name = (row.network or "").removeprefix("psvit_")
        if name not in SPACES:
            continue
        params = row.params or (known[name].params if name in known else None)
        known.setdefault(name, row)
        if row is not known[name] and row.flops == known[name].flops:
            continue
        within = SearchSpace(SPACES[name]).within(*_bands(params, row.flops))
        figures = f"{params} M and {row.flops} G" if params else f"{row.flops} G"
        rows.append([f"architectures of {name} that round to {figures}", None, f"{within.count:,}"])
    return Table(
        "checks",
        "What can be checked without ImageNet and COCO",
        {"what": "", "paper": ">", "here": ">"},
        rows,
        [
            "The paper does not print the sizes of its spaces; they, and the architectures that meet a row, are "
            "counted exactly, not sampled.",
        ],
    )


def further_table(found: Found) -> Table:
    """Networks measured on ImageNet that no row of the paper asks for, such as those that a search has found."""
    rows: list[list[Cell]] = []
    for (network, layers), results in found.others().items():
        first = results[0]
        rows.append([network, _short(layers), first.params, first.flops, summary(results)])
    return Table(
        "further",
        "Measured on ImageNet-1k beyond the paper's rows",
        {"network": "", "layers": "", "params": ",", "FLOPs": ",", "top-1 here": ""},
        rows,
    )


def _bands(params: str | None, flops: str | None) -> tuple[Band, Band]:
    """All FLOPs and parameters that round to what is printed."""
    return (printed_band(flops, 10**9) if flops else ANY), (printed_band(params, 10**6) if params else ANY)


def _agrees(row: Published, cost: Cost, notes: _Notes) -> str:
    """``yes`` where the counts round to what is printed, else the mark of the reason."""
    flops, params = _bands(row.params, row.flops)
    if cost.flops in flops and cost.params in params:
        return "yes"
    return notes.mark(WHY.get(row.network or "", UNKNOWN))


class _Notes:
    """Reasons that the rows of a table refer to, each once."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def mark(self, text: str) -> str:
        """``[1]``, the mark of a reason."""
        if text not in self.texts:
            self.texts.append(text)
        return f"[{self.texts.index(text) + 1}]"

    @property
    def lines(self) -> list[str]:
        """The reasons behind their marks."""
        return [f"[{number}] {text}" for number, text in enumerate(self.texts, start=1)]


def _short(layers: str) -> str:
    """Layers with long runs of basic ones counted: ``BBBBBBBBBBBB`` is ``12B``."""
    return "-".join(f"{len(word)}B" if len(word) > 6 and set(word) == {"B"} else word for word in layers.split("-"))
