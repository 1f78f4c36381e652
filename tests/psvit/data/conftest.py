from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MakeFolder = Callable[..., Path]


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Make a folder of class folders of small random pictures; ``files`` gives the order of writing them."""

    def make(name: str, classes: tuple[str, ...] = ("ant", "bee"), count: int = 6, backwards: bool = False) -> Path:
        files = [(label, index) for label in classes for index in range(count)]
        for label, index in reversed(files) if backwards else files:
            path = tmp_path / name / label / f"{index:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng([index, *label.encode()])
            shape = (rng.integers(20, 50), rng.integers(20, 50), 3)
            Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(path)
        return tmp_path / name

    return make
