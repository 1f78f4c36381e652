"""Feature pyramids: shapes, weights, and what cannot carry one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from psvit.arch import Architecture
from psvit.archfile import ArchFile
from psvit.detection.backbone import find_backbone, make_backbone
from psvit.networks import find_network
from psvit.weights import save_weights
from psvit.zoo import SPACES

MINI = "2d_mini_4:BS-BSB-B"


def stepwise(side: int, times: int) -> int:
    """A side after so many convolutions of kernel 3, padding 1 and stride 2, each place counted."""
    for _ in range(times):
        side = len(range(-1, side - 1, 2))
    return side


@pytest.mark.parametrize("size", [(32, 32), (64, 128), (36, 52), (4, 4), (4, 100)])
def test_maps_have_the_strides_that_are_told(size: tuple[int, int]) -> None:
    backbone = make_backbone(find_network(MINI), channels=24)
    assert backbone.strides == (4, 8, 16, 32, 64)
    maps = backbone(torch.rand(2, 3, *size))
    assert list(maps) == ["0", "1", "2", "pool", "pool2"]
    for level, features in enumerate(maps.values()):
        assert features.shape == (2, 24, *(stepwise(side // 4, level) for side in size))
        if all(side % 64 == 0 for side in size):
            assert features.shape[2:] == tuple(side // backbone.strides[level] for side in size)


def test_patches_of_8_px_give_strides_8_to_128() -> None:
    backbone = make_backbone(find_network("2d_tiny_8:B-B-B"), channels=8)
    assert backbone.strides == (8, 16, 32, 64, 128)
    maps = backbone(torch.rand(1, 3, 64, 128))
    assert [tuple(features.shape[2:]) for features in maps.values()] == [(8, 16), (4, 8), (2, 4), (1, 2), (1, 1)]


@pytest.mark.parametrize("size", [(32, 32), (48, 72)])
def test_the_pyramid_stands_on_what_the_classifier_sees(size: tuple[int, int]) -> None:
    """Its last map is the network's own final features, norm included, and its others are those of the stages."""
    network = find_network(MINI)
    torch.manual_seed(0)
    classifier = network.build().eval()
    torch.manual_seed(0)
    backbone = make_backbone(network, channels=8).eval()
    images, seen = torch.rand(2, 3, *size), []
    backbone.fpn.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        backbone(images)
        final, stages = classifier.forward_features(images), classifier.stage_maps(images)
    (maps,) = seen
    torch.testing.assert_close(maps["2"].flatten(2).transpose(1, 2), final, atol=1e-5, rtol=1e-5)
    for level in range(2):  # the new norms still scale by one and shift by zero
        normed = nn.functional.layer_norm(stages[level].movedim(1, -1), stages[level].shape[1:2], eps=1e-6)
        torch.testing.assert_close(maps[str(level)].movedim(1, -1), normed, atol=1e-5, rtol=1e-5)


def test_every_parameter_learns() -> None:
    """Processes that train together would wait for one that does not."""
    backbone = make_backbone(find_network(MINI), channels=8)
    torch.stack([features.square().mean() for features in backbone(torch.rand(1, 3, 64, 64)).values()]).sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in backbone.parameters())


def save_classifier(path: Path, network: nn.Module, about: dict[str, object]) -> dict[str, Tensor]:
    save_weights(path, network, about)
    return network.state_dict()


def test_it_starts_from_a_classifier_of_other_classes(tmp_path: Path) -> None:
    arch = ArchFile(SPACES["2d_mini_4"].for_data(3, (40, 32)), Architecture.parse("BS-BSB-B"))
    state = save_classifier(tmp_path / "w.safetensors", arch.build(), arch.about())
    same = make_backbone(arch, 8, start=tmp_path / "w.safetensors")
    expected = {name: tensor for name, tensor in state.items() if not name.startswith(("head.", "norm."))}
    assert {name: tensor.tolist() for name, tensor in same.body.state_dict().items()} == {
        name: tensor.tolist() for name, tensor in expected.items()
    }
    assert torch.equal(same.norms[-1].weight, state["norm.weight"])
    other = make_backbone(find_network(MINI), 8, start=tmp_path / "w.safetensors")  # of 10 classes at 32 px
    for name, tensor in other.body.state_dict().items():
        assert tensor.shape == expected[name].shape or name == "pos_embed"
        assert name == "pos_embed" or torch.equal(tensor, expected[name])
    with pytest.raises(ValueError, match="weights of another network"):
        make_backbone(find_network("2d_mini_4:B-B-B"), 8, start=tmp_path / "w.safetensors")


def test_a_resnet_is_torchvisions() -> None:
    ours = make_backbone(find_network("torchvision:resnet18"), channels=256)
    theirs = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5)
    theirs.load_state_dict(ours.state_dict())
    images = torch.rand(2, 3, 64, 96)
    maps, expected = ours(images), theirs(images)
    assert list(maps) == list(expected) == ["0", "1", "2", "3", "pool"]
    for level, (name, features) in enumerate(maps.items()):
        assert torch.equal(features, expected[name])
        assert features.shape[2:] == tuple(-(-side // ours.strides[level]) for side in (64, 96))


def test_a_resnet_from_weights_is_frozen_where_torchvisions_is(tmp_path: Path) -> None:
    classifier = resnet18(num_classes=7)
    classifier.bn1.running_mean += 0.5
    state = save_classifier(tmp_path / "w.safetensors", classifier, {})
    network = find_backbone("torchvision:resnet18")
    ours = make_backbone(network, 256, start=tmp_path / "w.safetensors", frozen=True)
    theirs = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=3)
    learns = [{name for name, weight in each.named_parameters() if weight.requires_grad} for each in (ours, theirs)]
    assert learns[0] == learns[1]
    assert isinstance(ours.body.bn1, FrozenBatchNorm2d)
    body = ours.body.state_dict()
    assert body.keys() == theirs.body.state_dict().keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in body.items())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("1d_mini_4:B-B-B", r"1d_mini_4:B-B-B is a 1d network: .* use a 2d network: .*psvit_2d_tiny_8"),
        ("deit_tiny_16", r"deit_tiny_16 is a 1d network"),
        (
            "torchvision:vgg11",
            r"torchvision:vgg11 cannot be a detector's backbone; .* psvit_2d_tiny_8.*:resnet18, .*resnet101",
        ),
        ("torchvision:resnet19", r"torchvision has no such classifier"),
        ("2d_tiny_8", r"give its layers"),
    ],
)
def test_what_is_no_backbone_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        find_backbone(name)
    assert "\n" not in str(caught.value)
