"""``psvit-search export``: a trained network as a file for another runtime, compared with torch before it is left."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from psvit.archfile import load_arch
from psvit.data.data import open_data
from psvit.deploy.config import ExportConfig
from psvit.deploy.formats import FORMATS_BY_NAME, Format, Run
from psvit.deploy.model import Model, arch_beside, load
from psvit.retrain.hub import CARD, HUB, write_hub
from psvit.run.files import make_folder, move_into_place
from psvit.units import format_duration

BATCHES = (1, 5)  # that are compared with torch
TOLERANCE = 1e-3  # of a logit, beside the same share of the largest


def export(config: ExportConfig) -> list[Path]:
    """Write the formats, each with its size, its top-1 on the test split in its runtime, and its time for an image.

    Raises:
        ValueError: no trained network, or one that is exported already, a runtime that is not installed, data of other
            classes, or answers that differ from torch's at a batch of 1 or 5: the file is not left then.
    """
    files = [FORMATS_BY_NAME[name] for name in config.formats if name != "hub"]
    for each in files:
        each.require()
    arch_path = arch_beside(Path(config.model))
    model, folder = load(arch_path, "cpu"), Path(config.save)
    data = open_data(config.data).as_seen_by(model.trained_on, config.model)
    batches = list(data.eval_batches("test", model.image_size, max(BATCHES)))
    make_folder(folder)
    written = []
    if files:
        batch = torch.export.Dim("batch", min=1)
        program = torch.export.export(model.module, (batches[0][0],), dynamic_shapes=({0: batch},))
        written = [_make(each, program, model, batches, folder / each.file) for each in files]
    if "hub" in config.formats:
        hub, (right, said) = folder / HUB, _score(model.module, batches)
        arch = load_arch(arch_path).meets(model.trained_on)
        write_hub(hub, arch_path.parent, arch, right, sum(len(labels) for _, labels in batches), config.data.name)
        print(f"wrote {hub}: test {said}; fill in the licence in {hub / CARD}")
        written.append(hub)
    return written


def _make(
    form: Format, program: torch.export.ExportedProgram, model: Model, batches: list[tuple[Tensor, Tensor]], path: Path
) -> Path:
    """Write a file, and those that belong to it, beside their place, compare with torch, and only then move them."""
    about = {"image_size": list(model.image_size), **model.trained_on.to_json()}
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        form.write(program, json.dumps(about), made)
        run, _ = form.open(made)
        check_same(run, model, batches[0][0], path.name)
        _, said = _score(run, batches)
        del run
        for name in (*form.beside, path.name):  # last what is opened
            move_into_place(made.with_name(name), path.with_name(name))
    size = sum(path.with_name(name).stat().st_size for name in (path.name, *form.beside))
    print(f"wrote {' and '.join([str(path), *form.beside])}: {size / 2**20:.1f} MiB, test {said}")
    return path


@torch.inference_mode()
def _score(run: Run, batches: list[tuple[Tensor, Tensor]]) -> tuple[int, str]:
    """How many images are taken for what they are in a runtime; top-1 and the time of an image in words."""
    right, began = 0, time.perf_counter_ns()
    for images, labels in batches:
        right += int((run(images).argmax(dim=1) == labels).sum())
    nanoseconds, number = time.perf_counter_ns() - began, sum(len(labels) for _, labels in batches)
    pace = f"{format_duration(nanoseconds // number)} an image in batches of {len(batches[0][0])}"
    return right, f"top-1 {right / number:.4f} on {number:,} images, {pace}"


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
