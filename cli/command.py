"""The command ``psvit-search``: a table of subcommands in front of Hydra.

A subcommand is a YAML file of ``conf/``, a schema (a dataclass that checks and types the settings) and a task (a
function of that dataclass). Short flags become Hydra overrides; everything else is Hydra's own. Tasks, and with them
torch, are imported when a task starts and not before, so that help, completion and faults in a command line show at
once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shlex
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import psvit

CONF = Path(psvit.__file__).resolve().parent / "conf"
WIDTH = 100  # columns of the help texts


@dataclass(frozen=True)
class Flag:
    """A short way to write an override: ``--flops 1.3G`` is ``search.budget.flops=1.3G``."""

    name: str
    key: str
    value: str  # what the help calls its value; "" for a switch
    help: str


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        name: one word, or two as ``detect train``; with a dash between them, the name of its YAML file in ``conf/``.
        summary: one line.
        about: what it does, for its own help.
        task: ``module:function`` that takes the schema.
        schema: ``module:dataclass`` of its settings.
        flags: its short flags.
        examples: what for -> command.
        settings: the settings that its help explains, words of ``SETTINGS``.
        argument: the flag whose name may be left out, as in ``inspect arch.json``.
        makes_folder: whether it works in a run folder; the others leave nothing behind.
    """

    name: str
    summary: str
    about: str
    task: str
    schema: str
    flags: tuple[Flag, ...]
    examples: dict[str, str]
    settings: str = ""
    argument: Flag | None = None
    makes_folder: bool = True

    @property
    def config(self) -> str:
        """The name of its YAML file, ``detect-train``."""
        return self.name.replace(" ", "-")


_BUDGET = "at most 1.3G, or a band as 1.2G..1.3G"
_FLOPS = Flag("--flops", "search.budget.flops", "X", f"multiply-adds an image: {_BUDGET}")
_PARAMS = Flag("--params", "search.budget.params", "X", "parameters: at most 16M, or a band as 15M..16M")
_LATENCY = Flag(
    "--latency",
    "search.budget.latency",
    "X",
    "time of a forward pass on this machine: at most 2ms, or a band as 1ms..2ms",
)
_SUPERNET = Flag("--supernet", "supernet", "RUN", "run folder of train-supernet")
_ARCH = Flag("--arch", "arch", "FILE", "the architecture, an arch.json")
_NETWORK = Flag(
    "--arch", "arch", "NET", "arch.json, a name (deit_tiny_16, 1d_tiny_16:BSB-BB-B), or torchvision:resnet18"
)
_WEIGHTS = Flag("--weights", "weights", "FILE", "its trained weights, a model.safetensors")
_START = Flag("--start", "start", "FILE", "weights to start from, of psvit-search inherit or of another retraining")
_SPLIT = Flag("--split", "split", "S", "images to score on: test, search or train")
_NAME = Flag("--name", "name", "NAME", "name of the project's folder below runs/")
_OUT = Flag("--out", "out", "DIR", "the run folder itself, instead of one by name")
_PROFILE = Flag("--profile", "profile", "", "trace a few steps with torch's profiler, into RUN/profile")
_JSON = Flag("--json", "json", "", "print JSON")
_SAVE = Flag("--save", "save", "FILE", "draw a picture, too (.png or .svg)")

# What the most useful settings are; a subcommand's help adds their defaults, and the choices of a group.
SETTINGS = {
    "space": "search space: widths, heads and patches of the network; choices:",
    "space.cells": "layers that a stage has at most",
    "data": "dataset; choices:",
    "data.root": "folder of the images (digits needs none)",
    "data.image_size": "pixels, as 224 or 224x160 (height first); null is the space's own",
    "data.search_fraction": "share of the training images held out to score architectures",
    "data.workers": "processes that load images",
    "data.corrupt": "what becomes of images that cannot be read: fail stops, skip leaves them out",
    "data.corrupt_limit": "how many may be left out",
    "data.decode": "where JPEGs are decoded for training on a GPU: cpu, gpu, or auto: there, if it can",
    "size": "pixels: of a JPEG's shorter side, never enlarged; of both sides of a raw image",
    "store": "jpeg, or raw: uint8 pixels, all squeezed to one size; five times the space, no time to decode",
    "quality": "of the JPEGs, 1 to 100",
    "recipe": "training recipe; the dataset chooses it; choices:",
    "recipe@supernet.recipe": "recipe of the supernet; the dataset chooses it",
    "recipe@retrain.recipe": "recipe of the retraining; the dataset chooses it",
    "recipe.epochs": "passes over the training images",
    "recipe.batch_size": "images an optimiser step, over all processes",
    "recipe.lr": "peak learning rate of AdamW",
    "recipe.precision": "fp32, bf16, fp16, or auto: bf16 on a GPU, fp32 on a CPU",
    "supernet.recipe.epochs": "epochs of the supernet",
    "retrain.recipe.epochs": "epochs of the retraining",
    "experiment": "a whole experiment from conf/experiment; choices:",
    "sampling": "how paths are drawn: canonical-depth, canonical, uniform (the paper's), fair or sandwich",
    "paths": "draw one path through the supernet an image, or one a batch",
    "weights": "separate or entangled: whether a cell's two layers have weights of their own",
    "supernet.sampling": "how paths are drawn: canonical-depth, canonical, uniform (the paper's), fair or sandwich",
    "supernet.weights": "separate or entangled: whether a cell's two layers have weights of their own",
    "watch": "architectures that are scored after each epoch, to watch progress",
    "search": "how to search; choices:",
    "search.auto_minutes": "auto scores all architectures if that is predicted to end within so many minutes",
    "search.race": "drop architectures early that can no longer be among the best",
    "search.race_keep": "how many best are raced for",
    "search.confidence": "probability, at least, that none of these is dropped",
    "search.precision": "fp32, bf16, fp16, or auto: bf16 on a GPU, fp32 on a CPU",
    "search.memory": "what scoring may use, such as 8G; null: what is free",
    "search.trials": "architectures to score",
    "search.population": "architectures a generation",
    "search.placements": "score on this many random placements in the cells; 0: the first cells",
    "search.baseline": "random architectures of equal cost that the winner is compared with",
    "archs": "architectures to train alone",
    "cost": "spread: draw over all costs of the budget; equal: from all within 2 % of --flops",
    "jobs": "networks trained at once; 0: one a core on a CPU; on a GPU, one (rank: what its memory holds)",
    "data_root": "where the supernet's images lie now, if they moved",
    "workers": "processes that load images",
    "hold_out": "keep the search split out of training",
    "distill.teacher": "network to learn from as well: torchvision:NAME, timm:NAME, or an arch.json",
    "distill.weights": "file of its weights; null: its library's own, which are downloaded",
    "distill.mode": "hard: learn its class; soft: its probabilities",
    "adapt": "take classes and image size from the data where arch.json differs",
    "batch_size": "images a forward pass",
    "batch": "images a forward pass",
    "precision": "fp32, bf16, fp16, or auto: bf16 on a GPU, fp32 on a CPU",
    "repeats": "timed forward passes of each network; the median counts",
    "table": "the latency.json that --latency is meant by; null is the one in RUN, or beside it",
    "top": "how many to show",
    "search.latency.table": "a latency.json; null measures one on this machine for the run",
    "search.latency.batch": "images a forward pass, for a budget of latency",
    "images": "how many the similarity is averaged over",
    "pictures": "image files for Grad-CAM, as [a.jpg,b.jpg]; without, some images of the split",
    "scale": "networks, data, epochs and budget of the tables; choices:",
    "seeds": "each network is trained once with each of them",
    "search.budget.flops": "multiply-adds an image that a search may use",
    "detect recipe": "training recipe; choices:",
    "detect data.root": "folder with COCO's annotations/, train2017/ and val2017/",
    "detect data.corrupt": "what becomes of listed images that are not there: fail stops, skip leaves them out",
    "detect watch": "measure AP after each epoch, too",
    "recipe.min_sizes": "pixels of an image's shorter side; of several, one is drawn each time",
    "heads.fpn_channels": "of the feature pyramid",
    "runs": "folder of all runs, where results are looked for",
    "seed": "of weights, data order, augmentation, paths and search",
    "device": "auto, cpu, cuda or cuda:1",
}

