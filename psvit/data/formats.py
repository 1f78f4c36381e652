"""Which image files are read: one list of Pillow's formats and one limit on their size, wherever one is opened."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError, features

MAX_PIXELS = 89_478_485
"""The largest image that is opened, in pixels: a quarter of a GiB in RGB, from where Pillow warns by default."""

# EPS would start Ghostscript, an outside program, on whatever the file holds: only what is listed here is opened.
# An MPO, as phones write, is opened as the JPEG that it begins with.
_ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "PPM": (".ppm", ".pgm", ".pbm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "JPEG2000": (".jp2", ".j2k"),
    "AVIF": (".avif",),
}
_NEEDS = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}  # parts that Pillow may be built without


def _is_built(format_name: str) -> bool:
    part = _NEEDS.get(format_name)
    return part is None or (part in (*features.modules, *features.codecs) and bool(features.check(part)))


FORMATS = tuple(filter(_is_built, _ENDINGS))
"""Pillow's names of the formats that are read."""
SUFFIXES = frozenset(ending for name in FORMATS for ending in _ENDINGS[name])
"""Endings of files that are taken for images, in lower case."""

# open_image refuses what Pillow would only warn of. catch_warnings around each image would do, too, but it is not safe
# in threads, and makes Python show again all warnings that it shows once.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def open_image(source: Path | BytesIO, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """Open an image as ``PIL.Image.open`` does, without decoding it.

    Raises:
        ValueError: it is of another format, has more than ``MAX_PIXELS`` pixels, or is not a regular file.
        OSError: the file cannot be read. Pillow may raise other errors on broken files.
    """
    if isinstance(source, Path) and not source.is_file() and source.exists():
        raise ValueError("it is not a regular file")  # to open a FIFO would wait forever
    try:
        image = Image.open(source, formats=formats)
    except UnidentifiedImageError as error:
        raise ValueError(f"it is not an image in one of the formats {', '.join(formats)}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"it has more than the {MAX_PIXELS:,} pixels that an image may have") from error
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        image.close()
        raise ValueError(f"it has {pixels:,} pixels, and an image may have {MAX_PIXELS:,}")
    return image
