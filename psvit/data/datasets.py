"""Datasets by name: this package's digits, folders, lists, ImageNet, CIFAR, Fashion-MNIST, caches, shards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.datasets import CIFAR10, CIFAR100, FashionMNIST
from torchvision.datasets.imagenet import load_meta_file
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from psvit.data.config import DataConfig
from psvit.data.csv_list import open_csv
from psvit.data.idx import read_idx
from psvit.data.images import ArrayImages, Dataset, FolderImages, Images
from psvit.data.listing import LeftOut, class_folders, list_images, report_left_out
from psvit.data.names import check_utf8, printable
from psvit.data.packed import open_packed
from psvit.data.splits import SPLIT_NAMES
from psvit.data.webdataset import open_webdataset

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts it."""


def open_dataset(config: DataConfig) -> Dataset:
    """The dataset that ``config`` names; images of a test split of its own are neither listed nor opened.

    Raises:
        ValueError: an unknown name, or a folder that is not given, missing, not what the dataset needs, or whose names
            are not UTF-8.
    """
    if config.name == "digits":
        if config.root is not None:
            raise ValueError("data=digits needs no data.root; to read your own images, say data=imagefolder")
        return _open_digits()
    if config.name not in _OPENERS:
        raise ValueError(f"no dataset is named {config.name!r}; choose one of digits, {', '.join(_OPENERS)}")
    if config.root is None and config.name == "fashion-mnist":
        return _open_fashion_mnist(FASHION_MNIST)
    if config.root is None:
        raise ValueError(f"data={config.name} needs to know where its images are; give data.root=FOLDER")
    check_utf8(config.root)
    root = Path(config.root).expanduser()
    if not (root.is_dir() or (config.name == "csv" and root.is_file())):
        raise ValueError(f"data.root={root} {'is not a folder' if root.exists() else 'does not exist'}; give a folder")
    return _OPENERS[config.name](root)


def _open_digits() -> Dataset:
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as arrays:
        images, labels = torch.from_numpy(arrays["images"]), arrays["labels"].astype(np.int64)
    small = (images[:, None].float() * (255 / 16)).round().to(torch.uint8)
    drawn = F.resize(small, [32, 32], interpolation=InterpolationMode.BICUBIC, antialias=True)
    return Dataset(
        class_names=tuple("0123456789"),
        train=ArrayImages(drawn.repeat(1, 3, 1, 1), labels),
        open_test=None,
        image_size=(32, 32),
        mean=(0.309, 0.309, 0.309),
        std=(0.349, 0.349, 0.349),
    )


def _list_images(folder: Path, classes: list[str], left_out: LeftOut) -> FolderImages:
    """The images below the class folders of ``folder``, ordered by class and path; says what is left out.

    Raises:
        ValueError: a class folder has no image, or a name is not UTF-8.
    """
    names, labels = list_images(folder, classes, left_out)
    report_left_out(folder, len(names), len(classes), left_out)
    for label, count in enumerate(np.bincount(labels, minlength=len(classes))):
        if count == 0:
            raise ValueError(
                f"class folder {printable(str(folder / classes[label]))} has no images; add some or remove it"
            )
    return FolderImages(folder, names, labels)


def _open_folder(root: Path) -> Dataset:
    """Class folders alone, or a split ``train`` of them with or without ``test`` or ``val``, in any case.

    ``val`` may also be called ``valid`` or ``validation``. ``test`` comes before it where both have class folders.
    """
    left_out = LeftOut()
    classes = class_folders(root, left_out, runs=True)
    splits = _split_folders(root, classes)
    train = root / splits["train"] if splits else root
    if splits:
        left_out = LeftOut()
        classes = class_folders(train, left_out)
    if not classes:
        lists = sorted(each.name for each in root.glob("*.csv"))
        listed = f", or if {printable(lists[0])} lists the images say data=csv" if lists else ""
        raise ValueError(f"{train} holds no class folders; give each class a folder of its own there{listed}")
    if len(classes) == 1:
        raise ValueError(f"{train} holds only one class, {classes[0]!r}; a classifier needs at least two")
    tests = [root / splits[split] for split in ("test", "val") if split in splits]
    open_test = None
    if tests:
        test = next((folder for folder in tests if class_folders(folder)), tests[-1])
        _check_same_classes(train, classes, test)

        def open_test() -> Images:
            return _list_test_images(test, classes)

    return Dataset(tuple(classes), _list_images(train, classes, left_out), open_test, photographs=True)


def _list_test_images(folder: Path, classes: list[str]) -> FolderImages:
    left_out = LeftOut()
    class_folders(folder, left_out)
    return _list_images(folder, classes, left_out)


def _split_folders(root: Path, names: list[str]) -> dict[str, str]:
    """Which of the folders in ``root`` is ``train``, ``test`` and ``val``; none of them where they are all classes.

    Raises:
        ValueError: a split has two folders, or there are splits without one to train on.
    """
    found: dict[str, list[str]] = {}
    for name in names:
        if name.lower() in SPLIT_NAMES:
            found.setdefault(SPLIT_NAMES[name.lower()], []).append(name)
    if not any(class_folders(root / name) for name in found.get("train", [])):
        alone = sum(map(len, found.values())) == len(names)
        if found and (alone or found.keys() != {"train"}):
            listed = ", ".join(f"{name}/" for folders in found.values() for name in folders)
            raise ValueError(
                f"{root} holds {listed} but no train/ with class folders; sort the images to train on into class "
                "folders in train/, or rename what is a class and not a split"
            )
        return {}  # a class may be called train
    for split, folders in found.items():
        if len(folders) > 1:
            raise ValueError(
                f"{root} holds both {folders[0]}/ and {folders[1]}/, two names of the {split} split; keep one of them"
            )
    return {split: folders[0] for split, folders in found.items()}