_SCORING_SETTINGS = "search.precision search.memory search.latency.table search.latency.batch"
_SEARCH_SETTINGS = f"search.trials search.population search.placements search.baseline {_SCORING_SETTINGS}"
_TRAIN_SETTINGS = "recipe recipe.epochs recipe.batch_size recipe.lr recipe.precision"

COMMANDS = {
    command.name: command
    for command in (
        Command(
            name="run",
            summary="all of it: supernet, search, retraining and a report",
            about="Trains a supernet, searches it for the best architecture within a budget, retrains the winner from "
            "scratch, and writes report.md. Started again, it goes on where it was.",
            task="psvit.cli.run:run_all",
            schema="psvit.cli.run:RunAllConfig",
            flags=(_FLOPS, _PARAMS, _LATENCY, _NAME, _OUT),
            settings="space data data.root recipe@supernet.recipe supernet.recipe.epochs "
            "supernet.sampling supernet.weights search search.auto_minutes "
            f"{_SEARCH_SETTINGS} recipe@retrain.recipe retrain.recipe.epochs experiment seed device",
            examples={
                "handwritten digits, a few minutes on two CPU cores": "psvit-search run --flops 5M",
                "your own images, one folder a class": "psvit-search run --flops 5M --name mine data=imagefolder "
                "data.root=/path/to/images",
            },
        ),
        Command(
            name="ablate",
            summary="the paper's ablations, each row trained with several seeds",
            about="Trains the network of every row of an ablation, once with each seed, and writes the table: mean and "
            "spread of the top-1 on the test split, FLOPs and parameters, the paper's ImageNet figure beside, and a "
            "picture. Rows that tables have in common are trained once. Started again, it goes on where it was.",
            task="psvit.paper.ablate:ablate",
            schema="psvit.paper.ablate:AblateConfig",
            flags=(_NAME, _OUT),
            settings="scale seeds jobs data data.root recipe recipe.epochs recipe@supernet.recipe "
            "supernet.recipe.epochs search search.budget.flops device",
            examples={
                "attention sharing, small, on a laptop": "psvit-search ablate sharing",
                "all tables, with three seeds": "psvit-search ablate all scale=digits seeds=[0,1,2]",
                "the paper's own scale, on 8 GPUs": "torchrun --no-python --nproc-per-node 8 psvit-search ablate "
                "sharing scale=imagenet data.root=/data/imagenet",
            },
            argument=Flag("TABLE", "table", "TABLE", "components, pooling, sharing, pooling_kind or all"),
        ),
        Command(
            name="paper",
            summary="every table of the paper, its figures beside what is counted and measured here",
            about="Prints the paper's configurations, its ImageNet and COCO tables and its ablations: parameters and "
            "FLOPs counted for every row, and whether they round to what is printed; accuracies as published, and "
            "beside them those of this program's own runs, where there are any.",
            task="psvit.paper.tables:paper",
            schema="psvit.paper.tables:PaperConfig",
            flags=(
                Flag("--save", "save", "DIR", "write paper.md and a CSV file for each table into this folder, too"),
                _JSON,
            ),
            settings="runs",
            examples={
                "all tables": "psvit-search paper",
                "as Markdown and CSV": "psvit-search paper --save tables",
                "with the results of another folder of runs": "psvit-search paper runs=/data/runs",
            },
            makes_folder=False,
        ),
        Command(
            name="prepare-data",
            summary="pack a dataset into a few large files, resized, that are read at speed",
            about="Resizes every image once and writes all of them, with names, labels and splits, into large files "
            "with an index and checksums; data=packed trains from these. Any dataset can be packed. Started again, it "
            "goes on where it was. It takes all cores, or workers=N processes.",
            task="psvit.data.prepare:prepare_data",
            schema="psvit.data.config:PrepareConfig",
            flags=(
                replace(_SAVE, value="DIR", help="folder of the cache"),
                Flag("--verify", "verify", "", "check the cache at --save instead: names the files that are damaged"),
            ),
            settings="data data.root size store quality workers data.corrupt data.corrupt_limit",
            examples={
                "a folder of pictures": "psvit-search prepare-data data=imagefolder data.root=/photos --save /cache",
                "then": "psvit-search train-supernet data=packed data.root=/cache",
                "pixels that need no decoding": "psvit-search prepare-data data=imagenet data.root=/data/imagenet "
                "--save /fast/raw store=raw size=224",
                "check it": "psvit-search prepare-data --save /cache --verify",
            },
            makes_folder=False,
        ),
        Command(
            name="train-supernet",
            summary="train all architectures of a space at once, in one supernet",
            about="Trains one network whose cells hold every layer that an architecture may have, on random paths "
            "through it. The search scores architectures by the weights that they inherit from it.",
            task="psvit.supernet.train:train_supernet",
            schema="psvit.supernet.config:TrainSupernetConfig",
            flags=(_NAME, _OUT, _PROFILE),
            settings="space data data.root data.image_size data.search_fraction data.workers data.corrupt data.decode "
            f"{_TRAIN_SETTINGS} sampling paths weights watch seed device",
            examples={
                "handwritten digits": "psvit-search train-supernet",
                "ImageNet on 8 GPUs": "torchrun --no-python --nproc-per-node 8 psvit-search train-supernet "
                "--name tiny space=1d_tiny_16 data=imagenet data.root=/data/imagenet",
            },
        ),
        Command(
            name="exhaustive",
            summary="find the best architecture within a budget by scoring all of them",
            about="Scores all architectures within a budget by the weights that they inherit from a trained supernet; "
            "what their paths have in common is computed once. Writes what evolve writes. With search.race=true all "
            "are scored on a few images first, and those that can no longer be among the best are dropped.",
            task="psvit.search.run:search",
            schema="psvit.search.config:SearchRunConfig",
            flags=(
                _FLOPS,
                _PARAMS,
                _LATENCY,
                Flag("--num-images", "search.num_images", "N", "score on N images of the search split, stratified"),
                _SUPERNET,
                _NAME,
                _OUT,
            ),
            settings="search.race search.race_keep search.confidence search.placements search.baseline "
            f"{_SCORING_SETTINGS} data_root workers seed device",
            examples={
                "after train-supernet": "psvit-search exhaustive --flops 5M",
                "on 8 GPUs, racing": "torchrun --no-python --nproc-per-node 8 psvit-search exhaustive --flops 1.3G "
                "--name in1k search.race=true workers=8",
            },
        ),
        Command(
            name="evolve",
            summary="find a good one by evolution, where they are too many to score all",
            about="Scores architectures by the weights that they inherit from a trained supernet, on images held out "
            "of its training, and breeds from the best. Writes arch.json (the best), history.csv and pictures.",
            task="psvit.search.run:search",
            schema="psvit.search.config:SearchRunConfig",
            flags=(_FLOPS, _PARAMS, _LATENCY, _SUPERNET, _NAME, _OUT),
            settings=f"{_SEARCH_SETTINGS} data_root workers seed device",
            examples={
                "after train-supernet": "psvit-search evolve --flops 5M",
                "what takes at most 2 ms an image on this machine": "psvit-search evolve --latency 2ms",
                "three searches, of seeds 1, 2 and 3": "psvit-search evolve --flops 5M -m seed=1,2,3",
            },
        ),
        Command(
            name="nsga2",
            summary="evolve the front of score against cost, for many budgets at once",
            about="Evolves architectures that no other one beats in both score and FLOPs (with --latency: score and "
            "latency), so that one search serves all budgets below its own; psvit-search pick then answers each of "
            "them. Writes what evolve writes.",
            task="psvit.search.run:search",
            schema="psvit.search.config:SearchRunConfig",
            flags=(_FLOPS, _PARAMS, _LATENCY, _SUPERNET, _NAME, _OUT),
            settings=f"{_SEARCH_SETTINGS} data_root workers seed device",
            examples={"all of a space": "psvit-search nsga2", "up to 5 M": "psvit-search nsga2 --flops 5M"},
        ),
        Command(
            name="random",
            summary="score random ones, the baseline of every search",
            about="Scores architectures drawn uniformly from all that the budget allows, by the weights that they "
            "inherit from a trained supernet. Writes what evolve writes.",
            task="psvit.search.run:search",
            schema="psvit.search.config:SearchRunConfig",
            flags=(_FLOPS, _PARAMS, _LATENCY, _SUPERNET, _NAME, _OUT),
            settings=f"{_SEARCH_SETTINGS} data_root workers seed device",
            examples={"after train-supernet": "psvit-search random --flops 4M..5M"},
        ),
        Command(
            name="pick",
            summary="the best within any later budget, from what was scored",
            about="Answers a budget from what searches of one supernet have scored, without scoring anything: the "
            "best, with 95 % intervals of their top-1, and how many of all architectures within the budget were "
            "scored. RUN is a search, or a project, whose searches are put together.",
            task="psvit.search.pick:pick",
            schema="psvit.search.config:PickConfig",
            flags=(
                replace(_FLOPS, key="budget.flops"),
                replace(_PARAMS, key="budget.params"),
                replace(_LATENCY, key="budget.latency"),
                Flag("--top", "top", "N", "how many to show"),
                _NAME,
                replace(_SAVE, help="write the best as an arch.json, too"),
                _JSON,
            ),
            settings="top table",
            examples={
                "from all searches of the project": "psvit-search pick --flops 4M --params 500K",
                "from one of them, to be retrained": "psvit-search pick runs/default/exhaustive-5M --flops 4.5M "
                "--save arch.json",
            },
            argument=Flag("RUN", "run", "RUN", "run folder of a search, or folder of a project"),
            makes_folder=False,
        ),
        Command(
            name="report",
            summary="a search as one HTML page",
            about="Writes report.html into the run folder of a search: budget, space, front, winner, the best 20, how "
            "sure their scores are, and what repeats the search. The page holds its pictures and opens without "
            "network. Without RUN it takes the only search of the project.",
            task="psvit.search.report:report_search",
            schema="psvit.search.config:ReportConfig",
            flags=(_NAME,),
            examples={
                "the only search of the project": "psvit-search report",
                "one of several": "psvit-search report runs/default/exhaustive-5M",
            },
            argument=Flag("RUN", "run", "RUN", "run folder of a search"),
            makes_folder=False,
        ),
        Command(
            name="inherit",
            summary="the weights that an architecture has in the supernet, as a file",
            about="Takes the weights of an architecture out of a trained supernet, those that a search scores it by. "
            "evaluate tests them, and retrain trains them on.",
            task="psvit.supernet.extract:extract",
            schema="psvit.supernet.extract:InheritConfig",
            flags=(_ARCH, _SUPERNET, _NAME, replace(_SAVE, help="the file of weights to write, safetensors")),
            examples={
                "the winner of a search": "psvit-search inherit --arch runs/default/exhaustive-5M/arch.json "
                "--save inherited.safetensors",
            },
            makes_folder=False,
        ),
        Command(
            name="retrain",
            summary="train one architecture, from scratch or from weights at hand",
            about="Trains the network of an arch.json, or a named one, from random weights or from those of --start, "
            "and tests it. With distill.teacher it learns from another network, too. Writes model.safetensors.",
            task="psvit.retrain.train:retrain",
            schema="psvit.retrain.config:RetrainConfig",
            flags=(_NETWORK, _START, _NAME, _OUT, _PROFILE),
            settings=f"data data.root {_TRAIN_SETTINGS} hold_out adapt distill.teacher distill.weights distill.mode "
            "experiment seed device",
            examples={
                "the winner of a search": "psvit-search retrain --arch runs/default/exhaustive-5M/arch.json",
                "the same, from the weights of psvit-search inherit": "psvit-search retrain --name warm "
                "--arch runs/default/exhaustive-5M/arch.json --start inherited.safetensors",
                "ImageNet by the DeiT recipe, on 8 GPUs": "torchrun --no-python --nproc-per-node 8 psvit-search "
                "retrain --arch arch.json data=imagenet data.root=/data/imagenet recipe=retrain/deit",
                "a network of the paper, or one to compare with": "psvit-search retrain --arch torchvision:resnet18 "
                "--name resnet18 data=imagenet data.root=/data/imagenet",
                "weights that were trained on other images, fine-tuned": "psvit-search retrain --name flowers "
                "--arch runs/in1k/retrain/arch.json --start runs/in1k/retrain/model.safetensors data=imagefolder "
                "data.root=/path/to/images adapt=true recipe=retrain/finetune",
            },
        ),
        Command(
            name="evaluate",
            summary="accuracy of trained weights",
            about="Scores the weights of a retrained network on the test split, or another one.",
            task="psvit.retrain.evaluate:evaluate",
            schema="psvit.retrain.config:EvaluateConfig",
            flags=(_NETWORK, _WEIGHTS, _SPLIT),
            settings="data data.root batch_size device",
            examples={
                "test top-1 of a retrained network": "psvit-search evaluate "
                "--arch runs/default/retrain/arch.json --weights runs/default/retrain/model.safetensors",
            },
            makes_folder=False,
        ),
        Command(
            name="explain",
            summary="look into trained networks: attention maps, tokens, Grad-CAM",
            about="Measures how alike the attention maps of neighbouring layers and the tokens within a layer are, "
            "with the similarity on different images beside it, and draws them, the layers, and by Grad-CAM (captum) "
            "what in an image speaks for the predicted class. Of a ResNet of torchvision Grad-CAM only.",
            task="psvit.explain.explain:explain",
            schema="psvit.explain.config:ExplainConfig",
            flags=(
                _NETWORK,
                _WEIGHTS,
                Flag("--versus", "versus", "NET", "a second network, shown beside the first"),
                Flag("--versus-weights", "versus_weights", "FILE", "its trained weights, a model.safetensors"),
                replace(_SPLIT, help="images to look at: test, search or train"),
                _NAME,
                replace(_SAVE, value="DIR", help="folder of tables and pictures"),
            ),
            settings="images pictures data data.root seed device",
            examples={
                "a retrained network": "psvit-search explain --arch runs/default/retrain/arch.json "
                "--weights runs/default/retrain/model.safetensors",
                "beside a DeiT, on pictures of your own": "psvit-search explain --arch runs/mine/retrain/arch.json "
                "--weights runs/mine/retrain/model.safetensors --versus deit_tiny_16 "
                "--versus-weights runs/deit/retrain/model.safetensors data=imagefolder data.root=/path/to/images "
                "pictures=[cat.jpg,dog.jpg]",
            },
            makes_folder=False,
        ),
        Command(
            name="detect shapes",
            summary="draw shapes to try a detector on, with boxes and masks, in COCO's format",
            about="Draws circles, squares, triangles and stars, small and large, some partly hidden, with boxes and "
            "masks in COCO's format and layout: train2017/, val2017/ and annotations/; in singles/ images of one shape "
            "each, for a classifier to start from (singles=0 draws none). The same settings draw the same images.",
            task="psvit.detection.shapes:draw_shapes",
            schema="psvit.detection.shapes:ShapesConfig",
            flags=(
                replace(_SAVE, value="DIR", help="folder to make"),
                Flag("--images", "images", "N", "images to learn from, 400 unless given"),
                Flag("--val-images", "val_images", "N", "images to score on, 100 unless given"),
                Flag("--size", "size", "PIXELS", "of an image's shorter side, 64 unless given"),
            ),
            examples={
                "500 images, and 5,000 of one shape each, in seconds": "psvit-search detect shapes --save shapes",
                "a classifier, then a detector that starts from it": "psvit-search retrain experiment=retrain/shapes",
                "the latter": "psvit-search detect train experiment=detect/shapes",
            },
            makes_folder=False,
        ),
        Command(
            name="detect train",
            summary="Mask R-CNN with a network as its backbone: objects' boxes and masks",
            about="Puts a feature pyramid on the stages of a PSViT-2D, or of a ResNet of torchvision, teaches it to "
            "find objects, their boxes, classes and masks, and measures the average precision on the validation "
            "images. Data are in COCO's format. Writes model.safetensors, result.json and pictures.",
            task="psvit.detection.train:train_detector",
            schema="psvit.detection.config:DetectTrainConfig",
            flags=(
                replace(_NETWORK, help="the backbone: an arch.json, or a name, psvit_2d_tiny_8, torchvision:resnet18"),
                replace(_START, help="its weights as a classifier, a model.safetensors of retrain"),
                _NAME,
                _OUT,
                _PROFILE,
            ),
            settings=f"data.root data.workers data.corrupt {_TRAIN_SETTINGS} recipe.min_sizes heads.fpn_channels watch "
            "experiment seed device",
            examples={
                "drawn shapes, minutes on a CPU, after the commands that detect shapes names": "psvit-search "
                "detect train experiment=detect/shapes data.root=shapes",
                "COCO on 8 GPUs, from weights trained on ImageNet": "torchrun --no-python --nproc-per-node 8 "
                "psvit-search detect train experiment=detect/coco_psvit_2d_tiny data.root=/data/coco "
                "--start runs/psvit_2d_tiny_8/retrain/model.safetensors",
            },
        ),
        Command(
            name="detect evaluate",
            summary="average precision of a detector's boxes and masks",
            about="Scores the weights of detect train on the validation images by COCO's measure: average precision "
            "over all overlaps, at overlaps of 0.5 and 0.75, and of small, medium and large objects.",
            task="psvit.detection.evaluate:evaluate_detector",
            schema="psvit.detection.config:DetectEvaluateConfig",
            flags=(
                replace(_NETWORK, help="the backbone, as for detect train"),
                replace(_WEIGHTS, help="the detector's weights, a model.safetensors of detect train"),
                replace(_SAVE, help="draw some images and what was found in them, too (.png or .svg)"),
            ),
            settings="data.root data.workers precision device",
            examples={
                "a trained detector": "psvit-search detect evaluate --arch runs/default/detect/arch.json "
                "--weights runs/default/detect/model.safetensors data.root=/data/coco",
            },
            makes_folder=False,
        ),
        Command(
            name="rank",
            summary="do inherited scores predict networks trained alone?",
            about="Draws architectures, scores them with the weights that they inherit from a trained supernet, trains "
            "each alone from scratch on the same images, and compares the two orders: Kendall's tau, Spearman's rho, "
            "and what picking by inherited score costs, with intervals. Writes rank.csv, rank.json and rank.png. The "
            "recipe is that of digits unless another one is named.",
            task="psvit.search.rank:rank",
            schema="psvit.search.config:RankConfig",
            flags=(
                Flag("--archs", "archs", "N", "architectures to train"),
                Flag("--epochs", "recipe.epochs", "E", "epochs of each training"),
                replace(_FLOPS, key="flops"),
                replace(_PARAMS, key="params"),
                _SUPERNET,
                _NAME,
                _OUT,
            ),
            settings="archs cost jobs recipe.epochs recipe.batch_size recipe.lr recipe.precision data_root workers "
            "seed device",
            examples={
                "16 architectures, over all costs": "psvit-search rank --archs 16",
                "of one cost, with a supernet of your own images": "psvit-search rank --name mine --flops 5M "
                "cost=equal recipe=retrain/imagefolder",
            },
        ),
        Command(
            name="latency",
            summary="how long the networks of a space take on this machine, layer by layer",
            about="Measures the time of a forward pass, so that a search can take a budget as --latency 2ms: so much a "
            "basic and so much a sharing layer of each stage, and a fixed part. Says how well their sum predicts "
            "random networks. Writes latency.json.",
            task="psvit.search.timing:measure_latency",
            schema="psvit.search.config:MeasureConfig",
            flags=(_SUPERNET, _NAME, replace(_SAVE, help="where the table goes")),
            settings="space batch precision repeats device",
            examples={
                "the networks of the project's supernet": "psvit-search latency",
                "a named space, 8 images at once": "psvit-search latency space=1d_tiny_16 batch=8 --save tiny.json",
            },
            makes_folder=False,
        ),
        Command(
            name="inspect",
            summary="layers, tokens, FLOPs and parameters of a network",
            about="Prints a network stage by stage. TARGET is an arch.json, a named network (deit_tiny_16), a space "
            "(1d_tiny_16), or a space and layers (1d_tiny_16:BSB-BB-B).",
            task="psvit.inspect:inspect",
            schema="psvit.inspect:InspectConfig",
            flags=(_SAVE, _JSON),
            examples={
                "the winner of a search": "psvit-search inspect runs/default/exhaustive-5M/arch.json --save best.png",
                "a named network": "psvit-search inspect deit_tiny_16",
            },
            argument=Flag("TARGET", "target", "TARGET", "arch.json, network, space, or space and layers"),
            makes_folder=False,
        ),
        Command(
            name="space",
            summary="how large a space is, and what lies within a budget",
            about="Counts the paths and architectures of a space, exactly, and gives its range of FLOPs and "
            "parameters. NAME is a named space.",
            task="psvit.supernet.describe:describe",
            schema="psvit.supernet.describe:DescribeConfig",
            flags=(replace(_FLOPS, key="flops"), replace(_PARAMS, key="params"), _JSON),
            settings="space space.cells",
            examples={
                "a named space within a budget": "psvit-search space 1d_tiny_16 --flops 1.3G",
                "one of your own": "psvit-search space 1d_tiny_16 space.widths=[192,256,384] space.heads=[3,4,6]",
            },
            argument=Flag("NAME", "space", "NAME", "a named space"),
            makes_folder=False,
        ),
    )
}


