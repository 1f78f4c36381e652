"""Datasets by name: the digits of this package, folders of pictures, ImageNet, CIFAR, packed caches and tar shards."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.datasets.folder import is_image_file, make_dataset
from torchvision.datasets.imagenet import load_meta_file
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from psvit.data.config import DataConfig
from psvit.data.images import ArrayImages, Dataset, FolderImages, Images
from psvit.data.packed import open_packed
from psvit.data.webdataset import open_webdataset


def open_dataset(config: DataConfig) -> Dataset:
    """The dataset that ``config`` names; images of a test split of its own are neither listed nor opened.

    Raises:
        ValueError: an unknown name, or a folder that is not given, missing, or not what the dataset needs.
    """
    if config.name == "digits":
        if config.root is not None:
            raise ValueError("data=digits needs no data.root; to read your own images, say data=imagefolder")
        return _open_digits()
    if config.name not in _OPENERS:
        raise ValueError(f"no dataset is named {config.name!r}; choose one of digits, {', '.join(_OPENERS)}")
    if config.root is None:
        raise ValueError(f"data={config.name} needs to know where its images are; give data.root=FOLDER")
    root = Path(config.root).expanduser()
    if not root.is_dir():
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


def _class_folders(folder: Path) -> list[str]:
    """Names of the folders in ``folder``, in order, hidden ones left out."""
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise ValueError(f"cannot list {folder}: {error.strerror}; make it readable") from error


def _list_images(folder: Path, classes: list[str]) -> FolderImages:
    """The images below the class folders of ``folder``, ordered by class and path.

    Raises:
        ValueError: a class folder has no image.
    """
    found = make_dataset(
        str(folder), {name: label for label, name in enumerate(classes)}, is_valid_file=_is_image, allow_empty=True
    )
    labels = np.array([label for _, label in found], np.int64)
    for label, count in enumerate(np.bincount(labels, minlength=len(classes))):
        if count == 0:
            raise ValueError(f"class folder {folder / classes[label]} has no images; add some or remove it")
    below = len(str(folder)) + 1
    return FolderImages(folder, [path[below:].replace(os.sep, "/") for path, _ in found], labels)


def _is_image(path: str) -> bool:
    name = os.path.basename(path)
    return not name.startswith(".") and bool(is_image_file(name))


def _open_folder(root: Path) -> Dataset:
    """``train/`` and ``test/`` or ``val/`` of class folders, ``train/`` alone, or class folders alone.

    ``test/`` comes before ``val/`` where both have class folders.
    """
    split_by_name = (root / "train").is_dir() and bool(_class_folders(root / "train"))
    train = root / "train" if split_by_name else root
    classes = _class_folders(train)
    if not classes:
        raise ValueError(f"{train} holds no class folders; give each class a folder of its own there")
    if len(classes) == 1:
        raise ValueError(f"{train} holds only one class, {classes[0]!r}; a classifier needs at least two")
    tests = [root / name for name in ("test", "val") if split_by_name and (root / name).is_dir()]
    open_test = None
    if tests:
        test = next((folder for folder in tests if _class_folders(folder)), tests[-1])
        _check_same_classes(train, classes, test)

        def open_test() -> Images:
            return _list_images(test, classes)

    return Dataset(tuple(classes), _list_images(train, classes), open_test, photographs=True)


def _check_same_classes(train: Path, classes: list[str], test: Path) -> None:
    """Raise ValueError unless ``test`` has the class folders of ``train``; their images are not looked at."""
    there = _class_folders(test)
    if not there:
        raise ValueError(f"{test} holds no class folders; sort its images into folders named like those of {train}")
    for name in sorted(set(classes) ^ set(there)):
        has, lacks = (train, test) if name in classes else (test, train)
        raise ValueError(f"{has} has a class {name!r} that {lacks} lacks; give both the same class folders")


def _open_imagenet(root: Path) -> Dataset:
    """``train/`` and ``val/`` of class folders; classes get readable names if torchvision's ``meta.bin`` is there."""
    for part in ("train", "val"):
        if not (root / part).is_dir():
            raise ValueError(
                f"{root / part} does not exist; data.root must hold ImageNet's train/ and val/ with class folders, "
                f"which torchvision.datasets.ImageNet(root, {part!r}) makes from the archives"
            )
    train, val = root / "train", root / "val"
    classes = _class_folders(train)
    if len(classes) < 2:
        raise ValueError(f"{train} holds {len(classes)} class folders; ImageNet has one per class")
    _check_same_classes(train, classes, val)
    titles = load_meta_file(root)[0] if (root / "meta.bin").is_file() else {}
    class_names = tuple(f"{wnid} {titles[wnid][0]}" if wnid in titles else wnid for wnid in classes)
    return Dataset(
        class_names, _list_images(train, classes), lambda: _list_images(val, classes), (224, 224), photographs=True
    )


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


_OPENERS: dict[str, Callable[[Path], Dataset]] = {
    "imagefolder": _open_folder,
    "imagenet": _open_imagenet,
    "packed": open_packed,
    "webdataset": open_webdataset,
    "cifar10": lambda root: _open_cifar(root, CIFAR10, (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
    "cifar100": lambda root: _open_cifar(root, CIFAR100, (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
}
