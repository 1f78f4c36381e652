"""What the dataclass of a command's settings says about them: their keys, and their help, from its docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_type_hints

_ENTRY = re.compile(r"    (\w+(?:, \w+)*): (.*)")  # `lr: peak learning rate`, `flops, params: of the network`
_SENTENCE = re.compile(r"(.+?)\.(?=\s+[A-Z`]|$)")


def keys(schema: type[Any], prefix: str = "") -> Iterator[str]:
    """All settings of a schema, ``recipe`` and ``recipe.augment.flip`` among them."""
    for field in fields(schema):
        yield prefix + field.name
        group = _group(schema, field.name)
        if group is not None:
            yield from keys(group, f"{prefix}{field.name}.")


def describe(schema: type[Any], key: str) -> str:
    """Help for a setting such as ``recipe.lr``: the first sentence of its docstring; "" where there is none.

    A field with ``metadata={"choices": registry}`` is followed by the names in the registry.
    """
    *groups, leaf = key.split(".")
    for name in groups:
        group = _group(schema, name)
        assert group is not None, f"{name} in {key} has no settings of its own"
        schema = group
    texts = (_attributes(base).get(leaf) for base in schema.__mro__)
    text = next(filter(None, texts), "")
    sentence = _SENTENCE.match(text)
    plain = (sentence[1] if sentence else text).replace("``", "")
    plain = re.sub(r"\bNone\b", "null", plain)  # as the command line writes it
    (names,) = (field.metadata.get("choices", ()) for field in fields(schema) if field.name == leaf)
    return f"{plain}; choices: {', '.join(names)}" if names else plain


def _group(schema: type[Any], name: str) -> type[Any] | None:
    """The dataclass that a field holds, perhaps beside None; None for a plain value."""
    hint = get_type_hints(schema)[name]
    return next((kind for kind in (hint, *get_args(hint)) if isinstance(kind, type) and is_dataclass(kind)), None)


@cache
def _attributes(base: type[Any]) -> dict[str, str]:
    """Field -> what the ``Attributes:`` section of this very class says about it."""
    _, _, section = inspect.cleandoc(base.__doc__ or "").partition("\nAttributes:\n")
    texts: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        if not line.startswith("    "):
            break  # the next section, or the blank line before it
        entry = _ENTRY.fullmatch(line)
        if entry:
            names = entry[1].split(", ")
            texts |= dict.fromkeys(names, entry[2])
        else:
            texts |= {name: f"{texts[name]} {line.strip()}" for name in names}
    return texts