# ---------------------------------------------------------------------------------------------------- command line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is 0, 2 after a fault of the user, 130 when the user stopped it."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # OpenMP threads spin long while they wait, which slows a small network down as soon as it shares its cores with
    # anything (benchmarks/openmp_spin.py); read when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    # Several processes look for unused parameters, and torch would warn wherever a step happens to have none.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        return _dispatch(words)
    except UsageError as error:
        return _complain(error)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # as `psvit-search paper | head` leaves it: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


class UsageError(ValueError):
    """A command line that cannot be meant; the message says in one line what to write."""


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("--help", "-h", "help"):
        print(_overview())
        return 0
    if words[0] == "--version":
        print(f"psvit-search {psvit.__version__}")
        return 0
    if words[0] in ("-sc", "--shell-completion"):
        return _complete(words[1:])
    command, rest = _find(words)
    if command is None:
        name = words[0]
        parts = {part: part for known in COMMANDS if known.startswith(f"{name} ") for part in [known.partition(" ")[2]]}
        if not parts:
            raise UsageError(
                f"no subcommand is {name!r} ('psvit-search --help' lists them){_did_you_mean(name, COMMANDS)}"
            )
        if {"-h", "--help"}.isdisjoint(rest):
            raise UsageError(f"write psvit-search {name} and one of {', '.join(parts)}")
        print("\n\n".join(f"{name} {part}: {COMMANDS[f'{name} {part}'].summary}" for part in parts))
        return 0
    if not {"-h", "--help"}.isdisjoint(rest):
        print(_help(command))
        return 0
    return _run(command, *parse(command, rest))


