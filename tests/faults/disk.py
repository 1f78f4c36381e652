"""What a disk would still hold if the power went off at a write: watched from inside the process that writes.

What is written reaches the disk when the system likes, in any order, except that

- the bytes of a file are there once ``os.fsync`` of that file has returned,
- a name (of a new, renamed, linked or removed file or folder) once ``os.fsync`` of the folder that it is in has.

:class:`Disk` keeps both pictures of a folder, what programs see and what is safe, and takes note before each write of
what a loss of power would leave, in each of the ways in ``WAYS``.
"""

from __future__ import annotations

import builtins
import hashlib
import io
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any
from unittest import mock

WAYS = {
    "lost": "nothing that was not synced is there: old names, old bytes",
    "empty": "all names are there, and nothing of the bytes that were not synced",
    "half": "all names are there, and half of the bytes that were not synced",
    "zeros": "all names and lengths are there, and zeros where bytes were not synced",
    "hole": "all names and lengths are there, and zeros in the first half of the bytes that were not synced",
}
LOGS = ("tensorboard", "profile")  # folders of what nobody resumes from, written by threads of their own

Identity = tuple[int, int]  # device and inode: a file or folder, whatever it is called
Picture = tuple[tuple[str, str | None, str], ...]
"""Path, digest of the bytes (None of a folder), and the first path of the same file, for each name below the root."""


@dataclass(frozen=True)
class Cut:
    """A write, and what is there if the power goes off before it: a picture for each way in ``WAYS``."""

    write: str
    pictures: dict[str, Picture]


@dataclass
class Record:
    """What a watched run has written.

    Attributes:
        cuts: one for each write, and one for the end.
        blobs: the bytes in the pictures by their digest.
        late: what was not yet safe when the record after the next one was begun, or at the end.
    """

    cuts: list[Cut] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    late: list[str] = field(default_factory=list)


