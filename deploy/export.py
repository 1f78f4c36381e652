"""``psvit-search export``: a trained network as a file for another runtime, compared with torch before it is left."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from psvit.data.data import open_data
from psvit.deploy.config import ExportConfig
from psvit.deploy.formats import FORMATS_BY_NAME, Format, Run
from psvit.deploy.model import Model, load
from psvit.units import format_duration

BATCHES = (1, 5)  # that are compared with torch
TOLERANCE = 1e-3  # of a logit, beside the same share of the largest


def export(config: ExportConfig) -> list[Path]:
    """Write the formats, each with its size, its top-1 on the test split in its runtime, and its time for an image.

    Raises:
        ValueError: no trained network, a runtime that is not installed, data of other classes, or answers that differ
            from torch's at a batch of 1 or 5: the file is not left then.
    """
    formats = [FORMATS_BY_NAME[name] for name in config.formats]
    for each in formats:
        each.require()
    model, folder = load(config.model, "cpu"), Path(config.save)
    data = open_data(config.data).as_seen_by(model.trained_on, config.model)
    batches = list(data.eval_batches("test", model.image_size, max(BATCHES)))
    program = torch.export.export(
        model.module, (batches[0][0],), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)
    )
    folder.mkdir(parents=True, exist_ok=True)
    return [_make(each, program, model, batches, folder / each.file) for each in formats]


def _make(
    form: Format, program: torch.export.ExportedProgram, model: Model, batches: list[tuple[Tensor, Tensor]], path: Path
) -> Path:
    """Write a file beside its place, compare it with torch, and only then move it there."""
    about = {"image_size": list(model.image_size), **model.trained_on.to_json()}
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        form.write(program, json.dumps(about), made)
        run, _ = form.open(made)
        check_same(run, model, batches[0][0], path.name)
        right, began = 0, time.perf_counter_ns()
        for images, labels in batches:
            right += int((run(images).argmax(dim=1) == labels).sum())
        nanoseconds = time.perf_counter_ns() - began
        del run
        os.replace(made, path)
    number = sum(len(labels) for _, labels in batches)
    print(
        f"wrote {path}: {path.stat().st_size / 2**20:.1f} MiB, test top-1 {right / number:.4f} on {number:,} images, "
        f"{format_duration(nanoseconds // number)} an image in batches of {len(batches[0][0])}"
    )
    return path


@torch.inference_mode()
def check_same(run: Run, model: Model, images: Tensor, name: str) -> None:
    """Refuse a network that does not answer as torch does.

    Raises:
        ValueError: it differs at a batch of 1 or 5.
    """
    for batch in BATCHES:
        expected, found = model.module(images[:batch]), run(images[:batch])
        apart = float((expected - found).abs().max()) if expected.shape == found.shape else float("inf")
        if not apart <= TOLERANCE * (1 + float(expected.abs().max())):
            raise ValueError(
                f"{name} is not written: its logits differ from torch's by {apart:.2g} at a batch of {batch}"
            )
