"""Seconds that `psvit-search check` takes for many files, the first time and again.

python -m benchmarks.check_files [--files 100000] [--pixels 64]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from psvit.data.check import check
from psvit.data.config import CheckConfig, DataConfig

CLASSES = 100


def write_files(root: Path, files: int, pixels: int) -> None:
    """JPEGs of noise, all different: the bytes of a few pictures with a comment of their own."""
    rng, contents = np.random.default_rng(0), []
    for _ in range(64):
        buffer = BytesIO()
        Image.fromarray(rng.integers(0, 256, (pixels, pixels, 3), np.uint8)).save(buffer, "JPEG")
        contents.append(buffer.getvalue())
    for number in range(files):
        folder = root / f"{number % CLASSES:03}"
        folder.mkdir(parents=True, exist_ok=True)
        comment = str(number).encode()
        content = contents[number % len(contents)]
        marked = content[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2) + comment + content[2:]
        (folder / f"{number}.jpg").write_bytes(marked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--pixels", type=int, default=64)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/caches"
        root = Path(folder) / "images"
        write_files(root, arguments.files, arguments.pixels)
        for when in ("first time", "again"):
            began = time.perf_counter()
            report = check(CheckConfig(DataConfig("imagefolder", str(root))))
            assert not report.unreadable
            assert not report.repeated
            print(f"{when}: {arguments.files:,} files in {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
