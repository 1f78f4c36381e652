"""Values as the grammar of Hydra's overrides reads them back."""

from __future__ import annotations

from typing import Any


def quote(text: str, sweep: bool = False) -> str:
    """A text that Hydra reads back as this very text; with ``sweep``, as each of the texts between its commas."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Quote, QuotedString
    from hydra.errors import HydraException

    if sweep and "," in text:
        return ",".join(quote(part) for part in text.split(","))
    try:
        if OverridesParser.create().parse_override(f"key={text}").value() == text:
            return text
    except HydraException:
        pass  # what cannot be read as it stands is quoted
    return QuotedString(text, Quote.single).with_quotes()


def write(value: Any) -> str:
    """A plain value, or a list of such, in Hydra's grammar."""
    if isinstance(value, list):
        return f"[{','.join(map(write, value))}]"
    if isinstance(value, str):
        return quote(value)
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
