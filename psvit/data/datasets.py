"""The images of a dataset and their labels: the digits of the package, folders of pictures, ImageNet and CIFAR.

Packed caches are in ``store.py``, tar shards in ``webdataset.py``.

Every picture becomes a uint8 tensor (3, height, width) in RGB. Nothing is split, resized or varied here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.datasets.folder import is_image_file, make_dataset
from torchvision.datasets.imagenet import load_meta_file
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from psvit.data.config import DataConfig
from psvit.data.splits import Integers

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Given the height and width of a picture, the smallest at which it may be decoded.
Need = Callable[[int, int], tuple[int, int]]


class Images(Protocol):
    """Labelled images of one collection, numbered from 0 in an order that does not depend on the machine.

    Attributes:
        labels: (n,) int64.
        names: what identifies each image, whatever machine it lies on: its path below the folder, or its number.
        size: (height, width) where all images have the same, else None.
        aspects: (n,) width / height that each picture had before it was squeezed to ``size``; None where none was.
    """

    @property
    def labels(self) -> Integers: ...
    @property
    def names(self) -> Sequence[str]: ...
    @property
    def size(self) -> tuple[int, int] | None: ...
    @property
    def aspects(self) -> NDArray[np.float32] | None: ...

    def read(self, index: int, need: Need | None = None) -> Tensor:
        """The image as uint8 (3, height, width).

        Args:
            need: allows a JPEG to be decoded at 1/2, 1/4 or 1/8 of its size, in a fraction of the time, as long as it
                gets no smaller than this asks for. What else the collection holds is read as it is.

        Raises:
            ValueError: its file cannot be read; the message names it.
        """

    def encoded(self, index: int) -> bytes | None:
        """The bytes of an image that any JPEG decoder turns into the pixels of :meth:`read`, up to its rounding.

        None for what only :meth:`read` gets right, or knows what is wrong with: other formats, files that are turned
        by EXIF, cut off or missing, and JPEGs of other colours than YCbCr and grey.
        """


@dataclass(frozen=True)
class ArrayImages:
    """Images in memory: ``pixels`` is uint8 (n, 3, height, width)."""

    pixels: Tensor
    labels: Integers

    @property
    def names(self) -> Sequence[str]:
        return [str(index) for index in range(len(self.labels))]

    @property
    def size(self) -> tuple[int, int] | None:
        return self.pixels.shape[2], self.pixels.shape[3]

    @property
    def aspects(self) -> NDArray[np.float32] | None:
        return None

    def read(self, index: int, need: Need | None = None) -> Tensor:
        return self.pixels[index]

    def encoded(self, index: int) -> bytes | None:
        return None


@dataclass(frozen=True)
class FolderImages:
    """Image files, ``names`` below ``root``."""

    root: Path
    names: Sequence[str]
    labels: Integers
    size: tuple[int, int] | None = None
    aspects: NDArray[np.float32] | None = None

    def read(self, index: int, need: Need | None = None) -> Tensor:
        return read_image(self.root / self.names[index], need)

    def encoded(self, index: int) -> bytes | None:
        try:
            return plain_jpeg((self.root / self.names[index]).read_bytes())
        except OSError:
            return None


@dataclass(frozen=True)
class Dataset:
    """A dataset as it lies on the disk, before its search split is held out.

    Attributes:
        train: the images to learn from; all images where the dataset has no test split of its own.
        open_test: opens the dataset's own test split; None where it has none.
        image_size: (height, width) that it is usually trained at; None where that is the network's choice.
        mean, std: of its RGB values in 0..1.
        photographs: whether its images are pictures whose margin may be cut off to look at the middle.
    """

    class_names: tuple[str, ...]
    train: Images
    open_test: Callable[[], Images] | None
    image_size: tuple[int, int] | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    photographs: bool = False


def read_image(path: Path, need: Need | None = None) -> Tensor:
    """The picture of a file, as :func:`decode_image`.

    Raises:
        ValueError: the file is missing or broken.
    """
    return decode_image(path, str(path), need)


def decode_image(source: Path | BytesIO, name: str, need: Need | None = None) -> Tensor:
    """Any picture that Pillow reads, upright as its EXIF orientation says, as uint8 RGB (3, height, width).

    What is transparent lies on white. Greys of 16 bits (and of 32, as which some files of 16 bits are read) are
    scaled from 0..65535; floating-point greys from their own smallest to their largest value. Of an animation it is
    the first frame.

    Args:
        name: what the message of a fault calls the picture.
        need: as in :meth:`Images.read`.

    Raises:
        ValueError: the picture is missing or broken.
    """
    try:
        with Image.open(source) as picture:
            if need and isinstance(picture, JpegImageFile):
                _decode_smaller(picture, need)
            picture.load()
            upright: Image.Image = picture
            if _orientation(picture) != 1:  # else it would be copied
                with suppress(Exception):  # a picture whose EXIF block alone is broken is still a picture
                    upright = ImageOps.exif_transpose(picture)
            rgb = np.array(_to_rgb(upright))
    except (
        Exception
    ) as error:  # a broken file makes Pillow raise almost anything: OSError, SyntaxError, struct.error...
        reason = "it is no image" if isinstance(error, UnidentifiedImageError) else (str(error) or repr(error))
        raise ValueError(f"cannot read image {name} ({reason.splitlines()[0]}); repair or remove it") from error
    return torch.from_numpy(rgb).permute(2, 0, 1)


def _orientation(picture: Image.Image) -> int:
    """How EXIF says a picture lies: 1 is upright, 5 to 8 lie on their side."""
    with suppress(Exception):
        return int(picture.getexif().get(ExifTags.Base.Orientation, 1))
    return 1


def _decode_smaller(picture: JpegImageFile, need: Need) -> None:
    """Let libjpeg decode at the smallest of its scales that is no smaller than ``need`` says of the upright picture."""
    width, height = picture.size
    if _orientation(picture) in (5, 6, 7, 8):
        columns, rows = need(width, height)
    else:
        rows, columns = need(height, width)
    if 0 < rows <= height and 0 < columns <= width:
        picture.draft(None, (columns, rows))  # None: in its own mode


def plain_jpeg(content: bytes) -> bytes | None:
    """``content``, if it is a whole JPEG that every decoder understands alike, as :meth:`Images.encoded` says."""
    if content.rfind(b"\xff\xd9") <= content.rfind(b"\xff\xda"):  # end of image, start of scan: it is cut off
        return None
    with suppress(Exception), Image.open(BytesIO(content), formats=["JPEG"]) as picture:
        assert isinstance(picture, JpegImageFile)
        ids = bytes(component[0] for component in picture.layer)
        said_to_be_rgb = picture.info.get("adobe_transform", 1) != 1 or ids == b"RGB"
        if picture.mode in ("RGB", "L") and not said_to_be_rgb and _orientation(picture) == 1:
            return content
    return None


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "F":
        values = np.asarray(picture)
        span = float(np.ptp(values)) or 1.0
        picture = Image.fromarray(((values - values.min()) * (255 / span)).astype(np.uint8))
    elif picture.mode.startswith("I"):  # I, I;16, I;16B: Pillow would clip these to 255 instead of scaling them
        picture = Image.fromarray((np.asarray(picture).clip(0, 65535) // 257).astype(np.uint8))
    elif picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


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
        raise ValueError(f"data.root={root} {'is no folder' if root.exists() else 'does not exist'}; give a folder")
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
        raise ValueError(f"cannot list {folder}: {error.strerror}; make it a folder that may be read") from error


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
            raise ValueError(f"class folder {folder / classes[label]} has no image; put images in it or remove it")
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
        raise ValueError(f"{train} holds no class folders; put the images of each class in a folder of its own there")
    if len(classes) == 1:
        raise ValueError(f"{train} holds one class only, {classes[0]!r}; there is nothing to tell apart")
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
        raise ValueError(f"{test} holds no class folders; sort its images into folders named as those of {train}")
    for name in sorted(set(classes) ^ set(there)):
        has, lacks = (train, test) if name in classes else (test, train)
        raise ValueError(f"{has} has a class {name!r} that {lacks} has not; give both the same class folders")


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
        raise ValueError(f"{train} holds {len(classes)} class folders; ImageNet has one for each of its classes")
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


def _open_packed(root: Path) -> Dataset:
    from psvit.data.store import open_packed  # it imports from here

    return open_packed(root)


def _open_webdataset(root: Path) -> Dataset:
    from psvit.data.webdataset import open_webdataset  # likewise

    return open_webdataset(root)


_OPENERS: dict[str, Callable[[Path], Dataset]] = {
    "imagefolder": _open_folder,
    "imagenet": _open_imagenet,
    "packed": _open_packed,
    "webdataset": _open_webdataset,
    "cifar10": lambda root: _open_cifar(root, CIFAR10, (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
    "cifar100": lambda root: _open_cifar(root, CIFAR100, (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
}
