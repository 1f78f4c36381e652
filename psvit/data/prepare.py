"""Task of ``psvit-search prepare-data``: resize every image of a dataset once, and pack them into a cache.

Which images a shard holds is settled before the first one is made. So a shard is a function of the dataset and the
settings alone: any number of processes makes the same bytes, and what a killed run has finished stays.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sys
import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from psvit.data.config import PrepareConfig
from psvit.data.datasets import open_dataset
from psvit.data.images import Dataset, Images
from psvit.data.loading import load
from psvit.data.store import (
    FORMAT,
    INDEX,
    VERSION,
    Described,
    Index,
    Table,
    cores,
    pack_names,
    read_index,
    read_table,
    shard_name,
    torn_shards,
    unpack_names,
    verify,
)
from psvit.run.files import sha256, write_atomically, write_text
from psvit.run.progress import Counter
from psvit.run.signals import Stopped, StopSignals

SHARD_BYTES = 256 * 2**20
SAMPLE = 64  # images whose JPEGs are measured to settle how many a shard holds
CHUNK = 4  # images that a process takes at once
ASKED = "prepare.json"  # what a cache that is not finished yet is made from and how


def prepare_data(config: PrepareConfig) -> None:
    """Make a cache, go on with one that was stopped, or check one; prints one line.

    Raises:
        ValueError: the folder holds other things or a cache of other settings, an image cannot be read, or the disk is
            full.
    """
    folder, workers = Path(config.save).expanduser(), cores() if config.workers is None else config.workers
    if config.verify:
        with Counter(len(list(read_index(folder).files())), "checking", "files") as counter:
            line = verify(folder, max(1, workers), counter.advance)
        print(line)
        return
    dataset = open_dataset(config.data)
    parts = {"train": dataset.train} | ({"test": dataset.open_test()} if dataset.open_test else {})
    with _locked(folder), StopSignals() as stop:
        packer = _Packer(folder, config, dataset, parts, workers, stop)
        index = packer.repair() if (folder / INDEX).exists() else packer.make()
    _tell(folder, index)


def _tell(folder: Path, index: Index) -> None:
    size = sum(file.bytes for _, file in index.files())
    shards = sum(map(len, index.shards.values()))
    left_out = f", without {len(index.skipped):,} that could not be read (named in {INDEX})" if index.skipped else ""
    images = " + ".join(
        f"{len(read_table(folder, split, table).labels):,} {split} images" for split, table in index.tables.items()
    )
    print(f"{folder}: {images} in {shards} shards, {size / 1e6:,.1f} MB{left_out}")
    print(f"train from it by data=packed data.root={folder}")


# ---------------------------------------------------------------------------------------------------- one image


class Record(NamedTuple):
    """An image as a cache holds it; ``aspect`` is that of the picture it was made from."""

    content: bytes
    length: int
    crc32: int
    height: int
    width: int
    aspect: float


class Unreadable(NamedTuple):
    """An image that cannot be read, and why."""

    reason: str


@dataclass(frozen=True)
class Encoder:
    """What becomes of a picture.

    A JPEG keeps its aspect ratio, with ``size`` pixels on the shorter side; smaller pictures stay as they are. Colours
    are kept at full resolution (4:4:4): of a picture that is small already, 4:2:0 would drop three quarters of the
    colour values to save some 30 % of the bytes. ``raw`` squeezes, and where needed enlarges, every picture to
    ``size`` x ``size``.
    """

    store: str
    size: int
    quality: int

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that a picture of this size gets."""
        if self.store == "raw":
            return self.size, self.size
        shorter = min(height, width)
        if shorter <= self.size:
            return height, width
        return round(height * self.size / shorter), round(width * self.size / shorter)

    def need(self, height: int, width: int) -> tuple[int, int]:
        """At which size a JPEG may be decoded: twice the final one, so that resizing does what can be seen."""
        rows, columns = self.shape(height, width)
        return 2 * rows, 2 * columns

    def __call__(self, picture: Tensor, aspect: float | None = None) -> Record:
        """A uint8 picture (3, height, width) as a record; ``aspect`` where it was squeezed before."""
        height, width = picture.shape[1:]
        rows, columns = self.shape(height, width)
        image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
        if (rows, columns) != (height, width):
            image = image.resize((columns, rows), Image.Resampling.BICUBIC)
        if self.store == "raw":
            content = np.asarray(image).transpose(2, 0, 1).tobytes()
        else:
            file = BytesIO()
            image.save(file, "JPEG", quality=self.quality, subsampling="4:4:4")
            content = file.getvalue()
        return Record(content, len(content), zlib.crc32(content), rows, columns, aspect or width / height)


