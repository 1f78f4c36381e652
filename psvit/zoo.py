"""Named dimensions (search spaces) and named networks: the paper's, ours where the paper is silent, and DeiT.

The widths and heads of the 1d Tiny and Small spaces are the paper's (its table of published configurations). Those of
the 1d Base, all 2d and the mini spaces are ours, chosen so that the published FLOPs lie inside each space.

No layers of the authors' networks are published: each ``psvit_*`` is a member of its space that has the printed FLOPs
and, where they are printed, the printed parameters, about a third of its layers sharing and its stages about as deep.
"""

from __future__ import annotations

from dataclasses import replace

from psvit.arch import Architecture, NetworkSpec


def _space(
    name: str, widths: tuple[int, ...], heads: tuple[int, ...], image: int = 224, classes: int = 1000
) -> NetworkSpec:
    kind, _, patch = name.split("_")
    return NetworkSpec(kind, (image, image), int(patch), widths, heads, classes, name=name)


SPACES: dict[str, NetworkSpec] = {
    spec.name: spec
    for spec in (
        # the paper's
        _space("1d_tiny_8", (64, 144, 192), (1, 3, 3)),
        _space("1d_tiny_16", (192, 288, 384), (3, 6, 6)),
        _space("1d_small_8", (144, 256, 384), (3, 4, 6)),
        _space("1d_small_16", (288, 512, 768), (6, 8, 12)),
        # ours
        _space("1d_base_8", (288, 512, 768), (6, 8, 12)),
        _space("1d_base_16", (576, 1024, 1536), (9, 16, 24)),
        _space("2d_tiny_8", (96, 192, 384), (3, 6, 12)),
        _space("2d_small_8", (192, 384, 768), (6, 12, 24)),
        _space("2d_base_8", (320, 640, 1280), (10, 20, 40)),
        # ours, for laptops and tests
        _space("1d_mini_4", (32, 48, 64), (2, 3, 4), image=32, classes=10),
        _space("2d_mini_4", (32, 48, 64), (2, 3, 4), image=32, classes=10),
    )
}


Named = tuple[NetworkSpec, Architecture]


def _member(name: str, layers: str) -> Named:
    """A network of a search space: its name is ``psvit_`` and the space's."""
    return replace(SPACES[name], name=f"psvit_{name}"), Architecture.parse(layers)


def _deit(name: str, width: int, heads: int) -> Named:
    spec = NetworkSpec("1d", (224, 224), 16, (width,), (heads,), 1000, readout="class_token", name=name)
    return spec, Architecture(("B" * 12,))


def _ablations(plain: NetworkSpec, wide: NetworkSpec, grid: NetworkSpec, layers: dict[str, str]) -> dict[str, Named]:
    """The networks of the paper's ablations around a plain one, and ours beside them.

    Args:
        plain: one stage, class-token readout; the variant ``none``.
        wide: three stages, fewer and wider tokens.
        grid: the same as a PSViT-2D.
        layers: of each variant; all have about the plain network's FLOPs.
    """
    width, heads = plain.widths[0], plain.heads[0]
    thirds = (width, width * 4 // 3, 2 * width)  # 192, 256, 384
    specs = {
        "none": plain,
        "sharing_2": plain,
        "sharing_3": plain,
        "deeper": replace(wide, widths=(width,) * 3, heads=(heads,) * 3),
        "wider": wide,
        "wider_256": replace(wide, widths=thirds, heads=tuple(w * heads // width or 1 for w in thirds)),
        "max": replace(wide, pooling="max"),
        "average": replace(wide, pooling="average"),
        "both": wide,
        "2d_pooling": grid,
        "2d_both": grid,
    }
    return {
        name: (replace(specs[variant], name=name), Architecture.parse(layers[variant]))
        for variant in specs
        for name in [plain.name if variant == "none" else f"{plain.name}_{variant}"]
    }


NETWORKS: dict[str, Named] = {
    # members that meet the paper's table of published configurations to its printed rounding
    "psvit_1d_tiny_8": _member("1d_tiny_8", "BSBB-BSSBS-BSBBB"),
    "psvit_1d_tiny_16": _member("1d_tiny_16", "BSB-BBBBB-BSBBS"),
    "psvit_1d_small_8": _member("1d_small_8", "BSBB-BSSSS-BSBBB"),
    "psvit_1d_small_16": _member("1d_small_16", "BSB-BSBBB-BSBSB"),
    # members that meet the FLOPs of its table of ImageNet accuracies
    "psvit_1d_base_8": _member("1d_base_8", "BSBSB-BSSBS-BBBBB"),
    "psvit_1d_base_16": _member("1d_base_16", "BSBBBB-BSBSBS-BSBSB"),
    "psvit_2d_tiny_8": _member("2d_tiny_8", "BBB-BSS-BSBB"),
    "psvit_2d_small_8": _member("2d_small_8", "BBB-BSBS-BSB"),
    "psvit_2d_base_8": _member("2d_base_8", "BSBBB-BSBBB-BSSS"),
    # DeiT (arXiv 2012.12877): one stage, no pooling, class-token readout; ViT-Base (2010.11929) has the same layers
    "deit_small_16": _deit("deit_small_16", 384, 6),
    "deit_base_16": _deit("deit_base_16", 768, 12),
    "vit_base_16": _deit("vit_base_16", 768, 12),
    # the ablations on DeiT-Tiny at 1.3 G: two layers are added where sharing saves them
    **_ablations(
        _deit("deit_tiny_16", 192, 3)[0],
        SPACES["1d_tiny_16"],
        SPACES["2d_tiny_8"],
        {
            "none": "BBBBBBBBBBBB",
            "sharing_2": "BSBSBSBSBSBSBS",
            "sharing_3": "BSSBSSBSSBSSBS",
            "deeper": "BBBB-BBBBBBBB-BBBBBBBBBBBBBBBBBBBB",
            "wider": "BBBB-BBBB-BBBB",
            "wider_256": "BBBB-BBBB-BBBB",
            "max": "BBBB-BBBB-BBBB",
            "average": "BBBB-BBBB-BBBB",
            "both": "BSBS-BSBSB-BSBSB",
            "2d_pooling": "BBB-BBB-BBB",
            "2d_both": "BSB-BSBS-BSBS",
        },
    ),
    # the same for laptops: a sixth of the width, half the layers
    **_ablations(
        NetworkSpec("1d", (32, 32), 4, (32,), (2,), 10, readout="class_token", name="deit_mini_4"),
        SPACES["1d_mini_4"],
        SPACES["2d_mini_4"],
        {
            "none": "BBBBBB",
            "sharing_2": "BSBSBSB",
            "sharing_3": "BSSBSSB",
            "deeper": "BB-BBBB-BBBBBBBBBB",
            "wider": "BB-BB-BB",
            "wider_256": "BB-BB-BB",
            "max": "BB-BB-BB",
            "average": "BB-BB-BB",
            "both": "BSB-BS-BS",
            "2d_pooling": "BBBB-BBB-BBB",
            "2d_both": "BSBS-BSBS-BSBS",
        },
    ),
}


def space(name: str) -> NetworkSpec:
    """The dimensions of a named search space.

    Raises:
        ValueError: no space has this name.
    """
    if name not in SPACES:
        raise ValueError(f"no space is named {name!r}; choose one of {', '.join(SPACES)}")
    return SPACES[name]
