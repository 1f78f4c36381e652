"""The evaluator against one-by-one scores: on one process and two, with little memory and with none to spare."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from psvit.arch import Architecture, CellPath
from psvit.data.config import DataConfig
from psvit.data.data import open_data
from psvit.data.pixels import Pixels
from psvit.engine.scoring import Score, score_all
from psvit.flops import count_flops
from psvit.search import walk
from psvit.search.evaluator import Evaluator
from psvit.search.walk import Walker
from psvit.supernet.space import SearchSpace
from psvit.supernet.supernet import Supernet
from psvit.zoo import SPACES
from tests.hold import HANG

ROOT = Path(__file__).parent.parent.parent
CPU = torch.device("cpu")
NUMBER = int(os.environ.get("PSVIT_ARCHITECTURES", "30"))  # 500 for the whole proof


def make(name: str, num_images: int = 60, cells: int = 6, **options: object) -> tuple[Evaluator, Supernet, Pixels]:
    """An evaluator on digits of a supernet with random weights, large enough that architectures differ."""
    space = SearchSpace(SPACES[name], cells)
    torch.manual_seed(0)
    supernet = Supernet(space.spec, cells).eval()
    for weight in supernet.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.08)
    pixels = Pixels(open_data(DataConfig()), "search", space.spec.image_size, num_images, 0)
    return Evaluator(supernet, space, pixels, CPU, **options), supernet, pixels  # type: ignore[arg-type]


def drawn(name: str, number: int, cells: int = 6) -> list[Architecture]:
    subspace, rng = SearchSpace(SPACES[name], cells).within(), np.random.default_rng(1)
    found: dict[Architecture, None] = {}
    while len(found) < number:
        found[subspace.draw(rng)] = None
    return list(found)


def one_by_one(supernet: Supernet, pixels: Pixels, architectures: list[Architecture]) -> list[Score]:
    paths = [CellPath.canonical(architecture, supernet.cells) for architecture in architectures]
    images = list(pixels.batches([range(len(pixels))], CPU))
    return score_all([partial(supernet, paths=path) for path in paths], images, CPU)


def assert_equal(scores: list[Score], expected: list[Score]) -> None:
    assert [score.top1 for score in scores] == [score.top1 for score in expected]
    np.testing.assert_allclose([score.loss for score in scores], [score.loss for score in expected], atol=1e-5)


@pytest.mark.parametrize("name", ["1d_mini_4", "2d_mini_4"])
@pytest.mark.parametrize(
    "options",
    [{}, {"batch_size": 23}, {"memory": 1}, {"memory": 40_000_000}],
    ids=["plain", "batches", "no memory", "little memory"],
)
def test_scores_are_those_of_one_by_one(name: str, options: dict[str, int]) -> None:
    num_images, architectures = (8 if options.get("memory") == 1 else 60), drawn(name, NUMBER)
    evaluator, supernet, pixels = make(name, num_images, **options)
    scores = evaluator(architectures)
    assert_equal(scores, one_by_one(supernet, pixels, architectures))
    assert len({score.top1 for score in scores}) > 2
    assert len({score.loss for score in scores}) == len(scores)


def test_the_order_of_asking_and_the_company_do_not_matter() -> None:
    architectures = drawn("2d_mini_4", 40)
    evaluator, _, _ = make("2d_mini_4")
    together = dict(zip(architectures, evaluator(architectures), strict=True))
    assert dict(zip(architectures[::-1], evaluator(architectures[::-1]), strict=True)) == together
    for architecture in architectures[::8]:
        assert_equal(evaluator([architecture]), [together[architecture]])


def test_outcomes_are_of_each_image() -> None:
    architectures = drawn("1d_mini_4", 5)
    evaluator, supernet, pixels = make("1d_mini_4")
    outcomes = evaluator.outcomes(architectures, range(10, 50))
    ((images, labels),) = pixels.batches([range(10, 50)], CPU)
    for row, architecture in enumerate(architectures):
        with torch.inference_mode():
            logits = supernet(images, CellPath.canonical(architecture, 6))
        assert np.array_equal(outcomes.correct[row], (logits.argmax(1) == labels).numpy())
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="none").numpy()
        np.testing.assert_allclose(outcomes.loss[row], loss, atol=1e-5)


def test_a_score_on_placements_is_the_mean_over_them() -> None:
    architectures = [*drawn("2d_mini_4", 4, cells=3), Architecture.parse("BSB-BBB-BSS")]  # the last has one placement
    evaluator, supernet, pixels = make("2d_mini_4", cells=3, placements=4)
    images = list(pixels.batches([range(60)], CPU))
    for architecture, score in zip(architectures, evaluator(architectures), strict=True):
        paths = evaluator._paths(architecture)
        assert len(paths) == 4
        each = score_all([partial(supernet, paths=path) for path in paths], images, CPU)
        assert score.top1 == pytest.approx(sum(s.top1 for s in each) / 4, abs=1e-6)
        assert score.loss == pytest.approx(sum(s.loss for s in each) / 4, abs=1e-5)


def test_each_node_of_the_tree_is_computed_once() -> None:
    """Multiply-adds that are run are those of the tree, not of the sum of the networks."""
    architectures = drawn("2d_mini_4", 200)
    evaluator, supernet, _ = make("2d_mini_4", num_images=2)
    assert count_flops(evaluator, architectures) == 2 * evaluator.flops(architectures)
    alone = sum(SearchSpace(supernet.spec).cost(architecture).flops for architecture in architectures)
    assert evaluator.flops(architectures) < alone / 2


def test_logits_that_are_no_numbers_are_no_score() -> None:
    evaluator, supernet, _ = make("2d_mini_4")
    with torch.no_grad():
        supernet.layer(1, 1, "S").mlp.fc1.bias[0] = math.nan
    scores = evaluator([Architecture.parse("B-BS-B"), Architecture.parse("B-BB-B")])
    assert math.isnan(scores[0].top1)
    assert math.isnan(scores[0].loss)
    assert math.isfinite(scores[1].loss)


@pytest.mark.parametrize("times", [1, 4])
def test_out_of_memory_is_answered_by_less_at_a_time(
    times: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    architectures = drawn("2d_mini_4", 30)
    evaluator, supernet, pixels = make("2d_mini_4")
    original, plans = Walker._walk, []

    def scarce(self: Walker, plan: walk.Plan, *arguments: object) -> object:
        plans.append(plan)
        if len(plans) <= times:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return original(self, plan, *arguments)

    monkeypatch.setattr(Walker, "_walk", scarce)
    assert_equal(evaluator(architectures), one_by_one(supernet, pixels, architectures))
    assert capsys.readouterr().err.count("note: out of memory") == times
    sizes = [evaluator._walk._bytes(plan.num_images, plan.nodes, 30) for plan in plans[: times + 1]]
    assert all(after <= before / 2 for before, after in pairwise(sizes))


def test_memory_that_does_not_hold_one_image_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def scarce(*arguments: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried")

    evaluator, _, _ = make("2d_mini_4")
    monkeypatch.setattr(Walker, "_walk", scarce)
    with pytest.raises(ValueError, match="too little memory for one image"):
        evaluator(drawn("2d_mini_4", 3))


def test_other_errors_are_not_taken_for_scarce_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def corrupt(*arguments: object) -> None:
        raise RuntimeError("shapes do not match")

    evaluator, _, _ = make("2d_mini_4")
    monkeypatch.setattr(Walker, "_walk", corrupt)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        evaluator(drawn("2d_mini_4", 3))


PROGRAM = """
import json, sys, torch
from dataclasses import replace
from psvit.arch import Architecture
from psvit.engine.distributed import Processes
from tests.search.test_evaluator import make
torch.set_num_threads(1)
processes = Processes.from_environment()
with processes.group(torch.device("cpu"), {}):
    evaluator, _, _ = make("2d_mini_4", processes=processes, num_images=60, batch_size=int(sys.argv[2]))
    if not processes.main:
        evaluator.follow()
    else:
        with evaluator:
            outcomes = [evaluator.outcomes([Architecture.parse(a) for a in part], range(60))
                        for part in json.load(open(sys.argv[1]))]
        print("SCORES" + json.dumps([[o.correct.tolist(), o.loss.tolist()] for o in outcomes]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "batch_size", [pytest.param(3, id="images shared out"), pytest.param(60, id="tree shared out")]
)
def test_two_processes_give_the_same(batch_size: int, tmp_path: Path) -> None:
    import json

    architectures = drawn("2d_mini_4", NUMBER)
    parts = [[str(architecture) for architecture in part] for part in (architectures, architectures[:3])]
    (tmp_path / "parts.json").write_text(json.dumps(parts))
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(tmp_path / "program.py"), str(tmp_path / "parts.json"), str(batch_size)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("SCORES")]
    evaluator, _, _ = make("2d_mini_4", num_images=60, batch_size=batch_size)
    for part, (correct, loss) in zip((architectures, architectures[:3]), json.loads(line[6:]), strict=True):
        expected = evaluator.outcomes(part, range(60))
        assert np.array_equal(correct, expected.correct)
        np.testing.assert_allclose(loss, expected.loss, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_scores_on_a_gpu_are_close_to_those_in_float32(compiled: bool) -> None:
    architectures = drawn("1d_mini_4", 60)
    exact, supernet, pixels = make("1d_mini_4")
    expected = exact.outcomes(architectures, range(60))
    device = torch.device("cuda")
    evaluator = Evaluator(supernet.to(device), SearchSpace(supernet.spec), pixels, device, compiled=compiled)
    found = evaluator.outcomes(architectures, range(60))
    print(f"bf16 against float32: largest difference of an image's loss {np.abs(found.loss - expected.loss).max():.4f}")
    assert np.abs(found.loss - expected.loss).mean() < 0.05
    assert (found.correct != expected.correct).mean() < 0.02
