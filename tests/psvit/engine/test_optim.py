import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, MultiStepLR, SequentialLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from psvit.arch import Architecture
from psvit.engine.optim import MovingAverage, learning_rate, parameter_groups
from psvit.model import PSViT
from psvit.zoo import SPACES


@pytest.mark.parametrize(("total", "warmup"), [(40, 7), (40, 0), (40, 1), (5, 5)])
def test_learning_rate_is_torchs_warmup_and_cosine(total, warmup):
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=0.3)
    parts, milestones = [CosineAnnealingLR(optimiser, max(1, total - warmup), eta_min=0.01)], []
    if warmup > 1:
        parts.insert(0, LinearLR(optimiser, start_factor=1 / warmup, total_iters=warmup - 1))
        milestones = [warmup]
    elif warmup == 1:
        parts.insert(0, LinearLR(optimiser, start_factor=1.0, total_iters=1))
        milestones = [1]
    schedule = SequentialLR(optimiser, parts, milestones)
    for step in range(total):
        assert learning_rate(step, total, warmup, 0.3, 0.01) == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-9)
        optimiser.step()
        schedule.step()


@pytest.mark.parametrize("warmup", [0, 4])
def test_steps_instead_of_the_cosine_are_torchs(warmup):
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=0.3)
    schedule = MultiStepLR(optimiser, milestones=[16, 22], gamma=0.1)
    for step in range(24):
        by_torch = optimiser.param_groups[0]["lr"] * min(1, (step + 1) / max(1, warmup))
        assert learning_rate(step, 24, warmup, 0.3, 0.01, decays=[16, 22]) == pytest.approx(by_torch, rel=1e-9)
        optimiser.step()
        schedule.step()


def test_a_warmup_longer_than_the_run_stays_below_the_peak():
    assert [learning_rate(step, 2, 4, 1.0, 0.0) for step in range(2)] == [0.25, 0.5]


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 4, 2)
        self.positions = nn.Parameter(torch.zeros(1, 5, 4))
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)
        self.frozen = nn.Parameter(torch.zeros(2, 2), requires_grad=False)

    def no_weight_decay(self):
        return {"positions"}


def test_matrices_decay_and_the_rest_does_not():
    model = Tokens()
    decayed, free = parameter_groups(model, 0.05)
    names = {id(weight): name for name, weight in model.named_parameters()}
    assert {names[id(weight)] for weight in decayed["params"]} == {"embed.weight", "head.weight"}
    assert {names[id(weight)] for weight in free["params"]} == {
        "embed.bias",
        "positions",
        "norm.weight",
        "norm.bias",
        "head.bias",
    }
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.05, 0.0)


def test_layer_decay_is_beits():
    """Each layer below the head multiplies the learning rate once more (arXiv 2106.08254)."""
    model = Tokens()
    depths = {"embed": 0, "positions": 0, "norm": 3, "head": 3, "frozen": 1}
    model.layer_depths = lambda: {name: depths[name.partition(".")[0]] for name, _ in model.named_parameters()}
    names = {id(weight): name for name, weight in model.named_parameters()}
    groups = parameter_groups(model, 0.05, layer_decay=0.5)
    found = {
        frozenset(names[id(weight)] for weight in group["params"]): (group["lr_scale"], group["weight_decay"])
        for group in groups
    }
    assert found == {
        frozenset({"head.weight"}): (1.0, 0.05),
        frozenset({"head.bias", "norm.weight", "norm.bias"}): (1.0, 0.0),
        frozenset({"embed.weight"}): (0.125, 0.05),
        frozenset({"embed.bias", "positions"}): (0.125, 0.0),
    }
    assert [group["lr_scale"] for group in parameter_groups(model, 0.05)] == [1.0, 1.0]


def test_layer_decay_of_a_network():
    spec = SPACES["2d_mini_4"]
    network = PSViT(spec, Architecture.parse("BS-B-BSB"))
    names = {id(weight): name for name, weight in network.named_parameters()}
    scales = {
        names[id(weight)]: group["lr_scale"]
        for group in parameter_groups(network, 0.05, layer_decay=0.75)
        for weight in group["params"]
    }
    assert scales.keys() == dict(network.named_parameters()).keys()
    for name, depth in (("pos_embed", 0), ("stages.0.1.norm1.weight", 2), ("stages.2.0.norm1.weight", 4)):
        assert scales[name] == pytest.approx(0.75 ** (7 - depth))  # 6 layers and the head
    assert scales["head.weight"] == scales["norm.bias"] == 1.0


def test_the_moving_average_is_torchs_and_skips_when_told():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    ours = MovingAverage(model, 0.25)
    theirs = AveragedModel(model)
    for step in range(6):  # by (1 + step) / (10 + step), the decay is 0, 2/11, 3/12 and 0.25 from there
        theirs.multi_avg_fn = get_ema_multi_avg_fn(2 / 11 if step == 1 else 0.25)
        for weight in model.parameters():
            weight.data += torch.randn_like(weight)
        model(torch.randn(5, 3))
        ours.update(model, step, torch.tensor(0.0))
        theirs.update_parameters(model)
        before = {name: value.clone() for name, value in ours.model.named_parameters()}
        ours.update(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), step, torch.tensor(1.0))
        for name, weight in ours.model.named_parameters():
            assert torch.equal(weight, before[name])
            torch.testing.assert_close(weight.data, theirs.module.get_parameter(name).data)
        ours.update(model, step, torch.tensor(1.0))  # buffers follow the network
    for name, value in ours.model.named_buffers():
        torch.testing.assert_close(value, theirs.module.get_buffer(name))
