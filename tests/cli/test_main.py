"""The entry point: what starts at once, and how it ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from psvit.cli.main import main

ROOT = Path(__file__).parents[2]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("psvit-search 0.")


def test_no_torch_before_a_task_starts() -> None:
    """Help, completion, --cfg and faults must be instant."""
    script = """
import os, sys
from psvit.cli.commands import COMMANDS
from psvit.cli.compose import register
from psvit.cli.main import main
os.environ["COMP_LINE"] = "psvit-search train-supernet spa"
for words in (["--help"], ["-sc", "query=bash"], ["evaluate"], ["evolve", "search.population=abc"],
              ["run", "--help"], ["train-supernet", "--cfg", "job"]):
    main(words)
for command in COMMANDS.values():
    register(command)
assert not {"torch", "pandas", "matplotlib"} & set(sys.modules), "loaded"
"""
    run = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True
    )
    assert run.returncode == 0, run.stderr.decode()


def test_the_overview_does_without_hydra() -> None:
    script = "import sys; from psvit.cli.main import main; main([]); sys.exit('hydra' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": str(ROOT)}).returncode == 0


def test_nobody_reads_on() -> None:
    """As ``psvit-search --help | head -n 0`` leaves it."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "psvit", "--help"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141


@pytest.mark.parametrize("words", [["--version"], ["inspect", "deit_tiny_16"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_behind_the_output_is_one_line(words: list[str], unbuffered: str) -> None:
    command, environment = [sys.executable, "-m", "psvit", *words], os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment)
    assert done.returncode == 2
    assert done.stderr == (
        "psvit-search: cannot write: No space left on device; free some space, or redirect the output to a place with "
        "room\n"
    )
