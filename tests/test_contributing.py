"""CONTRIBUTING.md can be believed: its steps are followed in a copy of the tree, and what they add works.

Above each block of code stands where it goes: ``New file `PATH`:``, or ``In `PATH`, below `BEGINNING OF A LINE`:`` (or
above). Blocks of ``sh`` are commands.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
_SECTION = re.compile(r"^### (.+)\n((?:(?!##).*\n)*)", re.MULTILINE)
_PLACE = r"(?:^(New file|In) `(\S+?)`(?:, (above|below) `([^`\n]+)`)?:\n)?"
_BLOCK = re.compile(_PLACE + r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FOLLOWS = {"A command": "A task"}  # section -> the one that it goes on from


@dataclass(frozen=True)
class Edit:
    """A block of code: a new file, or lines above or below the one that begins with ``anchor``."""

    path: str
    code: str
    place: str | None
    anchor: str | None

    def apply(self, tree: Path) -> None:
        file = tree / self.path
        if self.anchor is None:
            assert not file.exists()
            file.write_text(self.code)
            return
        lines = file.read_text().splitlines(keepends=True)
        (at,) = (number for number, line in enumerate(lines) if line.lstrip().startswith(self.anchor))
        code = f"{self.code}\n\n" if self.place == "above" else self.code
        lines.insert(at + (self.place == "below"), code)
        file.write_text("".join(lines))


@dataclass(frozen=True)
class Steps:
    """What a section says to do."""

    edits: tuple[Edit, ...]
    commands: tuple[str, ...]


def read_steps() -> dict[str, Steps]:
    """Heading -> steps, of every section that adds something."""
    _, _, text = (ROOT / "CONTRIBUTING.md").read_text().partition("\n## How to add\n")
    found: dict[str, Steps] = {}
    for heading, body in _SECTION.findall(text):
        edits, commands = [], []
        for action, path, place, anchor, language, code in _BLOCK.findall(body):
            if language == "sh":
                commands += code.splitlines()
            else:
                assert (action == "In") == bool(anchor), f"{heading}: where does this go?\n{code}"
                edits.append(Edit(path, code, place or None, anchor or None))
        if edits:
            before = found[_FOLLOWS[heading]].edits if heading in _FOLLOWS else ()
            found[heading] = Steps((*before, *edits), tuple(commands))
    return found


STEPS = read_steps()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the tree without its history, links as links."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    files = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, files.split("\0")):
        if os.path.lexists(ROOT / name):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / name, follow_symlinks=False)
    return tmp_path


def follow(heading: str, tree: Path) -> list[str]:
    """Do what a section says; what each of its commands prints."""
    for edit in STEPS[heading].edits:
        edit.apply(tree)
    return [run(command, tree) for command in STEPS[heading].commands]


def run(command: str, tree: Path, status: int = 0) -> str:
    """What a command prints in the copy, which is on the path there as the working directory."""
    program, *words = shlex.split(command)
    words = {"psvit-search": ["-m", "psvit"], "python": []}[program] + words
    settings = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "PYTHON"))}
    done = subprocess.run([sys.executable, *words], cwd=tree, env=settings, capture_output=True, text=True)
    assert done.returncode == status, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def redraw_the_map(tree: Path) -> None:
    """As CONTRIBUTING.md says to do after a new file; the house still stands."""
    run("python -m docs.map", tree)
    run("python -m pytest -q tests/test_house.py -k 'map or circle or one_way'", tree)


def passed(printed: str) -> int:
    """How many tests pytest says have passed."""
    found = re.search(r"(\d+) passed", printed)
    assert found, printed
    return int(found[1])


def test_each_addition_touches_two_files_at_most(tree: Path) -> None:
    additions = ("A search space", "A dataset", "A path sampler", "A searcher", "A metric", "A task", "A command")
    assert tuple(STEPS) == additions
    for heading, steps in STEPS.items():
        paths = {edit.path for edit in steps.edits}
        assert len(paths) <= 2, heading
        assert steps.commands, heading
        if heading not in _FOLLOWS.values():
            for edit in steps.edits:
                edit.apply(tree)  # every place is there, once
            for path in paths:
                assert path.endswith(".yaml") or ast.parse((tree / path).read_text())


def test_the_copy_is_what_runs(tree: Path) -> None:
    where = "import psvit, psvit.search.config as search; print(psvit.__file__, search.__file__)"
    for file in run(f'python -c "{where}"', tree).split():
        assert Path(file).resolve().is_relative_to(tree.resolve())


def test_a_search_space(tree: Path) -> None:
    counted, inspected = follow("A search space", tree)
    assert counted.startswith("2d_nano_4: 2d, image 32x32, patch 4, 10 classes\n")
    assert "within FLOPs at most 1 M" in counted
    assert "2d_nano_4" in inspected
    assert "2d_nano_4" in run("psvit-search train-supernet --help", tree)


@pytest.mark.slow
def test_a_dataset(tree: Path) -> None:
    rng, rows = np.random.default_rng(0), []
    for number in range(60):
        (folder := tree / f"photos/{number % 3}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(256, size=(40, 30, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        rows.append(f"{number % 3}/{number}.png,{'sunny' if number % 2 else 'rainy'}\n")
    (tree / "photos/labels.csv").write_text("".join(rows))
    (printed,) = follow("A dataset", tree)
    assert printed.startswith("note: data=listed has no recipe of its own; it takes recipe=supernet/imagefolder, for")
    assert (tree / "runs/default/supernet/supernet.safetensors").exists()
    assert "listed" in run("psvit-search train-supernet --help", tree)
    refused = run("psvit-search train-supernet data=listed data.root=docs name=none", tree, status=2)
    assert refused.endswith("docs holds no labels.csv; write one, with a line per image: path,class\n")
    assert "listed" in run("psvit-search train-supernet data.name=lusted data.root=docs name=none", tree, status=2)


@pytest.mark.slow
def test_a_path_sampler(tree: Path) -> None:
    shown, _, conformance = follow("A path sampler", tree)
    assert "choices: uniform-paths, uniform, fair," in " ".join(shown.split())
    assert "sampling: uniform-paths" in (tree / "runs/default/supernet/config.yaml").read_text()
    assert (tree / "runs/default/supernet/supernet.safetensors").exists()
    assert passed(conformance) >= 10  # for one path per image and one per batch
    codes = "from psvit.supernet.sampling import *; import numpy as np; "
    codes += "drawn = make_sampler('uniform-paths', 'image', 3, 6).draw(20_000, np.random.default_rng(0)); "
    codes += "print(len(np.unique(drawn.reshape(-1, 6), axis=0)))"
    assert run(f'python -c "{codes}"', tree) == "364\n"


@pytest.mark.slow
def test_a_searcher(tree: Path) -> None:
    _, searched, conformance = follow("A searcher", tree)
    assert "best of 20 by loss" in searched
    folder = tree / "runs/default/frugal-5M"
    assert len((folder / "history.csv").read_text().splitlines()) == 21
    assert (folder / "command.txt").read_text().startswith("psvit-search frugal --flops 5M ")
    assert "frugal" in (folder / "report.html").read_text()
    assert passed(conformance) >= 16  # of every searcher, of its resumption, and of every command
    assert "frugal" in run("psvit-search run --help", tree)
    redraw_the_map(tree)


@pytest.mark.slow
def test_a_metric(tree: Path) -> None:
    trained, evaluated = follow("A metric", tree)
    result = json.loads((tree / "runs/default/retrain/result.json").read_text())
    assert 0.1 < result["metrics"]["confidence"] < 1
    assert f"confidence {result['metrics']['confidence']:.4f}" in trained
    assert f"confidence {result['metrics']['confidence']:.4f}" in evaluated


@pytest.mark.slow
def test_a_task(tree: Path) -> None:
    (printed,) = follow("A task", tree)
    assert [line.partition(":")[0] for line in printed.splitlines()] == ["B-B-B", "BBBBBB-BBBBBB-BBBBBB"]
    redraw_the_map(tree)


@pytest.mark.slow
def test_a_command(tree: Path) -> None:
    for edit in STEPS["A command"].edits:
        edit.apply(tree)
    overview, shown, printed, refused, conformance = STEPS["A command"].commands
    assert "\n  extremes " in run(overview, tree)
    assert "  NAME  a named space, such as 1d_tiny_16 (default: 2d_mini_4)" in run(shown, tree)
    assert run(printed, tree).startswith("B-B-B: ")
    assert run(refused, tree, status=2).startswith("psvit-search: no space is named '3d_tiny_16'; choose one of ")
    assert passed(run(conformance, tree)) >= 5
