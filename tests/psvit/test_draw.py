import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from PIL import Image

from psvit.arch import Architecture
from psvit.cost import network_cost, stage_cost
from psvit.draw import draw_architecture
from psvit.figures import PIXELS_PER_INCH
from psvit.units import format_quantity
from psvit.zoo import NETWORKS, SPACES

SVG = "{http://www.w3.org/2000/svg}"
MINI = SPACES["2d_mini_4"]
FIVE = replace(MINI, widths=(32, 48, 64, 96, 128), heads=(2, 3, 4, 6, 8), image_size=(64, 96), name="five")
DRAWN = {
    "mini": (MINI, "BSSBSB-BBSB-BS"),
    "paper": (SPACES["1d_tiny_16"], "BSB-BBBBB-BSBSB"),
    "deit": (NETWORKS["deit_tiny_16"][0], "BBBBBBBBBBBB"),
    "one": (NETWORKS["deit_tiny_16"][0], "B"),
    "deep": (FIVE, "B-BS-" + "BSSBSB" * 4 + "-B-BSB"),
}


def draw_svg(tmp_path, spec, letters, **options):
    draw_architecture(spec, Architecture.parse(letters), tmp_path / "net.svg", **options)
    return ET.parse(tmp_path / "net.svg").getroot()


def texts(root):
    return ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]


def ys(element):
    """Heights that the outlines within an element pass through."""
    numbers = [re.findall(r"-?[\d.]+", path.get("d")) for path in element.iter(f"{SVG}path")]
    return [[float(y) for y in points[1::2]] for points in numbers]


@pytest.mark.parametrize("name", DRAWN)
def test_boxes_and_arrows_are_the_architecture(tmp_path, name):
    spec, letters = DRAWN[name]
    groups = {group.get("id"): group for group in draw_svg(tmp_path, spec, letters).iter(f"{SVG}g")}
    boxes, arrows = {}, {}
    for identity, group in groups.items():
        if match := re.fullmatch(r"stage-(\d+)-layer-(\d+)-(basic|sharing)", identity):
            outline = ys(group)[0]
            boxes[int(match[1]), int(match[2])] = match[3], (min(outline) + max(outline)) / 2
        if match := re.fullmatch(r"stage-(\d+)-layer-(\d+)-takes-map-of-(\d+)", identity):
            line = ys(group)[0]
            arrows[int(match[1]), int(match[2])] = int(match[3]), line[0], line[-1]

    words = letters.split("-")
    for stage, word in enumerate(words, start=1):
        middles = [boxes[stage, layer][1] for layer in range(1, len(word) + 1)]
        assert middles == sorted(middles)
        for layer, letter in enumerate(word, start=1):
            assert boxes[stage, layer][0] == {"B": "basic", "S": "sharing"}[letter]
            if letter == "S":
                source, start, end = arrows.pop((stage, layer))
                assert source == word.rindex("B", 0, layer - 1) + 1
                assert start == pytest.approx(boxes[stage, source][1])
                assert end == pytest.approx(boxes[stage, layer][1])
    assert len(boxes) == sum(map(len, words))
    assert not arrows  # nothing but sharing layers takes a map


@pytest.mark.parametrize("name", DRAWN)
def test_says_tokens_costs_and_the_ends(tmp_path, name):
    spec, letters = DRAWN[name]
    said = texts(draw_svg(tmp_path, spec, letters))
    assert said.count("basic") == letters.count("B")
    assert said.count("sharing") == letters.count("S")
    assert said.count("patch embedding") == 1
    assert said.count("token pooling") == spec.stages - 1
    assert f"head, {spec.classes} classes" in said
    for stage, word in enumerate(letters.split("-")):
        assert f"Stage {stage + 1}" in said
        assert any(line.startswith(f"{spec.tokens[stage]} token") for line in said)
        assert any(line.startswith(f"{spec.widths[stage]} wide, {spec.heads[stage]} head") for line in said)
        cost = stage_cost(spec, stage, word.count("B"), word.count("S"))
        assert any(line.startswith(f"{format_quantity(cost.flops, 3)} FLOPs (") for line in said)
    total = network_cost(spec, Architecture.parse(letters))
    assert f"{format_quantity(total.flops, 3)} FLOPs, {format_quantity(total.params, 3)} parameters in total" in said


def test_readout_is_the_network_s(tmp_path):
    assert "norm, class token" in texts(draw_svg(tmp_path, *DRAWN["deit"]))
    assert "norm, mean over 4 tokens" in texts(draw_svg(tmp_path, *DRAWN["mini"]))


def test_grid_of_tokens_is_drawn_in_two_dimensions_only(tmp_path):
    assert "64 tokens (8 × 8)" in texts(draw_svg(tmp_path, *DRAWN["mini"]))
    assert "197 tokens (class token + 14 × 14)" in texts(draw_svg(tmp_path, *DRAWN["paper"]))


@pytest.mark.parametrize("name", DRAWN)
def test_every_text_lies_within_the_picture(tmp_path, name):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kept = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("psvit.draw.save_figure", lambda figure, path: kept.append(figure))
        draw_architecture(DRAWN[name][0], Architecture.parse(DRAWN[name][1]), tmp_path / "net.png", "a long title " * 9)
    figure: Figure = kept[0]
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.axes[0].texts]
    for box in boxes:
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width
        assert box.y0 >= 0
        assert box.y1 <= figure.bbox.height
    for number, box in enumerate(boxes):
        assert not any(box.padded(-1).overlaps(other.padded(-1)) for other in boxes[number + 1 :])


def test_png_has_160_pixels_an_inch(tmp_path):
    root = draw_svg(tmp_path, *DRAWN["mini"])
    draw_architecture(MINI, Architecture.parse(DRAWN["mini"][1]), tmp_path / "net.PNG")
    points = [float(root.get(side).removesuffix("pt")) for side in ("width", "height")]
    with Image.open(tmp_path / "net.PNG") as image:
        image.load()
        assert image.format == "PNG"
        assert image.size == pytest.approx([side / 72 * PIXELS_PER_INCH for side in points], abs=1)


def test_title_is_taken_as_it_is(tmp_path):
    assert "$x_1$ & <b>" in texts(draw_svg(tmp_path, *DRAWN["mini"], title="$x_1$ & <b>"))
    assert "2d_mini_4" in texts(draw_svg(tmp_path, *DRAWN["mini"]))


def test_same_network_gives_same_file(tmp_path):
    for name in ("a.svg", "b.svg"):
        draw_architecture(MINI, Architecture.parse("BS-B-B"), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_refuses_another_number_of_stages(tmp_path):
    with pytest.raises(ValueError, match="2 stages, but the network has 3"):
        draw_architecture(MINI, Architecture.parse("B-B"), tmp_path / "net.png")


def test_pyplot_and_torch_stay_unloaded():
    code = (
        "import sys, psvit.draw, psvit.inspect, pathlib, tempfile;"
        "assert 'matplotlib' not in sys.modules;"
        "from psvit.zoo import NETWORKS;"
        "psvit.draw.draw_architecture(*NETWORKS['deit_tiny_16'], pathlib.Path(tempfile.mkdtemp()) / 'x.svg');"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
