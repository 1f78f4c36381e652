"""The rooms of the house: imports go one way, and what must start at once does not load torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "psvit": {"psvit"},
    "supernet": {"supernet", "psvit"},
    "search": {"search", "supernet", "psvit"},
    "retrain": {"retrain", "psvit"},
}


def imported(file: Path) -> set[str]:
    """Top-level names of all that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_go_one_way(room: str) -> None:
    files = list((ROOT / room).rglob("*.py"))
    assert files
    rooms = {*MAY_IMPORT, "psvit_search", "pipeline", "ablate", "paper", "conf"}
    for file in files:
        assert imported(file) & rooms <= MAY_IMPORT[room], file


@pytest.mark.parametrize(
    "module",
    [
        *("psvit", "psvit.arch", "psvit.cost", "psvit.zoo", "psvit.archfile", "psvit.draw", "psvit.inspect"),
        *("supernet.space", "supernet.describe", "search.evolution", "search.random_search", "search.loop"),
        *("search.nsga2", "search.exhaustive", "search.racing", "search.tree", "search.front", "search.pick"),
        *("search.trust", "search.report", "search.latency", "psvit.published", "paper"),
        *("psvit.networks", "retrain.detection.config", "retrain.detection.shapes", "retrain.explain.config"),
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
