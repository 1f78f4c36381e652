"""Checkpoints: tensors and plain values in one file that is whole or not there, and that cannot run code."""

from __future__ import annotations

import os
import pickle
import sys
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import torch

from psvit.run.files import write_atomically

_HEADER = {"format": "psvit-checkpoint", "version": 2}  # in 1 there were no rows of metrics.csv
_DAMAGED = "truncated or damaged; delete it to start again, or use another checkpoint"


class Damaged(ValueError):
    """A checkpoint that is cut short or damaged."""


def previous(path: Path) -> Path:
    """Where the checkpoint before the last one is: ``checkpoint.previous.pt``."""
    return path.with_suffix(f".previous{path.suffix}")


def latest_checkpoint(path: Path) -> tuple[Path, dict[str, Any] | None]:
    """The last checkpoint or, where it is damaged, the one before it, and its content; None without any.

    Raises:
        ValueError: what :func:`load_checkpoint` refuses, and there is no earlier one to take its place.
    """
    if not path.exists():
        path = previous(path)
        return path, load_checkpoint(path) if path.exists() else None
    try:
        return path, load_checkpoint(path)
    except Damaged as damaged:
        earlier = previous(path)
        if not earlier.exists():
            raise
        state = load_checkpoint(earlier)
        print(f"note: {damaged}; resuming from {earlier.name}, the checkpoint before it", file=sys.stderr)
        return earlier, state


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values (numbers, text, lists, dicts of such); what was there becomes the previous one.

    Raises:
        ValueError: the disk is full or not writable; an earlier file at ``path`` is untouched.
    """

    def write(file: IO[bytes]) -> None:
        try:
            torch.save({**_HEADER, **state}, file)
        except RuntimeError as error:
            # torch hides why a write failed ("unexpected pos ..."); the operating system's reason is what a user needs
            cause = error.__context__
            while cause is not None and not isinstance(cause, OSError):
                cause = cause.__context__
            raise cause or error from None

    if path.exists():
        earlier = previous(path)
        earlier.unlink(missing_ok=True)
        with suppress(OSError):  # a file system without hard links keeps the last one only
            os.link(path, earlier)
    write_atomically(path, write)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What :func:`save_checkpoint` wrote, on the CPU. Nothing in the file is run, whoever made it.

    Raises:
        ValueError: the file is missing, cut short or damaged, holds code, or is no checkpoint of ours.
    """
    try:
        with open(path, "rb") as file:
            magic = file.read(2)
    except OSError as error:
        raise ValueError(f"cannot read the checkpoint {path}: {error.strerror}") from error
    if magic[:1] == b"\x80":
        raise ValueError(f"{path} is a bare pickle, which may hold code: refused, nothing was run")
    if magic != b"PK":  # torch.save writes zip archives
        raise Damaged(f"{path} is not a psvit-search checkpoint, or is damaged from its first byte")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip() is not None  # torch does not compare checksums
        state = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} holds code, not only tensors and plain values: refused, nothing was run") from error
    except Exception as error:  # a damaged archive raises almost anything
        raise Damaged(f"{path} is {_DAMAGED}") from error
    if damaged:
        raise Damaged(f"{path} is {_DAMAGED}")
    if not isinstance(state, dict) or state.get("format") != _HEADER["format"]:
        raise ValueError(f"{path} is not a psvit-search checkpoint")
    if state.get("version") != _HEADER["version"]:
        ours = _HEADER["version"]
        raise ValueError(
            f"{path} has checkpoint version {state.get('version')}; this psvit-search reads version {ours}"
        )
    return {key: value for key, value in state.items() if key not in _HEADER}