def _find(words: Sequence[str]) -> tuple[Command | None, list[str]]:
    """The command that words begin with, None if there is none such, and the words behind it."""
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in COMMANDS:
            return COMMANDS[name], list(words[length:])
    return None, list(words[1:])


def parse(command: Command, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """A subcommand's words as flags that Hydra knows and as overrides; Hydra wants the flags first.

    Raises:
        UsageError: an unknown flag, a flag without its value, or a word that is neither flag nor ``key=value``.
    """
    from hydra._internal.utils import get_args_parser

    ours = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in command.flags:
        if flag.value:
            ours.add_argument(flag.name, dest=flag.key)
        else:
            ours.add_argument(flag.name, dest=flag.key, action="store_const", const="true")
    hydras = get_args_parser()
    for parser in (ours, hydras):
        parser.error = _refuse  # type: ignore[method-assign]
    short, rest = ours.parse_known_args(words)
    known, unknown = hydras.parse_known_intermixed_args(rest)
    if unknown:
        name = unknown[0].partition("=")[0]
        guess = _did_you_mean(name, [*ours._option_string_actions, *hydras._option_string_actions])
        raise UsageError(f"{command.name} has no flag {name} ('psvit-search {command.name} --help' lists them){guess}")
    plain = [word for word in known.overrides if _is_bare(word)]
    flags = [word for word in rest if word not in known.overrides]
    overrides = [word for word in known.overrides if word not in plain]
    given = {key: value for key, value in vars(short).items() if value is not None}
    if command.argument and plain:
        given = {command.argument.key: plain.pop(0), **given}
    if plain:
        raise UsageError(f"{plain[0]!r} is no setting; write settings as key=value{_how_to(command)}")
    switches = {flag.key for flag in command.flags if not flag.value}
    short_overrides = [
        f"{key}={value if key in switches else _quote(value, sweep=known.multirun)}" for key, value in given.items()
    ]
    return flags, short_overrides + overrides


def _refuse(message: str) -> NoReturn:
    raise UsageError(message)


def _is_bare(word: str) -> bool:
    """Whether a word is an argument of its own and no ``key=value`` or ``~key``."""
    return not word.startswith("~") and ("=" not in word or os.path.exists(word))


def _quote(value: str, sweep: bool = False) -> str:
    """A value as Hydra's grammar reads it back; with ``sweep``, each of the values that commas divide."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Quote, QuotedString
    from hydra.errors import HydraException

    if sweep and "," in value:
        return ",".join(_quote(part) for part in value.split(","))
    try:
        if OverridesParser.create().parse_override(f"key={value}").value() == value:
            return value
    except HydraException:
        pass  # what cannot be read as it stands is quoted
    return QuotedString(value, Quote.single).with_quotes()


def _did_you_mean(word: str, choices: Iterator[str] | Sequence[str] | Mapping[str, Any]) -> str:
    close = get_close_matches(word, list(choices), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _complain(error: Exception | str) -> int:
    """Print one line on stderr; gives the exit status of a user's fault."""
    rank = f" (process {os.environ['RANK']})" if os.environ.get("RANK", "0") != "0" else ""
    print(f"psvit-search{rank}: {error}", file=sys.stderr)
    return 2


# ---------------------------------------------------------------------------------------------------- Hydra


def _run(command: Command, flags: list[str], overrides: list[str]) -> int:
    """Let Hydra compose the settings of a subcommand, or sweep over them, and start its task."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from psvit.run.signals import Stopped

    schema = _register(command)
    with_trace = os.environ.get("HYDRA_FULL_ERROR") == "1"

    def explained(error: Exception) -> int:
        if with_trace:
            raise error
        if isinstance(error, Stopped):
            _complain(error)
            return 130
        return _complain(_explain(error, command))

    def task(config: DictConfig) -> None:
        hydras = HydraConfig.get()
        sweeping = hydras.mode == RunMode.MULTIRUN
        try:
            # merged once more, so that what +key=value has added is refused unless the schema knows it
            config = OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.to_container(config))  # type: ignore
            if sweeping and command.makes_folder:
                config.out = str(Path(config.out) / hydras.sweep.subdir)
            settings = OmegaConf.to_object(config)
            _load(command.task)(settings)
        except (ValueError, OmegaConfBaseException, Stopped) as error:
            if sweeping:  # the other jobs go on
                raise
            raise SystemExit(explained(error)) from error

    with tempfile.TemporaryDirectory() as nowhere:
        if os.environ.get("RANK", "0") != "0" or not command.makes_folder:
            overrides = [*overrides, f"hydra.sweep.dir={nowhere}"]  # where Hydra would write multirun.yaml
        with _arguments([*flags, *overrides]):
            try:
                hydra.main(version_base="1.3", config_path=str(CONF), config_name=command.config)(task)()
            except (ValueError, HydraException, OmegaConfBaseException, Stopped) as error:
                return explained(error)
            except SystemExit as stop:
                return stop.code if isinstance(stop.code, int) else 0
    return 0


@contextmanager
def _arguments(words: list[str]) -> Iterator[None]:
    """Hydra reads its arguments from ``sys.argv``, and raises its errors only when HYDRA_FULL_ERROR is 1."""
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [argv[0], *words]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        sys.argv = argv
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error


def _load(name: str) -> Any:
    """The object that ``module:attribute`` names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _register(command: Command) -> type[Any]:
    """Tell Hydra a subcommand's schema, the named spaces, and how search folders are named; gives the schema."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    from psvit.supernet.config import SpaceConfig
    from psvit.zoo import SPACES

    schema: type[Any] = _load(command.schema)
    store = ConfigStore.instance()
    store.store(name=f"{command.config}-schema", node=schema)
    if any(field.name == "space" for field in fields(schema)):
        for name, spec in SPACES.items():
            store.store(group="space", name=name, node=SpaceConfig.of(spec))
    OmegaConf.register_new_resolver("search_folder", search_folder, replace=True)
    return schema


def search_folder(searcher: str, flops: str | None, params: str | None, seed: int, latency: str | None = None) -> str:
    """Name of a search's folder, ``evolve-1.3G-16Mparams-2ms-seed1``: what two searches of a supernet differ in."""
    parts = [searcher, flops, params and f"{params}params", latency, f"seed{seed}" if seed else None]
    return "-".join(re.sub(r"[^\w.+-]+", "", part) for part in parts if part)


@contextmanager
def composer(command: Command) -> Iterator[Callable[[list[str]], Any]]:
    """A function that composes a subcommand's settings from overrides, inside a run of Hydra and outside."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    _register(command)
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            yield lambda overrides: hydra.compose(command.config, overrides, return_hydra_config=True)
    finally:
        GlobalHydra.instance().hydra = outer


def command_line(command: Command, config: Any) -> str:
    """The shortest command line that runs a subcommand with exactly these settings (an instance of its schema)."""
    from omegaconf import OmegaConf

    wanted = _flatten(asdict(config))
    flags = {flag.key: flag.name for flag in command.flags if flag.value}
    words: dict[str, str] = {}  # key -> value in Hydra's grammar
    with composer(command) as compose:
        given = compose([])
        for group in ("space", "data"):
            name = wanted.get(f"{group}.name")
            if name in _choices(group) and name != given.hydra.runtime.choices[group]:
                words[group] = name
        for derived in (False, True):  # first what stands on its own, then what may follow from it
            if words:
                given = compose([f"{key}={value}" for key, value in words.items()])
            for key, value in wanted.items():
                parent, _, leaf = key.rpartition(".")
                node = OmegaConf.select(given, parent) if parent else given
                if not derived and OmegaConf.is_interpolation(node, leaf):
                    continue
                current = None if OmegaConf.is_missing(node, leaf) else OmegaConf.select(given, key)
                if (OmegaConf.to_container(current) if OmegaConf.is_config(current) else current) != value:
                    words[key] = _write(value)
    short = [f"{flags[key]} {shlex.quote(str(wanted[key]))}" for key in words if key in flags]
    long = [shlex.quote(f"{key}={value}") for key, value in words.items() if key not in flags]
    return " ".join(["psvit-search", command.name, *short, *long])


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` -> ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _write(value: Any) -> str:
    """A plain value in Hydra's grammar."""
    if isinstance(value, list):
        return f"[{','.join(map(_write, value))}]"
    if isinstance(value, str):
        return _quote(value)
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


def _choices(group: str) -> list[str]:
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.object_type import ObjectType

    options: list[str] = GlobalHydra.instance().config_loader().get_group_options(group, ObjectType.CONFIG)
    return options


# ---------------------------------------------------------------------------------------------------- faults

_TYPES = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}


