"""Records: what is written is read back, and whatever else stands in the file is refused by its place."""

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from psvit.run import records
from psvit.run.records import NewerVersion, Record


@dataclass(frozen=True)
class Shape:
    name: str
    size: tuple[int, int]

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise ValueError(f"size is {self.size}; use at least 1")


class Money:
    """A value with a form of its own."""

    def __init__(self, cents: int) -> None:
        self.cents = cents

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and other.cents == self.cents

    def to_json(self) -> str:
        return f"{self.cents} ct"

    @classmethod
    def from_json(cls, value: Any, where: str) -> "Money":
        if not str(value).endswith(" ct"):
            raise ValueError(f"{where}: is no money")
        return cls(int(value[:-3]))


@dataclass(frozen=True)
class Note(Record):
    format: ClassVar[str] = "test-note"
    version: ClassVar[int] = 2
    remedy: ClassVar[str] = "write it again"

    number: int
    share: float
    right: bool
    shapes: tuple[Shape, ...]
    counts: dict[str, int]
    price: Money
    anything: Any
    maybe: float | None = None
    words: tuple[str, ...] = field(default_factory=tuple)


NOTE = Note(3, 0.1 + 0.2, True, (Shape("a", (1, 2)), Shape("b", (3, 4))), {"x": 1}, Money(5), [1, {"y": None}])


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    for number, note in enumerate((NOTE, Note(0, math.inf, False, (), {}, Money(0), None, 0.5, ("v", "w")))):
        path = tmp_path / f"{number}.json"
        note.save(path)
        assert Note.load(path) == note
    document = json.loads((tmp_path / "0.json").read_text())
    assert (document["format"], document["version"], document["price"]) == ("test-note", 2, "5 ct")
    assert document["shapes"][1] == {"name": "b", "size": [3, 4]}
    assert list(document)[:2] == ["format", "version"]


def test_what_has_a_default_may_be_missing_and_whole_numbers_are_numbers() -> None:
    document = NOTE.to_json() | {"share": 1}
    del document["maybe"], document["words"]
    assert Note.from_json(document).share == 1.0
    assert isinstance(Note.from_json(document).share, float)


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("format", "other", "$.format: is 'other'; it must be \"test-note\""),
        ("version", 1, "$.version: is 1; this program reads version 2"),
        ("version", True, "$.version: is True; this program reads version 2"),
        ("version", "3", "$.version: is '3'; this program reads version 2"),
        ("number", 1.0, "$.number: is 1.0; it must be a whole number"),
        ("number", True, "$.number: is True; it must be a whole number"),
        ("number", None, "$.number: is None; it must be a whole number"),
        ("share", "1", "$.share: is '1'; it must be a number"),
        ("share", False, "$.share: is False; it must be a number"),
        ("right", 1, "$.right: is 1; it must be true or false"),
        ("maybe", "x", "$.maybe: is 'x'; it must be a number"),
        ("shapes", {}, "$.shapes: is {}; it must be a list"),
        ("shapes/1/size/0", "3", "$.shapes[1].size[0]: is '3'; it must be a whole number"),
        ("shapes/1/size", [3], "$.shapes[1].size: has 1 values; it must have 2"),
        ("shapes/0/size", [0, 1], "$.shapes[0]: size is (0, 1); use at least 1"),
        ("shapes/0/colour", "red", "$.shapes[0].colour: unknown key; known are name, size"),
        ("shapes/0", {"name": "a"}, "$.shapes[0].size: is missing"),
        ("counts/x", "1", "$.counts.x: is '1'; it must be a whole number"),
        ("price", 5, "$.price: is no money"),
        ("surprise", 1, "$.surprise: unknown key; known are anything, counts, "),
        ("number", "y" * 1000, f"$.number: is '{'y' * 59}...; it must be a whole number"),
    ],
)
def test_faults_are_refused_with_their_place_and_what_to_do(
    tmp_path: Path, where: str, value: Any, message: str
) -> None:
    document: Any = json.loads(json.dumps(NOTE.to_json()))
    *parents, last = [int(key) if key.isdigit() else key for key in where.split("/")]
    item = document
    for key in parents:
        item = item[key]
    item[last] = value
    path = tmp_path / "note.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match="note") as refusal:
        Note.load(path)
    assert str(refusal.value).startswith(f"{path}: {message}")
    assert str(refusal.value).endswith("; write it again")
    assert "\n" not in str(refusal.value)


def test_missing_keys_are_named(tmp_path: Path) -> None:
    for key in ("format", "version", "number", "price"):
        document = NOTE.to_json()
        del document[key]
        with pytest.raises(ValueError, match=rf"^\$\.{key}: is missing$"):
            Note.from_json(document)


def test_only_an_update_helps_with_a_newer_version(tmp_path: Path) -> None:
    """It may hold anything, so nothing else of it is looked at."""
    path = tmp_path / "note.json"
    path.write_text('{"format": "test-note", "version": 3, "else": 1}')
    with pytest.raises(NewerVersion):
        Note.from_json(json.loads(path.read_text()))
    with pytest.raises(ValueError, match=r"version: is 3; this program reads version 2: update psvit-search$"):
        Note.load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as JSON"),
        (b"{", "cannot be read as JSON"),
        (b"\xff\xfe", "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b"[]", r"\$: is \[\]; it must be an object"),
        (b"3", r"\$: is 3; it must be an object"),
    ],
)
def test_what_is_no_json_object_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "note.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as refusal:
        Note.load(path)
    assert "\n" not in str(refusal.value)


def test_what_is_no_file_of_ours_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"none\.json: there is no such file; write it again"):
        Note.load(tmp_path / "none.json")
    with pytest.raises(ValueError, match="there is no such file"):
        Note.load(tmp_path / ("n" * 1000))
    with pytest.raises(ValueError, match="is not a regular file"):
        Note.load(tmp_path)
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    with pytest.raises(ValueError, match="is not a regular file"):
        Note.load(tmp_path / "pipe")
    monkeypatch.setattr(records, "MOST_BYTES", 100)
    NOTE.save(tmp_path / "note.json")
    with pytest.raises(ValueError, match="is larger than"):
        Note.load(tmp_path / "note.json")
