"""Average precision of boxes and masks, by COCO's own code (pycocotools)."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np
from torch import Tensor

from psvit.detection.coco import CocoImages
from psvit.detection.rle import encode

KEYS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
MASK_THRESHOLD = 0.5

# {"box": {"AP": 0.41, ...}, "mask": {...}}, shares of 1; None where nothing of that size was there to be found.
Precision = dict[str, dict[str, float | None]]


def average_precision(images: CocoImages, predictions: Iterable[tuple[int, Mapping[str, Tensor]]]) -> Precision:
    """Average precision of what was found on ``images``; on those without a prediction, nothing was.

    Args:
        images: with their annotations; the missing ones that it leaves out do not count.
        predictions: as :func:`results_of`; taken one by one, so that the masks of one image are held at a time.

    Raises:
        ValueError: a prediction of an image that is not among them.
    """
    return score(images, [result for id, found in predictions for result in results_of(images, id, found)])


def results_of(images: CocoImages, image_id: int, found: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """What was found on an image, as COCO's results: plain values, fit for JSON, a few hundred bytes an object.

    Several processes can gather these, where masks would be too large.

    Args:
        image_id: COCO's.
        found: what torchvision's Mask R-CNN gives in ``eval`` mode: ``boxes`` (n, 4), left, top, right and bottom in
            pixels; ``labels`` (n,) from 1; ``scores`` (n,); ``masks`` (n, 1, height, width), probabilities, of which
            above 0.5 belongs to the object.
    """
    boxes, scores = found["boxes"].double().tolist(), found["scores"].double().tolist()
    return [
        {
            "image_id": image_id,
            "category_id": images.category_ids[label - 1],
            "bbox": [left, top, right - left, bottom - top],
            "score": score,
            "segmentation": encode((mask[0] > MASK_THRESHOLD).cpu().numpy()),
        }
        for (left, top, right, bottom), label, score, mask in zip(
            boxes, found["labels"].tolist(), scores, found["masks"], strict=True
        )
    ]


def score(images: CocoImages, results: Sequence[Mapping[str, Any]]) -> Precision:
    """Average precision of results of :func:`results_of`, of all images together.

    ``AP`` is the mean over intersections over union of 0.50, 0.55, ... 0.95; ``AP50`` and ``AP75`` are at one of them;
    ``APs``, ``APm`` and ``APl`` are of objects below 32 x 32, up to 96 x 96, and above. Each is a mean over the classes
    that have such objects; None where no class has. At most 100 objects an image count, those of the highest scores.

    Raises:
        ValueError: a result of an image that is not among them.
    """
    strangers = {result["image_id"] for result in results} - set(images.image_ids)
    if strangers:
        raise ValueError(f"image {min(strangers)} has detections but is not listed; score the same images")
    with redirect_stdout(io.StringIO()):  # it prints its progress
        truth = _truth(images)
        # apart, as pycocotools measures an object that has a box by its box, also where masks are compared
        return {"box": _score(truth, results, "bbox"), "mask": _score(truth, results, "segmentation")}


def _truth(images: CocoImages) -> Any:
    """The images that are not left out, and the annotations, crowds and the smallest ones among them.

    Annotations are numbered anew from 1, as to pycocotools an object of number 0 is never found.
    """
    from pycocotools.coco import COCO

    coco = images.listing.coco
    listed = [each for each in coco.dataset["annotations"] if each["segmentation"]]
    truth = COCO()
    truth.dataset = {
        "images": [coco.imgs[id] for id in images.image_ids],
        "categories": coco.dataset["categories"],
        "annotations": [
            {"iscrowd": 0, "area": _area(coco, each), **each, "id": number} for number, each in enumerate(listed, 1)
        ],
    }
    truth.createIndex()
    return truth


def _area(coco: Any, annotation: Mapping[str, Any]) -> float:
    from pycocotools import mask as masks

    return float(annotation["area"]) if "area" in annotation else float(masks.area(coco.annToRLE(annotation)))


def _score(truth: Any, results: Sequence[Mapping[str, Any]], what: str) -> dict[str, float | None]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    keys = ("image_id", "category_id", "score", what)
    found = COCO()
    if results:
        found = truth.loadRes([{key: result[key] for key in keys} for result in results])
    else:  # which loadRes does not take
        found.dataset = {**truth.dataset, "annotations": []}
        found.createIndex()
    evaluation = COCOeval(truth, found, "bbox" if what == "bbox" else "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    values = np.asarray(evaluation.stats[: len(KEYS)], float)
    return {key: None if value < 0 else round(float(value), 6) for key, value in zip(KEYS, values, strict=True)}
