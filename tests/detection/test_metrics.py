import json
import weakref

import pytest
import torch

from psvit.detection.coco import open_coco, open_split
from psvit.detection.data_config import CocoConfig
from psvit.detection.metrics import average_precision, results_of, score

SIDE = 100


def box_mask(left, top, right, bottom):
    mask = torch.zeros(1, SIDE, SIDE)
    mask[0, top:bottom, left:right] = 1
    return mask


def found(*boxes, labels=None, scores=None, masks=None):
    """A prediction whose masks fill its boxes unless they are given."""
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels or [1] * len(boxes)),
        "scores": torch.tensor(scores or [0.9] * len(boxes)),
        "masks": torch.stack(masks or [box_mask(*box) for box in boxes]) if boxes else torch.zeros(0, 1, SIDE, SIDE),
    }


def truth(tmp_path, *boxes, images=1, missing=0, categories=(7,), **more):
    """One annotation for each (image, box); of the last ``missing`` images there is no file."""
    from PIL import Image

    annotations = [
        {
            "id": number,
            "image_id": image,
            "category_id": categories[0],
            "bbox": [left, top, right - left, bottom - top],
            "area": (right - left) * (bottom - top),
            "iscrowd": 0,
            "segmentation": [[left, top, right, top, right, bottom, left, bottom]],
            **more,
        }
        for number, (image, (left, top, right, bottom)) in enumerate(boxes)
    ]
    ids = range(1, images + missing + 1)
    listed = [{"id": id, "file_name": f"{id}.png", "height": SIDE, "width": SIDE} for id in ids]
    for image in listed[:images]:
        Image.new("RGB", (SIDE, SIDE)).save(tmp_path / image["file_name"])
    named = [{"id": id, "name": str(id)} for id in categories]
    (tmp_path / "x.json").write_text(json.dumps({"images": listed, "annotations": annotations, "categories": named}))
    return open_coco(tmp_path, tmp_path / "x.json", "skip")


@pytest.mark.parametrize("split", ["train", "val"])
def test_what_is_there_scores_one(shapes_root, split):
    images = open_split(CocoConfig(str(shapes_root)), split)
    perfect = [
        (target["image_id"], {**target, "scores": torch.ones(len(target["labels"])), "masks": target["masks"][:, None]})
        for _, target in images
    ]
    values = average_precision(images, perfect)
    for part in ("box", "mask"):
        assert values[part].pop("APl") is None  # no image has room for large objects
        assert values[part] == {"AP": 1, "AP50": 1, "AP75": 1, "APs": 1, "APm": 1}


def test_a_box_beside_the_object(tmp_path):
    """Of 10 x 10 pixels, 2 too far right: 80 in common of 120. That is enough for 0.50, 0.55, 0.60 and 0.65."""
    images = truth(tmp_path, (1, (10, 10, 20, 20)))
    values = average_precision(images, [(1, found((12, 10, 22, 20)))])
    expected = {"AP": 0.4, "AP50": 1, "AP75": 0, "APs": 0.4, "APm": None, "APl": None}
    assert values == {"box": expected, "mask": expected}


def test_boxes_and_masks_are_measured_apart(tmp_path):
    images = truth(tmp_path, (1, (10, 10, 20, 20)))
    mask = box_mask(10, 10, 20, 20)
    mask[0, :16] = 0  # 40 of 100 pixels
    values = average_precision(images, [(1, found((10, 10, 20, 20), masks=[mask]))])
    assert values["box"]["AP"] == 1
    assert values["mask"]["AP"] == 0


def test_a_wrong_one_of_a_higher_score(tmp_path):
    """Half of two objects is found, at a precision of 1/2: recalls of 0.00 to 0.50 are 51 of 101."""
    images = truth(tmp_path, (1, (10, 10, 20, 20)), (1, (50, 50, 60, 60)))
    values = average_precision(images, [(1, found((70, 10, 80, 20), (10, 10, 20, 20), scores=[0.9, 0.8]))])
    assert values["box"]["AP"] == values["mask"]["AP"] == pytest.approx(51 / 101 / 2, abs=1e-6)


def test_labels_are_categories(tmp_path):
    """Of two classes one is there: the other has no say in the mean."""
    images = truth(tmp_path, (1, (10, 10, 20, 20)), categories=(7, 3))
    assert images.category_ids == (3, 7)
    assert average_precision(images, [(1, found((10, 10, 20, 20), labels=[2]))])["box"]["AP"] == 1
    assert average_precision(images, [(1, found((10, 10, 20, 20), labels=[1]))])["box"]["AP"] == 0


def test_what_is_found_in_a_crowd_is_not_wrong(tmp_path):
    images = truth(tmp_path, (1, (10, 10, 40, 40)), (1, (50, 50, 90, 90)))
    assert average_precision(images, [(1, found((10, 10, 40, 40), (60, 60, 70, 70), scores=[0.8, 0.9]))])["mask"][
        "AP"
    ] == pytest.approx(51 / 101 / 2, abs=1e-6)
    images.listing.coco.dataset["annotations"][1]["iscrowd"] = 1
    values = average_precision(images, [(1, found((10, 10, 40, 40), (60, 60, 70, 70), scores=[0.8, 0.9]))])
    assert values["box"]["AP"] == values["mask"]["AP"] == 1


