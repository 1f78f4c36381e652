"""The commands as functions: each comes to what its command line comes to."""

import inspect
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import psvit
from psvit import api
from psvit.cli.commands import COMMANDS
from psvit.cli.main import main
from psvit.run.folder import recorded_command


def functions() -> dict[str, Callable[..., Any]]:
    """Each function by its command."""
    return {name.replace("_", "-"): getattr(api, name) for name in api.__all__}


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ("run --flops 5M", lambda: api.run(flops="5M")),
        (
            "run --flops 5M --name mine data=imagefolder data.root=photos seed=1",
            lambda: api.run("data=imagefolder", "data.root=photos", flops="5M", name="mine", seed=1),
        ),
        (
            "train-supernet space=1d_mini_4 recipe.epochs=3",
            lambda: api.train_supernet("recipe.epochs=3", space="1d_mini_4"),
        ),
        ("exhaustive --flops 4M..5M --num-images 64", lambda: api.exhaustive(flops="4M..5M", num_images=64)),
        ("evolve --latency 2ms", lambda: api.evolve(latency="2ms")),
        ("nsga2 --params 500K --out o", lambda: api.nsga2(params="500K", out=Path("o"))),
        ("random search.trials=9 device=cpu", lambda: api.random("search.trials=9", device="cpu")),
        ("pick runs/x --flops 4M --top 3", lambda: api.pick(run=Path("runs/x"), flops="4M", top=3)),
        ("finals runs/x --keep 4 control=0", lambda: api.finals(run="runs/x", keep=4, control=0)),
        ("rank --archs 3 --flops 5M", lambda: api.rank(archs=3, flops="5M")),
        ("latency space=1d_mini_4 batch=2", lambda: api.latency(space="1d_mini_4", batch=2)),
        ("inherit --arch a.json --save w.safetensors", lambda: api.inherit(arch="a.json", save=Path("w.safetensors"))),
        ("retrain --arch 'a b.json' hold_out=true", lambda: api.retrain(arch=Path("a b.json"), hold_out=True)),
        (
            "evaluate --arch a.json --weights w --split search",
            lambda: api.evaluate(arch="a.json", weights="w", split="search"),
        ),
        ("check photos cache=false", lambda: api.check(folder="photos", cache=False)),
        ("compare runs/a runs/b --save c", lambda: api.compare(runs=[Path("runs/a"), "runs/b"], save="c")),
        ("export runs/x --to onnx", lambda: api.export(model="runs/x", to="onnx")),
    ],
)
def test_a_call_comes_to_what_the_command_line_comes_to(
    line: str, call: Callable[[], Any], tasks: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(shlex.split(line)) == 0
    call()
    written, called = tasks
    assert written == called


def test_every_function_has_its_command() -> None:
    assert functions().keys() <= COMMANDS.keys()
    for name, function in functions().items():
        assert f"``psvit-search {name}``" in (inspect.getdoc(function) or "")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: api.evolve(flopz="5M"), "evolve has no setting 'flopz'"),
        (lambda: api.evolve("search.trils=5"), "evolve has no setting 'search.trils'.*did you mean search.trials"),
        (lambda: api.evolve("search.trials=many"), "search.trials is 'many'; it must be a whole number"),
        (lambda: api.retrain(), "arch is missing; write psvit-search retrain --arch NET"),
        (lambda: api.train_supernet(data="cifar"), "data=cifar: there is no such choice; choose one of"),
        (lambda: api.train_supernet("recipe.epochs=0"), "recipe.epochs|epochs is 0"),
    ],
)
def test_what_the_command_would_refuse_is_a_value_error_of_one_line(
    call: Callable[[], Any], message: str, tasks: list[Any]
) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)
    assert tasks == []


def test_a_network_trained_by_a_call_and_what_it_predicts(folder: Path) -> None:
    made = api.retrain("recipe.epochs=1", arch="2d_mini_4:B-B-B", name="x", device="cpu")
    assert made.folder == Path("runs/x/retrain")
    assert recorded_command(made.folder) == (
        "psvit-search retrain --name x --arch 2d_mini_4:B-B-B device=cpu recipe.epochs=1"
    )
    assert list(made.metrics()["epoch"]) == [1]
    scores = api.evaluate(arch=made.folder / "arch.json", weights=made.weights, device="cpu")
    assert scores["top1"] == made.top1
    assert psvit.load(made.folder).class_names == tuple("0123456789")
