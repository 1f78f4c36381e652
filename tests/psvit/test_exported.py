"""The forward pass through the ways in which torch takes a network out of Python: each gives the network's logits at
every batch size, or is a stated no."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from psvit.arch import Architecture
from psvit.model import PSViT
from psvit.zoo import SPACES
from tests.psvit.test_model import make_noisy

BATCHES = (1, 2, 5)
CASES = [(space, layers) for space in ("1d_mini_4", "2d_mini_4") for layers in ("B-BB-B", "BSS-BBS-BSB")]

needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="needs the extra 'export'",
)


# a 1-D network that shares and a 2-D one that does not; the other two are slow
@pytest.fixture(
    params=[
        pytest.param(case, marks=() if case in (CASES[1], CASES[2]) else pytest.mark.slow, id=" ".join(case))
        for case in CASES
    ]
)
def network(request: pytest.FixtureRequest) -> PSViT:
    space, layers = request.param
    torch.manual_seed(0)
    module = PSViT(SPACES[space], Architecture.parse(layers)).eval().requires_grad_(False)
    make_noisy(module)
    return module


def images(batch: int) -> Tensor:
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(batch))


def check(network: PSViT, other: Callable[[Tensor], Tensor]) -> None:
    for batch in BATCHES:
        expected = network(images(batch))
        assert expected.shape == (batch, 10)
        torch.testing.assert_close(other(images(batch)), expected, atol=1e-5, rtol=1e-4)


def exported(network: PSViT) -> torch.export.ExportedProgram:
    return torch.export.export(network, (images(2),), dynamic_shapes=({0: torch.export.Dim("batch")},))


def test_torch_export_with_a_dynamic_batch(network: PSViT, tmp_path: Path) -> None:
    torch.export.save(exported(network), tmp_path / "network.pt2")
    check(network, torch.export.load(tmp_path / "network.pt2").module())


@needs_onnx
@pytest.mark.slow  # tests/deploy/test_export.py has it, too
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_onnx_with_a_dynamic_batch(network: PSViT, tmp_path: Path) -> None:
    import onnxruntime

    path = tmp_path / "network.onnx"
    torch.onnx.export(exported(network), (images(2),), path, dynamo=True, opset_version=18, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (name,) = [each.name for each in session.get_inputs()]
    check(network, lambda batch: torch.from_numpy(session.run(None, {name: batch.numpy()})[0]))


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore:.torch.jit:DeprecationWarning")
# the size of the images is fixed in a trace; that of the batch is not
@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python boolean:torch.jit.TracerWarning")
def test_trace(network: PSViT) -> None:
    check(network, torch.jit.trace(network, images(2), check_trace=False))


@pytest.mark.slow
def test_compile_without_a_break_in_the_graph(network: PSViT) -> None:
    torch.compiler.reset()
    graphs = 0

    def count(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Tensor]:
        nonlocal graphs
        graphs += 1
        return graph.forward

    check(network, torch.compile(network, fullgraph=True, dynamic=True, backend=count))
    assert graphs <= 2, "one for a single image at most, and one for all other batches"


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore:.torch.jit:DeprecationWarning")
def test_script_and_symbolic_tracing_are_a_no(network: PSViT) -> None:
    """A layer list is walked by Python, and shapes decide: torch.export is the way for both."""
    with pytest.raises((ValueError, RuntimeError), match="annotation"):
        torch.jit.script(network)
    with pytest.raises(torch.fx.proxy.TraceError):
        torch.fx.symbolic_trace(network)
