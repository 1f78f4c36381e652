"""Networks trained alone: how many at once on a GPU, and what their results are read from."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from psvit.arch import Architecture
from psvit.data.config import DataConfig
from psvit.engine.config import Recipe
from psvit.run.jobs import Job
from psvit.search import standalone
from psvit.search.standalone import Standalone, StandaloneRecord, fitting, train_all
from psvit.zoo import SPACES


def test_as_many_on_a_gpu_as_fit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(standalone, "cores", lambda: 16)
    assert [fitting(10, free) for free in (5, 35, 1000)] == [1, 3, 8]

    calls = []

    def run(jobs: list[Job], at_once: int, done: Callable) -> None:
        calls.append(([job.name for job in jobs], at_once, jobs[0].argument.threads))
        for job in jobs:
            job.argument.folder.mkdir()
            StandaloneRecord(job.name, {}, 0, 0.5, 1.0).save(job.argument.folder / "result.json")
            done(job, 70)

    monkeypatch.setattr(standalone, "run_jobs", run)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 200))
    monkeypatch.setattr(standalone, "free_memory", lambda device: 80)
    names = ["BBB-BB-B", "BBB-B-B", "BB-B-B", "B-B-B"]
    spec, data = SPACES["2d_mini_4"], DataConfig()
    tasks = [Standalone(tmp_path / name, spec, Architecture.parse(name), data, Recipe(), 0, "cuda:0") for name in names]
    assert train_all(tasks, 0) == [(0.5, 1.0)] * 4
    assert calls == [(names[:1], 1, 16), (names[1:], 2, 8)]  # 30 of 80 each
    assert train_all(tasks, 0) == [(0.5, 1.0)] * 4
    assert len(calls) == 2
    (tmp_path / "B-B-B/result.json").write_text("{")
    with pytest.raises(
        ValueError,
        match=r"B-B-B/result\.json: cannot be read as JSON .*; delete its folder",
    ):
        train_all(tasks, 0)
