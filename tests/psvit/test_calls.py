"""Calling layers with ever new numbers of images: which attention they run, and how often they are compiled."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from psvit.arch import NetworkSpec
from psvit.calls import LayerRunner
from psvit.layers import BasicLayer, SharingLayer
from psvit.supernet.routing import Routing
from psvit.supernet.sampling import SAMPLINGS, make_sampler
from psvit.supernet.supernet import Supernet


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_no_layer_on_a_gpu_asks_cudnn_for_a_plan(
    monkeypatch: pytest.MonkeyPatch, training: bool, checkpoint: bool
) -> None:
    """With checkpoints each layer runs once more in the backward pass; the tensors say that they are on a GPU."""
    allowed = []

    def attention(*args: Tensor) -> Tensor:
        allowed.append(torch.backends.cuda.cudnn_sdp_enabled())
        return scaled_dot_product_attention(*args)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    before = torch.backends.cuda.cudnn_sdp_enabled()
    runner = LayerRunner(1)
    runner.checkpoint = checkpoint
    basic, sharing = BasicLayer(8, 2, 2).train(training), SharingLayer(8, 2, 2).train(training)
    x = runner.basic(0, basic, torch.randn(4, 5, 8, requires_grad=True))
    x, maps = runner.kept(0, basic, x, 3)
    runner.sharing(0, sharing, x[: len(maps)], maps).sum().backward()
    calls = 3 if training else 2  # in eval mode a sharing layer has its map written out
    assert allowed == [False] * (2 * calls if checkpoint and training else calls)
    assert torch.backends.cuda.cudnn_sdp_enabled() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampling", "paths"), [*((sampling, "image") for sampling in SAMPLINGS), ("uniform", "batch")]
)
def test_steps_of_any_sampling_compile_nothing_after_the_first_few(sampling: str, paths: str) -> None:
    """Groups are as small as one image here, and the last batch is smaller than the others."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    torch.manual_seed(0)
    net = Supernet(NetworkSpec("1d", (16, 16), 4, (8, 16), (1, 2), 3), 3, drop_path=0.1)
    net.compile_layers("aot_eager")
    sampler = make_sampler(sampling, paths, 2, 3)
    graphs = []
    for step in range(20):
        images = 11 if step == 15 else 16
        codes = sampler.draw(images, np.random.default_rng(step)).reshape(-1, 2, 3)
        net(torch.randn(images, 3, 16, 16), Routing.of(codes, images)).square().mean().backward()
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert graphs[9] == graphs[-1], graphs
    assert 3 <= graphs[-1] <= 3 * 2 + 4, graphs  # ways x stages; each once more in the first cell, which drops no path
    assert not torch._dynamo.utils.counters["unimplemented"]
