from dataclasses import replace
from pathlib import Path

import pytest
import torch

from psvit.data.config import AugmentConfig
from psvit.engine.config import Recipe
from psvit.supernet.config import SpaceConfig, TrainSupernetConfig
from psvit.zoo import SPACES


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Small tensors: threads only cost, and a fixed number makes results the same everywhere."""
    torch.set_num_threads(1)


PLAIN = AugmentConfig(crop_scale=[1, 1], flip=0, randaugment_ops=0, erasing=0, mixup=0, cutmix=0)
QUICK = Recipe(epochs=2, batch_size=320, lr=2e-3, warmup_epochs=1, drop_path=0.0, augment=PLAIN)


@pytest.fixture(scope="session")
def quick() -> Recipe:
    """A recipe of eight steps without randomness in the images."""
    return QUICK


@pytest.fixture(scope="session")
def supernet_config(tmp_path_factory: pytest.TempPathFactory) -> TrainSupernetConfig:
    """Settings of a supernet of three cells a stage on digits, in a folder of their own."""
    out = str(tmp_path_factory.mktemp("supernet") / "run")
    space = SpaceConfig.of(SPACES["2d_mini_4"], cells=3)
    return TrainSupernetConfig(out=out, space=space, recipe=replace(QUICK), sampling="uniform", watch=2)


@pytest.fixture(scope="session")
def supernet_run(supernet_config: TrainSupernetConfig) -> Path:
    """The run folder of that supernet, trained."""
    from psvit.supernet.train import train_supernet

    return train_supernet(supernet_config)
