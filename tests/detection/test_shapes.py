import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as masks
from pycocotools.coco import COCO
from scipy import ndimage

from psvit.detection.rle import encode, run_lengths
from psvit.detection.shapes import CATEGORIES, ShapesConfig, draw_image, draw_shapes, draw_single, outline

SPLITS = {"train": 12, "val": 6}


def listing(root: Path, split: str) -> COCO:
    return COCO(root / "annotations" / f"instances_{split}2017.json")


def pixels(root: Path, split: str, name: str) -> np.ndarray:
    with Image.open(root / f"{split}2017" / name) as picture:
        assert picture.mode == "RGB"
        return np.array(picture)


def decoded(segmentation, mask: np.ndarray) -> np.ndarray:
    """A segmentation as pycocotools reads it."""
    coco = COCO()
    coco.imgs = {1: {"height": mask.shape[0], "width": mask.shape[1]}}
    return coco.annToMask({"image_id": 1, "segmentation": segmentation})


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("split", SPLITS)
def test_boxes_and_areas_are_those_of_the_masks(shapes_root, split):
    coco = listing(shapes_root, split)
    assert len(coco.imgs) == SPLITS[split]
    assert len(coco.anns) == len(coco.dataset["annotations"]) > SPLITS[split]
    for each in coco.anns.values():
        rle = coco.annToRLE(each)
        assert masks.area(rle) == each["area"] >= 16
        assert masks.toBbox(rle).tolist() == each["bbox"]


@pytest.mark.parametrize("split", SPLITS)
def test_masks_of_an_image_have_no_pixel_in_common(shapes_root, split):
    coco = listing(shapes_root, split)
    for id, image in coco.imgs.items():
        drawn = pixels(shapes_root, split, image["file_name"])
        assert drawn.shape == (image["height"], image["width"], 3)
        found = [coco.annToMask(each) for each in coco.imgToAnns[id]]
        assert not found or np.sum(found, 0).max() == 1


def test_masks_are_what_is_drawn():
    """On a plain ground: each object has one colour, and all that lies beside the objects is of one colour, too."""
    plain = 0
    for index in range(40):
        picture, objects = draw_image(0, "train", index, 64)
        colours = np.array(picture).reshape(-1, 3)
        if any(each["iscrowd"] for each in objects) or len(np.unique(colours, axis=0)) > 12:
            continue
        plain += 1
        shape = np.empty((picture.height, picture.width))
        found = [decoded(each["segmentation"], shape).astype(bool).ravel() for each in objects]
        ground = ~np.any([np.zeros(len(colours), bool), *found], 0)
        for area in (ground, *found):
            assert len(np.unique(colours[area], axis=0)) == 1
        for area in found:
            assert not (colours[area][0] == colours[ground][0]).any()
    assert plain >= 5


def test_all_that_a_data_set_has(shapes_root):
    """The three ways to write a mask, all classes, crowds, an image without objects, and images of several sizes."""
    coco = listing(shapes_root, "train")
    ways = {
        "polygon" if isinstance(each["segmentation"], list) else type(each["segmentation"]["counts"]).__name__
        for each in coco.anns.values()
        if not each["iscrowd"]
    }
    assert ways == {"polygon", "list", "str"}
    crowds = [each for each in coco.anns.values() if each["iscrowd"]]
    assert {each["image_id"] for each in crowds} == {2 * 3 + 1, 2 * 11 + 1}
    assert all(isinstance(each["segmentation"]["counts"], list) for each in crowds)
    assert [id for id in coco.imgs if not coco.imgToAnns[id]] == [2 * 7 + 1]
    assert {category["id"]: category["name"] for category in coco.dataset["categories"]} == CATEGORIES
    assert len({(image["height"], image["width"]) for image in coco.imgs.values()}) > 6
    assert all(min(image["height"], image["width"]) == 64 for image in coco.imgs.values())
    assert not coco.imgs.keys() & listing(shapes_root, "val").imgs.keys()


def test_objects_are_small_medium_and_large():
    areas = [each["area"] for index in range(60) for each in draw_image(0, "val", index, 128)[1]]
    small, medium, large = np.histogram(areas, [0, 32**2, 96**2, np.inf])[0]
    assert min(small, medium, large) >= 5
    assert {each["category_id"] for index in range(60) for each in draw_image(0, "val", index, 128)[1]} == {*CATEGORIES}


def drawn_masks() -> list[np.ndarray]:
    """Polygons as Pillow fills them, some in two parts, with holes, and cut by the border; and noise."""
    rng = np.random.default_rng(0)
    made = []
    for parts in (1, 1, 1, 2, 3, 4) * 5:
        canvas = Image.new("1", (40, 30))
        for _ in range(parts):
            points = [tuple(point) for point in rng.uniform(-5, 45, (rng.integers(3, 7), 2))]
            ImageDraw.Draw(canvas).polygon(points, fill=1)
        made.append(np.array(canvas))
    made += [rng.random((9, 7)) < share for share in (0.1, 0.3, 0.5, 0.9) for _ in range(5)]
    return [mask for mask in [*made, np.ones((3, 5), bool)] if mask.any()]


def has_hole(mask: np.ndarray) -> bool:
    """Whether the ground has a part, corners joining, that does not reach the border."""
    return ndimage.label(np.pad(~mask, 1, constant_values=True), np.ones((3, 3)))[1] > 1


