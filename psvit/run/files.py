"""Files that are whole or not there at all. No torch."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

LOCK = ".lock"  # the file by which one process at a time works in a folder
_PART = ".part"  # what the names of unfinished files end in


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Let ``write`` fill a file beside ``path``, flush it to the disk, rename it into place, and flush the folder.

    Whatever happens, ``path`` holds the old content or the new one, never a part. The file beside it has a name that
    nobody can know beforehand, and no link that lies there is followed.

    Raises:
        ValueError: the disk is full or not writable; the message names the file, and the old one is untouched.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_PART}")
    try:
        make_folder(path.parent)
        with open(beside, "xb", opener=_no_link) as file:
            write(file)
        move_into_place(beside, path)
    except (OSError, RuntimeError) as error:  # torch.save turns a failed write into a RuntimeError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
        kept = "; what was saved before is untouched" if path.exists() else ""
        raise ValueError(f"cannot write {path}: {reason}{kept}. Free some space or choose another folder") from error
    finally:
        beside.unlink(missing_ok=True)


def move_into_place(beside: Path, path: Path) -> None:
    """Flush a finished file to the disk, rename it to ``path``, on the same file system, and flush the folder.

    Raises:
        OSError: the disk is full or not writable.
    """
    with open(beside, "rb") as file:
        os.fsync(file.fileno())  # before the rename, or a loss of power could leave the name without the bytes
    os.replace(beside, path)
    flush_folder(path.parent)


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def make_folder(folder: Path) -> None:
    """Make a folder where it is missing, and those above it; each outlasts a loss of power, before anything is in it.

    Raises:
        OSError: it cannot be made.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in reversed(missing):  # whatever is flushed in a folder is gone when the folder's own name is
        flush_folder(each.parent)


def flush_folder(folder: Path) -> None:
    """Let new, renamed and removed names in a folder outlast a loss of power; nothing where a file system cannot."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sweep_parts(folder: Path) -> None:
    """Delete what killed processes have left of files that they were writing, in a folder and those below it.

    Nobody else may be writing there. A folder below that has a lock of its own is left to those who hold it.
    """
    for place, folders, names in os.walk(folder):
        folders[:] = [each for each in folders if not os.path.exists(os.path.join(place, each, LOCK))]
        for name in names:
            if name.startswith(".") and name.endswith(_PART):
                Path(place, name).unlink(missing_ok=True)


def append_bytes(path: Path, content: bytes, at: int) -> None:
    """Make ``content`` the end of a file, from byte ``at`` on, and flush it to the disk; what was behind is cut off.

    The file is made when it is missing, and the folder is flushed as well then.

    Raises:
        ValueError: the disk is full or not writable; what was before ``at`` is kept.
    """
    try:
        new = not path.exists()
        with open(path, "x+b" if new else "r+b", opener=_no_link) as file:
            file.truncate(at)
            file.seek(at)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if new:
            flush_folder(path.parent)
    except OSError as error:
        raise ValueError(
            f"cannot write {path}: {error.strerror}; what was recorded before is kept. Free some space and run the "
            "same command again to resume"
        ) from error


def read_appended(path: Path) -> bytes:
    """What :func:`append_bytes` has made of a text file.

    Where bytes had not reached the disk when the power went off, a file system may show zeros in their place; they, and
    what is behind them, were never written as far as anyone was told.

    Raises:
        OSError: the file is missing or cannot be read.
    """
    return path.read_bytes().partition(b"\0")[0]


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all."""
    write_atomically(path, lambda file: file.write(text.encode()))


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
