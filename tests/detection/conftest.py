from pathlib import Path

import pytest

from psvit.detection.shapes import ShapesConfig, draw_shapes


@pytest.fixture(scope="session")
def shapes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn shapes in COCO's layout: 12 images to learn from, the eighth without any object, and 6 to score on."""
    root = tmp_path_factory.mktemp("shapes") / "drawn"
    return draw_shapes(ShapesConfig(str(root), num_images=12, num_val_images=6, size=64, singles=0))
