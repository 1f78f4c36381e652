"""The pictures of explain: what they show, and that all of it can be read, for few and many layers and heads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from psvit.explain.plots import Seen, draw_attention, draw_gradcam, draw_heads, draw_tokens
from psvit.explain.similarity import MapSimilarity, TokenSimilarity, match_heads

SHAPES = {  # layers, heads of each stage, grid of the first
    "three": (("B", "B", "B"), (2, 3, 4), (8, 8)),
    "deit": (("B" * 12,), (12,), (14, 14)),
    "32 layers": (("B" * 16 + "BS" * 8,), (24,), (14, 28)),
    "five stages": (("B", "BS", "BSSBSB" * 3, "B", "BSB"), (2, 3, 4, 6, 8), (16, 24)),
}


def stages_of(letters: tuple[str, ...], heads: tuple[int, ...]) -> list[MapSimilarity]:
    rng = np.random.default_rng(0)
    stages = []
    for word, count in zip(letters, heads, strict=True):
        maps = word.count("B")
        same, different = rng.random((2, maps, maps, count, count)) * [[[[[0.95]]]], [[[[0.5]]]]]
        for number in range(maps):
            np.fill_diagonal(same[number, number], 1)
        stages.append(MapSimilarity(word, same, different))
    return stages


def tokens_of(letters: tuple[str, ...], grid: tuple[int, int], class_token: bool) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    stages, grids = [], []
    for number, word in enumerate(letters):
        shape = [max(1, side >> number) for side in grid]
        each = rng.random((len(word), *shape))
        own = [TokenSimilarity(float(one.mean()), 0.2, 0.4 if class_token else None, one.ravel()) for one in each]
        stages.append(own)
        grids.append(list(each))
    return stages, grids


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are drawn; they are not written."""
    figures: list[Figure] = []
    monkeypatch.setattr("psvit.explain.plots.save_figure", lambda figure, path: figures.append(figure))
    return figures


def check_readable(figure: Figure) -> list[str]:
    """All texts lie within the picture and on no other text; gives them."""
    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    renderer = canvas.get_renderer()
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and shown(text)]
    boxes = [text.get_window_extent(renderer) for text in texts]
    for text, box in zip(texts, boxes, strict=True):
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= figure.bbox.width, text
        assert box.y1 <= figure.bbox.height, text
    for number, box in enumerate(boxes):
        for other in range(number + 1, len(boxes)):
            assert not box.padded(-0.5).overlaps(boxes[other].padded(-0.5)), (texts[number], texts[other])
    return [text.get_text() for text in texts]


def shown(text: Text) -> bool:
    ax = text.axes
    if not text.get_visible() or (ax is not None and not (ax.get_visible() and ax.axison)):
        return False
    if ax is None:
        return True
    for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
        for tick in axis.get_major_ticks():  # matplotlib keeps ticks outside of the limits, and does not draw them
            if text in (tick.label1, tick.label2) and not min(limits) <= tick.get_loc() <= max(limits):
                return False
    return True


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", ["three", "32 layers", "five stages"])
def test_attention_shows_the_likeness_and_what_is_shared(shape: str, drawn: list[Figure], tmp_path: Path) -> None:
    letters, heads, _ = SHAPES[shape]
    stages = stages_of(letters, heads)
    draw_attention(stages, "a_network " + "-".join(letters), 64, tmp_path / "a.png")
    texts = check_readable(drawn[0])
    panels = [ax for ax in drawn[0].findobj(lambda each: bool(getattr(each, "images", None))) if ax.images]
    assert len(panels) == 2 * len(stages)
    for place, ax in enumerate(panels):
        stage, different = stages[place % len(stages)], place >= len(stages)
        np.testing.assert_array_equal(ax.images[0].get_array(), stage.layers(different))
        framed = {index for index in set(stage.map_of) if stage.map_of.count(index) > 1}
        assert len(ax.patches) == (0 if different else len(framed))
    assert any("mean of 64 images" in text for text in texts)
    assert ("shared maps" in " ".join(texts)) == any("S" in word for word in letters)
    pairs = [text for text in texts if "–" in text]
    assert pairs == [f"{layer}–{layer + 1}" for word in letters for layer in range(1, len(word))]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", ["three", "deit", "32 layers"])
def test_heads_are_those_of_neighbours_with_maps_of_their_own(shape: str, drawn: list[Figure], tmp_path: Path) -> None:
    letters, heads, _ = SHAPES[shape]
    stages = stages_of(letters, heads)
    pairs = [(stage, pair) for stage in stages for pair in stage.neighbours if stage.letters[pair[1]] == "B"]
    assert draw_heads(stages, "net", 64, tmp_path / "a.png") == bool(pairs)
    assert len(drawn) == bool(pairs)
    if not pairs:
        return
    check_readable(drawn[0])
    panels = [ax for ax in drawn[0].findobj(lambda each: bool(getattr(each, "images", None))) if ax.images]
    assert len(panels) == len(pairs)
    for ax, (stage, (one, other)) in zip(panels, pairs, strict=True):
        np.testing.assert_array_equal(ax.images[0].get_array(), stage.heads(one, other))
        assert (ax.get_ylabel(), ax.get_xlabel()) == (f"layer {one + 1}", f"layer {other + 1}")
        assert list(ax.lines[0].get_xdata()) == match_heads(stage.heads(one, other))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", ["32 layers", "five stages"])
