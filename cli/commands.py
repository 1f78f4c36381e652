"""The table of commands: for each its task, settings, flags and examples. No torch.

Help for a flag or setting is not here but in the ``Attributes:`` section of the command's schema.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psvit.search.searchers import SEARCHERS, SearcherKind


@dataclass(frozen=True)
class Flag:
    """A short way to write an override: ``--flops 1.3G`` is ``search.budget.flops=1.3G``.

    Attributes:
        name: the flag, or what the help calls an argument that needs none.
        key: the setting.
        value: what the help calls its value; "" for a switch.
    """

    name: str
    key: str
    value: str


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        name: one word, or two, such as ``detect train``.
        summary: one line.
        about: what it does, for its own help.
        task: ``module:function`` that takes the schema.
        schema: ``module:dataclass`` of its settings; one with ``out`` works in a run folder.
        examples: what for -> command.
        flags: its short flags.
        settings: the settings that its help explains, by dotted keys.
        argument: the flag whose name is left out, as in ``inspect arch.json``.
        more: what the words behind it are a list of, as in ``predict RUN a.jpg b.jpg``.
    """

    name: str
    summary: str
    about: str
    task: str
    schema: str
    examples: dict[str, str]
    flags: tuple[Flag, ...] = ()
    settings: str = ""
    argument: Flag | None = None
    more: Flag | None = None

    @property
    def config(self) -> str:
        """The name of its config, ``detect-train``: of a YAML file in ``conf/``, where it has one."""
        return self.name.replace(" ", "-")


def _budget(prefix: str, *names: str) -> tuple[Flag, ...]:
    """``--flops``, ``--params`` and ``--latency``, or some of them."""
    return tuple(Flag(f"--{name}", f"{prefix}{name}", "X") for name in names or ("flops", "params", "latency"))


_BUDGET = _budget("search.budget.")
_SUPERNET = Flag("--supernet", "supernet", "RUN")
_ARCH = Flag("--arch", "arch", "NET")
_WEIGHTS = Flag("--weights", "weights", "FILE")
_START = Flag("--start", "start", "FILE")
_SPLIT = Flag("--split", "split", "SPLIT")
_NAME = Flag("--name", "name", "NAME")
_OUT = Flag("--out", "out", "DIR")
_PROFILE = Flag("--profile", "profile", "")
_JSON = Flag("--json", "json", "")
_SAVE = Flag("--save", "save", "FILE")
_SAVE_DIR = Flag("--save", "save", "DIR")
_RUN = Flag("RUN", "run", "RUN")

_DATA = "data data.root"
_RECIPE = "recipe.epochs recipe.batch_size recipe.lr recipe.precision"
_SEARCH = "search.placements search.baseline search.precision search.memory search.latency.table search.latency.batch"


def _search(kind: SearcherKind) -> Command:
    """The command of a searcher."""
    return Command(
        name=kind.name,
        summary=kind.summary,
        about=f"{kind.about} Writes arch.json (the best), history.csv, plots and report.html.",
        task="psvit.search.run:search",
        schema="psvit.search.config:SearchRunConfig",
        flags=(*_BUDGET, Flag("--num-images", "search.num_images", "N"), _SUPERNET, _NAME, _OUT),
        settings=" ".join([*(f"search.{key}" for key in kind.settings), _SEARCH, "data_root workers seed device"]),
        examples=kind.examples,
    )


