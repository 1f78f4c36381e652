"""psvit-search paper: every table, and what is measured beside it."""

import csv
import io
import json
import re
import shlex
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from torchvision import models

from psvit.cli.arguments import parse
from psvit.cli.commands import COMMANDS
from psvit.cli.compose import composer
from psvit.cli.main import main
from psvit.cost import network_cost
from psvit.data.config import DataConfig
from psvit.engine.config import Recipe
from psvit.paper import ablate
from psvit.paper.ablate import AblateConfig, ScaleConfig
from psvit.paper.published import ABLATIONS, DETECTION, IMAGENET
from psvit.paper.results import OF_ROWS, Found, cost_of, read_runs
from psvit.paper.tables import NEEDS_COCO, NEEDS_IMAGENET, UNKNOWN, WHY, Table, make_tables, markdown
from psvit.retrain.config import RetrainConfig
from psvit.retrain.results import DetectRecord
from psvit.retrain.train import retrain
from psvit.run.files import write_text
from psvit.units import format_quantity
from psvit.zoo import NETWORKS

DOCS = Path(__file__).parents[2] / "docs/paper.md"
GENERATED = "<!-- the rest is what psvit-search paper --save DIR writes to DIR/paper.md, from its first table on -->\n"

Retrained = Callable[..., Path]


@pytest.fixture(scope="module")
def tables() -> dict[str, Table]:
    """All tables where nothing was measured."""
    return {table.name: table for table in make_tables(Found())}


@pytest.fixture(scope="module")
def of_digits(tmp_path_factory: pytest.TempPathFactory, quick: Recipe) -> dict[str, Any]:
    """What retrain writes into a result.json."""
    recipe = replace(quick, epochs=1, warmup_epochs=0, batch_size=1438)
    made = retrain(RetrainConfig(arch="deit_mini_4", out=str(tmp_path_factory.mktemp("run")), recipe=recipe))
    result: dict[str, Any] = json.loads((made.folder / "result.json").read_text())
    return result


@pytest.fixture
def retrained(of_digits: dict[str, Any], tmp_path: Path) -> Retrained:
    """A function that writes such a result as ImageNet would give it; whatever it changes must be there already."""

    def write(folder: str, network: str, top1: float, /, **changed: Any) -> Path:
        _, layers = NETWORKS.get(network, (None, None))
        cost = cost_of(network)
        values = {"network": network, "layers": layers and str(layers), "top1": top1, "epochs": 300}
        values |= {"data": "imagenet", "num_test_images": 50_000, "flops": cost.flops, "params": cost.params}
        values |= changed
        assert values.keys() <= of_digits.keys()
        path = tmp_path / folder / "result.json"
        write_text(path, json.dumps(of_digits | values))
        return path

    return write


def column(table: Table, heading: str) -> dict[str, Any]:
    """A column's cells by the first cell of their rows."""
    at = [*table.columns].index(heading)
    return {str(row[0]): row[at] for row in table.rows}


def by_name(found: Found) -> dict[str, Table]:
    return {table.name: table for table in make_tables(found)}


# ---------------------------------------------------------------------------------------------- figures


def test_every_row_is_counted_and_what_does_not_agree_is_explained(tables: dict[str, Table]) -> None:
    differ: set[str] = set()
    for name, table in tables.items():
        if "agrees" not in table.columns:
            continue
        agrees, flops, params = (column(table, heading) for heading in ("agrees", "FLOPs here", "params here"))
        for row, mark in agrees.items():
            assert bool(mark) == isinstance(flops[row], int) == isinstance(params[row], int)
            assert mark in ("", "yes") or any(note.startswith(f"{mark} ") for note in table.notes)
        differ |= {f"{name}: {row}" for row, mark in agrees.items() if mark.startswith("[")}
        assert not any(UNKNOWN in note for note in table.notes)
    assert differ == {
        *("imagenet: PSViT-1D-Tiny", "imagenet: ResNeXt50-32x4d", "imagenet: ResNeXt101-64x4d"),
        *("ablation-components: token pooling, 1D", "ablation-pooling: wider: widths 192, 288, 384"),
        *("ablation-pooling: wider: widths 192, 256, 384", "ablation-pooling_kind: convolution"),
        *("ablation-pooling_kind: maximum, then a linear map", "ablation-pooling_kind: average, then a linear map"),
    }
    explained = {note for table in tables.values() for note in table.notes}
    assert all(any(note.endswith(why) for note in explained) for why in WHY.values()), "an explanation without a row"


