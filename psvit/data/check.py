"""``psvit-search check``: one look at all images before anything is trained.

Files are read whole and decoded, in several threads; what was found of each is kept in a cache, and a file of the same
size and time is not read again. Identical images are those of identical files or, of images that are no files, of
identical pixels.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from psvit.data.config import CheckConfig
from psvit.data.data import Data, open_data
from psvit.data.formats import open_image
from psvit.data.images import FolderImages, Images
from psvit.data.names import printable
from psvit.data.overview import overview, standard_error
from psvit.run.files import write_text
from psvit.run.jobs import cores
from psvit.run.progress import Counter as Bar

_COLUMNS = ["name", "size", "time", "sha256", "format", "mode", "height", "width", "fault"]
_TOGETHER = 256  # images that are looked at between two words on the progress
_SHOWN = 8  # classes, files and pairs that are named
_LARGE = 160  # pixels of the shorter side from which a space for 224 px suits


@dataclass(frozen=True)
class Look:
    """What was found of an image.

    Attributes:
        size: bytes of its file; of an image that is none, of its pixels.
        time: of its last change, in nanoseconds since 1970; 0 of an image that is no file.
        sha256: of these bytes.
        format, mode: as Pillow names them, such as ``JPEG`` and ``RGB``.
        height, width: in pixels.
        fault: why it cannot be read, in a line; None of one that can.
    """

    size: int
    time: int
    sha256: str = ""
    format: str = ""
    mode: str = ""
    height: int = 0
    width: int = 0
    fault: str | None = None


@dataclass(frozen=True)
class CheckReport:
    """What a check found; ``str`` says it in some lines.

    Attributes:
        dataset: its name.
        splits: ``train``, ``search`` and ``test`` -> number of images.
        classes: name of each class -> its number of images to learn from, the search split among them.
        formats, modes: name -> number of images.
        heights, widths: smallest, median and largest, in pixels; None without a readable image.
        unreadable: name of each image that cannot be read -> why.
        repeated: names of identical images, group by group, each name with its split before it: ``train a/1.png``.
        error: standard error of a top-1 of 0.9 on the search split.
    """

    dataset: str
    splits: dict[str, int]
    classes: dict[str, int]
    formats: dict[str, int]
    modes: dict[str, int]
    heights: tuple[int, int, int] | None
    widths: tuple[int, int, int] | None
    unreadable: dict[str, str]
    repeated: list[list[str]]
    error: float

    @property
    def shared(self) -> list[list[str]]:
        """Those of the repeated that are in images to learn from and in the test split."""
        return [group for group in self.repeated if len({name.partition(" ")[0] == "test" for name in group}) == 2]

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        about = list(overview(self.dataset, self.classes, self.splits))
        yield from about[:-1]
        yield f"formats: {_counts(self.formats)}; modes: {_counts(self.modes)}"
        if self.heights and self.widths:
            sizes = zip(self.heights, self.widths, strict=True)
            smallest, middle, largest = (f"{height} x {width}" for height, width in sizes)
            yield f"pixels, height x width: median {middle}, from {smallest} to {largest}"
            suits = "space=2d_tiny_8 (224 px)" if min(self.heights[1], self.widths[1]) >= _LARGE else "space=2d_mini_4"
            yield f"    a space that suits them: {suits}"
        yield about[-1]
        yield from self._faults()

    def _faults(self) -> Iterator[str]:
        if self.unreadable:
            yield f"cannot be read: {len(self.unreadable):,} images; remove them, or data.corrupt=skip for training"
            yield from (f"    {printable(name)}: {why}" for name, why in list(self.unreadable.items())[:_SHOWN])
        for groups, what in (
            (self.shared, "are in the test split and in what is learned from: the test would flatter"),
            ([group for group in self.repeated if group not in self.shared], "are there more than once"),
        ):
            if groups:
                yield f"identical: {len(groups):,} images {what}"
                yield from (f"    {', '.join(map(printable, group[:4]))}" for group in groups[:_SHOWN])
        if not self.unreadable and not self.repeated:
            yield "every image can be read, and none is there twice"


def check(config: CheckConfig) -> CheckReport:
    """Look at every image of a dataset, print what was found, and give it.

    Raises:
        ValueError: what cannot be trained on: no such data, a class without images in a split, too few images, or
            none that can be read.
    """
    data = open_data(config.data)
    sizes = {split: data.size(split) for split in ("train", "search", "test")}
    looks: dict[str, Look] = {}
    for split in sizes:
        looks |= {f"{split} {name}": look for name, look in _look_at_split(data, split, config.cache).items()}
    report = summarise(data, sizes, looks)
    print(json.dumps(asdict(report), indent=2) if config.json else report)
    if len(report.unreadable) == len(looks):
        raise ValueError(f"none of {len(looks):,} images can be read; the first: {next(iter(report.unreadable))}")
    return report


def summarise(data: Data, sizes: Mapping[str, int], looks: Mapping[str, Look]) -> CheckReport:
    """The report on what was found.

    Args:
        sizes: number of images of each split.
        looks: ``SPLIT NAME`` of each image -> what was found of it.
    """
    labels = np.concatenate([data.labels("train"), data.labels("search")])
    counts = np.bincount(labels, minlength=data.classes).tolist()
    whole = [look for look in looks.values() if look.fault is None]
    same = defaultdict(list)
    for name, look in looks.items():
        if look.fault is None:
            same[look.sha256].append(name)
    return CheckReport(
        dataset=data.config.name,
        splits=dict(sizes),
        classes=dict(zip(data.class_names, counts, strict=True)),
        formats=dict(Counter(look.format for look in whole).most_common()),
        modes=dict(Counter(look.mode for look in whole).most_common()),
        heights=_spread([look.height for look in whole]),
        widths=_spread([look.width for look in whole]),
        unreadable={name: look.fault for name, look in looks.items() if look.fault is not None},
        repeated=[group for group in same.values() if len(group) > 1],
        error=standard_error(sizes["search"]),
    )


def _spread(pixels: Sequence[int]) -> tuple[int, int, int] | None:
    return (min(pixels), int(np.median(pixels)), max(pixels)) if pixels else None


def _counts(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in numbers.items()) or "none"


# ---------------------------------------------------------------------------------------------------- looking


def _look_at_split(data: Data, split: str, use_cache: bool) -> dict[str, Look]:
    """Name of each image of a split -> what was found of it."""
    images, indices = data.images(split)
    if not isinstance(images, FolderImages):
        return {images.names[index]: _look_at_pixels(images, index) for index in indices.tolist()}
    cache = cache_path(images.root, split)
    known = _read_cache(cache) if use_cache else {}
    names = [images.names[index] for index in indices.tolist()]
    looks: dict[str, Look] = {}
    with Bar(len(names), f"check {split}", "images") as bar, ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(names), _TOGETHER):
            part = names[start : start + _TOGETHER]
            found = pool.map(lambda name: _look_at_file(images.root / name, known.get(name)), part)
            looks |= zip(part, found, strict=True)
            bar.advance(len(part))
    if use_cache and looks != known:
        _write_cache(cache, looks)
    return looks


def _look_at_file(path: Path, known: Look | None) -> Look:
    """What was found of a file before, if it has not changed; else what is found now."""
    try:
        status = os.stat(path)
        if known is not None and (known.size, known.time) == (status.st_size, status.st_mtime_ns):
            return known
        if not path.is_file():
            return Look(status.st_size, status.st_mtime_ns, fault="it is not a regular file")
        content = path.read_bytes()
    except OSError as error:
        return Look(0, 0, fault=str(error.strerror))
    found = Look(len(content), status.st_mtime_ns, hashlib.sha256(content).hexdigest())
    try:
        with open_image(io.BytesIO(content)) as picture:
            picture.load()
            kind, mode, (width, height) = str(picture.format), picture.mode, picture.size
    except Exception as error:  # a broken file makes Pillow raise almost anything
        reason = (str(error) or repr(error)).splitlines()[0]
        return Look(found.size, found.time, found.sha256, fault=reason)
    return Look(found.size, found.time, found.sha256, kind, mode, height, width)


def _look_at_pixels(images: Images, index: int) -> Look:
    """Of an image that is no file of its own."""
    try:
        pixels = images.read(index)
    except ValueError as error:
        return Look(0, 0, fault=str(error))
    content = pixels.contiguous().numpy().tobytes()
    _, height, width = pixels.shape
    return Look(len(content), 0, hashlib.sha256(content).hexdigest(), "pixels", "RGB", height, width)


def cache_path(root: Path, split: str) -> Path:
    """Where what was found of a split is kept: in ``$XDG_CACHE_HOME/psvit-search``, or ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    name = hashlib.sha256(f"{root.resolve()}\n{split}".encode()).hexdigest()[:16]
    return Path(base) / "psvit-search" / f"check-{name}.csv"


def _write_cache(path: Path, looks: Mapping[str, Look]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows([name, *(getattr(look, column) for column in _COLUMNS[1:])] for name, look in looks.items())
    write_text(path, text.getvalue())


def _read_cache(path: Path) -> dict[str, Look]:
    """What the cache holds; nothing where it is missing or damaged, since all of it can be found again."""
    if not path.is_file():
        return {}
    try:
        header, *rows = csv.reader(io.StringIO(path.read_text(encoding="utf-8")), strict=True)
        if header != _COLUMNS:
            raise ValueError("it has other columns")
        return {
            name: Look(int(size), int(time), sha256, kind, mode, int(height), int(width), fault or None)
            for name, size, time, sha256, kind, mode, height, width, fault in rows
        }
    except (ValueError, csv.Error) as error:
        print(f"note: {path} is damaged ({error}); all images are read again", file=sys.stderr)
        return {}