def test_tokens_show_each_layer(shape: str, drawn: list[Figure], tmp_path: Path) -> None:
    letters, _, grid = SHAPES[shape]
    class_token = shape in ("deit", "32 layers")
    stages, grids = tokens_of(letters, grid, class_token)
    draw_tokens(stages, letters, grids, "net", 64, tmp_path / "a.png")
    texts = check_readable(drawn[0])
    panels = [ax for ax in drawn[0].findobj(lambda each: bool(getattr(each, "images", None))) if ax.images]
    for ax, one in zip(panels, [one for stage in grids for one in stage], strict=True):
        np.testing.assert_array_equal(ax.images[0].get_array(), one)
    assert ("class token, others" in texts) == class_token
    curve = next(ax for ax in drawn[0].findobj(lambda each: bool(getattr(each, "lines", None))) if ax.get_legend())
    line = curve.lines[0].get_ydata()
    np.testing.assert_array_equal(line, [layer.same for layer in stages[0]])


@pytest.mark.filterwarnings("error")
def test_one_token_alone_is_drawn_without_a_number(drawn: list[Figure], tmp_path: Path) -> None:
    alone = TokenSimilarity(float("nan"), 0.1, None, np.array([np.nan]))
    draw_tokens([[alone]], ["B"], [[np.array([[np.nan]])]], "net", 2, tmp_path / "a.png")
    check_readable(drawn[0])


def seen(name: str, count: int, size: tuple[int, int], predicted: list[str]) -> Seen:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *size, 3), dtype=np.uint8)
    maps = rng.random((count, *size))
    maps[0] = 0
    return Seen(name, images, maps, "7 × 7 tokens", predicted, [0.123] * count)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("networks", "count", "size"), [(1, 1, (32, 32)), (1, 8, (32, 64)), (2, 8, (224, 160)), (2, 3, (32, 32))]
)
def test_grad_cam_names_what_each_network_sees(
    networks: int, count: int, size: tuple[int, int], drawn: list[Figure], tmp_path: Path
) -> None:
    true = ["golden retriever of the north"] * count
    predicted = ["golden retriever of the north", *["cat"] * (count - 1)]
    names = ["1d_tiny_16 BSBSBS-BBBBBB-BSBSBS", "torchvision:wide_resnet101_2"][:networks]
    all_seen = [seen(name, count, size, predicted) for name in names]
    captions = [f"a_long_file_name_{number}.jpeg" for number in range(count)]
    draw_gradcam(all_seen, captions, true, tmp_path / "a.png")
    texts = check_readable(drawn[0])
    axes = drawn[0].axes[:-1]  # the last shows the colours
    assert len(axes) == count * (1 + networks)
    for number in range(count):
        image, *others = axes[number * (1 + networks) :][: 1 + networks]
        np.testing.assert_array_equal(image.images[0].get_array(), all_seen[0].images[number])
        for ax, one in zip(others, all_seen, strict=True):
            np.testing.assert_array_equal(ax.images[1].get_array(), one.maps[number])
    assert sum(text == "✗ cat" for text in texts) == networks * (count - 1)
    assert sum("nothing found" in text for text in texts) == networks
    assert sum(text.startswith("is golden") for text in texts) == count


def test_pictures_are_1200_pixels_wide(tmp_path: Path) -> None:
    stages = stages_of(("BSB", "BB"), (2, 3))
    draw_attention(stages, "net", 64, tmp_path / "attention.png")
    draw_heads(stages, "net", 64, tmp_path / "heads.png")
    tokens, grids = tokens_of(("BB",), (4, 4), True)
    draw_tokens(tokens, ["BB"], grids, "net", 64, tmp_path / "tokens.png")
    draw_gradcam([seen("net", 2, (32, 32), ["a", "b"])], ["x", "y"], [None, None], tmp_path / "gradcam.png")
    for name in ("attention", "heads", "tokens", "gradcam"):
        with Image.open(tmp_path / f"{name}.png") as image:
            image.load()
            assert image.size[0] == 1200


@pytest.mark.slow
def test_pyplot_stays_unloaded(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, numpy, psvit.explain.plots as p;"
        "from psvit.explain.similarity import MapSimilarity as M;"
        "assert 'matplotlib' not in sys.modules;"
        "ones = numpy.ones((1, 1, 1, 1));"
        "p.draw_attention([M('B', ones, ones)], 'x', 2, pathlib.Path(sys.argv[1]));"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.png")], check=True)
