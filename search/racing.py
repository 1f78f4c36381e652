"""Racing: score all on a few images, drop what can no longer be among the best, score the rest on more.

An architecture is dropped when it is worse than each of the ``keep`` leaders, by an exact test on the images that one
of the two classifies rightly and the other does not. The truth that is raced for is what scoring the whole search split
would say; so the test is one of sampling without replacement, and knows that few images are left to come. It is
corrected for all comparisons: an architecture that belongs to the true best ``keep`` has at least one leader that is
not better, so that ``keep`` x architectures x rounds tests may err, each with an equal part of 1 - confidence.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from psvit.arch import Architecture
from psvit.run.files import append_bytes
from psvit.run.progress import Counter
from psvit.search.history import HistoryRecord, identify
from psvit.search.loop import TOGETHER
from psvit.search.records import RaceRecord, Round

if TYPE_CHECKING:
    from psvit.search.evaluator import Outcomes

_FIRST = 64  # images of the first round, at least

Correct = npt.NDArray[np.bool_]  # (architectures, images)
Numbers = npt.NDArray[np.int64]


def schedule(num_images: int) -> list[int]:
    """How many images have been seen after each round: all after the last, 1/sqrt(2) as many after each before."""
    ends = [num_images]
    while (before := round(ends[0] / math.sqrt(2))) >= _FIRST:
        ends.insert(0, before)
    return ends


def is_worse(ahead: Numbers, behind: Numbers, seen: int, unseen: int, level: float) -> npt.NDArray[np.bool_]:
    """Whether an architecture is worse than a rival over all images, seen and unseen, at an error of ``level``.

    Args:
        ahead: images, of those seen, that the architecture alone has right.
        behind: images that the rival alone has right.

    An exact test in two steps, each at half the level. First, the number of images seen on which the two differ bounds
    the number of all images on which they do. If the architecture were no worse, the rival would win half of these at
    most; of those that were seen it has won ``behind``, which is hypergeometric.
    """
    from scipy.stats import hypergeom

    pairs, place = np.unique(np.stack([ahead, behind]), axis=1, return_inverse=True)
    differ = pairs.sum(axis=0)
    half = _most_of_all(differ, seen, unseen, level / 2) // 2
    p = hypergeom.sf(pairs[1] - 1, 2 * half, half, differ)
    worse = (half < pairs[1]) | (p < level / 2)  # fewer than it has lost: it cannot catch up any more
    return worse[place.ravel()]


def _most_of_all(found: Numbers, seen: int, unseen: int, level: float) -> Numbers:
    """How many of all images have a property, at most and at an error of ``level``, if ``found`` of those seen have it.

    That is the largest number of which so few would be found with this probability; it is found by bisection.
    """
    from scipy.stats import hypergeom

    least, most = found, found + unseen
    while (least < most).any():
        middle = (least + most + 1) // 2
        likely = hypergeom.cdf(found, seen + unseen, middle, seen) >= level
        least, most = np.where(likely, middle, least), np.where(likely, most, middle - 1)
    return least


def survivors(correct: Correct, unseen: int, keep: int, level: float) -> npt.NDArray[np.bool_]:
    """Which architectures may still be among the best ``keep`` over all images: not worse than each of the leaders.

    Args:
        correct: (architectures, images) what each has right of the images seen so far.
        unseen: images that have not been looked at yet.
        level: probability with which a single test may err.
    """
    counts = correct.sum(axis=1)
    leaders = np.argsort(-counts, kind="stable")[:keep]
    columns = correct[leaders].T.astype(np.float32)  # counts are exact in float32 up to 2^24 images
    blocks = (correct[first : first + 4096] for first in range(0, len(correct), 4096))
    both = np.concatenate([block.astype(np.float32) @ columns for block in blocks]).astype(np.int64)
    alive = np.zeros(len(correct), dtype=bool)
    for leader, with_leader in zip(leaders, both.T, strict=True):
        ahead, behind = counts - with_leader, counts[leader] - with_leader
        alive |= ~is_worse(ahead, behind, correct.shape[1], unseen, level)
    return alive


@dataclass(frozen=True)
class Raced:
    """What a race tells of each architecture.

    Attributes:
        num_images: how many images it was scored on; all for those that were not dropped.
        top1, loss: on these; NaN for one whose logits are not finite.
        round: the last round that it took part in, from 0.
        record: what the race did.
    """

    num_images: Numbers
    top1: npt.NDArray[np.float64]
    loss: npt.NDArray[np.float64]
    round: Numbers
    record: RaceRecord


def race(
    outcomes: Callable[[Sequence[Architecture], range], Outcomes],
    flops: Callable[[Sequence[Architecture]], int],
    architectures: Sequence[Architecture],
    num_images: int,
    keep: int,
    confidence: float,
    folder: Path,
    record: HistoryRecord,
) -> Raced:
    """Race architectures for the best ``keep`` of them on ``num_images`` images.

    What has been scored lies in ``round_1.bin``, ``round_2.bin``, ... in the folder, from which a race that was killed
    resumes; the rest follows from these files.

    Args:
        outcomes: scores architectures on a range of images.
        flops: multiply-adds per image of scoring architectures together; for the record.
        keep: how many leaders.
        confidence: probability, at least, that the true best ``keep`` are among those scored on all images.
        record: what is searched, as for :class:`psvit.search.history.History`; kept in ``rounds.json``.

    Raises:
        ValueError: the folder holds the rounds of another race.
    """
    identify(folder / "rounds.json", record, begun=any(folder.glob("round_*.bin")))
    ends = schedule(num_images)
    level = (1 - confidence) / (keep * len(architectures) * max(1, len(ends) - 1))
    alive = np.arange(len(architectures))
    correct = np.zeros((len(architectures), 0), dtype=bool)
    losses = np.zeros(len(architectures))  # sums
    counts, seen, last = (np.zeros(len(architectures), dtype=np.int64) for _ in range(3))
    rounds: list[Round] = []
    spent = 0  # multiply-adds
    for number, (first, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        contenders = [architectures[i] for i in alive.tolist()]
        title = f"round {number + 1} of {len(ends)}"
        new, added = _score_round(outcomes, contenders, range(first, end), folder / f"round_{number + 1}.bin", title)
        spent += (end - first) * _flops(flops, contenders)
        correct = np.concatenate([correct, new], axis=1)
        losses[alive] += added
        counts[alive], seen[alive], last[alive] = correct.sum(axis=1), end, number
        stays = np.isfinite(losses[alive])
        if end < num_images:
            stays[stays] = survivors(correct[stays], num_images - end, keep, level)
        rounds.append(Round(end - first, end, len(alive), int(stays.sum())))
        alive, correct = alive[stays], correct[stays]
    top1 = np.where(np.isnan(losses), math.nan, counts / seen)
    everything = num_images * _flops(flops, architectures)
    share = int(seen.sum()) / (num_images * len(architectures))
    return Raced(seen, top1, losses / seen, last, RaceRecord(confidence, keep, tuple(rounds), spent, everything, share))


def _checksums(rows: npt.NDArray[Any], first: int) -> npt.NDArray[np.uint32]:
    """Of each row and its place in the file, where the first of them is number ``first``."""
    size = rows.dtype.itemsize - 4  # without the checksum itself
    places = (number.to_bytes(8, "little") for number in range(first, first + len(rows)))
    sums = [zlib.crc32(row.tobytes()[:size], zlib.crc32(place)) for row, place in zip(rows, places, strict=True)]
    return np.array(sums, dtype=np.uint32)


def _whole_rows(path: Path, row: np.dtype[Any]) -> int:
    """How many rows of a file, from the first, are those that were written; 0 without a file.

    What was being written when the power went off may be there in length and hold anything.
    """
    rows = np.fromfile(path, dtype=row) if path.exists() else np.empty(0, dtype=row)
    differ = np.flatnonzero(rows["crc32"] != _checksums(rows, 0))
    return int(differ[0]) if len(differ) else len(rows)


def _flops(flops: Callable[[Sequence[Architecture]], int], architectures: Sequence[Architecture]) -> int:
    chunks = (architectures[first : first + TOGETHER] for first in range(0, len(architectures), TOGETHER))
    return sum(flops(chunk) for chunk in chunks)


def _score_round(
    outcomes: Callable[[Sequence[Architecture], range], Outcomes],
    architectures: Sequence[Architecture],
    images: range,
    path: Path,
    title: str,
) -> tuple[Correct, npt.NDArray[np.float64]]:
    """What each has right of some images, and the sum of its losses; what is on file is not scored again."""
    row = np.dtype([("loss", "<f8"), ("correct", "u1", (-(-len(images) // 8),)), ("crc32", "<u4")])
    whole = _whole_rows(path, row)
    if whole < len(architectures):
        whole -= whole % TOGETHER  # a chunk that was cut short does not count
    with Counter(len(architectures), title, "architectures") as bar:
        bar.skip(whole)
        for first in range(whole, len(architectures), TOGETHER):
            chunk = architectures[first : first + TOGETHER]
            scored = outcomes(chunk, images)
            rows = np.empty(len(chunk), dtype=row)
            rows["loss"] = scored.loss.sum(axis=1, dtype=np.float64)
            rows["correct"] = np.packbits(scored.correct, axis=1)
            rows["crc32"] = _checksums(rows, first)
            append_bytes(path, rows.tobytes(), first * row.itemsize)
            bar.advance(len(chunk))
    rows = np.fromfile(path, dtype=row, count=len(architectures))
    return np.unpackbits(rows["correct"], axis=1, count=len(images)).astype(bool), rows["loss"]
