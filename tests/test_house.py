"""The rooms of the house: imports go one way, and what must start at once does not load torch."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What each package may import besides itself. ``psvit`` alone stands for the modules that lie in psvit/ itself.
MAY_IMPORT = {
    "psvit.run": {"psvit"},
    "psvit": {"psvit.run"},
    "psvit.data": {"psvit", "psvit.run"},
    "psvit.engine": {"psvit", "psvit.run", "psvit.data"},
    "psvit.supernet": {"psvit", "psvit.run", "psvit.data", "psvit.engine"},
    "psvit.search": {"psvit", "psvit.run", "psvit.data", "psvit.engine", "psvit.supernet"},
    "psvit.retrain": {"psvit", "psvit.run", "psvit.data", "psvit.engine"},
    "psvit.detection": {"psvit", "psvit.run", "psvit.data", "psvit.engine", "psvit.retrain"},
    "psvit.explain": {"psvit", "psvit.run", "psvit.data", "psvit.engine", "psvit.retrain"},
    "psvit.paper": {
        *("psvit", "psvit.run", "psvit.data", "psvit.engine"),
        *("psvit.supernet", "psvit.search", "psvit.retrain"),
    },
    "psvit.conf": set(),
}
MAY_IMPORT["psvit.cli"] = {*MAY_IMPORT}  # the roof
DOOR = "psvit.__main__"  # `python -m psvit` opens the roof's door from below


def modules() -> dict[str, Path]:
    """Every module of the package and its file; the table of pyproject.toml says where a package's folder is."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {}
    for package in settings["packages"]:
        folder = settings["package-dir"].get(package, package.replace(".", "/"))
        for file in sorted((ROOT / folder).glob("*.py")):
            found[package if file.stem == "__init__" else f"{package}.{file.stem}"] = file
    return found


def imported(file: Path, known: Mapping[str, Path]) -> set[str]:
    """The modules of ours that a file imports, also inside functions, but not for type checkers alone."""
    names = set()
    for node in ast.walk(_without_typing_imports(ast.parse(file.read_text()))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                names.add(module if module in known else str(node.module))
    return names & known.keys()


def _without_typing_imports(tree: ast.Module) -> ast.Module:
    """The tree without ``if TYPE_CHECKING:`` blocks, which never run."""
    tree.body = [
        node for node in tree.body if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    return tree


def package_of(module: str, known: Mapping[str, Path]) -> str:
    """The package that a module lies in."""
    return module if known[module].stem == "__init__" else module.rpartition(".")[0]


def test_imports_go_one_way() -> None:
    known = modules()
    for module, file in known.items():
        package = package_of(module, known)
        used = {package_of(name, known) for name in imported(file, known)}
        if module != DOOR:
            assert used <= MAY_IMPORT[package] | {package}, module


def test_no_circle_between_files() -> None:
    known = modules()
    graph = {module: imported(file, known) - {module} for module, file in known.items()}
    assert graph["psvit.search.run"], "something was read"
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_nothing_outside_the_package_is_imported_from_the_root() -> None:
    """``import search`` would work in this checkout alone."""
    folders = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"psvit", "tests", "benchmarks"}
    for file in modules().values():
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not {name.partition(".")[0] for name in names} & folders, file


def test_the_table_of_packages_and_the_links_are_the_tree() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    tracked = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    folders = {
        str(Path(file).parent) for file in tracked.splitlines() if Path(file).parts[0] not in ("tests", "benchmarks")
    }
    listed = {settings["package-dir"].get(name, name.replace(".", "/")) for name in settings["packages"]}
    assert listed == folders
    for package, folder in settings["package-dir"].items():
        link = ROOT / package.replace(".", "/")
        assert link.is_symlink(), link
        assert link.readlink() == Path("..") / folder, link


@pytest.mark.parametrize(
    "module",
    [
        *("psvit", "psvit.arch", "psvit.cost", "psvit.zoo", "psvit.archfile", "psvit.draw", "psvit.inspect"),
        *("psvit.supernet.space", "psvit.supernet.describe", "psvit.search.evolution", "psvit.search.random_search"),
        *("psvit.search.loop", "psvit.search.nsga2", "psvit.search.exhaustive", "psvit.search.racing"),
        *("psvit.search.tree", "psvit.search.front", "psvit.search.pick", "psvit.search.trust", "psvit.search.report"),
        *("psvit.search.latency", "psvit.paper.published", "psvit.paper.tables", "psvit.networks"),
        *("psvit.detection.config", "psvit.detection.shapes", "psvit.explain.config"),
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
