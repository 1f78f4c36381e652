"""The detector: sizes, images of any shape, and what it adds to torchvision's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign

from psvit.arch import Architecture
from psvit.archfile import ArchFile
from psvit.data.images import IMAGENET_MEAN, IMAGENET_STD
from psvit.detection.config import DetectRecipe, HeadConfig
from psvit.detection.model import Detector, make_detector
from psvit.engine.optim import adamw, parameter_groups
from psvit.networks import find_network
from psvit.zoo import SPACES

SMALL = HeadConfig(fpn_channels=8, box_width=16, mask_layers=1, mask_width=8, proposals=30)
MINI = "2d_mini_4:BS-B-B"


def recipe(**settings: Any) -> DetectRecipe:
    return DetectRecipe(**{"min_sizes": [48], "max_size": 96, "box_samples": 16, "drop_path": 0.0} | settings)


def detector(arch: str = MINI, **settings: Any) -> Detector:
    torch.manual_seed(0)
    return make_detector(find_network(arch), 3, SMALL, recipe(**settings))


def objects(height: int, width: int, **others: Any) -> dict[str, Any]:
    """One object in the upper left quarter."""
    mask = torch.zeros(1, height, width, dtype=torch.uint8)
    mask[:, : -(-height // 2), : -(-width // 2)] = 1
    box = torch.tensor([[0.0, 0.0, -(-width // 2), -(-height // 2)]])
    return {"boxes": box, "labels": torch.tensor([2]), "masks": mask, **others}


def nothing(height: int, width: int) -> dict[str, Any]:
    masks = torch.zeros(0, height, width, dtype=torch.uint8)
    return {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "masks": masks}


@pytest.mark.parametrize("arch", [MINI, "torchvision:resnet18"])
@pytest.mark.parametrize("sizes", [[(64, 64), (37, 51)], [(1, 1000)], [(1000, 1), (20, 30)], [(3, 2)]])
def test_images_of_any_shape(arch: str, sizes: list[tuple[int, int]]) -> None:
    model = detector(arch)
    images = [torch.rand(3, *size) for size in sizes]
    losses = model(images, [objects(*size) for size in sizes])
    assert set(losses) == {f"loss_{part}" for part in ("classifier", "box_reg", "mask", "objectness", "rpn_box_reg")}
    assert all(loss.isfinite() for loss in losses.values())
    with torch.no_grad():
        found = model.eval()(images)
    for (height, width), each in zip(sizes, found, strict=True):
        assert each["masks"].shape == (len(each["boxes"]), 1, height, width)
        assert (each["boxes"] >= 0).all()
        assert (each["boxes"] <= torch.tensor([width, height, width, height])).all()
        assert set(each["labels"].tolist()) <= {1, 2, 3}


def test_images_without_objects_teach_as_well() -> None:
    model = detector()
    optimiser = adamw(model, 0.05)
    for group in optimiser.param_groups:
        group["lr"] = 1e-3
    images = [torch.rand(3, 50, 60), torch.rand(3, 40, 40)]
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    for targets in ([nothing(50, 60), nothing(40, 40)], [nothing(50, 60), objects(40, 40)]):
        losses = model(images, targets)
        sum(losses.values()).backward()  # type: ignore[union-attr]
        # a process that left out a part would keep the others waiting
        assert all(weight.grad is not None for weight in model.parameters())
        assert all(loss.isfinite() for loss in losses.values())
        optimiser.step()
        optimiser.zero_grad()
    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert changed == before.keys()


@pytest.mark.parametrize("size", [(48, 64), (300, 200), (80, 301), (37, 51)])
def test_images_are_resized_as_torchvision_does(size: tuple[int, int]) -> None:
    ours = detector().transform
    theirs = GeneralizedRCNNTransform(48, 96, [*IMAGENET_MEAN], [*IMAGENET_STD])
    image = torch.rand(3, *size)
    made, expected = ours([image], [objects(*size)]), theirs([image], [objects(*size)])
    assert made[0].image_sizes == expected[0].image_sizes
    torch.testing.assert_close(made[0].tensors, expected[0].tensors, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(made[1][0]["boxes"], expected[1][0]["boxes"])
    assert (made[1][0]["masks"] != expected[1][0]["masks"]).float().mean() < 0.02  # rounding of a border


def test_each_image_gets_the_size_it_is_told_in_training_and_the_largest_afterwards() -> None:
    model = detector(min_sizes=[32, 64])
    images, sizes = [torch.rand(3, 100, 50)] * 2, []
    model.backbone.register_forward_pre_hook(lambda _, given: sizes.append(tuple(given[0].shape)))
    told = [objects(100, 50, short_side=32), objects(100, 50, short_side=40)]
    assert model.transform(images, told)[0].image_sizes == [(64, 32), (80, 40)]
    model(images, told)
    assert sizes.pop() == (2, 3, 96, 64), "padded to a multiple of 32"
    model.eval()(images)
    assert sizes.pop() == (2, 3, 96, 64)
    assert model.transform(images)[0].image_sizes == [(96, 48), (96, 48)], "64 px, but 96 at most"


@pytest.mark.parametrize(("patch", "multiple"), [(4, 32), (8, 32), (16, 64), (7, 56)])
def test_batches_are_padded_to_what_all_levels_divide(patch: int, multiple: int) -> None:
    spec = replace(SPACES["2d_mini_4"], patch_size=patch, image_size=(2 * patch, 2 * patch))
    model = make_detector(ArchFile(spec, Architecture.parse("B-B-B")), 3, SMALL, recipe())
    assert model.transform.size_divisible == multiple
    assert multiple % (patch * 4) == 0
    sides = [features.shape[2:] for features in model.backbone(torch.rand(1, 3, multiple, 2 * multiple)).values()]
    assert sides[:3] == [(multiple // patch >> level, 2 * multiple // patch >> level) for level in range(3)]


def test_anchors_go_by_stride() -> None:
    ours = detector().rpn.anchor_generator
    assert ours.sizes == ((16,), (32,), (64,), (128,), (256,)), "of patches of 4 px"
    resnet = detector("torchvision:resnet18").rpn.anchor_generator
    assert resnet.sizes == ((32,), (64,), (128,), (256,), (512,)), "torchvision's"
    tiny = make_detector(find_network("psvit_2d_tiny_8"), 3, SMALL, recipe()).rpn.anchor_generator
    assert tiny.sizes == resnet.sizes, "equal anchors, or a comparison of backbones compares anchors"
    assert ours.aspect_ratios[0] == resnet.aspect_ratios[0] == (0.5, 1.0, 2.0)


@pytest.mark.parametrize("arch", [MINI, "torchvision:resnet18"])
def test_half_precision_does_not_round_pixels(arch: str) -> None:
    """Heads and layers compute in bfloat16, which has eight bits; where boxes are takes more."""
    model, images = detector(arch, min_sizes=[32], max_size=600).eval(), [torch.rand(3, 32, 600)]
    seen: dict[torch.dtype, list[Tensor]] = {}
    model.rpn.anchor_generator.register_forward_hook(lambda *call: seen.setdefault(kind, []).extend(call[2]))
    for kind in (torch.float32, torch.bfloat16):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
            (found,) = model(images)
        assert all(found[key].dtype == torch.float32 for key in ("boxes", "scores", "masks"))
    assert torch.equal(*seen[torch.float32], *seen[torch.bfloat16])
    boxes = found["boxes"]
    assert (boxes[boxes > 256] != boxes[boxes > 256].bfloat16()).float().mean() > 0.9
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.train()(images, [objects(32, 600)])
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())


def test_regions_are_cut_out_as_torchvision_does() -> None:
    model = detector()
    maps = model.backbone(torch.rand(1, 3, 64, 96))
    boxes = [torch.tensor([[3.0, 4.0, 30.0, 40.0], [0.0, 0.0, 96.0, 64.0], [50.0, 20.0, 55.0, 30.0]])]
    ours = model.roi_heads.box_roi_pool
    theirs = MultiScaleRoIAlign(["0", "1", "2"], 7, 2)
    assert torch.equal(ours(maps, boxes, [(64, 96)]), theirs(maps, boxes, [(64, 96)]))
    assert ours.scales == theirs.scales
    narrow = MultiScaleRoIAlign(["0", "1", "2"], 7, 2)
    narrow(maps, boxes, [(1, 96)])
    assert narrow.scales != ours.scales, "what torchvision would make of a first image of one row"


def losses_of(model: Detector) -> dict[str, Tensor]:
    torch.manual_seed(1)
    images = [torch.rand(3, 48, 48)]
    losses: dict[str, Tensor] = model(images, [objects(48, 48)])
    return losses


def test_what_the_engine_asks_of_a_network() -> None:
    model = detector()
    assert "backbone.body.pos_embed" in model.no_weight_decay()
    depths = model.layer_depths()
    assert depths.keys() == dict(model.named_parameters()).keys()
    assert depths["backbone.body.patch_embed.proj.weight"] == depths["backbone.body.pos_embed"] == 0
    assert depths["backbone.body.stages.0.1.norm1.weight"] == 2
    assert depths["backbone.body.pools.1.conv.weight"] == depths["backbone.body.stages.2.0.norm1.weight"] == 4
    above = {depth for name, depth in depths.items() if not name.startswith("backbone.body.")}
    assert above == {5}, "four layers, and all else above them"
    scales = {group["lr_scale"] for group in parameter_groups(model, 0.05, layer_decay=0.5)}
    assert scales == {0.5**above for above in range(6)}
    plain = losses_of(model)
    model.set_grad_checkpointing()
    kept = losses_of(model)
    assert all(torch.equal(plain[name], kept[name]) for name in plain)


def test_compiled_layers_give_the_same_losses() -> None:
    model = detector()
    plain = losses_of(model)
    model.compile_layers(backend="eager")
    torch.testing.assert_close(losses_of(model), plain)


def test_a_resnet_cannot_do_what_only_psvit_can() -> None:
    model = detector("torchvision:resnet18")
    assert model.no_weight_decay() == set()
    for ask, without in (
        (model.set_grad_checkpointing, "recipe.checkpoint_activations=false"),
        (model.compile_layers, "recipe.compile=false"),
        (model.layer_depths, "recipe.layer_decay=null"),
    ):
        with pytest.raises(ValueError, match=f"only a PSViT backbone can do this; say {without}"):
            ask()


def test_state_goes_from_one_to_another() -> None:
    first, second = detector(), make_detector(find_network(MINI), 3, SMALL, recipe())
    images = [torch.rand(3, 60, 80)]
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        found, again = first.eval()(images)[0], second.eval()(images)[0]
    assert len(found["boxes"])
    assert all(torch.equal(found[key], again[key]) for key in found)


def test_faulty_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"min_sizes=\[3, 48\]: 3 px is less than a patch of 2d_mini_4, 4 px"):
        detector(min_sizes=[3, 48])
    for settings, message in (
        ({"min_sizes": []}, r"recipe.min_sizes is \[\]"),
        ({"max_size": 32}, "recipe.max_size is 32, less than the shorter side 48"),
        ({"flip": 1.5}, "recipe.flip is 1.5"),
        ({"drop_path": 1.0}, "recipe.drop_path is 1.0"),
        ({"box_samples": 0}, "recipe.box_samples is 0"),
        ({"epochs": 0}, "recipe.epochs is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            recipe(**settings)
    with pytest.raises(ValueError, match=r"heads.mask_layers is 0"):
        HeadConfig(mask_layers=0)
