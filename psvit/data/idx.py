"""The idx format of MNIST and its like: uint8 arrays behind a header of their shape."""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array of an idx file, compressed by gzip or not.

    The header is two zero bytes, the type (8 is uint8), the number of dimensions, and each as a big-endian uint32.

    Raises:
        ValueError: the file is cut short, longer than its header says, or not of uint8.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:3] != b"\0\0\x08" or not 1 <= magic[3] <= 4:
                raise ValueError(f"{path}: is not an idx file of bytes; download it again")
            header = file.read(4 * magic[3])
            shape = np.frombuffer(header, ">u4").tolist() if len(header) == 4 * magic[3] else []
            if not shape or prod(shape) > 2**31:
                raise ValueError(f"{path}: its header is damaged; download it again")
            content = file.read(prod(shape) + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path}: cannot be read ({error}); download it again") from error
    if len(content) != prod(shape):
        raise ValueError(f"{path}: does not hold the {prod(shape):,} values that its header names; download it again")
    return np.frombuffer(bytearray(content), np.uint8).reshape(shape)
