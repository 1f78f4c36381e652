"""Counted multiply-adds against formulas by hand, whichever kernel computes the attention."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from psvit.flops import FUSED_ATTENTION, count_flops

TOKENS, WIDTH, HEADS, RATIO = 17, 24, 3, 4
BLOCK = TOKENS * (4 + 2 * RATIO) * WIDTH**2 + 2 * TOKENS**2 * WIDTH  # Q, K, V, projection, MLP; Q K^T and map x V


class Block(nn.Module):
    """A layer of ViT in torch's own words: (B, TOKENS, WIDTH) -> the same."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.projection = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, RATIO * WIDTH), nn.GELU(), nn.Linear(RATIO * WIDTH, WIDTH))

    def forward(self, tokens: Tensor) -> Tensor:
        qkv = self.qkv(tokens).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(*qkv.unbind()).transpose(1, 2).flatten(2)
        tokens = tokens + self.projection(attended)
        return tokens + self.mlp(tokens)


CPU_BACKENDS = [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION]
GPU_BACKENDS = [*CPU_BACKENDS, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION]


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("inference", [False, True])
def test_a_vit_block_is_counted_whatever_kernel_attends(backend: SDPBackend, inference: bool) -> None:
    with sdpa_kernel(backend), torch.inference_mode(inference):
        assert count_flops(Block(), torch.zeros(2, TOKENS, WIDTH)) == 2 * BLOCK


@pytest.mark.gpu
@pytest.mark.parametrize("backend", GPU_BACKENDS)
def test_a_vit_block_is_counted_on_a_gpu(backend: SDPBackend) -> None:
    with sdpa_kernel(backend), torch.device("cuda"):
        tokens = torch.zeros(2, TOKENS, WIDTH, dtype=torch.bfloat16)
        assert count_flops(Block().bfloat16(), tokens) == 2 * BLOCK


def test_without_data_it_counts_the_same() -> None:
    assert count_flops(Block().to("meta"), torch.zeros(2, TOKENS, WIDTH, device="meta")) == 2 * BLOCK


def test_torchs_own_encoder_layer_counts_the_same() -> None:
    """Without gradients it takes a fast path, of which torch's counter knows nothing."""
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, RATIO * WIDTH, batch_first=True).eval()
    assert count_flops(layer, torch.zeros(2, TOKENS, WIDTH)) == 2 * BLOCK
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("grouped", [False, True])
def test_keys_of_other_number_and_values_of_other_width(grouped: bool) -> None:
    query, key, value = torch.zeros(1, 6, 5, 8), torch.zeros(1, 2 if grouped else 6, 7, 8), torch.zeros(1, 6, 7, 8)
    value = value[:, :2] if grouped else value

    def attend() -> Tensor:
        return F.scaled_dot_product_attention(query, key, value, enable_gqa=grouped)

    assert count_flops(attend) == 6 * 5 * 7 * (8 + 8)


def test_every_fused_attention_of_this_torch_has_a_formula() -> None:
    known = {name.removeprefix("aten::").partition(".")[0] for name in torch._C._dispatch_get_all_op_names()}
    fused = {name for name in known if name.startswith("_scaled_dot_product_") and not name.endswith("_backward")}
    assert {name for name in fused if "_math" not in name} <= set(FUSED_ATTENTION)  # the others decompose


def test_a_matrix_product_without_a_formula_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"no formula for the multiply-adds of aten\.mv, which this network runs"):
        count_flops(torch.mv, torch.zeros(3, 4), torch.zeros(4))


def test_what_only_sounds_like_a_matrix_product_costs_nothing() -> None:
    image = torch.zeros(1, 3, 8, 8)
    assert count_flops(lambda: F.interpolate(image, size=(4, 4), mode="bilinear", antialias=True)) == 0
    assert count_flops(lambda: F.interpolate(image[0], size=4, mode="linear").cummax(0)) == 0
