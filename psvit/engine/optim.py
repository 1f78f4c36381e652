"""AdamW as vision transformers are trained with it, and its learning rate."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: matrices and kernels decay; biases, norms and what ``model.no_weight_decay()`` names do not."""
    exempt: set[str] = getattr(model, "no_weight_decay", set)()
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            (free if weight.ndim <= 1 or name in exempt else decayed).append(weight)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def adamw(model: nn.Module, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over :func:`parameter_groups`; its learning rate is set at each step.

    Fused, since a supernet has hundreds of small tensors: several times faster than one after the other, on CPUs too.
    """
    return torch.optim.AdamW(parameter_groups(model, weight_decay), fused=True)


def learning_rate(step: int, total: int, warmup: int, peak: float, floor: float) -> float:
    """The learning rate of a step (from 0): a line up to ``peak`` over ``warmup`` steps, then a cosine to ``floor``."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * progress))