class _Chunk(NamedTuple):
    """Records without their bytes, and these, one behind the other.

    A tensor travels in shared memory. Bytes would go through a pipe, and a worker whose main process was killed would
    wait for ever to write into it.
    """

    records: list[Record | Unreadable]
    content: Tensor

    @classmethod
    def of(cls, records: Sequence[Record | Unreadable]) -> _Chunk:
        content = bytearray().join(record.content for record in records if isinstance(record, Record))
        bare = [record._replace(content=b"") if isinstance(record, Record) else record for record in records]
        return cls(bare, torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8))

    def whole(self) -> Iterator[Record | Unreadable]:
        content, start = self.content.numpy().tobytes(), 0
        for record in self.records:
            if isinstance(record, Record):
                yield record._replace(content=content[start : start + record.length])
                start += record.length
            else:
                yield record


@dataclass(frozen=True)
class _Encoded(TorchDataset[_Chunk | ValueError]):
    """The images of some collections as records, by collection and numbers."""

    parts: Mapping[str, Images]
    encoder: Encoder

    def __getitem__(self, key: tuple[str, range]) -> _Chunk:
        split, numbers = key
        return _Chunk.of([self.record(self.parts[split], number) for number in numbers])

    def record(self, images: Images, number: int) -> Record | Unreadable:
        try:
            picture = images.read(number, self.encoder.need)
        except ValueError as error:
            return Unreadable(str(error))
        return self.encoder(picture, None if images.aspects is None else float(images.aspects[number]))


# ---------------------------------------------------------------------------------------------------- shards


class _Shard(NamedTuple):
    split: str
    number: int
    images: range  # of the source

    @property
    def name(self) -> str:
        return shard_name(self.split, self.number)


