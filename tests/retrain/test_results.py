"""Records of trained networks are read back as they were written."""

from pathlib import Path
from typing import Any

import pytest

from psvit.retrain.results import DetectRecord, RetrainRecord
from psvit.run.records import Record

RETRAINED = RetrainRecord(
    top1=0.75,
    loss=1.1,
    metrics={"top5": 0.99},
    ema_top1=None,
    ema_loss=None,
    data="digits",
    num_test_images=359,
    trained_on="train+search",
    num_images=1438,
    epochs=2,
    seed=0,
    start=None,
    teacher="torchvision:resnet18",
    network="2d_mini_4",
    layers="BS-B-B",
    flops=10,
    params=20,
    arch_sha256="ab",
    weights_sha256="cd",
    tool="psvit-search 0.1.0",
)
DETECTED = DetectRecord(
    network="torchvision:resnet18",
    layers=None,
    data="shapes",
    box={"AP": 0.5, "APs": None},
    mask={"AP": 0.25, "APs": None},
    num_val_images=6,
    num_images=12,
    classes=4,
    epochs=2,
    min_sizes=(96, 128),
    max_size=200,
    seed=0,
    start=None,
    params=30,
    weights_sha256="ef",
    tool="psvit-search 0.1.0",
)


@pytest.mark.parametrize("record", [RETRAINED, DETECTED], ids=lambda record: record.format)
def test_a_record_survives_its_file(record: Record, tmp_path: Path) -> None:
    record.save(tmp_path / "result.json")
    assert type(record).load(tmp_path / "result.json") == record


@pytest.mark.parametrize(
    ("record", "change", "message"),
    [
        (RETRAINED, {"top1": "0.75"}, r"^\$\.top1: is '0\.75'; it must be a number$"),
        (RETRAINED, {"test_images": 359}, r"^\$\.test_images: unknown key; known are arch_sha256, "),
        (DETECTED, {"box": {"AP": "high"}}, r"^\$\.box\.AP: is 'high'; it must be a number$"),
        (DETECTED, {"format": "psvit-retrain-result"}, r'^\$\.format: .*; it must be "psvit-detect-result"$'),
    ],
)
def test_faults_are_refused_by_their_place(record: Record, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        type(record).from_json(record.to_json() | change)