def test_the_reason_given_for_resnexts_counts_as_it_says() -> None:
    """Two operations an element of a batch norm and one of a ReLU, counted by hooks on torchvision's modules."""
    counted = []
    for row in IMAGENET:
        if not str(row.network).startswith("torchvision:"):
            continue
        total = 0

        def count(module: nn.Module, _: Any, output: torch.Tensor) -> None:
            nonlocal total
            if isinstance(module, nn.Conv2d):
                total += output.numel() * module.weight[0].numel()
            elif isinstance(module, nn.Linear):
                total += module.weight.numel()
            elif isinstance(module, nn.BatchNorm2d | nn.ReLU):
                total += output.numel() * (2 if isinstance(module, nn.BatchNorm2d) else 1)

        with torch.device("meta"):
            network = models.get_model(str(row.network).partition(":")[2]).eval()
            for module in network.modules():
                module.register_forward_hook(count)
            network(torch.empty(1, 3, 224, 224))
        assert f"{total / 1e9:.1f}" == row.flops
        counted.append(f"{total / 1e9:.2f}")
    text = ", ".join(counted[:-1]) + f" and {counted[-1]} G"
    assert text == "1.82, 4.12, 4.27 and 15.55 G"
    assert text in WHY["torchvision:resnext50_32x4d"]


@pytest.mark.parametrize(
    ("network", "kernel", "figure"),
    [("wider", 3, "1.2488 G"), ("wider", 5, "1.271 G"), ("wider_256", 3, "1.16 G"), ("wider_256", 5, "1.18 G")],
)
def test_the_reasons_given_for_the_wider_rows_count_as_they_say(network: str, kernel: int, figure: str) -> None:
    spec, layers = NETWORKS[f"deit_tiny_16_{network}"]
    flops = network_cost(replace(spec, pool_kernel=kernel), layers).flops
    digits = len(figure.partition(".")[2]) - 2
    assert f"{flops / 1e9:.{digits}f} G" == figure
    assert figure in WHY[f"deit_tiny_16_{network}"]


def test_what_needs_no_data_is_counted(tables: dict[str, Table]) -> None:
    here = column(tables["checks"], "here")
    assert list(here.values())[:2] == ["48,228,544", "250,047"]
    members = {"1d_tiny_8": "2,796", "1d_small_8": "311", "1d_small_16": "103", "2d_tiny_8": "5,233"}
    found = {what.split()[2]: count for what, count in here.items() if what.startswith("architectures of")}
    assert members.items() <= found.items()
    assert here["architectures of 1d_tiny_16 that round to 15.6 M and 1.3 G"] == "960"
    for row in tables["checks"].rows:
        assert row[1] in (None, row[2]), row


def test_whose_the_widths_are(tables: dict[str, Table]) -> None:
    widths = column(tables["networks"], "widths are")
    papers = {name for name, whose in widths.items() if whose == "the paper's"}
    spaces = ("1d_tiny_8", "1d_tiny_16", "1d_small_8", "1d_small_16")
    assert papers == {*(f"psvit_{space}" for space in spaces), "deit_tiny_16_deeper", "deit_tiny_16_wider_256"}
    assert {name for name, whose in widths.items() if whose == "ours"} >= {"psvit_2d_tiny_8", "psvit_1d_base_8"}


# ---------------------------------------------------------------------------------------------- measured


def test_nothing_is_measured_without_runs(tables: dict[str, Table], tmp_path: Path) -> None:
    for name, table in tables.items():
        if "top-1 here" in table.columns:
            assert set(column(table, "top-1 here").values()) == {NEEDS_IMAGENET}, name
    runs = [row[-1] for row in tables["detection"].rows if row[2] == "here"]
    assert runs == [NEEDS_COCO] * 2 * len(DETECTION)
    assert read_runs(tmp_path / "nowhere") == Found()


