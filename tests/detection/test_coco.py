import json
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from psvit.detection.coco import CocoImages, flip_horizontal, open_coco, open_split, overview
from psvit.detection.data_config import CocoConfig
from psvit.detection.listing import has_area

HEIGHT, WIDTH = 6, 8
SQUARE = [[2, 1, 5, 1, 5, 4, 2, 4]]  # columns 2 to 4 of rows 1 to 3


def annotation(id: int, image: int = 1, category: int = 3, **more) -> dict:
    values = {"bbox": [2, 1, 3, 3], "segmentation": SQUARE, "area": 9, "iscrowd": 0}
    return {"id": id, "image_id": image, "category_id": category, **values, **more}


class Made:
    """A data set by hand: two images of 6 x 8 pixels, two classes, and the annotations that a test gives."""

    def __init__(self, root: Path) -> None:
        self.root, self.file = root, root / "listing.json"
        self.listing = {
            "images": [{"id": id, "file_name": f"{id}.png", "height": HEIGHT, "width": WIDTH} for id in (1, 2)],
            "categories": [{"id": 9, "name": "dog"}, {"id": 3, "name": "cat"}],
            "annotations": [annotation(1)],
        }
        rng = np.random.default_rng(0)
        self.pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        for id in (1, 2):
            self.save(Image.fromarray(self.pixels), f"{id}.png")

    def save(self, picture: Image.Image, name: str, **more) -> None:
        picture.save(self.root / name, **more)

    def open(self, *annotations: dict, corrupt: str = "fail") -> CocoImages:
        if annotations:
            self.listing["annotations"] = list(annotations)
        self.file.write_text(json.dumps(self.listing))
        return open_coco(self.root, self.file, corrupt)

    def refused(self, *annotations: dict) -> str:
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the caller compares the message
            self.open(*annotations)
        assert "\n" not in str(caught.value)
        assert ";" in str(caught.value)  # what is wrong; what to do
        return str(caught.value)


@pytest.fixture
def made(tmp_path) -> Made:
    return Made(tmp_path)


def test_an_image_and_its_objects(made):
    images = made.open(annotation(1), annotation(2, category=9, bbox=[0, 0, 2.5, 6], segmentation=[[0, 0, 2, 0, 2, 6]]))
    image, target = images[0]
    assert image.dtype == torch.float32
    np.testing.assert_array_equal((image * 255).round().permute(1, 2, 0), made.pixels)
    assert target["boxes"].tolist() == [[2, 1, 5, 4], [0, 0, 2.5, 6]]
    assert target["boxes"].dtype == torch.float32
    assert images.class_names == ("cat", "dog")
    assert images.category_ids == (3, 9)
    assert target["labels"].tolist() == [1, 2]
    assert target["labels"].dtype == torch.int64
    assert target["masks"].dtype == torch.uint8
    assert target["masks"].shape == (2, HEIGHT, WIDTH)
    assert target["masks"][0].sum() == target["masks"][0, 1:4, 2:5].sum() == 9
    assert target["image_id"] == 1
    assert images.size(0) == (HEIGHT, WIDTH)


def test_three_ways_to_write_a_mask_are_one(made):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[1:4, 2:5] = 1
    counts = [13, 3, 3, 3, 3, 3, 20]  # down the columns
    assert sum(counts) == mask.size
    from pycocotools import mask as masks

    compressed = masks.encode(np.asfortranarray(mask))["counts"].decode()
    ways = [SQUARE, *({"size": [HEIGHT, WIDTH], "counts": each} for each in (counts, compressed))]
    images = made.open(*(annotation(number, segmentation=way) for number, way in enumerate(ways)))
    for read in images[0][1]["masks"]:
        np.testing.assert_array_equal(read, mask)


def test_an_image_without_objects_is_kept(made):
    images = made.open()
    image, target = images[1]
    assert len(images) == 2
    assert target["boxes"].shape == (0, 4)
    assert target["masks"].shape == (0, HEIGHT, WIDTH)
    assert target["labels"].shape == (0,)
    assert target["labels"].dtype == torch.int64
    assert image.shape == (3, HEIGHT, WIDTH)
    assert images.notes == ()


def test_crowds_and_boxes_without_area_are_not_learned(made):
    images = made.open(
        annotation(1, iscrowd=1),
        annotation(2, bbox=[2, 1, 0, 3]),
        annotation(3, bbox=[2, 1, 3, 0.9]),
        annotation(4, bbox=[WIDTH - 0.5, 1, 3, 3]),  # half a pixel of it is in the image
        annotation(5, segmentation=[[2, 1, 5, 1]]),  # no triangle; pycocotools would read a box
        annotation(6, bbox=[-2, -1, 5, 4]),
        annotation(7, bbox=[2, 1, 1, 1]),
    )
    assert images[0][1]["boxes"].tolist() == [[0, 0, 3, 3], [2, 1, 3, 2]]
    assert images.notes == (f"{made.file}: objects without area, left out of training: 4",)


