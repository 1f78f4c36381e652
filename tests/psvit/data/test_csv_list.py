"""Lists of images: what is read, and the line in which something is wrong."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from psvit.data.config import DataConfig
from psvit.data.csv_list import COLUMNS, open_csv
from psvit.data.data import open_data


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a list, and beside it each picture that it names; a picture's brightness is its number."""

    def write(text: str, encoding: str = "utf-8") -> Path:
        (tmp_path / "list.csv").write_bytes(text.encode(encoding))
        return tmp_path / "list.csv"

    for number in range(8):
        place = tmp_path / f"some folder/{number}.png"
        place.parent.mkdir(exist_ok=True)
        Image.new("RGB", (6, 5), (number, number, number)).save(place)
    return write


def lines(labels: str, splits: str = "", header: str = "file,label,split") -> str:
    """``a b`` -> a line for each."""
    given = splits.split() or [""] * len(labels.split())
    rows = [f"some folder/{n},{a},{b}" for n, (a, b) in enumerate(zip(labels.split(), given, strict=True))]
    rows = [row.replace(",", ".png,", 1) for row in rows]
    return "\n".join([header, *(row if splits else row.rstrip(",") for row in rows), ""])


def test_a_list_without_splits(write: Callable[..., Path]) -> None:
    dataset = open_csv(write(lines("b a b a b a", header="file,label")))
    assert dataset.class_names == ("a", "b")
    assert dataset.open_test is None
    assert dataset.train.labels.tolist() == [1, 0, 1, 0, 1, 0]
    assert [int(dataset.train.read(index).max()) for index in range(6)] == list(range(6))
    assert dataset.train.names[2] == "some folder/2.png"


def test_splits_by_any_of_their_names(write: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    text = lines("a b a b a b a b", "train Train test TEST valid validation train train")
    logging.getLogger("psvit.data.listing").addHandler(caplog.handler)
    data = open_data(DataConfig("csv", str(write(text)), search_fraction=0.5))
    assert data.labels("test").tolist() == [0, 1]
    assert [int(data.image("test", index).max()) for index in range(2)] == [2, 3]
    assert data.size("train+search") == 4
    assert "8 images in 2 classes; left out: 2 of split val" in caplog.text
    assert open_csv(write(text.replace("test", "train").replace("TEST", "train"))).open_test is not None


def test_numbers_are_classes_in_the_order_of_their_values(write: Callable[..., Path]) -> None:
    assert open_csv(write(lines("10 2 1 10 2 1", header="file,label"))).class_names == ("1", "2", "10")


def test_a_spreadsheet_writes_a_mark_quotes_and_other_columns(write: Callable[..., Path]) -> None:
    text = '\ufeffNote,Label, File_Name \r\n"x, y",a,some folder/0.png\r\n\r\n,"b, c",./some folder/1.png\r\n'
    dataset = open_csv(write(text))
    assert dataset.class_names == ("a", "b, c")
    assert dataset.train.names == ["some folder/0.png", "some folder/1.png"]


def test_the_only_list_of_a_folder_is_meant(write: Callable[..., Path]) -> None:
    path = write(lines("a b", header="file,label"))
    assert len(open_csv(path.parent).train.labels) == 2
    (path.parent / "other.CSV").write_text("")
    with pytest.raises(ValueError, match=r"holds several lists: list\.csv, other\.CSV; give the file"):
        open_csv(path.parent)
    with pytest.raises(ValueError, match="holds no list; give the file"):
        open_csv(path.parent / "some folder")


def test_an_image_folder_that_is_a_list_says_so(write: Callable[..., Path]) -> None:
    root = write(lines("a b", header="file,label")).parent
    (root / "some folder").rename(root / ".hidden")
    with pytest.raises(ValueError, match=r"no class folders.*if list\.csv lists the images say data=csv"):
        open_data(DataConfig("imagefolder", str(root)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column of files; its first line must name the columns"),
        ("some folder/0.png,a\n", "has no column of files"),
        ("file,colour\nsome folder/0.png,a\n", "has no column of labels"),
        ("file,path,label\n", "has two columns for the file: file and path; rename one"),
        ("file,label\n", "lists no images"),
        ("file,label\nsome folder/0.png,a\nsome folder/1.png\n", "line 3 has 1 columns"),
        ("file,label\nsome folder/0.png, \n", "line 2 has no label"),
        ("file,label\n,a\n", "line 2 has no file"),
        ("file,label\nsome folder/0.png,a\n", "lists 1 classes to learn"),
        ("file,label\nsome folder/0.png,a\n./some folder/0.png,b\n", r"lists some folder/0\.png 2 times"),
        (
            "file,label\nsome folder/0.png,a\nsome folder/9.png,b\n",
            r"1 of 2 files are missing, the first is some.*9\.png",
        ),
        (lines("a b a", "train train tset"), "line 4 is of split 'tset'; write one of train, test"),
        (lines("a b c", "train train test"), "class 'c' is in test, but has no image to learn from"),
        ('file,label\n"some folder/0.png,a\n', "cannot read .*list.csv"),
    ],
)
def test_what_is_wrong_with_a_list(write: Callable[..., Path], text: str, message: str) -> None:
    config = DataConfig("csv", str(write(text)))
    with pytest.raises(ValueError, match=message) as raised:
        open_data(config).size("test")
    assert "\n" not in str(raised.value)


def test_a_list_that_is_not_utf_8(write: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=r"cannot read .*write it as UTF-8"):
        open_csv(write("file,label\nsome folder/0.png,é\n", "latin-1"))


def test_every_name_of_a_column_is_read(write: Callable[..., Path]) -> None:
    for file in COLUMNS["file"]:
        for label in COLUMNS["label"]:
            text = lines("a b", header=f"{label.upper()},{file}").splitlines()
            turned = [text[0], *(",".join(line.split(",")[::-1]) for line in text[1:])]
            assert np.array_equal(open_csv(write("\n".join(turned))).train.labels, [0, 1])
