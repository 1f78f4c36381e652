"""``psvit-search runs``: what it says of finished, stopped, running and damaged runs."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from psvit.cli.main import main
from psvit.cli.runs import RunsConfig, list_runs
from psvit.run.folder import RunFolder, recorded_as
from tests.retrain.test_results import RETRAINED


def begin(folder: Path, epochs: int = 3, command: str | None = None) -> Path:
    with recorded_as(command), RunFolder(folder, {"recipe": {"epochs": epochs}}):
        return folder


def told(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    list_runs(RunsConfig(str(folder)))
    return capsys.readouterr().out


def test_a_training_before_at_and_behind_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = begin(tmp_path / "a/retrain", command="psvit-search retrain --arch x")
    assert f"{run}: stopped, 0." in told(tmp_path, capsys)
    (run / "metrics.csv").write_text("epoch,loss\n1,0.5\n2,0.4\n")
    assert f"{run}: stopped at epoch 2 of 3, " in told(tmp_path, capsys)
    assert "    psvit-search retrain --arch x\n" in told(tmp_path, capsys)
    RETRAINED.save(run / "result.json")
    text = told(tmp_path, capsys)
    assert f"{run}: finished, " in text
    assert f"test top-1 {RETRAINED.top1:.4f} on {RETRAINED.num_test_images:,} images" in text


def test_a_run_in_which_a_process_works(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from psvit.run.folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1]), {}): print('in', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        assert [run.state for run in list_runs(RunsConfig(str(tmp_path)))] == ["running"]
        assert process.stdin is not None
        process.stdin.close()
    assert [run.state for run in list_runs(RunsConfig(str(tmp_path)))] == ["stopped"]


def test_trainings_inside_of_a_ranking_are_part_of_it(tmp_path: Path) -> None:
    run = begin(tmp_path / "rank")
    inner = begin(run / "networks/B-B-B")
    (inner / "model.safetensors").write_bytes(bytes(5000))
    (found,) = list_runs(RunsConfig(str(tmp_path)))
    assert found.folder == str(run)
    assert found.bytes == sum(path.stat().st_size for path in run.rglob("*") if path.is_file())


def test_a_final_inside_of_its_search_is_listed_and_weighs_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search = begin(tmp_path / "search")
    final = begin(search / "final")
    (final / "weights").write_bytes(bytes(3 * 2**20))
    assert [line.rpartition(", ")[2] for line in told(tmp_path, capsys).splitlines()][-1] == "3.0 MiB"


def test_a_supernet_says_what_it_is_of(tmp_path: Path) -> None:
    asked = {"space": {"name": "2d_mini_4"}, "data": {"name": "digits"}, "sampling": "uniform"}
    with RunFolder(tmp_path / "supernet", asked) as run:
        (run.path / "supernet.safetensors").touch()
    (found,) = list_runs(RunsConfig(str(tmp_path)))
    assert (found.state, found.found) == ("finished", "supernet of 2d_mini_4, trained on digits, sampling=uniform")


def test_a_damaged_result_is_said_and_the_others_are_listed(tmp_path: Path) -> None:
    damaged, whole = begin(tmp_path / "a"), begin(tmp_path / "b")
    (damaged / "result.json").write_text("{")
    RETRAINED.save(whole / "result.json")
    found = {run.folder: run.found for run in list_runs(RunsConfig(str(tmp_path)))}
    assert "result.json" in found[str(damaged)]
    assert "\n" not in found[str(damaged)]
    assert "test top-1" in found[str(whole)]


def test_as_json_and_without_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path} holds no runs\n"
    begin(tmp_path / "x")
    assert main(["runs", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [asdict(run) for run in list_runs(RunsConfig(str(tmp_path), True))]
    assert main(["runs", str(tmp_path / "none")]) == 2
    assert "there is no folder" in capsys.readouterr().err
