"""The packed cache: images resized once and laid one behind the other in large files, read at any place.

A cache is a folder that ``psvit-search prepare-data`` makes:

    index.json          what it was made from and how, and size and SHA-256 of every other file
    train.npz           where each image lies, its CRC32, label, name, size and aspect ratio
    train-00000.bin     the images themselves, a shard of about 256 MB; train-00001.bin, ...
    test.npz, test-00000.bin, ...    of the source's own test split, where it has one

An image is a JPEG, or uint8 (3, size, size) as it lies in memory. Here is what these files hold, and how they are
checked; ``packed.py`` reads the images.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from psvit.data.splits import Integers
from psvit.run.files import sha256
from psvit.run.records import read_object, shown

FORMAT, VERSION = "psvit-cache", 2  # 1 had no digest of its own
_DIGEST = "sha256"
_MOST_BYTES = 2**30  # of index.json: each shard and each image that was skipped takes a line
INDEX = "index.json"
SPLITS = ("train", "test")
_AGAIN = "run the prepare-data command that made the cache again to rewrite them"


class Described(NamedTuple):
    """What index.json says of a file."""

    bytes: int
    sha256: str


class Table(NamedTuple):
    """The images of a split; arrays (n,) but for ``shapes`` (n, 2) and ``names``.

    Attributes:
        shard, offset, length: where an image lies, in bytes.
        crc32: of these bytes.
        shapes: height and width in pixels.
        aspects: width / height of the picture that it was made from.
        names: of all images in UTF-8, a zero byte between two; no file name contains one.
    """

    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]
    crc32: NDArray[np.uint32]
    labels: Integers
    shapes: NDArray[np.int32]
    aspects: NDArray[np.float32]
    names: NDArray[np.uint8]


def pack_names(names: Sequence[str]) -> NDArray[np.uint8]:
    """Names as ``Table.names``; bytes of a file name that are no UTF-8 stay what they are."""
    return np.frombuffer("\0".join(names).encode("utf-8", "surrogateescape"), np.uint8)


def unpack_names(names: NDArray[np.uint8]) -> list[str]:
    """What :func:`pack_names` has packed, one name at least."""
    return names.tobytes().decode("utf-8", "surrogateescape").split("\0")


def shard_name(split: str, number: int) -> str:
    return f"{split}-{number:05}.bin"


@dataclass(frozen=True)
class Index:
    """index.json: all of a cache but its images and their table.

    Attributes:
        settings: ``store`` (jpeg or raw), ``size`` and ``quality``.
        source: the dataset that it was made from.
        images_per_shard: images of the source, in its order, that a shard holds.
        tables: split -> its .npz.
        shards: split -> its shards.
        skipped: names of the source's images that could not be read -> why.
    """

    class_names: tuple[str, ...]
    image_size: tuple[int, int] | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    photographs: bool
    settings: Mapping[str, Any]
    source: Mapping[str, Any]
    images_per_shard: int
    tables: Mapping[str, Described]
    shards: Mapping[str, Sequence[Described]]
    skipped: Mapping[str, str]

    def files(self) -> Iterator[tuple[str, Described]]:
        """All files that index.json describes, with their names."""
        for split in self.tables:
            yield f"{split}.npz", self.tables[split]
            for number, shard in enumerate(self.shards[split]):
                yield shard_name(split, number), shard

    def to_json(self) -> str:
        """The content of the file; its last key is the SHA-256 of all others."""
        described = {name: file._asdict() for name, file in self.files()}
        fields = {key: value for key, value in vars(self).items() if key not in ("tables", "shards")}
        content = {"format": FORMAT, "version": VERSION, **fields, "files": described}
        return json.dumps(content | {_DIGEST: _digest(content)}, indent=1) + "\n"


def read_index(root: Path) -> Index:
    """index.json of a cache.

    Raises:
        ValueError: it is missing, damaged, or of a format that is not known.
    """
    path = root / INDEX
    if not path.is_file():
        raise ValueError(
            f"{root} holds no finished cache ({INDEX} is missing); psvit-search prepare-data data=imagefolder "
            f"data.root=FOLDER --save {root} makes or resumes one"
        )
    try:
        content = read_object(path, most_bytes=_MOST_BYTES)
        if content.get("format") != FORMAT:
            raise ValueError("it is not the index of a cache")
        if content.get("version") != VERSION:
            raise ValueError(f"it has version {shown(content.get('version'))}; this program reads {VERSION}")
        if content.pop(_DIGEST, None) != _digest(content):
            raise ValueError("its values are not those that were written")
    except ValueError as error:
        raise ValueError(f"cannot read {path} ({error}); make a new cache in another folder") from error
    try:
        files = {name: Described(int(file["bytes"]), str(file["sha256"])) for name, file in content["files"].items()}
        tables = {split: files[f"{split}.npz"] for split in SPLITS if f"{split}.npz" in files}
        counts = {split: sum(name.startswith(f"{split}-") for name in files) for split in tables}
        if content["settings"]["store"] not in ("jpeg", "raw"):
            raise ValueError("store must be jpeg or raw")
        return Index(
            tuple(map(str, content["class_names"])),
            None if content["image_size"] is None else _tuple(content["image_size"], 2, int),
            _tuple(content["mean"], 3, float),
            _tuple(content["std"], 3, float),
            bool(content["photographs"]),
            dict(content["settings"]),
            dict(content["source"]),
            int(content["images_per_shard"]),
            {"train": tables["train"], **tables},
            {split: [files[shard_name(split, number)] for number in range(counts[split])] for split in tables},
            dict(content["skipped"]),
        )
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"{path} is damaged ({error!r:.200}); make a new cache in another folder") from error


def _digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of the values of index.json, however they are laid out in the file."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _tuple(values: Any, length: int, kind: type) -> Any:
    numbers = tuple(kind(value) for value in values)
    if len(numbers) != length:
        raise ValueError(f"{length} numbers are needed: {values}")
    return numbers


def read_table(root: Path, split: str, described: Described) -> Table:
    """The table of a split, checked against its SHA-256.

    Raises:
        ValueError: it is missing or damaged.
    """
    path = root / f"{split}.npz"
    if not path.is_file() or sha256(path) != described.sha256:
        raise ValueError(f"{path} is missing or damaged; make a new cache in another folder")
    with np.load(path, allow_pickle=False) as arrays:
        return Table(**{name: arrays[name] for name in Table._fields})


def torn_shards(root: Path, index: Index) -> list[str]:
    """Names of the shards that are missing or not of the size that index.json gives."""

    def size(path: Path) -> int:
        return path.stat().st_size if path.is_file() else -1

    return [name for name, file in index.files() if name.endswith(".bin") and size(root / name) != file.bytes]


def check_shards(root: Path, index: Index) -> None:
    """Refuse a cache without all of its shards; their contents are not looked at.

    Raises:
        ValueError: shards are missing, cut off or too long.
    """
    torn = torn_shards(root, index)
    if torn:
        raise ValueError(f"shards of {root} are missing or cut off: {_some(torn)}; {_AGAIN}")


def verify(root: Path, threads: int, advance: Callable[[int], None] | None = None) -> str:
    """Compare every file of a cache with its SHA-256; gives one line to print.

    Args:
        advance: told of each file that was looked at.

    Raises:
        ValueError: some are damaged; they are named.
    """
    index = read_index(root)

    def whole(item: tuple[str, Described]) -> bool:
        name, file = item
        return (root / name).is_file() and sha256(root / name) == file.sha256

    files, damaged = list(index.files()), []
    with ThreadPoolExecutor(threads) as pool:  # hashing holds no lock of Python's
        for (name, _), good in zip(files, pool.map(whole, files), strict=True):
            if not good:
                damaged.append(name)
            if advance:
                advance(1)
    if damaged:
        shards_only = all(name.endswith(".bin") for name in damaged)
        repair = f"delete these; {_AGAIN}" if shards_only else "make a new cache in another folder"
        raise ValueError(
            f"{len(damaged)} of the {len(files)} files of {root} are damaged or missing: {_some(damaged)}; {repair}"
        )
    return f"{root}: all {len(files)} files are intact, {sum(file.bytes for _, file in files) / 1e6:,.1f} MB"


def _some(names: Sequence[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
