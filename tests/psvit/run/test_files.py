"""Files are whole or not there, no link in their way is followed, and a loss of power takes no rename back."""

import os
import secrets
import stat
from pathlib import Path

import pytest

from psvit.run.files import append_bytes, write_atomically, write_text
from psvit.run.folder import RunFolder


def test_a_planted_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even for someone who guesses the name of the file beside."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    monkeypatch.setattr(secrets, "token_hex", lambda length: "0" * 2 * length)
    beside = tmp_path / f".result.json.{'0' * 16}.part"
    beside.symlink_to(victim)
    with pytest.raises(ValueError, match=r"cannot write .*result\.json"):
        write_text(tmp_path / "result.json", "new")
    assert victim.read_text() == "mine"
    assert not (tmp_path / "result.json").exists()


def test_names_beside_are_not_told_beforehand(tmp_path: Path) -> None:
    names = set()
    for _ in range(5):
        write_atomically(tmp_path / "a", lambda file: names.add(os.path.basename(file.name)))
    assert len(names) == 5


def test_what_is_appended_to_is_no_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "history.csv").symlink_to(victim)
    with pytest.raises(ValueError, match=r"cannot write .*history\.csv"):
        append_bytes(tmp_path / "history.csv", b"1,2\n", 0)
    assert victim.read_text() == "mine"


def test_the_folder_is_flushed_behind_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def watched(handle: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def renamed(old: Path, new: Path) -> None:
        done.append("rename")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", watched)
    monkeypatch.setattr(os, "replace", renamed)
    write_text(tmp_path / "a", "text")
    assert done == ["file", "rename", "folder"]


def test_what_a_killed_process_has_left_is_swept_when_the_run_resumes(tmp_path: Path) -> None:
    """In the folder and below it, but not in that of another run."""
    part = f".result.json.{'ab' * 8}.part"
    left = [tmp_path / ".checkpoint.pt.4711.part", tmp_path / part, tmp_path / "hub/a" / part]
    others = [tmp_path / "networks/B/.lock", tmp_path / "networks/B" / part]
    for path in (*left, *others, tmp_path / "part", tmp_path / "notes.part"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with RunFolder(tmp_path, {}):
        assert not any(path.exists() for path in left)
        assert all(path.exists() for path in others)
    assert {"part", "notes.part"} <= {path.name for path in tmp_path.iterdir()}
