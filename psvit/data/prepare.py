"""Task of ``psvit-search prepare-data``: resize every image of a dataset once, and pack them into a cache.

Which images a shard holds is settled before the first one is made. So a shard is a function of the dataset and the
settings alone: any number of processes makes the same bytes, and what a killed run has finished stays.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from psvit.data.cache_folder import CacheFolder, Shard, ShardContent
from psvit.data.config import DataConfig, PrepareConfig
from psvit.data.datasets import open_dataset
from psvit.data.encode import EncodedImages, Encoder, Record, RecordChunk
from psvit.data.images import Dataset, Images
from psvit.data.loading import load
from psvit.data.store import INDEX, Index, pack_names, read_index, read_table, torn_shards, verify
from psvit.run.jobs import cores
from psvit.run.progress import Counter
from psvit.run.signals import Stopped, StopSignals

SHARD_BYTES = 256 * 2**20
SAMPLE = 64  # images whose JPEGs are measured to settle how many a shard holds
CHUNK = 4  # images that a process takes at once


def prepare_data(config: PrepareConfig) -> None:
    """Make a cache, continue one that was stopped, or check one; prints one line.

    Raises:
        ValueError: the folder holds other things or a cache of other settings, an image cannot be read, or the disk is
            full.
    """
    path, workers = Path(config.save).expanduser(), cores() if config.workers is None else config.workers
    if config.verify:
        with Counter(len(list(read_index(path).files())), "checking", "files") as counter:
            line = verify(path, max(1, workers), counter.advance)
        print(line)
        return
    source, folder = Source.open(config.data), CacheFolder(path)
    encoder = Encoder(config.store, config.size, config.quality)
    with folder.locked(), StopSignals() as stop:
        reader = RecordReader(source, encoder, config.data, workers, stop)
        packer = Packer(folder, source, reader, request_of(config, source))
        index = packer.repair() if (path / INDEX).exists() else packer.make()
    _tell(path, index)


def _tell(folder: Path, index: Index) -> None:
    size = sum(file.bytes for _, file in index.files())
    shards = sum(map(len, index.shards.values()))
    left_out = f", without {len(index.skipped):,} that could not be read (listed in {INDEX})" if index.skipped else ""
    images = " + ".join(
        f"{len(read_table(folder, split, table).labels):,} {split} images" for split, table in index.tables.items()
    )
    print(f"{folder}: {images} in {shards} shards, {size / 1e6:,.1f} MB{left_out}")
    print(f"train from it with data=packed data.root={folder}")


@dataclass(frozen=True)
class Source:
    """The dataset to be packed; ``parts`` are its splits as they lie on the disk."""

    dataset: Dataset
    parts: Mapping[str, Images]

    @classmethod
    def open(cls, config: DataConfig) -> Source:
        dataset = open_dataset(config)
        return cls(dataset, {"train": dataset.train} | ({"test": dataset.open_test()} if dataset.open_test else {}))

    def shards(self, images_per_shard: int) -> list[Shard]:
        return [
            Shard(split, number, range(len(images.labels))[start : start + images_per_shard])
            for split, images in self.parts.items()
            for number, start in enumerate(range(0, len(images.labels), images_per_shard))
        ]

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the names of all classes and images, and their labels."""
        digest = hashlib.sha256("\0".join(self.dataset.class_names).encode("utf-8", "surrogateescape"))
        for split, images in self.parts.items():
            digest.update(f"\n{split}\n".encode())
            digest.update(pack_names(images.names).tobytes())
            digest.update(images.labels.astype("<i8").tobytes())
        return digest.hexdigest()


Request = dict[str, dict[str, Any]]
"""What a cache is made of and how, as the JSON values that prepare.json and index.json hold."""


def request_of(config: PrepareConfig, source: Source) -> Request:
    quality = {"quality": config.quality} if config.store == "jpeg" else {}
    return {
        "settings": {"store": config.store, "size": config.size, **quality},
        "source": {
            "dataset": config.data.name,
            "root": config.data.root,
            "images": {split: len(images.labels) for split, images in source.parts.items()},
            "sha256": source.sha256,
        },
    }


def check_same_request(recorded: Mapping[str, Any], asked: Request, folder: Path) -> None:
    """Refuse to continue a cache by another request than it was begun by; the source may have moved.

    Raises:
        ValueError: a setting, or the source's names or labels, differ.
    """
    changed = [
        f"{key} was {there.get(key, 'not set')} and is {here.get(key, 'not set')}"
        for there, here in ((recorded[group], asked[group]) for group in ("settings", "source"))
        for key in dict.fromkeys([*there, *here])
        if key not in ("root", "sha256") and there.get(key) != here.get(key)
    ]
    if not changed and recorded["source"]["sha256"] != asked["source"]["sha256"]:
        changed = ["the names of the images or classes differ"]
    if changed:
        raise ValueError(
            f"{folder} holds a cache made with other settings: {'; '.join(changed)}. Give another folder with --save, "
            "or the old settings to resume"
        )