def test_all_ways_to_write_a_mask_are_read_back_as_the_mask():
    polygons = 0
    for mask in drawn_masks():
        np.testing.assert_array_equal(decoded(run_lengths(mask), mask), mask)
        np.testing.assert_array_equal(decoded(json.loads(json.dumps(encode(mask))), mask), mask)
        polygon = outline(mask)
        assert (polygon is None) == has_hole(mask)
        if polygon is not None:
            np.testing.assert_array_equal(decoded(polygon, mask), mask)
            assert len(polygon) == ndimage.label(mask)[1]
            polygons += 1
    assert polygons > 20


def test_run_lengths_begin_with_zeros_and_go_down_the_columns():
    assert run_lengths(np.array([[1, 0], [1, 1]])) == {"size": [2, 2], "counts": [0, 2, 1, 1]}
    assert run_lengths(np.zeros((2, 3))) == {"size": [2, 3], "counts": [6]}


def test_the_same_settings_draw_the_same_bytes(tmp_path, shapes_root):
    draw_shapes(ShapesConfig(str(tmp_path / "again"), num_images=12, num_val_images=6, size=64, singles=0))
    assert content(tmp_path / "again") == content(shapes_root)


def test_an_image_depends_on_seed_split_and_index_alone(tmp_path, shapes_root):
    fewer = draw_shapes(ShapesConfig(str(tmp_path / "fewer"), num_images=3, num_val_images=1, size=64, singles=0))
    for name in ("train2017/000000000005.png", "val2017/000000000002.png"):
        assert (fewer / name).read_bytes() == (shapes_root / name).read_bytes()
    pictures = {draw_image(seed, split, 0, 64)[0].tobytes() for seed in (0, 1) for split in SPLITS}
    assert len(pictures) == 4


def test_a_killed_drawing_is_finished_by_the_same_command(tmp_path, shapes_root):
    config = ShapesConfig(str(tmp_path / "drawn"), num_images=12, num_val_images=6, size=64, singles=0)
    draw_shapes(config)
    (tmp_path / "drawn/train2017/000000000009.png").unlink()
    (tmp_path / "drawn/annotations/instances_val2017.json").unlink()
    draw_shapes(config)
    assert content(tmp_path / "drawn") == content(shapes_root)


def test_nothing_is_drawn_over(tmp_path, shapes_root):
    before = content(shapes_root)
    with pytest.raises(ValueError, match=r"shapes drawn with other settings.*another folder"):
        draw_shapes(ShapesConfig(str(shapes_root), num_images=12, num_val_images=6, size=64, singles=0, seed=1))
    assert content(shapes_root) == before
    (tmp_path / "annotations").mkdir()
    with pytest.raises(ValueError, match="holds something else; give a new folder"):
        draw_shapes(ShapesConfig(str(tmp_path), num_images=1, num_val_images=1))
    assert [path.name for path in tmp_path.rglob("*")] == ["annotations"]


@pytest.mark.parametrize("setting", [{"num_images": 0}, {"num_val_images": 0}, {"size": 31}])
def test_settings_that_make_no_sense_are_refused(setting):
    with pytest.raises(ValueError, match=f"{next(iter(setting))} is {next(iter(setting.values()))}; it must"):
        ShapesConfig("x", **setting)


def test_pycocotools_is_asked_for_by_name(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(ValueError, match="pip install pycocotools"):
        draw_shapes(ShapesConfig(str(tmp_path / "new")))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("module", ["shapes", "data_config", "rle"])
def test_drawing_does_not_load_torch(module):
    code = f"import sys, psvit.detection.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


def test_images_of_one_shape_are_folders_of_a_classifier(tmp_path):
    root = draw_shapes(ShapesConfig(str(tmp_path / "drawn"), num_images=1, num_val_images=1, singles=40)) / "singles"
    for split, number in (("train", 40), ("val", 10)):
        files = sorted((root / split).rglob("*.png"))
        assert len(files) == number
        assert {path.parent.name for path in files} == set(CATEGORIES.values())
        for path in files:
            pixels = np.array(Image.open(path)).astype(int)
            assert pixels.shape == (32, 32, 3)
            # a shape of one colour, far from the ground around it
            shape = (pixels == pixels[16, 16]).all(2)
            assert 0.1 * 144 < shape.sum() < 0.9 * 1024
            assert (np.abs(np.median(pixels[~shape], axis=0) - pixels[16, 16]) > 30).all()
    again, name = draw_single(0, "train", 5)
    assert again.tobytes() == Image.open(root / f"train/{name}/000005.png").tobytes()
    with pytest.raises(ValueError, match="singles is 3; use 0, or 16 or more"):
        ShapesConfig("x", singles=3)


def test_the_command(tmp_path):
    from psvit.cli.main import main

    words = [
        "detect",
        "shapes",
        "--save",
        str(tmp_path / "drawn"),
        "--num-images",
        "2",
        "--num-val-images",
        "1",
        "size=48",
        "singles=0",
    ]
    assert main(words) == 0
    assert sorted(content(tmp_path / "drawn")) == [
        "annotations/instances_train2017.json",
        "annotations/instances_val2017.json",
        "shapes.json",
        "train2017/000000000001.png",
        "train2017/000000000003.png",
        "val2017/000000000002.png",
    ]
