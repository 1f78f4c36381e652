"""A folder for a model hub: weights, architecture, preprocessing by timm's names, and a model card."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from psvit.archfile import ArchFile, load_arch
from psvit.deploy.model import Model
from psvit.intervals import Estimate
from psvit.retrain.artifacts import WEIGHTS
from psvit.retrain.results import RetrainRecord
from psvit.run.files import write_text
from psvit.run.folder import recorded_command
from psvit.units import format_quantity

CARD = "README.md"
_CROP_MODES = {"cover": "center", "stretch": "squash"}  # of resizing -> what timm calls it


def write_hub(folder: Path, arch_path: Path, model: Model, top1: Estimate, data: str, images: int) -> None:
    """Write the folder; the weights are a hard link to those of the run where the disk allows.

    Args:
        arch_path: of the network; its weights lie beside it.
        top1: on ``images`` test images of the dataset ``data``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _link(arch_path.parent / WEIGHTS, folder / WEIGHTS)
    arch = load_arch(arch_path)
    write_text(folder / "arch.json", arch_path.read_text(encoding="utf-8"))
    write_text(folder / "config.json", json.dumps(timm_config(arch, model), indent=2) + "\n")
    card = folder / CARD
    write_text(card, _card(arch, arch_path.parent, model, top1, data, images, _licence(card)))


def timm_config(arch: ArchFile, model: Model) -> dict[str, Any]:
    """Classes and preprocessing under the keys that timm's config.json has."""
    how = model.trained_on.preprocessing
    preprocessing = {
        "input_size": [3, *model.image_size],
        "fixed_input_size": True,
        "mean": list(how.mean),
        "std": list(how.std),
        "interpolation": how.interpolation,
        "crop_pct": how.crop,
        "crop_mode": _CROP_MODES[how.resize],
        "num_classes": arch.classes,
    }
    return {
        "library_name": "psvit-search",
        "architecture": arch.name,
        "num_classes": arch.classes,
        "label_names": list(model.class_names),
        "pretrained_cfg": preprocessing,
    }


def _licence(card: Path) -> str:
    """The line of a card that someone may have filled in, or the one to fill in."""
    lines = card.read_text(encoding="utf-8").splitlines() if card.is_file() else []
    return next((line for line in lines if line.startswith("license:")), "license: other # fill in")


def _card(arch: ArchFile, run: Path, model: Model, top1: Estimate, data: str, images: int, licence: str) -> str:
    """The model card, in Markdown: what it is, what it reaches, how it was made, how it is used."""
    record = RetrainRecord.load(run / "result.json") if (run / "result.json").is_file() else None
    budget, command = (arch.provenance or {}).get("budget"), recorded_command(run)
    facts = [
        ("Layers", f"`{arch.architecture}`"),
        ("Cost", f"{format_quantity(arch.cost.flops)} FLOPs, {format_quantity(arch.cost.params)} parameters"),
        ("Images", f"{model.image_size[0]} x {model.image_size[1]} pixels, RGB"),
        ("Classes", f"{arch.classes:,}"),
        (f"Top-1 on {images:,} test images of {data}", str(top1)),
    ]
    if budget is not None:
        facts.insert(1, ("Found by a search within", f"`{json.dumps(budget)}`"))
    if record is not None:
        learned = f"{record.num_images:,} images ({record.trained_on}), {record.epochs} epochs, seed {record.seed}"
        others = (("From", record.start), ("Teacher", record.teacher))
        facts += [("Trained on", learned), *((name, f"`{value}`") for name, value in others if value)]
    made = f"\n## How it was made\n\n```\n{command}\n```\n" if command else ""
    table = "\n".join(f"| {name} | {value} |" for name, value in facts)
    return _CARD.format(name=arch.name, table=table, made=made, kind=arch.spec.kind.upper(), licence=licence)


_CARD = """---
library_name: psvit-search
pipeline_tag: image-classification
tags:
- image-classification
- psvit
{licence}
---

# {name}

A vision transformer with token pooling and attention sharing (PSViT-{kind}, arXiv 2108.03428).

| | |
|---|---|
{table}
{made}
## How to use it

```python
import psvit

psvit.load("FOLDER").predict("picture.jpg")  # the most probable classes, with their probabilities
```

`arch.json` describes the network; the header of `model.safetensors` and `config.json` hold the names of its classes and
its preprocessing.
"""


def _link(source: Path, target: Path) -> None:
    """A hard link, or a copy where there can be none."""
    if target.is_file() and os.path.samefile(source, target):
        return
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
