"""psvit: the PSViT network family (arXiv 2108.03428), its architectures and their cost.

``from psvit import PSViT`` loads torch; importing the package alone does not. A trained network, and what it takes a
picture for: ``psvit.load("runs/default/retrain").predict("picture.jpg")``. The commands as functions:
``from psvit import api``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from psvit.arch import Architecture, CellPath, NetworkSpec

if TYPE_CHECKING:
    from psvit.model import PSViT

__version__ = "0.1.0"
__all__ = ["Architecture", "CellPath", "NetworkSpec", "PSViT", "api", "load"]


def __getattr__(name: str) -> Any:
    if name == "PSViT":
        from psvit.model import PSViT

        return PSViT
    if name == "load":  # by their names: the packages stand above this one
        return import_module("psvit.deploy.model").load
    if name == "api":
        return import_module("psvit.cli.api")
    raise AttributeError(f"module 'psvit' has no attribute {name!r}")
