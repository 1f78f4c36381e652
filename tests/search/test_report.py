"""The page of a search: complete, closed to the outside, harmless, and there for unfinished runs too."""

import base64
import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from psvit.arch import Architecture
from psvit.cli.main import main
from psvit.run.files import sha256
from psvit.search.budget import Budget
from psvit.search.config import BudgetConfig, ReportConfig, SearchConfig, SearchRunConfig
from psvit.search.correlation import correlations
from psvit.search.front import pareto_front
from psvit.search.history import History, HistoryRecord
from psvit.search.latency import Conditions, LatencyTable
from psvit.search.records import RaceRecord, RankRecord, Round, SearchRecord
from psvit.search.report import report, report_search
from psvit.search.tables import FRONT, TOP
from psvit.search.trial import Trial
from psvit.supernet.space import SearchSpace
from psvit.units import Band
from psvit.zoo import SPACES
from tests.search.builders import claims, history_record, trained_once

SPACE = SearchSpace(SPACES["2d_mini_4"])
WINNER = "BS-BSS-BBS"
PNG = b"\x89PNG\r\n\x1a\n not a real one"
# what has no end tag, and what may load or run something
VOID = {"meta", "img", "br", "hr", "link", "input"}
ACTIVE = {"script", "iframe", "object", "embed", "link", "base", "form", "audio", "video", "svg", "input", "button"}


class Page(HTMLParser):
    """The tags, attributes and text of a page whose every tag is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, key, value) for key, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag in ("td", "th", "small"):
            self.text += " "

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


RECORD = history_record(
    supernet_sha256="5upe7ne7",
    space=SPACE,
    search_split={"dataset": "digits", "seed": 0, "fraction": 0.1, "images": 90, "sha256": "5p117"},
    num_images=90,
    seed=3,
    budget=Budget(Band(high=4_000_000)),
)


CLAIMS = claims(num_images=90)


def trial(layers: str, top1: float, loss: float, num_images: int = 90) -> Trial:
    architecture = Architecture.parse(layers)
    cost = SPACE.cost(architecture)
    return Trial(architecture, cost.flops, cost.params, top1, loss, num_images, generation=0)


def write_history(path: Path, trials: list[Trial], record: HistoryRecord = RECORD) -> None:
    History(path, record).append(trials)


def write_result(folder: Path) -> None:
    """A ``result.json``, of which the page takes the winner's layers."""
    cost = SPACE.cost(Architecture.parse(WINNER))
    SearchRecord(
        layers=WINNER,
        flops=cost.flops,
        params=cost.params,
        path="BSIIII-BSSIII-BBSIII",
        top1=83 / 90,
        loss=0.25,
        num_images=90,
        scored=55,
        failed=25,
        claims=CLAIMS,
        search=RECORD,
        tool="psvit-search 0.1.0",
    ).save(folder / "result.json")