def _how_to(command: Command) -> str:
    return f" ('psvit-search {command.name} --cfg job' shows all)"


def _explain(error: BaseException, command: Command) -> str:
    """One line for what Hydra, OmegaConf or a task found wrong: which setting, and what to do."""
    from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException
    from omegaconf.errors import (
        ConfigAttributeError,
        ConfigKeyError,
        MissingMandatoryValue,
        OmegaConfBaseException,
        ValidationError,
    )

    text = str(error)
    first = text.partition("\n")[0]
    key = str(getattr(error, "full_key", "") or "")
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        choose = f"; choose one of {', '.join(error.options)}" if error.options else ""
        return f"{group}={name}: there is no such choice{choose}"
    if isinstance(error, OverrideParseException):
        return f"cannot read {error.override!r}; write key=value, and put special characters in quotes: \"key='a=b'\""
    if isinstance(error, ConfigCompositionException) and isinstance(error.__cause__, OmegaConfBaseException):
        return _explain(error.__cause__, command)
    if isinstance(error, MissingMandatoryValue):
        flags = (*command.flags, command.argument)
        flag = next((flag for flag in flags if flag and flag.key == key), None)
        if flag is None:
            return f"{key} is missing; give it as {key}=..."
        usage = " ".join(dict.fromkeys((flag.name, flag.value)))
        return f"{key} is missing; write psvit-search {command.name} {usage} ({flag.help})"
    if isinstance(error, ConfigAttributeError | ConfigKeyError):
        keys = [*_keys(_load(command.schema)), "hydra"]
        return f"{command.name} has no setting {key!r}{_how_to(command)}{_did_you_mean(key, keys)}"
    if isinstance(error, ValidationError):
        found = re.match(r"Value '(.*)' of type '.*' could not be converted to (\w+)", first)
        if found:
            return f"{key} is {found[1]!r}; it must be {_TYPES.get(found[2], found[2])}"
        return f"{key}: {first}"
    if isinstance(error, ConfigCompositionException):
        if first.startswith("Ambiguous value"):
            override = first.partition("'")[2].rstrip("'")
            return f"{override}: add -m to run once for each value; a list is written key=[a,b]"
        absent = re.match(r"Could not override '(.+?)'\. No match in the defaults list", first)
        if absent:
            return f"{command.name} has no setting {absent[1]!r}{_how_to(command)}"
        return first
    return first if isinstance(error, OmegaConfBaseException) else text


