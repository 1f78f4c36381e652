"""Metrics over batches are those of all images at once, and are left out or NaN where they would say nothing."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from psvit.engine.scoring import METRICS, Metric, Score, measure_all, metrics_text, score_all

CPU = torch.device("cpu")


def batches(classes: int, images: int = 25) -> list[tuple[Tensor, Tensor]]:
    """Batches of 10, the last one smaller, whose images are logits."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(images, classes, generator=generator)
    labels = torch.randint(classes, (images,), generator=generator)
    return list(zip(logits.split(10), labels.split(10), strict=True))


def test_metrics_are_means_over_all_images() -> None:
    given = batches(classes=8)
    logits, labels = (torch.cat(parts) for parts in zip(*given, strict=True))
    places = (logits > logits.gather(1, labels[:, None])).sum(dim=1)  # how many classes come before the right one
    by_hand = {
        "top1": (places == 0).double().mean().item(),
        "loss": cross_entropy(logits.double(), labels).item(),
        "top5": (places < 5).double().mean().item(),
    }
    assert 0 < by_hand["top1"] < by_hand["top5"] < 1
    one, negated = measure_all([lambda images: images, torch.neg], given, CPU, "fp32")
    assert one == pytest.approx(by_hand, abs=1e-7)
    assert negated["loss"] == pytest.approx(cross_entropy(-logits.double(), labels).item(), abs=1e-7)
    assert score_all([lambda images: images], given, CPU, "fp32") == [Score(one["top1"], one["loss"])]


def test_top5_is_left_out_where_it_says_nothing() -> None:
    for classes, names in ((5, ["top1", "loss"]), (6, ["top1", "loss", "top5"])):
        (measured,) = measure_all([lambda images: images], batches(classes), CPU)
        assert list(measured) == names


def test_all_metrics_are_nan_where_a_logit_is() -> None:
    given = batches(classes=8)
    given[0][0][0, 0] = math.nan
    (measured,) = measure_all([lambda images: images], given, CPU)
    assert len(measured) == 3
    assert all(map(math.isnan, measured.values()))


def test_a_registered_metric_is_measured_and_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "label", Metric("mean label", lambda logits, labels: labels))
    given = batches(classes=2)
    (measured,) = measure_all([lambda images: images], given, CPU)
    assert measured["label"] == sum(labels.sum().item() for _, labels in given) / 25
    assert metrics_text({"top1": 0.5, "label": 1.0}) == "top-1 0.5000, mean label 1.0000"
