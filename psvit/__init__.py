"""psvit: the PSViT network family (arXiv 2108.03428), its architectures and their cost.

``from psvit import PSViT`` loads torch; importing the package alone does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psvit.arch import Architecture, CellPath, NetworkSpec

if TYPE_CHECKING:
    from psvit.model import PSViT

__version__ = "0.1.0"
__all__ = ["Architecture", "CellPath", "NetworkSpec", "PSViT"]


def __getattr__(name: str) -> Any:
    if name == "PSViT":
        from psvit.model import PSViT

        return PSViT
    raise AttributeError(f"module 'psvit' has no attribute {name!r}")
