import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from psvit.engine.optim import learning_rate, parameter_groups


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