_COMMANDS = (
    Command(
        name="run",
        summary="supernet, search, retraining and report in one go",
        about="Trains a supernet, searches it for the best architecture within a budget, retrains the winner from "
        "scratch, and writes report.md. Run again, it resumes where it stopped.",
        task="psvit.cli.run:run_all",
        schema="psvit.cli.run:RunAllConfig",
        flags=(*_BUDGET, _NAME, _OUT),
        settings=f"space {_DATA} recipe@supernet.recipe supernet.recipe.epochs supernet.sampling supernet.weights "
        f"search search.auto_minutes search.prefer search.trials search.population {_SEARCH} final "
        "recipe@retrain.recipe retrain.recipe.epochs experiment seed device",
        examples={
            "handwritten digits, a few minutes on two CPU cores": "psvit-search run --flops 5M",
            "your own images, one folder per class": "psvit-search run --flops 5M --name mine data=imagefolder "
            "data.root=/path/to/images",
        },
    ),
    Command(
        name="ablate",
        summary="the paper's ablations, each row trained with several seeds",
        about="Trains the network of every row of an ablation once per seed, and writes the table: mean and spread of "
        "the top-1 on the test split, FLOPs, parameters, the paper's ImageNet figure for comparison, and a plot. A row "
        "that several tables share is trained once. Run again, it resumes where it stopped.",
        task="psvit.paper.ablate:ablate",
        schema="psvit.paper.ablate:AblateConfig",
        flags=(_NAME, _OUT),
        settings=f"scale seeds jobs {_DATA} recipe recipe.epochs recipe@supernet.recipe supernet.recipe.epochs search "
        "search.budget.flops device",
        examples={
            "attention sharing, small, on a laptop": "psvit-search ablate sharing",
            "all tables, with three seeds": "psvit-search ablate all scale=digits seeds=[0,1,2]",
            "the paper's own scale, on 8 GPUs": "torchrun --no-python --nproc-per-node 8 psvit-search ablate sharing "
            "scale=imagenet data.root=/data/imagenet",
        },
        argument=Flag("TABLE", "table", "TABLE"),
    ),
    Command(
        name="paper",
        summary="every table of the paper, next to what is counted and measured here",
        about="Prints the paper's configurations, its ImageNet and COCO tables and its ablations: parameters and FLOPs "
        "as counted here, and whether they round to the printed figures; published accuracies, and next to them those "
        "of your own runs, if there are any.",
        task="psvit.paper.tables:paper",
        schema="psvit.paper.tables:PaperConfig",
        flags=(_SAVE_DIR, _JSON),
        settings="runs",
        examples={
            "all tables": "psvit-search paper",
            "as Markdown and CSV": "psvit-search paper --save tables",
            "with the results in another folder of runs": "psvit-search paper runs=/data/runs",
        },
    ),
    Command(
        name="check",
        summary="one look at all images before anything is trained",
        about="Opens a dataset as a training would, and reads every image: splits, classes and their numbers, formats, "
        "sizes, files that cannot be read, identical images within and across splits, how much a score on the search "
        "split can tell. What cannot be trained on is refused. Files that have not changed are not read again.",
        task="psvit.data.check:check",
        schema="psvit.data.config:CheckConfig",
        flags=(_JSON,),
        settings="data data.search_fraction data.test_fraction cache",
        examples={
            "a folder of photos, one folder per class": "psvit-search check /photos",
            "a list": "psvit-search check photos.csv data=csv",
        },
        argument=Flag("FOLDER", "data.root", "FOLDER"),
    ),
    Command(
        name="prepare-data",
        summary="pack a dataset into a few large files of resized images, which load fast",
        about="Resizes every image once and writes them all, with names, labels and splits, into large files with an "
        "index and checksums; data=packed trains from these. Works for any dataset. Run again, it resumes where it "
        "stopped.",
        task="psvit.data.prepare:prepare_data",
        schema="psvit.data.config:PrepareConfig",
        flags=(_SAVE_DIR, Flag("--verify", "verify", "")),
        settings=f"{_DATA} size store quality workers data.corrupt data.corrupt_limit",
        examples={
            "a folder of photos": "psvit-search prepare-data data=imagefolder data.root=/photos --save /cache",
            "then train from it": "psvit-search train-supernet data=packed data.root=/cache",
            "raw pixels, which need no decoding": "psvit-search prepare-data data=imagenet data.root=/data/imagenet "
            "--save /fast/raw store=raw size=224",
            "check it": "psvit-search prepare-data --save /cache --verify",
        },
    ),
    Command(
        name="train-supernet",
        summary="train all architectures of a space at once, in one supernet",
        about="Trains one network whose cells hold every layer that an architecture may have, on random paths through "
        "it. A search scores architectures with the weights they inherit from it.",
        task="psvit.supernet.train:train_supernet",
        schema="psvit.supernet.config:TrainSupernetConfig",
        flags=(_NAME, _OUT, _PROFILE),
        settings=f"space {_DATA} data.image_size data.search_fraction data.workers data.corrupt data.decode recipe "
        f"{_RECIPE} sampling paths weights watch seed device",
        examples={
            "handwritten digits": "psvit-search train-supernet",
            "ImageNet on 8 GPUs": "torchrun --no-python --nproc-per-node 8 psvit-search train-supernet "
            "--name tiny space=1d_tiny_16 data=imagenet data.root=/data/imagenet",
        },
    ),
    *map(_search, SEARCHERS.values()),
    Command(
        name="pick",
        summary="the best architectures within any later budget, from earlier searches",
        about="Answers a budget from what searches of one supernet have scored, without scoring anything: the best "
        "architectures, and how many of all within the budget were scored. Their scores are of the images that chose "
        "them, so they are optimistic; a last line has what the first reaches on other images, cross-fitted or held "
        "out, or why that is not known.",
        task="psvit.search.pick:pick",
        schema="psvit.search.config:PickConfig",
        flags=(*_budget("budget."), Flag("--top", "top", "N"), _NAME, _SAVE, _JSON),
        settings="table",
        examples={
            "from all searches of the project": "psvit-search pick --flops 4M --params 500K",
            "from one of them, to retrain": "psvit-search pick runs/default/exhaustive-5M --flops 4.5M "
            "--save arch.json",
        },
        argument=_RUN,
    ),
    Command(
        name="report",
        summary="a search as one HTML page",
        about="Writes report.html into the run folder of a search: budget, space, Pareto front, winner, the best 20, "
        "how reliable their scores are, and the command that repeats the search. The page is self-contained and opens "
        "offline.",
        task="psvit.search.report:report_search",
        schema="psvit.search.config:ReportConfig",
        flags=(_NAME,),
        examples={
            "the project's only search": "psvit-search report",
            "one of several": "psvit-search report runs/default/exhaustive-5M",
        },
        argument=_RUN,
    ),
    Command(
        name="inherit",
        summary="save the weights that an architecture inherits from the supernet",
        about="Extracts from a trained supernet the weights that a search scores an architecture with. evaluate tests "
        "them, and retrain --start trains them further.",
        task="psvit.supernet.inherit:inherit_weights",
        schema="psvit.supernet.inherit:InheritConfig",
        flags=(Flag("--arch", "arch", "FILE"), _SUPERNET, _NAME, _SAVE),
        examples={
            "the winner of a search": "psvit-search inherit --arch runs/default/exhaustive-5M/arch.json "
            "--save inherited.safetensors",
        },
    ),
    Command(
        name="retrain",
        summary="train one architecture, from scratch or from given weights",
        about="Trains the network of an arch.json, or a named one, from random weights or from those of --start, and "
        "tests it. With distill.teacher it learns from another network as well. Writes model.safetensors.",
        task="psvit.retrain.train:retrain",
        schema="psvit.retrain.config:RetrainConfig",
        flags=(_ARCH, _START, _NAME, _OUT, _PROFILE),
        settings=f"{_DATA} recipe {_RECIPE} hold_out adapt distill.teacher distill.weights distill.mode experiment "
        "seed device",
        examples={
            "the winner of a search": "psvit-search retrain --arch runs/default/exhaustive-5M/arch.json",
            "the same, from the weights of psvit-search inherit": "psvit-search retrain --name warm "
            "--arch runs/default/exhaustive-5M/arch.json --start inherited.safetensors",
            "ImageNet with the DeiT recipe, on 8 GPUs": "torchrun --no-python --nproc-per-node 8 psvit-search retrain "
            "--arch arch.json data=imagenet data.root=/data/imagenet recipe=retrain/deit",
            "a network of the paper, or one to compare with": "psvit-search retrain --arch torchvision:resnet18 "
            "--name resnet18 data=imagenet data.root=/data/imagenet",
            "fine-tune weights trained on other images": "psvit-search retrain --name flowers "
            "--arch runs/in1k/retrain/arch.json --start runs/in1k/retrain/model.safetensors data=imagefolder "
            "data.root=/path/to/images adapt=true recipe=retrain/finetune",
        },
    ),
    Command(
        name="evaluate",
        summary="accuracy of trained weights",
        about="Scores the weights of a retrained network on the test split, or on another one.",
        task="psvit.retrain.evaluate:evaluate",
        schema="psvit.retrain.config:EvaluateConfig",
        flags=(_ARCH, _WEIGHTS, _SPLIT),
        settings=f"{_DATA} batch_size device",
        examples={
            "test top-1 of a retrained network": "psvit-search evaluate --arch runs/default/retrain/arch.json "
            "--weights runs/default/retrain/model.safetensors",
        },
    ),
    Command(
        name="compare",
        summary="retrained networks side by side, on the same test images",
        about="Compares the first run's network with each other one, paired image by image on the test split; runs of "
        "one network with other seeds count as one. Networks that were trained on other data are refused, and those of "
        "another recipe unless any_recipe=true. Prints a table and a sentence on each pair.",
        task="psvit.retrain.compare:compare",
        schema="psvit.retrain.config:CompareConfig",
        flags=(_SAVE_DIR,),
        settings="any_recipe",
        examples={
            "a winner, a DeiT of about its cost, by the same recipe": "psvit-search compare runs/default/retrain "
            "runs/deit/retrain --save runs/comparison",
            "where runs/deit is": "psvit-search retrain --arch deit_mini_4 --name deit",
        },
        more=Flag("RUNS", "runs", "RUNS..."),
    ),
    Command(
        name="predict",
        summary="what a trained network takes pictures for",
        about="Names the most probable classes of pictures, prepared as the network's weights say. Files that cannot "
        "be read are named on stderr.",
        task="psvit.deploy.predict:predict",
        schema="psvit.deploy.config:PredictConfig",
        flags=(Flag("--top", "top", "N"), Flag("--csv", "csv", ""), _JSON),
        settings="batch_size workers device",
        examples={
            "a folder of pictures": "psvit-search predict runs/default/retrain pictures --top 5 --csv",
        },
        argument=Flag("MODEL", "model", "MODEL"),
        more=Flag("PICTURES", "pictures", "PICTURES..."),
    ),
    Command(
        name="export",
        summary="a trained network as a file for another runtime",
        about="Writes a network for torch.export, ONNX or OpenVINO, for batches of any size, with class names and "
        "preprocessing in its metadata. A file whose answers differ from torch's is not left.",
        task="psvit.deploy.export:export",
        schema="psvit.deploy.config:ExportConfig",
        flags=(Flag("--to", "to", "FORMATS"), _SAVE_DIR),
        settings=_DATA,
        examples={
            "three formats": "psvit-search export runs/default/retrain --to torch-export,onnx,openvino",
        },
        argument=Flag("MODEL", "model", "MODEL"),
    ),
    Command(
        name="explain",
        summary="look inside trained networks: attention maps, tokens, Grad-CAM",
        about="Measures how similar the attention maps of neighbouring layers are, and the tokens within a layer, with "
        "the similarity between different images as a baseline. Plots both, the layers, and the evidence for the "
        "predicted class by Grad-CAM (captum). For a torchvision ResNet, Grad-CAM only.",
        task="psvit.explain.explain:explain",
        schema="psvit.explain.config:ExplainConfig",
        flags=(
            *(_ARCH, _WEIGHTS, Flag("--versus", "versus", "NET"), Flag("--versus-weights", "versus_weights", "FILE")),
            *(_SPLIT, _NAME, _SAVE_DIR),
        ),
        settings=f"num_images pictures {_DATA} seed device",
        examples={
            "a retrained network": "psvit-search explain --arch runs/default/retrain/arch.json "
            "--weights runs/default/retrain/model.safetensors",
            "next to a DeiT, on pictures of your own": "psvit-search explain --arch runs/mine/retrain/arch.json "
            "--weights runs/mine/retrain/model.safetensors --versus deit_tiny_16 "
            "--versus-weights runs/deit/retrain/model.safetensors data=imagefolder data.root=/path/to/images "
            "pictures=[cat.jpg,dog.jpg]",
        },
    ),
    Command(
        name="detect shapes",
        summary="draw a small COCO-format dataset to try a detector on",
        about="Draws circles, squares, triangles and stars, small and large, some partly hidden, with boxes and masks "
        "in COCO's format and layout: train2017/, val2017/ and annotations/. The same settings draw the same images.",
        task="psvit.detection.shapes:draw_shapes",
        schema="psvit.detection.shapes:ShapesConfig",
        flags=(
            *(_SAVE_DIR, Flag("--num-images", "num_images", "N"), Flag("--num-val-images", "num_val_images", "N")),
            Flag("--size", "size", "PIXELS"),
        ),
        settings="singles seed",
        examples={
            "500 images, and 5,000 of a single shape, in seconds": "psvit-search detect shapes --save shapes",
            "train a classifier on them": "psvit-search retrain experiment=retrain/shapes",
            "and a detector that starts from it": "psvit-search detect train experiment=detect/shapes",
        },
    ),
    Command(
        name="detect train",
        summary="Mask R-CNN with a PSViT or ResNet as its backbone",
        about="Puts a feature pyramid on the stages of a PSViT-2D or a torchvision ResNet, trains Mask R-CNN on data "
        "in COCO's format, and measures average precision on the validation images. Writes model.safetensors, "
        "result.json and plots.",
        task="psvit.detection.train:train_detector",
        schema="psvit.detection.config:DetectTrainConfig",
        flags=(_ARCH, _START, _NAME, _OUT, _PROFILE),
        settings=f"data.root data.workers data.corrupt recipe {_RECIPE} recipe.min_sizes heads.fpn_channels watch "
        "experiment seed device",
        examples={
            "drawn shapes, minutes on a CPU, after the first two examples of detect shapes": "psvit-search detect "
            "train experiment=detect/shapes data.root=shapes",
            "COCO on 8 GPUs, from weights trained on ImageNet": "torchrun --no-python --nproc-per-node 8 psvit-search "
            "detect train experiment=detect/coco_psvit_2d_tiny data.root=/data/coco "
            "--start runs/psvit_2d_tiny_8/retrain/model.safetensors",
        },
    ),
    Command(
        name="detect evaluate",
        summary="average precision of a trained detector's boxes and masks",
        about="Scores the weights of detect train on the validation images by COCO's metric: average precision over "
        "all overlaps, at overlaps of 0.5 and 0.75, and of small, medium and large objects.",
        task="psvit.detection.evaluate:evaluate_detector",
        schema="psvit.detection.config:DetectEvaluateConfig",
        flags=(_ARCH, _WEIGHTS, _SAVE),
        settings="data.root data.workers precision device",
        examples={
            "a trained detector": "psvit-search detect evaluate --arch runs/default/detect/arch.json "
            "--weights runs/default/detect/model.safetensors data.root=/data/coco",
        },
    ),
    Command(
        name="rank",
        summary="do inherited scores predict standalone training?",
        about="Draws architectures, or takes those that you name; scores them with the weights they inherit from a "
        "trained supernet, trains each one alone from scratch on the same images, with several seeds, and compares the "
        "two rankings: how much networks differ beside seeds, Kendall's tau with the highest that the seeds permit, "
        "and the regret of picking by inherited score, with confidence intervals. Writes rank.csv, rank.json, rank.png "
        "and, for --against with the next supernet, standalone.csv. The recipe is that of digits unless you name "
        "another.",
        task="psvit.search.rank:rank",
        schema="psvit.search.config:RankConfig",
        flags=(
            *(Flag("--archs", "archs", "N|LAYERS|FILE"), Flag("--epochs", "recipe.epochs", "N")),
            *(Flag("--seeds", "seeds", "N"), Flag("--against", "against", "FILE")),
            *(*_budget("", "flops", "params"), _SUPERNET, _NAME, _OUT),
        ),
        settings="cost rank_by jobs recipe.batch_size recipe.lr recipe.precision data_root workers seed device",
        examples={
            "16 architectures, over all costs": "psvit-search rank --archs 16",
            "another supernet by the same trainings": "psvit-search rank --name second "
            "--against runs/default/rank/standalone.csv",
            "all of one cost, with a supernet of your own images": "psvit-search rank --name mine --flops 5M "
            "cost=equal recipe=retrain/imagefolder",
        },
    ),
    Command(
        name="finals",
        summary="train the best that a search cannot tell apart, and drop half each round",
        about="The search's winner and the best of those that cannot be told from it are trained alone on the training "
        "images, briefly at first; the better half by images that did not rank them is trained again, for twice as "
        "long, until one is left. Random architectures of its cost are trained as long, and it says what the "
        "winner is ahead of them, what all that cost and what it changed. Writes arch.json (the winner) and "
        "final.json, and adds the final to the search's report.html. The recipe is that of digits unless you name "
        "another. Run again, it resumes where it stopped.",
        task="psvit.search.finals:finals",
        schema="psvit.search.config:FinalsConfig",
        flags=(Flag("--keep", "keep", "N"), Flag("--epochs", "recipe.epochs", "N"), _SUPERNET, _OUT),
        settings="control init max_networks max_epochs max_minutes jobs recipe.batch_size recipe.lr recipe.precision "
        "data_root workers seed device",
        examples={
            "of the search of the first example of run": "psvit-search finals runs/default/exhaustive-5M --keep 16",
            "shorter, from the supernet's weights": "psvit-search finals runs/default/exhaustive-5M --keep 8 "
            "--epochs 20 init=inherit",
        },
        argument=_RUN,
    ),
    Command(
        name="latency",
        summary="how long the networks of a space take on this machine, layer by layer",
        about="Measures forward passes, so that a search can take a budget such as --latency 2ms: a time per basic and "
        "per sharing layer of each stage, and a fixed part. Reports how well their sum predicts random networks. "
        "Writes latency.json.",
        task="psvit.search.timing:measure_latency",
        schema="psvit.search.config:MeasureConfig",
        flags=(_SUPERNET, _NAME, _SAVE),
        settings="space batch precision repeats device",
        examples={
            "the networks of the project's supernet": "psvit-search latency",
            "a named space, 8 images at once": "psvit-search latency space=1d_tiny_16 batch=8 --save tiny.json",
        },
    ),
    Command(
        name="runs",
        summary="the runs that there are: state, what was found, size",
        about="Lists every run below a folder, the latest last: whether it is running, finished, or how far it came; "
        "what was found; how large it is; and the command that repeats or resumes it.",
        task="psvit.cli.runs:list_runs",
        schema="psvit.cli.runs:RunsConfig",
        flags=(_JSON,),
        examples={
            "all of them": "psvit-search runs",
            "of another disk": "psvit-search runs /data/runs --json",
        },
        argument=Flag("FOLDER", "runs", "FOLDER"),
    ),
    Command(
        name="inspect",
        summary="layers, tokens, FLOPs and parameters of a network",
        about="Prints a network stage by stage.",
        task="psvit.inspect:inspect",
        schema="psvit.inspect:InspectConfig",
        flags=(_SAVE, _JSON),
        examples={
            "the winner of a search": "psvit-search inspect runs/default/exhaustive-5M/arch.json --save best.png",
            "a named network": "psvit-search inspect deit_tiny_16",
        },
        argument=Flag("TARGET", "target", "TARGET"),
    ),
    Command(
        name="space",
        summary="how large a space is, and what lies within a budget",
        about="Counts the paths and architectures of a space exactly, and gives the range of their FLOPs and "
        "parameters.",
        task="psvit.supernet.describe:describe",
        schema="psvit.supernet.describe:DescribeConfig",
        flags=(*_budget("", "flops", "params"), _JSON),
        settings="space.cells",
        examples={
            "a named space within a budget": "psvit-search space 1d_tiny_16 --flops 1.3G",
            "one of your own": "psvit-search space 1d_tiny_16 space.widths=[192,256,384] space.heads=[3,4,6]",
        },
        argument=Flag("NAME", "space", "NAME"),
    ),
)
COMMANDS = {command.name: command for command in _COMMANDS}


def find(words: Sequence[str]) -> tuple[Command | None, list[str]]:
    """The command that words begin with, None if there is none such, and the words behind it."""
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in COMMANDS:
            return COMMANDS[name], list(words[length:])
    return None, list(words[1:])


def parts(name: str) -> list[Command]:
    """The commands of two words that begin with this one: those of ``detect``."""
    return [command for command in _COMMANDS if command.name.startswith(f"{name} ")]
