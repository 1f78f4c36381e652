"""The supernet against its extracted networks, its batched paths against each image alone, and its sampler."""

import numpy as np
import pytest
import torch

from psvit.arch import Architecture, CellPath, NetworkSpec
from psvit.supernet.inherit import inherit
from psvit.supernet.routing import Routing, to_codes, to_paths
from psvit.supernet.sampling import UniformCells
from psvit.supernet.supernet import Supernet
from psvit.zoo import SPACES


@pytest.fixture(params=[("1d_mini_4", "separate"), ("2d_mini_4", "separate"), ("2d_mini_4", "entangled")], ids="-".join)
def net(request: pytest.FixtureRequest) -> Supernet:
    torch.manual_seed(0)
    name, weights = request.param
    net = Supernet(SPACES[name], weights=weights).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return net


def draw(number: int, seed: int = 0) -> list[CellPath]:
    return to_paths(UniformCells(3, 6).draw(number, np.random.default_rng(seed))[0])


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
    together = net(images, Routing.of_paths(paths))
    for number, path in enumerate(paths):
        torch.testing.assert_close(
            together[number : number + 1], net(images[number : number + 1], path), atol=1e-5, rtol=0
        )


@pytest.mark.parametrize("training", [False, True])
def test_gradients_of_a_path_per_image_are_those_of_each_image_alone(net: Supernet, training: bool) -> None:
    net.train(training)
    images, paths = torch.randn(12, 3, 32, 32), draw(12, seed=2)
    net(images, Routing.of_paths(paths)).square().sum().backward()
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
def test_an_image_may_take_several_paths(net: Supernet) -> None:
    images, paths = torch.randn(4, 3, 32, 32), draw(12, seed=5)
    together = net(images, Routing.of(to_codes(paths), num_images=4))
    for number, path in enumerate(paths):
        alone = net(images[number % 4 : number % 4 + 1], path)
        torch.testing.assert_close(together[number : number + 1], alone, atol=1e-5, rtol=0)


def test_a_step_asks_the_device_for_nothing(net: Supernet) -> None:
    """On the meta device there are no values: whatever needed one, and would make a host wait for its GPU, raises."""
    net = net.to("meta").train()
    routing = Routing.of_paths(draw(40, seed=6)).to(torch.device("meta"))
    logits = net(torch.empty(40, 3, 32, 32, device="meta"), routing)
    logits.sum().backward()
    assert logits.shape == (40, 10)


def test_a_routing_is_sent_whole() -> None:
    paths = draw(30, seed=7)
    routing = Routing.of_paths(paths)
    sent = routing.to(torch.device("cpu"))
    assert sent.rows == 30
    for cell, copy in zip(sum(routing.stages, ()), sum(sent.stages, ()), strict=True):
        assert (cell.basic, cell.sharing, cell.kept) == (copy.basic, copy.sharing, copy.kept)
        assert [o for o, _ in cell.maps] == [o for o, _ in copy.maps]
        assert all(torch.equal(a, b) for (_, a), (_, b) in zip(cell.maps, copy.maps, strict=True))
        assert (cell.onward is None and copy.onward is None) or torch.equal(cell.onward, copy.onward)
    assert torch.equal(sent.input_rows, routing.input_rows)
    assert torch.equal(sent.output_rows, routing.output_rows)


def test_one_path_for_all_copies_nothing() -> None:
    routing = Routing.of_paths([CellPath.parse("BIIISI-IIBSIS-BBIIII")] * 7)
    assert routing.input_rows is None
    assert routing.output_rows is None
    assert all(cell.onward is None for stage in routing.stages for cell in stage)


@pytest.mark.parametrize(
    ("weights", "backend", "steps"),
    [
        pytest.param("separate", "inductor", 2, marks=pytest.mark.slow),
        pytest.param("separate", "aot_eager", 8, marks=pytest.mark.slow),
        pytest.param("entangled", "aot_eager", 8, marks=pytest.mark.slow),
    ],
)
def test_compiled_layers_give_the_same_gradients_and_are_compiled_once(weights: str, backend: str, steps: int) -> None:
    """Other numbers of images at a cell, other layers of a stage: nothing is compiled anew."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    torch.manual_seed(0)
    cells = 3 if backend == "aot_eager" else 2
    net = Supernet(NetworkSpec("2d", (16, 16), 4, (8, 16), (1, 2), 3), cells, drop_path=0.0, weights=weights)
    results = []
    for compiled in (False, True):
        if compiled:
            net.compile_layers(backend)
        for step in range(steps):
            rng = np.random.default_rng(step)
            images = torch.randn(40 + step, 3, 16, 16, generator=torch.Generator().manual_seed(step))
            net.zero_grad()
            logits = net(images, Routing.of(UniformCells(2, cells).draw(40 + step, rng)[0], 40 + step))
            logits.square().sum().backward()
            results.append([logits.detach(), *(p.grad.clone() for p in net.parameters() if p.grad is not None)])
    for plain, same in zip(results[:steps], results[steps:], strict=True):
        for ours, theirs in zip(plain, same, strict=True):
            torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-4)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs == 3 * 2  # kinds of call x stages


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
    if net.weights == "entangled":
        net.stages[0][1]["B"].load_state_dict(net.stages[0][5]["B"].state_dict())
    else:
        net.stages[0][1]["S"].load_state_dict(net.stages[0][5]["S"].state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(net(images, far), net(images, near))


def test_other_numbers_of_cells_and_stages() -> None:
    net = Supernet(NetworkSpec("2d", (16, 16), 4, (8, 16), (1, 2), 3), cells=3).eval()
    images, paths = torch.randn(10, 3, 16, 16), to_paths(UniformCells(2, 3).draw(10, np.random.default_rng(0))[0])
    assert net(images, Routing.of_paths(paths)).shape == (10, 3)
    with pytest.raises(ValueError, match="not a path of a supernet of 2 stages x 3 cells"):
        net(images, CellPath.canonical(Architecture.parse("B-B"), 4))
    with pytest.raises(ValueError, match="not a path of a supernet of 2 stages x 3 cells"):
        net(images, Routing.of_paths([CellPath.canonical(Architecture.parse("B-B"), 4)] * 10))


def test_a_path_per_image_runs_in_bf16(net: Supernet) -> None:
    """Rows of different precision must not meet where images part and join."""
    images, paths = torch.randn(12, 3, 32, 32), draw(12, seed=4)
    exact = net(images, Routing.of_paths(paths))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = net(images, Routing.of_paths(paths))
    rounded.float().square().sum().backward()
    torch.testing.assert_close(rounded.float(), exact, atol=0.05 * exact.abs().max().item(), rtol=0)
