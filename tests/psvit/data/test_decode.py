"""Any picture becomes upright RGB, JPEGs at a reduced scale where that will do; a broken file is named."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from psvit.data.decode import read_image
from psvit.data.formats import SUFFIXES


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    upright = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10
    # how a camera that stores this orientation has laid the rows and columns of the upright picture
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png").permute(1, 2, 0).numpy(), upright)


def test_a_broken_exif_block_does_not_make_a_picture_unreadable(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), "red").save(tmp_path / "x.jpg", exif=b"Exif\0\0" + b"nonsense")
    assert read_image(tmp_path / "x.jpg").shape == (3, 4, 4)


GREY = np.array([[0, 64], [128, 255]], np.uint8)


@pytest.mark.parametrize(
    ("picture", "suffix"),
    [
        (Image.fromarray(GREY), "png"),
        (Image.fromarray(GREY).convert("RGB"), "png"),
        (Image.fromarray(GREY).convert("P"), "png"),
        (Image.fromarray(GREY).convert("RGBA"), "png"),
        (Image.fromarray(GREY).convert("LA"), "png"),
        (Image.fromarray(GREY).convert("RGB").convert("CMYK"), "tif"),
        (Image.fromarray(GREY.astype(np.uint16) * 256 + 30), "png"),
        (Image.fromarray((GREY.astype(np.uint16) * 256 + 30).astype(">u2")), "tif"),
        (Image.fromarray(GREY.astype(np.int32) * 256 + 30), "tif"),
        (Image.fromarray(GREY.astype(np.float32) / 255 - 3), "tif"),
    ],
    ids=["L", "RGB", "P", "RGBA", "LA", "CMYK", "I;16", "I;16B", "I", "F"],
)
def test_any_mode_becomes_rgb(tmp_path: Path, picture: Image.Image, suffix: str) -> None:
    picture.save(tmp_path / f"x.{suffix}")
    image = read_image(tmp_path / f"x.{suffix}")
    assert image.dtype == torch.uint8
    for channel in image:
        np.testing.assert_allclose(channel.numpy().astype(int), GREY, atol=1)


def test_one_bit_becomes_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(GREY > 100).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png")[1].tolist() == [[0, 0], [255, 255]]


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_what_is_transparent_lies_on_white(tmp_path: Path, mode: str) -> None:
    picture = Image.new("RGBA", (2, 1), (10, 20, 30, 255))
    picture.putpixel((1, 0), (10, 20, 30, 0))
    picture.convert(mode).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png")[:, 0, 1].tolist() == [255, 255, 255]
    assert read_image(tmp_path / "x.png")[:, 0, 0].tolist() == [10, 20, 30]


def test_broken_images_are_named(tmp_path: Path) -> None:
    Image.effect_noise((64, 64), 50).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    corrupt = {"cut.png": whole[: len(whole) // 2], "text.jpg": b"no picture", "empty.png": b""}
    for name, content in corrupt.items():
        (tmp_path / name).write_bytes(content)
    for name in [*corrupt, "missing.png"]:
        with pytest.raises(ValueError, match=rf"cannot read image .*{name} \(.+\); repair or remove it") as caught:
            read_image(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", sorted(SUFFIXES - {".pgm", ".pbm"}))
def test_every_listed_ending_is_read(tmp_path: Path, suffix: str) -> None:
    picture = Image.new("RGB", (40, 30), (200, 100, 50))
    # Pillow does not know .jpe and .j2k of all versions by their endings
    named = {".jpe": "JPEG", ".j2k": "JPEG2000"}.get(suffix)
    picture.save(tmp_path / f"x{suffix}", format=named)
    image = read_image(tmp_path / f"x{suffix}")
    assert image.shape == (3, 30, 40)
    assert (image.float().mean((1, 2)) - torch.tensor([200.0, 100.0, 50.0])).abs().amax() < 12


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    first.save(tmp_path / "x.gif", save_all=True, append_images=[second])
    assert read_image(tmp_path / "x.gif")[:, 0, 0].tolist() == [255, 0, 0]


def test_no_program_is_started_for_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n")
    Image.init()  # EPS is among the formats that Pillow knows
    started = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *arguments: started.append(arguments))
    with pytest.raises(ValueError, match=r"x\.jpg \(it is not an image in one of the formats JPEG, PNG, .*\)"):
        read_image(tmp_path / "x.jpg")
    assert not started


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"x\.png \(it is not a regular file\)"):
        read_image(tmp_path / "x.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # pytest takes away the filter of formats.py
@pytest.mark.parametrize(("height", "pixels"), [(9000, "90,000,000"), (20000, "")])
def test_an_image_of_too_many_pixels_is_named(tmp_path: Path, height: int, pixels: str) -> None:
    Image.new("1", (10000, height)).save(tmp_path / "x.png")
    with pytest.raises(ValueError, match=rf"x\.png \(it has .*{pixels}.*89,478,485.*\)"):
        read_image(tmp_path / "x.png")


def test_greys_that_are_not_finite_leave_the_others(tmp_path: Path) -> None:
    values = np.array([[np.nan, np.inf, -np.inf], [1, 2, 3]], np.float32)
    Image.fromarray(values).save(tmp_path / "x.tif")
    assert read_image(tmp_path / "x.tif")[0].tolist() == [[0, 0, 0], [0, 127, 255]]
    Image.fromarray(np.full((2, 2), np.nan, np.float32)).save(tmp_path / "x.tif")
    assert read_image(tmp_path / "x.tif")[0].tolist() == [[0, 0], [0, 0]]
    Image.fromarray(np.array([[-3e38, 0, 3e38]], np.float32)).save(tmp_path / "x.tif")
    assert read_image(tmp_path / "x.tif")[0].tolist() == [[0, 127, 255]]


def photograph(height: int, width: int) -> Image.Image:
    """Something smooth, as what can be seen in a picture at a smaller scale is."""
    coarse = np.random.default_rng(height).integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def orient(picture: Image.Image, orientation: int) -> Image.Image:
    """How a camera stores the upright picture with this EXIF orientation."""
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # Image.Transpose
    return picture if undo is None else picture.transpose(Image.Transpose(undo))


@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 7, 8])
@pytest.mark.parametrize(("rows", "columns", "scale"), [(40, 30, 4), (50, 38, 2), (101, 10, 1), (25, 18, 8), (1, 1, 8)])
def test_jpegs_are_decoded_at_a_reduced_scale(
    tmp_path: Path, orientation: int, rows: int, columns: int, scale: int
) -> None:
    upright, exif = photograph(201, 151), Image.Exif()
    exif[0x0112] = orientation
    orient(upright, orientation).save(tmp_path / "x.jpg", quality=95, exif=exif)
    asked = []

    def need(height: int, width: int) -> tuple[int, int]:
        asked.append((height, width))
        return rows, columns

    whole, reduced = read_image(tmp_path / "x.jpg"), read_image(tmp_path / "x.jpg", need)
    assert whole.shape == (3, 201, 151)
    assert np.abs(whole.permute(1, 2, 0).numpy().astype(int) - np.asarray(upright)).mean() < 3
    assert asked == [(201, 151)]
    height, width = reduced.shape[1:]
    assert (height, width) == (-(-201 // scale), -(-151 // scale))
    assert height >= rows
    assert width >= columns
    expected = Image.fromarray(whole.permute(1, 2, 0).numpy()).resize((width, height), Image.Resampling.BOX)
    # libjpeg's blocks lie a little aside of those of BOX; a picture that is turned the wrong way is 60 off
    assert np.abs(reduced.permute(1, 2, 0).numpy().astype(int) - np.asarray(expected)).mean() < 6


def test_what_is_needed_larger_is_decoded_whole(tmp_path: Path) -> None:
    photograph(40, 60).save(tmp_path / "x.jpg")
    assert read_image(tmp_path / "x.jpg", lambda height, width: (2 * height, 2 * width)).shape == (3, 40, 60)


@pytest.mark.parametrize(("mode", "options"), [("L", {}), ("CMYK", {}), ("RGB", {"progressive": True})])
def test_reduced_scale_of_other_jpegs(tmp_path: Path, mode: str, options: dict) -> None:
    photograph(160, 240).convert(mode).save(tmp_path / "x.jpg", quality=95, **options)
    whole = read_image(tmp_path / "x.jpg").float()
    reduced = read_image(tmp_path / "x.jpg", lambda height, width: (40, 60)).float()
    assert reduced.shape == (3, 40, 60)
    means = torch.nn.functional.avg_pool2d(whole, 4)
    torch.testing.assert_close(reduced, means, atol=16, rtol=0)
    assert (reduced - means).abs().mean() < 3


def test_only_jpegs_are_reduced(tmp_path: Path) -> None:
    photograph(80, 80).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png", lambda height, width: (10, 10)).shape == (3, 80, 80)
    photograph(80, 96).save(tmp_path / "x.mpo", format="MPO", save_all=True, append_images=[photograph(80, 96)])
    assert read_image(tmp_path / "x.mpo", lambda height, width: (10, 10)).shape == (3, 10, 12)  # as phones write JPEGs
