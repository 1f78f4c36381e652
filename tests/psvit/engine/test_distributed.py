import threading

import pytest
import torch
import torch.distributed as dist

from psvit.engine.distributed import Processes

CPU = torch.device("cpu")


def test_one_process_needs_no_group():
    with Processes().group(CPU, {}):
        assert Processes().sum(torch.tensor([3.0])).tolist() == [3.0]


def test_torch_without_nccl_is_refused(monkeypatch):
    monkeypatch.setattr(dist, "is_nccl_available", lambda: False)
    with (
        pytest.raises(ValueError, match=r"without NCCL.*device=cpu") as raised,
        Processes(0, 2).group(torch.device("cuda", 0), {}),
    ):
        pass
    assert "\n" not in str(raised.value)


def in_threads(world, call):
    """What each of several processes gets, threads standing for them."""
    results = {}

    def run(rank):
        try:
            results[rank] = call(Processes(rank, world))
        except ValueError as error:
            results[rank] = str(error)

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(results) == world
    return results


def test_each_start_meets_in_a_place_of_its_own():
    """Whatever an earlier start, or one that was killed half way, has left in the store."""
    store = dist.HashStore()
    in_threads(3, lambda processes: processes._meet(store).set("address", "of the first start"))
    store.set("start", "one that was killed before all had answered")
    store.set("one that was killed before all had answered/1", "an answer")

    def meet(processes):
        place = processes._meet(store)
        fresh = not place.check(["address"])
        place.set(f"here/{processes.rank}", "")
        place.wait([f"here/{rank}" for rank in range(3)])  # all are in the same place
        return fresh

    assert in_threads(3, meet) == {0: True, 1: True, 2: True}


def test_all_processes_learn_of_one_with_other_settings():
    store = dist.HashStore()
    settings = [{"recipe": {"lr": 0.1, "epochs": 2}} for _ in range(3)]
    assert in_threads(
        3, lambda one: one._compare(dist.PrefixStore("same", store), settings[one.rank])
    ) == dict.fromkeys(range(3))
    settings[2]["recipe"]["lr"] = 0.2
    errors = in_threads(3, lambda one: one._compare(dist.PrefixStore("other", store), settings[one.rank]))
    for error in errors.values():
        assert error.startswith("process 2 was started with other settings than process 0")
        assert "\n" not in error
    assert "recipe.lr was 0.1 and is 0.2" in errors[2]


def test_a_fault_of_ones_own_is_not_laid_on_another_process():
    with (
        pytest.raises(RuntimeError, match="shapes cannot be multiplied"),
        Processes(0, 2).together(),
    ):
        torch.ones(2, 3) @ torch.ones(2, 3)
    with pytest.raises(ValueError, match="lost another process of this run"), Processes(0, 2).together():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer")