class Disk:
    """While this context is open, each write of this process below ``root`` is watched; ``record`` says what was seen.

    Writes that follow each other into one file count as one, for the pictures before them are the same but for the
    length of the part that is lost. A call that writes nothing, since it fails, does not count. What happens in
    ``LOGS`` is left out of everything.

    Args:
        root: a folder that is safe itself, with all that is in it.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.record = root.resolve(), Record()
        self._names: dict[Identity, dict[str, Identity]] = {}  # of each folder there ever was, those that are safe
        self._bytes: defaultdict[Identity, bytes] = defaultdict(bytes)  # of each file, those that are safe
        self._before_this: dict[str, str | None] = {}  # all that was there when the record in hand was begun
        self._held: list[int] = []
        self._inside_open = False
        self._stack = ExitStack()
        self._process = os.getpid()
        for path in (self.root, *self.root.rglob("*")):
            self._sync(path)

    def __enter__(self) -> Disk:
        for name in ("replace", "rename", "link", "unlink", "remove", "mkdir", "rmdir"):
            self._patch(os, name, self._watch_names)
        self._patch(os, "fsync", self._watch_fsync)
        self._patch(os, "open", self._watch_descriptors)
        opened = self._watch_open(builtins.open)
        for module in (builtins, io):
            self._stack.enter_context(mock.patch.object(module, "open", opened))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if error is None:
            self._note("end")
            lost = {path: digest for path, digest, _ in self.record.cuts[-1].pictures["lost"]}
            seen = {path: digest for path, digest, _ in self.seen()}
            changed = sorted(path for path in lost.keys() | seen.keys() if lost.get(path, "") != seen.get(path, ""))
            self.record.late += [f"{path}, at the end" for path in changed]
        for handle in self._held:
            os.close(handle)

    # ------------------------------------------------------------------------------------------------- pictures

    def seen(self) -> Picture:
        """What programs see."""
        return self._picture(_entries, lambda identity, path: path.read_bytes())

    def left(self, way: str) -> Picture:
        """What a loss of power would leave now."""
        safe = self._bytes
        if way == "lost":
            return self._picture(lambda identity, path: self._names[identity], lambda identity, path: safe[identity])
        return self._picture(_entries, lambda identity, path: torn(path.read_bytes(), safe[identity], way))

    def _picture(
        self,
        names: Callable[[Identity, Path], dict[str, Identity]],
        content: Callable[[Identity, Path], bytes],
    ) -> Picture:
        first: dict[Identity, str] = {}

        def walk(identity: Identity, path: Path) -> Iterator[tuple[str, str | None, str]]:
            for name, child in sorted(names(identity, path).items()):
                below = path / name
                text = str(below.relative_to(self.root))
                if child in self._names:
                    yield text, None, text
                    yield from walk(child, below)
                else:
                    yield text, self._keep(content(child, below)), first.setdefault(child, text)

        return tuple(walk(_identity(self.root), self.root))

    def _keep(self, content: bytes) -> str:
        digest = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        self.record.blobs.setdefault(digest, content)
        return digest

    # -------------------------------------------------------------------------------------------------- writes

    def _note(self, write: str, begins: bool = False) -> None:
        """Take note of a write that is about to happen; ``begins`` a new file."""
        self.record.cuts.append(Cut(write, {way: self.left(way) for way in WAYS}))
        if begins:
            seen = {path: digest for path, digest, _ in self.seen()}
            lost = {path: digest for path, digest, _ in self.record.cuts[-1].pictures["lost"]}
            for path, digest in self._before_this.items():
                if seen.get(path, "") == digest and lost.get(path, "") != digest:
                    self.record.late.append(f"{path}, when {write}")
            self._before_this = seen

    def _sync(self, path: Path) -> None:
        """What is at ``path`` now is safe: bytes of a file, names in a folder."""
        identity = _identity(path)
        if path.is_dir():
            self._names[identity] = _entries(identity, path)
        else:
            self._bytes[identity] = path.read_bytes()

    def _patch(self, owner: Any, name: str, watch: Callable[[Any], Any]) -> None:
        self._stack.enter_context(mock.patch.object(owner, name, watch(getattr(owner, name))))

    def _place(self, path: Any) -> Path | None:
        """Where a path is below the root; None of others, and in a process that was forked off."""
        if isinstance(path, int) or os.getpid() != self._process:
            return None
        place = Path(os.path.abspath(os.fsdecode(path)))
        inside = place.is_relative_to(self.root) and not {*place.relative_to(self.root).parts} & {*LOGS}
        return place if inside else None

    def _hold(self, place: Path) -> None:
        """Keep open what loses its name, or a new file might get its inode and be taken for it."""
        if place.exists():
            self._held.append(os.open(place, os.O_RDONLY))

    def _watch_names(self, call: Callable[..., None]) -> Callable[..., None]:
        name = call.__name__
        makes, removes = name in ("mkdir", "link"), name in ("unlink", "remove", "rmdir")

        def watched(*arguments: Any, **keywords: Any) -> None:
            paths = arguments[: 1 if removes or name == "mkdir" else 2]
            places = [place for path in paths if (place := self._place(path)) is not None]
            if places and keywords.get("dir_fd") is None:
                there, target = os.path.lexists(places[0]), places[-1]
                if not (makes and os.path.lexists(target)) and (there or name == "mkdir"):
                    self._note(f"{name} {self._told(target)}")
                    self._hold(target)
            call(*arguments, **keywords)
            if places and name == "mkdir":
                self._names[_identity(places[0])] = {}

        return watched

    def _watch_fsync(self, call: Callable[[int], None]) -> Callable[[Any], None]:
        def watched(handle: Any) -> None:
            number = handle if isinstance(handle, int) else handle.fileno()
            place = self._find(os.fstat(number))
            if place is None or self._place(place) is None:
                call(handle)
                return
            self._note(f"fsync {self._told(place)}")
            call(handle)
            self._sync(place)

        return watched

    def _find(self, found: os.stat_result) -> Path | None:
        """A file or folder below the root by its identity."""
        paths = (self.root, *self.root.rglob("*"))
        return next((path for path in paths if os.path.samestat(found, os.lstat(path))), None)

    def _watch_descriptors(self, call: Callable[..., int]) -> Callable[..., int]:
        def watched(path: Any, flags: int, *rest: Any, **keywords: Any) -> int:
            place = self._place(path) if flags & (os.O_CREAT | os.O_TRUNC) and not self._inside_open else None
            if place is not None and (flags & os.O_TRUNC or not place.exists()):
                self._note(f"create {self._told(place)}", begins=True)
            return call(path, flags, *rest, **keywords)

        return watched

    def _watch_open(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(file: Any, mode: str = "r", *rest: Any, **keywords: Any) -> Any:
            place = self._place(file) if {*mode} & {*"wax+"} else None
            if place is None:
                return call(file, mode, *rest, **keywords)
            if "w" in mode or not os.path.lexists(place):
                self._note(f"create {self._told(place)}", begins=True)
            self._inside_open = True  # an opener calls os.open
            try:
                return _Stream(call(file, mode, *rest, **keywords), lambda: self._note_bytes(place))
            finally:
                self._inside_open = False

        return watched

    def _note_bytes(self, place: Path) -> None:
        write = f"write {self._told(place)}"
        if not self.record.cuts or self.record.cuts[-1].write != write:
            self._note(write)

    def _told(self, place: Path) -> str:
        """A path in the name of a write, without the random part of the names of unfinished files."""
        text = str(place.relative_to(self.root))
        folder, _, name = text.rpartition("/")
        parts = name.split(".")
        if name.startswith(".") and name.endswith(".part"):
            name = ".".join([*parts[:-2], "part"])
        return f"{folder}/{name}" if folder else name


class _Stream:
    """A file that says so before something is written to it."""

    def __init__(self, stream: Any, before: Callable[[], None]) -> None:
        self._stream, self._before = stream, before

    def __getattr__(self, name: str) -> Any:
        if name in ("write", "writelines", "truncate"):
            self._before()
        return getattr(self._stream, name)

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stream.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._stream)


def torn(seen: bytes, safe: bytes, way: str) -> bytes:
    """Bytes that were written, of which only some are on the disk: those that are as they were before surely are."""
    length = min(len(seen), len(safe))
    differ = (place for place in range(length) if seen[place] != safe[place])
    kept = length if seen[:length] == safe[:length] else next(differ)
    new, half = seen[kept:], (len(seen) - kept) // 2
    left = {"empty": b"", "half": new[:half], "zeros": bytes(len(new)), "hole": bytes(half) + new[half:]}
    return seen[:kept] + left[way]


def restore(picture: Picture, blobs: dict[str, bytes], folder: Path) -> None:
    """Make the files and folders of a picture, in an empty folder."""
    for text, digest, first in picture:
        if digest is None:
            (folder / text).mkdir()
        elif first != text:
            os.link(folder / first, folder / text)
        else:
            (folder / text).write_bytes(blobs[digest])


def _identity(path: Path) -> Identity:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def _entries(identity: Identity, path: Path) -> dict[str, Identity]:
    return {entry.name: _identity(path / entry.name) for entry in os.scandir(path) if entry.name not in LOGS}
