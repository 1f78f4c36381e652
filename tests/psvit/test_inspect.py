import json
import re

import pytest

from psvit.arch import Architecture
from psvit.archfile import ArchFile, save_arch
from psvit.cost import network_cost
from psvit.inspect import InspectConfig, inspect, parts
from psvit.zoo import NETWORKS, SPACES

ORIGIN = {
    "score": {"top1": 0.98125, "loss": 0.0712},
    "path": "BSIBII-BBIIII-BIIISI",
    "budget": {"flops": [None, 8_000_000], "params": [None, None]},
    "seed": 7,
    "searcher": "evolve",
    "supernet_sha256": "ab" * 32,
}


def show(capsys, target, **options):
    inspect(InspectConfig(target, **options))
    return capsys.readouterr().out


def rows(table):
    """name -> (FLOPs, share, parameters) of the table's rows; poolings are numbered."""
    found = {}
    for line in table.splitlines():
        if match := re.match(r"(stem|stage \d+|pooling|head|total)\b.* ([\d,]+) +([\d.]+)% +([\d,]+)$", line):
            name = match[1] if match[1] != "pooling" else f"pooling {len(found)}"
            found[name] = (int(match[2].replace(",", "")), float(match[3]), int(match[4].replace(",", "")))
    return found


@pytest.mark.parametrize("target", [*NETWORKS, *SPACES, "1d_tiny_16:BSB-BBBBB-BSBSB", "deit_tiny_16:" + "BS" * 12])
def test_rows_add_up_to_the_network_s_cost(capsys, target):
    table = show(capsys, target)
    found = rows(table)
    name, _, letters = target.partition(":")
    if name in NETWORKS and not letters:
        spec, architecture = NETWORKS[name]
    else:
        spec = SPACES[name] if name in SPACES else NETWORKS[name][0]
        architecture = Architecture.parse(letters or "-".join(["BBBBBB"] * 3))
    cost = network_cost(spec, architecture)
    assert found["total"] == (cost.flops, 100.0, cost.params)
    del found["total"]
    assert len(found) == 2 * spec.stages + 1  # stem, stages, the poolings between them, head
    assert sum(flops for flops, _, _ in found.values()) == cost.flops
    assert sum(params for _, _, params in found.values()) == cost.params
    for flops, share, _ in found.values():
        assert share == pytest.approx(100 * flops / cost.flops, abs=0.051)
    assert max(map(len, table.splitlines())) <= 100


@pytest.mark.parametrize(
    ("name", "millions", "giga"),
    [("deit_tiny_16", 5.7, 1.3), ("deit_small_16", 22.1, 4.6), ("deit_base_16", 86.6, 17.6)],
)
def test_deit_s_published_numbers(capsys, name, millions, giga):
    flops, _, params = rows(show(capsys, name))["total"]
    assert round(params / 1e6, 1) == millions
    assert round(flops / 1e9, 1) == giga


def test_stage_rows_name_layers_tokens_width_and_heads(capsys):
    table = show(capsys, "2d_mini_4:BSB-BB-BS")
    assert re.search(r"^stage 1 +BSB +64 \(8x8\) +32 +2 ", table, re.MULTILINE)
    assert re.search(r"^stage 3 +BS +4 \(2x2\) +64 +4 ", table, re.MULTILINE)
    assert re.search(r"^stage 2 +BBBBB +99 +288 +6 ", show(capsys, "1d_tiny_16:B-BBBBB-B"), re.MULTILINE)


def test_no_layer_of_a_deep_stage_is_lost(capsys):
    letters = "BSS" * 17
    table = show(capsys, f"deit_tiny_16:{letters}")
    assert "".join(re.findall(r"\b[BS]{3,}\b", table)) == letters


def test_a_space_says_which_network_is_shown(capsys):
    assert "largest network, 6 basic layers per stage" in show(capsys, "2d_mini_4")
    assert "largest" not in show(capsys, "2d_mini_4:B-B-B")


@pytest.fixture
def arch_file(tmp_path):
    path = tmp_path / "arch.json"
    save_arch(path, ArchFile(SPACES["2d_mini_4"], Architecture.parse("BSB-BB-BS"), ORIGIN))
    return path


def test_arch_file_says_where_it_came_from(capsys, arch_file):
    table = show(capsys, str(arch_file))
    for fact in ("top1 0.9812", "any to 8000000", "evolve", "ab" * 32, "seed"):
        assert fact in table
    assert rows(table)["total"][0] == network_cost(SPACES["2d_mini_4"], Architecture.parse("BSB-BB-BS")).flops


def test_control_codes_of_a_stranger_s_file_do_not_reach_the_terminal(capsys, tmp_path):
    save_arch(
        tmp_path / "arch.json",
        ArchFile(SPACES["2d_mini_4"], Architecture.parse("B-B-B"), {"searcher": "\x1b[2Jevil\nline"}),
    )
    table = show(capsys, str(tmp_path / "arch.json"))
    assert "\x1b" not in table
    assert "\nline" not in table


def test_json_is_the_same_network(capsys, arch_file, tmp_path):
    document = json.loads(show(capsys, str(arch_file), json=True, save=str(tmp_path / "net.svg")))
    spec, architecture = SPACES["2d_mini_4"], Architecture.parse("BSB-BB-BS")
    cost = network_cost(spec, architecture)
    assert (document["flops"], document["params"]) == (cost.flops, cost.params)
    assert sum(part["flops"] for part in document["parts"]) == cost.flops
    assert [part["layers"] for part in document["parts"] if part["layers"]] == [
        ["basic", "sharing", "basic"],
        ["basic", "basic"],
        ["basic", "sharing"],
    ]
    assert document["origin"] == ORIGIN
    assert document["network"]["widths"] == [32, 48, 64]
    assert (tmp_path / "net.svg").exists()


def test_save_draws(capsys, tmp_path):
    out = show(capsys, "deit_tiny_16", save=str(tmp_path / "deep" / "net.png"))
    assert out.rstrip().endswith("net.png")
    assert (tmp_path / "deep" / "net.png").read_bytes().startswith(b"\x89PNG")


def test_parts_are_in_the_order_of_the_forward_pass():
    names = [part.name for part in parts(SPACES["2d_mini_4"], Architecture.parse("B-B-B"))]
    assert names == ["stem", "stage 1", "pooling", "stage 2", "pooling", "stage 3", "head"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("1d_tny_16", r"no network is named '1d_tny_16'; did you mean 1d_tiny_16"),
        ("deit", "no network is named 'deit'; .*deit_tiny_16"),
        ("zzz", r"no network is named 'zzz'; give an arch.json, or one of .*2d_mini_4"),
        ("", "no network is named"),
        ("x" * 5000, "no network is named"),
        ("2d_mini_4:BB", "number of stages is 1, but 2d_mini_4 has 3"),
        ("2d_mini_4:S-B-B", "2d_mini_4:S-B-B: stage 1, cell 1: a sharing layer"),
        ("2d_mini_4:", "stage 1: has no layer"),
        ("gone.json", "gone.json: there is no such file"),
    ],
)
def test_faults_get_one_line(target, message):
    with pytest.raises(ValueError, match=message) as raised:
        inspect(InspectConfig(target))
    assert "\n" not in str(raised.value)


def test_a_picture_of_another_kind_is_refused_before_anything_is_printed(capsys):
    with pytest.raises(ValueError, match=r"\.png or \.svg"):
        inspect(InspectConfig("deit_tiny_16", save="net.gif"))
    assert capsys.readouterr().out == ""