class _Packer:
    """Makes the shards of a cache, in order."""

    def __init__(
        self,
        folder: Path,
        config: PrepareConfig,
        dataset: Dataset,
        parts: Mapping[str, Images],
        workers: int,
        stop: StopSignals,
    ) -> None:
        self._folder, self._data, self._dataset, self._parts = folder, config.data, dataset, parts
        self._workers, self._stop = workers, stop
        quality = {"quality": config.quality} if config.store == "jpeg" else {}
        self._asked: dict[str, dict[str, Any]] = {
            "settings": {"store": config.store, "size": config.size, **quality},
            "source": {
                "dataset": config.data.name,
                "root": config.data.root,
                "images": {split: len(images.labels) for split, images in parts.items()},
                "sha256": _listing_sha256(dataset, parts),
            },
        }
        self._encoded = _Encoded(parts, Encoder(config.store, config.size, config.quality))

    def make(self) -> Index:
        """All shards that are not there yet, then the index."""
        per_shard = self._images_per_shard()
        shards = self._plan(per_shard)
        done = {shard: part for shard in shards if (part := self._read_part(shard))}
        missing = [shard for shard in shards if shard not in done]
        skipped = {name: reason for part in done.values() for name, reason in part.skipped.items()}
        counter = Counter(sum(len(shard.images) for shard in shards), "preparing", "images")
        with counter, closing(self._records(missing, skipped, counter)) as records:
            counter.skip(sum(len(shard.images) for shard in done))
            for shard, kept, unreadable in records:
                described = _write_shard(self._folder / shard.name, [record for _, record in kept])
                done[shard] = _Part(shard.split, self._table(shard, kept), described, unreadable)
                done[shard].write(self._part_path(shard))
        return self._finish(per_shard, [done[shard] for shard in shards])

    def repair(self) -> Index:
        """Make the files again that a finished cache lacks, or that are cut off; nothing else is looked at."""
        index = read_index(self._folder)
        self._check_same({"settings": dict(index.settings), "source": dict(index.source)})
        self._sweep()
        torn = set(torn_shards(self._folder, index))
        for split in index.tables:
            read_table(self._folder, split, index.tables[split])
        shards = [shard for shard in self._plan(index.images_per_shard) if shard.name in torn]
        counter = Counter(max(1, sum(len(shard.images) for shard in shards)), "mending", "images")
        with counter, closing(self._records(shards, dict(index.skipped), counter)) as records:
            for shard, kept, _ in records:
                beside = self._folder / f".{shard.name}.new"
                described = _write_shard(beside, [record for _, record in kept])
                if described != index.shards[shard.split][shard.number]:
                    beside.unlink()
                    raise ValueError(
                        f"{shard.name} comes out different from what it was: the images of {self._data.root} or the "
                        "version of Pillow have changed; make a new cache in another folder"
                    )
                os.replace(beside, self._folder / shard.name)
        return index

    def _plan(self, images_per_shard: int) -> list[_Shard]:
        return [
            _Shard(split, number, range(len(images.labels))[start : start + images_per_shard])
            for split, images in self._parts.items()
            for number, start in enumerate(range(0, len(images.labels), images_per_shard))
        ]

    def _images_per_shard(self) -> int:
        """How many images of the source a shard holds; recorded when a cache is begun, with all that was asked."""
        path = self._folder / ASKED
        if path.exists():
            recorded = _read_json(path)
            self._check_same(recorded)
            self._sweep()
            return int(recorded["images_per_shard"])
        self._sweep()
        others = [entry.name for entry in os.scandir(self._folder) if not entry.name.startswith(".")]
        if others:
            raise ValueError(f"{self._folder} holds other files, such as {others[0]!r}; give an empty or new folder")
        images = self._parts["train"]
        places = np.unique(np.linspace(0, len(images.labels) - 1, SAMPLE).astype(int))
        records = [self._encoded.record(images, int(place)) for place in places]
        sizes = [record.length for record in records if isinstance(record, Record)]
        per_shard = max(1, round(SHARD_BYTES / np.mean(sizes))) if sizes else len(images.labels)
        write_text(
            path, json.dumps({"format": FORMAT, "version": VERSION, **self._asked, "images_per_shard": per_shard})
        )
        return per_shard

    def _check_same(self, recorded: Mapping[str, Any]) -> None:
        """Raise ValueError unless what was asked before is asked again; the source may have moved."""
        changed = [
            f"{key} was {there.get(key, 'not set')} and is {here.get(key, 'not set')}"
            for there, here in ((recorded[group], self._asked[group]) for group in ("settings", "source"))
            for key in dict.fromkeys([*there, *here])
            if key not in ("root", "sha256") and there.get(key) != here.get(key)
        ]
        if not changed and recorded["source"]["sha256"] != self._asked["source"]["sha256"]:
            changed = ["the names of the images or classes are others"]
        if changed:
            raise ValueError(
                f"{self._folder} holds a cache of other settings: {'; '.join(changed)}. Give another folder by --save, "
                "or the old settings to go on"
            )

    def _records(
        self, shards: Sequence[_Shard], skipped: dict[str, str], counter: Counter
    ) -> Generator[tuple[_Shard, list[tuple[int, Record]], dict[str, str]], None, None]:
        """Each shard with its records and their numbers in the source, and why others cannot be read.

        To be closed, or its processes would live until its memory is collected.
        """
        chunks = [
            (shard.split, shard.images[start : start + CHUNK])
            for shard in shards
            for start in range(0, len(shard.images), CHUNK)
        ]
        if not chunks:
            return
        with closing(load(self._encoded, chunks, min(self._workers, len(chunks)), pin=False)) as loaded:
            for shard in shards:
                kept, unreadable = self._collect(shard, loaded, skipped, counter)
                skipped |= unreadable
                yield shard, kept, unreadable

    def _collect(
        self, shard: _Shard, loaded: Iterator[_Chunk], skipped: dict[str, str], counter: Counter
    ) -> tuple[list[tuple[int, Record]], dict[str, str]]:
        """The records of a shard with their numbers, and why others cannot be read."""
        kept: list[tuple[int, Record]] = []
        unreadable: dict[str, str] = {}
        for start in range(0, len(shard.images), CHUNK):
            numbers = shard.images[start : start + CHUNK]
            for number, record in zip(numbers, next(loaded).whole(), strict=True):
                if isinstance(record, Record):
                    kept.append((number, record))
                else:
                    unreadable[f"{shard.split}/{self._parts[shard.split].names[number]}"] = record.reason
                    self._leave_out(record.reason, skipped | unreadable)
            counter.advance(len(numbers))
            if self._stop.requested:
                raise Stopped("stopped; the same command goes on after the last whole shard")
        return kept, unreadable

    def _leave_out(self, reason: str, skipped: Mapping[str, str]) -> None:
        if self._data.corrupt == "fail":
            raise ValueError(f"{reason}, or leave out what cannot be read by data.corrupt=skip")
        if len(skipped) > self._data.corrupt_limit:
            raise ValueError(
                f"{len(skipped)} images cannot be read, more than data.corrupt_limit={self._data.corrupt_limit}; the "
                f"last: {reason}"
            )
        print(f"left out: {reason}", file=sys.stderr, flush=True)

    def _table(self, shard: _Shard, kept: Sequence[tuple[int, Record]]) -> Table:
        images = self._parts[shard.split]
        names = images.names
        numbers = [number for number, _ in kept]
        records = [record for _, record in kept]
        length = np.array([record.length for record in records], np.int64)
        return Table(
            shard=np.full(len(records), shard.number, np.int32),
            offset=np.cumsum(length) - length,
            length=length,
            crc32=np.array([record.crc32 for record in records], np.uint32),
            labels=images.labels[numbers].astype(np.int64),
            shapes=np.array([(record.height, record.width) for record in records], np.int32).reshape(-1, 2),
            aspects=np.array([record.aspect for record in records], np.float32),
            names=pack_names([names[number] for number in numbers]),
        )

    def _part_path(self, shard: _Shard) -> Path:
        return (self._folder / shard.name).with_suffix(".npz")

    def _read_part(self, shard: _Shard) -> _Part | None:
        """What is known of a shard, if it is done."""
        if not self._part_path(shard).exists():
            return None
        part, path = _Part.read(shard.split, self._part_path(shard)), self._folder / shard.name
        return part if path.exists() and path.stat().st_size == part.described.bytes else None

    def _finish(self, images_per_shard: int, parts: Sequence[_Part]) -> Index:
        """Put the tables of the shards together and write the index, which makes the cache a whole one."""
        tables = {}
        for split in self._parts:
            path = self._folder / f"{split}.npz"
            _write_npz(path, _join([part.table for part in parts if part.split == split])._asdict())
            tables[split] = Described(path.stat().st_size, sha256(path))
        dataset = self._dataset
        index = Index(
            dataset.class_names,
            dataset.image_size,
            dataset.mean,
            dataset.std,
            dataset.photographs,
            self._asked["settings"],
            self._asked["source"],
            images_per_shard,
            tables,
            {split: [part.described for part in parts if part.split == split] for split in tables},
            {name: reason for part in parts for name, reason in part.skipped.items()},
        )
        write_text(self._folder / INDEX, index.to_json())
        self._sweep()
        return index

    def _sweep(self) -> None:
        """Remove what a killed run has left half written, and of a whole cache what only its making needs."""
        leftovers = [*self._folder.glob(".*.part"), *self._folder.glob(".*.new")]
        if (self._folder / INDEX).exists():
            leftovers += [*self._folder.glob("*-[0-9][0-9][0-9][0-9][0-9]*.npz"), self._folder / ASKED]
        for path in leftovers:
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Part:
    """What is known of a shard that is done, until the index is written."""

    split: str
    table: Table
    described: Described
    skipped: Mapping[str, str]

    def write(self, path: Path) -> None:
        known = json.dumps([*self.described, self.skipped]).encode()
        _write_npz(path, {**self.table._asdict(), "known": np.frombuffer(known, np.uint8)})

    @classmethod
    def read(cls, split: str, path: Path) -> _Part:
        with np.load(path, allow_pickle=False) as arrays:
            size, digest, skipped = json.loads(arrays["known"].tobytes())
            return cls(split, Table(**{name: arrays[name] for name in Table._fields}), Described(size, digest), skipped)


