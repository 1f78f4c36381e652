import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp, kstest
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from psvit.data.config import AugmentConfig
from psvit.data.transforms import EvalTransform, Normalize, TrainTransform, mix, uniforms
from psvit.preprocessing import usual_preprocessing
from psvit.run.random import seed_of

PLAIN = Normalize((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def augment(**changes: object) -> AugmentConfig:
    """Nothing but what is asked for."""
    off = {"crop_scale": [1.0, 1.0], "flip": 0.0, "randaugment_ops": 0, "erasing": 0.0, "mixup": 0.0, "cutmix": 0.0}
    return AugmentConfig(**{**off, **changes})  # type: ignore[arg-type]


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    """A smooth random picture, so that resampling twice and once look alike."""
    coarse = torch.rand(3, 5, 5, generator=torch.Generator().manual_seed(seed)) * 255
    return F.resize(coarse, [height, width], interpolation=InterpolationMode.BICUBIC).clamp(0, 255).to(torch.uint8)


def test_normalize_is_torchvisions() -> None:
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    image = picture(9, 7)
    expected = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])(image)
    torch.testing.assert_close(Normalize(mean, std)(image), expected)
    torch.testing.assert_close(Normalize(mean, std)(image[None]), expected[None])


def scored(size: tuple[int, int], photographs: bool) -> EvalTransform:
    return EvalTransform(size, usual_preprocessing((0.5,) * 3, (0.5,) * 3, photographs, size))


@pytest.mark.parametrize(("height", "width"), [(300, 411), (511, 300), (64, 64), (256, 256)])
def test_photographs_are_scored_as_is_the_custom(height: int, width: int) -> None:
    custom = v2.Compose([v2.Resize(256, InterpolationMode.BICUBIC, antialias=True), v2.CenterCrop(224)])
    image = picture(height, width)
    seen = PLAIN(scored((224, 224), photographs=True)([image]))
    torch.testing.assert_close(seen[0], custom(image).float() / 255)


def test_scoring_at_rectangular_sizes_keeps_the_shape_of_a_photograph() -> None:
    row, column = torch.meshgrid(torch.arange(320), torch.arange(640), indexing="ij")
    disk = ((row - 160) ** 2 + (column - 320) ** 2 < 60**2).expand(3, -1, -1).to(torch.uint8) * 255
    seen = PLAIN(scored((112, 168), photographs=True)([disk]))
    assert seen.shape == (1, 3, 112, 168)
    inside = seen[0, 0] > 0.5
    tall, wide = inside.any(1).sum().item(), inside.any(0).sum().item()
    assert tall == wide
    assert tall == pytest.approx(120 * (112 / 0.875) / 320, abs=1.5)  # the height fits, the width is cut


@pytest.mark.parametrize(("photographs", "size"), [(False, (96, 80)), (True, (32, 48))])
def test_other_images_are_scored_whole(photographs: bool, size: tuple[int, int]) -> None:
    image = picture(50, 60)
    expected = F.resize(image, list(size), interpolation=InterpolationMode.BICUBIC, antialias=True)
    assert torch.equal(scored(size, photographs)([image])[0], expected)


def transform(size: tuple[int, int], **changes: object) -> TrainTransform:
    return TrainTransform(size, augment(**changes), PLAIN)


def places(height: int, width: int) -> Tensor:
    """An image whose values tell the place: red is the column, green the row."""
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([column, row, row]).to(torch.uint8)


def levels(pixels: Tensor) -> Tensor:
    """Of what was normalised by PLAIN."""
    return pixels * 255


def test_draws_are_splitmix64() -> None:
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    expected = torch.tensor([number / 2**64 for number in published])
    torch.testing.assert_close(uniforms([1234567], 4)[0], expected, atol=2**-24, rtol=0)


