"""The folder of a packed cache in the making: shards that are finished, and how they become a whole cache.

Until the index is written, each finished ``train-00000.bin`` has a ``train-00000.npz`` beside it, with its part of the
table; a run that was killed continues after the last of them. ``prepare.json`` holds what was asked for.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from psvit.data.encode import Record
from psvit.data.images import Images
from psvit.data.store import FORMAT, INDEX, VERSION, Described, Index, Table, pack_names, shard_name, unpack_names
from psvit.run.files import LOCK, make_folder, move_into_place, sha256, write_atomically, write_text

REQUEST = "prepare.json"


class Shard(NamedTuple):
    """Which images of the source a shard holds, those that cannot be read among them."""

    split: str
    number: int
    images: range

    @property
    def name(self) -> str:
        return shard_name(self.split, self.number)


class ShardContent(NamedTuple):
    """What a shard is to hold: records with their numbers in the source, and the names of the others with reasons."""

    shard: Shard
    kept: list[tuple[int, Record]]
    unreadable: dict[str, str]

    def table(self, images: Images) -> Table:
        """The shard's part of its split's table; ``images`` is the source's split."""
        numbers = [number for number, _ in self.kept]
        records = [record for _, record in self.kept]
        names = images.names
        length = np.array([record.length for record in records], np.int64)
        return Table(
            shard=np.full(len(records), self.shard.number, np.int32),
            offset=np.cumsum(length) - length,
            length=length,
            crc32=np.array([record.crc32 for record in records], np.uint32),
            labels=images.labels[numbers].astype(np.int64),
            shapes=np.array([(record.height, record.width) for record in records], np.int32).reshape(-1, 2),
            aspects=np.array([record.aspect for record in records], np.float32),
            names=pack_names([names[number] for number in numbers]),
        )

    def write(self, path: Path) -> Described:
        """Write the images' bytes, one behind the other."""
        records = [record for _, record in self.kept]
        write_atomically(path, lambda file: file.writelines(record.content for record in records))
        digest = hashlib.sha256()
        for record in records:
            digest.update(record.content)
        return Described(sum(record.length for record in records), digest.hexdigest())


@dataclass(frozen=True)
class FinishedShard:
    """What is known of a shard on file, until the index is written."""

    split: str
    table: Table
    described: Described
    skipped: Mapping[str, str]

    def write(self, path: Path) -> None:
        known = json.dumps([*self.described, self.skipped]).encode()
        _write_npz(path, {**self.table._asdict(), "known": np.frombuffer(known, np.uint8)})

    @classmethod
    def read(cls, split: str, path: Path) -> FinishedShard:
        with np.load(path, allow_pickle=False) as arrays:
            size, digest, skipped = json.loads(arrays["known"].tobytes())
            return cls(split, Table(**{name: arrays[name] for name in Table._fields}), Described(size, digest), skipped)


@dataclass(frozen=True)
class CacheFolder:
    """A cache's folder while it is made or repaired."""

    path: Path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder where needed, and let no second process work in it."""
        try:
            make_folder(self.path)
            lock = open(self.path / LOCK, "a")  # noqa: SIM115  (open as long as the context)
        except OSError as error:
            raise ValueError(
                f"cannot write to {self.path}: {error.strerror}; give another folder with --save"
            ) from error
        with lock:
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not inherited by workers that outlive a killed run
            except OSError as error:
                raise ValueError(
                    f"another process is using {self.path}; wait for it, or give another folder"
                ) from error
            yield

    def request(self) -> dict[str, Any] | None:
        """What was asked for when the cache was begun; None for a folder in which none was.

        Raises:
            ValueError: the record is damaged or from another version.
        """
        path = self.path / REQUEST
        if not path.exists():
            return None
        with suppress(OSError, ValueError):
            content = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(content, dict) and (content.get("format"), content.get("version")) == (FORMAT, VERSION):
                return content
        raise ValueError(f"{path} is damaged or from another version; delete the folder, or give another one")

    def begin(self, request: Mapping[str, Any]) -> None:
        """Record what is asked for."""
        write_text(self.path / REQUEST, json.dumps({"format": FORMAT, "version": VERSION, **request}))

    def check_empty(self) -> None:
        """Refuse a folder that holds anything."""
        others = [entry.name for entry in os.scandir(self.path) if not entry.name.startswith(".")]
        if others:
            raise ValueError(f"{self.path} holds other files, such as {others[0]!r}; give an empty or new folder")

    def finished(self, shard: Shard) -> FinishedShard | None:
        """What is known of a shard, if it is finished."""
        path, known = self.path / shard.name, self._known(shard)
        if not known.exists():
            return None
        finished = FinishedShard.read(shard.split, known)
        return finished if path.exists() and path.stat().st_size == finished.described.bytes else None

    def add(self, content: ShardContent, images: Images) -> FinishedShard:
        """Write a shard; ``images`` is the source's split."""
        shard = content.shard
        described = content.write(self.path / shard.name)
        finished = FinishedShard(shard.split, content.table(images), described, content.unreadable)
        finished.write(self._known(shard))
        return finished

    def restore(self, content: ShardContent, described: Described) -> bool:
        """Write a shard of a finished cache again, if that gives the bytes that the index describes; whether it did."""
        beside = self.path / f".{content.shard.name}.new"
        if content.write(beside) != described:
            beside.unlink()
            return False
        move_into_place(beside, self.path / content.shard.name)
        return True

    def write_table(self, split: str, shards: Sequence[FinishedShard]) -> Described:
        """Write the table of a split, put together from those of its shards."""
        path = self.path / f"{split}.npz"
        _write_npz(path, _join([shard.table for shard in shards])._asdict())
        return Described(path.stat().st_size, sha256(path))

    def write_index(self, index: Index) -> None:
        """Write the index, which makes the cache a whole one, and remove what only its making needed."""
        write_text(self.path / INDEX, index.to_json())
        self.sweep()

    def sweep(self) -> None:
        """Remove what a killed run has left half written, and of a whole cache what only its making needed."""
        leftovers = [*self.path.glob(".*.part"), *self.path.glob(".*.new")]
        if (self.path / INDEX).exists():
            leftovers += [*self.path.glob("*-[0-9][0-9][0-9][0-9][0-9]*.npz"), self.path / REQUEST]
        for path in leftovers:
            path.unlink(missing_ok=True)

    def _known(self, shard: Shard) -> Path:
        return (self.path / shard.name).with_suffix(".npz")


def _join(tables: Sequence[Table]) -> Table:
    """The tables of shards, one behind the other; shards without an image have no names."""
    whole = [table for table in tables if len(table.labels)]
    names = pack_names([name for table in whole for name in unpack_names(table.names)])
    columns = {
        name: np.concatenate([getattr(table, name) for table in tables]) for name in Table._fields if name != "names"
    }
    return Table(**columns, names=names)


def _write_npz(path: Path, arrays: dict[str, Any]) -> None:
    write_atomically(path, lambda file: np.savez(file, **arrays))
