"""Records: JSON files of ours, written whole and read with suspicion. No torch.

A record is a frozen dataclass: its fields are the keys of the file, beside ``format`` and ``version``. Whatever is
missing, unknown or of the wrong type is refused in one line that names the file, the place in it and what to do:
``race.json: $.rounds[2].kept: is 'x'; it must be a whole number; run the same search again``.
"""

from __future__ import annotations

import json
import os
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from psvit.run.files import write_text

MOST_BYTES = 64 * 2**20  # what is larger is no record
_NAMES = {
    int: "a whole number",
    float: "a number",
    str: "a string",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}
_SHOWN = 60  # characters of a faulty value

T = TypeVar("T")


class NewerVersion(ValueError):
    """A record of a version that this program does not know yet; only an update helps."""


@dataclass(frozen=True)
class Record:
    """What a JSON file holds; subclasses are frozen dataclasses too.

    Attributes:
        format: what kind of file it is.
        version: of the format.
        remedy: what to do about a file that cannot be read, as in "run the same search again".
    """

    format: ClassVar[str]
    version: ClassVar[int] = 1
    remedy: ClassVar[str]

    def to_json(self) -> dict[str, Any]:
        """Plain values: format, version and every field."""
        return {"format": self.format, "version": self.version, **_plain_fields(self)}

    @classmethod
    def from_json(cls, document: Any, where: str = "$") -> Self:
        """The record that plain values describe.

        Args:
            where: their place in the file.

        Raises:
            ValueError: another format or version, an unknown or missing key, or a wrong type; begins with its place.
        """
        check_format(document, cls.format, cls.version, where)
        return _read_fields(cls, {key: document[key] for key in document if key not in ("format", "version")}, where)

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all.

        Raises:
            ValueError: the disk is full or not writable.
        """
        write_text(path, json.dumps(self.to_json(), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read and check the file.

        Raises:
            ValueError: it is missing, damaged, or not such a record; one line with what to do.
        """
        try:
            return cls.from_json(read_object(path))
        except NewerVersion as error:
            raise ValueError(f"{path}: {error}") from None
        except ValueError as error:
            raise ValueError(f"{path}: {error}; {cls.remedy}") from None


def read_object(path: Path, most_bytes: int | None = None) -> dict[str, Any]:
    """The object that a JSON file holds.

    Args:
        most_bytes: that it may have; None is what a record may.

    Raises:
        ValueError: there is no such file, it is no regular one, too large, not UTF-8, no JSON, or holds no object. The
            message does not name the file.
    """
    if not os.path.exists(path):  # Path.exists raises on a name that is too long
        raise ValueError("there is no such file")
    if not os.path.isfile(path):
        raise ValueError("is not a regular file")
    try:
        most = MOST_BYTES if most_bytes is None else most_bytes
        with open(path, "rb") as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise ValueError(f"is larger than {most >> 20} MiB")
        document = json.loads(content.decode())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"cannot be read as JSON ({error})") from None
    require(document, dict, "$")
    return document


def check_format(document: Any, name: str, version: int, where: str = "$", oldest: int | None = None) -> None:
    """Refuse an object of another format, or of a version that this program does not read.

    Args:
        version: the newest that is read.
        oldest: that is read, too; None is ``version``.

    Raises:
        NewerVersion: a newer psvit-search wrote it.
        ValueError: it is no object, or of another format or version.
    """
    require(document, dict, where)
    for key in ("format", "version"):
        if key not in document:
            raise ValueError(f"{where}.{key}: is missing")
    if document["format"] != name:
        raise ValueError(f'{where}.format: is {shown(document["format"])}; it must be "{name}"')
    found = document["version"]
    oldest = version if oldest is None else oldest
    reads = f"this program reads version {version if oldest == version else f'{oldest} to {version}'}"
    if isinstance(found, bool) or not isinstance(found, int) or found < oldest:
        raise ValueError(f"{where}.version: is {shown(found)}; {reads}")
    if found > version:
        raise NewerVersion(f"{where}.version: is {found}; {reads}: update psvit-search")


def require(value: Any, kind: type, where: str) -> None:
    """Refuse a value of another type than ``kind``: int, float, str, bool, list or dict.

    Raises:
        ValueError: begins with the value's place in the file.
    """
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{where}: is {shown(value)}; it must be {_NAMES[kind]}")


def require_object(value: Any, where: str, known: set[str], required: set[str]) -> None:
    """Refuse what is no object, has unknown keys or lacks required ones.

    Raises:
        ValueError: begins with the place of the fault in the file.
    """
    require(value, dict, where)
    unknown = sorted(value.keys() - known)
    if unknown:
        raise ValueError(f"{below(where, unknown[0])}: unknown key; known are {', '.join(sorted(known))}")
    missing = sorted(required - value.keys())
    if missing:
        raise ValueError(f"{where}.{missing[0]}: is missing")


def shown(value: Any) -> str:
    """A faulty value for a message, on one line and not too long."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of thousands of digits
        text = f"a number of {value.bit_length()} bits" if isinstance(value, int) else "a value too large to write"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def below(where: str, key: str) -> str:
    """The place of a key in an object, whatever somebody has called it."""
    return f"{where}.{key if key.isidentifier() and key.isascii() and len(key) <= _SHOWN else shown(key)}"


# ---------------------------------------------------------------------------------------------------- typed values


def plain(value: Any) -> Any:
    """A value as JSON knows it: dataclasses become objects, tuples lists."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if is_dataclass(value):
        return _plain_fields(value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def typed(kind: Any, value: Any, where: str) -> Any:
    """A plain value as a type, checked: the opposite of :func:`plain`.

    Args:
        kind: int, float, str, bool, Any, ``X | None``, ``tuple[X, ...]``, ``tuple[X, Y]``, ``dict[str, X]``, a
            dataclass, or a class with ``from_json(value, where)``.

    Raises:
        ValueError: begins with the place of the fault in the file.
    """
    if kind is Any:
        return value
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        (kind,) = (argument for argument in arguments if argument is not types.NoneType)
        return None if value is None else typed(kind, value, where)
    if origin is tuple:
        return _typed_tuple(arguments, value, where)
    if origin is dict:
        require(value, dict, where)
        return {key: typed(arguments[1], item, below(where, key)) for key, item in value.items()}
    if hasattr(kind, "from_json"):
        return kind.from_json(value, where)
    if isinstance(kind, type) and is_dataclass(kind):
        return _read_fields(kind, value, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{where}: is {shown(value)}; it is too large") from None
    require(value, kind, where)
    return value


def _typed_tuple(kinds: Sequence[Any], value: Any, where: str) -> tuple[Any, ...]:
    require(value, list, where)
    if kinds[-1] is Ellipsis:
        kinds = [kinds[0]] * len(value)
    if len(value) != len(kinds):
        raise ValueError(f"{where}: has {len(value)} values; it must have {len(kinds)}")
    return tuple(typed(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True)))


def _plain_fields(value: Any) -> dict[str, Any]:
    return {field.name: plain(getattr(value, field.name)) for field in fields(value)}


def _read_fields(kind: type[T], value: Any, where: str) -> T:
    """A dataclass of the object that holds its fields; those with a default may be missing."""
    kinds = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    optional = {name for name, field in known.items() if (field.default, field.default_factory) != (MISSING, MISSING)}
    require_object(value, where, set(known), required=known.keys() - optional)
    given = {key: typed(kinds[key], item, f"{where}.{key}") for key, item in value.items()}
    try:
        return kind(**given)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
