"""The map of the house: which package imports which, read from the code.

    python -m docs.map          writes docs/images/map.svg

tests/test_house.py reads the code by the same functions, and fails when the committed picture is not current.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from graphlib import TopologicalSorter
from html import escape
from pathlib import Path
from textwrap import wrap

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs/images/map.svg"
CORE = "psvit"  # the modules that lie in psvit/ itself
DOOR = "psvit.__main__"  # `python -m psvit` opens the roof's door from below

Graph = dict[str, set[str]]
_TASK = re.compile(r"psvit(\.\w+)+:\w+")


# ---------------------------------------------------------------------------------------------------- reading the code


def folders() -> dict[str, Path]:
    """Every package and its folder, by the table of pyproject.toml."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    return {name: ROOT / settings["package-dir"].get(name, name.replace(".", "/")) for name in settings["packages"]}


def modules() -> dict[str, Path]:
    """Every module of the package and its file."""
    return {
        package if file.stem == "__init__" else f"{package}.{file.stem}": file
        for package, folder in folders().items()
        for file in sorted(folder.glob("*.py"))
    }


def module_graph(known: Mapping[str, Path]) -> Graph:
    """Module -> the modules of ours that it imports, also inside functions, but not for type checkers alone.

    A task that is named by a string, ``"psvit.search.run:search"``, counts as imported. ``import psvit``, for its
    version, does not: whoever imports a part of a package imports its ``__init__``.
    """
    return {module: set(_imported(file, known)) - {module, CORE} for module, file in known.items()}


def _imported(file: Path, known: Mapping[str, Path]) -> Iterator[str]:
    tree = ast.parse(file.read_text())
    never_run = {
        id(inner)
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in never_run:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else str(node.module) for name in whole]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value.partition(":")[0]] if _TASK.fullmatch(node.value) else []
        else:
            continue
        yield from (name for name in names if name in known)


def package_of(module: str) -> str:
    """The package that a module lies in."""
    return module if module in folders() else module.rpartition(".")[0]


def package_graph() -> Graph:
    """Package -> the packages that its modules import."""
    graph: Graph = {package: set() for package in folders()}
    for module, used in module_graph(modules()).items():
        if module != DOOR:
            graph[package_of(module)] |= {package_of(name) for name in used} - {package_of(module)}
    return graph


# ---------------------------------------------------------------------------------------------------- the picture

_BOX, _GAP, _ROW_GAP, _MARGIN, _LINE = 300, 36, 46, 24, 15
_STYLE = """
  text { font: 12px system-ui, -apple-system, 'Segoe UI', sans-serif; fill: #444 }
  .name { font-size: 15px; font-weight: 600; fill: #111 }
  .files { font: 11px ui-monospace, Menlo, Consolas, monospace; fill: #666 }
  .box { fill: #f6f8fa; stroke: #8c959f }
  .arrow { stroke: #57606a; stroke-width: 1.3; fill: none; marker-end: url(#head) }
"""


def draw() -> str:
    """The map as SVG: a box for each package, the roof on top, arrows to what it imports.

    An arrow that longer ways imply is left out.
    """
    graph = {package: used for package, used in package_graph().items() if package != "psvit.conf"}
    rows = _rows(graph)
    texts = {package: _texts(package) for package in graph}
    place: dict[str, tuple[float, float, float]] = {}  # left, top, height
    width = _MARGIN * 2 + max(len(row) for row in rows) * (_BOX + _GAP) - _GAP
    top = float(_MARGIN)
    for row in rows:
        height = max(30 + _LINE * sum(map(len, texts[package])) for package in row)
        left = (width - len(row) * (_BOX + _GAP) + _GAP) / 2
        for number, package in enumerate(row):
            place[package] = (left + number * (_BOX + _GAP), top, height)
        top += height + _ROW_GAP
    body = [_arrow(place[a], place[b]) for a, used in sorted(_reduced(graph).items()) for b in sorted(used)]
    body += [_box(package, place[package], *texts[package]) for package in graph]
    size = f'width="{width:.0f}" height="{top - _ROW_GAP + _MARGIN:.0f}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {width:.0f} {top - _ROW_GAP + _MARGIN:.0f}">',
            f"<style>{_STYLE}</style>",
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto"><path d="M0 0L8 4L0 8z" fill="#57606a"/></marker></defs>',
            '<rect width="100%" height="100%" fill="white"/>',
            *body,
            "</svg>\n",
        ]
    )


def _rows(graph: Graph) -> list[list[str]]:
    """The packages from the roof down: each lies one row above the highest that it imports."""
    levels: dict[str, int] = {}
    for package in TopologicalSorter(graph).static_order():  # what is imported comes first
        levels[package] = 1 + max((levels[used] for used in graph[package]), default=-1)
    highest = max(levels.values())
    return [sorted(package for package in graph if levels[package] == row) for row in range(highest, -1, -1)]


def _reduced(graph: Graph) -> Graph:
    """The graph without arrows that longer ways imply."""

    def reach(package: str) -> set[str]:
        return graph[package].union(*(reach(used) for used in graph[package]))

    return {package: used - set().union(*(reach(other) for other in used)) for package, used in graph.items()}


def _texts(package: str) -> tuple[list[str], list[str]]:
    """What a package is, and its files, in lines."""
    folder = folders()[package]
    about = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    files = [file.stem for file in sorted(folder.glob("*.py")) if not file.stem.startswith("__")]
    return wrap(about.partition("\n")[0].replace("``", ""), 44), wrap(" ".join(files), 42)


def _box(package: str, place: tuple[float, float, float], about: Iterable[str], files: Iterable[str]) -> str:
    left, top, height = place
    name = "psvit/*.py" if package == CORE else f"{folders()[package].relative_to(ROOT)}/"
    lines = [f'<rect class="box" x="{left:.0f}" y="{top:.0f}" width="{_BOX}" height="{height:.0f}" rx="6"/>']
    texts = [("name", name), *(("about", text) for text in about), *(("files", text) for text in files)]
    for number, (kind, text) in enumerate(texts):
        y = top + 20 + _LINE * number + (2 if number else 0)
        lines.append(f'<text class="{kind}" x="{left + 12:.0f}" y="{y:.0f}">{escape(text)}</text>')
    return "\n".join(lines)


def _arrow(above: tuple[float, float, float], below: tuple[float, float, float]) -> str:
    x1, y1 = above[0] + _BOX / 2, above[1] + above[2]
    x2, y2 = below[0] + _BOX / 2, below[1] - 2
    middle = (y1 + y2) / 2
    curve = f"M{x1:.0f} {y1:.0f}C{x1:.0f} {middle:.0f} {x2:.0f} {middle:.0f} {x2:.0f} {y2:.0f}"
    return f'<path class="arrow" d="{curve}"/>'


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
    print(f"wrote {PICTURE.relative_to(ROOT)}")
