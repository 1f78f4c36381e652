import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from psvit.figures import save_figure
from psvit.retrain.plots import draw_predictions, draw_training

NAMES = [f"class {index}" for index in range(10)]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn, with all that is in them; they are not written."""
    figures = []
    monkeypatch.setattr("psvit.retrain.plots.save_figure", lambda figure, path: figures.append(figure))
    return figures


@pytest.fixture
def written(monkeypatch):
    """The figures that are drawn and written."""
    figures = []
    monkeypatch.setattr(
        "psvit.retrain.plots.save_figure", lambda figure, path: (figures.append(figure), save_figure(figure, path))
    )
    return figures


def texts(path):
    return ["".join(each.itertext()) for each in ET.parse(path).iter("{http://www.w3.org/2000/svg}text")]


def write_metrics(path, epochs=20, **more):
    epoch = np.arange(1, epochs + 1)
    table = {
        "epoch": epoch,
        "lr": 1e-3 / epoch,
        "loss": 2 / epoch,
        "test_loss": 1 / epoch,
        "seconds": 3.0,
        **more,
    }
    frame = pd.DataFrame(table)
    frame.to_csv(path, index=False)
    return frame


def sheet_inputs(count, wrong=()):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (count, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, count)
    predictions = labels.copy()
    predictions[list(wrong)] = (predictions[list(wrong)] + 1) % 10
    return images, labels, predictions


def test_curves_are_the_columns(tmp_path, written):
    top1 = np.where(np.arange(20) % 5 == 4, 0.9, np.nan)
    frame = write_metrics(tmp_path / "metrics.csv", search_top1=top1)
    draw_training(tmp_path / "metrics.csv", tmp_path / "training.png")
    with Image.open(tmp_path / "training.png") as image:
        image.load()
        assert image.size == (1200, 800)
    panels = {ax.get_ylabel(): {line.get_label(): line for line in ax.lines} for ax in written[0].axes}
    assert {name: set(lines) for name, lines in panels.items()} == {
        "loss": {"training loss", "test loss"},
        "top-1": {"search top-1"},
        "learning rate": {"lr"},
    }
    np.testing.assert_allclose(panels["loss"]["test loss"].get_ydata(), frame["test_loss"])
    assert panels["top-1"]["search top-1"].get_xdata().tolist() == [5, 10, 15, 20]  # only where there is a number


@pytest.mark.filterwarnings("error")
def test_one_epoch_shows_as_a_point(tmp_path, written):
    write_metrics(tmp_path / "metrics.csv", epochs=1)
    draw_training(tmp_path / "metrics.csv", tmp_path / "training.png")
    assert written[0].axes[0].lines[0].get_marker() == "o"
    assert written[0].axes[0].get_title(loc="left") == "Training, 1 epoch"


def test_a_last_line_cut_short_is_left_out(tmp_path, drawn):
    write_metrics(tmp_path / "metrics.csv", epochs=3)
    with open(tmp_path / "metrics.csv", "a") as file:
        file.write("4,0.0")
    draw_training(tmp_path / "metrics.csv", tmp_path / "training.png")
    assert drawn[0].axes[0].lines[0].get_xdata().tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "content", [None, "", "epoch,loss\n", "a,b\n1,2\n", "epoch,seconds\n1,2\n", "a,b\n1,2,3,4,5\n1\n"]
)
def test_faulty_metrics_get_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "metrics.csv").write_text(content)
    with pytest.raises(ValueError, match=r"metrics\.csv") as raised:
        draw_training(tmp_path / "metrics.csv", tmp_path / "training.png")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "training.png").exists()


def test_mistakes_come_first_with_both_classes(tmp_path, written):
    images, labels, predictions = sheet_inputs(60, wrong=(17, 40))
    draw_predictions(images, labels, predictions, NAMES, tmp_path / "sheet.svg", 58 / 60)
    shown = [ax.images[0].get_array() for ax in written[0].axes]
    right = [index for index in range(60) if index not in (17, 40)]
    np.testing.assert_array_equal(shown, images[[17, 40, *right][:48]])
    assert [len(ax.patches) for ax in written[0].axes] == [1, 1] + [0] * 46  # the frames
    said = texts(tmp_path / "sheet.svg")
    assert "Top-1 on the test split: 96.67%" in said
    assert any(line.startswith("48 of 60 images, the 2 mistakes first") for line in said)
    captions = said[2:]
    assert captions[:4] == [
        f"✗ class {predictions[17]}",
        f"is class {labels[17]}",
        f"✗ class {predictions[40]}",
        f"is class {labels[40]}",
    ]
    assert captions[4:] == [f"class {labels[index]}" for index in right[:46]]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("count", "wrong"), [(1, ()), (9, (0,)), (100, range(100))])
def test_sheets_are_1200_pixels_wide_and_as_high_as_their_rows(tmp_path, count, wrong):
    draw_predictions(*sheet_inputs(count, wrong), NAMES, tmp_path / "sheet.png", 0.5)
    with Image.open(tmp_path / "sheet.png") as image:
        image.load()
        rows = min(6, -(-count // 8))
        assert image.size == (1200, pytest.approx(160 * (0.80 + rows * (7.5 / 8 + 0.36)), abs=1))


def test_long_and_strange_names_stay_in_their_cells(tmp_path, drawn):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    images, labels, predictions = sheet_inputs(16, wrong=range(16))
    names = [f"golden retriever number {index}" for index in range(9)] + ["$x_1$ & <b>"]
    draw_predictions(images[:, :12], labels, predictions, names, tmp_path / "sheet.png", 0.0)
    renderer = FigureCanvasAgg(drawn[0]).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in drawn[0].texts]
    for number, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.x1 <= drawn[0].bbox.width
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])
    assert any("$x_1$ & <b>" in text.get_text() for text in drawn[0].texts)


def test_no_image_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        draw_predictions(*sheet_inputs(0), NAMES, tmp_path / "sheet.png", 0.0)


def test_imports_neither_search_nor_torch_nor_pyplot(tmp_path):
    write_metrics(tmp_path / "metrics.csv")
    code = (
        "import sys, pathlib, psvit.retrain.plots;"
        "assert 'matplotlib' not in sys.modules;"
        "folder = pathlib.Path(sys.argv[1]);"
        "psvit.retrain.plots.draw_training(folder / 'metrics.csv', folder / 't.png');"
        "assert not {'psvit.search', 'torch', 'matplotlib.pyplot'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
