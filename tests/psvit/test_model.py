"""The network against timm's DeiT, against torch's own layers, and against itself at other sizes."""

import pytest
import torch
from torch import nn

from psvit.arch import Architecture, NetworkSpec
from psvit.layers import BasicLayer, DropPath, SharingLayer, TokenPooling
from psvit.model import PSViT, drop_path_rates
from psvit.zoo import NETWORKS, SPACES

timm = pytest.importorskip("timm")


def make_noisy(module: nn.Module) -> None:
    """Weights far from their initial ones, so that nothing is hidden by zeros and ones."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("size", ["tiny", "small", pytest.param("base", marks=pytest.mark.slow)])
def test_deit_gives_timms_logits_from_timms_weights(size: str) -> None:
    theirs = timm.create_model(f"deit_{size}_patch16_224").eval()
    make_noisy(theirs)
    ours = PSViT(*NETWORKS[f"deit_{size}_16"]).eval()
    weights = {name.replace("blocks.", "stages.0."): tensor for name, tensor in theirs.state_dict().items()}
    ours.load_state_dict(weights)
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), atol=1e-5, rtol=1e-5)


def test_explicit_and_fused_attention_agree() -> None:
    layer = BasicLayer(24, heads=3, mlp_ratio=2).eval()
    make_noisy(layer)
    x = torch.randn(5, 7, 24)
    fused, none = layer(x)
    assert none is None
    for kept in range(1, 6):
        out, attention_map = layer(x, kept=kept)
        torch.testing.assert_close(out, fused, atol=1e-6, rtol=1e-5)
        assert attention_map.shape == (kept, 3, 7, 7)
        torch.testing.assert_close(attention_map.sum(-1), torch.ones(kept, 3, 7))


@pytest.mark.parametrize("training", [False, True])
def test_a_sharing_layer_with_the_basic_layers_weights_and_map_is_that_layer(training: bool) -> None:
    basic, sharing = BasicLayer(24, 3, 2).train(training), SharingLayer(24, 3, 2).train(training)
    make_noisy(basic)
    weights = basic.state_dict()
    for kind in ("weight", "bias"):
        weights[f"attn.v.{kind}"] = weights.pop(f"attn.qkv.{kind}")[48:]
    sharing.load_state_dict(weights)
    x = torch.randn(2, 7, 24)
    out, maps = basic(x, kept=2)
    assert maps.shape == ((2, 7, 2, 3, 8) if training else (2, 3, 7, 7))
    torch.testing.assert_close(sharing(x, maps), out)
    torch.testing.assert_close(basic.share(x, maps), out)
    sharing.load_state_dict(basic.sharing_weights())
    torch.testing.assert_close(sharing(x, maps), out)


def test_training_and_eval_mode_compute_the_same_function_and_gradients() -> None:
    """Maps are handed on as factors in one and written out in the other."""
    network = PSViT(SPACES["1d_mini_4"], Architecture.parse("BSS-BBS-BSB"))
    make_noisy(network)
    images = torch.randn(3, 3, 32, 32)
    results = []
    for training in (True, False):
        network.zero_grad()
        logits = network.train(training)(images)
        logits.square().sum().backward()
        results.append((logits.detach(), {name: p.grad.clone() for name, p in network.named_parameters()}))
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-5, rtol=1e-5)
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(gradient, results[1][1][name], atol=1e-4, rtol=1e-3, msg=name)


def test_checkpointed_layers_give_the_same_gradients() -> None:
    """Drop path draws the same for both passes of a checkpointed layer."""
    plain = PSViT(SPACES["2d_mini_4"], Architecture.parse("BSB-BB-BS"), drop_path=0.3)
    make_noisy(plain)
    images = torch.randn(5, 3, 32, 32)

    def gradients() -> list[torch.Tensor]:
        plain.zero_grad()
        torch.manual_seed(1)
        plain(images).square().sum().backward()
        return [p.grad.clone() for p in plain.parameters()]

    expected = gradients()
    plain.set_grad_checkpointing()
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(gradients(), expected, strict=True))


def test_drop_path_keeps_the_mean_and_drops_whole_images() -> None:
    drop = DropPath(0.25)
    x = torch.ones(4000, 3, 2)
    torch.manual_seed(0)
    out = drop(x)
    assert set(out.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert (out == out[:, :1, :1]).all()
    assert abs(out.mean() - 1) < 4 * (0.25 / 0.75 / 4000) ** 0.5
    assert drop.eval()(x) is x
    assert DropPath(0.0)(x) is x
    assert not drop.state_dict()


def test_depths_of_parameters_for_layer_wise_learning_rates() -> None:
    depths = PSViT(SPACES["1d_mini_4"], Architecture.parse("BS-B-BBB")).layer_depths()
    assert {depths[name] for name in ("patch_embed.proj.weight", "pos_embed", "cls_token")} == {0}
    assert [depths[f"stages.{at}.norm1.weight"] for at in ("0.0", "0.1", "1.0", "2.0", "2.2")] == [1, 2, 3, 4, 6]
    assert [depths[f"pools.{number}.conv.weight"] for number in (0, 1)] == [3, 4]
    assert depths["norm.weight"] == depths["head.bias"] == 7


def test_sharing_layers_in_a_row_use_the_nearest_basic_layers_map() -> None:
    network = PSViT(SPACES["1d_mini_4"], Architecture.parse("BBSS-B-B")).eval()
    make_noisy(network)
    x = torch.randn(2, 65, 32)
    first, second, third, fourth = network.stages[0]
    y, _ = first(x)
    y, attention_map = second(y, kept=2)
    y = fourth(third(y, attention_map), attention_map)
    torch.testing.assert_close(network.run_stage(0, [*zip("BBSS", network.stages[0], strict=True)], x), y)


def test_pooling_is_a_strided_convolution_of_the_sequence_or_the_grid() -> None:
    x = torch.randn(2, 15, 8)
    one = TokenPooling("1d", 8, 12, kernel=3)
    out, grid = one(x, (1, 15))
    assert grid == (1, 8)
    padded = torch.nn.functional.pad(x, (0, 0, 1, 1))
    taps = torch.stack([one.conv.weight[:, :, tap] for tap in range(3)])
    by_hand = sum(padded[:, tap : tap + 15 : 2] @ taps[tap].T for tap in range(3)) + one.conv.bias
    torch.testing.assert_close(out, by_hand)
    two = TokenPooling("2d", 8, 12, kernel=3)
    out, grid = two(x, (3, 5))
    assert grid == (2, 3)
    image = x.transpose(1, 2).reshape(2, 8, 3, 5)
    torch.testing.assert_close(out.transpose(1, 2).reshape(2, 12, 2, 3), two.conv(image))


@pytest.mark.parametrize("pooling", ["max", "average"])
def test_other_poolings_are_the_window_and_a_linear_map(pooling: str) -> None:
    x = torch.randn(2, 15, 8)
    for kind, before, after in (("1d", (1, 15), (1, 8)), ("2d", (3, 5), (2, 3))):
        pool = TokenPooling(kind, 8, 12, kernel=3, pooling=pooling)
        out, grid = pool(x, before)
        assert grid == after
        image = x.transpose(1, 2).reshape(2, 8, *before)
        reduced = torch.empty(2, 8, *after)
        for row in range(after[0]):
            for column in range(after[1]):  # the window around every second token, cut at the border
                rows = slice(max(0, 2 * row - 1), 2 * row + 2) if kind == "2d" else slice(0, 1)
                window = image[:, :, rows, max(0, 2 * column - 1) : 2 * column + 2]
                reduced[:, :, row, column] = window.amax((2, 3)) if pooling == "max" else window.mean((2, 3))
        weight = pool.conv.weight.flatten(1)
        torch.testing.assert_close(out, reduced.flatten(2).transpose(1, 2) @ weight.T + pool.conv.bias)


def test_stages_as_feature_maps() -> None:
    """At every stage the tokens of an image, row by row; the last ones are those that the final norm takes."""
    network = PSViT(SPACES["2d_mini_4"], Architecture.parse("BS-B-BS")).eval()
    make_noisy(network)
    images = torch.randn(2, 3, 32, 48)
    first, second, third = network.stage_maps(images)
    assert [tuple(each.shape) for each in (first, second, third)] == [(2, 32, 8, 12), (2, 48, 4, 6), (2, 64, 2, 3)]
    torch.testing.assert_close(network.norm(third.flatten(2).transpose(1, 2)), network.forward_features(images))
    pooled = network.pools[0].conv(first)
    tokens, _ = network.stages[1][0](pooled.flatten(2).transpose(1, 2))
    torch.testing.assert_close(second, tokens.transpose(1, 2).reshape(2, 48, 4, 6))
    with pytest.raises(ValueError, match=r"1d_mini_4 pools a sequence .* use a PSViT-2D, such as psvit_2d_tiny_8"):
        PSViT(SPACES["1d_mini_4"], Architecture.parse("B-B-B")).stage_maps(images)


def test_maps_need_not_be_written_out() -> None:
    network = PSViT(SPACES["1d_mini_4"], Architecture.parse("BSS-BS-B")).eval()
    make_noisy(network)
    images = torch.randn(2, 3, 32, 32)
    written = network(images)
    handed_on = []
    network.keep_factors()
    share = network.stages[0][1].share
    network.stages[0][1].share = lambda x, given: (handed_on.append(given.shape), share(x, given))[1]
    torch.testing.assert_close(network(images), written, atol=1e-5, rtol=1e-5)
    assert handed_on == [(2, 65, 2, 2, 16)]


@pytest.mark.parametrize("name", ["1d_mini_4", "2d_mini_4"])
def test_other_image_sizes_interpolate_positions(name: str) -> None:
    network = PSViT(SPACES[name], Architecture.parse("BS-BS-B")).eval()
    with torch.no_grad():
        for size in ((32, 32), (48, 20), (4, 4), (100, 36)):
            assert network(torch.randn(2, 3, *size)).shape == (2, 10)
        with pytest.raises(ValueError, match="30x32 px cannot be cut into patches of 4x4"):
            network(torch.randn(2, 3, 30, 32))
        # constant positions stay the same constant on any grid
        network.pos_embed.fill_(0.5)
        torch.testing.assert_close(network._positions((5, 9)), torch.full((1, 45 + (name[0] == "1"), 32), 0.5))


def test_rectangular_networks() -> None:
    spec = NetworkSpec("2d", (24, 40), 4, (8, 16), (2, 4), 5)
    network = PSViT(spec, Architecture.parse("BS-B"))
    assert network.forward_features(torch.randn(2, 3, 24, 40)).shape == (2, 3 * 5, 16)
    assert spec.tokens == (60, 15)


def test_features_head_and_new_classifiers() -> None:
    network = PSViT(SPACES["2d_mini_4"], Architecture.parse("B-B-B")).eval()
    images = torch.randn(2, 3, 32, 32)
    tokens = network.forward_features(images)
    torch.testing.assert_close(network.forward_head(tokens, pre_logits=True), tokens.mean(dim=1))
    torch.testing.assert_close(network(images), network.head(tokens.mean(dim=1)))
    network.reset_classifier(3)
    assert network(images).shape == (2, 3)
    assert network.get_classifier().out_features == 3
    network.reset_classifier(0)
    torch.testing.assert_close(network(images), tokens.mean(dim=1))


def test_drop_path_rises_linearly_and_is_off_in_eval() -> None:
    assert drop_path_rates(5, 0.2) == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    assert drop_path_rates(1, 0.2) == [0]
    network = PSViT(SPACES["2d_mini_4"], Architecture.parse("BB-BS-B"), drop_path=0.5)
    rates = [
        0.0 if layer.drop_path.keep is None else 1 - layer.drop_path.keep.item()
        for stage in network.stages
        for layer in stage
    ]
    assert rates == pytest.approx([0, 0.125, 0.25, 0.375, 0.5])
    make_noisy(network)
    images = torch.randn(4, 3, 32, 32)
    assert not torch.equal(network(images), network(images))
    network.eval()
    assert torch.equal(network(images), network(images))


def test_architecture_must_have_the_networks_stages() -> None:
    with pytest.raises(ValueError, match="has 2 stages, but the network has 3"):
        PSViT(SPACES["2d_mini_4"], Architecture.parse("B-B"))
