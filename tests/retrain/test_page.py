"""The page of a retraining: its figures, its images, and that nothing in it loads, runs or is taken for markup."""

import html
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from psvit.data.config import DataConfig
from psvit.data.data import Data, open_data
from psvit.engine.outcomes import ImageOutcomes
from psvit.retrain.page import write_report
from tests.retrain.test_results import RETRAINED

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def data(tmp_path: Path) -> Data:
    """Two classes, one of them with a name that is markup; 12 images each to test on."""
    for split in ("train", "test"):
        for name in ("a&b", "c"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(12):
                Image.new("RGB", (20, 10), (number, 0, 0)).save(folder / f"{number:02}.png")
    return open_data(DataConfig("imagefolder", str(tmp_path / "images")))


def outcomes(data: Data) -> ImageOutcomes:
    """Wrong on every fourth; the worst mistake is image 4, the least sure of the right ones image 1."""
    labels = data.labels("test")
    wrong = np.arange(24) % 4 == 0
    loss, confidence = np.full(24, 0.5, np.float32), np.full(24, 0.75, np.float32)
    loss[4], confidence[1] = 3.0, 0.51
    return ImageOutcomes(loss, ~wrong, labels, np.where(wrong, 1 - labels, labels), confidence)


def page(data: Data, folder: Path, found: ImageOutcomes, **changes: object) -> str:
    write_report(folder, replace(RETRAINED, num_test_images=24, **changes), found, data)
    return (folder / "report.html").read_text(encoding="utf-8")


def test_figures_and_images(data: Data, tmp_path: Path) -> None:
    text = page(data, tmp_path, outcomes(data))
    assert "a&amp;b" in text
    assert '<td class="number right">9</td>' in text
    assert '<td class="number wrong">3</td>' in text
    mistakes, least_sure = html.unescape(text).split("Mistakes, the worst first")[1].split("Right, but least sure")
    names = [re.findall(r"<small>(\S+\.png)</small>", part) for part in (mistakes, least_sure)]
    assert names[0][0] == data.image_name("test", 4)
    assert sorted(names[0]) == sorted(data.image_name("test", index) for index in range(0, 24, 4))
    assert names[1][0] == data.image_name("test", 1)
    assert len(names[1]) == 12
    assert f"psvit-search predict {tmp_path}" in text


def test_nothing_is_loaded_and_nothing_runs(data: Data, tmp_path: Path) -> None:
    text = page(data, tmp_path, outcomes(data), network=EVIL, teacher=EVIL)
    assert EVIL not in text
    assert "&lt;script&gt;" in text
    open_tags: list[str] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            open_tags.append(tag)
            for name, value in attributes:
                assert not name.startswith("on")
                if name in ("src", "href"):
                    assert (value or "").startswith("data:image/png;base64,")

    Parser().feed(text)
    assert not {"script", "link", "iframe", "object"} & set(open_tags)
    assert open_tags.count("img") == 18


def test_a_network_without_a_mistake(data: Data, tmp_path: Path) -> None:
    labels = data.labels("test")
    sure = np.ones(24, np.float32)
    text = page(data, tmp_path, ImageOutcomes(sure * 0, sure > 0, labels, labels, sure))
    assert "<p>None.</p>" in text.split("Mistakes, the worst first")[1]
    assert "error 0.0000" in text
