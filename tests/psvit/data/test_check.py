"""One look at all images, on a messy folder whose faults are known, and what the cache saves."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from psvit.cli.main import main
from psvit.data import check as module
from psvit.data.check import cache_path, check
from psvit.data.config import CheckConfig, DataConfig


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    """Two splits of two classes, of several formats; a cut file, a text, two pairs of twins, a link, a hidden file."""
    root, rng = tmp_path / "photos", np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 6)):
        for name in ("ant", "bee"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count if name == "ant" else count // 2):
                height, width = int(rng.integers(30, 60)), 40
                ending = ("png", "jpg", "gif", "webp")[number % 4]
                pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{number:02}.{ending}")
    whole = (root / "train/ant/01.jpg").read_bytes()
    (root / "train/ant/01.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "train/bee/04.png").write_text("no picture")
    shutil.copy(root / "train/ant/02.gif", root / "val/ant/twin.gif")
    shutil.copy(root / "train/bee/00.png", root / "train/bee/twin.png")
    (root / "train/ant/up").symlink_to(root)
    (root / "train/ant/.DS_Store").touch()
    (root / "train/ant/notes.txt").touch()
    return root


def config(root: Path, **settings: object) -> CheckConfig:
    return CheckConfig(DataConfig("imagefolder", str(root)), **settings)  # type: ignore[arg-type]


def test_a_messy_folder(messy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = check(config(messy))
    printed = capsys.readouterr()
    assert report.splits["train"] + report.splits["search"] == 20 + 11
    assert report.splits["test"] == 7 + 3
    assert report.classes == {"ant": 20, "bee": 11}
    assert {name.partition(" ")[2] for name in report.unreadable} == {"ant/01.jpg", "bee/04.png"}
    files = [path for path in messy.rglob("*/*/*") if path.suffix in (".png", ".jpg", ".gif", ".webp")]
    whole = [path for path in files if path not in (messy / "train/ant/01.jpg", messy / "train/bee/04.png")]
    heights = []
    for path in whole:
        with Image.open(path) as picture:
            heights.append(picture.height)
    assert report.heights == (min(heights), int(np.median(heights)), max(heights))
    assert sum(report.formats.values()) == len(whole)
    assert report.formats["GIF"] == sum(path.suffix == ".gif" for path in whole)
    groups = [sorted(name.partition(" ")[2] for name in group) for group in report.repeated]
    groups.sort()
    assert groups == [["ant/02.gif", "ant/twin.gif"], ["bee/00.png", "bee/twin.png"]]
    assert [sorted(name.partition(" ")[2] for name in group) for group in report.shared] == [groups[0]]
    assert "identical: 1 images are in the test split and in what is learned from" in printed.out
    assert "identical: 1 images are there more than once" in printed.out
    assert "cannot be read: 2 images" in printed.out
    assert "1 .txt" in printed.err
    assert "1 hidden or system file" in printed.err
    assert "1 link to a folder already read" in printed.err


def test_unchanged_files_are_not_read_again(messy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = check(config(messy))
    read: list[str] = []
    read_bytes = Path.read_bytes

    def watched(path: Path) -> bytes:
        read.append(path.name)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", watched)
    assert check(config(messy)) == first
    assert read == []
    changed = messy / "train/ant/03.webp"
    os.utime(changed, ns=(1, 1))
    assert check(config(messy)) == first
    assert read == ["03.webp"]
    for damage in ("{", "name,size\n", cache_path(messy / "train", "train").read_text()[:-30]):
        read.clear()
        cache_path(messy / "train", "train").write_text(damage)
        assert check(config(messy)) == first
        assert len(read) == first.splits["train"]
    read.clear()
    assert check(config(messy, cache=False)) == first
    assert len(read) == 41


def test_images_that_are_no_files() -> None:
    report = check(CheckConfig(DataConfig()))
    assert report.splits == {"train": 1295, "search": 143, "test": 359}
    assert sum(report.classes.values()) == 1295 + 143
    assert (report.unreadable, report.repeated, report.heights) == ({}, [], (32, 32, 32))
    assert report.error == pytest.approx(np.sqrt(0.09 / 143))


def test_the_command(messy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["psvit-search"])
    assert main(["check", str(messy), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == set(module.CheckReport.__dataclass_fields__)
    shutil.rmtree(messy / "val/bee")
    assert main(["check", str(messy)]) == 2
    assert "has a class 'bee' that" in capsys.readouterr().err


def test_nothing_that_can_be_read_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "x" / name).mkdir(parents=True)
        for number in range(8):
            (tmp_path / f"x/{name}/{number}.png").write_text("no picture")
    with pytest.raises(ValueError, match="none of 16 images can be read"):
        check(config(tmp_path / "x"))
