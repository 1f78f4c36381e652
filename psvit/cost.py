"""FLOPs and parameters of a network, exactly, from its shapes. No torch, no model is built.

FLOPs are multiply-adds of every matrix product and convolution, as the ViT literature prints them (DeiT-Tiny is 1.3 G):
Q, K, V, QK^T, map x V, projection, MLP, token pooling, patch embedding and head. They equal half of what
``torch.utils.flop_counter.FlopCounterMode`` counts on the network. A stage's cost depends only on how many basic and
sharing layers it has, which is what makes counting and drawing within a budget exact (``supernet/space.py``).
"""

from __future__ import annotations

from dataclasses import dataclass

from psvit.arch import BASIC, Architecture, NetworkSpec


@dataclass(frozen=True)
class Cost:
    """FLOPs (multiply-adds an image) and parameters."""

    flops: int
    params: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.params + other.params)

    def __mul__(self, times: int) -> Cost:
        return Cost(self.flops * times, self.params * times)


def layer_cost(spec: NetworkSpec, stage: int, layer: str) -> Cost:
    """Cost of one ``B`` or ``S`` layer of a stage (from 0).

    With N tokens of width D and an MLP ratio r, a basic layer costs N (4 + 2r) D^2 + 2 N^2 D multiply-adds and a
    sharing layer, which has no Q, K and QK^T, N (2 + 2r) D^2 + N^2 D.
    """
    tokens, width = spec.tokens[stage], spec.widths[stage]
    hidden = spec.mlp_ratio * width
    projections = 3 if layer == BASIC else 1  # Q, K, V or V alone
    products = 2 if layer == BASIC else 1  # QK^T and map x V, or the latter alone
    matrices = (projections + 1) * width * width + 2 * width * hidden
    biases = (projections + 1) * width + hidden + width
    norms = 2 * 2 * width
    return Cost(tokens * matrices + products * tokens * tokens * width, matrices + biases + norms)


def stem_cost(spec: NetworkSpec) -> Cost:
    """Cost of what comes before the first stage: patch embedding, class token and learned positions."""
    patches = spec.patch_grid[0] * spec.patch_grid[1]
    matrix = spec.channels * spec.patch_size**2 * spec.widths[0]
    tokens = spec.tokens[0] + spec.class_tokens  # positions of all tokens, and the class token itself
    return Cost(patches * matrix, matrix + spec.widths[0] + tokens * spec.widths[0])


def pool_cost(spec: NetworkSpec, stage: int) -> Cost:
    """Cost of the token pooling that leads into a stage (from 0); the first stage has none."""
    if stage == 0:
        return Cost(0, 0)
    taps = 1  # max and average pool without weights, then map linearly
    if spec.pooling == "conv":
        taps = spec.pool_kernel if spec.kind == "1d" else spec.pool_kernel**2
    matrix = taps * spec.widths[stage - 1] * spec.widths[stage]
    return Cost(spec.tokens[stage] * matrix, matrix + spec.widths[stage])


def head_cost(spec: NetworkSpec) -> Cost:
    """Cost of what comes after the last stage: final norm and linear head."""
    matrix = spec.widths[-1] * spec.classes
    return Cost(matrix, matrix + spec.classes + 2 * spec.widths[-1])


def fixed_cost(spec: NetworkSpec) -> Cost:
    """Cost of all that every architecture of these dimensions has: stem, token poolings and head."""
    total = stem_cost(spec) + head_cost(spec)
    for stage in range(spec.stages):
        total += pool_cost(spec, stage)
    return total


def stage_cost(spec: NetworkSpec, stage: int, basic: int, sharing: int) -> Cost:
    """Cost of a stage's (from 0) layers, given how many are basic and sharing; without the pooling before it."""
    return layer_cost(spec, stage, "B") * basic + layer_cost(spec, stage, "S") * sharing


def network_cost(spec: NetworkSpec, architecture: Architecture) -> Cost:
    """Cost of a whole network.

    Raises:
        ValueError: the architecture has another number of stages than the dimensions.
    """
    if len(architecture.stages) != spec.stages:
        raise ValueError(f"{architecture} has {len(architecture.stages)} stages, but the network has {spec.stages}")
    total = fixed_cost(spec)
    for stage, (basic, sharing) in enumerate(architecture.counts):
        total += stage_cost(spec, stage, basic, sharing)
    return total
