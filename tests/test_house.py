"""The rooms of the house: imports go one way, and what must start at once does not load torch."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from docs.map import PICTURE, draw, folders, module_graph, modules, package_graph

ROOT = Path(__file__).parent.parent
# What each package may import besides itself; ``psvit`` is the modules that lie in psvit/ itself.
MAY_IMPORT = {
    "psvit.run": set(),
    "psvit": {"psvit.run"},
    "psvit.data": {"psvit", "psvit.run"},
    "psvit.engine": {"psvit", "psvit.run", "psvit.data"},
    "psvit.supernet": {"psvit", "psvit.run", "psvit.data", "psvit.engine"},
    "psvit.search": {"psvit", "psvit.run", "psvit.data", "psvit.engine", "psvit.supernet"},
    "psvit.retrain": {"psvit", "psvit.run", "psvit.data", "psvit.engine"},
    "psvit.detection": {"psvit", "psvit.run", "psvit.data", "psvit.engine", "psvit.retrain"},
    "psvit.explain": {"psvit", "psvit.run", "psvit.data", "psvit.engine", "psvit.retrain"},
    "psvit.deploy": {"psvit", "psvit.run", "psvit.data", "psvit.engine", "psvit.retrain"},
    "psvit.paper": {
        *("psvit", "psvit.run", "psvit.data", "psvit.engine"),
        *("psvit.supernet", "psvit.search", "psvit.retrain"),
    },
    "psvit.conf": set(),
}
MAY_IMPORT["psvit.cli"] = {*MAY_IMPORT}  # the roof


def test_imports_go_one_way() -> None:
    graph = package_graph()
    assert "psvit.supernet" in graph["psvit.search"], "something was read"
    assert {package: used - MAY_IMPORT[package] for package, used in graph.items() if used - MAY_IMPORT[package]} == {}


def test_no_circle_between_files() -> None:
    TopologicalSorter(module_graph(modules())).prepare()  # raises CycleError, which names the circle


def test_the_map_is_of_today() -> None:
    assert PICTURE.read_text(encoding="utf-8") == draw(), "the code has changed: python -m docs.map"


def test_nothing_outside_the_package_is_imported_from_the_root() -> None:
    """``import search`` would work in this checkout alone."""
    folders = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"psvit"}
    for file in modules().values():
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not {name.partition(".")[0] for name in names} & folders, file


def test_the_table_of_packages_and_the_links_are_the_tree() -> None:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"]
    files = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    outside = ("tests", "benchmarks", "docs")
    assert {path.relative_to(ROOT) for path in folders().values()} == {
        Path(file).parent for file in files if Path(file).parts[0] not in outside and (ROOT / file).exists()
    }
    for package, folder in folders().items():
        link = ROOT / package.replace(".", "/")
        if link != folder:
            assert link.is_symlink(), link
            assert link.readlink() == Path("..") / folder.name, link


@pytest.mark.parametrize(
    "module",
    [
        *("psvit", "psvit.arch", "psvit.cost", "psvit.units", "psvit.zoo", "psvit.archfile", "psvit.figures"),
        *("psvit.checks", "psvit.draw", "psvit.inspect", "psvit.supernet.inherit"),
        *("psvit.supernet.space", "psvit.supernet.describe", "psvit.search.evolution", "psvit.search.random_search"),
        *("psvit.search.loop", "psvit.search.nsga2", "psvit.search.exhaustive", "psvit.search.racing"),
        *("psvit.search.tree", "psvit.search.front", "psvit.search.pick", "psvit.search.report"),
        *("psvit.search.claims", "psvit.search.crossfit"),
        *("psvit.search.latency", "psvit.paper.published", "psvit.paper.tables", "psvit.networks"),
        *("psvit.detection.config", "psvit.detection.shapes", "psvit.explain.config", "psvit.deploy.config"),
        *("psvit.run.records", "psvit.retrain.results", "psvit.search.records", "psvit.search.correlation"),
    ],
)
def test_counting_and_searching_do_not_load_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_no_file_is_unpickled_with_code() -> None:
    """torch.load only with weights_only=True, numpy.load never with pickles, no eval and no pickle module."""
    for file in ROOT.glob("[!.]*/**/*.py"):
        if "tests" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert name not in ("eval", "exec", "pickle.load", "pickle.loads"), f"{file}: {name}"
            if name == "torch.load":
                assert keywords.get("weights_only") == "True", file
            if name == "np.load":
                assert keywords.get("allow_pickle", "False") == "False", file
