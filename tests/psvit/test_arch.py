import pytest

from psvit.arch import Architecture, CellPath, NetworkSpec, parse_image_size


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("BS-SB-B", "stage 2, cell 1: a sharing layer needs an earlier basic layer"),
        ("BS--B", "stage 2: has no layer"),
        ("BS-BXB-B", "stage 2, cell 2: unknown layer 'X'"),
        ("BS-BIB-B", "stage 2, cell 2: unknown layer 'I'"),
    ],
)
def test_impossible_architectures_name_stage_cell_and_reason(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Architecture.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("IISBII-BIIIII", "stage 1, cell 3: a sharing layer needs an earlier basic layer"),
        ("BIIIII-IIIIII", "stage 2: has no layer"),
    ],
)
def test_impossible_paths_name_stage_cell_and_reason(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CellPath.parse(text)


def test_many_paths_are_one_architecture() -> None:
    paths = [CellPath.parse(text) for text in ("BIS-IBI", "IBS-BII", "BSI-IIB")]
    assert {path.architecture for path in paths} == {Architecture.parse("BS-B")}


def test_canonical_path_puts_layers_first() -> None:
    architecture = Architecture.parse("BSB-B")
    assert str(CellPath.canonical(architecture, 4)) == "BSBI-BIII"
    with pytest.raises(ValueError, match="stage 1 has 3 layers, but the supernet has only 2 cells"):
        CellPath.canonical(architecture, 2)


def test_token_counts_are_the_papers() -> None:
    def tokens(kind: str, patch: int) -> tuple[int, ...]:
        return NetworkSpec(kind, (224, 224), patch, (6, 6, 6), (1, 1, 1), 10).tokens

    assert tokens("1d", 16) == (197, 99, 50)
    assert tokens("1d", 8) == (785, 393, 197)
    assert tokens("2d", 8) == (28 * 28, 14 * 14, 7 * 7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": (224, 230)}, "230 is not a multiple of the patch size 16; use 224"),
        ({"heads": (3, 5, 6)}, "stage 2: width 288 cannot be split into 5 heads"),
        ({"heads": (3, 6)}, "must cover the same stages"),
        ({"pool_kernel": 2}, "it must be odd"),
        ({"pool_kernel": 10**30 + 1}, "pool_kernel is a number of 100 bits; it must be at least 1 and at most 256"),
        ({"image_size": (4 * 10**400, 224)}, "image_size is a number of 1331 bits"),
        ({"widths": (192, 288, 60_000)}, "widths is 60000; it must be at least 1 and at most 32,768"),
        ({"mlp_ratio": 10**9}, "mlp_ratio is 1000000000; it must be"),
        ({"channels": 10**9}, "channels is 1000000000; it must be"),
        ({"classes": 10**12 - 1}, "classes is 999999999999; it must be at least 1 and at most 10,000,000"),
        ({"widths": (6,) * 3000, "heads": (1,) * 3000}, "widths has 3,000 stages; at most 16 can be built"),
        ({"kind": "3d"}, "use 1d or 2d"),
        ({"kind": "2d", "readout": "class_token"}, "no class token"),
        ({"classes": 0}, "classes is 0"),
    ],
)
def test_dimensions_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    dims = {"kind": "1d", "image_size": (224, 224), "patch_size": 16, "widths": (192, 288, 384), "heads": (3, 6, 6)}
    with pytest.raises(ValueError, match=message):
        NetworkSpec(**({"classes": 10} | dims | change))  # type: ignore[arg-type]


def test_image_sizes_are_read_height_first() -> None:
    assert parse_image_size("224") == (224, 224)
    assert parse_image_size("224x160") == (224, 160)
    for wrong in ("", "0", "1x2x3", "-4", "12.5"):
        with pytest.raises(ValueError, match="write 224"):
            parse_image_size(wrong)
