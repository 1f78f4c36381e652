"""Tables: what is written is read back exactly, and anything else is refused."""

import math
import zlib
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from psvit.search.tables import FRONT, HISTORY, RANK, TOP, Table

TABLE = Table("table of tests", {"layers": str, "count": int, "share": float}, remedy="write it again")
FRAME = pd.DataFrame(
    {"layers": ["B-B", "BS-B", "BB-B"], "count": [1, 2**60, -3], "share": [0.1 + 0.2, math.nan, 5e-324]}
)


def test_a_table_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    TABLE.write(path, FRAME)
    read = TABLE.read(path)
    pd.testing.assert_frame_equal(read, FRAME, check_exact=True, check_dtype=False)
    assert [kind.kind for kind in read.dtypes[1:]] == ["i", "f"]
    assert path.read_text().splitlines()[0] == TABLE.header == "layers,count,share"


def test_a_sealed_table_notices_every_change(tmp_path: Path) -> None:
    path, sealed = tmp_path / "table.csv", replace(TABLE, grows=True, sealed=True)
    sealed.write(path, FRAME)
    pd.testing.assert_frame_equal(sealed.read(path), FRAME, check_exact=True, check_dtype=False)
    lines = path.read_text().splitlines()
    assert lines[:2] == [
        "layers,count,share,crc32",
        f"B-B,1,0.30000000000000004,{zlib.crc32(b'1,B-B,1,0.30000000000000004'):08x}",
    ]
    for old, new in ((",1,", ",2,"), ("BS-B", "BB-B"), (",nan,", ",0.5,")):
        path.write_text("\n".join(lines).replace(old, new, 1) + "\n")
        with pytest.raises(ValueError, match=r"is no table of tests \(line \d: its checksum .*\); write it again"):
            sealed.read(path)
    header, first, second, third = lines
    for moved in ([first, third], [second, third], [first, second, second, third], [second, first, third]):
        path.write_text("\n".join([header, *moved]) + "\n")
        with pytest.raises(ValueError, match=r"line \d: its checksum .* in this place"):
            sealed.read(path)


@pytest.mark.parametrize("sealed", [False, True])
def test_a_line_cut_short_is_left_out_of_a_table_that_grows(tmp_path: Path, sealed: bool) -> None:
    path, growing = tmp_path / "table.csv", replace(TABLE, grows=True, sealed=sealed)
    growing.write(path, FRAME)
    path.write_bytes(path.read_bytes()[:-3])
    assert growing.read(path)["layers"].tolist() == ["B-B", "BS-B"]


@pytest.mark.parametrize("sealed", [False, True])
def test_a_whole_table_is_not_read_as_far_as_it_goes(tmp_path: Path, sealed: bool) -> None:
    """A front or a table of the best without its last rows would name another architecture as the best of a budget."""
    path, whole = tmp_path / "table.csv", replace(TABLE, sealed=sealed)
    whole.write(path, FRAME)
    content = path.read_bytes()
    ends = [place + 1 for place, byte in enumerate(content) if byte == ord("\n")]
    refused = set(range(1, len(content))) - (set() if sealed else {*ends})
    for length in sorted(refused):
        path.write_bytes(content[:length])
        with pytest.raises(
            ValueError, match=r"is no table of tests \((its last line is cut|its rows are missing|line 2: its checksum)"
        ):
            whole.read(path)
    path.write_bytes(content)
    pd.testing.assert_frame_equal(whole.read(path), FRAME, check_exact=True, check_dtype=False)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("layers,count", "layer,count", "is no table of tests: its first line must be layers,count,share; write it"),
        ("layers,count,share", "count,layers,share", "is no table of tests: its first line must be"),
        (",1,", ",one,", r"is no table of tests \(.*\); write it again"),
        (",1,", ",1.5,", r"is no table of tests \(.*\); write it again"),
        (",1,", ",,", r"is no table of tests \(.*\); write it again"),
        ("\nBS-B,", "\nBS-B,7,", r"is no table of tests \(.*\); write it again"),
        (None, "", r"is no table of tests \(.*\); write it again"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, old: str | None, new: str, message: str) -> None:
    path = tmp_path / "table.csv"
    TABLE.write(path, FRAME)
    path.write_text(new if old is None else path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=message) as refusal:
        TABLE.read(path)
    assert str(refusal.value).startswith(str(path))
    assert "\n" not in str(refusal.value)
    with pytest.raises(ValueError, match=r"none\.csv is no table of tests"):
        TABLE.read(tmp_path / "none.csv")


def test_our_tables_have_columns_in_common() -> None:
    assert FRONT.columns == HISTORY.columns
    for table in (HISTORY, TOP, RANK):
        assert [table.columns[name] for name in ("layers", "flops", "params")] == [str, int, int]