@pytest.fixture
def trials() -> list[Trial]:
    """The winner, 29 that are worse, and 25 that failed."""
    within = SPACE.within()
    drawn = np.random.default_rng(0).choice(within.count, 54, replace=False)
    layers = [str(within.unrank(int(number))) for number in drawn]
    assert not {WINNER, "B-B-B", "BBB-B-B"} & set(layers)
    scored = [trial(name, 0.9 - 0.01 * (number // 2), 0.3 + number / 100) for number, name in enumerate(layers[:29])]
    failed = [trial(name, math.nan, math.nan) for name in layers[29:]]
    return [*scored[:7], trial(WINNER, 83 / 90, 0.25), *scored[7:], *failed]


@pytest.fixture
def bare(tmp_path: Path, trials: list[Trial]) -> Path:
    """A run folder with nothing but its history."""
    folder = tmp_path / "runs" / "digits" / "random-4M"
    write_history(folder / "history.csv", trials)
    return folder


@pytest.fixture
def config(bare: Path) -> SearchRunConfig:
    settings = SearchConfig(budget=BudgetConfig("4M"), searcher="random", trials=55, mutation=0.25)
    return SearchRunConfig(out=str(bare), supernet="runs/it's [1]/supernet", seed=3, search=settings)


@pytest.fixture
def whole(bare: Path, trials: list[Trial], config: SearchRunConfig) -> Path:
    """A run folder with all files that a search and a ranking may write."""
    scored = [each for each in trials if not each.failed]
    best = sorted(scored, key=lambda each: each.sort_key("loss"))[:20]
    rng = np.random.default_rng(0)
    fresh = ("fresh_top1", "fresh_low", "fresh_high", "fresh_loss", "behind", "behind_low", "behind_high")
    rows = pd.DataFrame([each.row(place) | {"place": place} for place, each in enumerate(best, start=1)])
    TOP.write(bare / "top.csv", rows.assign(**dict(zip(fresh, rng.random((7, 20)), strict=True)))[list(TOP.columns)])
    FRONT.write(bare / "front.csv", pareto_front(History(bare / "history.csv").frame()))
    write_history(
        bare / f"baseline_{WINNER}.csv",
        [trial("BS-BS-B", 0.88, 0.3), trial("B-BS-BS", 0.93, 0.3), trial("B-B-BSS", 0.86, 0.3)],
    )
    write_result(bare)
    (bare / "command.txt").write_text("psvit-search random --flops 4M seed=3\n")
    rounds = (Round(36, 36, 4450, 1211), Round(54, 90, 1211, 1211))
    RaceRecord(0.95, 1, rounds, 250_000_000, 1_000_000_000, 0.4).save(bare / "race.json")
    (bare / "config.yaml").write_text(yaml.safe_dump(asdict(config), sort_keys=False))
    (bare / "versions.json").write_text('{"psvit-search": "0.1.0", "torch": "2.99.9"}')
    for name in ("scores", "progress", "architecture"):
        (bare / f"{name}.png").write_bytes(PNG + name.encode())
    names = ("inherited_top1", "inherited_loss", "standalone_top1", "standalone_loss")
    frame = pd.DataFrame(rng.random((9, 4)), columns=list(names)).assign(flops=range(9), layers=list("abcdefghi"))
    for rank, supernet in (("rank", "5upe7ne7"), ("rank-4M", "another")):
        folder = bare.parent / rank
        folder.mkdir()
        shown = frame if rank == "rank" else frame.head(5)
        figures = correlations(shown, trained_once(shown), seed=0)
        inherited = replace(RECORD, supernet_sha256=supernet, searcher="rank")
        RankRecord(figures, inherited, "runs/supernet", None, 100, {}, "cpu", {}).save(folder / "rank.json")
        (folder / "rank.png").write_bytes(PNG + rank.encode())
    return bare


def read(folder: Path) -> Page:
    page = report(folder)
    assert page == folder / "report.html"
    return Page(page.read_text(encoding="utf-8"))


def test_the_page_is_closed_to_the_outside(whole: Path) -> None:
    page = read(whole)
    assert not ACTIVE & set(page.tags)
    addresses = [value for _, key, value in page.attributes if key in ("src", "href", "srcset", "action", "data")]
    assert addresses
    assert all(address and address.startswith("data:image/png;base64,") for address in addresses)
    assert not [key for _, key, _ in page.attributes if key.startswith("on") or key == "style"]
    html = (whole / "report.html").read_text()
    assert "http:" not in html
    assert "https:" not in html
    assert "url(" not in html
    assert "@import" not in html
    policy = {value for tag, key, value in page.attributes if (tag, key) == ("meta", "content")}
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in policy


def test_pictures_are_in_the_page_and_described(whole: Path) -> None:
    page = read(whole)
    shown = [value for tag, key, value in page.attributes if (tag, key) == ("img", "src")]
    pictures = [base64.b64decode(str(value).partition(",")[2]) for value in shown]
    assert pictures == [PNG + name for name in (b"scores", b"progress", b"architecture", b"rank")]
    described = [value for tag, key, value in page.attributes if (tag, key) == ("img", "alt")]
    assert len(described) == 4
    assert all(described)


def test_what_it_says(whole: Path, config: SearchRunConfig) -> None:
    text = " ".join(read(whole).text.split())
    within = SPACE.within(flops=Band(high=4_000_000)).count
    best = next(each for each in History(whole / "history.csv").trials if str(each.architecture) == WINNER)
    for fact in (
        f"{WINNER}: FLOPs at most 4 M",
        "250,047",
        f"{within:,} (",
        f"{30:,} ({30 / within:.1%}".replace("%", " %"),
        f"{best.flops:,} multiply-adds per image",
        f"{best.params:,}",
        "0.9125 95 % interval 0.8900 to 0.9300",
        "0.2500 95 % interval 0.2000 to 0.3000",
        "and did not choose the winner. Architectures are ranked by loss.",
        *(f"{line[0].upper()}{line[1:]}." for line in CLAIMS.lines),
        "a Kendall's tau of 0.72 by loss and 0.61 by top-1",
        "4,450 3,239 1,211",
        "250 M multiply-adds instead of 1 G: 75.0 % saved",
        "40.0 % of the images",
        "Kendall's tau",
        "9 architectures of this supernet were each trained alone (run folder rank)",
        "psvit-search random --flops 4M seed=3",
        "5upe7ne7",
        "5p117",
        "2.99.9",
        "mutation: 0.25",
        *(f"{name} {sha256(whole / name)}" for name in ("history.csv", "history.json", f"baseline_{WINNER}.csv")),
    ):
        assert fact in text, fact
    assert "not there yet" not in text
    assert "trained alone (run folder rank-4M)" not in text  # of another supernet


def test_tables(whole: Path, trials: list[Trial]) -> None:
    text = " ".join(read(whole).text.split())
    failed = [str(each.architecture) for each in trials if each.failed]
    assert f"25: {', '.join(failed[:20])} and 5 more in history.csv" in text
    top, front = TOP.read(whole / "top.csv"), FRONT.read(whole / "front.csv")
    assert len(top) == 20
    for row in top.itertuples():
        assert f"parameters {row.top1:.4f} {row.loss:.4f} {row.fresh_top1:.4f}{row.fresh_low:.4f} to " in text
        assert f"{row.fresh_high:.4f} {row.fresh_loss:.4f} " in text
        assert (f"{row.behind:.4f}{row.behind_low:.4f} to {row.behind_high:.4f}" in text) == (row.place > 1)
    assert all(f"{row.top1:.4f} {row.loss:.4f}" in text for row in front.itertuples())
    assert "more rows are in front.csv" not in text
    FRONT.write(whole / "front.csv", pd.concat([front] * 31).head(31))
    assert "1 more rows are in front.csv" in " ".join(read(whole).text.split())


def test_a_run_that_has_just_begun(bare: Path) -> None:
    page = read(bare)
    text = " ".join(page.text.split())
    assert "This search has not finished" in text
    assert f"{WINNER}: FLOPs at most 4 M" in text
    assert text.count("not there yet") >= 7
    assert f"{83 / 90:.4f}on the images that chose it" in text
    assert "95 % interval" not in text  # these images cannot say how good it is
    assert "img" not in page.tags


def test_a_run_without_any_score(tmp_path: Path) -> None:
    write_history(tmp_path / "history.csv", [trial("B-B-B", math.nan, math.nan)])
    assert "No winner yet" in read(tmp_path).text


def test_a_history_alone(bare: Path) -> None:
    """Of a run whose history.json was lost: no space, no budget."""
    (bare / "history.json").unlink()
    text = " ".join(read(bare).text.split())
    assert "Budget not recorded" in text
    assert WINNER in text


def test_those_dropped_in_a_race_are_not_compared(bare: Path) -> None:
    history = History(bare / "history.csv")
    history.append([trial("BBB-B-B", 1.0, 0.01, num_images=36)])
    text = " ".join(read(bare).text.split())
    assert f"{WINNER}: FLOPs" in text
    assert "90; 1 architectures were scored on fewer" in text


def test_a_search_that_has_gone_on(whole: Path) -> None:
    History(whole / "history.csv").append([trial("BBB-B-B", 0.99, 0.01)])
    text = " ".join(read(whole).text.split())
    assert "BBB-B-B: FLOPs" in text
    assert "run the same search again to redraw them" in text
    assert "What images that did not choose the winner say of it (result.json): not there yet" in text


def test_a_budget_of_latency(tmp_path: Path, trials: list[Trial]) -> None:
    conditions = Conditions("<b>GPU</b>", 0, 1, "bf16", "2.99.9", SPACE.spec)
    table = LatencyTable(conditions, 100_000, (70_000, 60_000, 50_000), (40_000, 30_000, 20_000))
    budget = Budget(latency=Band(high=600_000), table=table)
    write_history(tmp_path / "history.csv", trials, replace(RECORD, budget=budget))
    text = " ".join(read(tmp_path).text.split())
    counts = [
        100_000 + sum(b * 10_000 * (7 - i) + s * 10_000 * (4 - i) for i, (b, s) in enumerate(each.counts))
        for each in SPACE.within()
    ]
    assert f"{sum(count <= 600_000 for count in counts):,} (" in text
    assert "latency at most 600 us" in text
    predicted = 100_000 + 110_000 + (60_000 + 2 * 30_000) + (2 * 50_000 + 20_000)
    assert f"{predicted / 1000:g} us" in text
    assert "Of a forward pass on <b>GPU</b>, batch 1, bf16" in text


def test_nothing_in_a_file_becomes_part_of_the_page(whole: Path) -> None:
    """The run may be a stranger's."""
    evil = "<script>alert(1)</script>\"'><img src=http://x onerror=alert(1)>"
    before = read(whole).tags
    config = yaml.safe_load((whole / "config.yaml").read_text()) | {"name": evil, "supernet": f"</pre>{evil}"}
    (whole / "config.yaml").write_text(yaml.safe_dump(config, width=1000))
    (whole / "versions.json").write_text(json.dumps({"torch": evil}))
    write_result(whole)
    (whole / "command.txt").write_text(f"{evil}\n")
    space = replace(SPACE, spec=replace(SPACE.spec, name=evil))
    record = replace(RECORD, searcher=evil, supernet_sha256=evil, search_split={evil: evil}, space=space)
    record.save(whole / "history.json")
    for name, table in (("top", TOP), ("front", FRONT)):
        table.write(
            whole / f"{name}.csv", table.read(whole / f"{name}.csv").assign(layers="<script>-\"'>-<b onclick=x>")
        )
    page = read(whole)
    assert "script" not in page.tags
    assert not [key for _, key, _ in page.attributes if key.startswith("on")]
    assert page.tags.count("img") == 3  # those of before, less the ranking of what is now another supernet
    assert before.count("img") == 4
    assert evil in page.text


def test_a_search_that_no_command_has_started(whole: Path) -> None:
    (whole / "command.txt").unlink()
    text = " ".join(read(whole).text.split())
    assert "psvit-search random" not in text
    assert "Command:" not in text
    assert "not there yet" not in text


def test_a_history_that_has_lost_rows_is_named(whole: Path) -> None:
    lines = (whole / "history.csv").read_text().splitlines(keepends=True)
    (whole / "history.csv").write_text("".join(lines[:-1]))
    with pytest.raises(
        ValueError, match=rf"history.csv has {len(lines) - 2:,} of the {len(lines) - 1:,} architectures"
    ):
        report(whole)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("result.json", "{", "result.json: cannot be read as JSON .*; run the same search again to rewrite it"),
        ("result.json", '{"layers": "B-B-B"}', r"result.json: \$\.format: is missing; run the same search again"),
        (
            "race.json",
            '{"format": "psvit-race", "version": 9}',
            r"race.json: \$\.version: is 9; .*: update psvit-search",
        ),
        ("history.json", "[]", r"history.json: \$: is \[\]; it must be an object; use another name= or out="),
        ("versions.json", "[]", r"versions.json: \$: is \[\]; it must be an object; run the same search again"),
        ("top.csv", "place,layers\n1,B-B-B\n", "top.csv is no table of the best: its first line must be place,layers,"),
        ("front.csv", "", r"front.csv is no Pareto front \(.*\); run the same search again"),
    ],
)
def test_a_damaged_file_is_named(whole: Path, name: str, content: str, message: str) -> None:
    (whole / name).write_text(content)
    with pytest.raises(ValueError, match=message) as refusal:
        report(whole)
    assert "\n" not in str(refusal.value)


def test_a_damaged_ranking_beside_it_is_named_on_the_page(whole: Path) -> None:
    (whole.parent / "rank/rank.json").write_text("{}")
    text = " ".join(read(whole).text.split())
    assert "rank.json: $.format: is missing; run the same psvit-search rank again to rewrite it" in text
    assert "trained alone (run folder rank)" not in text


def test_the_same_files_give_the_same_page(whole: Path) -> None:
    first = report(whole).read_bytes()
    assert report(whole).read_bytes() == first


@pytest.mark.parametrize("ask", [lambda folder: str(folder), lambda folder: None])
def test_finding_the_search(bare: Path, ask: Callable[[Path], str | None], capsys: pytest.CaptureFixture[str]) -> None:
    page = report_search(ReportConfig(ask(bare), str(bare.parent.parent), "digits"))
    assert page == bare / "report.html"
    assert capsys.readouterr().out == f"wrote {page}\n"


def test_bad_input(bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = str(bare.parent.parent)
    (bare.parent / "supernet").mkdir()
    (bare.parent.parent / "empty").mkdir()
    for run, name, words in (
        (str(bare.parent / "supernet"), "x", "holds no search: there is no history.csv"),
        (None, "empty", "run psvit-search evolve first"),
        (None, "nothing", "there is no folder"),
        (str(bare.parent), "x", f"with one of {bare}"),
    ):
        with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
            report_search(ReportConfig(run, runs, name))
        assert words in str(error.value)
    write_history(bare.parent / "evolve" / "history.csv", [])
    (bare.parent / "evolve" / "history.csv").write_text((bare / "history.csv").read_text())
    with pytest.raises(ValueError, match=rf"with one of {bare.parent / 'evolve'}, {bare}$"):
        report_search(ReportConfig(None, runs, "digits"))
    with pytest.raises(ValueError, match=r"supernet holds no search"):
        report(bare.parent / "supernet")
    assert main(["report", str(bare.parent / "supernet")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