def _keys(schema: type[Any], prefix: str = "") -> Iterator[str]:
    """All settings of a schema, ``recipe.augment.flip`` for one."""
    from typing import get_type_hints

    types = get_type_hints(schema)
    for field in fields(schema):
        yield prefix + field.name
        if is_dataclass(types[field.name]):
            yield from _keys(types[field.name], f"{prefix}{field.name}.")


# ---------------------------------------------------------------------------------------------------- completion


def _complete(words: list[str]) -> int:
    """``psvit-search -sc query=bash``: complete subcommands and flags here, and leave the settings to Hydra."""
    command = COMMANDS["run"]
    if any(word.startswith("query=") for word in words):
        line = os.environ.get("COMP_LINE", "")
        before = line.split()[1:]
        word = "" if line.endswith(" ") or not before else before.pop()
        found, after = _find(before)
        if found is None:
            names = (name.split() for name in COMMANDS)
            nexts = (name[len(before)] for name in names if name[: len(before)] == before and len(name) > len(before))
            print(" ".join(dict.fromkeys(name for name in nexts if name.startswith(word))))
            return 0
        command = found
        if word.startswith("-"):
            print(" ".join(flag.name for flag in command.flags if flag.name.startswith(word)))
            return 0
        if any(before[-1] == flag.name and flag.value for flag in command.flags):
            return 0  # the shell completes names of files
        try:
            _, overrides = parse(command, after)
        except UsageError:
            return 0
        os.environ["COMP_LINE"] = " ".join(["psvit-search", *overrides, word])
    return _run(command, ["-sc", *words], [])


