"""A supernet's step on a GPU: nothing waits, and compiled layers in bf16 learn what plain ones in float32 learn."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from psvit.engine.device import autocast
from psvit.supernet.routing import Routing
from psvit.supernet.sampling import UniformCells
from psvit.supernet.supernet import Supernet
from psvit.zoo import SPACES

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")


@pytest.fixture
def net() -> Supernet:
    torch.manual_seed(0)
    return Supernet(SPACES["2d_mini_4"]).to(CUDA).train()


@pytest.fixture
def nothing_may_wait() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


def step(net: Supernet, number: int, precision: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    images = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(number)).pin_memory()
    images = images.to(CUDA, non_blocking=True)
    routing = Routing.of(UniformCells(3, 6).draw(64, np.random.default_rng(number))[0], 64).to(CUDA)
    net.zero_grad()
    with autocast(CUDA, precision):
        logits = net(images, routing)
    logits.float().square().mean().backward()
    return logits.detach(), {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_host_waits_for_nothing(net: Supernet, nothing_may_wait: None, precision: str) -> None:
    step(net, 0, precision)
    torch.cuda.set_sync_debug_mode("error")
    step(net, 1, precision)


def test_a_layer_that_is_run_again_takes_the_same_attention(net: Supernet) -> None:
    """Checkpoints compare what the two runs keep, and cuDNN's attention, which we avoid, keeps other tensors."""
    _, kept = step(net, 0, "bf16")
    net.set_grad_checkpointing()
    with FlopCounterMode(display=False) as counter:
        _, repeated = step(net, 0, "bf16")
    names = [str(operation) for operation in counter.get_flop_counts()["Global"]]
    assert any("attention" in name for name in names)
    assert not any("cudnn" in name for name in names)
    flat = [torch.cat([gradients[name].flatten() for name in kept]) for gradients in (kept, repeated)]
    assert torch.nn.functional.cosine_similarity(*flat, dim=0) > 0.999


def test_compiled_layers_and_bf16_give_gradients_in_the_same_direction(net: Supernet) -> None:
    exact = [step(net, number, "fp32") for number in range(3)]
    net.compile_layers()
    for number, (logits, gradients) in enumerate(exact):
        rounded, ours = step(net, number, "bf16")
        torch.testing.assert_close(rounded.float(), logits, atol=0.05 * logits.abs().max().item(), rtol=0)
        assert ours.keys() == gradients.keys()
        flat = [torch.cat([g.flatten() for g in each.values()]) for each in (ours, gradients)]
        assert torch.nn.functional.cosine_similarity(*flat, dim=0) > 0.99
