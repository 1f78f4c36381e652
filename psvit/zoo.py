"""Named dimensions (search spaces) and named networks: the paper's, ours where the paper is silent, and DeiT.

The widths and heads of the 1d Tiny and Small spaces are the paper's (its table of published configurations). Those of
the 1d Base, all 2d and the mini spaces are ours, chosen so that the published FLOPs lie inside each space.
"""

from __future__ import annotations

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


def _deit(name: str, width: int, heads: int) -> tuple[NetworkSpec, Architecture]:
    spec = NetworkSpec("1d", (224, 224), 16, (width,), (heads,), 1000, readout="class_token", name=name)
    return spec, Architecture(("B" * 12,))


NETWORKS: dict[str, tuple[NetworkSpec, Architecture]] = {
    # DeiT (arXiv 2012.12877): one stage, no pooling, class-token readout
    "deit_tiny_16": _deit("deit_tiny_16", 192, 3),
    "deit_small_16": _deit("deit_small_16", 384, 6),
    "deit_base_16": _deit("deit_base_16", 768, 12),
}


def space(name: str) -> NetworkSpec:
    """The dimensions of a named search space.

    Raises:
        ValueError: no space has this name.
    """
    if name not in SPACES:
        raise ValueError(f"no space is named {name!r}; choose one of {', '.join(SPACES)}")
    return SPACES[name]
