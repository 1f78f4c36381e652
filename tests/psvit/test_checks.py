"""Checks of settings: which numbers and words pass, and that a fault names the setting and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from psvit.checks import check_above, check_at_least, check_between, check_choice, check_share
from psvit.data.config import AugmentConfig, DataConfig
from psvit.detection.config import DetectRecipe, HeadConfig
from psvit.engine.config import LoopRecipe, Recipe
from psvit.retrain.config import DistillConfig
from psvit.search.config import SearchConfig


@dataclass
class Settings:
    number: float = 1.0
    unset: float | None = None
    numbers: list[float] = field(default_factory=list)
    word: str = "auto"


def at_least(config: Settings) -> None:
    check_at_least(config, 1, "number", "unset", "numbers", prefix="recipe.")


def above(config: Settings) -> None:
    check_above(config, 0, "number", "unset", "numbers", prefix="recipe.", why="it divides")


def between(config: Settings) -> None:
    check_between(config, 1, 30, "number", "unset", "numbers")


def share(config: Settings) -> None:
    check_share(config, "number", "unset", "numbers")


def open_share(config: Settings) -> None:
    check_share(config, "number", "unset", "numbers", zero=False, one=False)


def choice(config: Settings) -> None:
    check_choice(config, ("auto", "cpu"), "word", prefix="data.")


@pytest.mark.parametrize(
    ("check", "config", "fault"),
    [
        (at_least, Settings(1, 1, [1, 5]), None),
        (at_least, Settings(0), "recipe.number is 0; it must be at least 1"),
        (at_least, Settings(1, 0.5), "recipe.unset is 0.5; it must be at least 1, or null"),
        (at_least, Settings(1, None, [2, 0]), r"recipe.numbers is \[2, 0\]; each of them must be at least 1"),
        (at_least, Settings(math.nan), "recipe.number is nan; it must be a finite number"),
        (above, Settings(1e-9), None),
        (above, Settings(0.0), "recipe.number is 0.0; it must be above 0: it divides"),
        (above, Settings(math.inf), "recipe.number is inf; it must be a finite number"),
        (between, Settings(30, 1), None),
        (between, Settings(31), "number is 31; it must lie between 1 and 30"),
        (share, Settings(0, 1), None),
        (share, Settings(1.5), "number is 1.5; it must be at least 0 and at most 1"),
        (share, Settings(1, math.nan), "unset is nan; it must be a finite number, or null"),
        (open_share, Settings(0.5), None),
        (open_share, Settings(0), "number is 0; it must be above 0 and below 1"),
        (open_share, Settings(1), "number is 1; it must be above 0 and below 1"),
        (choice, Settings(word="cpu"), None),
        (choice, Settings(word="gpu"), "data.word is 'gpu'; use one of auto, cpu"),
    ],
)
def test_a_fault_says_what_is_allowed(check: Callable[[Settings], None], config: Settings, fault: str | None) -> None:
    if fault is None:
        check(config)
        return
    with pytest.raises(ValueError, match=f"^{fault}$"):
        check(config)


@pytest.mark.parametrize("number", [math.nan, math.inf, -1.0])
@pytest.mark.parametrize(
    ("config", "key"),
    [
        *((LoopRecipe, key) for key in ("lr", "min_lr", "warmup_epochs", "weight_decay", "clip_norm", "ema_decay")),
        *((Recipe, key) for key in ("layer_decay", "label_smoothing", "drop_path")),
        *((DetectRecipe, key) for key in ("flip", "drop_path")),
        *((DataConfig, key) for key in ("search_fraction", "test_fraction")),
        *((AugmentConfig, key) for key in ("flip", "rotate", "mixup", "randaugment_std", "mix_probability")),
        *((DistillConfig, key) for key in ("alpha", "temperature")),
        *((SearchConfig, key) for key in ("mutation", "confidence", "auto_minutes")),
    ],
)
def test_no_rate_or_share_of_a_config_is_negative_nan_or_infinite(config: type, key: str, number: float) -> None:
    with pytest.raises(ValueError, match=f"{key} is {number}; it must be"):
        config(**{key: number})


def test_lists_of_numbers_are_checked_number_by_number() -> None:
    with pytest.raises(ValueError, match=r"recipe.decay_epochs is \[8.0, nan\]; each of them must be a finite number"):
        LoopRecipe(decay_epochs=[8.0, math.nan])
    with pytest.raises(ValueError, match=r"augment.crop_scale is \[0.5, inf\]; each of them must be a finite number"):
        AugmentConfig(crop_scale=[0.5, math.inf])
    with pytest.raises(ValueError, match=r"recipe.min_sizes is \[64, 0\]; each of them must be at least 1"):
        DetectRecipe(min_sizes=[64, 0])


def test_every_size_of_the_heads_is_checked() -> None:
    with pytest.raises(ValueError, match=r"heads\.mask_layers is 0; it must be at least 1"):
        HeadConfig(mask_layers=0)