def test_what_is_read_is_told(made, tmp_path):
    """Objects that are learned from: no crowd, none without area; a class that can only be got wrong is named."""
    train = made.open(
        annotation(1),
        annotation(2),
        annotation(3, category=9, iscrowd=1, segmentation={"size": [HEIGHT, WIDTH], "counts": [0, 9, 39]}),
    )
    assert train.count_objects() == ({"cat": 2, "dog": 0}, 1)
    (tmp_path / "val").mkdir()
    val = Made(tmp_path / "val")
    assert list(overview(train, val.open(annotation(1, category=9)))) == [
        "2 classes; 2 images with 2 objects to learn from, 2 with 1 to validate on",
        "objects per class: 0 (dog) to 2 (cat)",
        "    nothing to learn from, but to validate on, of: dog",
        "    images without an object: 1 of 2",
    ]


def test_counted_objects_are_those_that_are_read(shapes_root):
    images = open_split(CocoConfig(root=str(shapes_root)), "train")
    labels = torch.cat([target["labels"] for _, target in images])
    objects, empty = images.count_objects()
    assert list(objects.values()) == torch.bincount(labels, minlength=len(objects) + 1)[1:].tolist()
    assert empty == sum(not len(target["labels"]) for _, target in images)


def test_parts_of_polygons_that_are_no_triangle_are_dropped(made):
    images = made.open(annotation(1, segmentation=[[0, 0, 8, 6], *SQUARE, [1, 2, 3, 4, 5, 6, 7]]))
    assert images[0][1]["masks"].sum() == 9


def test_loader_workers_read_what_this_process_reads(shapes_root):
    images = open_split(CocoConfig(str(shapes_root)), "train")
    loader = DataLoader(images, batch_size=None, num_workers=2)
    for again in (loader, pickle.loads(pickle.dumps(images))):
        for (image, target), (same, alike) in zip(images, again, strict=True):
            assert torch.equal(image, same)
            assert target.keys() == alike.keys()
            for key in ("boxes", "labels", "masks"):
                assert torch.equal(target[key], alike[key])
            assert target["image_id"] == alike["image_id"]


def test_drawn_shapes_are_read_as_torchvision_wants_them(shapes_root):
    from torchvision.ops import masks_to_boxes

    for split, count in (("train", 12), ("val", 6)):
        images = open_split(CocoConfig(str(shapes_root)), split)
        assert len(images) == count
        for image, target in images:
            assert 0 <= image.min() <= image.max() <= 1
            found = len(target["labels"])
            assert len(target["boxes"]) == len(target["masks"]) == found
            if found:  # torchvision's are from the first to the last pixel, ours to its far side
                there = masks_to_boxes(target["masks"]) + torch.tensor([0, 0, 1, 1])
                assert torch.equal(there, target["boxes"])
    assert {
        int(label) for _, target in open_split(CocoConfig(str(shapes_root)), "train") for label in target["labels"]
    } == {1, 2, 3, 4}


def test_flipping_is_torchvisions(made):
    from torchvision.transforms.v2 import functional as F
    from torchvision.tv_tensors import BoundingBoxes, Mask

    image, target = made.open(annotation(1), annotation(2, bbox=[0, 0, 2.5, 6]))[0]
    flipped, there = flip_horizontal(image, target)
    boxes = BoundingBoxes(target["boxes"], format="XYXY", canvas_size=(HEIGHT, WIDTH))
    assert torch.equal(flipped, F.horizontal_flip(image))
    assert torch.equal(there["boxes"], F.horizontal_flip(boxes).as_subclass(torch.Tensor))
    assert torch.equal(there["masks"], F.horizontal_flip(Mask(target["masks"])).as_subclass(torch.Tensor))
    assert there["labels"].tolist() == target["labels"].tolist()
    again, back = flip_horizontal(flipped, there)
    assert torch.equal(again, image)
    assert torch.equal(back["boxes"], target["boxes"])


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "RGBA", "LA"])
def test_any_colours_become_rgb(made, mode):
    grey = Image.fromarray(made.pixels).convert("L")
    if mode == "1":
        grey = grey.point(lambda value: 255 * (value > 99))
    rgb = Image.merge("RGB", [grey] * 3)
    made.listing["images"][0]["file_name"] = name = "1.tif" if mode == "CMYK" else "1.png"
    made.save((rgb if mode == "CMYK" else grey).convert(mode), name)
    image, _ = made.open()[0]
    np.testing.assert_allclose((image * 255).permute(1, 2, 0), np.array(rgb), atol=1e-3)


