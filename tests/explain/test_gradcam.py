"""Grad-CAM, against its formula computed by hand from autograd's gradients of the network as it is."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from psvit.arch import Architecture, NetworkSpec
from psvit.explain.gradcam import captum_attr, check_supported, grad_cam, on_patches, over_image, places
from psvit.layers import TokenPooling
from psvit.model import PSViT
from psvit.zoo import NETWORKS, SPACES

DEIT = replace(NETWORKS["deit_tiny_16"][0], image_size=(16, 24), patch_size=4, widths=(24,), heads=(3,), classes=10)
NETS = {
    "2d": (replace(SPACES["2d_mini_4"], image_size=(32, 48)), "BS-BB-B", "2 × 3 tokens"),
    "2d, sharing last": (replace(SPACES["2d_mini_4"], image_size=(32, 48)), "B-B-BBS", "2 × 3 tokens"),
    "1d": (replace(SPACES["1d_mini_4"], image_size=(32, 48)), "BS-BB-BSB", "24 tokens of a sequence"),
    "1d, sharing last": (replace(SPACES["1d_mini_4"], image_size=(32, 48)), "B-B-BS", "24 tokens of a sequence"),
    "deit": (DEIT, "BBB", "4 × 6 tokens"),
    "deit, sharing last": (DEIT, "BS", "4 × 6 tokens"),
}


def by_hand(features: Tensor, logits: Tensor, first: int = 0) -> Tensor:
    """(B, N, D) or (B, D, R, C) features -> (B, N) or (B, R, C): relu(sum over channels of mean gradient x feature)."""
    (gradients,) = torch.autograd.grad(logits.max(dim=1).values.sum(), features)
    if features.ndim == 3:
        features, gradients = (each[:, first:].transpose(1, 2) for each in (features, gradients))
    weights = gradients.flatten(2).mean(dim=2)
    return torch.einsum("bk,bk...->b...", weights, features).clamp(min=0).detach()


def kept(module: nn.Module, into: bool) -> list[Tensor]:
    """What goes into a module, or comes out of it, at its next call."""
    seen: list[Tensor] = []
    if into:
        module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    else:
        module.register_forward_hook(lambda _, inputs, output: seen.append(output))
    return seen


@pytest.mark.parametrize("name", NETS)
def test_our_networks(name: str) -> None:
    spec, letters, where = NETS[name]
    torch.manual_seed(0)
    network = PSViT(spec, Architecture.parse(letters)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    images = torch.randn(6, 3, *spec.image_size)

    plain = copy.deepcopy(network)
    tokens = kept(plain.stages[-1][-1].norm1, into=True)  # what enters the last layer
    logits = plain(images)
    expected = by_hand(tokens[0], logits, spec.class_tokens).double().numpy()
    if spec.kind == "1d":  # token j is centred on index j 2^s of the first sequence, patch p on p + 1
        centres = 2 ** (spec.stages - 1) * np.arange(1, expected.shape[1] + 1)
        patches = np.arange(1, np.prod(spec.patch_grid) + 1)
        expected = np.stack([np.interp(patches, centres, one) for one in expected])
    grid = spec.patch_grid if spec.kind == "1d" else spec.grids[-1]

    got_logits, maps = grad_cam(network, images)
    torch.testing.assert_close(got_logits, logits.detach())
    assert maps.shape == (6, *grid)
    assert expected.max() > 0
    np.testing.assert_allclose(maps, expected.reshape(maps.shape), rtol=1e-4, atol=1e-5 * expected.max())
    assert places(network, maps) == where


def test_a_resnet_of_torchvision() -> None:
    torch.manual_seed(0)
    network = models.resnet18(num_classes=10).eval()
    images = torch.randn(4, 3, 64, 96)
    plain = copy.deepcopy(network)
    features = kept(plain.layer4, into=False)
    logits = plain(images)
    expected = by_hand(features[0], logits).numpy()
    check_supported(network, "torchvision:resnet18")
    got_logits, maps = grad_cam(network, images)
    torch.testing.assert_close(got_logits, logits.detach())
    assert maps.shape == (4, 2, 3)
    np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-5 * expected.max())
    assert places(network, maps) == "2 × 3 features"


def test_other_networks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"torchvision:mobilenet_v2: explain supports .* resnet18") as raised:
        check_supported(models.mobilenet_v2(), "torchvision:mobilenet_v2")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("size", [(224, 224), (32, 48), (16, 16)])
@pytest.mark.parametrize("stage", [0, 1, 2])
def test_tokens_of_a_pooled_sequence_lie_where_pooling_centred_them(size: tuple[int, int], stage: int) -> None:
    """The pooling layers themselves, made to pass on the middle of their window, say where each token is from."""
    spec = NetworkSpec("1d", size, 4 if size[0] < 224 else 16, (1, 1, 1), (1, 1, 1), 2)
    x, grid = torch.arange(spec.tokens[0]).float().reshape(1, -1, 1), spec.grids[0]
    for _ in range(stage):
        pool = TokenPooling("1d", 1, 1, 3)
        with torch.no_grad():
            pool.conv.weight.copy_(torch.tensor([0.0, 1.0, 0.0]).reshape(1, 1, 3))
            pool.conv.bias.zero_()
            x, grid = pool(x, grid)
    centres = x[0, 1:, 0].double().numpy()  # without the class token
    assert len(centres) == spec.tokens[stage] - 1
    index = np.arange(1, spec.tokens[0])
    expected = np.clip(index, centres[0], centres[-1])  # each patch's own index, but at the ends
    np.testing.assert_allclose(on_patches(centres[None], spec, stage)[0].ravel(), expected)
    values = np.random.default_rng(0).random((3, len(centres)))
    slow = [np.interp(index, centres, row).reshape(spec.patch_grid) for row in values]
    np.testing.assert_allclose(on_patches(values, spec, stage), slow)


def test_maps_over_images_are_scaled_each_on_its_own() -> None:
    maps = np.array([[[0.0, 2.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]], [[3.0, 3.0], [3.0, 3.0]]])
    over = over_image(maps, (8, 12))
    assert over.shape == (3, 8, 12)
    assert over[0, 0, -1] == pytest.approx(1)
    assert over[0, -1, 0] == pytest.approx(0.5)
    assert not over[1].any()
    np.testing.assert_allclose(over[2], 1)


def test_without_captum_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.raises(ValueError, match="pip install captum") as raised:
        captum_attr()
    assert "\n" not in str(raised.value)
