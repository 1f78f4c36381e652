"""Multiply-adds of a forward pass, counted on the operations that torch runs.

torch's counter has the formulas of matrix products and convolutions. Those of fused attention are given here: which
kernel answers ``scaled_dot_product_attention`` depends on the device, the dtype and the release of torch, no release
has a formula for every one of them, and what has none would count as nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

aten = torch.ops.aten
Shape = Sequence[int]

# Parts of the names of operations that multiply matrices; upsample_linear1d, bilinear2d and _convert_weight do not.
_PRODUCTS = re.compile(
    r"(^|_)([a-z]*mm|mv|addmv|v?dot|matmul|linear|trilinear|conv(?!ert)\w*|attention|lstm|gru|rnn)(_|$)"
)


def attention_flops(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """Floating-point operations of softmax(Q K^T) V, two for each multiply-add; masks save none.

    Args:
        query: (batch, heads, L, E).
        key: (batch, heads or a divisor of them, S, E).
        value: (batch, heads or a divisor of them, S, V).
    """
    batch, heads, length, width = query
    return 2 * batch * heads * length * key[-2] * (width + value[-1])


# All of them but the plain one, which is composed of two matrix products; a release of torch may lack some.
FUSED_ATTENTION = (
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
)
_FORMULAS = {getattr(aten, name): attention_flops for name in FUSED_ATTENTION if hasattr(aten, name)}


def count_flops(function: Callable[..., Any], *inputs: Any) -> int:
    """Multiply-adds of one call, without gradients: the same number on every device and supported torch.

    Args:
        function: a network in eval mode, or any other callable; on the meta device nothing is computed.
        inputs: what it is called with.

    Raises:
        ValueError: it runs an operation that multiplies matrices and that nobody has a formula for.
    """
    counter = FlopCounterMode(display=False, custom_mapping=_FORMULAS)
    refuse = _RefuseUncounted()  # type: ignore[no-untyped-call]
    with torch.no_grad(), _without_fast_path(), refuse, counter:
        function(*inputs)
    return counter.get_total_flops() // 2


class _RefuseUncounted(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Entered around the counter, it sees each operation as the counter runs it, composite ones in their parts."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operation = func.overloadpacket
        if _PRODUCTS.search(operation.__name__) and operation not in flop_registry.keys() | _FORMULAS.keys():
            raise ValueError(
                f"torch {torch.__version__} has no formula for the multiply-adds of {operation}, which this network "
                "runs; build it from matrix products, convolutions and scaled_dot_product_attention"
            )
        return func(*args, **(kwargs or {}))


@contextmanager
def _without_fast_path() -> Iterator[None]:
    """Without the fast path of torch's attention modules: one operation that holds all matrix products of a layer."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
