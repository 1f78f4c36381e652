"""The image files below a folder of class folders, and what is left out of them. No torch.

Left out are hidden files and folders, those that operating systems and tools keep beside the user's, files that are no
images, and run folders of ``psvit-search``. Each real folder is read once, so links cannot multiply images.
"""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import stat
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from psvit.data.formats import SUFFIXES
from psvit.data.names import check_utf8, printable
from psvit.data.splits import Integers

SYSTEM_NAMES = frozenset(
    {"@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "system volume information", "lost+found"}
    | {"__macosx", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
)
"""Files and folders that are not the user's, in lower case; hidden ones are left out as well."""
ENDINGS_SHOWN = 8


class _Stderr(logging.Handler):
    """Plain lines on stderr, as the rest of what a command says; Hydra's handler of all loggers would stamp them."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


_logger = logging.getLogger(__name__)
_logger.addHandler(_Stderr())
_logger.propagate = False
_Identity = tuple[int, int]  # device and inode


@dataclass
class LeftOut:
    """What a listing leaves out.

    Attributes:
        endings: number of files that are no images, by ending.
        system_folders: number of files in each hidden or system folder, by the folder's name.
        system_files: number of hidden and system files.
        beside_classes: number of images that lie beside the class folders.
        links: number of links to folders above, or to folders that are read already.
        special: number of FIFOs, sockets and devices.
        run_folders: paths of run folders, below the folder that is listed.
    """

    endings: Counter[str] = field(default_factory=Counter)
    system_folders: Counter[str] = field(default_factory=Counter)
    system_files: int = 0
    beside_classes: int = 0
    links: int = 0
    special: int = 0
    run_folders: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """All of it in one line; empty where nothing is left out."""
        endings = _by_count(self.endings)
        parts = [f"{count:,} {ending or 'without an ending'}" for ending, count in endings[:ENDINGS_SHOWN]]
        if rest := sum(count for _, count in endings[ENDINGS_SHOWN:]):
            parts.append(f"{rest:,} of other endings")
        if self.system_folders:
            name = printable(_by_count(self.system_folders)[0][0])
            others = " and other hidden or system folders" if len(self.system_folders) > 1 else ""
            parts.append(f"{_count(self.system_folders.total(), 'file')} in {name}{others}")
        if self.system_files:
            parts.append(_count(self.system_files, "hidden or system file"))
        if self.beside_classes:
            parts.append(f"{_count(self.beside_classes, 'image')} beside the class folders")
        if self.links:
            parts.append(f"{_count(self.links, 'link')} to a folder already read")
        if self.special:
            parts.append(f"{_count(self.special, 'file')} that {'is' if self.special == 1 else 'are'} not regular")
        if self.run_folders:
            names = ", ".join(map(printable, sorted(self.run_folders)))
            parts.append(f"{_count(len(self.run_folders), 'folder')} of runs ({names})")
        return ", ".join(parts)

    def add_system(self, entry: os.DirEntry[str]) -> None:
        """Count a hidden or system file, or the files in such a folder."""
        if entry.is_dir(follow_symlinks=False):
            self.system_folders[entry.name] += sum(len(files) for _, _, files in os.walk(entry.path))
        else:
            self.system_files += 1


def class_folders(folder: Path, left_out: LeftOut | None = None, runs: bool = False) -> list[str]:
    """Names of the class folders in ``folder``, in order.

    Args:
        left_out: is told what is none of them.
        runs: leave out a folder named ``runs``, where commands put their run folders unless told otherwise.

    Raises:
        ValueError: ``folder`` cannot be listed, or a name is not UTF-8.
    """
    left_out = LeftOut() if left_out is None else left_out
    seen, names = _identities_above(folder), []
    # links come last, so that a folder and a link to it beside it count as the folder
    for entry in sorted(_visible(folder, left_out), key=lambda entry: (entry.is_symlink(), entry.name)):
        if not _is_folder(entry):
            left_out.beside_classes += _is_image(entry.name)
            continue
        check_utf8(entry.path)
        if (runs and entry.name == "runs") or _holds_run(Path(entry.path)):
            left_out.run_folders.append(entry.name)
        elif _is_new(entry, seen):
            names.append(entry.name)
        else:
            left_out.links += 1
    return sorted(names)


def list_images(folder: Path, classes: Sequence[str], left_out: LeftOut) -> tuple[list[str], Integers]:
    """The images below the class folders of ``folder``, by class, folder and name.

    Args:
        left_out: is told what is left out.

    Returns:
        Their paths below ``folder``, with ``/``, and (n,) the index of the class of each.

    Raises:
        ValueError: a folder cannot be listed, or a name is not UTF-8.
    """
    seen = _identities_above(folder) | {_identity(os.stat(folder / name)) for name in classes}
    pending, links = list(classes), list[str]()
    found: dict[str, list[str]] = {}  # names of images by their folder
    while pending or links:
        if not pending:  # links come after all real folders, so that which name a folder gets is no matter of order
            links.sort()
            link = links.pop(0)
            identity = _identity(os.stat(folder / link))
            if identity in seen:
                left_out.links += 1
                continue
            seen.add(identity)
            pending.append(link)
        below = pending.pop()
        if _is_run(folder / below):
            left_out.run_folders.append(below)
            continue
        found[below] = images = []
        for entry in _visible(folder / below, left_out):
            if _is_folder(entry):
                check_utf8(entry.path)
                if entry.is_symlink():
                    links.append(f"{below}/{entry.name}")
                elif _is_new(entry, seen):
                    pending.append(f"{below}/{entry.name}")
                else:
                    left_out.links += 1
            elif _take(entry, left_out):
                images.append(entry.name)
    label = {name: index for index, name in enumerate(classes)}
    in_order = sorted((label[below.partition("/")[0]], below) for below in found)
    names = [f"{below}/{name}" for _, below in in_order for name in sorted(found[below])]
    labels = [index for index, below in in_order for _ in found[below]]
    return names, np.array(labels, np.int64)


def report_left_out(folder: Path, images: int, classes: int, left_out: LeftOut) -> None:
    """Log what a listing leaves out, if anything, as one warning of the logger ``psvit.data.listing``.

    Its handler prints the line on stderr; ``logging.getLogger("psvit.data.listing").setLevel("ERROR")`` silences it.
    It is logged once per process and listing, and neither by loader workers and other child processes, nor by any but
    the first of several ranks, nor when torchrun restarts them.
    """
    if text := str(left_out):
        warn(f"{printable(str(folder))}: {_count(images, 'image')} in {classes:,} classes; left out: {text}")


def warn(line: str) -> None:
    """Log a line as :func:`report_left_out` does."""
    restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    follower = os.environ.get("RANK", "0") != "0" or multiprocessing.parent_process() is not None
    if not restarted and not follower:
        _warn_once(line)


@functools.cache
def _warn_once(line: str) -> None:
    _logger.warning("%s", line)


def _visible(folder: Path, left_out: LeftOut) -> Iterator[os.DirEntry[str]]:
    """The entries of a folder but hidden and system ones, in no order."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.lower() in SYSTEM_NAMES:
                    left_out.add_system(entry)
                else:
                    yield entry
    except OSError as error:
        name = printable(str(folder))
        raise ValueError(f"cannot list {name}: {error.strerror}; make it a folder that may be read") from error


def _take(entry: os.DirEntry[str], left_out: LeftOut) -> bool:
    """Whether a file is an image; a link that leads nowhere counts as one, and fails when it is read."""
    if not _is_image(entry.name):
        left_out.endings[printable(os.path.splitext(entry.name)[1].lower())] += 1
        return False
    if not entry.is_file(follow_symlinks=False):
        with suppress(OSError):
            if not stat.S_ISREG(os.stat(entry.path).st_mode):
                left_out.special += 1
                return False
    check_utf8(entry.path)
    return True


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; ``entry.is_dir()`` would raise on links in a circle."""
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path))


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _is_run(folder: Path) -> bool:
    """Whether a folder is one that a command of ours has written its run to."""
    return (folder / "config.yaml").is_file() and (folder / "versions.json").is_file()


def _holds_run(folder: Path) -> bool:
    """Whether a folder is that of a run, or of all parts of one."""
    return _is_run(folder) or _is_run(folder / "supernet") or _is_run(folder / "retrain")


def _is_new(entry: os.DirEntry[str], seen: set[_Identity]) -> bool:
    """Whether a folder has not been seen; from now on it has."""
    identity = _identity(os.stat(entry.path))
    new = identity not in seen
    seen.add(identity)
    return new


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino


def _identities_above(folder: Path) -> set[_Identity]:
    real = folder.resolve()
    return {_identity(os.stat(path)) for path in (real, *real.parents)}


def _by_count(counter: Counter[str]) -> list[tuple[str, int]]:
    """The most frequent first, then by name, whatever order a folder was read in."""
    return sorted(counter.items(), key=lambda item: (-item[1], item[0]))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
