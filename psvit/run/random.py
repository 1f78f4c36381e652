"""Random streams: randomness is a function of (seed, purpose, step or image index), never of what was drawn before.

So a run that was killed and resumed draws what an unbroken run draws, with any number of loader workers.
"""

from __future__ import annotations

import hashlib

import numpy as np


def seed_of(seed: int, purpose: str, *indices: int) -> int:
    """A seed of 63 bits for one purpose, such as ``seed_of(0, "paths", step)``; the same on every machine."""
    digest = hashlib.sha256("/".join([str(seed), purpose, *map(str, indices)]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def numpy_rng(seed: int, purpose: str, *indices: int) -> np.random.Generator:
    """A generator of the stream of :func:`seed_of`."""
    return np.random.default_rng(seed_of(seed, purpose, *indices))
