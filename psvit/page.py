"""Pages of runs: one HTML file each, which opens without network, loads nothing and runs nothing. No torch."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from psvit.run.files import write_text
from psvit.units import format_quantity


def write_page(path: Path, template: Path, facts: Mapping[str, Any]) -> None:
    """Render a Jinja template, which extends ``page.html.j2``, and write it, whole or not at all.

    Args:
        facts: what the template shows; a name that is missing is an error. All text is escaped.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": lambda number: f"{number:,}",
        "quantity": format_quantity,
        "score": lambda score: f"{score:.4f}".replace("-", "−"),
        "share": lambda share: f"{share:.1%}".replace("%", " %"),
    }
    write_text(path, environment.get_template(template.name).render(facts))


def picture_address(path: Path) -> str | None:
    """A PNG as the address of an image in the page itself; None when there is none."""
    return png_address(path.read_bytes()) if path.is_file() else None


def png_address(content: bytes) -> str:
    """The same of a PNG in memory."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
