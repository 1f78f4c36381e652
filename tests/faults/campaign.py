"""Damaged files for every reader: each must be refused in one line, or be read; nothing may crash, hang, or lie. Then
power cuts (``tests/faults/power.py``), in a third of the time.

    make campaign [MINUTES=60]
    python -m tests.faults.campaign --minutes 60 [--reader arch.json] [--seed 0]

Prints a table: how many files were tried, refused, read as they were, read as something else, and failed, with seeds of
those that failed. A sealed file must not be read as something else. ``--reader NAME --seed N --count 1 --keep FILE``
makes the file of one seed again. What once failed lies in ``corpus/`` and is tried first. ``--reader`` leaves the power
cuts out.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from tests.faults import power
from tests.faults.mutate import damaged
from tests.faults.readers import Reader, make_samples, readers

CORPUS = Path(__file__).parent / "corpus"
HANG = 30  # seconds, after which a reading has failed; all take milliseconds
MEMORY = 12 << 30  # bytes of address space that a reading may have
OUTCOMES = ("refused", "same", "other", "failed")


@dataclass
class Tally:
    """What became of a reader's damaged files; ``failed`` says why, by seed."""

    counts: Counter[str] = field(default_factory=Counter)
    failed: dict[int, str] = field(default_factory=dict)

    def add(self, seed: int, outcome: str, why: str) -> None:
        self.counts[outcome] += 1
        if outcome == "failed":
            self.failed[seed] = why


def content_of(reader: Reader, whole: bytes, seed: int) -> bytes:
    """The damaged file of a seed; those below 0 are the corpus."""
    if seed < 0:
        return corpus(reader)[-seed - 1].read_bytes()
    return damaged(whole, random.Random(f"{reader.name} {seed}"))


def corpus(reader: Reader) -> list[Path]:
    """The files that this reader once failed on."""
    return sorted((CORPUS / reader.name.replace(" ", "_").replace(",", "")).glob("*"))


def try_one(reader: Reader, content: bytes, expected: Sequence[str]) -> tuple[str, str]:
    """Read a damaged file: the outcome, and why it failed."""
    reader.path.write_bytes(content)
    try:
        with (
            open(os.devnull, "w") as nothing,
            redirect_stdout(nothing),
            redirect_stderr(nothing),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            found = _parts(reader)
    except ValueError as error:
        text = str(error)
        plain = text.isprintable() and 0 < len(text) < 2000
        return ("refused", "") if plain else ("failed", f"not one plain line: {text[:200]!r}")
    except BaseException as error:
        return "failed", f"{type(error).__name__}: {str(error)[:200]!r}"
    if found == (expected[: len(found)] if reader.rows else expected):
        return "same", ""
    return ("failed", "read as something else") if reader.sealed else ("other", "")


def _parts(reader: Reader) -> list[str]:
    """What a reader reads, to be compared: row by row, or all of it."""
    found = reader.read()
    return list(map(repr, found)) if reader.rows else [repr(found)]


def _work(folder: Path, name: str, whole: bytes, expected: Sequence[str], seeds: range, pipe: Connection) -> None:
    """In a process of its own, which may crash or hang: try seeds, and tell each before and after."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    (reader,) = (each for each in readers(folder) if each.name == name)
    for seed in seeds:
        pipe.send((seed, "begun", ""))
        pipe.send((seed, *try_one(reader, content_of(reader, whole, seed), expected)))
    pipe.send((seeds.stop, "done", ""))


def try_many(folder: Path, name: str, seeds: range, seconds: float = math.inf) -> Tally:
    """Try the damaged files of some seeds, as long as there is time; the sample is whole again at the end.

    Args:
        folder: of the samples.
        name: of the reader.
    """
    (reader,) = (each for each in readers(folder) if each.name == name)
    whole, expected, tally, end = reader.path.read_bytes(), _parts(reader), Tally(), time.monotonic() + seconds
    context = multiprocessing.get_context("forkserver")  # a child of this process would have its locks, but no threads
    context.set_forkserver_preload([readers.__module__])
    try:
        while seeds and time.monotonic() < end:
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(folder, name, whole, expected, seeds, theirs))
            process.start()
            theirs.close()
            seed = _listen(ours, tally, end, seeds.start)
            process.kill()
            process.join()
            reader.path.write_bytes(whole)
            seeds = range(seed, seeds.stop)
    finally:
        reader.path.write_bytes(whole)
    return tally


def _listen(pipe: Connection, tally: Tally, end: float, seed: int) -> int:
    """Take the outcomes of a process until it is done, dies, hangs, or there is no time left; the next seed."""
    while True:
        try:
            if not pipe.poll(HANG):
                tally.add(seed, "failed", f"hangs for {HANG} s")
                return seed + 1
            seed, outcome, why = pipe.recv()
        except EOFError:
            tally.add(seed, "failed", "the process died")
            return seed + 1
        if outcome == "done":
            return seed
        if outcome != "begun":
            tally.add(seed, outcome, why)
            if time.monotonic() > end:
                return sys.maxsize


def table(tallies: dict[str, Tally]) -> Iterator[str]:
    """The lines of the table."""
    yield "| reader | tried | refused | read as it was | read as something else | failed | seeds of these |"
    yield "|---|---|---|---|---|---|---|"
    total: Counter[str] = Counter()
    for name, tally in tallies.items():
        total += tally.counts
        seeds = ", ".join(map(str, list(tally.failed)[:8]))
        counts = " | ".join(f"{tally.counts[each]:,}" for each in OUTCOMES)
        yield f"| {name} | {tally.counts.total():,} | {counts} | {seeds} |"
    yield f"| all | {total.total():,} | {' | '.join(f'{total[each]:,}' for each in OUTCOMES)} | |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.campaign")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--reader", default="", help="only those whose name holds this")
    parser.add_argument("--seed", type=int, default=0, help="of the first file")
    parser.add_argument("--count", type=int, default=10**6, help="files of each reader, at most")
    parser.add_argument("--keep", type=Path, help="where to leave the last damaged file")
    asked = parser.parse_args()
    seconds = 60 * asked.minutes
    cut = 0.0 if asked.reader else seconds / 3  # of power cuts
    with tempfile.TemporaryDirectory() as temporary:
        make_samples(Path(temporary))
        end = time.monotonic() + seconds - cut
        chosen = [each for each in readers(Path(temporary)) if asked.reader in each.name]
        tallies: dict[str, Tally] = {}
        for place, reader in enumerate(chosen):
            share = (end - time.monotonic()) / (len(chosen) - place)
            first = -len(corpus(reader)) if asked.seed == 0 else asked.seed
            if asked.keep:
                asked.keep.write_bytes(content_of(reader, reader.path.read_bytes(), asked.seed))
            seeds = range(first, asked.seed + asked.count)
            tallies[reader.name] = try_many(Path(temporary), reader.name, seeds, share)
            for seed, why in list(tallies[reader.name].failed.items())[:8]:
                print(f"{reader.name}, seed {seed}: {why}", file=sys.stderr, flush=True)
    print("\n".join(table(tallies)))
    failed = any(tally.failed for tally in tallies.values())
    if cut:
        with tempfile.TemporaryDirectory() as temporary:
            cuts = power.campaign(Path(temporary).resolve(), list(power.COMMANDS), cut)
        print("\n".join(["", *power.table(cuts)]))
        failed |= any(tally.failed for tally in cuts.values())
    sys.exit(failed)


if __name__ == "__main__":
    main()