@pytest.mark.parametrize("seeds", [range(3000), [seed_of(0, "augment", 0, image) for image in range(3000)]])
def test_draws_are_uniform_and_independent(seeds: Sequence[int]) -> None:
    draws = transform((8, 8), randaugment_ops=2).draws(seeds).double()
    assert draws.min() >= 0
    assert draws.max() < 1
    count = draws.shape[1]
    assert min(kstest(column, "uniform").pvalue for column in draws.T.numpy()) > 1e-3 / count
    correlation = (np.corrcoef(draws.T.numpy()) - np.eye(count)) * math.sqrt(len(draws))
    assert np.abs(correlation).max() < 5  # standard deviations
    following = (draws[1:] - 0.5).mul(draws[:-1] - 0.5).mean(0) * 12 * math.sqrt(len(draws))
    assert following.abs().max() < 5


def test_draws_are_a_function_of_the_seed() -> None:
    deit = TrainTransform((8, 8), AugmentConfig(), PLAIN)
    draws = deit.draws([5, 7, 2**63 - 1])
    assert (draws.dtype, draws.device.type) == (torch.float32, "cpu")
    assert torch.equal(deit.draws([2**63 - 1, 5]), draws[[2, 0]])
    assert not torch.equal(draws[0], draws[1])


@pytest.mark.parametrize("shape", [(60, 80), (80, 60), (50, 50), (30, 200), (200, 30)])
def test_crops_are_drawn_as_torchvisions(shape: tuple[int, int]) -> None:
    height, width = shape
    scale = [0.2, 0.9]
    ours = transform((8, 8), crop_scale=scale)
    boxes = np.array([ours._crop(shape, draw, None) for draw in ours.draws(range(800))])
    crop = v2.RandomResizedCrop((8, 8), scale=tuple(scale))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # of a shape a hundred times as large, so that whole pixels are of no matter
        theirs = [crop.make_params([torch.empty(3, 1, 1).expand(3, 100 * height, 100 * width)]) for _ in range(800)]
    names = ("top", "left", "height", "width")
    sides = (height, width, height, width)
    for ours_of, name, side in zip(boxes.T, names, sides, strict=True):
        theirs_of = np.array([params[name] for params in theirs]) / (100 * side)
        if theirs_of.std() < 1e-6:
            assert ours_of == pytest.approx(theirs_of, abs=1e-3)
        else:
            assert ks_2samp(ours_of.round(4), theirs_of.round(4)).pvalue > 1e-3


def test_cut_is_a_resized_crop() -> None:
    ours, image = transform((32, 40), crop_scale=[0.1, 0.8]), picture(120, 160)
    for draw in ours.draws(range(10)):
        top, left, down, across = ours._crop((120, 160), draw, None)
        box = [round(top * 120), round(left * 160), round(down * 120), round(across * 160)]
        expected = F.resized_crop(image, *box, [32, 40], InterpolationMode.BICUBIC, antialias=True)
        assert torch.equal(ours.cut(image, draw), expected)


def test_without_variation_cut_only_resizes() -> None:
    image = picture(70, 90)
    ours = transform((48, 60))
    expected = F.resize(image, [48, 60], InterpolationMode.BICUBIC, antialias=True)
    assert torch.equal(ours.cut(image, ours.draws([1])[0]), expected)
    assert torch.equal(ours.augment_batch(expected[None], ours.draws([1])), expected[None].float() / 255)


def test_a_picture_decoded_as_small_as_needed_gives_the_same_cut() -> None:
    """A crop of it is enlarged no more than one of the full picture, and no size below would do."""
    ours, shape = transform((32, 40), crop_scale=[0.05, 1.0]), (300, 500)
    image, smaller = picture(*shape), 0
    for draw in ours.draws(range(40)):
        needed = ours.need(shape, draw)
        _, _, down, across = ours._crop(shape, draw, None)
        for side, full, size, share in zip(needed, shape, (32, 40), (down, across), strict=True):
            assert min(size, share * full) <= share * side + 1e-6
            assert side == full or share * (side - 1) < size
        if max(side / full for side, full in zip(needed, shape, strict=True)) < 0.5:
            smaller += 1
            decoded = F.resize(image, [150, 250], antialias=True)
            assert (ours.cut(decoded, draw).float() - ours.cut(image, draw)).abs().mean() < 3
    assert smaller > 10


