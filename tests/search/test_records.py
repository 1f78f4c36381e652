"""The JSON files of a search: each is read back as it was written, and its faults are named."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from psvit.data.record import DataRecord, Listed
from psvit.run.records import Record
from psvit.search.config import BudgetConfig
from psvit.search.correlation import Correlation, Correlations, Estimate, Noise
from psvit.search.records import RaceRecord, RankRecord, Round, SearcherRecord, SearchRecord, StandaloneTable
from tests.search.builders import SMALL, claims, history_record

SEARCH = SearchRecord(
    layers="BS-B-B",
    flops=10,
    params=20,
    path="BSI-BII-BII",
    top1=0.5,
    loss=1.25,
    num_images=200,
    scored=30,
    failed=2,
    claims=claims(),
    search=history_record(),
    tool="psvit-search 0.1.0",
)
RACE = RaceRecord(0.95, 2, (Round(36, 36, 27, 9), Round(54, 90, 9, 9)), 250, 1000, 0.4)
PAIR = Correlation(Estimate(0.5, 0.25, 0.75), Estimate(None, None, None))
NOISE = Noise(9, 0.01, 0.02, 0.75)
RANK = RankRecord(
    correlations=Correlations(9, 0, PAIR, PAIR, PAIR, NOISE, None, PAIR.tau, PAIR.tau, 1, "B-B-B", "BB-B-B", "loss", 0),
    inherited=history_record(searcher="rank"),
    supernet="runs/default/supernet/supernet.safetensors",
    against=None,
    num_train_images=1000,
    recipe={"epochs": 3, "augment": {"flip": 0.5}},
    device="cpu",
    versions={"torch": "2.99"},
)
STANDALONE = StandaloneTable(
    SMALL, DataRecord("digits", ("a", "b"), {"train": Listed(3, (1, 2), "ab")}, {}), "search", {"epochs": 3}
)
SEARCHER = SearcherRecord(BudgetConfig("5M", latency="2ms"), "evolve", "too many to score them all")
RACED = replace(SEARCH, claims=claims(reliability=None, tied=None, cheapest=None, cheapest_flops=None, place=None))
RECORDS = [SEARCH, RACED, RACE, RANK, STANDALONE, SEARCHER]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.format)
def test_a_record_survives_its_file(record: Record, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    record.save(path)
    assert type(record).load(path) == record
    document = json.loads(path.read_text())
    assert (document["format"], document["version"]) == (record.format, 1)
    path.write_text(json.dumps(document | {"version": 2}))
    with pytest.raises(ValueError, match=r"record\.json: \$\.version: is 2; .*: update psvit-search"):
        type(record).load(path)


def test_formats_are_told_apart(tmp_path: Path) -> None:
    assert len({record.format for record in RECORDS}) == len({type(record) for record in RECORDS})
    RACE.save(tmp_path / "race.json")
    with pytest.raises(ValueError, match=r"\$\.format: is 'psvit-race'; it must be \"psvit-search-result\""):
        SearchRecord.load(tmp_path / "race.json")


@pytest.mark.parametrize(
    ("record", "change", "message"),
    [
        (SEARCH, {"claims": 3}, r"\$\.claims: is 3; it must be an object; run the same search again"),
        (SEARCH, {"search": {"format": "x", "version": 1}}, r"\$\.search\.format: is 'x'"),
        (RACE, {"rounds": [{"num_images": 1}]}, r"\$\.rounds\[0\]\.architectures: is missing"),
        (RACE, {"full_flops": 0}, r"\$: full_flops is 0; it must be at least 1"),
        (RANK, {"correlations": None}, r"\$\.correlations: is None; .*; run the same psvit-search rank again"),
        (SEARCHER, {"budget": {"flops": 5}}, r"\$\.budget\.flops: is 5; it must be a string; delete it, and"),
    ],
)
def test_faults_are_refused_by_their_place(
    record: Record, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / "record.json").write_text(json.dumps(record.to_json() | change))
    with pytest.raises(ValueError, match=message):
        type(record).load(tmp_path / "record.json")


def test_what_a_race_saved() -> None:
    assert RACE.saved == 0.75