# ---------------------------------------------------------------------------------------------------- help


def _overview() -> str:
    table = _table([(command.name, command.summary) for command in COMMANDS.values()])
    return f"""\
psvit-search {psvit.__version__}: search for the best vision transformer within a budget (PSViT, arXiv 2108.03428)

It trains one supernet that holds every architecture of a space, searches it for the best one within
your budget of FLOPs, parameters or latency, and retrains the winner from scratch. Unless told
otherwise it works on handwritten digits that come with the package, on a CPU or a GPU.

All at once, a few minutes on a laptop:
  psvit-search run --flops 5M

Or in three steps; each finds what the one before has left:
  psvit-search train-supernet
  psvit-search exhaustive --flops 5M
  psvit-search retrain --arch runs/default/exhaustive-5M/arch.json

Your own images, in one folder a class:
  psvit-search run --flops 5M --name mine data=imagefolder data.root=/path/to/images

Subcommands ('psvit-search SUBCOMMAND --help' explains each):
{table}

Results go to runs/NAME/ (--name NAME, else "default"): supernet/, exhaustive-5M/ and retrain/, and
run adds report.md. The same command started again goes on where it was stopped.

Settings are written key=value behind a subcommand, as seed=1 or recipe.epochs=30; Hydra
(https://hydra.cc) reads them. On every subcommand:
  --cfg job         print all settings and run nothing
  -m seed=1,2,3     run once for each value
  --config-dir DIR  use YAML files of your own, such as DIR/recipe/mine.yaml by recipe=mine

Completion in bash, for settings too:
  eval "$(psvit-search -sc install=bash)\""""


