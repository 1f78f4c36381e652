"""What of a folder is listed as images, and what is left out and said."""

import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest

from psvit.data.config import DataConfig
from psvit.data.data import open_data
from psvit.data.datasets import open_dataset
from psvit.data.images import FolderImages
from psvit.data.listing import LeftOut, class_folders, list_images


def listing(root: Path) -> tuple[list[str], str]:
    """The images of a folder of class folders, and what is left out."""
    left_out = LeftOut()
    classes = class_folders(root, left_out)
    names, labels = list_images(root, classes, left_out)
    assert [classes[label] for label in labels] == [name.partition("/")[0] for name in names]
    return names, str(left_out)


def names_of(root: Path) -> list[str]:
    images = open_dataset(DataConfig("imagefolder", str(root))).train
    assert isinstance(images, FolderImages)
    return list(images.names)


IMAGES = [f"{label}/{index:02}.png" for label in ("ant", "bee") for index in range(6)]


def test_names_and_their_order_stay_as_torchvision_lists_them(make_folder) -> None:
    """The record of the split is what earlier runs hold: it must not change."""
    root = make_folder("root", ("ant", "ant/x", "ant/x/y", "ant/x y", "ant/X", "bee"), count=3)
    folders = ["ant", "ant/X", "ant/x", "ant/x y", "ant/x/y", "bee"]  # by code point of the whole path
    assert names_of(root) == [f"{folder}/{index:02}.png" for folder in folders for index in range(3)]


def test_the_record_of_the_split_stays(make_folder) -> None:
    folders = [f"{label}{below}" for label in ("ant", "bee") for below in ("", "/x", "/x/y", "/x y", "/X")]
    root = make_folder("root", tuple(folders), count=3)
    digest = "8fcde12e17c1a9cbd9c13d121a8e5f8b54934503c76cbab67f128cce2d3b4e10"  # as torchvision's make_dataset gave it
    assert open_data(DataConfig("imagefolder", str(root))).split_record()["sha256"] == digest


@pytest.mark.parametrize("folder", [".ipynb_checkpoints", "@eaDir", "__MACOSX", "$RECYCLE.BIN", "lost+found"])
def test_hidden_and_system_folders_are_left_out(make_folder, folder: str) -> None:
    root = make_folder("root")
    shutil.copytree(root / "ant", root / "ant" / folder / "deeper")
    shutil.copytree(root / "ant", root / folder, ignore=shutil.ignore_patterns(folder))
    (root / "ant" / "Thumbs.db").touch()
    (root / "ant" / "._00.png").touch()
    assert listing(root) == (IMAGES, f"12 files in {folder}, 2 hidden or system files")


def test_links_do_not_multiply_images(make_folder, tmp_path: Path) -> None:
    root = make_folder("root")
    (root / "ant" / "a_loop").symlink_to(".")
    (root / "ant" / "to_bee").symlink_to("../bee")
    (root / "bee" / "above").symlink_to(tmp_path)
    (root / "bee" / "circle").symlink_to("circle")  # leads nowhere; by its ending it is no image
    (root / "all").symlink_to(".")
    (root / "a_bee").symlink_to("bee")
    names, left_out = listing(root)
    assert names == IMAGES
    assert left_out == "1 without an ending, 5 links to a folder already read"


def test_a_link_to_a_folder_elsewhere_is_followed_once(make_folder, tmp_path: Path) -> None:
    root = make_folder("root")
    make_folder("elsewhere", ("more", "cat"), count=2)
    (root / "bee" / "a").symlink_to(tmp_path / "elsewhere/more")
    (root / "bee" / "b").symlink_to(tmp_path / "elsewhere/more")
    (root / "cat").symlink_to(tmp_path / "elsewhere/cat")
    (root / "cat" / "03.png").symlink_to("00.png")
    names, left_out = listing(root)
    assert names == [*IMAGES, "bee/a/00.png", "bee/a/01.png", "cat/00.png", "cat/01.png", "cat/03.png"]
    assert left_out == "1 link to a folder already read"


