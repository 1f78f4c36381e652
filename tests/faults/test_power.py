"""Power cuts: nothing that was said to be saved is lost, and what is run again ends as if the power had stayed on.

``PSVIT_CUTS=1000 pytest -m slow tests/faults/test_power.py -s`` tries every cut of each command, and ``make campaign``
as many as it has time for; the default is a few of each.
"""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from psvit.arch import Architecture
from psvit.run.files import append_bytes, move_into_place, read_appended, write_text
from psvit.run.folder import RunFolder
from psvit.search.history import History
from psvit.search.trial import Trial
from tests.faults.disk import WAYS, Disk, Record, restore
from tests.faults.power import COMMANDS, Tally, distinct, make_inputs, table, try_many, unbroken
from tests.search.builders import history_record

CUTS = int(os.environ.get("PSVIT_CUTS", "5"))


def watched(folder: Path, work: Callable[[Path], None]) -> Record:
    with Disk(folder) as disk:
        work(folder)
    return disk.record


def bytes_left(record: Record, name: str, way: str) -> list[bytes | None]:
    """What is in a file after a cut before each write, and at the end; None where it is missing."""
    pictures = [{path: digest for path, digest, _ in cut.pictures[way]} for cut in record.cuts]
    return [None if name not in picture else record.blobs[str(picture[name])] for picture in pictures]


# ------------------------------------------------------------------------------------------- what is not done rightly


