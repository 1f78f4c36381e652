"""Each operation against timm's on one image, then what is drawn, and that images of a batch do not know each other."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import chisquare, kstest, norm, truncnorm
from timm.data import auto_augment
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from psvit.data import randaugment as module
from psvit.data.randaugment import OPERATIONS, Work, color_jitter, flip, randaugment, work_on

GREY = torch.full((3, 1, 1), 100.0)
SHAPE = (40, 56)

TIMMS = {
    "auto contrast": "AutoContrast",
    "equalize": "Equalize",
    "invert": "Invert",
    "rotate": "Rotate",
    "posterize": "PosterizeIncreasing",
    "solarize": "SolarizeIncreasing",
    "solarize add": "SolarizeAdd",
    "colour": "ColorIncreasing",
    "contrast": "ContrastIncreasing",
    "brightness": "BrightnessIncreasing",
    "sharpness": "SharpnessIncreasing",
    "shear x": "ShearX",
    "shear y": "ShearY",
    "translate x": "TranslateXRel",
    "translate y": "TranslateYRel",
}
GEOMETRIC = {"rotate", "shear x", "shear y", "translate x", "translate y"}


def pictures(count: int, seed: int = 0) -> Tensor:
    """Smooth random pictures of a limited range, with some noise: uint8 (count, 3, *SHAPE)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 5, generator=generator) * 180 + 20
    smooth = F.resize(coarse, list(SHAPE)) + torch.rand(count, 3, *SHAPE, generator=generator) * 9
    return smooth.to(torch.uint8)


def done(name: str, images: Tensor, strengths: list[float]) -> Tensor:
    operation = OPERATIONS[name]
    arguments = operation.arguments(np.array(strengths), SHAPE[0] / SHAPE[1])
    return work_on(images, [Work(operation.apply, np.arange(len(images)), arguments)], GREY)


def with_pillow(change: Callable[[Image.Image], Image.Image], image: Tensor) -> Tensor:
    pillow = Image.fromarray(image.permute(1, 2, 0).numpy())
    return torch.from_numpy(np.array(change(pillow))).permute(2, 0, 1)


def difference(a: Tensor, b: Tensor) -> Tensor:
    return (a.short() - b.short()).abs()


def test_the_operations_are_timms() -> None:
    assert sorted(TIMMS.values()) == sorted(auto_augment.rand_augment_choices("", increasing=True))
    assert list(OPERATIONS) == list(TIMMS)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("sign", [-1, 1])