@pytest.mark.parametrize(
    ("image_size", "whole"),
    [((32, 40), True), ((48, 60), True), ((49, 60), False), ((32, 61), False), ((8, 8), True), (None, False)],
)
def test_only_images_not_much_larger_than_what_is_seen_are_warped(
    image_size: tuple[int, int] | None, whole: bool
) -> None:
    assert transform((32, 40)).warps(image_size) is whole


def test_whole_images_are_cropped_as_a_worker_would() -> None:
    ours, image = transform((192, 144), crop_scale=[0.3, 1.0]), picture(210, 180)
    draws = ours.draws(range(20))
    whole = levels(ours.augment_batch(image.expand(20, -1, -1, -1), draws))
    for seen, draw in zip(whole, draws, strict=True):
        off = (seen - ours.cut(image, draw)).abs()
        assert off.mean() < 3  # a box of whole pixels, and another interpolation


def test_squeezed_images_are_cropped_in_their_own_proportions() -> None:
    ours = transform((160, 160), crop_scale=[0.3, 1.0])
    image, draws = picture(160, 320), ours.draws(range(20))
    squeezed = F.resize(image, [160, 160], antialias=True)
    seen = levels(ours.augment_batch(squeezed.expand(20, -1, -1, -1), draws, torch.full((20,), 2.0), whole=True))
    for one, draw in zip(seen, draws, strict=True):
        assert (one - ours.cut(image, draw)).abs().mean() < 3
        assert (one - ours.cut(squeezed, draw, 2.0)).abs().mean() < 3
    with_own = levels(ours.augment_batch(squeezed.expand(20, -1, -1, -1), draws, whole=True))
    assert (seen - with_own).abs().mean() > 3


def test_rotation_stays_within_its_limits() -> None:
    image = picture(60, 50)
    middle = (slice(None), slice(12, 48), slice(8, 42))  # where both see the image, not what is beyond it
    ours, angles = transform((60, 50), rotate=20.0), []
    for seen in levels(ours.augment_batch(image.expand(20, -1, -1, -1), ours.draws(range(20)))):
        error = {
            angle: (F.rotate(image, angle, InterpolationMode.BILINEAR).float() - seen)[middle].abs().mean().item()
            for angle in torch.linspace(-25, 25, 101).tolist()
        }
        best = min(error, key=error.__getitem__)
        assert error[best] < 0.7
        angles.append(best)
    assert -20.5 <= min(angles) < -10
    assert 10 < max(angles) <= 20.5


@pytest.mark.parametrize("whole", [False, True])
def test_images_are_flipped_with_their_probability(whole: bool) -> None:
    image, ours = picture(16, 16), transform((16, 16), flip=0.25)
    seen = levels(ours.augment_batch(image.expand(200, -1, -1, -1), ours.draws(range(200)), whole=whole)).round()
    flipped = sum(torch.equal(one, image.flip(2).float()) for one in seen)
    straight = sum(torch.equal(one, image.float()) for one in seen)
    assert flipped + straight == 200
    assert 30 < flipped < 70


def test_warped_crops_have_the_area_and_shape_asked_for() -> None:
    height, width = 100, 200
    ours = transform((height, width), crop_scale=[0.3, 0.6])
    images = places(height, width).expand(300, -1, -1, -1)
    seen = levels(ours.augment_batch(images, ours.draws(range(300)), whole=True))
    wide = (seen[:, 0, 50, -2] - seen[:, 0, 50, 1]) * width / (width - 3)
    tall = (seen[:, 1, -2, 100] - seen[:, 1, 1, 100]) * height / (height - 3)
    area, ratio = wide * tall / (height * width), wide / tall
    assert 0.28 < area.min() < 0.35
    assert 0.5 < area.max() < 0.62
    assert 3 / 4 * 0.97 < ratio.min() < 0.8 * 1.1
    assert 1.25 < ratio.max() < 4 / 3 * 1.03
    left, right = seen[:, 0, 50, 1], seen[:, 0, 50, -2]
    assert left.min() < 5 < 195 < right.max() <= 199