@pytest.mark.parametrize(("orientation", "suffix"), [(2, "png"), (3, "jpg"), (6, "jpg"), (6, "png")])
def test_exif_orientation_is_not_applied(made, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    made.listing["images"][0]["file_name"] = f"turned.{suffix}"
    stored = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    stored[1:4, 2:5] = 255
    made.save(Image.fromarray(stored), f"turned.{suffix}", exif=exif, quality=95)
    image, target = made.open()[0]
    assert (image[0] > 0.5).tolist() == target["masks"][0].bool().tolist()


def test_missing_images_are_counted_at_once(made, capsys):
    made.listing["images"] += [
        {"id": 3, "file_name": "else/where.png", "height": HEIGHT, "width": WIDTH},
        {"id": 4, "file_name": "0.png", "height": HEIGHT, "width": WIDTH},
    ]
    message = made.refused(annotation(1), annotation(2, image=4))
    assert "2 of 4 images" in message
    assert f"below {made.root}, the first is else/where.png; add them, or" in message
    assert "data.corrupt=skip" in message
    images = made.open(corrupt="skip")
    assert images.image_ids == (1, 2)
    assert [target["image_id"] for _, target in images] == [1, 2]
    assert images.notes == (f"{made.file}: missing images, skipped: 2 of 4",)

    config = CocoConfig(str(made.root), ".", "listing.json", corrupt="skip")
    open_split(config, "train")
    assert capsys.readouterr().err == f"{made.root}/listing.json: missing images, skipped: 2 of 4\n"


def test_other_processes_keep_silent(made, capsys, monkeypatch):
    made.open(annotation(1, bbox=[0, 0, 0, 0]))
    monkeypatch.setenv("RANK", "1")
    open_split(CocoConfig(str(made.root), ".", "listing.json"), "train")
    assert capsys.readouterr() == ("", "")


def test_no_image_at_all_is_no_data_set(made):
    for id in (1, 2):
        (made.root / f"{id}.png").unlink()
    with pytest.raises(ValueError, match=r"none of the images .* is below .*; is it their folder"):
        made.open(corrupt="skip")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read .*listing.json: No such file or directory; data.root must hold COCO's annotations/"),
        ("", "is not JSON"),
        ('{"images": [', "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        ("[]", "is not in COCO's format"),
        ("[" * 100_000, "is not JSON"),
        ("{}", "has no list of 'images'"),
        ('{"images": 3}', "has no list of 'images'"),
        ('{"images": [{"id": 1}], "annotations": []}', "has no list of 'categories'"),
        ('{"images": [{"id": 1}], "categories": []}', "has no list of 'annotations'"),
        ('{"images": [], "annotations": [], "categories": []}', "lists no images"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', "lists no categories"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1}]}', "image 1 lacks its file_name"),
        ('{"images": [{"x": 1}], "annotations": [], "categories": [{"id": 1}]}', r"images\[0\] has no 'id'"),
        (
            '{"images": ["x"], "annotations": [], "categories": [{"id": 1}]}',
            r"images\[0\] is 'x'; it must be",
        ),
    ],
)
def test_what_is_no_listing_is_refused(made, content, message):
    if content is not None:
        made.file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as caught:
        open_coco(made.root, made.file)
    assert "listing.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 5}, "annotation 2 has image_id 5, which is not listed"),
        ({"category_id": 4}, "annotation 2 has category_id 4, which is not listed"),
        ({"bbox": None}, "annotation 2 has no bbox of four numbers"),
        ({"bbox": [1, 2, 3]}, "annotation 2 has no bbox of four numbers"),
        ({"bbox": [1, 2, 3, "4"]}, "annotation 2 has no bbox of four numbers"),
        ({"bbox": [1, 2, 3, float("nan")]}, "annotation 2 has no bbox of four numbers"),
        ({"segmentation": []}, "of 1 annotations there is no mask (segmentation), the first is 2; Mask R-CNN"),
        ({"segmentation": None}, "of 1 annotations there is no mask"),
        ({"segmentation": [1, 2, 3, 4, 5, 6]}, "annotation 2 has a segmentation that is neither polygons nor RLE"),
        ({"segmentation": [[1, 2, "x", 4, 5, 6]]}, "annotation 2 has a segmentation that is neither polygons nor RLE"),
        ({"segmentation": "x"}, "annotation 2 has a segmentation that is neither polygons nor RLE"),
        ({"segmentation": {"size": [WIDTH, HEIGHT], "counts": [48]}}, "annotation 2 has a mask whose size is not its"),
        ({"segmentation": {"size": [HEIGHT, WIDTH]}}, "annotation 2 has a mask whose size is not its image's"),
        (
            {"segmentation": {"size": [HEIGHT, float(WIDTH)], "counts": [48]}},
            "annotation 2 has a mask whose size is not",
        ),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [3, 999]}}, "run lengths of 1002 pixels in all"),
        (
            {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [13, 3]}},
            "of 16 pixels in all, and its image has 6 x 8 = 48",
        ),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": []}}, "run lengths of 0 pixels in all"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [50, -2]}}, "are not whole numbers from 0"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [47.5, 0.5]}}, "are not whole numbers from 0"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [[48]]}}, "are not whole numbers from 0"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [True, 47]}}, "are not whole numbers from 0"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [10**400]}}, "in all, and its image has 6 x 8 = 48"),
        (
            {"segmentation": {"size": [HEIGHT, WIDTH], "counts": "~"}},
            "a bad compressed RLE (a character that is none of",
        ),
        (
            {"segmentation": {"size": [HEIGHT, WIDTH], "counts": "0é"}},
            "a bad compressed RLE (a character that is none of",
        ),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "`1P"}}, "a bad compressed RLE (it is cut short)"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "P" * 9 + "0"}}, "a run of more pixels than an image"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "O"}}, "a bad compressed RLE (a run of negative length)"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "0"}}, "run lengths of 0 pixels in all"),
        ({"segmentation": [[1, 2, float("nan"), 4, 5, 6]]}, "neither polygons nor RLE"),
        ({"segmentation": [[1, 2, 10**400, 4, 5, 6]]}, "neither polygons nor RLE"),
        ({"segmentation": [["1", "2", "3", "4", "5", "6"]]}, "neither polygons nor RLE"),
        ({"segmentation": [[[1, 2], [3, 4], [5, 6]]]}, "neither polygons nor RLE"),
        ({"segmentation": [[[1, 2], [3]]]}, "neither polygons nor RLE"),
        ({"segmentation": [[0, 0, 8, 6] * 400_000]}, "annotation 2 has a polygon 11,200,000 pixels long"),
        ({"bbox": [1, 2, 3, 10**400]}, "annotation 2 has no bbox of four numbers"),
        ({"bbox": [1, 2, -3, 4]}, "annotation 2 has the bbox [1, 2, -3, 4], of negative width or height"),
        ({"area": None}, "annotation 2 has the area None; write a number of pixels"),
        ({"area": "480"}, "annotation 2 has the area '480'"),
        ({"area": [480]}, "annotation 2 has the area [480]"),
        ({"area": -1}, "annotation 2 has the area -1"),
        ({"area": float("nan")}, "annotation 2 has the area nan"),
        ({"iscrowd": None}, "annotation 2 has iscrowd None; write 0 or 1"),
        ({"iscrowd": 2}, "annotation 2 has iscrowd 2"),
        ({"iscrowd": "0"}, "annotation 2 has iscrowd '0'"),
        ({"image_id": [1]}, "annotation 2 has image_id [1], which is not listed"),
        ({"image_id": True}, "annotation 2 has image_id True, which is not listed"),
        ({"category_id": None}, "annotation 2 has category_id None, which is not listed"),
        ({"id": 1}, "the id 1 of annotations appears twice"),
        ({"id": 2**60}, "of annotations is not a whole number"),
        ({"id": "a"}, "the id 'a' of annotations is not a whole number"),
    ],
)
def test_annotations_that_cannot_be_meant_are_refused(made, change, message):
    assert message in made.refused(annotation(1), {**annotation(2), **change})


