import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from psvit.detection.plots import draw_detections
from psvit.figures import save_figure

NAMES = ["circle", "square"]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn and written."""
    figures = []
    monkeypatch.setattr(
        "psvit.detection.plots.save_figure",
        lambda figure, path: (figures.append(figure), save_figure(figure, path)),
    )
    return figures


def objects(height, width, count):
    """``count`` objects of 4 x 3 pixels, down the diagonal, of both classes in turn."""
    masks = torch.zeros(count, height, width, dtype=torch.uint8)
    for number in range(count):
        masks[number, 4 * number : 4 * number + 4, 4 * number : 4 * number + 3] = 1
    corner = torch.arange(count, dtype=torch.float32)[:, None] * 4
    boxes = torch.cat([corner, corner, corner + 3, corner + 4], 1)
    return {"boxes": boxes, "labels": torch.arange(count) % 2 + 1, "masks": masks}


def predicted(target, scores):
    return {**target, "masks": target["masks"][:, None] * 0.9, "scores": torch.tensor(scores)}


def inputs(sizes, scores=(0.9, 0.5, 0.4)):
    images = [torch.full((3, height, width), 0.25) for height, width in sizes]
    targets = [objects(height, width, len(scores)) for height, width in sizes]
    return images, targets, [predicted(target, scores) for target in targets]


def boxes_of(ax):
    """(left, top, right, bottom) of each frame on a picture."""
    return [
        (*patch.get_xy(), patch.get_x() + patch.get_width(), patch.get_y() + patch.get_height()) for patch in ax.patches
    ]


def test_what_is_there_lies_beside_what_was_found(tmp_path, drawn):
    images, targets, predictions = inputs([(20, 24)])
    draw_detections(images, targets, predictions, NAMES, tmp_path / "sheet.svg")
    there, found = drawn[0].axes
    assert [text.get_text() for text in there.texts] == ["circle", "square", "circle"]
    assert [text.get_text() for text in found.texts] == ["square 0.50", "circle 0.90"]  # the likeliest lies on top
    # the edges of pixels lie half a pixel before their numbers
    assert boxes_of(there) == [(-0.5, -0.5, 2.5, 3.5), (3.5, 3.5, 6.5, 7.5), (7.5, 7.5, 10.5, 11.5)]
    assert boxes_of(found) == [(3.5, 3.5, 6.5, 7.5), (-0.5, -0.5, 2.5, 3.5)]
    shown = [ax.images[0].get_array() for ax in (there, found)]
    tinted = [(np.abs(picture - 0.25) > 1e-6).any(2) for picture in shown]
    np.testing.assert_array_equal(tinted[0], targets[0]["masks"].sum(0))
    np.testing.assert_array_equal(tinted[1], targets[0]["masks"][:2].sum(0))
    said = [
        "".join(each.itertext()) for each in ET.parse(tmp_path / "sheet.svg").iter("{http://www.w3.org/2000/svg}text")
    ]
    assert said[-2:] == [
        "Ground truth (left), detections (right)",
        "1 image; detections with a score of 0.5 or more",
    ]


def test_a_class_has_one_colour(tmp_path, drawn):
    images, targets, predictions = inputs([(20, 24)])
    draw_detections(images, targets, predictions, NAMES, tmp_path / "sheet.png")
    there, found = ([patch.get_edgecolor() for patch in ax.patches] for ax in drawn[0].axes)
    assert there[0] == there[2] == found[1]
    assert there[1] == found[0] != there[0]


def test_what_was_found_alone(tmp_path, drawn):
    images, _, predictions = inputs([(20, 24), (24, 20)])
    draw_detections(images, None, predictions, NAMES, tmp_path / "sheet.png")
    assert [len(ax.patches) for ax in drawn[0].axes] == [2, 2]
    assert drawn[0].texts[0].get_text() == "Detections"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("count", [1, 3, 20])
def test_sheets_are_1200_pixels_wide_and_nothing_leaves_its_place(tmp_path, drawn, known, count):
    rng = np.random.default_rng(0)
    sizes = [tuple(int(side) for side in rng.integers(20, 200, 2)) for _ in range(count)]
    images, targets, predictions = inputs(sizes)
    draw_detections(images, targets if known else None, predictions, NAMES, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as picture:
        picture.load()
        assert picture.width == 1200
    figure = drawn[0]
    assert len(figure.axes) == min(12, count) * (2 if known else 1)
    places = [ax.get_window_extent(FigureCanvasAgg(figure).get_renderer()) for ax in figure.axes]
    top = figure.texts[1].get_window_extent().y0
    for number, (ax, place) in enumerate(zip(figure.axes, places, strict=True)):
        height, width = ax.images[0].get_array().shape[:2]
        assert place.width / place.height == pytest.approx(width / height, rel=1e-6)
        assert place.x0 >= 0
        assert place.y0 >= 0
        assert place.x1 <= figure.bbox.width
        assert place.y1 < top
        assert not any(place.overlaps(other) for other in places[number + 1 :])
    said = figure.texts[1].get_text()
    assert said.startswith({1: "1 image;", 3: "3 images;", 20: "12 of 20 images;"}[count])


def test_names_stay_on_their_image(tmp_path, drawn):
    height, width = 100, 100
    corners = torch.tensor(
        [[0, 0, 9, 9], [90, 0, 100, 9], [0, 91, 9, 100], [91, 91, 100, 100], [80, 50, 120, 60]]
    ).float()
    target = {"boxes": corners, "labels": torch.ones(5, dtype=torch.int64), "masks": torch.zeros(5, height, width)}
    found = predicted(target, [0.9] * 5)
    draw_detections([torch.zeros(3, height, width)], None, [found], ["$x_1$ & <b>"], tmp_path / "sheet.png")
    ax = drawn[0].axes[0]
    renderer = FigureCanvasAgg(drawn[0]).get_renderer()
    place = ax.get_window_extent(renderer)
    for text in ax.texts:
        assert text.get_text() == "$x_1$ & <b> 0.90"
        box = text.get_window_extent(renderer)
        assert place.x0 - 2 <= box.x0 <= box.x1 <= place.x1 + 2
        assert place.y0 - 2 <= box.y0 <= box.y1 <= place.y1 + 2


def test_images_with_nothing_on_them(tmp_path, drawn):
    images, targets, predictions = inputs([(20, 24)], scores=())
    draw_detections(images, targets, predictions, NAMES, tmp_path / "sheet.png")
    for ax in drawn[0].axes:
        assert not ax.texts
        np.testing.assert_allclose(ax.images[0].get_array(), 0.25)


def test_no_image_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        draw_detections([], [], [], NAMES, tmp_path / "sheet.png")


@pytest.mark.slow
def test_pyplot_is_left_alone(tmp_path):
    code = (
        "import sys, pathlib, torch, psvit.detection.plots as pictures;"
        "assert 'matplotlib' not in sys.modules;"
        "nothing = {'boxes': torch.zeros(0, 4), 'labels': torch.zeros(0), 'scores': torch.zeros(0)};"
        "nothing['masks'] = torch.zeros(0, 1, 9, 9);"
        "pictures.draw_detections([torch.zeros(3, 9, 9)], None, [nothing], [], pathlib.Path(sys.argv[1]) / 'x.png');"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=Path(__file__).parents[2])
