"""What a run is made on: classes, numbers of images, and digests of the listing and of the splits. No torch.

Beside the settings of a run lies ``data.json``. The same command resumes the run on the same data only, wherever they
lie by then, and a supernet holds its own copy, which a search compares with what it scores on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from psvit.data.names import printable
from psvit.data.splits import Integers
from psvit.run.records import Record

DATA = "data.json"
_NAMED = 3  # classes that a line names


@dataclass(frozen=True)
class Listed:
    """Images in one folder, or in one part of a dataset.

    Attributes:
        images: their number.
        by_class: how many images each class has, or is seen in.
        sha256: of the name, class and stamp (size of the file, or checksum) of each.
    """

    images: int
    by_class: tuple[int, ...]
    sha256: str

    @classmethod
    def of(cls, names: Sequence[str], labels: Integers, stamps: Integers, classes: int) -> Listed:
        """The record of images by their names, classes and stamps, (n,) each."""
        digest = hashlib.sha256()
        for name, label, stamp in zip(names, labels.tolist(), stamps.tolist(), strict=True):
            digest.update(f"{name}\t{label}\t{stamp}\n".encode("utf-8", "surrogateescape"))
        return cls(len(labels), tuple(np.bincount(labels, minlength=classes).tolist()), digest.hexdigest())


@dataclass(frozen=True)
class Split:
    """Images that one part of a run learns from or is scored on.

    Attributes:
        images: their number.
        sha256: of their numbers in what is listed.
    """

    images: int
    sha256: str

    @classmethod
    def of(cls, indices: Integers) -> Split:
        """The record of a split by the indices of its images, ascending."""
        return cls(len(indices), hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest())


@dataclass(frozen=True)
class DataRecord(Record):
    """``data.json`` of a run.

    Attributes:
        dataset: its name.
        classes: name of each class, in the order of the labels.
        listed: ``train``, and ``test`` where the run reads a test split that lies apart -> what lies there.
        splits: name of each split that the run may take -> what is in it.
    """

    format: ClassVar[str] = "psvit-data"
    remedy: ClassVar[str] = "delete it if the images are still those of this run, or use out=... for a new run"

    dataset: str
    classes: tuple[str, ...]
    listed: dict[str, Listed]
    splits: dict[str, Split]

    def __post_init__(self) -> None:
        if any(len(part.by_class) != len(self.classes) for part in self.listed.values()):
            raise ValueError(f"by_class must have {len(self.classes)} numbers, one per class")

    def changes(self, now: DataRecord) -> list[str]:
        """What other data have that are not these, a phrase each; nothing of the same data."""
        changed = [] if self.dataset == now.dataset else [f"the dataset was {self.dataset} and is {now.dataset}"]
        if self.classes != now.classes:
            return changed + _changed_classes(self.classes, now.classes)
        for part in dict.fromkeys([*self.listed, *now.listed]):
            was, found = self.listed.get(part), now.listed.get(part)
            if was is None or found is None:
                changed.append(f"{'no' if was is None else 'a'} {part} split of its own was there")
            elif was != found:
                changed += _changed_images(part, was, found, self.classes)
        if not changed:
            names = self.splits.keys() | now.splits.keys()
            moved = sorted(name for name in names if self.splits.get(name) != now.splits.get(name))
            changed = [f"the same images are split in another way ({', '.join(moved)})"] if moved else []
        return changed


def record_data(folder: Path, now: DataRecord) -> None:
    """Write ``data.json`` into a run folder or, where there is one, compare it.

    Raises:
        ValueError: the data are not those that the run was begun with; the line says what differs.
    """
    path = folder / DATA
    if not path.exists():
        now.save(path)
    elif changed := DataRecord.load(path).changes(now):
        raise ValueError(
            f"{folder} holds a run on other data: {'; '.join(changed)}. Use name=... or out=... for a new run, or "
            "restore the images to resume"
        )


def _changed_classes(was: Sequence[str], now: Sequence[str]) -> list[str]:
    added, gone = ([name for name in one if name not in set(other)] for one, other in ((now, was), (was, now)))
    changed = [f"{what} {_some(names)}" for what, names in (("new are", added), ("missing are", gone)) if names]
    return [f"the classes differ: {', '.join(changed) or 'they are in another order'}"]


def _changed_images(part: str, was: Listed, now: Listed, classes: Sequence[str]) -> list[str]:
    """Which classes have more or fewer images or, where none has, that the images are others."""
    counts = zip(classes, was.by_class, now.by_class, strict=True)
    changed = [f"{name} had {before:,} and has {after:,}" for name, before, after in counts if before != after]
    if was.images != now.images:
        total = f"{part} had {was.images:,} images and has {now.images:,}"
        return [f"{total} ({_some(changed)})" if changed else total]
    if changed:
        return [f"{part} has as many images, but of other classes ({_some(changed)})"]
    return [f"{part} has as many images, but some were renamed or replaced"]


def _some(texts: Sequence[str]) -> str:
    """The first few of some texts, and how many more there are."""
    more = f" and {len(texts) - _NAMED:,} more" if len(texts) > _NAMED else ""
    return ", ".join(map(printable, texts[:_NAMED])) + more
