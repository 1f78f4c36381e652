import pickle
import resource
import zipfile

import pytest
import torch

from psvit.engine.checkpoint import load_checkpoint, previous, save_checkpoint

STATE = {"step": 3, "model": {"weight": torch.arange(12.0).reshape(3, 4)}, "nested": [1, None, {"a": (0.5, "text")}]}


class Malicious:
    """Pickled, it makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def assert_one_line(raised):
    assert "\n" not in str(raised.value)


def test_returns_what_was_saved(tmp_path):
    save_checkpoint(tmp_path / "c.pt", STATE)
    loaded = load_checkpoint(tmp_path / "c.pt")
    assert loaded.keys() == STATE.keys()
    assert torch.equal(loaded["model"]["weight"], STATE["model"]["weight"])
    assert loaded["step"] == 3
    assert loaded["nested"] == STATE["nested"]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.pt: No such file") as raised:
        load_checkpoint(tmp_path / "absent.pt")
    assert_one_line(raised)


def test_a_checkpoint_cut_short_anywhere_is_refused(tmp_path):
    path = tmp_path / "c.pt"
    save_checkpoint(path, STATE)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(
            ValueError, match=r"c\.pt is (truncated or damaged|not a psvit-search checkpoint)"
        ) as raised:
            load_checkpoint(path)
        assert_one_line(raised)


def test_a_flipped_byte_is_noticed_or_harmless(tmp_path):
    path = tmp_path / "c.pt"
    save_checkpoint(path, STATE)
    whole = path.read_bytes()
    in_tensor = whole.index(STATE["model"]["weight"].numpy().tobytes())
    for at in [in_tensor, *range(0, len(whole), 11)]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x81]) + whole[at + 1 :])
        try:
            loaded = load_checkpoint(path)
        except ValueError as error:
            assert "c.pt is" in str(error)  # noqa: PT017  (padding between records may flip unnoticed)
        else:
            assert at != in_tensor
            assert torch.equal(loaded["model"]["weight"], STATE["model"]["weight"])


def test_code_is_refused_and_not_run(tmp_path):
    path, made = tmp_path / "c.pt", tmp_path / "made"
    torch.save({"format": "psvit-checkpoint", "version": 1, "model": Malicious(made)}, path)
    with pytest.raises(ValueError, match=r"c\.pt holds code") as raised:
        load_checkpoint(path)
    assert_one_line(raised)
    for protocol in (0, 2, 5):
        path.write_bytes(pickle.dumps(Malicious(made), protocol))
        with pytest.raises(ValueError, match=r"c\.pt is") as raised:
            load_checkpoint(path)
        assert_one_line(raised)
    torch.save(Malicious(made), path, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"c\.pt is a bare pickle, which may hold code: refused"):
        load_checkpoint(path)
    assert not made.exists()


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "c.pt"
    for content in (torch.zeros(3), {"model": {}}, {"format": "another", "version": 1}):
        torch.save(content, path)
        with pytest.raises(ValueError, match=r"c\.pt is not a psvit-search checkpoint"):
            load_checkpoint(path)
    torch.save({"format": "psvit-checkpoint", "version": 3}, path)
    with pytest.raises(ValueError, match="version 3"):
        load_checkpoint(path)
    path.write_text("hello")
    with pytest.raises(ValueError, match="not a psvit-search checkpoint"):
        load_checkpoint(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(ValueError, match=r"c\.pt is truncated or damaged"):
        load_checkpoint(path)


def test_the_earlier_checkpoint_survives_a_full_disk(tmp_path):
    path = tmp_path / "c.pt"
    save_checkpoint(path, STATE)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))  # the kernel refuses what a file has beyond this
    try:
        for size in (13_000, 1_000_000):  # fails at the end, and half way
            with pytest.raises(
                ValueError, match=r"cannot write .*c\.pt: File too large; what was saved before"
            ) as raised:
                save_checkpoint(path, {"step": 4, "model": torch.randn(size)})
            assert_one_line(raised)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before == previous(path).read_bytes()
    assert {file.name for file in tmp_path.iterdir()} == {"c.pt", "c.previous.pt"}
