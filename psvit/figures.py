"""What all pictures of this package share: one palette, and how a figure is saved.

matplotlib is loaded when something is drawn, and its global state (``pyplot``) is left alone. No torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from psvit.run.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PIXELS_PER_INCH = 160
ENDINGS = (".png", ".svg")

# Okabe and Ito's colours, told apart by colour-blind readers too
BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
INK, GREY, PALE = "#222222", "#777777", "#F0F0F0"


def check_picture(path: Path) -> None:
    """Raise ValueError unless the file's ending is one that can be drawn."""
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"cannot draw {path}: pictures are {' or '.join(ENDINGS)} files; change the ending")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG (160 pixels an inch) or SVG (text stays text), by the file's ending.

    Raises:
        ValueError: another ending, or a file that cannot be written.
    """
    from matplotlib import rc_context

    check_picture(path)
    ending = path.suffix.lower()[1:]
    undated = {"Date": None} if ending == "svg" else {}  # the same network gives the same file
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "psvit"}):
        write_atomically(
            path, lambda file: figure.savefig(file, format=ending, dpi=PIXELS_PER_INCH, metadata={**undated})
        )