def test_images_and_categories_that_cannot_be_meant_are_refused(made):
    made.listing["categories"][1].pop("name")
    assert "category 3 has no name" in made.refused()
    made.listing["categories"][1]["id"] = 9
    assert "the id 9 of categories appears twice" in made.refused()
    made.listing["categories"][1]["id"] = 3
    made.listing["categories"][1]["name"] = "dog"
    assert "categories 9 and 3 have the same name, 'dog'; list it once" in made.refused()
    made.listing["categories"][1]["name"] = "cat"
    made.listing["images"][1]["file_name"] = "1.png"
    assert "images 1 and 2 have the same file_name, '1.png'; list it once" in made.refused()
    for name in ("a\0", "\ud800"):
        made.listing["images"][1]["file_name"] = name
        assert "image 2 has a file_name that no file can have" in made.refused()
    made.listing["images"][1] = {"id": 2, "file_name": "2.png", "height": 10**9, "width": 10**9}
    assert "image 2 is listed as 1000000000 x 1000000000 pixels, more than" in made.refused()
    made.listing["images"][1]["id"] = 1
    assert "the id 1 of images appears twice" in made.refused()


SHARES = {"bbox": [0.25, 0.2, 0.4, 0.5], "segmentation": [[0.25, 0.2, 0.6, 0.2, 0.6, 0.7]]}
OUTSIDE = {"segmentation": [[20, 10, 25, 10, 25, 14]]}
FAR_AWAY = {"segmentation": [[1e9, 0, 2e9, 0, 2e9, 1e9]]}  # pycocotools would ask for 60 GB
ELSEWHERE = {"bbox": [0, 0, 8, 6], "segmentation": [[0, 0, 2, 0, 2, 2]]}


