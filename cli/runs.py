"""``psvit-search runs``: what lies in a folder of runs: state, what was found, size on the disk. No torch."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from psvit.run.files import LOCK
from psvit.run.folder import recorded_command
from psvit.run.records import Record
from psvit.units import format_quantity

INSIDE = "networks"  # trainings that belong to a ranking or a final
SUPERNET = "supernet.safetensors"


@dataclass
class RunsConfig:
    """Settings of ``psvit-search runs``.

    Attributes:
        runs: folder of all runs.
        json: print JSON instead of a table.
    """

    runs: str = "runs"
    json: bool = False


@dataclass(frozen=True)
class FoundRun:
    """A run folder.

    Attributes:
        folder: where it is.
        state: ``running``, ``finished``, or ``stopped``, with how far it came.
        found: what came of it, in a line; "" while there is nothing to say.
        bytes: on the disk, with all in it.
        changed: when something in it was written last, in seconds since 1970.
        command: the line that repeats or resumes it; None if no command has started it.
    """

    folder: str
    state: str
    found: str
    bytes: int
    changed: float
    command: str | None


def list_runs(config: RunsConfig) -> list[FoundRun]:
    """Print all runs below a folder, those that were written last at the end, and give them.

    Raises:
        ValueError: there is no such folder.
    """
    root = Path(config.runs)
    if not root.is_dir():
        raise ValueError(f"there is no folder {root}; give that of your runs, runs=FOLDER")
    runs = sorted(map(look, find_runs(root)), key=lambda run: run.changed)
    if config.json:
        print(json.dumps([asdict(run) for run in runs], indent=2))
    elif not runs:
        print(f"{root} holds no runs")
    else:
        print("\n".join(_lines(runs)))
    return runs


def find_runs(root: Path) -> Iterator[Path]:
    """Run folders below a folder, but for the trainings inside of a ranking or a final."""
    for path, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name != INSIDE and not name.startswith("."))
        if "config.yaml" in files and "versions.json" in files:
            yield Path(path)


def look(folder: Path) -> FoundRun:
    """A run folder as it is now; what cannot be read is said in place of what was found."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    try:
        found = _found(folder)
    except ValueError as error:
        found = str(error)
    finished = found is not None
    state = "finished" if finished else "stopped"
    if _is_locked(folder / LOCK):
        state = "running"
    if not finished and (progress := _progress(folder)):
        state += f" at {progress}"
    sizes = sum(path.stat().st_size for path in files)
    changed = max((path.stat().st_mtime for path in files), default=folder.stat().st_mtime)
    return FoundRun(str(folder), state, found or "", sizes, changed, recorded_command(folder))


def _found(folder: Path) -> str | None:
    """What came of a finished run; None of one that has not finished.

    Raises:
        ValueError: its result cannot be read.
    """
    for name in ("result.json", "final.json", "rank.json"):
        if (folder / name).is_file():
            kind, describe = _kind(folder / name)
            return describe(kind.load(folder / name))
    if (folder / SUPERNET).is_file():
        settings = _settings(folder)
        space, data = (settings.get(key) or {} for key in ("space", "data"))
        return f"supernet of {space.get('name')}, trained on {data.get('name')}, sampling={settings.get('sampling')}"
    tables = sorted(folder.glob("table-*.json"))
    return f"{len(tables)} tables" if tables else None


def _kind(path: Path) -> tuple[type[Record], Callable[[Any], str]]:
    """Which record a file holds; any, whose reader then says what is wrong, where the file does not say it."""
    from psvit.retrain.results import DetectRecord, RetrainRecord
    from psvit.search.records import FinalRecord, RankRecord, SearchRecord

    kinds: dict[type[Record], Callable[[Any], str]] = {
        SearchRecord: _of_search,
        RetrainRecord: _of_training,
        DetectRecord: _of_detector,
        FinalRecord: _of_final,
        RankRecord: lambda record: str(record.correlations).partition("\n")[0],
    }
    try:
        name = json.loads(path.read_text(encoding="utf-8"))["format"]
    except (OSError, ValueError, KeyError, TypeError):
        name = None
    return next((each for each in kinds.items() if each[0].format == name), (SearchRecord, _of_search))


def _progress(folder: Path) -> str:
    """``epoch 3 of 30`` or ``120 architectures``; nothing where neither is known."""
    metrics, history = folder / "metrics.csv", folder / "history.csv"
    if metrics.is_file():
        done = max(0, len(metrics.read_bytes().splitlines()) - 1)
        return f"epoch {done} of {(_settings(folder).get('recipe') or {}).get('epochs', 'unknown')}"
    if history.is_file():
        return f"{max(0, len(history.read_bytes().splitlines()) - 1):,} architectures"
    return ""


def _settings(folder: Path) -> dict[str, Any]:
    """What the run was asked for; nothing where that cannot be read."""
    try:
        settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        settings = None
    return settings if isinstance(settings, dict) else {}


def _is_locked(path: Path) -> bool:
    """Whether a process works in the folder of this lock."""
    try:
        with path.open("r+") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _of_search(record: Any) -> str:
    return f"{record.layers}, {_flops(record)}, {record.scored:,} scored; {record.claims.own}"


def _of_training(record: Any) -> str:
    name = f"{record.network} {record.layers or ''}".rstrip()
    return f"{name}, {_flops(record)}, test top-1 {record.top1:.4f} on {record.num_test_images:,} images"


def _of_detector(record: Any) -> str:
    box, mask = (scores.get("AP") for scores in (record.box, record.mask))
    figures = ", ".join(f"{name} AP {ap:.3f}" for name, ap in (("box", box), ("mask", mask)) if ap is not None)
    return f"{record.network}, {figures or 'no AP'} on {record.num_val_images:,} images"


def _of_final(record: Any) -> str:
    return f"{record.layers}, {_flops(record)}; top-1 {record.top1} on {record.num_images:,} images"


def _flops(record: Any) -> str:
    return f"{format_quantity(record.flops)} FLOPs"


def _lines(runs: list[FoundRun]) -> Iterator[str]:
    """A paragraph a run: where, how far, how large and when; what was found; how to repeat or resume it."""
    for run in runs:
        when = datetime.fromtimestamp(run.changed).strftime("%Y-%m-%d %H:%M")
        yield f"{run.folder}: {run.state}, {run.bytes / 2**20:.1f} MiB, {when}"
        yield from (f"    {line}" for line in (run.found, run.command) if line)
    folders = {run.folder for run in runs}
    outermost = [run for run in runs if folders.isdisjoint(map(str, Path(run.folder).parents))]
    yield f"{len(runs)} runs, {sum(run.bytes for run in outermost) / 2**20:.1f} MiB"
