"""Checks of settings, shared by every config: a fault is one line that says which values are allowed. No torch.

``keys`` name fields of a config dataclass; ``prefix`` is what a user writes before them, as ``recipe.`` of
``recipe.epochs``. A field that is None is not set, and passes; of a list, each number is checked. Numbers must be
finite: a learning rate of NaN and an infinite weight decay are refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def check_at_least(config: DataclassInstance, least: float, *keys: str, prefix: str = "", why: str = "") -> None:
    """Refuse numbers below ``least``.

    Args:
        why: ends the message, where the bound does not speak for itself.

    Raises:
        ValueError: a number is smaller or not finite: ``recipe.epochs is 0; it must be at least 1``.
    """
    for key, value in _numbers(config, keys, prefix):
        if value < least:
            raise _fault(config, key, f"it must be at least {least}", prefix, why)


def check_above(config: DataclassInstance, floor: float, *keys: str, prefix: str = "", why: str = "") -> None:
    """Refuse numbers that are not above ``floor``; otherwise as :func:`check_at_least`."""
    for key, value in _numbers(config, keys, prefix):
        if value <= floor:
            raise _fault(config, key, f"it must be above {floor}", prefix, why)


def check_between(config: DataclassInstance, low: float, high: float, *keys: str, prefix: str = "") -> None:
    """Refuse numbers below ``low`` or above ``high``; otherwise as :func:`check_at_least`."""
    for key, value in _numbers(config, keys, prefix):
        if not low <= value <= high:
            raise _fault(config, key, f"it must lie between {low} and {high}", prefix)


def check_share(config: DataclassInstance, *keys: str, prefix: str = "", zero: bool = True, one: bool = True) -> None:
    """Refuse what is no share or probability; otherwise as :func:`check_at_least`.

    Args:
        zero, one: whether the number may be 0, and 1.
    """
    allowed = f"it must be {'at least' if zero else 'above'} 0 and {'at most' if one else 'below'} 1"
    for key, value in _numbers(config, keys, prefix):
        if not 0 <= value <= 1 or (value == 0 and not zero) or (value == 1 and not one):
            raise _fault(config, key, allowed, prefix)


def check_choice(config: DataclassInstance, choices: Sequence[str], *keys: str, prefix: str = "") -> None:
    """Refuse words that are not among the choices.

    Raises:
        ValueError: another word: ``recipe.precision is 'fp8'; use one of auto, fp32, bf16, fp16``.
    """
    for key in keys:
        value = getattr(config, key)
        if value is not None and value not in choices:
            raise _fault(config, key, f"use one of {', '.join(choices)}", prefix)


def _numbers(config: DataclassInstance, keys: Sequence[str], prefix: str) -> Iterator[tuple[str, float]]:
    """The fields that are set, and for a list each of its numbers, once they are known to be finite."""
    for key in keys:
        value = getattr(config, key)
        for number in value if isinstance(value, list) else [] if value is None else [value]:
            if not math.isfinite(number):
                raise _fault(config, key, "it must be a finite number", prefix)
            yield key, number


def _fault(config: DataclassInstance, key: str, allowed: str, prefix: str, why: str = "") -> ValueError:
    value: Any = getattr(config, key)
    if isinstance(value, list):
        allowed = allowed.replace("it must", "each of them must")
    (annotation,) = (str(field.type) for field in fields(config) if field.name == key)
    null = ", or null" if "None" in annotation else ""
    return ValueError(f"{prefix}{key} is {value!r}; {allowed}{null}{f': {why}' if why else ''}")
