"""The paper's figures: copied rightly, and what of them can be counted."""

from decimal import ROUND_HALF_UP, Decimal

import pytest
from torchvision import models

from psvit.arch import NetworkSpec
from psvit.cost import Cost, network_cost
from psvit.networks import find_network
from psvit.paper.published import (
    ABLATION_FLOPS,
    ABLATIONS,
    AP_NAMES,
    CONFIGURATIONS,
    DETECTION,
    IMAGENET,
    Ablation,
    Published,
    printed_band,
)
from psvit.zoo import NETWORKS

# As the tables print them; written down a second time, so that a slip in one of the two shows.
PRINTED_CONFIGURATIONS = """
Tiny/8   | 64, 144, 192  | 1, 3, 3  | 785, 393, 197 | 3.8  | 1.5 | 72.71
Tiny/16  | 192, 288, 384 | 3, 6, 6  | 197, 99, 50   | 15.6 | 1.3 | 77.40
Small/8  | 144, 256, 384 | 3, 4, 6  | 785, 393, 197 | 13.9 | 4.9 | 80.70
Small/16 | 288, 512, 768 | 6, 8, 12 | 197, 99, 50   | 53.8 | 4.0 | 78.32
"""
PRINTED_IMAGENET = """
ResNet18 1.8 69.8 68.5
ResNet50 4.1 76.1 78.5
ResNeXt50-32x4d 4.3 77.6 79.1
ResNeXt101-64x4d 15.6 79.6 81.5
DeiT-Tiny 1.3 72.2
DeiT-Small 4.6 79.6
DeiT-Base 17.6 81.8
ViT-Base 17.6 77.9
PSViT-1D-Tiny 1.4 77.4
PSViT-1D-Small 4.9 80.7
PSViT-1D-Base 18.9 82.6
PSViT-2D-Tiny 1.3 78.8
PSViT-2D-Small 4.4 81.6
PSViT-2D-Base 15.5 82.9
"""
PRINTED_ABLATIONS = {
    "components": {
        "none": 72.2,
        "sharing_2": 73.8,
        "wider": 76.3,
        "2d_pooling": 76.7,
        "search_1d": 77.4,
        "search_2d": 78.8,
    },
    "pooling": {"deeper": 75.0, "wider": 76.3, "wider_256": 76.3},
    "sharing": {"none": 72.2, "sharing_2": 73.8, "sharing_3": 73.1},
    "pooling_kind": {"wider": 76.3},
}
OURS = {"components": {"both", "2d_both"}, "pooling_kind": {"max", "average"}}

# The rows whose count does not round to what is printed; `psvit-search paper` says why of each.
DIFFER = {
    ("imagenet", "PSViT-1D-Tiny"),
    ("imagenet", "ResNeXt50-32x4d"),
    ("imagenet", "ResNeXt101-64x4d"),
    ("components", "wider"),
    ("pooling", "wider"),
    ("pooling", "wider_256"),
    ("pooling_kind", "wider"),
    ("pooling_kind", "max"),
    ("pooling_kind", "average"),
}


def as_printed(amount: int, unit: int, printed: str) -> str:
    return str((Decimal(amount) / unit).quantize(Decimal(printed), ROUND_HALF_UP))


def rounds(cost: Cost, params: str | None, flops: str | None) -> bool:
    return all(
        printed is None or as_printed(amount, unit, printed) == printed
        for amount, unit, printed in ((cost.params, 10**6, params), (cost.flops, 10**9, flops))
    )


def test_configurations_are_as_printed() -> None:
    assert len(CONFIGURATIONS) == 4
    for row, line in zip(CONFIGURATIONS, PRINTED_CONFIGURATIONS.split("\n")[1:-1], strict=True):
        name, *rest = (cell.strip() for cell in line.split("|"))
        assert row.label == f"PSViT-1D-{name}"
        dimensions = (", ".join(map(str, values)) for values in (row.widths, row.heads, row.tokens))
        assert [*dimensions, row.params, row.flops, f"{row.top1:.2f}"] == rest


def test_imagenet_is_as_printed() -> None:
    lines = {line.split()[0]: line.split()[1:] for line in PRINTED_IMAGENET.strip().split("\n")}
    assert lines == {
        row.label: [row.flops, str(row.top1), *([str(row.rerun)] if row.rerun else [])] for row in IMAGENET
    }