def _join(tables: Sequence[Table]) -> Table:
    """The tables of shards, one behind the other; shards without an image have no names."""
    whole = [table for table in tables if len(table.labels)]
    names = pack_names([name for table in whole for name in unpack_names(table.names)])
    columns = {
        name: np.concatenate([getattr(table, name) for table in tables]) for name in Table._fields if name != "names"
    }
    return Table(**columns, names=names)


def _write_shard(path: Path, records: Sequence[Record]) -> Described:
    write_atomically(path, lambda file: file.writelines(record.content for record in records))
    digest = hashlib.sha256()
    for record in records:
        digest.update(record.content)
    return Described(sum(record.length for record in records), digest.hexdigest())


def _write_npz(path: Path, arrays: dict[str, Any]) -> None:
    write_atomically(path, lambda file: np.savez(file, **arrays))


def _read_json(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and (content.get("format"), content.get("version")) == (FORMAT, VERSION):
            return content
    raise ValueError(f"{path} is damaged or of another version; delete the folder, or give another one")


def _listing_sha256(dataset: Dataset, parts: Mapping[str, Images]) -> str:
    """SHA-256 of the names of all classes and images, and their labels."""
    digest = hashlib.sha256("\0".join(dataset.class_names).encode("utf-8", "surrogateescape"))
    for split, images in parts.items():
        digest.update(f"\n{split}\n".encode())
        digest.update(pack_names(images.names).tobytes())
        digest.update(images.labels.astype("<i8").tobytes())
    return digest.hexdigest()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Make the folder where needed, and let no second process work in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "a")  # noqa: SIM115  (open as long as the context)
    except OSError as error:
        raise ValueError(f"cannot write to {folder}: {error.strerror}; give another folder by --save") from error
    with lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not inherited by workers that outlive a killed run
        except OSError as error:
            raise ValueError(f"another process works in {folder}; wait for it, or give another folder") from error
        yield