@pytest.mark.parametrize(
    ("change", "what", "remedy"),
    [
        (SHARES, "have box and mask in shares of their image", "multiply x by its width"),
        (OUTSIDE, "have their mask outside their image", "write polygons in pixels"),
        (FAR_AWAY, "have their mask outside their image", "write polygons in pixels"),
        (ELSEWHERE, "have a box that is far from their mask", "not as corners or centre"),
    ],
)
def test_a_fault_of_some_objects_is_counted_and_one_of_most_is_refused(made, change, what, remedy):
    odd = [annotation(number, **change) for number in (1, 2)]
    message = made.refused(*odd, annotation(3))
    assert f"{made.file}: 2 of 3 objects {what}, the first is 1; " in message
    assert remedy in message
    images = made.open(annotation(3), *odd, annotation(4))
    assert images.notes == (f"{made.file}: 2 of 4 objects {what}, the first is 1",)
    learned = [each["id"] for each in images.listing.coco.dataset["annotations"] if has_area(each, HEIGHT, WIDTH)]
    assert learned == ([3, 1, 2, 4] if change is ELSEWHERE else [3, 4])
    images[0]


def test_crowds_are_not_judged_by_their_box(made):
    assert made.open(annotation(1), *(annotation(id, iscrowd=1, **ELSEWHERE) for id in (2, 3))).notes == ()


def test_a_part_far_outside_is_dropped_and_the_rest_learned(made):
    images = made.open(annotation(1, segmentation=[*SQUARE, *FAR_AWAY["segmentation"]]))
    assert images[0][1]["masks"].sum() == 9


def test_a_pipe_is_no_listing(made):
    os.mkfifo(made.file)
    with pytest.raises(ValueError, match="is not a regular file"):
        open_coco(made.root, made.file)


def test_broken_images_are_named_when_they_are_read(made):
    whole = (made.root / "1.png").read_bytes()
    images = made.open()
    for content in (b"", b"no image", whole[: len(whole) // 2]):
        (made.root / "1.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"cannot read image .*/1\.png \(.*\); repair or remove it"):
            images[0]
    made.save(Image.fromarray(made.pixels[..., 0].astype(np.uint16) * 256), "1.png")
    with pytest.raises(ValueError, match=r"cannot read image .*/1\.png \(its gray values have more than 8 bits\)"):
        images[0]
    made.save(Image.fromarray(made.pixels.transpose(1, 0, 2)), "1.png")
    with pytest.raises(ValueError, match=r"1\.png has 6 x 8 pixels, and its listing says 8 x 6; restore the image"):
        images[0]
    images[1]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (CocoConfig(), "give data.root=DIR, in COCO's layout"),
        (CocoConfig("/no/where"), "data.root=/no/where does not exist; give a folder"),
        (CocoConfig(__file__), "is not a folder; give a folder"),
    ],
)
def test_a_root_is_needed(config, message):
    with pytest.raises(ValueError, match=message):
        open_split(config, "val")


@pytest.mark.parametrize("setting", [{"workers": -1}, {"corrupt": "maybe"}])
def test_settings_that_make_no_sense_are_refused(setting):
    with pytest.raises(ValueError, match=f"data.{next(iter(setting))} is"):
        CocoConfig(**setting)


def test_pycocotools_is_asked_for_by_name(shapes_root, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(ValueError, match="pip install pycocotools"):
        open_split(CocoConfig(str(shapes_root)), "train")


def test_opening_is_silent(shapes_root, capsys):
    open_split(CocoConfig(str(shapes_root)), "train")
    assert capsys.readouterr() == ("", "")
