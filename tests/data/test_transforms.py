import math

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from psvit.data.config import AugmentConfig
from psvit.data.transforms import EvalTransform, Normalize, TrainTransform, mix, warp

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


@pytest.mark.parametrize(("height", "width"), [(300, 411), (511, 300), (64, 64), (256, 256)])
def test_photographs_are_scored_as_is_the_custom(height: int, width: int) -> None:
    custom = v2.Compose([v2.Resize(256, InterpolationMode.BICUBIC, antialias=True), v2.CenterCrop(224)])
    image = picture(height, width)
    seen = PLAIN(EvalTransform((224, 224), photographs=True)([image]))
    torch.testing.assert_close(seen[0], custom(image).float() / 255)


def test_scoring_at_rectangular_sizes_keeps_the_shape_of_a_photograph() -> None:
    row, column = torch.meshgrid(torch.arange(320), torch.arange(640), indexing="ij")
    disk = ((row - 160) ** 2 + (column - 320) ** 2 < 60**2).expand(3, -1, -1).to(torch.uint8) * 255
    seen = PLAIN(EvalTransform((112, 168), photographs=True)([disk]))
    assert seen.shape == (1, 3, 112, 168)
    inside = seen[0, 0] > 0.5
    tall, wide = inside.any(1).sum().item(), inside.any(0).sum().item()
    assert tall == wide
    assert tall == pytest.approx(120 * (112 / 0.875) / 320, abs=1.5)  # the height fits, the width is cut


@pytest.mark.parametrize(("photographs", "size"), [(False, (96, 80)), (True, (32, 48))])
def test_other_images_are_scored_whole(photographs: bool, size: tuple[int, int]) -> None:
    image = picture(50, 60)
    expected = F.resize(image, list(size), interpolation=InterpolationMode.BICUBIC, antialias=True)
    assert torch.equal(EvalTransform(size, photographs)([image])[0], expected)


@pytest.mark.parametrize("image_size", [(24, 30), None], ids=["warp", "torchvision"])
def test_training_without_variation_only_resizes(image_size: tuple[int, int] | None) -> None:
    image = picture(24, 30)
    seen = TrainTransform((48, 60), augment(), PLAIN, image_size)([image], [1])
    kind = InterpolationMode.BILINEAR if image_size else InterpolationMode.BICUBIC
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen[0], F.resize(image, [48, 60], kind).float() / 255, atol=1.01 / 255, rtol=0)


def test_warp_rotates_within_its_limits() -> None:
    image = picture(60, 50)
    middle = (slice(None), slice(12, 48), slice(8, 42))  # where both see the image, not what is beyond it
    angles = []
    for seed in range(20):
        seen = warp(image[None], [seed], (60, 50), augment(rotate=20.0))[0].float()
        error = {
            angle: (F.rotate(image, angle, InterpolationMode.BILINEAR).float() - seen)[middle].abs().mean().item()
            for angle in torch.linspace(-25, 25, 101).tolist()
        }
        best = min(error, key=error.__getitem__)
        assert error[best] < 0.7
        angles.append(best)
    assert -20.5 <= min(angles) < -10
    assert 10 < max(angles) <= 20.5


def test_warp_flips_with_its_probability() -> None:
    image = picture(16, 16)
    seen = warp(image.expand(200, -1, -1, -1), range(200), (16, 16), augment(flip=0.25))
    flipped = sum(torch.equal(one, image.flip(2)) for one in seen)
    straight = sum(torch.equal(one, image) for one in seen)
    assert flipped + straight == 200
    assert 30 < flipped < 70


