"""A trained supernet on file: the data that it was trained on."""

from dataclasses import replace
from pathlib import Path

import pytest

from psvit.data.config import DataConfig
from psvit.data.data import Data, open_data
from psvit.supernet import checkpoint
from psvit.supernet.checkpoint import TrainedSupernet


def test_its_data_are_those_of_its_training(supernet_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = TrainedSupernet.open(supernet_run)
    before, asked = replace(trained.data), []

    def watched(config: DataConfig) -> Data:
        asked.append(config)
        return open_data(replace(config, root=None))

    monkeypatch.setattr(checkpoint, "open_data", watched)
    assert trained.open_data("elsewhere", 3).split_record() == trained.search_split
    trained.open_data(None, 0)
    assert asked == [replace(before, root="elsewhere", workers=3), replace(before, workers=0)]
    assert trained.data == before


def test_another_search_split_is_refused(supernet_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "open_data", lambda data: open_data(replace(data, split_seed=1)))
    with pytest.raises(ValueError, match=r"digits is not what .* was trained on: the same images are split in another"):
        TrainedSupernet.open(supernet_run).open_data(None, 0)