def test_ablations_are_as_printed_and_ours_have_no_figure() -> None:
    for name, rows in ABLATIONS.items():
        assert len({row.label for row in rows}) == len({row.variant for row in rows}) == len(rows)
        assert {row.variant: row.top1 for row in rows if row.top1 is not None} == PRINTED_ABLATIONS[name]
        ours = {row.variant for row in rows if row.top1 is None}
        assert ours == OURS.get(name, set())
        assert all(row.note.startswith("ours") for row in rows if row.variant in ours)


PRINTED_DETECTION = """
ResNet18      | 34.8 56.3 37.5 20.1 37.0 45.2 | 32.8 53.4 34.8 17.4 25.1 44.7
ResNet50      | 38.3 60.4 41.4 23.3 41.6 48.9 | 35.5 57.2 37.8 19.6 38.6 47.7
ResNet101     | 39.5 61.3 43.0 23.4 42.7 51.1 | 36.5 58.2 39.1 19.6 39.7 49.4
PSViT-2D-Tiny | 40.8 64.7 44.0 25.3 43.8 53.9 | 37.7 60.1 39.9 21.2 40.6 52.8
"""


def test_detection_is_as_printed() -> None:
    printed = [[cell.strip() for cell in line.split("|")] for line in PRINTED_DETECTION.strip().splitlines()]
    ours = [
        [row.label, *(" ".join(f"{ap:.1f}" for ap in figures) for figures in (row.box, row.mask))] for row in DETECTION
    ]
    assert ours == printed
    assert all(len(figures) == len(AP_NAMES) for row in DETECTION for figures in (row.box, row.mask))


def spec_of(row: Published | Ablation) -> NetworkSpec:
    assert row.network is not None
    return NETWORKS[row.network][0]


def test_networks_have_the_printed_dimensions() -> None:
    for row in CONFIGURATIONS:
        spec = spec_of(row)
        assert (spec.widths, spec.heads, spec.tokens) == (row.widths, row.heads, row.tokens)
    printed = [row for rows in ABLATIONS.values() for row in rows if row.widths or row.depths]
    assert {row.variant for row in printed} == {"deeper", "wider", "wider_256"}
    for ablation in printed:
        assert ablation.network is not None
        assert ablation.widths in ((), spec_of(ablation).widths)
        assert NETWORKS[ablation.network][1].depths == ablation.depths
        assert spec_of(ablation).tokens == (197, 99, 50)


def test_counts_round_to_what_is_printed_but_for_the_explained() -> None:
    rows = [("configurations", row.label, row.network, row.params, row.flops) for row in CONFIGURATIONS]
    rows += [("imagenet", row.label, row.network, row.params, row.flops) for row in IMAGENET]
    for table, ablations in ABLATIONS.items():
        rows += [(table, row.variant, row.network, None, ABLATION_FLOPS) for row in ablations if row.network]
    differ = {
        (table, label)
        for table, label, network, params, flops in rows
        if not rounds(find_network(str(network)).cost, params, flops)
    }
    assert differ == DIFFER


def test_notes_count_what_they_say() -> None:
    (wider,) = (row for row in ABLATIONS["pooling"] if row.variant == "wider")
    for network, figure in (("deit_tiny_16_wider_256", "1.16"), ("deit_tiny_16_wider", "1.25")):
        assert as_printed(network_cost(*NETWORKS[network]).flops, 10**9, figure) == figure
        assert f"{figure} G" in wider.note


@pytest.mark.parametrize("network", sorted({row.network for row in IMAGENET if "torchvision" in str(row.network)}))
def test_torchvisions_networks_count_what_torchvision_says(network: str) -> None:
    weights = next(iter(models.get_model_weights(network.removeprefix("torchvision:"))))
    cost = find_network(network).cost
    assert cost.params == weights.meta["num_params"]
    assert round(cost.flops / 1e9, 3) == pytest.approx(weights.meta["_ops"], abs=1e-3)


def test_detectors_backbones_exist() -> None:
    for row in DETECTION:
        assert isinstance(find_network(str(row.network)).cost, Cost)


@pytest.mark.parametrize("text", ["1.3", "15.6", "3.8", "4.0", "72.71"])
def test_a_band_holds_what_rounds_to_its_figure_and_nothing_else(text: str) -> None:
    band, unit = printed_band(text, 10**6), 10**6
    assert band.low is not None
    assert band.high is not None
    assert as_printed(band.low, unit, text) == as_printed(band.high - 1, unit, text) == text
    assert as_printed(band.low - 1, unit, text) != text
    assert as_printed(band.high + 1, unit, text) != text
    assert band.high in band  # a half, which may have been rounded down