def test_only_regular_files_are_images(make_folder, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder("root")
    os.mkfifo(root / "ant" / "fifo.png")
    (root / "ant" / "null.png").symlink_to(os.devnull)
    monkeypatch.chdir(root / "bee")  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
        assert listing(root) == (IMAGES, "3 files that are not regular")


def test_a_link_that_leads_nowhere_is_not_passed_over(make_folder) -> None:
    root = make_folder("root")
    (root / "bee" / "06.png").symlink_to("missing.png")
    images = open_dataset(DataConfig("imagefolder", str(root))).train
    with pytest.raises(ValueError, match=r"cannot read image .*bee/06\.png \(.*No such file"):
        images.read(12)


def test_what_is_left_out_is_counted_by_ending(make_folder) -> None:
    root = make_folder("root")
    for name in ["ant/a.txt", "ant/b.TXT", "bee/c.heic", "bee/README", "unsorted.jpg", "labels.csv"]:
        (root / name).touch()
    assert listing(root) == (IMAGES, "2 .txt, 1 without an ending, 1 .heic, 1 image beside the class folders")
    for index in range(20):
        (root / "ant" / f"x.{index}").touch()
    assert listing(root)[1].startswith("2 .txt, ")
    assert "15 of other endings" in listing(root)[1]  # 23 endings, of which 8 are told with 9 files


def test_run_folders_are_no_classes(make_folder) -> None:
    root = make_folder("root", ("ant", "bee", "runs/old", "mine", "whole/supernet", "ant/inner"))
    for folder in ("mine", "whole/supernet", "ant/inner"):
        for name in ("config.yaml", "versions.json"):
            (root / folder / name).touch()
    assert open_data(DataConfig("imagefolder", str(root))).class_names == ("ant", "bee")
    assert names_of(root) == IMAGES
    assert listing(root)[1] == "3 folders of runs (ant/inner, mine, whole)"
    left_out = LeftOut()
    assert class_folders(root, left_out, runs=True) == ["ant", "bee"]
    assert str(left_out) == "3 folders of runs (mine, runs, whole)"


def test_names_that_are_not_utf8_are_refused_at_once(make_folder) -> None:
    root = make_folder("root")
    for latin1 in (b"caf\xe9", b"ant/caf\xe9", b"ant/caf\xe9.png"):
        path = os.fsencode(root) + b"/" + latin1
        shutil.copy(root / "ant/00.png", path) if path.endswith(b"png") else os.mkdir(path)
        shown = latin1.decode("utf-8", "replace")
        with pytest.raises(ValueError, match=f"the name .*root/{shown} is not UTF-8; rename it"):
            open_dataset(DataConfig("imagefolder", str(root)))
        os.remove(path) if path.endswith(b"png") else os.rmdir(path)
    Path(os.fsdecode(os.fsencode(root) + b"/ant/caf\xe9.t\xe9t")).touch()
    assert listing(root) == (IMAGES, "1 .t\ufffdt")


def test_control_characters_stay_out_of_messages(make_folder) -> None:
    root = make_folder("root")
    (root / "ant" / "two\nlines\x1b[2J.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"ant/two\\nlines\\x1b\[2J\.png \("):
        open_dataset(DataConfig("imagefolder", str(root))).train.read(6)
    (root / "cat\r").mkdir()
    with pytest.raises(ValueError, match=r"class folder .*cat\\r has no image"):
        open_dataset(DataConfig("imagefolder", str(root)))


def test_it_is_said_once_and_by_the_first_process_only(
    make_folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_folder("root")
    names_of(root)
    assert capsys.readouterr().err == ""  # nothing is left out
    (root / "ant" / "notes.txt").touch()
    for key in ("RANK", "TORCHELASTIC_RESTART_COUNT"):
        with monkeypatch.context() as patch:
            patch.setenv(key, "1")
            names_of(root)
    assert capsys.readouterr().err == ""
    names_of(root)
    names_of(root)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"{root}: 12 images in 2 classes; left out: 1 .txt\n"


def test_workers_do_not_say_it_again(make_folder, capfd: pytest.CaptureFixture[str]) -> None:
    root = make_folder("root", count=10)
    (root / "ant" / "notes.txt").touch()
    data = open_data(DataConfig("imagefolder", str(root), workers=1))
    assert sum(len(labels) for _, labels in data.eval_batches("train", (8, 8), 4)) == 14
    assert capfd.readouterr().err.count("left out") == 1


def test_all_images_of_the_test_split_are_listed_alike(make_folder, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_folder("root/train").parent
    make_folder("root/val", count=2)
    shutil.copytree(root / "val/ant", root / "val/ant/.hidden")
    data = open_data(DataConfig("imagefolder", str(root)))
    assert capsys.readouterr().err == ""
    assert np.bincount(data.labels("test")).tolist() == [2, 2]
    assert capsys.readouterr().err == f"{root / 'val'}: 4 images in 2 classes; left out: 2 files in .hidden\n"
