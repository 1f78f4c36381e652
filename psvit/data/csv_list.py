"""Images that a CSV file lists, with the class of each: ``file,label`` or ``file,label,split``, a line per image.

The first line names the columns, in any order and case, by any of the names below; others are left alone, so that a
``metadata.csv`` of Hugging Face's image folders is read as it is. Files are named from the folder of the list on.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from psvit.data.images import Dataset, FolderImages, file_sizes
from psvit.data.listing import warn
from psvit.data.names import printable
from psvit.data.splits import SPLIT_NAMES

COLUMNS = {
    "file": ("file", "filename", "file_name", "path", "filepath", "image", "image_path"),
    "label": ("label", "class", "class_name", "target", "category"),
    "split": ("split", "set", "subset"),
}
"""Column -> what it may be called, in lower case."""


def open_csv(path: Path) -> Dataset:
    """The dataset of a list, or of the only one in a folder. Images are looked for, not opened.

    Without a column of splits all images are there to learn from, and a part of them is held out for testing. ``test``
    comes before ``val`` where both are listed.

    Raises:
        ValueError: no such list, no column of files or labels, a line that is not whole, a file that is missing or
            listed twice, an unknown split, or fewer than two classes. The message names the line.
    """
    if path.is_dir():
        path = _only_list(path)
    rows = _rows(path)
    splits = sorted({split for _, _, split in rows})
    test = next((split for split in ("test", "val") if split in splits), None)
    learn = {"train", ""} if test else set(splits)
    classes = _in_order({label for _, label, split in rows if split in learn})
    if len(classes) < 2:
        raise ValueError(f"{path} lists {len(classes)} classes to learn; a classifier needs at least two")
    number = {label: index for index, label in enumerate(classes)}

    def images(wanted: set[str]) -> FolderImages:
        chosen = [(name, label) for name, label, split in rows if split in wanted]
        if unknown := sorted({label for _, label in chosen} - number.keys()):
            raise ValueError(f"{path}: class {printable(unknown[0])!r} is in {test}, but has no image to learn from")
        names, labels = [name for name, _ in chosen], [number[label] for _, label in chosen]
        return FolderImages(path.parent, names, np.array(labels, np.int64))

    _check_files(path, [name for name, _, _ in rows])
    if left_out := sum(split not in learn | {test} for _, _, split in rows):
        warn(f"{path}: {len(rows):,} images in {len(classes):,} classes; left out: {left_out:,} of split val")
    return Dataset(classes, images(learn), (lambda: images({test})) if test else None, photographs=True)


def _only_list(folder: Path) -> Path:
    lists = sorted(each for each in folder.iterdir() if each.suffix.lower() == ".csv")
    if len(lists) != 1:
        names = ", ".join(printable(each.name) for each in lists[:4])
        held = f"several lists: {names}" if lists else "no list"
        raise ValueError(f"{folder} holds {held}; give the file, data.root=FOLDER/NAME.csv")
    return lists[0]


def _rows(path: Path) -> list[tuple[str, str, str]]:
    """File, label and split of each line; the split is "" where there is no such column."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            places = _places(path, next(lines, []))
            rows = list(_read(path, lines, places))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"cannot read {path}: {error}; write it as UTF-8, with commas between its columns") from error
    if not rows:
        raise ValueError(f"{path} lists no images; write a line for each")
    name, times = Counter(name for name, _, _ in rows).most_common(1)[0]
    if times > 1:
        raise ValueError(f"{path} lists {printable(name)} {times} times; list each image once")
    return rows


def _places(path: Path, header: list[str]) -> dict[str, int]:
    """Column -> its place."""
    found = [name.strip().lower() for name in header]
    places = {}
    for column, names in COLUMNS.items():
        there = [place for place, name in enumerate(found) if name in names]
        if len(there) > 1:
            both = " and ".join(header[place].strip() for place in there[:2])
            raise ValueError(f"{path} has two columns for the {column}: {printable(both)}; rename one of them")
        if there:
            places[column] = there[0]
        elif column != "split":
            raise ValueError(
                f"{path} has no column of {column}s; its first line must name the columns, such as file,label,split"
            )
    return places


def _read(path: Path, lines: Iterator[list[str]], places: dict[str, int]) -> Iterator[tuple[str, str, str]]:
    for number, line in enumerate(lines, start=2):
        if not line:
            continue
        where = f"{path}, line {number}"
        if len(line) <= max(places.values()):
            raise ValueError(f"{where} has {len(line)} columns; write all of them")
        name, label = line[places["file"]].strip(), line[places["label"]].strip()
        if not name or not label:
            raise ValueError(f"{where} has no {'label' if name else 'file'}; write it, or remove the line")
        split = line[places["split"]].strip().lower() if "split" in places else ""
        if "split" in places and split not in SPLIT_NAMES:
            raise ValueError(f"{where} is of split {printable(split)!r}; write one of {', '.join(SPLIT_NAMES)}")
        yield str(PurePosixPath(name)), label, SPLIT_NAMES.get(split, "")


def _in_order(labels: set[str]) -> tuple[str, ...]:
    """Class names by the alphabet; numbers by their value, or 10 would come before 2."""
    if all(label.isascii() and label.isdigit() for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))


def _check_files(path: Path, names: list[str]) -> None:
    missing = np.flatnonzero(file_sizes(path.parent, names) < 0)
    if len(missing):
        raise ValueError(
            f"{path}: {len(missing):,} of {len(names):,} files are missing, the first is "
            f"{printable(names[missing[0]])}; they are looked for in {path.parent}"
        )