EVERYTHING = {"crop_scale": [0.3, 1.0], "flip": 0.5, "rotate": 10.0, "erasing": 0.5}


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("colours", [{"randaugment_ops": 2}, {"color_jitter": 0.4}], ids=["randaugment", "jitter"])
@pytest.mark.parametrize("size", [(40, 40), (160, 120)])
def test_an_image_depends_on_its_draws_alone(size: tuple[int, int], colours: dict[str, object], whole: bool) -> None:
    """Bit for bit, whatever it shares a batch with, at sizes that are worked on in one piece and in several."""
    ours = TrainTransform(size, augment(**EVERYTHING, **colours), Normalize((0.4, 0.5, 0.6), (0.2, 0.3, 0.3)))
    images = torch.stack([picture(*size, seed) for seed in range(40)])
    draws = ours.draws(range(40))
    together = ours.augment_batch(images, draws, whole=whole)
    for first, last in [(0, 1), (3, 5), (7, 40)]:
        assert torch.equal(ours.augment_batch(images[first:last], draws[first:last], whole=whole), together[first:last])
    other = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    assert torch.equal(ours.augment_batch(images[other], draws[other], whole=whole), together[other])
    assert not torch.equal(ours.augment_batch(images[:1], ours.draws([99]), whole=whole), together[:1])


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("changes", [{"randaugment_ops": 2}, {"color_jitter": 0.4}, {"rotate": 0.0}])
def test_nothing_is_asked_of_the_device(changes: dict[str, object], whole: bool) -> None:
    """Tensors of the device ``meta`` have no values."""
    ours = TrainTransform((24, 20), augment(**{**EVERYTHING, **changes}), PLAIN)
    images = torch.empty(16, 3, 24, 20, dtype=torch.uint8, device="meta")
    seen = ours.augment_batch(images, ours.draws(range(16)), whole=whole)
    assert (seen.device.type, seen.dtype, seen.shape) == ("meta", torch.float32, (16, 3, 24, 20))
    mixed, targets = mix(seen, torch.empty(16, dtype=torch.int64, device="meta"), 10, AugmentConfig(), 0)
    assert (mixed.shape, targets.shape) == (seen.shape, (16, 10))


