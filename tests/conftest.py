import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Small tensors: threads only cost, and a fixed number makes results the same everywhere."""
    torch.set_num_threads(1)
