"""``psvit-search run``: supernet, search and retraining one after the other, and a report on them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psvit
from psvit.archfile import load_arch
from psvit.cli.command import COMMANDS, command_line, search_folder
from psvit.cost import Band, format_duration, format_quantity, parse_duration
from psvit.data.config import DataConfig
from psvit.engine.config import Recipe, RunConfig
from psvit.retrain.config import RetrainConfig
from psvit.run.files import write_text
from psvit.search.config import SearchConfig, SearchRunConfig
from psvit.search.searchers import AUTO
from psvit.supernet.config import SpaceConfig, TrainSupernetConfig

if TYPE_CHECKING:
    from psvit.retrain.train import RetrainResult
    from psvit.search.run import SearchResult


@dataclass
class SupernetPart:
    """What only the supernet's training needs; see :class:`psvit.supernet.config.TrainSupernetConfig`."""

    recipe: Recipe = field(default_factory=Recipe)
    sampling: str = TrainSupernetConfig.sampling
    paths: str = TrainSupernetConfig.paths
    weights: str = TrainSupernetConfig.weights


@dataclass
class RetrainPart:
    """What only the retraining needs; see :class:`psvit.retrain.config.RetrainConfig`."""

    recipe: Recipe = field(default_factory=Recipe)
    hold_out: bool = False


@dataclass
class RunAllConfig(RunConfig):
    """Settings of ``psvit-search run``; those of its parts, see :class:`psvit.supernet.config.TrainSupernetConfig`."""

    space: SpaceConfig = field(default_factory=SpaceConfig)
    data: DataConfig = field(default_factory=DataConfig)
    watch: int = 4
    supernet: SupernetPart = field(default_factory=SupernetPart)
    search: SearchConfig = field(default_factory=SearchConfig)
    retrain: RetrainPart = field(default_factory=RetrainPart)


