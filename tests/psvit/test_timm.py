"""Our networks as models of timm: its contract, and the weights of a hub folder against the network that wrote them."""

import json
from pathlib import Path

import pytest
import timm
import torch
from timm.data import resolve_data_config
from timm.models._manipulate import group_parameters
from timm.optim import param_groups_layer_decay

import psvit.timm
from psvit.archfile import ArchFile, save_arch
from psvit.data.config import DataConfig
from psvit.data.data import open_data
from psvit.networks import find_arch
from psvit.retrain.hub import write_hub
from psvit.timm import NAMES, TimmPSViT
from psvit.weights import save_weights


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ArchFile, torch.nn.Module]:
    """A hub folder, what it describes, and the network whose weights it has."""
    run = tmp_path_factory.mktemp("run")
    arch = find_arch("2d_mini_4:BSB-BB-BS").meets(open_data(DataConfig()).trained_on((32, 32)))
    torch.manual_seed(0)
    network = arch.build().eval()
    torch.nn.init.normal_(network.head.weight)
    save_arch(run / "arch.json", arch)
    save_weights(run / "model.safetensors", network, arch.about())
    write_hub(run / "hub", run, arch, 300, 359, "digits")
    return run / "hub", arch, network


def images(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NAMES)
def test_a_named_network_is_ours(name: str) -> None:
    model = timm.create_model(name).eval()
    assert isinstance(model, TimmPSViT)
    assert sum(weight.numel() for weight in model.parameters()) == find_arch(name).cost.params
    assert model.pretrained_cfg["architecture"] == name
    assert model.feature_info[-1]["num_chs"] == model.num_features == model.head_hidden_size


def test_it_is_found_by_name() -> None:
    assert timm.list_models("psvit_*") == sorted(NAMES, key=timm.models._registry._natural_key)


def test_trained_weights_give_the_logits_of_the_network_that_wrote_them(
    trained: tuple[Path, ArchFile, torch.nn.Module],
) -> None:
    hub, arch, network = trained
    model = timm.create_model(f"local-dir:{hub}", pretrained=True).eval()
    x = images(3, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model(x), network(x))
        assert torch.equal(TimmPSViT.from_pretrained(hub).eval()(x), network(x))  # of huggingface_hub
    known = arch.trained_on
    assert known is not None
    config = resolve_data_config(model=model)
    assert tuple(config["input_size"]) == (3, 32, 32)
    assert (tuple(config["mean"]), tuple(config["std"])) == (known.preprocessing.mean, known.preprocessing.std)
    assert model.pretrained_cfg["label_names"] == list(known.class_names)


def test_trained_weights_fit_other_classes_channels_and_sizes(trained: tuple[Path, ArchFile, torch.nn.Module]) -> None:
    hub, _, network = trained
    name = f"local-dir:{hub}"
    classes = timm.create_model(name, pretrained=True, num_classes=4)
    assert classes(images(2, 3, 32, 32)).shape == (2, 4)
    assert torch.equal(classes.patch_embed.proj.weight, network.patch_embed.proj.weight)
    grey = timm.create_model(name, pretrained=True, in_chans=1).eval()
    one = images(2, 1, 32, 32)
    with torch.no_grad():  # timm adds up the weights of the channels
        torch.testing.assert_close(grey(one), network(one.expand(-1, 3, -1, -1)))
        larger = timm.create_model(name, pretrained=True, img_size=(48, 64)).eval()
        assert larger.pos_embed.shape[1] == 12 * 16
        torch.testing.assert_close(larger(images(2, 3, 48, 64)), network(images(2, 3, 48, 64)))  # which interpolates
        larger.set_input_size(img_size=32)
        assert larger.pos_embed.shape == network.pos_embed.shape
    with pytest.raises(ValueError, match="patch_size is 4 and cannot be changed to 8"):
        larger.set_input_size(patch_size=8)