def test_each_does_what_timms_does_at_each_magnitude(name: str, sign: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within 2 levels, since Pillow rounds what is grey otherwise; at the edges that geometry makes more."""
    monkeypatch.setattr(auto_augment, "_randomly_negate", lambda value: sign * value)
    levels = [0.0, 1.3, 3.0, 5.5, 7.7, 9.0, 9.9 if name == "posterize" else 10.0]  # Pillow keeps 1 bit or more
    images = pictures(len(levels))
    hparams = {"img_mean": (100, 100, 100), "interpolation": Image.Resampling.BILINEAR}
    for image, level, seen in zip(
        images, levels, done(name, images, [sign * level / 10 for level in levels]), strict=True
    ):
        timms = auto_augment.AugmentOp(TIMMS[name], prob=1.0, magnitude=level, hparams=hparams)
        off = difference(seen, with_pillow(timms, image)).float()
        if name in GEOMETRIC:  # a pixel at the edge may be in or out by a rounding
            assert (off > 2).float().mean() < 0.005
        else:
            assert off.max() <= 2
        assert off.mean() < 1


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("auto contrast", lambda image, _: F.autocontrast(image)),
        ("equalize", lambda image, _: F.equalize(image)),
        ("invert", lambda image, _: F.invert(image)),
        ("solarize", lambda image, share: F.solarize(image, 256 - int(256 * share))),
        ("posterize", lambda image, share: F.posterize(image, 4 - int(4 * share))),
        ("colour", lambda image, share: F.adjust_saturation(image, 1 + 0.9 * share)),
        ("contrast", lambda image, share: F.adjust_contrast(image, 1 + 0.9 * share)),
        ("brightness", lambda image, share: F.adjust_brightness(image, 1 + 0.9 * share)),
        ("sharpness", lambda image, share: F.adjust_sharpness(image, 1 + 0.9 * share)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_rounds_as_torchvisions_does(name: str, function: Callable[[Tensor, float], Tensor]) -> None:
    """Not more than one level apart, and that seldom: blending a value with itself may cost torchvision a level."""
    shares = [0.05127, 0.30713, 0.62171, 0.90117, 0.98931]
    images = pictures(len(shares), seed=1)
    images[0] = 77  # one colour
    expected = torch.stack([function(image, share) for image, share in zip(images, shares, strict=True)])
    off = difference(done(name, images, shares), expected)
    assert off.max() <= 1
    assert (off[1:] > 0).float().mean() < 0.01


def test_not_even_the_strongest_posterize_is_black() -> None:
    assert done("posterize", pictures(1), [1.0]).unique().tolist() == [0, 128]


def uniform(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_sees_no_other_image_of_its_group(name: str) -> None:
    images, strengths = pictures(9), uniform(9).tolist()
    together = done(name, images, strengths)
    for first, last in [(0, 1), (1, 3), (3, 8), (4, 9)]:
        assert torch.equal(done(name, images[first:last], strengths[first:last]), together[first:last])


def recorded(
    monkeypatch: pytest.MonkeyPatch, n: int, magnitude: float, std: float, probability: float
) -> list[tuple[str, int, float]]:
    """(operation, image, signed strength) of all that is done to n images."""
    seen: list[tuple[str, int, float]] = []

    def fake(name: str) -> module.Operation:
        def arguments(strength: np.ndarray, shape: float) -> np.ndarray:
            return strength[:, None]

        return module.Operation(name, arguments)  # type: ignore[arg-type]

    def note(images: Tensor, work: list[Work], fill: Tensor) -> Tensor:
        for one in work:
            seen.extend(zip([one.apply] * len(one.images), one.images, one.arguments[:, 0], strict=True))
        return images

    monkeypatch.setattr(module, "OPERATIONS", {name: fake(name) for name in OPERATIONS})
    monkeypatch.setattr(module, "work_on", note)
    randaugment(torch.zeros(n, 3, 2, 2), uniform(n, 2, 4), magnitude, std, probability, GREY)
    return seen


def test_operations_are_drawn_as_deits_are(monkeypatch: pytest.MonkeyPatch) -> None:
    n = 20_000
    names, images, strengths = zip(*recorded(monkeypatch, n, 27, 1.5, 0.5), strict=True)
    counts = np.array([names.count(name) for name in OPERATIONS])
    assert chisquare(counts).pvalue > 1e-3
    assert counts.sum() / (2 * n) == pytest.approx(0.5, abs=0.01)
    assert np.bincount(np.bincount(images, minlength=n)) / n == pytest.approx([0.25, 0.5, 0.25], abs=0.02)
    strength = np.array(strengths)
    assert (strength > 0).mean() == pytest.approx(0.5, abs=0.02)
    magnitude = np.abs(strength) * 30
    inside = magnitude < 30  # the rest is clipped
    assert inside.mean() == pytest.approx(norm.cdf(2), abs=0.004)
    assert kstest(magnitude[inside], truncnorm(-np.inf, 2, loc=27, scale=1.5).cdf).pvalue > 1e-3


def test_without_deviation_every_magnitude_is_the_one_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = recorded(monkeypatch, 50, 9, 0.0, 1.0)
    assert len(seen) == 100
    assert {abs(strength) for _, _, strength in seen} == {0.3}


def test_an_image_does_not_depend_on_its_batch() -> None:
    images, draws = pictures(60), uniform(60, 2, 4)
    together = randaugment(images, draws, 27, 1.5, 0.8, GREY)
    assert (together != images).flatten(1).any(1).sum() > 30
    for first, last in [(0, 1), (7, 10), (20, 52)]:
        assert torch.equal(randaugment(images[first:last], draws[first:last], 27, 1.5, 0.8, GREY), together[first:last])
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    assert torch.equal(randaugment(images[order], draws[order.numpy()], 27, 1.5, 0.8, GREY), together[order])


def test_the_second_operation_works_on_what_the_first_left() -> None:
    image = pictures(1)
    place = {name: (number + 0.5) / len(OPERATIONS) for number, name in enumerate(OPERATIONS)}
    draws = np.array([[[place["invert"], 0, 0, 0.5], [place["solarize"], 0, 0, 0.5]]])
    assert torch.equal(randaugment(image, draws, 15, 0, 0.5, GREY), done("solarize", 255 - image, [0.5]))


def test_nothing_is_asked_of_the_device() -> None:
    """Tensors of the device ``meta`` have no values."""
    images = pictures(64).to("meta")
    draws = uniform(64, 2, 4)
    assert len(np.unique(np.floor(draws[:, :, 0] * 15))) == 15
    seen = randaugment(images, draws, 27, 1.5, 1.0, GREY.to("meta"))
    assert (seen.device.type, seen.dtype, seen.shape) == ("meta", torch.uint8, images.shape)
    assert color_jitter(images, draws[:, 0], 0.4).shape == images.shape
    assert flip(images, np.array([1, 5])).shape == images.shape


def test_color_jitter_is_torchvisions_in_the_order_drawn() -> None:
    images, n = pictures(24), 24
    draws = uniform(n, 4)
    draws[:, 0] = (np.arange(n) % 6 + 0.5) / 6
    seen = color_jitter(images, draws, 0.4)
    steps = [F.adjust_brightness, F.adjust_contrast, F.adjust_saturation]
    for image, draw, one in zip(images, draws, seen, strict=True):
        expected = image
        for step in list(permutations(range(3)))[int(draw[0] * 6)]:
            expected = steps[step](expected, 0.6 + 0.8 * draw[1 + step])
        assert difference(one, expected).max() <= 2  # a rounding may be exaggerated by a later step
    assert torch.equal(color_jitter(images[5:7], draws[5:7], 0.4), seen[5:7])


def test_flip() -> None:
    images = pictures(4)
    seen = flip(images, np.array([1, 3]))
    assert torch.equal(seen[1::2], images[1::2].flip(3))
    assert torch.equal(seen[::2], images[::2])
    assert torch.equal(flip(images, np.array([], np.intp)), images)
