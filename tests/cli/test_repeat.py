"""The line that repeats a run gives the same settings, whatever they are, and says no more than it needs to."""

import shlex
from collections.abc import Callable
from typing import Any

import pytest

from psvit.cli.commands import find
from psvit.cli.repeat import command_line


def line_of(words: list[str], config: Any) -> str:
    command, _ = find(words)
    assert command is not None
    return command_line(command, config)


@pytest.mark.parametrize(
    "arguments",
    [
        "train-supernet --name x space=1d_tiny_16 space.widths=[192,256,384] data=cifar10 data.root=/c seed=3",
        "train-supernet --out o recipe=supernet/imagefolder recipe.clip_norm=1.5 paths=batch",
        "evolve --flops 1.2G..1.3G --supernet 'my runs/supernet' --name x search.mutation=0.25 seed=1",
        "exhaustive --params 16M --num-images 100 search.race=true search.rank_by=top1 --out elsewhere",
        "nsga2 --latency 2ms search.latency.table=a.json search.memory=8G",
        "run --flops 5M search=random supernet.weights=entangled retrain.recipe.epochs=3 data=cifar10 data.root=/c",
        "retrain --arch 1d_tiny_16:BSB-BB-B --start 'a b.safetensors' distill.teacher=timm:x recipe.augment.flip=0",
        "detect train --arch torchvision:resnet18 data.root=/coco recipe.min_sizes=[480,800] watch=true",
        "detect train experiment=detect/coco_psvit_2d_tiny data.root=/coco",
        "ablate sharing scale=imagenet seeds=[0,1] data.root=/in1k --name x",
        "ablate all recipe.epochs=3 search=auto",
        "rank --archs 5 --flops 5M cost=equal recipe=retrain/imagefolder jobs=2",
        "retrain experiment=retrain/imagenet_distilled --arch a data.root=/in1k",
        "retrain experiment=retrain/vit_base_16 data.root=/in1k",
        "run experiment=run/imagenet_1d_tiny_16 data.root=/in1k",
    ],
)
def test_it_repeats_a_run(arguments: str, settings: Callable[..., Any]) -> None:
    words = shlex.split(arguments)
    config = settings(*words)
    repeated = line_of(words, config)
    assert settings(*shlex.split(repeated)[1:]) == config
    assert "--out" not in repeated or "--out" in arguments


def test_values_that_a_shell_and_hydra_would_read_otherwise(settings: Callable[..., Any]) -> None:
    config = settings("random", "--flops", "4M")
    config.search.mutation = 0.125
    config.runs, config.data_root = "null", "1e3"
    config.device = "it's \\ 'quoted\\'"
    config.supernet = "runs/it's [1]/supernet"
    repeated = line_of(["random"], config)
    assert settings(*shlex.split(repeated)[1:]) == config


def test_it_names_what_differs_and_no_more(settings: Callable[..., Any]) -> None:
    for words, line in (
        (["train-supernet", "space=1d_tiny_16"], "train-supernet space=1d_tiny_16"),
        (["train-supernet", "seed=0"], "train-supernet"),
        (["run", "--flops", "5M", "search=evolve", "seed=1"], "run --flops 5M search=evolve seed=1"),
        (["retrain", "--arch", "a.json", "data=cifar10"], "retrain --arch a.json data=cifar10"),
        (["ablate", "sharing", "scale=cifar10", "data.root=/c"], "ablate sharing scale=cifar10 data.root=/c"),
    ):
        assert line_of(words, settings(*words)) == f"psvit-search {line}"
