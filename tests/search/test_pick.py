"""Picking from what was scored: against brute force over the trials, and through the command."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from psvit.arch import Architecture, NetworkSpec
from psvit.archfile import load_arch
from psvit.cli.main import main
from psvit.search.budget import Budget
from psvit.search.config import BudgetConfig, PickConfig
from psvit.search.history import History
from psvit.search.latency import Conditions, LatencyTable
from psvit.search.pick import amounts, choose, pick, read_scored
from psvit.search.trial import Trial
from psvit.supernet.space import SearchSpace
from tests.search.builders import history_record

SPEC = NetworkSpec("2d", (16, 16), 4, (8, 16, 24), (1, 2, 3), 5, name="small")
SPACE = SearchSpace(SPEC, cells=3)
MEMBERS = list(SPACE.within())  # 343
FLOPS = sorted(SPACE.cost(member).flops for member in MEMBERS)
LOW, HIGH = FLOPS[100], FLOPS[250]
RECORD = history_record(space=SPACE)
TABLE = LatencyTable(Conditions("cpu", 1, 1, "fp32", "2.6", SPEC), 1000, (500, 700, 900), (300, 200, 400))


def trial(architecture: Architecture, num_images: int = 200, failed: bool = False) -> Trial:
    """A score with many ties in top-1."""
    digest = hashlib.sha256(f"{architecture}{num_images}".encode()).digest()
    cost = SPACE.cost(architecture)
    top1 = math.nan if failed else (digest[0] // 16 * num_images // 20) / num_images
    return Trial(architecture, cost.flops, cost.params, top1, digest[1] / 256, num_images, 0)


def write_search(folder: Path, trials: list[Trial], **changes: Any) -> list[Trial]:
    History(folder / "history.csv", replace(RECORD, **changes)).append(trials)
    return trials


def scored(trials: list[Trial]) -> list[Trial]:
    return [t for t in trials if not t.failed]


def layers(answer: Any) -> list[str]:
    return answer.ranked["layers"].tolist()


def budget(**config: str) -> Budget:
    return Budget.parse(BudgetConfig(**config), TABLE)


# ------------------------------------------------------------------------------------------------ what is best


@pytest.mark.parametrize(
    "config",
    [{}, {"flops": f"{HIGH}"}, {"flops": f"{LOW}..{HIGH}", "params": "30K"}, {"latency": "5us"}],
    ids=["all", "flops", "both", "latency"],
)
def test_the_best_come_first(tmp_path: Path, config: dict[str, str]) -> None:
    trials = write_search(tmp_path, [trial(member, failed=i % 10 == 0) for i, member in enumerate(MEMBERS[::2])])
    asked = budget(**config)
    inside = [
        t
        for t in trials
        if t.flops in asked.flops and t.params in asked.params and TABLE.predict(t.architecture) in asked.latency
    ]
    by_top1 = choose(read_scored(tmp_path), asked, "top1")
    assert layers(by_top1) == [str(t.architecture) for t in sorted(scored(inside), key=lambda t: t.sort_key("top1"))]
    best = sorted(scored(inside), key=lambda t: t.sort_key("loss"))
    answer = choose(read_scored(tmp_path), asked)
    assert len(best) > 20
    assert layers(answer) == [str(t.architecture) for t in best]
    assert answer.ranked["top1"].tolist() == [t.top1 for t in best]
    assert answer.architectures == sum(
        cost.flops in asked.flops and cost.params in asked.params and TABLE.predict(member) in asked.latency
        for member, cost in ((member, SPACE.cost(member)) for member in MEMBERS)
    )
    assert answer.failed == sum(t.failed for t in inside)
    if config.get("latency"):
        assert answer.ranked["latency"].tolist() == [TABLE.predict(t.architecture) for t in best]


def test_amounts_are_those_of_each_architecture() -> None:
    found = amounts(pd.Series(map(str, MEMBERS), index=range(7, 7 + len(MEMBERS))), TABLE.cost)
    assert found.tolist() == [TABLE.predict(member) for member in MEMBERS]


def test_it_says_when_all_were_scored(tmp_path: Path) -> None:
    within = [member for member in MEMBERS if SPACE.cost(member).flops <= LOW]
    write_search(tmp_path / "a", [trial(member) for member in within])
    write_search(tmp_path / "b", [trial(member) for member in MEMBERS[:3]])
    answer = choose(read_scored(tmp_path), budget(flops=f"{LOW}"))
    expected = f"all {len(within)} architectures within this budget were scored"
    assert (str(answer), answer.complete) == (expected, True)
    more = choose(read_scored(tmp_path), budget(flops=f"{HIGH}"))
    total = sum(flops <= HIGH for flops in FLOPS)
    scored = len(set(within) | {member for member in MEMBERS[:3] if SPACE.cost(member).flops <= HIGH})
    assert (str(more), more.complete) == (f"{scored} of {total} architectures within this budget were scored", False)


def test_what_failed_was_not_scored(tmp_path: Path) -> None:
    write_search(tmp_path / "a", [trial(member, failed=i < 4) for i, member in enumerate(MEMBERS)])
    answer = choose(read_scored(tmp_path), budget())
    assert str(answer) == "339 of 343 architectures within this budget were scored; 4 gave no score"
    write_search(tmp_path / "b", [trial(member) for member in MEMBERS[:4]])  # but another search could score them
    assert choose(read_scored(tmp_path), budget()).complete


def test_scores_on_fewer_images_come_behind(tmp_path: Path) -> None:
    write_search(tmp_path, [trial(member, num_images=200 if i % 20 == 0 else 40) for i, member in enumerate(MEMBERS)])
    answer = choose(read_scored(tmp_path), budget())
    num_images = answer.ranked["num_images"].tolist()
    assert num_images == [200] * 18 + [40] * 325
    assert not answer.complete
    assert str(answer) == "all 343 architectures within this budget were scored, 325 of them on fewer images"


def test_searches_are_put_together(tmp_path: Path) -> None:
    write_search(tmp_path / "b", [trial(member) for member in MEMBERS[:30]], seed=1)
    write_search(tmp_path / "a/0", [trial(member, num_images=40) for member in MEMBERS[20:60]], searcher="evolve")
    (tmp_path / "c").mkdir()
    shutil.copy(tmp_path / "b/history.csv", tmp_path / "c/history.csv")  # of no known search
    scored = read_scored(tmp_path)
    assert list(scored.searches) == ["a/0", "b"]
    assert scored.space == SPACE
    rows = scored.frame.set_index("layers")
    assert set(rows.index) == set(map(str, MEMBERS[:60]))
    for number, member in enumerate(MEMBERS[:60]):
        expected = trial(member) if number < 30 else trial(member, num_images=40)
        row = rows.loc[str(member)]
        assert (row["top1"], row["num_images"]) == (expected.top1, expected.num_images)
        assert row["search"] == ("b" if number < 30 else "a/0")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("supernet_sha256", "cd" * 32),
        ("space", replace(SPACE, cells=4)),
        ("search_split", {"dataset": "digits", "images": 300}),
        ("placements", 2),
    ],
)
def test_searches_of_different_supernets_are_refused(tmp_path: Path, key: str, value: Any) -> None:
    for name, changes in (("a", {}), ("b", {key: value}), ("c", {})):
        write_search(tmp_path / name, [trial(MEMBERS[0])], **changes)
    with pytest.raises(ValueError, match=rf"a, c; against b \({key}") as refusal:
        read_scored(tmp_path)
    assert f"pick {tmp_path / 'a'}" in str(refusal.value)
    assert len(read_scored(tmp_path / "b").frame) == 1


# ------------------------------------------------------------------------------------------------ beyond the searches


def test_it_says_what_the_searches_allowed(tmp_path: Path) -> None:
    """Unless one of them allowed every architecture that is within the budget."""
    low, middle = budget(flops=f"{LOW}"), budget(flops=f"{LOW}..{HIGH}")
    write_search(tmp_path / "a", [trial(MEMBERS[-1])], budget=low)
    write_search(tmp_path / "b", [trial(m) for m in MEMBERS if SPACE.cost(m).flops == HIGH], budget=middle)
    scored = read_scored(tmp_path)
    above = next(flops for flops in FLOPS if flops > HIGH)
    for config in ({"flops": f"{LOW}..{HIGH}"}, {"flops": f"{LOW}..{above - 1}"}, {"flops": f"{LOW + 1}..{HIGH}"}):
        assert choose(scored, budget(**config)).note is None
    for config in ({"flops": f"1..{HIGH}"}, {"flops": f"{LOW}..{above}"}, {}):
        note = choose(scored, budget(**config)).note
        assert note == f"no search allowed all of this budget; what they allowed is {low}; {middle}"


def test_a_search_within_a_latency_says_so(tmp_path: Path) -> None:
    limits = budget(latency="5us")
    inside = [member for member in MEMBERS if TABLE.predict(member) <= 5000]
    write_search(tmp_path, [trial(member) for member in inside[1:]], budget=limits)
    assert choose(read_scored(tmp_path), limits).note is None
    assert choose(read_scored(tmp_path), budget(latency="4us")).note is None
    beyond = choose(read_scored(tmp_path), budget(latency="6us"))
    assert beyond.note is not None
    assert "latency at most 5 us" in beyond.note


def test_nothing_within_the_budget_names_the_nearest(tmp_path: Path) -> None:
    trials = write_search(tmp_path, [trial(m, failed=i == 0) for i, m in enumerate(MEMBERS[::3])])
    taken = {t.flops for t in trials}
    gap = next(flops for flops in FLOPS if flops not in taken)
    nearest = min((t for t in trials if not t.failed), key=lambda t: max(1 - t.flops / gap, t.flops / gap - 1))
    count = FLOPS.count(gap)
    with pytest.raises(ValueError, match=f"none of the {count} architectures within FLOPs") as refusal:
        choose(read_scored(tmp_path), budget(flops=f"{gap}..{gap}"))
    assert f"{nearest.flops:,} FLOPs" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    with pytest.raises(ValueError, match="the space reaches"):
        choose(read_scored(tmp_path), budget(flops="1"))
    with pytest.raises(ValueError, match=r"ns? latency|us latency"):
        choose(read_scored(tmp_path), budget(flops=f"{gap}..{gap}", latency="9us"))


def test_all_failed(tmp_path: Path) -> None:
    write_search(tmp_path, [trial(member, failed=True) for member in MEMBERS[:5]])
    with pytest.raises(ValueError, match="retrain the supernet"):
        choose(read_scored(tmp_path), budget())


# ------------------------------------------------------------------------------------------------ files


def test_a_line_cut_short_does_not_count(tmp_path: Path) -> None:
    write_search(tmp_path, [trial(member) for member in MEMBERS[:20]])
    content = (tmp_path / "history.csv").read_bytes()
    (tmp_path / "history.csv").write_bytes(content[:-9])
    assert len(read_scored(tmp_path).frame) == 19


@pytest.mark.parametrize(
    ("old", "new"), [("number,layers", "no,layers"), (",200,", ",many,"), ("\n2,", "\n2,3,"), (None, "")]
)
def test_a_damaged_history_is_refused(tmp_path: Path, old: str | None, new: str) -> None:
    write_search(tmp_path, [trial(member) for member in MEMBERS[:20]])
    path = tmp_path / "history.csv"
    path.write_text(path.read_text().replace(old, new, 1) if old else new)
    with pytest.raises(ValueError, match=r"history\.csv is no search history") as refusal:
        read_scored(tmp_path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("record", ["{", "[]", "{}", json.dumps(RECORD.to_json() | {"space": {"cells": 3}})])
def test_a_damaged_record_is_refused(tmp_path: Path, record: str) -> None:
    write_search(tmp_path, [trial(MEMBERS[0])])
    (tmp_path / "history.json").write_text(record)
    with pytest.raises(ValueError, match=r"history\.json: .*; use another name= or out=, or move this folder away"):
        read_scored(tmp_path)


def test_no_search_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no folder"):
        read_scored(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no search"):
        read_scored(tmp_path)


# ------------------------------------------------------------------------------------------------ the command


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default project in the working directory, with two searches and a table of latencies."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["psvit-search"])
    folder = tmp_path / "runs/default"
    write_search(folder / "random", [trial(member) for member in MEMBERS[:200]])
    write_search(folder / "evolve", [trial(member) for member in MEMBERS[150:300]], searcher="evolve", seed=9)
    TABLE.save(folder / "latency.json")
    return folder


def test_table(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pick", "--flops", f"{HIGH}", "--latency", "5us", "--top", "4"]) == 0
    text = capsys.readouterr().out
    answer = choose(read_scored(project), budget(flops=f"{HIGH}", latency="5us"))
    rows = [line.split() for line in text.splitlines() if line.lstrip()[:1].isdigit() and "architectures" not in line]
    assert [row[1] for row in rows] == layers(answer)[:4]
    assert [row[0] for row in rows] == ["1", "2", "3", "4"]
    best = answer.ranked.iloc[0]
    scores = f"{best['top1']:.4f}  {best['loss']:.4f}"  # no interval: these images picked it
    assert scores in next(line for line in text.splitlines() if best["layers"] in line)
    assert "95" not in text
    assert rows[0][-1] == best["search"]
    assert str(answer) in text
    for part in ("small", "evolve, random", "cpu, 1 thread", "latency at most 5 us"):
        assert part in text
    assert main(["pick", str(project / "random"), "--flops", f"{HIGH}"]) == 0
    text = capsys.readouterr().out
    assert "evolve" not in text
    assert "latency" not in text


def test_json(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pick", "--params", "20K", "--json", "--top", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    answer = choose(read_scored(project), budget(params="20K"))
    assert found["architectures"] == answer.architectures
    assert (found["scored"], found["complete"]) == (len(answer.ranked), answer.complete)
    assert [row["layers"] for row in found["best"]] == layers(answer)[:2]
    assert not {"low", "high"} & found["best"][0].keys()
    assert (found["fresh"]["kind"], found["fresh"]["top1"]) == ("none", None)
    assert found["budget"] == budget(params="20K").to_json()


@pytest.mark.parametrize("limits", [{"flops": f"{HIGH}"}, {"latency": "5us"}])
def test_save_writes_the_best(project: Path, limits: dict[str, str]) -> None:
    pick(PickConfig(run=str(project), budget=BudgetConfig(**limits), save="best/arch.json"))
    arch = load_arch(Path("best/arch.json"))
    best = choose(read_scored(project), budget(**limits)).ranked.iloc[0]
    assert (str(arch.architecture), arch.spec) == (best["layers"], SPEC)
    assert (arch.cost.flops, arch.cost.params) == (best["flops"], best["params"])
    assert arch.provenance is not None
    assert arch.provenance["score"] == {"top1": best["top1"], "loss": best["loss"]}
    assert arch.provenance["budget"] == json.loads(json.dumps(budget(**limits).to_json()))
    assert arch.provenance["supernet_sha256"] == RECORD.supernet_sha256
    assert arch.provenance["scored"] == 300
    assert (arch.provenance["searcher"], arch.provenance["seed"]) == (
        ("evolve", 9) if best["search"] == "evolve" else ("random", 5)
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"table": "none.json"}, ["none.json", "psvit-search latency", "table="]),
        ({"table": "other.json"}, ["other.json", "network.widths"]),
        ({"save": "best.png"}, ["best.png", "arch.json"]),
        ({"run": "runs/nobody"}, ["runs/nobody"]),
    ],
)
def test_faults(project: Path, settings: dict[str, str], words: list[str]) -> None:
    other = replace(SPEC, widths=(8, 16, 48))
    replace(TABLE, conditions=replace(TABLE.conditions, network=other)).save(Path("other.json"))
    limits = BudgetConfig(latency="5us")
    with pytest.raises(ValueError, match=words[0]) as refusal:
        pick(PickConfig(**{"run": str(project), "budget": limits, **settings}))
    assert "\n" not in str(refusal.value)
    assert all(word in str(refusal.value) for word in words)


def test_at_least_one_is_shown() -> None:
    with pytest.raises(ValueError, match="top is 0"):
        PickConfig(top=0)


def test_a_table_is_found_beside_the_search(project: Path) -> None:
    limits = BudgetConfig(latency="5us")
    pick(PickConfig(run=str(project / "random"), budget=limits))
    (project / "latency.json").rename(project / "random/latency.json")
    pick(PickConfig(run=str(project / "random"), budget=limits))
    with pytest.raises(ValueError, match="psvit-search latency"):
        pick(PickConfig(run=str(project), budget=limits))


def test_it_does_without_torch(project: Path) -> None:
    code = (
        "import sys\nfrom psvit.cli.main import main\n"
        "assert main(['pick', '--flops', sys.argv[1], '--latency', '9us', '--save', 'a.json']) == 0\n"
        "assert not {'torch', 'matplotlib', 'scipy'} & sys.modules.keys()"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.run([sys.executable, "-c", code, str(HIGH)], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
