"""``hub/``: a folder for timm and for model hubs, with weights, architecture, preprocessing and a model card."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from psvit.archfile import ArchFile
from psvit.intervals import Estimate, share
from psvit.retrain.artifacts import WEIGHTS
from psvit.retrain.results import RetrainRecord
from psvit.run.files import make_folder, write_atomically, write_text
from psvit.run.folder import recorded_command
from psvit.units import format_quantity

HUB, CARD = "hub", "README.md"
_CROP_MODES = {"cover": "center", "stretch": "squash"}  # of resizing -> what timm calls it


def write_hub(folder: Path, run: Path, arch: ArchFile, right: int, images: int, data: str) -> None:
    """Write the folder; the weights are a hard link to those of the run where the disk allows.

    Args:
        run: folder with the trained network's arch.json and weights.
        arch: the network, which has met data.
        right: how many of the ``images`` test images of the dataset ``data`` it takes for what they are.
    """
    make_folder(folder)
    _link(run / WEIGHTS, folder / WEIGHTS)
    write_text(folder / "arch.json", (run / "arch.json").read_text(encoding="utf-8"))
    write_text(folder / "config.json", json.dumps(hub_config(arch), indent=2) + "\n")
    card = folder / CARD
    top1 = share(right, images)
    assert top1 is not None  # a test split has images
    write_text(card, _card(arch, run, top1, data, images, _licence(card)))


def hub_config(arch: ArchFile) -> dict[str, Any]:
    """Network, classes and preprocessing under the keys of timm's config.json, and those of :mod:`psvit.timm`."""
    assert arch.trained_on is not None
    how = arch.trained_on.preprocessing
    network = {"network": asdict(arch.spec), "layers": str(arch.architecture)}
    preprocessing = {
        "input_size": [arch.spec.channels, *arch.image_size],
        "fixed_input_size": True,
        "mean": list(how.mean),
        "std": list(how.std),
        "interpolation": how.interpolation,
        "crop_pct": how.crop,
        "crop_mode": _CROP_MODES[how.resize],
        "num_classes": arch.classes,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }
    return {
        "library_name": "psvit-search",
        "architecture": "psvit",
        "num_classes": arch.classes,
        "num_features": arch.spec.widths[-1],
        "label_names": list(arch.trained_on.class_names),
        "model_args": network,
        **network,
        "pretrained_cfg": preprocessing,
    }


def _licence(card: Path) -> str:
    """The line of a card that someone may have filled in, or the one to fill in."""
    lines = card.read_text(encoding="utf-8").splitlines() if card.is_file() else []
    return next((line for line in lines if line.startswith("license:")), "license: other # fill in")


def _card(arch: ArchFile, run: Path, top1: Estimate, data: str, images: int, licence: str) -> str:
    """The model card, in Markdown: what it is, what it reaches, how it was made, how it is used."""
    record = RetrainRecord.load(run / "result.json") if (run / "result.json").is_file() else None
    budget, command = (arch.provenance or {}).get("budget"), recorded_command(run)
    facts = [
        ("Layers", f"`{arch.architecture}`"),
        ("Cost", f"{format_quantity(arch.cost.flops)} FLOPs, {format_quantity(arch.cost.params)} parameters"),
        ("Images", f"{arch.image_size[0]} x {arch.image_size[1]} pixels, RGB"),
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

With timm, which takes it for one of its own models:

```python
import psvit.timm
import timm

timm.create_model("local-dir:FOLDER", pretrained=True)
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
        with open(source, "rb") as content:
            write_atomically(target, lambda file: shutil.copyfileobj(content, file))