def test_seeds_are_averaged_beside_their_row(retrained: Retrained, tmp_path: Path) -> None:
    top1 = [0.7212, 0.7231, 0.7254]
    for seed, value in enumerate(top1):
        retrained(f"a/{seed}", "deit_tiny_16", value, seed=seed)
    retrained("b", "torchvision:resnet18", 0.6976, layers=None, data="packed")
    retrained("short", "deit_tiny_16", 0.5, epochs=5)
    searched = {"network": "1d_tiny_16", "layers": "BSB-BBB-B", "flops": 1_000_000_000, "params": 10_000_000}
    retrained("searched", "deit_tiny_16", 0.75, **searched)
    found = read_runs(tmp_path)
    tables = by_name(found)
    here = column(tables["imagenet"], "top-1 here")
    mean, spread = 100 * statistics.fmean(top1), 100 * statistics.stdev(top1)
    assert here.pop("DeiT-Tiny") == f"{mean:.2f} ± {spread:.2f} (3 x 300 epochs)" == "72.32 ± 0.21 (3 x 300 epochs)"
    assert here.pop("ResNet18") == "69.76 (300 epochs)"
    assert set(here.values()) == {NEEDS_IMAGENET}
    assert column(tables["ablation-sharing"], "top-1 here")["none: DeiT-Tiny"].startswith("72.32 ± 0.21")
    assert tables["further"].rows == [["1d_tiny_16", "BSB-BBB-B", 10**7, 10**9, "75.00 (300 epochs)"]]
    assert found.left_out == [
        f"{tmp_path / 'short/result.json'}: deit_tiny_16 was trained for 5 epochs, elsewhere for 300"
    ]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"teacher": "timm:regnety_160"}, "it learned from a teacher, 'timm:regnety_160'"),
        ({"start": "w.safetensors"}, "it started from trained weights"),
        ({"trained_on": "train"}, "it was not trained on all training images"),
        ({"num_test_images": 5000}, "it was tested on 5,000 images, but ImageNet-1k has 50,000"),
        ({"layers": "BB"}, "its layers are BB, and deit_tiny_16 has BBBBBBBBBBBB"),
        ({"flops": 7}, "its classes or image size are not those of deit_tiny_16"),
        ({"top1": 72.2}, "top1 is 72.2; it must be a fraction between 0 and 1"),
        ({"top1": float("nan")}, "top1 is nan"),
        ({"epochs": None}, "$.epochs: is None; it must be a whole number"),
        ({"network": "a\x1b[2Jb"}, "network is 'a\\x1b[2Jb'; it must be a string"),
    ],
)
def test_what_is_not_the_row_is_left_out_in_a_line(
    retrained: Retrained, tmp_path: Path, changed: dict[str, Any], why: str
) -> None:
    path = retrained("run", "deit_tiny_16", changed.pop("top1", 0.7), **changed)
    found = read_runs(tmp_path)
    assert found.results == []
    (line,) = found.left_out
    assert line.startswith(f"{path}: {why}")
    assert "\n" not in line


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_files_that_cannot_be_read_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/result.json").write_bytes(content)
    (tmp_path / "run/table-sharing.json").write_bytes(content)
    found = read_runs(tmp_path)
    assert [line.partition(":")[0].rpartition("/")[2] for line in found.left_out] == [
        "result.json",
        "table-sharing.json",
    ]


def test_results_of_other_data_are_passed_over(retrained: Retrained, tmp_path: Path) -> None:
    retrained("digits", "deit_tiny_16", 0.9, data="digits", num_test_images=359)
    retrained("packed", "deit_tiny_16", 0.9, data="packed", num_test_images=359)
    write_text(tmp_path / "search/result.json", json.dumps({"format": "psvit-search-result", "version": 1}))
    write_text(tmp_path / "ablate-digits/table-sharing.json", json.dumps({"scale": "digits", "rows": []}))
    assert read_runs(tmp_path) == Found()


def test_results_without_a_format_are_left_out(tmp_path: Path) -> None:
    """As older versions wrote them."""
    write_text(tmp_path / "result.json", json.dumps({"data": "imagenet", "top1": 0.9}))
    (line,) = read_runs(tmp_path).left_out
    assert line == f"{tmp_path / 'result.json'}: $.format: is missing; start the command that wrote it again"


