"""A command's task, started by Hydra with the settings that it composes: once, or once per job of a sweep."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psvit.cli.commands import Command
from psvit.cli.compose import CONF, borrowed_note, instantiate, load, register
from psvit.cli.faults import complain, explain, unexpected
from psvit.cli.repeat import command_line
from psvit.run.folder import recorded_as
from psvit.run.signals import Stopped

if TYPE_CHECKING:
    from omegaconf import DictConfig


def launch(command: Command, flags: list[str], overrides: list[str]) -> int:
    """Let Hydra compose a command's settings, or sweep over them, and start its task; gives the exit status."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    schema = register(command)
    makes_folder = any(field.name == "out" for field in fields(schema))
    with_trace = os.environ.get("HYDRA_FULL_ERROR") == "1"

    def status(error: Exception) -> int:
        if with_trace:
            raise error
        known = isinstance(error, (ValueError, HydraException, OmegaConfBaseException, Stopped))
        complain(explain(error, command) if known else unexpected(error))
        return 130 if isinstance(error, Stopped) else 2

    def task(config: DictConfig) -> None:
        try:
            _start_composed(command, config, schema)
        except BrokenPipeError:
            raise
        except Exception as error:
            if _is_sweep():  # the other jobs go on
                raise
            raise SystemExit(status(error)) from error

    with tempfile.TemporaryDirectory() as nowhere:
        if not makes_folder or not _is_main():
            overrides = [*overrides, f"hydra.sweep.dir={nowhere}"]  # where Hydra would write multirun.yaml
        with _arguments([*flags, *overrides]):
            try:
                hydra.main(version_base="1.3", config_path=str(CONF), config_name=command.config)(task)()
            except BrokenPipeError:
                raise
            except Exception as error:
                return status(error)
            except SystemExit as stop:
                return stop.code if isinstance(stop.code, int) else 0
    return 0


def _start_composed(command: Command, config: DictConfig, schema: type[Any]) -> None:
    """Call a command's task with what Hydra composed; a job of a sweep works in a folder of its own."""
    from hydra.core.hydra_config import HydraConfig

    hydra, settings = HydraConfig.get(), instantiate(config, schema)
    if hasattr(settings, "out") and _is_sweep():
        settings.out = str(Path(settings.out) / hydra.sweep.subdir)
    start(command, settings, borrowed_note(hydra.runtime.choices))


def start(command: Command, settings: Any, note: str | None) -> Any:
    """Call a command's task; its run folder, if it makes one, records the line that repeats it.

    Args:
        settings: an instance of the command's schema.
        note: a line to print first.
    """
    if note and _is_main():
        print(note)
    line = command_line(command, settings) if hasattr(settings, "out") and _is_main() else None
    with recorded_as(line):
        return load(command.task)(settings)


def _is_main() -> bool:
    """Whether this process writes the files."""
    return os.environ.get("RANK", "0") == "0"


def _is_sweep() -> bool:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


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
