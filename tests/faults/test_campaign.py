"""Damaged files, some of each kind: ``make campaign`` tries many more. Each is refused in one line, or is read."""

import random
from pathlib import Path

import pytest

from tests.faults.campaign import Tally, content_of, corpus, table, try_many, try_one
from tests.faults.mutate import damaged
from tests.faults.readers import Reader, make_samples, readers, write_pictures


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder)
    return folder


def test_damage_is_a_function_of_the_seed() -> None:
    whole = b'{"a": [1, 2, {"b": "c"}]}\n' * 3
    mutants = [damaged(whole, random.Random(seed)) for seed in range(300)]
    assert mutants == [damaged(whole, random.Random(seed)) for seed in range(300)]
    assert len({mutant for mutant in mutants if mutant != whole}) > 150


def test_damaged_pictures_and_lists(pictures: Path) -> None:
    for reader in readers(pictures):
        whole, expected = reader.path.read_bytes(), [repr(reader.read())]
        for seed in range(-len(corpus(reader)), 60):
            outcome, why = try_one(reader, content_of(reader, whole, seed), expected)
            assert outcome != "failed", f"{reader.name}, seed {seed}: {why}"
        reader.path.write_bytes(whole)


def test_what_goes_wrong_is_found(tmp_path: Path) -> None:
    """A reader that fails in each way, by what its file says."""
    path = tmp_path / "file"

    def read() -> str:
        text = path.read_text()
        if text == "raises":
            raise KeyError("x")
        if text == "two lines":
            raise ValueError("a\nb")
        if text == "refused":
            raise ValueError("file: say what to do")
        return text

    for sealed, text, outcome in (
        *((False, "raises", "failed"), (False, "two lines", "failed"), (False, "refused", "refused")),
        *((False, "whole", "same"), (False, "other", "other"), (True, "whole", "same"), (True, "other", "failed")),
    ):
        reader = Reader("r", path, read, sealed=sealed)
        assert try_one(reader, text.encode(), [repr("whole")])[0] == outcome


def test_the_table_adds_up() -> None:
    tally = Tally()
    for seed, outcome in enumerate(("refused", "same", "other", "failed", "refused")):
        tally.add(seed, outcome, "why")
    *_, row, total = table({"a": tally})
    assert row == "| a | 5 | 2 | 1 | 1 | 1 | 3 |"
    assert total == "| all | 5 | 2 | 1 | 1 | 1 | |"


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    make_samples(folder)
    return folder


@pytest.mark.slow
def test_every_reader_holds(samples: Path) -> None:
    every = readers(samples)
    assert len(every) == 32
    for reader in every:
        tally = try_many(samples, reader.name, range(-len(corpus(reader)), 8 if reader.costly else 60))
        assert not tally.failed, reader.name
        assert tally.counts["refused"] > 0
