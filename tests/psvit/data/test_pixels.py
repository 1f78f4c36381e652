"""Images decoded once: the same as those that are decoded each time, in a stratified order."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from psvit.data.config import DataConfig
from psvit.data.data import Data, open_data
from psvit.data.pixels import Pixels, stratified_order

CPU = torch.device("cpu")
SIZE = (16, 24)


@pytest.fixture(scope="module")
def digits() -> Data:
    return open_data(DataConfig())


def whole(pixels: Pixels, spans: list[range]) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*pixels.batches(spans, CPU), strict=True)
    return torch.cat(images), torch.cat(labels)


@pytest.mark.parametrize("keep_bytes", [10**9, 0], ids=["memory", "file"])
def test_they_are_the_split_in_another_order(digits: Data, tmp_path: Path, keep_bytes: int) -> None:
    ((expected, labels),) = digits.eval_batches("search", SIZE, 1000)
    pixels = Pixels(digits, "search", SIZE, None, 0, tmp_path / "run", keep_bytes=keep_bytes)
    assert len(pixels) == len(labels) == 143
    assert sorted(pixels.order) == list(range(143))
    for spans in ([range(100), range(100, 143)], [range(143)], [range(60, 70)]):
        images, found = whole(pixels, spans)
        order = pixels.order[spans[0].start : spans[-1].stop]
        assert torch.equal(images, expected[order])
        assert torch.equal(found, labels[order])
    assert not list(tmp_path.glob("run/*"))  # the file has no name


def test_an_image_is_decoded_once(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: Counter[int] = Counter()
    original = Data.pixel_batches

    def counted(self: Data, split: str, size: tuple[int, int], batches: list) -> object:
        batches = list(batches)
        decoded.update(image for batch in batches for image in batch)
        return original(self, split, size, batches)

    monkeypatch.setattr(Data, "pixel_batches", counted)
    pixels = Pixels(digits, "search", SIZE, 50, 0)
    for _ in range(3):
        whole(pixels, [range(20), range(20, 50)])
    assert set(decoded.values()) == {1}
    assert set(decoded) == set(pixels.order.tolist())


def test_every_beginning_has_the_classes_in_their_proportions() -> None:
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    order = stratified_order(labels, seed=3)
    assert sorted(order) == list(range(1000))
    for end in range(1, 1001):
        found = np.bincount(labels[order[:end]], minlength=3)
        assert np.abs(found - end * np.array([0.6, 0.3, 0.1])).max() <= 2
    assert not np.array_equal(order, stratified_order(labels, seed=4))
    # within a class the order is uniform: each image comes first about equally often
    firsts = Counter(next(i for i in stratified_order(labels, seed) if labels[i] == 2) for seed in range(2000))
    assert len(firsts) == 100
    assert max(firsts.values()) < 50  # mean 20, standard deviation 4.5


def test_fewer_images_are_the_beginning_of_the_order(digits: Data) -> None:
    few, all_of_them = Pixels(digits, "search", SIZE, 30, 0), Pixels(digits, "search", SIZE, None, 0)
    assert np.array_equal(few.order, all_of_them.order[:30])
    assert set(np.bincount(few.labels)) <= {2, 3, 4}