@dataclass(frozen=True)
class RecordReader:
    """Reads and encodes the images of shards, in processes, and keeps account of those that cannot be read.

    Attributes:
        data: what becomes of images that cannot be read: ``corrupt`` and ``corrupt_limit``.
        workers: processes; 0 reads in this one.
    """

    source: Source
    encoder: Encoder
    data: DataConfig
    workers: int
    stop: StopSignals

    @cached_property
    def encoded(self) -> EncodedImages:
        return EncodedImages(self.source.parts, self.encoder)

    def mean_length(self) -> float | None:
        """Bytes of a training image's record, the mean of a sample over all of them; None if none can be read."""
        images = self.source.parts["train"]
        places = np.unique(np.linspace(0, len(images.labels) - 1, SAMPLE).astype(int))
        records = [self.encoded.record(images, int(place)) for place in places]
        lengths = [record.length for record in records if isinstance(record, Record)]
        return float(np.mean(lengths)) if lengths else None

    def read(
        self, shards: Sequence[Shard], skipped: Mapping[str, str], counter: Counter
    ) -> Generator[ShardContent, None, None]:
        """The contents of each shard. To be closed, or its processes would live until its memory is collected.

        Args:
            skipped: images that earlier runs have left out, with reasons.

        Raises:
            ValueError: an image cannot be read and is not to be skipped, or too many cannot.
            Stopped: Ctrl-C or SIGTERM came.
        """
        chunks = [(shard.split, numbers) for shard in shards for numbers in _chunks(shard)]
        if not chunks:
            return
        skipped = dict(skipped)
        with closing(load(self.encoded, chunks, min(self.workers, len(chunks)), pin=False)) as loaded:
            for shard in shards:
                content = self._collect(shard, loaded, skipped, counter)
                skipped |= content.unreadable
                yield content

    def _collect(
        self, shard: Shard, loaded: Iterator[RecordChunk], skipped: Mapping[str, str], counter: Counter
    ) -> ShardContent:
        kept: list[tuple[int, Record]] = []
        unreadable: dict[str, str] = {}
        for numbers in _chunks(shard):
            for number, record in zip(numbers, next(loaded).whole(), strict=True):
                if isinstance(record, Record):
                    kept.append((number, record))
                else:
                    unreadable[f"{shard.split}/{self.source.parts[shard.split].names[number]}"] = record.reason
                    self._leave_out(record.reason, len({**skipped, **unreadable}))
            counter.advance(len(numbers))
            if self.stop.requested:
                raise Stopped("stopped; run the same command again to resume after the last complete shard")
        return ShardContent(shard, kept, unreadable)

    def _leave_out(self, reason: str, skipped: int) -> None:
        if self.data.corrupt == "fail":
            raise ValueError(f"{reason}, or skip unreadable images with data.corrupt=skip")
        if skipped > self.data.corrupt_limit:
            raise ValueError(
                f"{skipped} images cannot be read, more than data.corrupt_limit={self.data.corrupt_limit}; the "
                f"last: {reason}"
            )
        print(f"skipped: {reason}", file=sys.stderr, flush=True)


def _chunks(shard: Shard) -> list[range]:
    return [shard.images[start : start + CHUNK] for start in range(0, len(shard.images), CHUNK)]


@dataclass(frozen=True)
class Packer:
    """Makes the shards of a cache, in order; or again those that a finished cache lacks."""

    folder: CacheFolder
    source: Source
    reader: RecordReader
    request: Request

    def make(self) -> Index:
        """All shards that are not there yet, then the index."""
        images_per_shard = self._images_per_shard()
        shards = self.source.shards(images_per_shard)
        done = {shard: finished for shard in shards if (finished := self.folder.finished(shard))}
        missing = [shard for shard in shards if shard not in done]
        skipped = {name: reason for finished in done.values() for name, reason in finished.skipped.items()}
        counter = Counter(sum(len(shard.images) for shard in shards), "preparing", "images")
        with counter, closing(self.reader.read(missing, skipped, counter)) as contents:
            counter.skip(sum(len(shard.images) for shard in done))
            for content in contents:
                done[content.shard] = self.folder.add(content, self.source.parts[content.shard.split])
        by_split = {split: [done[shard] for shard in shards if shard.split == split] for split in self.source.parts}
        dataset = self.source.dataset
        index = Index(
            dataset.class_names,
            dataset.image_size,
            dataset.mean,
            dataset.std,
            dataset.photographs,
            self.request["settings"],
            self.request["source"],
            images_per_shard,
            tables={split: self.folder.write_table(split, parts) for split, parts in by_split.items()},
            shards={split: [part.described for part in parts] for split, parts in by_split.items()},
            skipped={name: reason for shard in shards for name, reason in done[shard].skipped.items()},
        )
        self.folder.write_index(index)
        return index

    def repair(self) -> Index:
        """Make the files again that a finished cache lacks, or that are cut off; nothing else is looked at."""
        index = read_index(self.folder.path)
        recorded = {"settings": index.settings, "source": index.source}
        check_same_request(recorded, self.request, self.folder.path)
        self.folder.sweep()
        torn = set(torn_shards(self.folder.path, index))
        for split in index.tables:
            read_table(self.folder.path, split, index.tables[split])
        shards = [shard for shard in self.source.shards(index.images_per_shard) if shard.name in torn]
        counter = Counter(max(1, sum(len(shard.images) for shard in shards)), "repairing", "images")
        with counter, closing(self.reader.read(shards, index.skipped, counter)) as contents:
            for content in contents:
                shard = content.shard
                if not self.folder.restore(content, index.shards[shard.split][shard.number]):
                    raise ValueError(
                        f"{shard.name} differs from what was written before: the images of "
                        f"{self.request['source']['root']} or the version of Pillow have changed; make a new cache in "
                        "another folder"
                    )
        return index

    def _images_per_shard(self) -> int:
        """How many images of the source a shard holds; recorded when a cache is begun, with all that was asked."""
        recorded = self.folder.request()
        if recorded is not None:
            check_same_request(recorded, self.request, self.folder.path)
            self.folder.sweep()
            return int(recorded["images_per_shard"])
        self.folder.sweep()
        self.folder.check_empty()
        length = self.reader.mean_length()
        images = len(self.source.parts["train"].labels)
        images_per_shard = max(1, round(SHARD_BYTES / length)) if length is not None else images
        self.folder.begin({**self.request, "images_per_shard": images_per_shard})
        return images_per_shard