def run_all(config: RunAllConfig) -> Path:
    """Train a supernet, search it, retrain the winner and report, in folders below ``config.out``.

    Each part goes on where it was stopped; what is finished is not done again.

    Returns:
        ``report.md``.

    Raises:
        ValueError: what the parts refuse, or several processes, since a search runs in one.
        psvit.run.signals.Stopped: a part was asked to stop, and has saved its work.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError(
            "run works in one process; use torchrun for train-supernet, a search and retrain, one after the other"
        )
    config, found, made = run_parts(config)
    assert found is not None, "one process has no followers"
    path = Path(config.out) / "report.md"
    write_text(path, report(config, found, made))
    print("\n" + "\n".join(f"{key:<12}{text}" for key, text in _facts(config, found, made).items()))
    print(f"\nwrote {path}")
    return path


def run_parts(
    config: RunAllConfig, search_in: str | None = None
) -> tuple[RunAllConfig, SearchResult | None, RetrainResult]:
    """The three parts, in one process or, unless the searcher is ``auto``, in all that torchrun has started.

    Args:
        config: what to do, in folders below ``config.out``.
        search_in: name of the search's folder; None is what the subcommand that searches would name it.

    Returns:
        The settings with the searcher that was chosen, what was found (None in a process that is not the main one),
        and what was made of it.

    Raises:
        ValueError, psvit.run.signals.Stopped: as :func:`run_all`.
    """
    from psvit.retrain.train import retrain
    from psvit.search.run import search
    from psvit.supernet.train import train_supernet

    train_supernet(supernet_config(config))
    config = choose_searcher(config)
    searching = search_config(config, search_in)
    found = search(searching)
    return config, found, retrain(retrain_config(config, Path(searching.out) / "arch.json"))


def choose_searcher(config: RunAllConfig) -> RunAllConfig:
    """With ``search=auto``, the settings with the searcher that was chosen; the choice is kept in ``searcher.json``."""
    if config.search.searcher != AUTO:
        return config
    from psvit.search.auto import choose
    from psvit.search.records import SearcherRecord

    path, budget = Path(config.out) / "searcher.json", config.search.budget
    chosen = SearcherRecord.load(path) if path.exists() else None
    if chosen is None or chosen.budget != budget:
        choice = choose(search_config(config), config.search.auto_minutes, Path(config.out))
        chosen = SearcherRecord(budget, choice.searcher, choice.why)
        chosen.save(path)
    print(f"search=auto: {chosen.why}: {chosen.searcher}")
    latency, table = config.search.latency, Path(config.out) / "latency.json"
    if budget.latency and latency.table is None and table.exists():  # what the choice was made by
        latency = replace(latency, table=str(table))
    return replace(config, search=replace(config.search, searcher=chosen.searcher, latency=latency))


def _shared(config: RunAllConfig, folder: str) -> dict[str, Any]:
    """What a part has in common with the whole."""
    out = str(Path(config.out) / folder)
    return {"runs": config.runs, "name": config.name, "out": out, "seed": config.seed, "device": config.device}


def supernet_config(config: RunAllConfig) -> TrainSupernetConfig:
    """The settings of the first part."""
    return TrainSupernetConfig(
        **_shared(config, "supernet"),
        space=config.space,
        data=config.data,
        recipe=config.supernet.recipe,
        sampling=config.supernet.sampling,
        paths=config.supernet.paths,
        weights=config.supernet.weights,
        watch=config.watch,
    )


def search_config(config: RunAllConfig, folder: str | None = None) -> SearchRunConfig:
    """The settings of the second part, in a folder of that name or of the one that its subcommand would choose."""
    budget = config.search.budget
    folder = folder or search_folder(config.search.searcher, budget.flops, budget.params, config.seed, budget.latency)
    return SearchRunConfig(
        **_shared(config, folder),
        supernet=str(Path(config.out) / "supernet"),
        data_root=config.data.root,
        workers=config.data.workers,
        search=config.search,
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


def _facts(config: RunAllConfig, found: SearchResult, made: RetrainResult) -> dict[str, str]:
    """What was searched, what was found, and how good it is, in a line each."""
    best, budget = found.best, config.search.budget
    spec = load_arch(found.arch).spec
    cost = f"{format_quantity(best.flops)} FLOPs, {format_quantity(best.params)} parameters"
    return {
        "space": f"{config.space.name}, {config.space.cells} cells a stage",
        "data": f"{config.data.name}, {spec.classes} classes, {'x'.join(map(str, spec.image_size))} pixels",
        "budget": f"FLOPs: {Band.parse(budget.flops)}; parameters: {Band.parse(budget.params)}"
        + (f"; latency: {Band.parse(budget.latency, parse_duration).text(format_duration)}" if budget.latency else ""),
        "winner": f"{best.architecture}, {cost}",
        "inherited": f"top-1 {best.top1:.4f} on the search split; {found.comparison}",
        "retrained": f"top-1 {made.top1:.4f} on the test split",
    }


def report(config: RunAllConfig, found: SearchResult, made: RetrainResult) -> str:
    """The text of ``report.md``, with the pictures and files of all parts and the commands that repeat each of them."""
    out = Path(config.out)
    supernet, search = supernet_config(config), search_config(config)

    def link(path: Path) -> str:
        return quote(os.path.relpath(path, out))

    facts = [f"| {key} | {text} |" for key, text in _facts(config, found, made).items()]
    pictures = {path.name: path for folder in (made.folder, found.folder) for path in sorted(folder.glob("*.png"))}
    files = {
        "the architecture": found.arch,
        "its weights": made.weights,
        "every scored architecture": found.folder / "history.csv",
        "run of the supernet": Path(supernet.out),
        "run of the search": found.folder,
        "run of the retraining": made.folder,
    }
    commands = [
        command_line(COMMANDS["train-supernet"], supernet),
        command_line(COMMANDS[config.search.searcher], search),
        command_line(COMMANDS["retrain"], retrain_config(config, found.arch)),
    ]
    lines = [
        f"# {config.name}",
        *("", "| | |", "|---|---|", *facts),
        *("", f"Seed {config.seed}, psvit-search {psvit.__version__}.", ""),
        *(f"![{path.stem}]({link(path)})" for path in pictures.values()),
        *("", "## Files", "", *(f"- {what}: [{link(path)}]({link(path)})" for what, path in files.items())),
        *("", "## To repeat each part", "", "```", *commands, "```", ""),
    ]
    return "\n".join(lines)
