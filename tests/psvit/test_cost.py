"""Counted costs against the built networks and against the paper."""

import itertools
import random

import pytest
import torch

from psvit.arch import Architecture, NetworkSpec
from psvit.cost import fixed_cost, network_cost, stage_cost
from psvit.flops import count_flops
from psvit.model import PSViT
from psvit.zoo import NETWORKS, SPACES


def measure(spec: NetworkSpec, architecture: Architecture) -> tuple[int, int]:
    """Counted FLOPs and parameters of the built network; on meta, so nothing is computed."""
    with torch.device("meta"):
        network = PSViT(spec, architecture).eval()
        flops = count_flops(network, torch.empty(1, spec.channels, *spec.image_size))
    return flops, sum(parameter.numel() for parameter in network.parameters())


def random_architectures(number: int, seed: int) -> list[Architecture]:
    rng = random.Random(seed)
    return [
        Architecture(tuple("B" + "".join(rng.choice("BS") for _ in range(rng.randrange(6))) for _ in range(3)))
        for _ in range(number)
    ]


@pytest.mark.parametrize("name", NETWORKS)
def test_named_networks_cost_what_torch_counts(name: str) -> None:
    cost = network_cost(*NETWORKS[name])
    assert (cost.flops, cost.params) == measure(*NETWORKS[name])


@pytest.mark.parametrize("number", [4, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", SPACES)
def test_random_architectures_cost_what_torch_counts(name: str, number: int) -> None:
    for architecture in random_architectures(number, seed=sum(map(ord, name))):
        cost = network_cost(SPACES[name], architecture)
        assert (cost.flops, cost.params) == measure(SPACES[name], architecture), architecture


@pytest.mark.parametrize("kind", ["1d", "2d"])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_unusual_dimensions_cost_what_torch_counts(kind: str, kernel: int) -> None:
    spec = NetworkSpec(kind, (36, 60), 4, (20, 30), (2, 5), 7, channels=1, mlp_ratio=3, pool_kernel=kernel)
    architecture = Architecture.parse("BSSBS-BBS")
    cost = network_cost(spec, architecture)
    assert (cost.flops, cost.params) == measure(spec, architecture)


@pytest.mark.parametrize(
    ("name", "params_m", "flops_g"),
    [("deit_tiny_16", 5.7, 1.3), ("deit_small_16", 22.1, 4.6), ("deit_base_16", 86.6, 17.6)],
)
def test_deit_costs_what_its_paper_prints(name: str, params_m: float, flops_g: float) -> None:
    cost = network_cost(*NETWORKS[name])
    assert round(cost.params / 1e6, 1) == params_m
    assert round(cost.flops / 1e9, 1) == flops_g


@pytest.mark.parametrize(
    ("name", "params_m", "flops_g"),
    [("1d_tiny_8", 3.8, 1.5), ("1d_tiny_16", 15.6, 1.3), ("1d_small_8", 13.9, 4.9), ("1d_small_16", 53.8, 4.0)],
)
def test_published_configurations_lie_in_their_spaces(name: str, params_m: float, flops_g: float) -> None:
    spec = SPACES[name]
    counts = [(basic, depth - basic) for depth in range(1, 7) for basic in range(1, depth + 1)]
    members = 0
    for stages in itertools.product(counts, repeat=3):
        total = fixed_cost(spec)
        for stage, (basic, sharing) in enumerate(stages):
            total += stage_cost(spec, stage, basic, sharing)
        members += round(total.params / 1e6, 1) == params_m and round(total.flops / 1e9, 1) == flops_g
    assert members > 0
