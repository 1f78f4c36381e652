"""Image files to pixels: any picture of ``formats.py`` becomes a uint8 tensor (3, height, width) in RGB, upright."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor

from psvit.data.formats import open_image
from psvit.data.names import printable

Need = Callable[[int, int], tuple[int, int]]
"""Given the height and width of a picture, the smallest at which it may be decoded."""


def read_image(path: Path, need: Need | None = None) -> Tensor:
    """The picture of a file, as :func:`decode_image`.

    Raises:
        ValueError: the file is missing or broken, or not one of ``formats.py``.
    """
    return decode_image(path, str(path), need)


def decode_image(source: Path | BytesIO, name: str, need: Need | None = None) -> Tensor:
    """A picture of ``formats.FORMATS``, upright as its EXIF orientation says, as uint8 RGB (3, height, width).

    What is transparent lies on white. Greys of 16 bits (and of 32, as which some files of 16 bits are read) are
    scaled from 0..65535; floating-point greys from their smallest to their largest finite value, and what is
    not finite becomes 0. Of an animation it is the first frame.

    Args:
        name: what the message of a fault calls the picture.
        need: as in :meth:`Images.read`.

    Raises:
        ValueError: the picture is missing or broken, of another format, or has more than ``formats.MAX_PIXELS``.
    """
    try:
        with open_image(source) as picture:
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
        reason = (str(error) or repr(error)).splitlines()[0]
        raise ValueError(f"cannot read image {printable(name)} ({printable(reason)}); repair or remove it") from error
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
    with suppress(Exception), open_image(BytesIO(content), ("JPEG",)) as picture:
        assert isinstance(picture, JpegImageFile)
        ids = bytes(component[0] for component in picture.layer)
        said_to_be_rgb = picture.info.get("adobe_transform", 1) != 1 or ids == b"RGB"
        if picture.mode in ("RGB", "L") and not said_to_be_rgb and _orientation(picture) == 1:
            return content
    return None


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "F":
        picture = Image.fromarray(_scale_greys(np.asarray(picture)))
    elif picture.mode.startswith("I"):  # I, I;16, I;16B: Pillow would clip these to 255 instead of scaling them
        picture = Image.fromarray((np.asarray(picture).clip(0, 65535) // 257).astype(np.uint8))
    elif picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _scale_greys(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Floating-point greys to 0..255 by their finite values, of any shape; what is not finite becomes 0."""
    finite = np.isfinite(values)
    if not finite.all():
        values = np.where(finite, values, values[finite].min() if finite.any() else 0)
    if np.abs(values).max() > 1e38:  # their difference would overflow
        values = values.astype(np.float64)
    span = float(np.ptp(values)) or 1.0
    return ((values - values.min()) * (255 / span)).astype(np.uint8)
