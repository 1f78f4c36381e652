import json
from pathlib import Path
from typing import Any

import pytest

from psvit.arch import Architecture
from psvit.archfile import ArchFile, load_arch, save_arch
from psvit.zoo import NETWORKS, SPACES

ORIGIN = {
    "score": {"top1": 0.9, "loss": 0.4},
    "path": "BSIIII-BIIIII-BBSIII",
    "search_split": {"dataset": "digits"},
    "budget": {"flops": "5M"},
    "seed": 3,
    "searcher": "evolve",
    "supernet_sha256": "ab",
    "tool": "psvit-search 0",
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "arch.json"
    save_arch(path, ArchFile(SPACES["2d_mini_4"], Architecture.parse("BS-B-BBS"), ORIGIN))
    return path


def test_round_trip(file: Path, tmp_path: Path) -> None:
    arch = load_arch(file)
    assert arch == ArchFile(SPACES["2d_mini_4"], Architecture.parse("BS-B-BBS"), ORIGIN)
    for number, (spec, architecture) in enumerate(NETWORKS.values()):
        path = tmp_path / f"{number}.json"
        save_arch(path, ArchFile(spec, architecture))
        assert load_arch(path) == ArchFile(spec, architecture)


def test_a_known_name_is_enough(file: Path) -> None:
    document = json.loads(file.read_text())
    document["network"] = {"name": "2d_mini_4"}
    file.write_text(json.dumps(document))
    assert load_arch(file).spec == SPACES["2d_mini_4"]


def put(document: dict[str, Any], where: str, value: Any) -> None:
    *parents, last = [int(key) if key.isdigit() else key for key in where.split("/")]
    item: Any = document
    for key in parents:
        item = item[key]
    item[last] = value


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("format", "other", r"\$\.format: is 'other'"),
        ("version", 3, r"\$\.version: is 3; this program reads version 1 to 2: update"),
        ("version", True, r"\$\.version"),
        ("surprise", 1, r"\$\.surprise: unknown key"),
        ("network/surprise", 1, r"\$\.network\.surprise: unknown key"),
        ("origin/surprise", 1, r"\$\.origin\.surprise: unknown key"),
        ("network/widths/1", "48", r"\$\.network\.widths\[1\]: is '48'; it must be a whole number"),
        ("network/patch_size", 4.0, r"\$\.network\.patch_size: is 4.0; it must be a whole number"),
        ("network/classes", True, r"\$\.network\.classes: is True"),
        ("network/image_size/0", 33, r"\$\.network: image size 33x32: 33 is not a multiple"),
        ("stages/0/1", "identity", r"\$\.stages\[0\]\[1\]: unknown layer 'identity'"),
        ("stages/1/0", "sharing", r"\$\.stages: stage 2, cell 1: a sharing layer needs"),
        ("stages/2", [], r"\$\.stages: stage 3: has no layer"),
        ("stages", [["basic"]], r"\$\.stages: has 1 stages, but \$\.network has 3"),
        ("flops", 5, r"\$\.flops: is 5, but the network has \d+"),
        ("params", 5, r"\$\.params: is 5, but the network has \d+"),
        ("origin/seed", "3", r"\$\.origin\.seed: is '3'"),
        ("origin/path", "BIIIII-BIIIII-BBSIII", r"\$\.origin\.path: is .* a different architecture"),
    ],
)
def test_faults_are_refused_with_their_json_path(file: Path, where: str, value: Any, message: str) -> None:
    document = json.loads(file.read_text())
    put(document, where, value)
    file.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=message) as caught:
        load_arch(file)
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


def test_missing_keys_and_broken_files(file: Path, tmp_path: Path) -> None:
    document = json.loads(file.read_text())
    del document["flops"]
    file.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"\$\.flops: is missing"):
        load_arch(file)
    file.write_text("{")
    with pytest.raises(ValueError, match="cannot be read as JSON"):
        load_arch(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="cannot be read as JSON"):
        load_arch(file)
    with pytest.raises(ValueError, match="no such file"):
        load_arch(tmp_path / "none.json")