def test_the_config_holds_the_whole_network(trained: tuple[Path, ArchFile, torch.nn.Module]) -> None:
    hub, arch, _ = trained
    config = json.loads((hub / "config.json").read_text())
    model = TimmPSViT(**config["model_args"])
    assert (model.spec, model.architecture) == (arch.spec, arch.architecture)


@pytest.mark.parametrize("name", ["psvit_1d_tiny_16", "psvit_2d_tiny_8"])
def test_heads_and_pooling(name: str) -> None:
    x = images(2, 3, 224, 224)
    model = timm.create_model(name, num_classes=7).eval()
    tokens = model.forward_features(x)
    assert (model.num_classes, model.forward_head(tokens).shape) == (7, (2, 7))
    features = model.forward_head(tokens, pre_logits=True)
    model.reset_classifier(0)
    assert model.num_classes == 0
    torch.testing.assert_close(model(x), features)
    torch.testing.assert_close(tokens.mean(dim=1), features)
    model.reset_classifier(0, "")
    torch.testing.assert_close(model(x), tokens)
    assert timm.create_model(name, num_classes=0, global_pool="")(x).shape == tokens.shape
    if "1d" in name:
        model.reset_classifier(0, "token")
        torch.testing.assert_close(model(x), tokens[:, 0])
    else:
        with pytest.raises(ValueError, match="global_pool is 'token'"):
            model.reset_classifier(0, "token")


def test_features_of_the_stages() -> None:
    x = images(1, 3, 224, 224)
    model = timm.create_model("psvit_2d_tiny_8").eval()
    expected = model.stage_maps(x)
    last, maps = model.forward_intermediates(x)
    torch.testing.assert_close(last, model.forward_features(x))
    assert all(torch.equal(a, b) for a, b in zip(maps, expected, strict=True))
    (tokens,) = model.forward_intermediates(x, indices=[1], output_fmt="NLC", intermediates_only=True, stop_early=True)
    assert torch.equal(tokens, expected[1].flatten(2).transpose(1, 2))
    (normed,) = model.forward_intermediates(x, indices=1, norm=True, output_fmt="NLC", intermediates_only=True)
    torch.testing.assert_close(normed, last)

    backbone = timm.create_model("psvit_2d_tiny_8", features_only=True, out_indices=(0, 1)).eval()
    backbone.load_state_dict(model.state_dict(), strict=False)
    found = backbone(x)
    assert backbone.feature_info.channels() == [each.shape[1] for each in found] == [96, 192]
    assert backbone.feature_info.reduction() == [224 // each.shape[2] for each in found] == [8, 16]
    assert not [name for name, _ in backbone.named_parameters() if "stages.2" in name or "pools.1" in name]


def test_a_sequence_has_tokens_and_no_feature_maps() -> None:
    model, x = timm.create_model("psvit_1d_tiny_16"), images(1, 3, 224, 224)
    with pytest.raises(ValueError, match="form no feature map; use output_fmt='NLC'"):
        model.forward_intermediates(x)
    stages = model.forward_intermediates(x, output_fmt="NLC", intermediates_only=True)
    assert [each.shape for each in stages] == [(1, 197, 192), (1, 99, 288), (1, 50, 384)]


def test_learning_rates_by_layer() -> None:
    model = timm.create_model("psvit_2d_tiny_8")  # 3, 3 and 4 layers
    groups = group_parameters(model, model.group_matcher(), reverse=True)  # name -> group
    assert groups == model.layer_depths()
    coarse = group_parameters(model, model.group_matcher(coarse=True), reverse=True)
    names = ("pos_embed", "stages.0.2.norm1.bias", "pools.0.conv.bias", "stages.1.2.mlp.fc1.bias", "norm.bias")
    assert [coarse[name] for name in names] == [0, 1, 2, 2, 4]
    scales = {group["lr_scale"] for group in param_groups_layer_decay(model, layer_decay=0.5)}
    assert scales == {0.5**power for power in range(12)}
    with pytest.raises(ValueError, match="global_pool"):
        psvit.timm.TimmPSViT({"name": "2d_mini_4"}, "B-B-B", global_pool="max")  # type: ignore[arg-type]
