import copy
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from psvit.run.folder import RunFolder, flatten, recorded_as, recorded_command

CONFIG = {
    "seed": 0,
    "device": "auto",
    "out": "runs/default/supernet",
    "data": {"name": "digits", "workers": 0, "root": None},
    "recipe": {"lr": 1e-5, "epochs": 3, "checkpoint_every": None, "augment": {"crop_scale": (0.08, 1.0)}},
}


def changed(**settings):
    config = copy.deepcopy(CONFIG)
    for key, value in settings.items():
        *groups, last = key.split("__")
        place = config
        for group in groups:
            place = place[group]
        place[last] = value
    return config


def test_records_config_and_versions(tmp_path):
    with RunFolder(tmp_path / "a" / "b", CONFIG) as run:
        assert run.path == tmp_path / "a" / "b"
    recorded = yaml.safe_load((run.path / "config.yaml").read_text())
    assert recorded == {**CONFIG, "recipe": {**CONFIG["recipe"], "augment": {"crop_scale": [0.08, 1.0]}}}
    versions = json.loads((run.path / "versions.json").read_text())
    assert torch.__version__.startswith(versions["torch"])
    assert set(versions) == {"psvit-search", "python", "torch", "torchvision"}


def test_the_command_is_recorded_where_there_is_one(tmp_path):
    with RunFolder(tmp_path / "called", CONFIG):
        pass
    assert recorded_command(tmp_path / "called") is None
    with recorded_as("psvit-search run"):
        with recorded_as("psvit-search train-supernet --name 'ü'"), RunFolder(tmp_path / "part", CONFIG):
            pass
        with recorded_as(None), RunFolder(tmp_path / "none", CONFIG):
            pass
        with RunFolder(tmp_path / "follower", CONFIG, main=False), RunFolder(tmp_path / "whole", CONFIG):
            pass
    with RunFolder(tmp_path / "part", CONFIG):  # resumed by a call: the command still repeats it
        pass
    assert recorded_command(tmp_path / "part") == "psvit-search train-supernet --name 'ü'"
    assert recorded_command(tmp_path / "whole") == "psvit-search run"
    assert recorded_command(tmp_path / "none") is recorded_command(tmp_path / "follower") is None


def test_flatten():
    nested = {"a": {"b": {"c": 1}, "d": [{"e": 2}]}, "f": {}, "g": None}
    assert flatten(nested) == {"a.b.c": 1, "a.d": [{"e": 2}], "f": {}, "g": None}


def test_the_same_settings_go_on_and_free_ones_may_change(tmp_path):
    with RunFolder(tmp_path, CONFIG):
        (tmp_path / "checkpoint.pt").touch()
    before = (tmp_path / "config.yaml").read_text()
    with RunFolder(tmp_path, changed(device="cpu", out="elsewhere", data__workers=4, recipe__checkpoint_every=10)):
        pass
    assert (tmp_path / "config.yaml").read_text() == before


def test_a_run_that_has_done_nothing_leaves_nothing_and_refuses_nothing(tmp_path):
    folder = tmp_path / "a/run"

    def fail():
        with recorded_as("psvit-search x"), RunFolder(folder, CONFIG):
            (folder / "data.json").touch()
            raise ValueError("no images")

    with pytest.raises(ValueError, match="no images"):
        fail()
    assert not folder.exists()
    with RunFolder(folder, CONFIG):  # killed at once
        pass
    with RunFolder(folder, changed(seed=1)):
        (folder / "checkpoint.pt").touch()
    assert "seed: 1" in (folder / "config.yaml").read_text()
    with pytest.raises(ValueError, match="stopped"), RunFolder(folder, changed(seed=1)):
        raise ValueError("stopped")
    assert {path.name for path in folder.iterdir()} == {".lock", "config.yaml", "versions.json", "checkpoint.pt"}


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "config.yaml").write_text("mine: 1\n")
    with pytest.raises(ValueError, match="holds a run with other settings"), RunFolder(tmp_path, CONFIG):
        pass
    assert (tmp_path / "config.yaml").read_text() == "mine: 1\n"


def test_other_settings_are_named_and_refused(tmp_path):
    with RunFolder(tmp_path, CONFIG):
        (tmp_path / "checkpoint.pt").touch()
    config = changed(seed=1, recipe__lr=0.1)
    config["data"]["extra"] = True
    with pytest.raises(ValueError, match="holds a run with other settings") as raised, RunFolder(tmp_path, config):
        pass
    message = str(raised.value)
    for part in (
        "seed was 0 and is 1",
        "recipe.lr was 1e-05 and is 0.1",
        "data.extra was not set and is True",
        "name=... or out=...",
    ):
        assert part in message
    assert "epochs" not in message
    assert "\n" not in message
    with RunFolder(tmp_path, CONFIG):  # the refusal let go of the folder
        pass


@pytest.mark.parametrize("text", ["a: [", "just text", ""])
def test_a_broken_record_is_refused(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"config\.yaml .*repair it"), RunFolder(tmp_path, CONFIG):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ValueError, match=r"cannot use the run folder .*file"),
        RunFolder(tmp_path / "file" / "run", CONFIG),
    ):
        pass


def test_only_the_main_process_writes(tmp_path):
    with RunFolder(tmp_path / "run", CONFIG, main=False):
        assert not (tmp_path / "run").exists()


HOLD = """
import os, sys, time
from pathlib import Path
from psvit.run.folder import RunFolder
with RunFolder(Path(sys.argv[1]), {"seed": 0}):
    if os.fork() == 0:  # as a loader worker that outlives its run
        print(os.getpid(), flush=True)
    time.sleep(900)
"""


def test_a_second_process_is_refused_until_the_first_dies(tmp_path):
    root = str(Path(__file__).parents[3])
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    worker = int(first.stdout.readline())
    try:
        with (
            pytest.raises(ValueError, match=f"is using {tmp_path}"),
            RunFolder(tmp_path, {"seed": 0}),
        ):
            pass
        first.kill()
        first.wait()
        with RunFolder(tmp_path, {"seed": 0}):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
        first.kill()
        first.wait()
        first.stdout.close()