def test_masks_count_as_large_as_they_are(tmp_path):
    """A wrong mask of 100 pixels is a small one, however large its box: it halves the precision of small ones."""
    images = truth(tmp_path, (1, (10, 10, 20, 20)))
    mask = box_mask(60, 60, 70, 70)
    wrong_first = found((10, 10, 20, 20), (40, 40, 90, 90), scores=[0.8, 0.9], masks=[box_mask(10, 10, 20, 20), mask])
    values = average_precision(images, [(1, wrong_first)])
    assert values["mask"]["APs"] == 0.5
    assert values["box"]["APs"] == 1  # as a box it is of medium size


def test_sizes(tmp_path):
    boxes = [(1, (0, 0, 20, 20)), (1, (20, 20, 60, 60)), (2, (0, 0, 99, 99))]
    images = truth(tmp_path, *boxes, images=2)
    values = average_precision(images, [(1, found((20, 20, 60, 60)))])
    for part in values.values():
        assert [part[key] for key in ("APs", "APm", "APl")] == [0, 1, 0]


def test_nothing_found_is_zero_and_nothing_there_is_none(tmp_path, shapes_root):
    images = open_split(CocoConfig(str(shapes_root)), "val")
    for nothing in ([], [(id, found()) for id in images.image_ids]):
        values = average_precision(images, nothing)
        assert (
            values["box"] == values["mask"] == {**dict.fromkeys(("AP", "AP50", "AP75", "APs", "APm"), 0), "APl": None}
        )
    empty = truth(tmp_path)
    assert set(average_precision(empty, [(1, found((1, 1, 5, 5)))])["box"].values()) == {None}


def test_missing_images_do_not_count(tmp_path):
    images = truth(tmp_path, (1, (10, 10, 20, 20)), (2, (10, 10, 20, 20)), images=1, missing=1)
    assert images.image_ids == (1,)
    assert average_precision(images, [(1, found((10, 10, 20, 20)))])["mask"]["AP"] == 1
    with pytest.raises(ValueError, match="image 2 has detections but is not listed"):
        average_precision(images, [(2, found((10, 10, 20, 20)))])


def test_an_annotation_need_not_tell_its_area_and_that_it_is_no_crowd(tmp_path):
    images = truth(tmp_path, (1, (10, 10, 50, 50)))
    annotation = images.listing.coco.dataset["annotations"][0]
    del annotation["area"], annotation["iscrowd"]
    values = average_precision(images, [(1, found((10, 10, 50, 50)))])
    assert values["mask"]["APm"] == 1
    assert values["mask"]["APs"] is None


def test_results_are_jsons_and_can_be_put_together(tmp_path):
    images = truth(tmp_path, (1, (10, 10, 20, 20)), (2, (10, 10, 20, 20)), images=2)
    parts = [results_of(images, id, found((12, 10, 22, 20))) for id in (1, 2)]
    assert parts[0][0]["bbox"] == [12, 10, 10, 10]
    assert parts[0][0]["category_id"] == 7
    together = json.loads(json.dumps(parts[1] + parts[0]))
    assert score(images, together)["box"]["AP"] == 0.4
    assert score(images, parts[0])["box"]["AP"] == pytest.approx(0.4 * 51 / 101, abs=1e-6)


def test_masks_are_probabilities(tmp_path):
    images = truth(tmp_path, (1, (10, 10, 20, 20)))
    soft = found((10, 10, 20, 20))
    soft["masks"] = soft["masks"] * 0.2 + 0.4
    assert average_precision(images, [(1, soft)])["mask"]["AP"] == 1
    soft["masks"] -= 0.2
    assert average_precision(images, [(1, soft)])["mask"]["AP"] == 0


def test_masks_are_let_go_one_by_one(tmp_path):
    images = truth(tmp_path, (1, (10, 10, 20, 20)), images=5)
    alive = []

    def predictions():
        for id in images.image_ids:
            prediction = found((10, 10, 20, 20))
            alive.append(weakref.ref(prediction["masks"]))
            yield id, prediction
            del prediction
            assert [made() is not None for made in alive[:-1]] == [False] * (len(alive) - 1)

    average_precision(images, predictions())
    assert len(alive) == 5


def test_scoring_is_silent_and_leaves_the_annotations_as_they_are(shapes_root, capsys):
    images = open_split(CocoConfig(str(shapes_root)), "val")
    before = [{**each} for each in images.listing.coco.dataset["annotations"]]
    average_precision(images, [(images.image_ids[0], found((1, 1, 9, 9), masks=[torch.ones(1, *images.size(0))]))])
    assert capsys.readouterr() == ("", "")
    after = images.listing.coco.dataset["annotations"]
    assert [each.keys() for each in after] == [each.keys() for each in before]
    assert all(each["segmentation"] is was["segmentation"] for each, was in zip(after, before, strict=True))
    assert len(images) == 6
