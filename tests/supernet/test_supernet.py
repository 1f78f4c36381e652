"""The supernet against its extracted networks, its batched paths against each image alone, and its sampler."""

import numpy as np
import pytest
import torch

from psvit.arch import Architecture, CellPath, NetworkSpec
from psvit.zoo import SPACES
from supernet.inherit import inherit
from supernet.sampling import UniformCells
from supernet.supernet import Supernet


@pytest.fixture(params=["1d_mini_4", "2d_mini_4"])
def net(request: pytest.FixtureRequest) -> Supernet:
    torch.manual_seed(0)
    net = Supernet(SPACES[request.param]).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return net


def draw(number: int, seed: int = 0) -> list[CellPath]:
    return UniformCells(3, 6).draw(number, np.random.default_rng(seed))


@torch.no_grad()
def test_inherited_networks_give_the_paths_logits_bit_for_bit(net: Supernet) -> None:
    images = torch.randn(8, 3, 32, 32)
    for path in draw(50):
        network = inherit(net, path)
        assert network.architecture == path.architecture
        assert torch.equal(network(images), net(images, path)), path


@torch.no_grad()
def test_a_path_per_image_is_each_image_alone(net: Supernet) -> None:
    images, paths = torch.randn(40, 3, 32, 32), draw(40, seed=1)
    together = net(images, paths)
    for number, path in enumerate(paths):
        torch.testing.assert_close(
            together[number : number + 1], net(images[number : number + 1], path), atol=1e-5, rtol=0
        )


def test_gradients_of_a_path_per_image_are_those_of_each_image_alone(net: Supernet) -> None:
    images, paths = torch.randn(12, 3, 32, 32), draw(12, seed=2)
    net(images, paths).square().sum().backward()
    together = {name: parameter.grad for name, parameter in net.named_parameters()}
    net.zero_grad()
    for number, path in enumerate(paths):
        net(images[number : number + 1], path).square().sum().backward()
    for name, parameter in net.named_parameters():
        if parameter.grad is None:
            assert together[name] is None, name
        else:
            torch.testing.assert_close(together[name], parameter.grad, atol=1e-4, rtol=1e-4, msg=name)


@torch.no_grad()
def test_inherited_weights_are_copies(net: Supernet) -> None:
    path = draw(1)[0]
    images = torch.randn(2, 3, 32, 32)
    before = net(images, path)
    for parameter in inherit(net, path).parameters():
        parameter.zero_()
    assert torch.equal(net(images, path), before)


def test_identity_cells_do_not_matter_to_sharing(net: Supernet) -> None:
    """Sharing takes the nearest earlier basic layer of its stage, identities in between or not."""
    far, near = CellPath.parse("BIIIIS-BIIIII-BIIIII"), CellPath.parse("BSIIII-BIIIII-BIIIII")
    net.stages[0][1]["S"].load_state_dict(net.stages[0][5]["S"].state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(net(images, far), net(images, near))


def test_other_numbers_of_cells_and_stages() -> None:
    net = Supernet(NetworkSpec("2d", (16, 16), 4, (8, 16), (1, 2), 3), cells=3).eval()
    images, paths = torch.randn(10, 3, 16, 16), UniformCells(2, 3).draw(10, np.random.default_rng(0))
    assert net(images, paths).shape == (10, 3)
    with pytest.raises(ValueError, match="no path of a supernet of 2 stages x 3 cells"):
        net(images, CellPath.canonical(Architecture.parse("B-B"), 4))
    with pytest.raises(ValueError, match="10 images and 9 paths"):
        net(images, paths[:9])


def test_every_valid_choice_of_a_cell_is_drawn_equally_often() -> None:
    """Chi-squared of each cell's choices given what came before; 4 sigma of its normal approximation."""
    paths = draw(30_000, seed=3)
    for stage in range(3):
        counts: dict[tuple[int, bool], dict[str, int]] = {}
        for path in paths:
            word = path.stages[stage]
            for cell, letter in enumerate(word):
                tally = counts.setdefault((cell, "B" in word[:cell]), {})
                tally[letter] = tally.get(letter, 0) + 1
        for (cell, started), tally in counts.items():
            valid = "BIS" if started else ("B" if cell == 5 else "BI")
            assert sorted(tally) == sorted(valid)
            expected = sum(tally.values()) / len(valid)
            chi2, freedom = sum((n - expected) ** 2 / expected for n in tally.values()), len(valid) - 1
            assert chi2 <= freedom + 4 * (2 * freedom) ** 0.5 + 4, (stage, cell, tally)


def test_paths_are_a_function_of_the_generator() -> None:
    assert draw(5, seed=7) == draw(5, seed=7) != draw(5, seed=8)


def test_a_path_per_image_runs_in_bf16(net: Supernet) -> None:
    """Rows of different precision must not meet where images part and join."""
    images, paths = torch.randn(12, 3, 32, 32), draw(12, seed=4)
    exact = net(images, paths)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = net(images, paths)
    rounded.float().square().sum().backward()
    torch.testing.assert_close(rounded.float(), exact, atol=0.05 * exact.abs().max().item(), rtol=0)
