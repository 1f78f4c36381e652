"""Tar shards as the WebDataset library writes them, read image by image at any place.

``train-000000.tar``, ``val-000000.tar``, ... lie in one folder, or in folders ``train/`` and ``val/`` (or ``test/``). A
sample is the files of one name up to its first dot, one behind the other: ``0001.jpg`` (.jpeg, .png) and ``0001.cls``,
the number of its class as text. Other files of a sample, such as ``0001.json``, are left alone. Names of the classes
are the lines of ``classes.txt``, if there is one. All headers are read when the shards are opened; a packed cache
(``packed.py``) opens at once and takes what is read here.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from psvit.data.decode import Need, decode_image, plain_jpeg
from psvit.data.images import Dataset, Images
from psvit.data.loading import load
from psvit.data.shards import ShardFiles
from psvit.data.splits import Integers
from psvit.data.store import pack_names, unpack_names
from psvit.run.jobs import cores

CLASSES = "classes.txt"
IMAGE_SUFFIXES = ("jpg", "jpeg", "png")
TEST_WORDS = ("test", "val", "valid", "validation")  # what a shard of the test split is called; the first comes first
READERS = 16  # processes, at most, that read headers: a fraction of a millisecond a sample


class Member(NamedTuple):
    """A file in a tar: its name, cut at the first dot behind the last slash, and where its bytes lie."""

    key: str
    suffix: str
    offset: int
    length: int


class Sample(NamedTuple):
    """An image in a tar and its label."""

    image: Member
    label: int


@dataclass(frozen=True)
class TarImages:
    """Images in tar files; ``shard``, ``offset`` and ``length`` are (n,) and say where each lies, in bytes."""

    files: ShardFiles
    names: Sequence[str]
    labels: Integers
    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]
    size: tuple[int, int] | None = None
    aspects: NDArray[np.float32] | None = None

    def stamps(self) -> Integers:
        return self.length

    def read(self, index: int, need: Need | None = None) -> Tensor:
        return decode_image(BytesIO(self._content(index)), f"{self.names[index]} of {self.files.paths[0].parent}", need)

    def encoded(self, index: int) -> bytes | None:
        try:
            return plain_jpeg(self._content(index))
        except ValueError:
            return None

    def _content(self, index: int) -> bytes:
        place = int(self.shard[index]), int(self.offset[index]), int(self.length[index])
        return self.files.read(*place).tobytes()


def open_webdataset(root: Path) -> Dataset:
    """The dataset of a folder of tar shards; headers of its test shards are not read before they are asked for.

    Raises:
        ValueError: there is no shard, one is cut off, or a sample has no label or none of the known ones.
    """
    train, test = find_shards(root)
    images = _list_images(root, train)
    classes = _class_names(root, images)
    if len(classes) < 2:
        raise ValueError(f"{root} holds only one class, {classes[0]!r}; a classifier needs at least two")
    _check_labels(images, classes)

    def open_test() -> Images:
        images = _list_images(root, test)
        _check_labels(images, classes)
        return images

    return Dataset(classes, images, open_test if test else None, photographs=True)


def find_shards(root: Path) -> tuple[list[Path], list[Path]]:
    """The tar files of the training and the test split, in order of their names; the latter may be none.

    Raises:
        ValueError: there is none to train on, or it is not clear what one is for.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted([*root.glob("*.tar"), *root.glob("*/*.tar")]):
        if path.name.startswith("."):
            continue
        text = path.parent.name if path.parent != root else path.name
        words = [word for word in re.split("[^a-z]+", text.lower()) if word in ("train", *TEST_WORDS)]
        if words or path.parent == root:
            found.setdefault(words[0] if words else "", []).append(path)
    tests = next((found[word] for word in TEST_WORDS if word in found), [])
    if "train" not in found and "" in found and not tests:
        return found[""], []
    if "" in found and found.keys() != {""}:
        raise ValueError(f"{found[''][0]} belongs to no known split; start its name with train- or val-")
    if "train" not in found:
        raise ValueError(
            f"{root} holds no training tar; it needs uncompressed train-000000.tar, ..., or a folder train/ of them"
        )
    return found["train"], tests


