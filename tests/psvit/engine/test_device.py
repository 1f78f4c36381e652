import pytest
import torch

from psvit.engine import device as device_module
from psvit.engine.device import PendingHostCopy, autocast, check_compiler, matmul_peak, peak_memory, pick_device


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


def test_more_processes_than_gpus_are_refused(gpus):
    gpus(2)
    for name in ("auto", "cuda"):
        with pytest.raises(
            ValueError, match=r"too few GPUs \(2\) for its process number 3; use torchrun --nproc-per-node 2"
        ):
            pick_device(name, local_rank=2)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_peak_is_of_the_precision_and_draws_nothing(precision, monkeypatch):
    times, kinds, sides = iter([9.0, 1e-3, 1e-3, 1e-3, *(0.02, 0.01, 0.04, 0.02), *[0.008, *[0.01] * 5]]), set(), []

    def seconds(matrix):
        kinds.add(matrix.dtype)
        sides.append(len(matrix))
        return next(times)

    monkeypatch.setattr(device_module, "_seconds", seconds)
    before = torch.get_rng_state()
    peak = matmul_peak(torch.device("cpu"), precision)
    assert peak == pytest.approx(2 * 512**3 / 0.008)
    assert sides == [256] * 4 + [512] * 10
    assert kinds == {{"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]}
    assert torch.equal(torch.get_rng_state(), before)


def test_a_matrix_product_is_timed():
    assert 0 < device_module._seconds(torch.ones(8, 8)) < 60


def test_peak_memory_grows_with_what_is_used():
    before = peak_memory(torch.device("cpu"))
    kept = torch.ones(before // 4 + 2**26)  # more than was ever used, in float32
    assert peak_memory(torch.device("cpu")) > before
    del kept


def test_numbers_on_their_way_arrive():
    assert PendingHostCopy(torch.tensor([1.0, 2.5])).read() == [1.0, 2.5]


def test_a_machine_that_cannot_compile_says_what_to_do(monkeypatch):
    def corrupt(function):
        def call(x):
            raise RuntimeError("\nNo working C++ compiler found\nand much more")

        return call

    monkeypatch.setattr(torch, "compile", corrupt)
    with pytest.raises(ValueError, match=r"No working C.. compiler found.*recipe.compile=false") as raised:
        check_compiler(torch.device("cpu"))
    assert "\n" not in str(raised.value)
