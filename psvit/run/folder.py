"""A run is a folder that records what was asked; the same command resumes it, another one is refused. No torch."""

from __future__ import annotations

import fcntl
import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import yaml

import psvit
from psvit.run.files import LOCK, flush_folder, make_folder, sweep_parts, write_text

# Settings (and all below them) that a run may change when it resumes: they have no effect on its result, or are where a
# file lies whose content is compared (``supernet``, ``run``, ``arch``, ``data_root``, ``start``, ``distill.weights``).
WITHOUT_EFFECT = (
    *("data.workers", "data.patience", "workers", "jobs", "device", "runs", "name", "out", "profile"),
    "recipe.checkpoint_every",
    *("supernet", "run", "arch", "data_root", "start", "distill.weights"),
    *("search.batch_size", "search.memory", "search.compile", "search.auto_minutes"),
    *("search.latency.table", "search.latency.force", "search.latency.repeats"),  # what was measured is compared
    "search.trials",  # a finished search resumes when it is asked for more
    "search.prefer",  # what was scored stays; its results are written anew
)


_MOST_TOLD, _MOST_CHARACTERS = 12, 120  # differences that a message names, and characters of a value
_MOST_BYTES, _MOST_VALUES = 2**20, 10_000  # of config.yaml: ours has some thousands and a hundred
RECORDS = ("config.yaml", "versions.json", "command.txt", "data.json")
"""What is in a run folder before anything was done."""

_command: ContextVar[str | None] = ContextVar("command", default=None)


@contextmanager
def recorded_as(command: str | None) -> Iterator[None]:
    """Run folders that are opened inside this block record the command line that repeats their run."""
    before = _command.set(command)
    try:
        yield
    finally:
        _command.reset(before)


def recorded_command(folder: Path) -> str | None:
    """The command line that repeats the run in a folder; None of a run that no command has started."""
    path = folder / "command.txt"
    return path.read_text(encoding="utf-8", errors="replace").rstrip("\n") if path.is_file() else None


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` -> ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat


def differences(recorded: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    """What differs between two nested dicts of plain values, one phrase a key: ``recipe.lr was 0.1 and is 0.2``."""
    there, here = flatten(recorded), flatten(asked)
    changed = [
        f"{_plain(key)} was {_told(there, key)} and is {_told(here, key)}"
        for key in dict.fromkeys([*there, *here])
        if key not in there or key not in here or there[key] != here[key]
    ]
    return changed if len(changed) <= _MOST_TOLD else [*changed[:_MOST_TOLD], f"{len(changed) - _MOST_TOLD} more"]


def _told(values: dict[str, Any], key: str) -> str:
    return _plain(str(values[key])) if key in values else "not set"


def _plain(text: str) -> str:
    """Text in a message: as it is, unless nobody would have written it."""
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}..."


class RunFolder:
    """A run's folder, locked while this context is open so that no second process works in it.

    On entry the main process of the run writes ``config.yaml`` (or, in the folder of an earlier run, checks that the
    same is asked again), ``versions.json``, and ``command.txt`` inside :func:`recorded_as`. Other processes only know
    the path. A run that fails before it has done anything leaves nothing, so that its remedy may be another setting;
    likewise what is left of one that was killed as early refuses no settings.

    Args:
        path: the folder; made when missing.
        config: the resolved config, a nested dict of plain values.
        main: whether this process is the one that writes.

    Raises:
        ValueError: on entry; another process works in the folder, or it holds a run with other settings.
    """

    def __init__(self, path: Path, config: dict[str, Any], main: bool = True) -> None:
        self.path = path
        self.main = main
        self._config = config
        self._lock: IO[str] | None = None

    def __enter__(self) -> RunFolder:
        if self.main:
            self._take()
            try:
                self._record()
            except BaseException:
                self._release()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self.main and self._is_unused():
            for name in RECORDS:
                (self.path / name).unlink(missing_ok=True)
            (self.path / LOCK).unlink(missing_ok=True)
            with suppress(OSError):  # it is not empty
                self.path.rmdir()
        self._release()

    @property
    def begun(self) -> bool:
        """Whether anything lies here beside what every run begins with: a resumed run, or one that is done."""
        return not {path.name for path in self.path.iterdir()} <= {*RECORDS, LOCK}

    def _is_unused(self) -> bool:
        """Whether this is a run in which nothing was done."""
        return (self.path / "versions.json").exists() and not self.begun

    def _take(self) -> None:
        try:
            make_folder(self.path)
            lock = open(self.path / LOCK, "a+")  # noqa: SIM115  (open as long as the run)
        except OSError as error:
            raise ValueError(
                f"cannot use the run folder {self.path}: {error.strerror}; choose another out=..."
            ) from error
        try:
            # lockf, not flock: loader workers that outlive a killed run by seconds must not keep its lock
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise ValueError(
                f"another process is using {self.path}; wait for it, or use name=... or out=... for a new run"
            ) from error
        self._lock = lock
        sweep_parts(self.path)
        flush_folder(self.path)  # a process that was killed may have come no further than to a name

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _record(self) -> None:
        path = self.path / "config.yaml"
        text = yaml.safe_dump(self._config, sort_keys=False, allow_unicode=True)
        if path.exists() and not self._is_unused():
            self._compare(path, asked=yaml.safe_load(text))
        else:
            write_text(path, text)
        versions = {"psvit-search": psvit.__version__, "python": platform.python_version()}
        versions |= {name: version(name) for name in ("torch", "torchvision")}
        write_text(self.path / "versions.json", json.dumps(versions, indent=2) + "\n")
        if command := _command.get():
            write_text(self.path / "command.txt", f"{command}\n")

    def _compare(self, path: Path, asked: dict[str, Any]) -> None:
        remedy = "repair it, or use name=... or out=... for a new run"
        try:
            with open(path, "rb") as file:
                content = file.read(_MOST_BYTES + 1)
            if len(content) > _MOST_BYTES:
                raise ValueError("it is too large")
            recorded = yaml.safe_load(content.decode())
            if not isinstance(recorded, dict):
                raise ValueError("it records no settings")
            _check_amount(recorded)
            changed = differences(_binding(recorded), _binding(asked))
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"{path} is not YAML of settings ({reason}); {remedy}") from error
        if changed:
            raise ValueError(
                f"{self.path} holds a run with other settings: {'; '.join(changed)}. "
                "Use name=... or out=... for a new run, or the old settings to resume"
            )


def _check_amount(document: Any) -> None:
    """Refuse what is small in the file and large in memory: YAML's aliases can repeat a value, and that one again."""
    pending, seen = [document], 0
    while pending:
        value = pending.pop()
        seen += 1
        if seen > _MOST_VALUES:
            raise ValueError("it holds too many values")
        pending += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _binding(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that have an effect on the result."""
    return {
        key: value
        for key, value in flatten(config).items()
        if not any(key == free or key.startswith(f"{free}.") for free in WITHOUT_EFFECT)
    }