def _check_same_classes(train: Path, classes: list[str], test: Path) -> None:
    """Raise ValueError unless ``test`` has the class folders of ``train``; their images are not looked at."""
    there = class_folders(test)
    if not there:
        raise ValueError(f"{test} holds no class folders; sort its images into folders named like those of {train}")
    for name in sorted(set(classes) ^ set(there)):
        has, lacks = (train, test) if name in classes else (test, train)
        raise ValueError(f"{has} has a class {printable(name)!r} that {lacks} lacks; give both the same class folders")


def _open_imagenet(root: Path) -> Dataset:
    """``train/`` and ``val/`` of class folders; classes get readable names if torchvision's ``meta.bin`` is there."""
    for part in ("train", "val"):
        if not (root / part).is_dir():
            alike = next((name for name in class_folders(root) if SPLIT_NAMES.get(name.lower()) == part), None)
            renamed = f"; {alike}/ is there: rename it {part}, or say data=imagefolder" if alike else ""
            raise ValueError(
                f"{root / part} does not exist; data.root must hold ImageNet's train/ and val/ with class folders, "
                f"which torchvision.datasets.ImageNet(root, {part!r}) makes from the archives{renamed}"
            )
    train, val, left_out = root / "train", root / "val", LeftOut()
    classes = class_folders(train, left_out)
    if len(classes) < 2:
        raise ValueError(f"{train} holds {len(classes)} class folders; ImageNet has one per class")
    _check_same_classes(train, classes, val)
    titles = load_meta_file(root)[0] if (root / "meta.bin").is_file() else {}
    class_names = tuple(f"{wnid} {titles[wnid][0]}" if wnid in titles else wnid for wnid in classes)
    images = _list_images(train, classes, left_out)
    return Dataset(class_names, images, lambda: _list_test_images(val, classes), (224, 224), photographs=True)


def _open_cifar(root: Path, cifar: Any, mean: tuple[float, float, float], std: tuple[float, float, float]) -> Dataset:
    def part(train: bool) -> tuple[Images, list[str]]:
        try:
            data = cifar(root, train=train, download=False)
        except Exception as error:  # missing or damaged files
            raise ValueError(
                f"{root / cifar.base_folder} is missing or damaged; download {cifar.url} and unpack it in {root}"
            ) from error
        pixels = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
        return ArrayImages(pixels, np.array(data.targets, np.int64)), data.classes

    images, classes = part(train=True)
    return Dataset(tuple(classes), images, lambda: part(train=False)[0], (32, 32), mean, std)


def _open_fashion_mnist(root: Path) -> Dataset:
    """Four idx files, compressed or not, in the folder itself or where torchvision puts them below it.

    Raises:
        ValueError: a file is missing and cannot be downloaded, or is damaged.
    """
    folder = next((each for each in (root, root / "FashionMNIST" / "raw") if _idx_file(each, "train-images")), None)
    if folder is None:
        if not root.is_dir():
            raise ValueError(
                f"{root} does not exist; install Debian's package dataset-fashion-mnist, or give data.root=FOLDER to "
                "have the images downloaded there"
            )
        folder = root / "FashionMNIST" / "raw"
        try:
            FashionMNIST(root, download=True)
        except (OSError, RuntimeError) as error:  # no network, or files that are not what they should be
            raise ValueError(
                f"{root} does not hold Fashion-MNIST, and downloading it failed ({error}); install Debian's package "
                f"dataset-fashion-mnist, or put its four idx files in {root}"
            ) from error

    def part(name: str) -> ArrayImages:
        files = [_idx_file(folder, f"{name}-{what}") for what in ("images", "labels")]
        if None in files:
            raise ValueError(
                f"{folder} lacks {name}-images-idx3-ubyte or {name}-labels-idx1-ubyte; give all four files"
            )
        pixels, labels = (read_idx(file) for file in files if file)
        if (
            pixels.ndim != 3
            or not labels.size
            or labels.shape != pixels.shape[:1]
            or labels.max() >= len(FashionMNIST.classes)
        ):
            raise ValueError(f"{folder}: the images and labels of {name} do not fit each other; download them again")
        return ArrayImages(torch.from_numpy(pixels)[:, None].expand(-1, 3, -1, -1), labels.astype(np.int64))

    return Dataset(
        class_names=tuple(FashionMNIST.classes),
        train=part("train"),
        open_test=lambda: part("t10k"),
        image_size=(28, 28),
        mean=(0.286, 0.286, 0.286),
        std=(0.353, 0.353, 0.353),
    )


def _idx_file(folder: Path, name: str) -> Path | None:
    """``train-images-idx3-ubyte`` of a folder, or the same compressed."""
    stem = f"{name}-idx{3 if name.endswith('images') else 1}-ubyte"
    return next((folder / each for each in (stem, f"{stem}.gz") if (folder / each).is_file()), None)


_OPENERS: dict[str, Callable[[Path], Dataset]] = {
    "imagefolder": _open_folder,
    "imagenet": _open_imagenet,
    "packed": open_packed,
    "webdataset": open_webdataset,
    "csv": open_csv,
    "cifar10": lambda root: _open_cifar(root, CIFAR10, (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
    "cifar100": lambda root: _open_cifar(root, CIFAR100, (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
    "fashion-mnist": _open_fashion_mnist,
}
