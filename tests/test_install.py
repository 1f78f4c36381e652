"""What an install is made of: the lock beside the ranges that it locks, and the version that is cited."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

import psvit

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()


def test_the_lock_meets_the_ranges() -> None:
    """`make lock` makes it anew."""
    locked: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==(\S+)", LOCK, re.MULTILINE):
        locked.setdefault(name, []).append(version)
    extras = PROJECT["optional-dependencies"]
    for text in [*PROJECT["dependencies"], *extras["test"], *extras["dev"]]:
        wanted = Requirement(text)
        assert locked.get(wanted.name.lower()), f"{wanted.name} is not locked"
        assert all(version in wanted.specifier for version in locked[wanted.name.lower()]), text


def test_the_lock_has_a_hash_for_everything_and_names_no_host() -> None:
    packages = re.split(r"^(?=[a-z0-9-]+==)", LOCK, flags=re.MULTILINE)[1:]
    assert len(packages) > 50
    for package in packages:
        assert re.fullmatch(r"[^\n]+ \\\n(    --hash=sha256:[0-9a-f]{64}( \\)?\n)+", package), package


def test_the_cited_version_is_this_one() -> None:
    assert f"\nversion: {psvit.__version__}\n" in (ROOT / "CITATION.cff").read_text()