def test_a_rename_of_bytes_that_were_not_synced_leaves_anything(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def work(folder: Path) -> None:
        with open(folder / "b", "wb") as file:
            file.write(b"new!")
        os.replace(folder / "b", folder / "a")

    record = watched(tmp_path, work)
    assert [cut.write for cut in record.cuts] == ["create b", "write b", "replace a", "end"]
    left = {way: bytes_left(record, "a", way)[-1] for way in WAYS}
    assert left == {"lost": b"old", "empty": b"", "half": b"ne", "zeros": bytes(4), "hole": b"\0\0w!"}
    assert record.late == ["a, at the end"]


def test_names_are_lost_with_their_folder(tmp_path: Path) -> None:
    """Whatever is synced inside of it."""

    def work(folder: Path) -> None:
        (folder / "run").mkdir()
        for name in "abc":
            write_text(folder / "run" / name, name)

    record = watched(tmp_path, work)
    assert all(not cut.pictures["lost"] for cut in record.cuts)
    assert {"run, when create run/.b.part", "run/a, when create run/.c.part", "run, at the end"} <= {*record.late}


def test_a_file_that_was_written_in_place_is_torn(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one,")

    def work(folder: Path) -> None:
        with open(folder / "a", "ab") as file:
            file.write(b"two,")
            file.flush()
        (folder / "b").touch()

    record = watched(tmp_path, work)
    left = {way: bytes_left(record, "a", way)[-1] for way in WAYS}
    assert left == {
        "lost": b"one,",
        "empty": b"one,",
        "half": b"one,tw",
        "zeros": b"one,\0\0\0\0",
        "hole": b"one,\0\0o,",
    }


def test_a_file_that_lost_its_name_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    """Though file systems give the inode to the next file."""

    def work(folder: Path) -> None:
        for name in "abc":
            write_text(folder / "x", name * 3)
            (folder / "x").unlink()
        (folder / "y").touch()

    record = watched(tmp_path, work)
    assert {*bytes_left(record, "x", "lost")} == {None, b"aaa", b"bbb", b"ccc"}
    assert {*bytes_left(record, "y", "zeros")} == {None, b""}


# -------------------------------------------------------------------------------------------------- what files.py does


@pytest.mark.parametrize("way", WAYS)
def test_a_file_is_the_old_one_or_the_new_one(tmp_path: Path, way: str) -> None:
    (tmp_path / "b").write_bytes(b"old")

    def work(folder: Path) -> None:
        write_text(folder / "made/here/a", "first")
        write_text(folder / "made/here/a", "second")
        (folder / "new").write_bytes(b"new")
        move_into_place(folder / "new", folder / "b")

    record = watched(tmp_path, work)
    assert record.late == []
    first = bytes_left(record, "made/here/a", way)
    assert {*first} == {None, b"first", b"second"}
    assert sorted(first, key=[None, b"first", b"second"].index) == first
    assert {*bytes_left(record, "b", way)} == {b"old", b"new"}


@pytest.mark.parametrize("way", WAYS)
def test_what_was_appended_before_is_kept(tmp_path: Path, way: str) -> None:
    def work(folder: Path) -> None:
        append_bytes(folder / "a", b"1\n", 0)
        append_bytes(folder / "a", b"22\n", 2)
        append_bytes(folder / "a", b"3333\n", 5)

    record = watched(tmp_path, work)
    assert record.late == []
    (tmp_path / "cut").mkdir()
    numbers = []
    for content in bytes_left(record, "a", way):
        (tmp_path / "cut/a").write_bytes(content or b"")
        found = read_appended(tmp_path / "cut/a")
        whole = found[: found.rfind(b"\n") + 1]
        assert b"1\n22\n3333\n".startswith(whole)
        numbers.append(whole.count(b"\n"))
    assert numbers == sorted(numbers)
    assert {*numbers} == {0, 1, 2, 3}


def search(folder: Path) -> None:
    """A search without networks: six trials, two at a time."""
    layers = ("B", "BB", "BBB", "BS", "BSS", "BBS")
    trials = [Trial(Architecture((each,)), 10 + i, 5, 0.5, 1 / (3 + i), 100, 0) for i, each in enumerate(layers)]
    with RunFolder(folder / "runs/x", {"seed": 1}) as run:
        history = History(run.path / "history.csv", history_record())
        while left := trials[len(history) :][:2]:
            history.append(left)
        write_text(run.path / "best.json", str(history.best("loss")))


def test_a_search_that_is_cut_anywhere_resumes(tmp_path: Path) -> None:
    """And once more where it resumes, at a write drawn at random."""
    (tmp_path / "whole").mkdir()
    record = watched(tmp_path / "whole", search)
    assert record.late == []
    expected = {path.name: path.read_bytes() for path in (tmp_path / "whole/runs/x").iterdir()}
    assert len(expected) == 6
    pictures, rng = distinct(record), random.Random(0)
    assert len(pictures) > 40
    for number, picture in enumerate(pictures):
        again = record
        for folder in (tmp_path / f"{number}", tmp_path / f"{number} again"):
            folder.mkdir()
            restore(picture, again.blobs, folder)
            again = watched(folder, search)
            found = {path.name: path.read_bytes() for path in (folder / "runs/x").iterdir()}
            assert found == expected, (number, folder)
            assert again.late == []
            picture = rng.choice([*distinct(again)])


# ------------------------------------------------------------------------------------------------------ the commands


def test_the_table_tells_what_failed() -> None:
    tally = Tally(writes=60, cuts=300, pictures=80, tried=3, held=2, failed={(17, "half"): "why"})
    *_, row = table({"retrain": tally})
    assert row == "| retrain | 60 | 300 | 80 | 3 | 2 | 1 | 17 half |"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_inputs(tmp_path_factory.mktemp("power").resolve() / "inputs")


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_cut_and_resumed_is_unbroken(command: str, inputs: dict[str, Path], tmp_path: Path) -> None:
    whole = unbroken(command, inputs, tmp_path.resolve() / "unbroken")
    assert whole.record.late == []
    tally = try_many(whole, tmp_path.resolve() / "cut", most=CUTS)
    print(f"\n{command}: {tally.tried} of {tally.pictures} pictures of {tally.cuts} cuts")
    assert tally.failed == {}
    assert tally.held == tally.tried == min(CUTS, tally.pictures)
