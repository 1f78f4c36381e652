import hashlib
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.io import ImageReadMode, decode_jpeg

import psvit.data
from psvit.data.config import DataConfig
from psvit.data.data import open_data
from psvit.data.datasets import FolderImages, open_dataset, read_image


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
    assert "is no folder" in folder_error(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert "holds no class folders" in folder_error(tmp_path / "empty")
    assert "one class only, 'ant'" in folder_error(make_folder("single", ("ant",)))
    (make_folder("gap") / "cat").mkdir()
    assert f"class folder {tmp_path / 'gap/cat'} has no image" in folder_error(tmp_path / "gap")
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
    make_folder("train", wnids, count=3)
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
        "5.jpg": lambda path: picture.save(path, keep_rgb=True),
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
