"""Seeded damage to files: what disks, editors, other programs and ill will do to them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

_NASTY_WORDS = (
    *(b"", b"\0", b"\n", b"\r\n", b'"', b",", b"{", b"[", b"null", b"NaN", b"-1", b"1e999", b"-Infinity", b"0x10"),
    *(
        b"9" * 400,
        b"9" * 5000,
        b"\xff\xfe",
        b"\xed\xa0\x80",
        "\u202e".encode(),
        b"../../../etc/passwd",
        b"[" * 3000,
        b"-" * 90,
    ),
)
_NASTY_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 2**64, 10**400, 0.5, 1e308, float("nan"), float("inf")),
    *("", "x", "\n\x1b[31m", "9" * 300, "\ud800", "../x", [], [[]], {}, {"": None}, [0] * 300, {"x": {"y": []}}),
)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The content with one to four faults, which may cancel each other."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        content = rng.choice(_FAULTS)(content, rng)
    return content


def _bit(content: bytes, rng: random.Random) -> bytes:
    if not content:
        return content
    place = rng.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]


def _byte(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content) + 1)
    return content[:place] + rng.randbytes(1) + content[place + 1 :]


def _early(content: bytes, rng: random.Random) -> bytes:
    """A fault among the first bytes, where headers and sizes stand."""
    head = content[:64]
    return rng.choice((_bit, _byte, _word))(head, rng) + content[64:]


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _piece(content: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(len(content) + 1)
    return start, min(len(content), start + rng.choice((1, 2, 4, 8, 64, 512, 4096)))


def _lost(content: bytes, rng: random.Random) -> bytes:
    start, end = _piece(content, rng)
    return content[:start] + content[end:]


def _twice(content: bytes, rng: random.Random) -> bytes:
    start, end = _piece(content, rng)
    return content[:end] + content[start:end] + content[end:]


def _zeroed(content: bytes, rng: random.Random) -> bytes:
    """A block that never reached the disk."""
    start, end = _piece(content, rng)
    return content[:start] + bytes(end - start) + content[end:]


def _moved(content: bytes, rng: random.Random) -> bytes:
    start, end = _piece(content, rng)
    rest, place = content[:start] + content[end:], rng.randrange(len(content) + 1)
    return rest[:place] + content[start:end] + rest[place:]


def _word(content: bytes, rng: random.Random) -> bytes:
    start, end = _piece(content, rng)
    return content[:start] + rng.choice(_NASTY_WORDS) + content[rng.choice((start, end)) :]


def _line(content: bytes, rng: random.Random) -> bytes:
    """A line lost, twice, or in another place."""
    lines = content.splitlines(keepends=True)
    if not lines:
        return content
    line = lines.pop(rng.randrange(len(lines)))
    for _ in range(rng.randrange(3)):
        lines.insert(rng.randrange(len(lines) + 1), line)
    return b"".join(lines)


def _json(content: bytes, rng: random.Random) -> bytes:
    """A value of a JSON file replaced, or a key lost, renamed or new; of any other file a word."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return _word(content, rng)
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, item in items:
            places.append((value, key))
            walk(item)

    walk(document)
    if not places:
        return _word(content, rng)
    parent, key = rng.choice(places)
    fault = rng.randrange(4) if isinstance(parent, dict) else 0
    if fault == 1:
        del parent[key]
    elif fault == 2:
        parent[str(key) + "x"] = parent.pop(key)
    elif fault == 3:
        parent["unknown"] = rng.choice(_NASTY_VALUES)
    else:
        parent[key] = rng.choice(_NASTY_VALUES)
    return json.dumps(document).encode("utf-8", "surrogatepass")


_FAULTS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(_bit, _byte, _early, _cut, _lost, _twice, _zeroed, _moved, _word, _line, _json, _json, _json),
)