def test_tables_of_ablate_are_read(retrained: Retrained, tmp_path: Path) -> None:
    """By ablate's own code, from results that it would have trained; these count once, a training apart again."""
    out = tmp_path / "project/ablate-imagenet"
    scale = ScaleConfig(name="imagenet", network="deit_tiny_16", search_1d="1d_tiny_16", search_2d="2d_tiny_8")
    config = AblateConfig(table="components", scale=scale, seeds=[0, 1], out=str(out), data=DataConfig(name="imagenet"))
    top1 = {
        row.variant: [0.7 + 0.01 * number, 0.71 + 0.01 * number] for number, row in enumerate(ABLATIONS["components"])
    }
    tasks = [ablate.training(config, variant, seed) for variant in top1 for seed in config.seeds]
    for task in tasks:
        value = top1[task.variant][task.seed]
        folder = str(task.folder.relative_to(tmp_path))
        if task.variant.startswith("search"):
            network, layers = ("1d_tiny_16", "BB-BB-BB") if task.variant == "search_1d" else ("2d_tiny_8", "B-B-B")
            found = {"network": network, "layers": layers, "flops": 10**9 + task.seed, "params": 10**7}
            retrained(f"{folder}/retrain", "deit_tiny_16", value, **found)
        else:
            network = "deit_tiny_16" if task.variant == "none" else f"deit_tiny_16_{task.variant}"
            retrained(folder, network, value)
    ablate.write_table(ablate.make_table("components", ABLATIONS["components"], tasks, config), out)
    retrained("apart", "deit_tiny_16_both", 0.80)
    found_runs = read_runs(tmp_path)
    assert found_runs.left_out == []
    tables = by_name(found_runs)
    here = column(tables["ablation-components"], "top-1 here")
    for row in ABLATIONS["components"]:
        values = [*top1[row.variant], *([0.80] if row.variant == "both" else [])]
        mean, spread = 100 * statistics.fmean(values), 100 * statistics.stdev(values)
        assert here[row.label] == f"{mean:.2f} ± {spread:.2f} ({len(values)} x 300 epochs)"
    assert column(tables["ablation-components"], "FLOPs here")["all with search, 1D"] == 10**9 + 1
    # rows that other tables share with this one were trained, though these tables were not asked for
    assert column(tables["ablation-pooling"], "top-1 here")["deeper: widths 192, 192, 192"] == NEEDS_IMAGENET
    table = json.loads((out / "table-components.json").read_text())
    for corrupt, why in (
        (table | {"rows": 3}, "has no rows"),
        (table | {"rows": [{**table["rows"][0], "top1": 0.7}]}, "the row none has no top1 by seed"),
        (table | {"test_images": 100}, "it was tested on 100 images"),
    ):
        write_text(out / "table-components.json", json.dumps(corrupt))
        (line,) = read_runs(tmp_path).left_out
        assert why in line


def detector(**changed: Any) -> str:
    """The text of a result.json of ``detect train``."""
    figures = {"AP": 0.401, "AP50": 0.6, "AP75": 0.43, "APs": None, "APm": 0.4, "APl": 0.5}
    fields: dict[str, Any] = {
        "network": "psvit_2d_tiny_8",
        "layers": str(NETWORKS["psvit_2d_tiny_8"][1]),
        "data": "coco",
        "box": figures,
        "mask": figures,
        "num_val_images": 5000,
        "num_images": 118_287,
        "classes": 80,
        "epochs": 12,
        "min_sizes": (800,),
        "max_size": 1333,
        "seed": 0,
        "start": None,
        "params": 10**7,
        "weights_sha256": "ab",
        "tool": "psvit-search 0",
    }
    return json.dumps(DetectRecord(**fields | changed).to_json())


def test_detectors_stand_beside_their_row(tmp_path: Path) -> None:
    write_text(tmp_path / "a/result.json", detector())
    write_text(tmp_path / "b/result.json", detector(box={"AP": 0.405, "AP50": 0.61}, data="images"))
    write_text(tmp_path / "shapes/result.json", detector(data="shapes", classes=4, num_val_images=40))
    write_text(tmp_path / "part/result.json", detector(num_val_images=100))
    write_text(tmp_path / "lacks/result.json", detector(mask={}))
    write_text(tmp_path / "other/result.json", detector(layers="B-B-B"))
    write_text(tmp_path / "short/result.json", detector(epochs=1))
    found = read_runs(tmp_path)
    table = by_name(found)["detection"]
    rows = {(row[0], row[1]): row[3:] for row in table.rows if row[2] == "here"}
    assert rows["PSViT-2D-Tiny", "box"] == [*map(pytest.approx, (40.3, 60.5, 43.0)), None, 40.0, 50.0, "2 x 12 epochs"]
    assert rows["PSViT-2D-Tiny", "mask"][0] == pytest.approx(40.1)
    assert rows["ResNet50", "box"] == [None] * 6 + [NEEDS_COCO]
    assert [line.partition(": ")[2] for line in found.left_out] == [
        "has no mask.AP",
        "its layers are B-B-B, and psvit_2d_tiny_8 has BBB-BSS-BSBB",
        "its data are not all of COCO 2017: classes 80 instead of 80, num_val_images 100 instead of 5,000",
        "psvit_2d_tiny_8 was trained for 1 epochs, elsewhere for 12",
    ]


