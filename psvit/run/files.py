"""Files that are whole or not there at all. No torch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Let ``write`` fill a file beside ``path``, flush it to the disk and rename it into place.

    Whatever happens, ``path`` holds the old content or the new one, never a part.

    Raises:
        ValueError: the disk is full or not writable; the message names the file, and the old one is untouched.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except (OSError, RuntimeError) as error:  # torch.save turns a failed write into a RuntimeError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
        kept = "; what was saved before is untouched" if path.exists() else ""
        raise ValueError(f"cannot write {path}: {reason}{kept}. Free some space or choose another folder") from error
    finally:
        beside.unlink(missing_ok=True)


def append_bytes(path: Path, content: bytes, at: int) -> None:
    """Make ``content`` the end of a file, from byte ``at`` on, and flush it to the disk; what was behind is cut off.

    Raises:
        ValueError: the disk is full or not writable; what was before ``at`` is kept.
    """
    try:
        with open(path, "r+b" if path.exists() else "w+b") as file:
            file.truncate(at)
            file.seek(at)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ValueError(
            f"cannot write {path}: {error.strerror}; what was recorded before is kept. Free some space and run the "
            "same command again to resume"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all."""
    write_atomically(path, lambda file: file.write(text.encode()))


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
