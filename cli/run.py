"""``psvit-search run``: supernet, search and retraining one after the other, and a report on them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import psvit
from psvit.archfile import load_arch
from psvit.checks import check_at_least
from psvit.cli.commands import COMMANDS
from psvit.cli.compose import search_folder
from psvit.cli.repeat import command_line
from psvit.data.config import DataConfig
from psvit.engine.config import Recipe, RunConfig
from psvit.retrain.config import RetrainConfig
from psvit.run.files import write_text
from psvit.run.folder import recorded_as, recorded_command
from psvit.search.config import FinalsConfig, SearchConfig, SearchRunConfig
from psvit.supernet.config import SpaceConfig, SupernetPart, TrainSupernetConfig
from psvit.units import Band, format_duration, format_quantity, parse_duration

if TYPE_CHECKING:
    from psvit.retrain.train import RetrainResult
    from psvit.search.finals import FinalResult
    from psvit.search.run import SearchResult

Config = TypeVar("Config")
Result = TypeVar("Result")


@dataclass
class RetrainPart:
    """What only the retraining needs; see :class:`psvit.retrain.config.RetrainConfig`.

    Attributes:
        recipe: training recipe of the retraining; that of the dataset, or of ``imagefolder`` if it has none.
        hold_out: keep the search split out of the retraining, too.
    """

    recipe: Recipe = field(default_factory=Recipe)
    hold_out: bool = False


@dataclass
class RunAllConfig(RunConfig):
    """Settings of ``psvit-search run``.

    Attributes:
        space: search space: widths, heads and patch size of the networks.
        data: dataset to train, search and test on.
        watch: architectures to score after each epoch of the supernet, to monitor progress; 0 for none.
        final: architectures that enter a final between search and retraining, which trains those alone that the search
            cannot tell apart, and whose winner is retrained; 0 holds none.
        supernet: how the supernet learns.
        search: how to search.
        retrain: how the winner is retrained.
    """

    space: SpaceConfig = field(default_factory=SpaceConfig)
    data: DataConfig = field(default_factory=DataConfig)
    watch: int = 4
    final: int = 0
    supernet: SupernetPart = field(default_factory=SupernetPart)
    search: SearchConfig = field(default_factory=SearchConfig)
    retrain: RetrainPart = field(default_factory=RetrainPart)

    def __post_init__(self) -> None:
        check_at_least(self, 0, "final")


@dataclass(frozen=True)
class RunResult:
    """What all parts made.

    Attributes:
        report: ``report.md``.
        search: what the search found.
        final: what the final found; None without one.
        retrain: what the retraining made.
    """

    report: Path
    search: SearchResult
    final: FinalResult | None
    retrain: RetrainResult


def run_all(config: RunAllConfig) -> RunResult:
    """Train a supernet, search it, hold a final, retrain the winner and report, in folders below ``config.out``.

    Each part resumes where it was stopped; what is finished is not done again.

    Raises:
        ValueError: what the parts refuse, or several processes, since a search may have to be chosen by its speed here.
        psvit.run.signals.Stopped: a part was asked to stop, and has saved its work.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError(
            "run works in one process; with torchrun, start train-supernet, a search and retrain one after the other"
        )
    from psvit.retrain.train import retrain
    from psvit.search.auto import settle
    from psvit.search.finals import finals
    from psvit.search.run import search
    from psvit.supernet.train import train_supernet

    check_parts(config)
    out = Path(config.out)
    _start("train-supernet", train_supernet, supernet_config(config))
    config = replace(config, search=settle(search_config(config), out))
    found = _start(config.search.searcher, search, search_config(config))
    assert found is not None, "one process has no followers"
    final = _start("finals", finals, final_config(config, found.folder)) if config.final else None
    made = _start("retrain", retrain, retrain_config(config, final.arch if final else found.arch))
    result = RunResult(out / "report.md", found, final, made)
    write_text(result.report, report(config, result))
    print("\n" + "\n".join(f"{key:<12}{text}" for key, text in _facts(config, result).items()))
    print(f"\nwrote {result.report}")
    return result


def check_parts(config: RunAllConfig) -> None:
    """Refuse before the first step what a later part would refuse after hours.

    A table of latencies, if the budget needs one, is measured now, and kept in ``config.out``.

    Raises:
        ValueError: a split lacks a class or images, too few images to search or to hold a final, or a budget that
            nothing meets.
    """
    from psvit.data.data import open_data
    from psvit.engine.device import pick_device
    from psvit.search.budget import Budget
    from psvit.search.claims import ImageShares
    from psvit.search.finalists import check_images
    from psvit.search.searchers import SEARCHERS
    from psvit.search.timing import latency_table
    from psvit.supernet.space import SearchSpace

    data, search = open_data(config.data), config.search
    data.size("test")  # lists its images: each class must have some
    space, table = SearchSpace(config.space.spec(data.classes, data.image_size), config.space.cells), None
    if search.budget.latency:
        table = latency_table(search.latency, space, pick_device(config.device), Path(config.out))
    Budget.parse(search.budget, table).feasible(space)
    images = min(data.size("search"), search.num_images or data.size("search"))
    kind = SEARCHERS.get(search.searcher)  # none of auto, which asks for no more images than others
    adaptive = search.race or (kind is not None and kind.adaptive)
    shares = ImageShares.of(images, adaptive)
    if config.final:
        check_images(data.size("search"), len(shares.search), adaptive)