def read_members(path: Path) -> Iterator[Member]:
    """The files in a tar, without looking at what they hold.

    Raises:
        ValueError: it is no tar, or cut off.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.isreg() and not member.issparse():
                    folder, slash, name = member.name.rpartition("/")
                    stem, _, suffix = name.partition(".")
                    if stem and not name.startswith("__"):  # what the library keeps for itself
                        yield Member(folder + slash + stem, suffix.lower(), member.offset_data, member.size)
            end = tar.offset
        with open(path, "rb") as file:  # tarfile takes a cut or damaged header for the end
            file.seek(end)
            whole = file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)
    except (OSError, tarfile.TarError) as error:
        raise ValueError(
            f"cannot read {path} ({error}); it is not an uncompressed tar, or is truncated: download it again"
        ) from error
    if not whole:
        raise ValueError(f"{path} is cut off or damaged at byte {end:,}; download it again")


def read_samples(path: Path) -> list[Sample]:
    """The labelled images of a tar, in its order.

    Raises:
        ValueError: as :func:`read_members`, or an image has no label, or a label is no whole number from 0 on.
    """
    samples = []
    with open(path, "rb") as file:
        for key, members in groupby(read_members(path), lambda member: member.key):
            by_suffix = {member.suffix: member for member in members}
            image = next((by_suffix[suffix] for suffix in IMAGE_SUFFIXES if suffix in by_suffix), None)
            if image is None:
                continue
            if "cls" not in by_suffix:
                raise ValueError(f"{path} has image {key}.{image.suffix} but no {key}.cls; add its class")
            label = by_suffix["cls"]
            file.seek(label.offset)
            text = file.read(min(label.length, 100)).decode("ascii", "replace").strip()
            if not re.fullmatch("[0-9]{1,9}", text):
                raise ValueError(f"{key}.cls of {path} is {text!r}; it must be a class number, 0 or more")
            samples.append(Sample(image, int(text)))
    return samples


class _Table(NamedTuple):
    """The samples of a tar: (n,) each, but ``names``, which are packed. Tensors travel in shared memory."""

    labels: Tensor
    offset: Tensor
    length: Tensor
    names: Tensor


@dataclass(frozen=True)
class _Shards(TorchDataset[_Table | ValueError]):
    """The samples of each tar; what is wrong with it is returned, as torch would wrap it in a traceback."""

    root: Path
    paths: Sequence[Path]

    def __getitem__(self, index: int) -> _Table | ValueError:
        path = self.paths[index]
        try:
            samples = read_samples(path)
        except ValueError as error:
            return error
        tar = path.relative_to(self.root).as_posix()
        names = [f"{tar}/{sample.image.key}.{sample.image.suffix}" for sample in samples]
        return _Table(
            torch.tensor([sample.label for sample in samples], dtype=torch.int64),
            torch.tensor([sample.image.offset for sample in samples], dtype=torch.int64),
            torch.tensor([sample.image.length for sample in samples], dtype=torch.int64),
            torch.from_numpy(pack_names(names).copy()),
        )


def _list_images(root: Path, paths: list[Path]) -> TarImages:
    readers = min(READERS, cores(), len(paths) - 1)
    shards = list(load(_Shards(root, paths), range(len(paths)), readers, pin=False, patience=0))
    labels = torch.cat([shard.labels for shard in shards]).numpy()
    if not len(labels):
        raise ValueError(f"{paths[0]} and the other shards hold no images; a sample is NAME.jpg or .png with NAME.cls")
    return TarImages(
        ShardFiles(paths),
        [name for shard in shards if len(shard.labels) for name in unpack_names(shard.names.numpy())],
        labels,
        np.repeat(np.arange(len(paths), dtype=np.int32), [len(shard.labels) for shard in shards]),
        torch.cat([shard.offset for shard in shards]).numpy(),
        torch.cat([shard.length for shard in shards]).numpy(),
    )


def _class_names(root: Path, images: TarImages) -> tuple[str, ...]:
    """The lines of ``classes.txt``, else the numbers up to the largest label."""
    path = root / CLASSES
    if not path.exists():
        return tuple(map(str, range(int(images.labels.max()) + 1)))
    try:
        names = path.read_text(encoding="utf-8").strip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {path} ({error}); it must hold one class per line, in UTF-8") from error
    if not names or not all(name.strip() for name in names):
        raise ValueError(f"{path} has an empty line; it must hold one class per line, in the order of their numbers")
    return tuple(name.strip() for name in names)


def _check_labels(images: TarImages, classes: tuple[str, ...]) -> None:
    wrong = np.flatnonzero(images.labels >= len(classes))
    if len(wrong):
        index = wrong[0]
        raise ValueError(
            f"{images.names[index]} has class {images.labels[index]}, but there are {len(classes)}, counted from 0; "
            f"correct its .cls, or name all classes in {CLASSES}"
        )
