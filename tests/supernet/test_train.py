"""train-supernet from end to end: what it leaves, and that processes and micro-batches do not change it."""

import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from psvit.data.data import open_data
from psvit.supernet.checkpoint import TrainedSupernet
from psvit.supernet.config import TrainSupernetConfig
from psvit.supernet.train import train_supernet


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "supernet.safetensors")


def assert_close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], atol: float) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], atol=atol, rtol=0, msg=name)


def test_a_run_leaves_a_supernet_that_learned(supernet_run: Path, supernet_config: TrainSupernetConfig) -> None:
    trained = TrainedSupernet.open(supernet_run)
    assert trained.space.spec == supernet_config.space.spec(classes=10, image_size=(32, 32))
    assert trained.space.cells == 3
    assert asdict(trained.data) == asdict(supernet_config.data)
    assert trained.search_split == open_data(supernet_config.data).split_record()
    supernet = trained.load()
    saved = weights(supernet_run)
    assert all(torch.equal(tensor, saved[name]) for name, tensor in supernet.state_dict().items())
    metrics = pd.read_csv(supernet_run / "metrics.csv")
    assert metrics["loss"].iloc[-1] < metrics["loss"].iloc[0]
    assert metrics["inherited_top1"].between(0, 1).all()


def test_a_new_run_says_what_it_reads_and_a_resumed_one_does_not(
    supernet_config: TrainSupernetConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = replace(supernet_config.recipe, epochs=1)
    config = replace(supernet_config, out=str(tmp_path / "run"), recipe=recipe, watch=0)
    train_supernet(config)
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == "digits: 10 classes; 1,295 to learn from, 143 to search by"
    assert second == "images per class: 125 (8) to 131 (1)"
    train_supernet(config)
    assert "to learn from" not in capsys.readouterr().out


def test_a_finished_run_is_left_as_it_is(supernet_run: Path, supernet_config: TrainSupernetConfig) -> None:
    before = (supernet_run / "supernet.safetensors").read_bytes()
    train_supernet(supernet_config)
    assert (supernet_run / "supernet.safetensors").read_bytes() == before
    changed = replace(supernet_config, seed=1)
    with pytest.raises(ValueError, match="holds a run with other settings: seed was 0 and is 1"):
        train_supernet(changed)


@pytest.mark.slow
@pytest.mark.parametrize(("sampling", "paths"), [("uniform", "image"), ("uniform", "batch"), ("sandwich", "image")])
def test_micro_batches_and_processes_take_their_parts_of_one_draw(
    sampling: str, paths: str, supernet_config: TrainSupernetConfig, tmp_path: Path
) -> None:
    """The same global batch in one piece, in two micro-batches, and in two processes under torchrun."""
    recipe = replace(supernet_config.recipe, epochs=1)
    config = replace(supernet_config, sampling=sampling, paths=paths, recipe=recipe, watch=0)
    whole = train_supernet(replace(config, out=str(tmp_path / "whole")))
    cut = train_supernet(replace(config, out=str(tmp_path / "cut"), recipe=replace(config.recipe, accumulate=2)))
    assert_close(weights(cut), weights(whole), atol=2e-5)
    arguments = [
        *(
            "train-supernet",
            f"out={tmp_path / 'two'}",
            f"paths={paths}",
            f"sampling={sampling}",
            "watch=0",
            "space.cells=3",
        ),
        *("recipe.epochs=1", "recipe.batch_size=320", "recipe.warmup_epochs=1", "recipe.augment.crop_scale=[1,1]"),
        *("recipe.augment.rotate=0", f"recipe.augment.crop_ratio={config.recipe.augment.crop_ratio}"),
    ]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    finished = subprocess.run(
        [*launch, "-m", "psvit", *arguments],
        cwd=Path(__file__).parent.parent.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    assert_close(weights(tmp_path / "two"), weights(whole), atol=2e-5)


def test_what_is_no_supernet_is_refused(tmp_path: Path, supernet_run: Path) -> None:
    with pytest.raises(ValueError, match="holds no trained supernet; train one first"):
        TrainedSupernet.open(tmp_path)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((supernet_run / "supernet.safetensors").read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a valid safetensors file"):
        TrainedSupernet.open(cut)
    evil = tmp_path / "evil.safetensors"
    evil.write_bytes(b"\x80\x04cposix\nsystem\n.")
    with pytest.raises(ValueError, match="not a valid safetensors file"):
        TrainedSupernet.open(evil)


def test_what_learned_canonical_paths_is_not_scored_on_others(
    supernet_run: Path, supernet_config: TrainSupernetConfig, tmp_path: Path
) -> None:
    TrainedSupernet.open(supernet_run).check_placements(3)  # it learned all paths
    recipe = replace(supernet_config.recipe, epochs=1)
    config = replace(supernet_config, out=str(tmp_path), sampling="canonical-depth", weights="entangled", recipe=recipe)
    trained = TrainedSupernet.open(train_supernet(config))
    assert trained.load().weights == "entangled"
    trained.check_placements(0)
    with pytest.raises(ValueError, match="knows canonical paths only: leave placements at 0"):
        trained.check_placements(1)