def _start(name: str, task: Callable[[Config], Result], config: Config) -> Result:
    """Call a part's task; its run folder records the command that repeats this part."""
    with recorded_as(command_line(COMMANDS[name], config)):
        return task(config)


def _shared(config: RunAllConfig, folder: str) -> dict[str, Any]:
    """What a part has in common with the whole."""
    out = str(Path(config.out) / folder)
    return {"runs": config.runs, "name": config.name, "out": out, "seed": config.seed, "device": config.device}


def supernet_config(config: RunAllConfig) -> TrainSupernetConfig:
    """The settings of the first part."""
    return TrainSupernetConfig(
        **_shared(config, "supernet"),
        **vars(config.supernet),
        space=config.space,
        data=config.data,
        watch=config.watch,
    )


def search_config(config: RunAllConfig) -> SearchRunConfig:
    """The settings of the second part, in the folder that its own command would choose."""
    budget = config.search.budget
    folder = search_folder(config.search.searcher, budget.flops, budget.params, config.seed, budget.latency)
    return SearchRunConfig(
        **_shared(config, folder),
        supernet=str(Path(config.out) / "supernet"),
        data_root=config.data.root,
        workers=config.data.workers,
        search=config.search,
    )


def final_config(config: RunAllConfig, search: Path) -> FinalsConfig:
    """The settings of a final of a search, by the recipe of the retraining."""
    folder = str((search / "final").relative_to(config.out))
    return FinalsConfig(
        **_shared(config, folder),
        run=str(search),
        supernet=str(Path(config.out) / "supernet"),
        data_root=config.data.root,
        keep=config.final,
        recipe=config.retrain.recipe,
    )


def retrain_config(config: RunAllConfig, arch: Path) -> RetrainConfig:
    """The settings of the third part."""
    return RetrainConfig(
        **_shared(config, "retrain"),
        arch=str(arch),
        hold_out=config.retrain.hold_out,
        data=config.data,
        recipe=config.retrain.recipe,
    )


def _facts(config: RunAllConfig, result: RunResult) -> dict[str, str]:
    """What was searched, what was found, and how good it is, in a line each."""
    found, made = result.search, result.retrain
    best, budget = found.best, config.search.budget
    spec = load_arch(found.arch).spec
    cost = f"{format_quantity(best.flops)} FLOPs, {format_quantity(best.params)} parameters"
    return {
        "space": f"{config.space.name}, {config.space.cells} cells per stage",
        "data": f"{config.data.name}, {spec.classes} classes, {'x'.join(map(str, spec.image_size))} pixels",
        "budget": f"FLOPs: {Band.parse(budget.flops)}; parameters: {Band.parse(budget.params)}"
        + (f"; latency: {Band.parse(budget.latency, parse_duration).text(format_duration)}" if budget.latency else ""),
        "winner": f"{best.architecture}, {cost}",
        "inherited": f"{found.claims.own}; {found.claims.compared}",
        **({"final": "; ".join(result.final.record.lines[:2])} if result.final else {}),
        "retrained": f"{'' if result.final else _retrained(found)}top-1 {made.top1:.4f} on the test split",
    }


def _retrained(found: SearchResult) -> str:
    """Which network, if it is not the winner."""
    if found.preferred.architecture == found.best.architecture:
        return ""
    cost = format_quantity(found.preferred.flops)
    return f"{found.preferred.architecture}, {cost} FLOPs, the cheapest that the images cannot tell from the winner: "


def report(config: RunAllConfig, result: RunResult) -> str:
    """The text of ``report.md``, with the plots and files of all parts and the commands that repeat each of them."""
    out, found, made = Path(config.out), result.search, result.retrain
    supernet = Path(supernet_config(config).out)

    def link(path: Path) -> str:
        return quote(os.path.relpath(path, out))

    facts = [f"| {key} | {text} |" for key, text in _facts(config, result).items()]
    plots = {path.name: path for folder in (made.folder, found.folder) for path in sorted(folder.glob("*.png"))}
    files = {
        "the retrained architecture": result.final.arch if result.final else found.arch,
        "its weights": made.weights,
        "every scored architecture": found.folder / "history.csv",
        "run of the supernet": supernet,
        "page of the search": found.folder / "report.html",
        "page of the retraining": made.folder / "report.html",
        "run of the search": found.folder,
        "run of the retraining": made.folder,
    }
    folders = [supernet, found.folder, *([result.final.folder] if result.final else []), made.folder]
    commands = filter(None, map(recorded_command, folders))
    lines = [
        f"# {config.name}",
        *("", "| | |", "|---|---|", *facts),
        *("", f"Seed {config.seed}, psvit-search {psvit.__version__}.", ""),
        *(f"![{path.stem}]({link(path)})" for path in plots.values()),
        *("", "## Files", "", *(f"- {what}: [{link(path)}]({link(path)})" for what, path in files.items())),
        *("", "## To repeat each part", "", "```", *commands, "```", ""),
    ]
    return "\n".join(lines)