def _help(command: Command) -> str:
    argument = f"[{command.argument.value}] " if command.argument else ""
    usage = f"Usage: psvit-search {command.name} {argument}[FLAGS] [key=value ...]"
    sections = ["\n".join(textwrap.wrap(command.about, WIDTH)), usage]
    flags = [(f"{flag.name} {flag.value}".rstrip(), flag.help) for flag in command.flags]
    sections.append("Flags:\n" + _table([*flags, ("-h, --help", "this text")]))
    if command.settings:
        sections.append("Useful settings, with their defaults:\n" + _settings(command))
    examples = [f"  # {what}\n{_wrap_command(line)}" for what, line in command.examples.items()]
    sections.append("Examples:\n" + "\n".join(examples))
    sections.append(
        f"All settings:          psvit-search {command.name} --cfg job\n"
        f"Once for each value:   psvit-search {command.name} ... -m key=a,b,c"
    )
    return "\n\n".join(sections)


def _settings(command: Command) -> str:
    """The table of a subcommand's most useful settings; the defaults are those that Hydra composes."""
    from omegaconf import OmegaConf

    rows = []
    with composer(command) as compose:
        config = compose([])
        chosen = config.hydra.runtime.choices
        for key in command.settings.split():
            text = SETTINGS.get(f"{command.name.split()[0]} {key}", SETTINGS.get(key, ""))
            if text.endswith("choices:"):
                options = _choices(key)
                if key in ("recipe", "experiment"):  # a folder for each command that has some
                    folder = str(chosen[key]).partition("/")[0] if key == "recipe" else command.name.split()[0]
                    options = [f"{folder}/{name}" for name in _choices(f"{key}/{folder}")]
                text += " " + ", ".join(options)
            default = chosen[key] if key in chosen else OmegaConf.select(config, key)
            rows.append((f"{key}={_write(default)}", text))
    return _table(rows)


def _table(rows: Sequence[tuple[str, str]]) -> str:
    """Two columns, the second one wrapped."""
    column = max(len(left) for left, _ in rows) + 4
    lines = []
    for left, right in rows:
        lines += textwrap.wrap(
            right,
            WIDTH,
            initial_indent=f"  {left}".ljust(column),
            subsequent_indent=" " * column,
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def _wrap_command(line: str) -> str:
    """A command, cut where a shell allows it."""
    lines = textwrap.wrap(line, WIDTH - 8, break_long_words=False, break_on_hyphens=False)
    return "  " + " \\\n      ".join(lines)


if __name__ == "__main__":
    sys.exit(main())