@pytest.mark.parametrize(
    "change",
    [
        {"crop_scale": [0.2, 0.5]},
        {"flip": 1.0},
        {"rotate": 30.0},
        {"color_jitter": 0.4},
        {"randaugment_ops": 2, "randaugment_magnitude": 20, "randaugment_probability": 1.0},
        {"erasing": 1.0},
    ],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.parametrize("whole", [False, True])
def test_each_variation_has_an_effect(change: dict[str, object], whole: bool) -> None:
    image = picture(32, 32)

    def seen(ours: TrainTransform) -> Tensor:
        draws = ours.draws(range(4))
        images = [image if whole else ours.cut(image, draw) for draw in draws]
        return ours.augment_batch(torch.stack(images), draws, whole=whole)

    changed = seen(transform((32, 32), **change))
    assert changed.shape == (4, 3, 32, 32)
    assert (changed - seen(transform((32, 32)))).abs().amax() > 0.05


def test_what_randaugment_moves_into_view_has_the_mean_colour() -> None:
    mean = (0.2, 0.5, 0.7)
    ours = TrainTransform(
        (32, 32), augment(randaugment_ops=1, randaugment_probability=1.0), Normalize(mean, (1.0,) * 3)
    )
    seen = ours.augment_batch(torch.full((60, 3, 32, 32), 255, dtype=torch.uint8), ours.draws(range(60)))
    beyond = seen.abs().amax(1) < 0.5 / 255 + 1e-6  # 0 is the mean
    assert 10 < beyond.flatten(1).any(1).sum() < 40  # 5 of 15 operations move


def test_erasing_is_deits() -> None:
    """Normal noise, after normalisation, in one rectangle of 2 to 33 % of the image with sides of 0.3 to 3.3."""
    n, size = 400, (60, 90)
    ours = TrainTransform(size, augment(erasing=0.25), Normalize((1.0,) * 3, (1.0,) * 3))
    seen = ours.augment_batch(torch.full((n, 3, *size), 255, dtype=torch.uint8), ours.draws(range(n)))
    erased = (seen != 0).any(1)
    assert erased.flatten(1).any(1).float().mean().item() == pytest.approx(0.25, abs=0.06)
    areas, ratios, centres = [], [], []
    for one in erased[erased.flatten(1).any(1)]:
        rows, columns = one.any(1).nonzero()[:, 0], one.any(0).nonzero()[:, 0]
        tall, wide = (int(found[-1] - found[0]) + 1 for found in (rows, columns))
        assert one.sum() == tall * wide  # all of the rectangle
        areas.append(tall * wide / (size[0] * size[1]))
        ratios.append(tall / wide)
        centres.append((rows.float().mean().item() / size[0], columns.float().mean().item() / size[1]))
    assert 0.015 < min(areas) < 0.05
    assert 0.27 < max(areas) < 0.34
    assert 0.28 < min(ratios) < 0.5
    assert 2 < max(ratios) < 3.5
    assert np.mean(centres, axis=0) == pytest.approx([0.5, 0.5], abs=0.06)
    noise = seen[seen != 0]
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    assert noise.std().item() == pytest.approx(1, abs=0.02)
    assert len(noise[:20000].unique()) > 19000


def test_mixup_and_cutmix_mix_images_as_their_targets_say() -> None:
    n, classes = 6, 6
    labels = torch.arange(n)
    images = labels.float().view(n, 1, 1, 1).expand(-1, 3, 16, 16).contiguous()  # each pixel is its label
    kinds = set()
    for seed in range(30):
        mixed, targets = mix(images, labels, classes, augment(mixup=0.8, cutmix=1.0), seed)
        torch.testing.assert_close(targets.sum(1), torch.ones(n))
        torch.testing.assert_close(mixed.mean((1, 2, 3)), targets @ labels.float(), atol=1e-4, rtol=0)
        constant = (mixed.amax((1, 2, 3)) - mixed.amin((1, 2, 3)) < 1e-6).all().item()
        kinds.add("mixup" if constant else "cutmix")
    assert kinds == {"mixup", "cutmix"}


@pytest.mark.parametrize("way", ["mixup", "cutmix"])
def test_an_image_is_mixed_with_the_one_half_a_batch_away(way: str) -> None:
    n = 7
    shares = []
    for seed in range(300):
        _, targets = mix(torch.zeros(n, 3, 32, 32), torch.arange(n), n, augment(**{way: 1.0}), seed)
        expected = torch.zeros(n, n)
        for image in range(n):
            expected[image, image], expected[image, (image - n // 2) % n] = targets[0, 0], 1 - targets[0, 0]
        torch.testing.assert_close(targets, expected)
        shares.append(targets[0, 0].item())
    if way == "mixup":  # of alpha 1 uniform; a box of cutmix may be cut off at the edge
        assert kstest(shares, "uniform").pvalue > 1e-3
    else:
        assert 0.5 < np.mean(shares) < 0.75


def test_mix_probability() -> None:
    images, labels = torch.rand(4, 3, 8, 8), torch.arange(4)
    mixed = [mix(images, labels, 4, augment(mixup=0.8, mix_probability=0.3), seed)[1].ndim == 2 for seed in range(200)]
    assert math.isclose(sum(mixed) / 200, 0.3, abs_tol=0.1)
    assert mix(images, labels, 4, augment(), 0) == (images, labels)


def test_torchs_random_state_is_left_alone() -> None:
    images, labels = torch.stack([picture(32, 32)] * 2), torch.tensor([0, 1])
    ours = TrainTransform((32, 32), AugmentConfig(rotate=9.0), PLAIN)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = ours.augment_batch(images, ours.draws([5, 6]), whole=True)
    mixed = mix(first, labels, 2, AugmentConfig(), 7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)  # nor does it have an effect
    assert torch.equal(ours.augment_batch(images, ours.draws([5, 6]), whole=True), first)
    assert torch.equal(mix(first, labels, 2, AugmentConfig(), 7)[0], mixed[0])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("randaugment_magnitude", 31),
        ("randaugment_std", -0.5),
        ("randaugment_probability", 1.5),
        ("repeats", 0),
        ("erasing", -0.1),
    ],
)
def test_settings_out_of_range_are_refused(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"augment.{key} is {value}; "):
        AugmentConfig(**{key: value})  # type: ignore[arg-type]
