"""AdamW as vision transformers are trained with it, its learning rate, and the moving average of the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float | None = None) -> list[dict[str, Any]]:
    """Matrices and kernels decay; biases, norms and what ``model.no_weight_decay()`` names do not.

    Args:
        layer_decay: multiplies the learning rate once for each layer that lies above a parameter (BEiT, arXiv
            2106.08254): ``layer_decay ** (L + 1 - depth)``, by ``model.layer_depths()`` from 0 for the embedding to
            L + 1 for the head.

    Returns:
        Groups of AdamW, without empty ones; ``lr_scale`` is what multiplies the learning rate of a group.
    """
    exempt: set[str] = getattr(model, "no_weight_decay", set)()
    depths: dict[str, int] = {} if layer_decay is None else model.layer_depths()  # type: ignore[operator]
    top = max(depths.values(), default=0)
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            decays = weight.ndim > 1 and name not in exempt
            groups.setdefault((top - depths.get(name, top), decays), []).append(weight)
    return [
        {
            "params": weights,
            "weight_decay": weight_decay if decays else 0.0,
            "lr_scale": 1.0 if layer_decay is None else layer_decay**above,
        }
        for (above, decays), weights in sorted(groups.items(), key=lambda group: (group[0][0], not group[0][1]))
    ]


def adamw(model: nn.Module, weight_decay: float, layer_decay: float | None = None) -> torch.optim.AdamW:
    """AdamW over :func:`parameter_groups`; its learning rate is set at each step.

    Fused, since a supernet has hundreds of small tensors: several times faster than one after the other, on CPUs too.
    And a fused step does nothing where its ``found_inf`` is 1, which the host need not know.
    """
    return torch.optim.AdamW(parameter_groups(model, weight_decay, layer_decay), fused=True)


class MovingAverage:
    """The exponential moving average of a network's weights: those after the first step, and so on from there.

    The decay rises to its value, ``min(decay, (1 + step) / (10 + step))`` as in TensorFlow's, or a short training's
    average would be of its first steps.

    Attributes:
        model: a copy of the network, with the average.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int, skip: Tensor) -> None:
        """Take in the weights after a step (from 0), unless the device finds that ``skip``, a scalar, is 1 and not 0.

        torch's AveragedModel does the same, but waits for the device.
        """
        average: list[Tensor] = list(self.model.parameters())
        weights: list[Tensor] = list(model.parameters())
        change = torch._foreach_sub(weights, average)
        decay = min(self._decay, (1 + step) / (10 + step)) if step else 0.0
        torch._foreach_mul_(change, (1 - skip) * (1 - decay))
        torch._foreach_add_(average, change)
        for ours, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            ours.copy_(theirs)


def learning_rate(
    step: int, total: int, warmup: int, peak: float, floor: float, decays: Sequence[int] | None = None
) -> float:
    """The learning rate of a step (from 0): a line up to ``peak`` over ``warmup`` steps, then a cosine to ``floor``.

    Args:
        decays: with these, instead of the cosine, it is divided by ten at each of these steps.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    if decays is not None:
        return peak * 0.1 ** sum(step >= decay for decay in decays)
    progress = (step - warmup) / max(1, total - warmup)
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * progress))
