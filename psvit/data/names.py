"""Names of files as messages show them: printable, whatever bytes the disk holds."""

from __future__ import annotations

_MOST = 300  # characters of a name that are shown


def printable(name: str, most: int | None = _MOST) -> str:
    """``name`` with what is not UTF-8 as U+FFFD and control characters escaped, so that it fits in one line.

    Args:
        most: characters from which on it is cut; None shows all.
    """
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
    return text if most is None or len(text) <= most else f"{text[:most]}..."


def check_utf8(path: str) -> None:
    """Raise ValueError if a path is not UTF-8: class names and image names are written to files that are."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"the name {printable(path)} is not UTF-8; rename it") from error
