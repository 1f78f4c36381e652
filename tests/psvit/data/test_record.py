"""What a run was made on: every change of it is told, and nothing else is one."""

import hashlib
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from psvit.data.config import DataConfig
from psvit.data.data import open_data
from psvit.data.record import DATA, DataRecord, record_data


def record(root: Path, test: bool = True, **changed: object) -> DataRecord:
    return open_data(DataConfig("imagefolder", str(root), **changed)).record(test)


def test_it_says_what_lies_in_a_folder(make_folder) -> None:
    root = make_folder("root", ("ant", "bee"), count=10)
    made = record(root)
    assert made.classes == ("ant", "bee")
    assert made.listed["train"].images == 20
    assert made.listed["train"].by_class == (10, 10)
    assert {name: split.images for name, split in made.splits.items()} == {"train": 14, "search": 2, "test": 4}
    lines = [
        f"{name}/{path.name}\t{label}\t{path.stat().st_size}\n"
        for label, name in enumerate(("ant", "bee"))
        for path in sorted((root / name).iterdir())
    ]
    assert made.listed["train"].sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_a_folder_that_moves_stays_the_same(make_folder, tmp_path: Path) -> None:
    made = record(make_folder("root"))
    moved = Path(shutil.move(tmp_path / "root", tmp_path / "moved"))
    (moved / "ant" / "notes.txt").write_text("no image")
    assert not made.changes(record(moved, workers=3))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("add", r"train had 12 images and has 14 \(ant had 6 and has 8\)"),
        ("remove", r"train had 12 images and has 11 \(bee had 6 and has 5\)"),
        ("move", r"train has as many images, but of other classes \(ant had 6 and has 5, bee had 6 and has 7\)"),
        ("rename", "train has as many images, but some were renamed or replaced"),
        ("replace", "train has as many images, but some were renamed or replaced"),
        ("class", "the classes differ: new are cat"),
        ("rename class", "the classes differ: new are wasp, missing are bee"),
    ],
)
def test_a_change_is_named(make_folder, tmp_path: Path, change: str, said: str) -> None:
    root = make_folder("root")
    made, first = record(root), root / "ant" / "00.png"
    if change == "add":
        for name in ("x.png", "y.png"):
            shutil.copy(first, first.with_name(name))
    elif change == "remove":
        (root / "bee" / "03.png").unlink()
    elif change == "move":
        first.rename(root / "bee" / "x.png")
    elif change == "rename":
        first.rename(first.with_name("x.png"))
    elif change == "replace":
        first.write_bytes(first.read_bytes() + b"\0")
    elif change == "class":
        shutil.copytree(root / "ant", root / "cat")
    else:
        (root / "bee").rename(root / "wasp")
    (found,) = made.changes(record(root))
    assert re.fullmatch(said, found)


def test_another_split_of_the_same_images_is_named(make_folder) -> None:
    root = make_folder("root", count=9)
    (found,) = record(root).changes(record(root, search_fraction=0.4))
    assert found == "the same images are split in another way (search, train)"


def test_a_test_split_counts_where_it_is_read(make_folder, tmp_path: Path) -> None:
    for split in ("train", "test"):
        make_folder(f"root/{split}")
    root = tmp_path / "root"
    with_test, without = record(root), record(root, test=False)
    assert "test" not in without.listed
    (root / "test" / "ant" / "00.png").unlink()
    assert with_test.changes(record(root)) == ["test had 12 images and has 11 (ant had 6 and has 5)"]
    assert not without.changes(record(root, test=False))


def test_images_in_memory_are_told_by_their_pixels() -> None:
    digits = open_data(DataConfig())
    made = digits.record()
    assert not made.changes(open_data(DataConfig()).record())
    dataset = digits._dataset
    pixels = dataset.train.read(0)
    kept = pixels.clone()
    pixels[0, 3, 3] ^= 1
    assert made.changes(digits.record()) == ["train has as many images, but some were renamed or replaced"]
    pixels[:] = kept
    assert not made.changes(digits.record())


def test_a_run_folder_keeps_its_record(make_folder, tmp_path: Path) -> None:
    run, made = tmp_path, record(make_folder("root"))
    record_data(run, made)
    record_data(run, made)
    assert DataRecord.load(run / DATA) == made
    grown = replace(made, classes=("ant", "bee", "new\nline"), listed={})
    with pytest.raises(ValueError, match=r"holds a run on other data: .* new are new\\nline\. Use name=") as raised:
        record_data(run, grown)
    assert "\n" not in str(raised.value)
    assert DataRecord.load(run / DATA) == made


def test_many_changes_are_counted(make_folder) -> None:
    made = record(make_folder("root"))
    names = tuple(f"class{number}" for number in range(9))
    (line,) = made.changes(replace(made, classes=(*made.classes, *names), listed={}))
    assert line == "the classes differ: new are class0, class1, class2 and 6 more"


def test_stamps_are_one_per_image() -> None:
    stamps = open_data(DataConfig())._dataset.train.stamps()
    assert stamps.shape == (1797,)
    assert len(np.unique(stamps)) > 1700


def test_numbers_that_do_not_fit_the_classes_are_refused(make_folder) -> None:
    with pytest.raises(ValueError, match="by_class must have 3 numbers"):
        replace(record(make_folder("root")), classes=("ant", "bee", "cow"))
