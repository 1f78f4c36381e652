"""``psvit-search inspect``: the layers, tokens and costs of a network, part by part. No torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psvit.arch import BASIC, LAYER_NAMES, SHARING, Architecture, NetworkSpec
from psvit.cost import Cost, head_cost, network_cost, pool_cost, stage_cost, stem_cost
from psvit.draw import draw_architecture
from psvit.figures import check_picture
from psvit.units import format_quantity
from psvit.zoo import SPACES

if TYPE_CHECKING:
    from psvit.archfile import ArchFile

_CELLS = 6  # of a stage of the paper's supernet: a named space is shown by its largest network
_LETTERS = 18  # layers in one line of the table


@dataclass
class InspectConfig:
    """Settings of ``psvit-search inspect``.

    Attributes:
        target: an arch.json, a network (``deit_tiny_16``), a space (``1d_tiny_16``), or a space and layers
            (``1d_tiny_16:BSB-BB-B``).
        save: draw the network into this .png or .svg file, too.
        json: print JSON instead of a table.
    """

    target: str = "???"
    save: str | None = None
    json: bool = False


@dataclass(frozen=True)
class Part:
    """A row of the table: stem, token pooling, stage or head. What a part does not have is None.

    Attributes:
        layers: letters of a stage's layers.
        tokens: how many tokens the part gives out.
        grid: (rows, columns) of these; a sequence is one row.
        width: of these tokens.
        heads: attention heads.
        cost: FLOPs and parameters.
    """

    name: str
    cost: Cost
    layers: str | None = None
    tokens: int | None = None
    grid: tuple[int, int] | None = None
    width: int | None = None
    heads: int | None = None


def inspect(config: InspectConfig) -> None:
    """Print the table of a network and, if asked for, draw it.

    Raises:
        ValueError: nothing has this name, the arch.json is faulty, or the picture cannot be written.
    """
    if config.save is not None:
        check_picture(Path(config.save))
    arch, note = _find(config.target)
    if config.json:
        print(json.dumps(_to_json(arch), indent=2))
    else:
        print("\n".join(_table(arch, note)))
    if config.save is not None:
        draw_architecture(arch.spec, arch.architecture, Path(config.save))
        if not config.json:
            print(f"\nDrawn in {config.save}")


def parts(spec: NetworkSpec, architecture: Architecture) -> list[Part]:
    """What a network is made of, from stem to head; the costs add up to the network's."""

    def made(name: str, cost: Cost, stage: int, **more: Any) -> Part:
        return Part(name, cost, tokens=spec.tokens[stage], grid=spec.grids[stage], width=spec.widths[stage], **more)

    rows = [made("stem", stem_cost(spec), 0)]
    for stage, layers in enumerate(architecture.stages):
        if stage:
            rows.append(made("pooling", pool_cost(spec, stage), stage))
        cost = stage_cost(spec, stage, layers.count(BASIC), layers.count(SHARING))
        rows.append(made(f"stage {stage + 1}", cost, stage, layers=layers, heads=spec.heads[stage]))
    return [*rows, Part("head", head_cost(spec))]


def _find(target: str) -> tuple[ArchFile, str]:
    """What a target names, and a line on what was chosen for it, if anything was."""
    from psvit.archfile import ArchFile
    from psvit.networks import find_arch

    if target in SPACES:
        largest = Architecture((BASIC * _CELLS,) * SPACES[target].stages)
        note = f"the space's largest network, {_CELLS} basic layers per stage; for another one write {target}:BSB-BB-B"
        return ArchFile(SPACES[target], largest), note
    return find_arch(target), ""


def _table(arch: ArchFile, note: str) -> list[str]:
    """Lines of at most 100 columns."""
    spec, total = arch.spec, arch.cost
    image = f"{spec.image_size[0]}x{spec.image_size[1]}"
    readout = "class token" if spec.readout == "class_token" else "mean over tokens"
    lines = [
        f"{_plain(spec.name) or 'network'}: {format_quantity(total.flops)} FLOPs (multiply-adds per image), "
        f"{format_quantity(total.params)} parameters",
        f"PSViT-{spec.kind.upper()}, image {image}, patch {spec.patch_size}, readout {readout}, {spec.classes} classes",
    ]
    lines += [note] if note else []
    row = "{:<8}  {:<18}  {:>15}  {:>5}  {:>5}  {:>15}  {:>6}  {:>13}".format
    header = row("", "layers", "tokens", "width", "heads", "FLOPs", "share", "parameters")
    lines += ["", header, "-" * len(header)]
    for part in parts(spec, arch.architecture):
        letters = part.layers or ""
        tokens = "" if part.tokens is None else str(part.tokens)
        if spec.kind == "2d" and part.grid is not None:
            tokens += f" ({part.grid[0]}x{part.grid[1]})"
        share = f"{part.cost.flops / total.flops:.1%}"
        cost = f"{part.cost.flops:,}", share, f"{part.cost.params:,}"
        lines.append(row(part.name, letters[:_LETTERS], tokens, part.width or "", part.heads or "", *cost))
        lines += ["          " + letters[start : start + _LETTERS] for start in range(_LETTERS, len(letters), _LETTERS)]
    lines += ["-" * len(header), row("total", "", "", "", "", f"{total.flops:,}", "100.0%", f"{total.params:,}")]
    lines.append(f"{LAYER_NAMES[BASIC]} layers are B, {LAYER_NAMES[SHARING]} layers S")
    return [line.rstrip() for line in lines + _origin_lines(arch.provenance)]


def _origin_lines(provenance: dict[str, Any] | None) -> list[str]:
    """Where a searched network came from."""
    if not provenance:
        return []
    lines = ["", "Origin"]
    for key, value in provenance.items():
        text = _plain(value)
        lines.append(f"  {key.replace('_', ' '):<16}  {text if len(text) <= 80 else text[:77] + '...'}")
    return lines


def _plain(value: Any) -> str:
    """A JSON value in words."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items() if item not in (None, [None, None]))
    if isinstance(value, list):
        return " to ".join("any" if item is None else _plain(item) for item in value)
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if text.isprintable() else repr(text)  # the file may be a stranger's: no control codes to the terminal


def _to_json(arch: ArchFile) -> dict[str, Any]:
    total = network_cost(arch.spec, arch.architecture)
    rows = []
    for part in parts(arch.spec, arch.architecture):
        row = {
            "name": part.name,
            "layers": None,
            **{k: v for k, v in asdict(part).items() if k not in ("name", "cost")},
        }
        if part.layers is not None:
            row["layers"] = [LAYER_NAMES[letter] for letter in part.layers]
        rows.append({**row, "flops": part.cost.flops, "params": part.cost.params})
    return {
        "network": asdict(arch.spec),
        "layers": str(arch.architecture),
        "flops": total.flops,
        "params": total.params,
        "parts": rows,
        "origin": arch.provenance,
    }
