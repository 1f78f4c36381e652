import pytest
import torch

from psvit.engine.device import autocast, pick_device


@pytest.fixture
def gpus(monkeypatch):
    def have(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return have


def test_auto_takes_a_gpu_where_there_is_one(gpus):
    gpus(0)
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")
    gpus(4)
    assert pick_device("auto", local_rank=2) == pick_device("cuda", local_rank=2) == torch.device("cuda", 2)
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "count", "message"),
    [
        ("cuda", 0, "finds no CUDA GPU"),
        ("cuda:2", 2, "GPU 2 is wanted, but this machine has 2"),
        ("gpu", 2, "use auto, cpu, cuda or cuda:1"),
        ("cpu:1", 2, "use auto, cpu, cuda or cuda:1"),
        ("cuda:x", 2, "use auto, cpu, cuda or cuda:1"),
    ],
)
def test_a_device_that_is_not_there_is_refused(gpus, name, count, message):
    gpus(count)
    with pytest.raises(ValueError, match=message):
        pick_device(name)


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("auto", torch.float32), ("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_autocast_sets_the_precision_of_products(precision, dtype):
    matrix = torch.ones(4, 4)
    with autocast(torch.device("cpu"), precision):
        assert (matrix @ matrix).dtype == dtype


def test_auto_precision_on_a_gpu_is_bf16(monkeypatch):
    asked = {}
    monkeypatch.setattr(torch, "autocast", lambda kind, **options: asked.update(options, kind=kind))
    autocast(torch.device("cuda", 0), "auto")
    assert asked == {"kind": "cuda", "dtype": torch.bfloat16, "enabled": True}
