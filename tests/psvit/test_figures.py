"""Saving of figures: the two endings, one file for one figure, and text that stays text."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from psvit.arch import Architecture
from psvit.draw import draw_architecture
from psvit.figures import PIXELS_PER_INCH, check_picture, save_figure
from psvit.zoo import SPACES


def figure() -> Figure:
    figure = Figure(figsize=(3, 2))
    figure.text(0.1, 0.5, "as it is: <b>")
    return figure


def test_a_png_has_160_pixels_an_inch(tmp_path: Path) -> None:
    save_figure(figure(), tmp_path / "a.PNG")
    with Image.open(tmp_path / "a.PNG") as image:
        assert (image.format, image.size) == ("PNG", (3 * PIXELS_PER_INCH, 2 * PIXELS_PER_INCH))


def test_an_svg_keeps_its_text_and_has_no_date(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        save_figure(figure(), tmp_path / name)
    content = (tmp_path / "a.svg").read_text()
    assert "as it is: &lt;b&gt;" in content
    assert "<dc:date>" not in content
    assert (tmp_path / "b.svg").read_text() == content


@pytest.mark.parametrize("name", ["net.pdf", "net", "net.jpg"])
def test_another_ending_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    for attempt in (
        lambda path: check_picture(path),
        lambda path: save_figure(figure(), path),
        lambda path: draw_architecture(SPACES["2d_mini_4"], Architecture.parse("B-B-B"), path),
    ):
        with pytest.raises(ValueError, match=r"\.png or \.svg") as raised:
            attempt(tmp_path / name)
        assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())
