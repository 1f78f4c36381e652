import hashlib
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10, CIFAR100

import psvit.data
from psvit.data.config import DataConfig
from psvit.data.data import open_data
from psvit.data.datasets import open_dataset


def folder_error(root: Path | None, name: str = "imagefolder") -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the caller compares the message
        open_data(DataConfig(name, str(root) if root else None)).size("train")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_digits_are_scikit_learns() -> None:
    with np.load(Path(psvit.data.__file__).with_name("digits.npz"), allow_pickle=False) as arrays:
        content = arrays["images"].tobytes() + arrays["labels"].tobytes()
    # of sklearn.datasets.load_digits(), images and target as unsigned bytes
    assert hashlib.sha256(content).hexdigest() == "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"


def test_digits_as_drawn() -> None:
    dataset = open_dataset(DataConfig())
    pixels = torch.stack([dataset.train.read(index) for index in range(1797)])
    assert pixels.shape == (1797, 3, 32, 32)
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels[:, 0], pixels[:, 1])
    assert torch.equal(pixels[:, 0], pixels[:, 2])
    assert pixels.amin() == 0
    assert pixels.amax() == 255
    assert dataset.class_names == tuple("0123456789")
    assert np.bincount(dataset.train.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert pixels.float().mean() / 255 == pytest.approx(dataset.mean[0], abs=1e-3)
    assert pixels.float().std() / 255 == pytest.approx(dataset.std[0], abs=1e-3)


def test_test_folder_or_val_folder(make_folder, tmp_path: Path) -> None:
    make_folder("root/train", count=4)
    make_folder("root/val", count=3)
    config = DataConfig("imagefolder", str(tmp_path / "root"))
    data = open_data(config)
    assert data.class_names == ("ant", "bee")
    assert data.size("train+search") == 8
    assert data.size("test") == 6
    assert data.image_size is None
    make_folder("root/test", count=5)
    assert open_data(config).size("test") == 10
    shutil.rmtree(tmp_path / "root/test")
    (tmp_path / "root/test").mkdir()  # as a benchmark's unlabelled test set has no class folders
    assert open_data(config).size("test") == 6


def test_class_folders_alone_are_split_by_seed(make_folder, tmp_path: Path) -> None:
    root = make_folder("root", count=10)
    data = open_data(DataConfig("imagefolder", str(root)))
    assert {split: data.size(split) for split in ("train", "search", "test")} == {"train": 14, "search": 2, "test": 4}
    (tmp_path / "other").mkdir()
    root.rename(tmp_path / "other/train")  # a train/ without val/ or test/ is split likewise
    assert open_data(DataConfig("imagefolder", str(tmp_path / "other"))).size("test") == 4


def test_a_class_may_be_called_train(make_folder) -> None:
    root = make_folder("root", ("bus", "train"))
    assert open_data(DataConfig("imagefolder", str(root))).class_names == ("bus", "train")


@pytest.mark.parametrize(
    ("train", "test"),
    [("Train", "Test"), ("TRAIN", "VAL"), ("train", "valid"), ("train", "Validation"), ("Train", "val")],
)
def test_splits_are_known_in_any_case(make_folder, tmp_path: Path, train: str, test: str) -> None:
    make_folder(f"root/{train}", count=4)
    make_folder(f"root/{test}", count=3)
    data = open_data(DataConfig("imagefolder", str(tmp_path / "root")))
    assert data.class_names == ("ant", "bee")
    assert data.size("train+search") == 8
    assert data.size("test") == 6


@pytest.mark.parametrize(("one", "other", "split"), [("Train", "train", "train"), ("val", "valid", "val")])
def test_two_names_of_a_split_are_refused(make_folder, tmp_path: Path, one: str, other: str, split: str) -> None:
    for name in ("train", one, other):
        make_folder(f"root/{name}")
    line = f"holds both {one}/ and {other}/, two names of the {split} split; keep one of them"
    assert line in folder_error(tmp_path / "root")


@pytest.mark.parametrize(
    "folders",
    [
        ("test/ant", "test/bee", "val/ant", "val/bee"),  # splits, and none to train on
        ("Train", "Test"),  # not sorted into classes
        ("train",),
        ("ant", "bee", "Valid/ant", "Valid/bee"),
        ("ant", "bee", "test"),  # a test split that is not sorted
    ],
)
def test_splits_without_one_to_train_on_are_refused(make_folder, folders: tuple[str, ...]) -> None:
    line = folder_error(make_folder("root", folders))
    for name in {folder.partition("/")[0] for folder in folders} - {"ant", "bee"}:
        assert f"{name}/" in line
    assert "no train/ with class folders; sort the images to train on into class folders in train/" in line


def test_hidden_folders_and_other_files_are_no_images(make_folder) -> None:
    root = make_folder("root", count=10)
    (root / ".thumbnails").mkdir()
    (root / "readme.txt").touch()
    (root / "ant" / "notes.txt").touch()
    (root / "ant" / "._00.png").touch()
    data = open_data(DataConfig("imagefolder", str(root)))
    assert data.class_names == ("ant", "bee")
    assert data.size("train+search") + data.size("test") == 20


def test_the_order_of_files_on_disk_does_not_matter(make_folder) -> None:
    one, other = make_folder("one"), make_folder("other", backwards=True)
    first, second = (open_data(DataConfig("imagefolder", str(root))) for root in (one, other))
    assert first.split_record() == second.split_record()
    for split in ("train", "search", "test"):
        for index in range(first.size(split)):
            assert torch.equal(first.image(split, index), second.image(split, index))


def test_bad_folders_get_one_clear_line(make_folder, tmp_path: Path) -> None:
    assert "give data.root=FOLDER" in folder_error(None)
    assert f"{tmp_path / 'nowhere'} does not exist" in folder_error(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    assert "is not a folder" in folder_error(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert "holds no class folders" in folder_error(tmp_path / "empty")
    assert "only one class, 'ant'" in folder_error(make_folder("single", ("ant",)))
    (make_folder("gap") / "cat").mkdir()
    assert f"class folder {tmp_path / 'gap/cat'} has no images" in folder_error(tmp_path / "gap")
    assert "class 'ant' has too few images" in folder_error(make_folder("few", count=1))
    assert "class 'ant' has too few images to hold out a search split" in folder_error(make_folder("two", count=2))
    make_folder("differ/train", ("ant", "bee"))
    make_folder("differ/val", ("ant", "cat"))
    assert folder_error(tmp_path / "differ").startswith(f"{tmp_path / 'differ/train'} has a class 'bee' that")
    make_folder("flat/train")
    (tmp_path / "flat/val").mkdir()
    assert f"{tmp_path / 'flat/val'} holds no class folders" in folder_error(tmp_path / "flat")
    assert "no dataset is named 'mnist'" in folder_error(tmp_path, "mnist")
    assert "data=imagefolder" in folder_error(tmp_path, "digits")


def test_imagenet(make_folder, tmp_path: Path) -> None:
    assert f"{tmp_path / 'train'} does not exist" in folder_error(tmp_path, "imagenet")
    wnids = ("n01440764", "n01443537")
    make_folder("Train", wnids, count=3)
    assert "Train/ is there: rename it train, or say data=imagefolder" in folder_error(tmp_path, "imagenet")
    (tmp_path / "Train").rename(tmp_path / "train")
    assert f"{tmp_path / 'val'} does not exist" in folder_error(tmp_path, "imagenet")
    make_folder("val", wnids, count=2)
    config = DataConfig("imagenet", str(tmp_path))
    assert open_data(config).class_names == wnids
    torch.save(({wnids[0]: ("tench", "Tinca tinca"), wnids[1]: ("goldfish",)}, []), tmp_path / "meta.bin")
    data = open_data(config)
    assert data.class_names == ("n01440764 tench", "n01443537 goldfish")
    assert data.image_size == (224, 224)
    assert data.size("train+search") == 6
    assert data.labels("test").tolist() == [0, 0, 1, 1]
    shutil.rmtree(tmp_path / "val" / wnids[1])
    assert f"has a class '{wnids[1]}'" in folder_error(tmp_path, "imagenet")


@pytest.mark.parametrize(("cifar", "key"), [(CIFAR10, "label_names"), (CIFAR100, "fine_label_names")])
def test_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cifar: type, key: str) -> None:
    name = cifar.__name__.lower()
    line = folder_error(tmp_path, name)
    assert str(tmp_path / cifar.base_folder) in line
    assert cifar.url in line

    def write(file: str, content: object) -> str:
        path = tmp_path / cifar.base_folder / file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pickle.dumps(content))
        return hashlib.md5(path.read_bytes()).hexdigest()

    pixels = np.random.default_rng(0).integers(0, 256, (20, 3, 32, 32), np.uint8)
    labels = "labels" if cifar is CIFAR10 else "fine_labels"
    part = {"data": pixels.reshape(20, -1), labels: [0, 1] * 10}
    monkeypatch.setattr(cifar, "train_list", [["train", write("train", part)]])
    monkeypatch.setattr(cifar, "test_list", [["test", write("test", {**part, "data": part["data"][::-1].copy()})]])
    meta = {"filename": "meta", "key": key, "md5": write("meta", {key: ["ant", "bee"]})}
    monkeypatch.setattr(cifar, "meta", meta)

    data = open_data(DataConfig(name, str(tmp_path)))
    assert data.class_names == ("ant", "bee")
    assert data.image_size == (32, 32)
    assert data.labels("train+search").tolist() == [0, 1] * 10
    np.testing.assert_array_equal(data.image("train+search", 3).numpy(), pixels[3])
    np.testing.assert_array_equal(data.image("test", 0).numpy(), pixels[19])
