"""The plain lines that tell how far a run is where stderr is no terminal."""

from __future__ import annotations

import pytest

from psvit.run import progress
from psvit.run.progress import Counter


def test_a_line_a_minute_with_what_is_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = 1000.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with Counter(4000, "search", "architectures") as counter:
        counter.skip(1000)  # of an earlier run: no time was spent on them
        for _ in range(10):
            now += 20
            counter.advance(100)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "search: 1,300 of 4,000 architectures (32%), about 09:00 left",
        "search: 1,600 of 4,000 architectures (40%), about 08:00 left",
        "search: 1,900 of 4,000 architectures (48%), about 07:00 left",
    ]
