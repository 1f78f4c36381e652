"""What weights remember of their data is read back as it was written, and nothing impossible is read."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from psvit.archfile import load_arch, save_arch
from psvit.networks import find_arch
from psvit.preprocessing import Preprocessing, TrainedOn

SEEN = Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "cover", 0.875)
KNOWN = TrainedOn(tuple("abcdefghij"), SEEN)


def test_an_architecture_keeps_it(tmp_path: Path) -> None:
    arch = find_arch("2d_mini_4:B-B-B").meets(KNOWN)
    save_arch(tmp_path / "arch.json", arch)
    assert load_arch(tmp_path / "arch.json") == arch
    assert arch.about()["trained_on"] == json.loads((tmp_path / "arch.json").read_text())["trained_on"]
    assert arch.for_data(10, (32, 32)) == arch
    assert arch.for_data(11, None).trained_on is None, "other classes are to be learned"


def test_version_1_of_arch_json_is_read(tmp_path: Path) -> None:
    path = tmp_path / "arch.json"
    save_arch(path, find_arch("2d_mini_4:B-B-B"))
    document = json.loads(path.read_text())
    del document["trained_on"]
    path.write_text(json.dumps(document | {"version": 1}))
    assert load_arch(path) == find_arch("2d_mini_4:B-B-B")
    path.write_text(json.dumps(document | {"version": 1, "trained_on": None}))
    with pytest.raises(ValueError, match=r"\$\.trained_on: unknown key"):
        load_arch(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": ["a", "b", "a"]}, r"\$\.trained_on\.class_names: names 'a' twice"),
        ({"class_names": ["a", "b"]}, r"names 2 classes, but \$\.network has 10"),
        ({"class_names": [1] * 10}, r"\$\.trained_on\.class_names\[0\]: is 1; it must be a string"),
        ({"preprocessing": {}}, r"\$\.trained_on\.preprocessing\.\w+: is missing"),
        ({"surprise": 1}, r"\$\.trained_on\.surprise: unknown key"),
    ],
)
def test_faults_are_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "arch.json"
    save_arch(path, find_arch("2d_mini_4:B-B-B").meets(KNOWN))
    document = json.loads(path.read_text())
    document["trained_on"] |= change
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=message):
        load_arch(path)


@pytest.mark.parametrize(
    "change",
    [
        {"resize": "pad"},
        {"interpolation": "nearest"},
        {"channels": "BGR"},
        {"crop": 0.0},
        {"crop": 1.5},
        {"crop": 0.5, "resize": "stretch"},
        {"std": (0.1, 0.0, 0.1)},
        {"mean": (0.1, float("nan"), 0.1)},
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(SEEN, **change)