# ---------------------------------------------------------------------------------------------- the command


def test_csv_and_markdown_hold_what_is_printed(
    retrained: Retrained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    retrained("runs/a", "deit_tiny_16", 0.722)
    (tmp_path / "runs/result.json").write_text("{")
    assert main(["paper", f"runs={tmp_path / 'runs'}", "--save", str(tmp_path / "tables")]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.partition("Left out")[0].splitlines())) <= 112
    assert f"{tmp_path / 'runs/result.json'}: cannot be read as JSON" in printed
    text = (tmp_path / "tables/paper.md").read_text()
    tables = make_tables(read_runs(tmp_path / "runs"))
    assert text == markdown(tables)
    assert {path.stem for path in (tmp_path / "tables").glob("*.csv")} == {table.name for table in tables}
    for table in tables:
        rows = [*csv.reader(io.StringIO((tmp_path / f"tables/{table.name}.csv").read_text()))]
        block = printed[printed.index(f"{table.title}\n") :].splitlines()
        in_markdown = text[text.index(f"## {table.title}\n") :].splitlines()
        for number, row in enumerate(rows):
            line = block[2] if number == 0 else block[3 + number]
            cells = [cell.strip() for cell in in_markdown[2 if number == 0 else 3 + number].strip("|").split(" | ")]
            assert re.split(r"\s{2,}", line.strip()) == [cell for cell in cells if cell]
            plain = [cell.replace(",", "") if re.fullmatch(r"[\d,]+", cell) else cell for cell in cells]
            exact = [cell.replace(",", "") if re.fullmatch(r"[\d,]+", cell) else cell for cell in row]
            assert [_number(cell) for cell in plain] == [_number(cell) for cell in exact]
    assert "72.20 (300 epochs)" in printed


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def test_json_holds_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str], tables: dict[str, Table]) -> None:
    assert main(["paper", f"runs={tmp_path}", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["left_out"] == []
    assert document["tables"] == json.loads(json.dumps({name: table.as_json() for name, table in tables.items()}))
    row = document["tables"]["configurations"]["rows"][1]
    assert (row["model"], row["params here"], row["FLOPs here"]) == ("PSViT-1D-Tiny/16", 15_606_568, 1_287_939_840)


def test_a_folder_of_runs_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paper", f"runs={tmp_path / 'typo'}"]) == 2
    assert "there is no such folder" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- docs/paper.md


def test_the_tables_of_the_docs_are_what_is_counted_now(tables: dict[str, Table]) -> None:
    text = markdown([*tables.values()])
    assert DOCS.read_text().partition(GENERATED)[2] == "\n" + text[text.index("## ") :]


def test_the_docs_have_a_file_of_settings_for_every_row() -> None:
    """Each names its network, and the figures beside it are those of this network."""
    written = re.findall(
        r"\| \[`(\w+)`\]\(\.\./(conf/experiment/(\w+)/\S+\.yaml)\) \|(?: (.+?), (.+?) \|)?", DOCS.read_text()
    )
    networks: dict[str, set[str]] = {"retrain": set(), "detect": set()}
    for name, path, command, params, flops in written:
        settings = yaml.safe_load((DOCS.parent.parent / path).read_text())
        assert Path(path).stem == name
        networks[command].add(settings["arch"])
        if params:
            cost = cost_of(settings["arch"])
            assert (params, flops) == (format_quantity(cost.params), format_quantity(cost.flops))
    assert networks["retrain"] == OF_ROWS - {None}
    assert networks["detect"] == {row.network for row in DETECTION}


def commands_of_the_docs() -> list[str]:
    """All after ``psvit-search`` in code, inline or indented."""
    text = DOCS.read_text().partition(GENERATED)[0].replace("\\\n", " ")
    lines = re.findall(r"`([^`\n]*)`|^    (.+)$", text, re.MULTILINE)
    code = {inline or indented for inline, indented in lines}
    return sorted(line.partition("psvit-search ")[2] for line in code if "psvit-search " in line)


@pytest.mark.parametrize("line", commands_of_the_docs())
def test_commands_of_the_docs_are_understood(line: str) -> None:
    words = shlex.split(line)
    name = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
    command = COMMANDS[name]
    with composer(command) as compose:
        compose(parse(command, words[len(name.split()) :])[1])
