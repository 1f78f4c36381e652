"""Every setting of every schema is documented where it is defined, and its help is the first sentence of that."""

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, get_args, get_type_hints

import pytest

from psvit.cli.commands import COMMANDS
from psvit.cli.compose import load
from psvit.cli.schema import describe, keys

SCHEMAS = {command.schema: load(command.schema) for command in COMMANDS.values()}


@dataclass
class Inner:
    """A group.

    Attributes:
        rate: peak rate, ``0.1`` or None. It falls later.
    """

    rate: float | None = None


@dataclass
class Base:
    """What is shared.

    Attributes:
        seed: of all
            that is drawn.
        low, high: an end; see docs/a.md.
    """

    seed: int = 0
    low: int = 1
    high: int = 2
    silent: int = 3


@dataclass
class Outer(Base):
    """A schema.

    Attributes:
        inner: the ``group``
        high: another end
        kind: one of some. Not all.

    Raises:
        silent: this is no attribute.
    """

    inner: Inner = field(default_factory=Inner)
    maybe: Inner | None = None
    kind: str = field(default="one", metadata={"choices": {"one": 1, "two": 2}})


def test_help_is_the_first_sentence() -> None:
    assert describe(Outer, "inner") == "the group"
    assert describe(Outer, "inner.rate") == "peak rate, 0.1 or null"
    assert describe(Outer, "maybe.rate") == "peak rate, 0.1 or null"
    assert describe(Outer, "seed") == "of all that is drawn"
    assert describe(Outer, "low") == describe(Base, "high") == "an end; see docs/a.md"
    assert describe(Outer, "high") == "another end"
    assert describe(Outer, "kind") == "one of some; choices: one, two"
    assert describe(Outer, "silent") == describe(Outer, "maybe") == ""


def test_keys_are_those_of_groups_and_their_settings() -> None:
    own = ["seed", "low", "high", "silent"]
    assert list(keys(Outer)) == [*own, "inner", "inner.rate", "maybe", "maybe.rate", "kind"]


def groups(schema: type[Any]) -> set[type[Any]]:
    """A schema and all dataclasses in it."""
    found = {schema}
    for hint in get_type_hints(schema).values():
        for kind in (hint, *get_args(hint)):
            if isinstance(kind, type) and is_dataclass(kind):
                found |= groups(kind)
    return found


@pytest.mark.parametrize("schema", sorted(set().union(*map(groups, SCHEMAS.values())), key=str))
def test_every_setting_is_documented(schema: type[Any]) -> None:
    for each in fields(schema):
        text = describe(schema, each.name)
        assert text, f"{schema.__name__}.{each.name} is not in its Attributes"
        assert not set("`\n") & set(text), text
        assert ":class:" not in text
        assert ":data:" not in text