def test_warp_crops_have_the_area_and_shape_asked_for() -> None:
    # an image whose value tells the place: red is the column, green the row
    height, width = 100, 200
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack([column, row, row]).to(torch.uint8)
    seen = warp(image.expand(300, -1, -1, -1), range(300), (height, width), augment(crop_scale=[0.3, 0.6])).float()
    wide = (seen[:, 0, 50, -2] - seen[:, 0, 50, 1]) * width / (width - 3)
    tall = (seen[:, 1, -2, 100] - seen[:, 1, 1, 100]) * height / (height - 3)
    area, ratio = wide * tall / (height * width), wide / tall
    fits = tall < 99  # a crop as tall as the image has lost some of its area
    assert area.min() > 0.28
    assert area.max() < 0.62
    assert 0.28 < area[fits].min() < 0.35
    assert area.max() > 0.55
    assert 3 / 4 * 0.97 < ratio.min() < 0.8
    assert 1.25 < ratio.max() < 4 / 3 * 1.03
    left, right = seen[:, 0, 50, 1], seen[:, 0, 50, -2]
    assert left.min() < 5 < 195 < right.max() <= 199


@pytest.mark.parametrize("image_size", [(32, 32), None], ids=["warp", "torchvision"])
def test_an_image_depends_on_its_seed_alone(image_size: tuple[int, int] | None) -> None:
    images, seeds = [picture(32, 32, seed) for seed in range(7)], list(range(7))
    transform = TrainTransform((32, 32), augment(crop_scale=[0.5, 1.0], rotate=10.0, flip=0.5), PLAIN, image_size)
    together = transform(images, seeds)
    for index in (0, 3, 6):
        assert torch.equal(transform(images[index : index + 1], seeds[index : index + 1])[0], together[index])
    assert not torch.equal(transform(images[:1], [99])[0], together[0])


@pytest.mark.parametrize(
    "change",
    [
        {"crop_scale": [0.2, 0.5]},
        {"flip": 1.0},
        {"rotate": 30.0},
        {"color_jitter": 0.4},
        {"randaugment_ops": 2, "randaugment_magnitude": 20},
        {"erasing": 1.0},
    ],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.parametrize("image_size", [(32, 32), None], ids=["small images", "any images"])
def test_each_variation_has_an_effect(change: dict[str, object], image_size: tuple[int, int] | None) -> None:
    image = picture(32, 32)

    def seen(config: AugmentConfig) -> Tensor:
        return TrainTransform((32, 32), config, PLAIN, image_size)([image] * 4, [0, 1, 2, 3])

    assert seen(augment(**change)).shape == (4, 3, 32, 32)
    assert (seen(augment(**change)) - seen(augment())).abs().amax() > 0.05


def test_erasing_fills_with_noise_after_normalisation() -> None:
    white = torch.full((3, 64, 64), 255, dtype=torch.uint8)
    transform = TrainTransform((64, 64), augment(erasing=1.0), Normalize((1.0,) * 3, (1.0,) * 3), None)
    noise = transform([white] * 8, range(8))
    noise = noise[noise != 0]
    assert noise.mean().item() == pytest.approx(0, abs=0.05)
    assert noise.std().item() == pytest.approx(1, abs=0.05)


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


def test_mix_probability() -> None:
    images, labels = torch.rand(4, 3, 8, 8), torch.arange(4)
    mixed = [mix(images, labels, 4, augment(mixup=0.8, mix_probability=0.3), seed)[1].ndim == 2 for seed in range(200)]
    assert math.isclose(sum(mixed) / 200, 0.3, abs_tol=0.1)
    assert mix(images, labels, 4, augment(), 0) == (images, labels)


def test_torchs_random_state_is_left_alone() -> None:
    images, labels = [picture(32, 32)] * 2, torch.tensor([0, 1])
    for image_size, config in [((32, 32), augment(rotate=9.0)), (None, AugmentConfig())]:
        torch.manual_seed(3)
        before = torch.get_rng_state()
        first = TrainTransform((32, 32), config, PLAIN, image_size)(images, [5, 6])
        mixed = mix(first, labels, 2, AugmentConfig(), 7)
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(4)  # nor does it have an effect
        assert torch.equal(TrainTransform((32, 32), config, PLAIN, image_size)(images, [5, 6]), first)
        assert torch.equal(mix(first, labels, 2, AugmentConfig(), 7)[0], mixed[0])
