"""Collections of images: what they give undecoded, and what they have in memory."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

from psvit.data.config import DataConfig
from psvit.data.datasets import open_dataset
from psvit.data.images import FolderImages


def photograph(height: int, width: int) -> Image.Image:
    """Something smooth, as what can be seen in a picture at a smaller scale is."""
    coarse = np.random.default_rng(height).integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def labelled_rgb(jpeg: bytes) -> bytes:
    """A JPEG with Adobe's marker, in place of JFIF's, that its components are red, green and blue."""
    length = int.from_bytes(jpeg[4:6])
    assert jpeg[2:4] == b"\xff\xe0"
    return jpeg[:2] + b"\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0\0" + jpeg[4 + length :]


@pytest.mark.filterwarnings("ignore:The image decoding")  # the decoder moves from torchvision to another library
def test_encoded_is_what_every_decoder_reads_alike(tmp_path: Path) -> None:
    picture, exif = photograph(40, 60), Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "a").mkdir()
    save = {
        "0.jpg": lambda path: picture.save(path),
        "1.jpg": lambda path: picture.convert("L").save(path),
        "2.jpg": lambda path: picture.save(path, progressive=True),
        "3.jpg": lambda path: picture.save(path, exif=exif),
        "4.jpg": lambda path: picture.convert("CMYK").save(path),
        "5.jpg": lambda path: path.write_bytes(labelled_rgb((tmp_path / "a/0.jpg").read_bytes())),
        "6.jpg": lambda path: path.write_bytes((tmp_path / "a/0.jpg").read_bytes()[:-300]),
        "7.jpg": lambda path: picture.save(path, format="PNG"),
        "8.jpg": lambda path: path.write_bytes(b"\xff\xd8 no picture \xff\xda\xff\xd9"),
        "9.jpg": lambda path: None,
    }
    for name, write in save.items():
        write(tmp_path / "a" / name)
    images = FolderImages(tmp_path, [f"a/{name}" for name in save], np.zeros(len(save), np.int64))
    given = [images.encoded(index) for index in range(len(save))]
    assert [content is not None for content in given] == [True] * 3 + [False] * 7
    for index in range(3):
        decoded = decode_jpeg(torch.frombuffer(bytearray(given[index] or b""), dtype=torch.uint8), ImageReadMode.RGB)
        torch.testing.assert_close(decoded.int(), images.read(index).int(), atol=2, rtol=0)
    assert images.aspects is None


def test_images_in_memory_are_as_they_are() -> None:
    images = open_dataset(DataConfig()).train
    assert images.read(3, lambda height, width: (4, 4)).shape == (3, 32, 32)
    assert images.encoded(3) is None
    assert images.aspects is None
