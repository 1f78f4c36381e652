"""Settings composed by Hydra from ``conf/``, a command's schema and overrides."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psvit
from psvit.cli.commands import Command
from psvit.search.searchers import AUTO, SEARCHERS

if TYPE_CHECKING:
    from hydra.core.config_store import ConfigStore
    from omegaconf import DictConfig

CONF = Path(psvit.__file__).resolve().parent / "conf"
FALLBACK = "imagefolder"  # whose recipes train a dataset that has none of its own
LARGE = "imagenet"  # whose recipes are for a million images


def load(name: str) -> Any:
    """The object that ``module:attribute`` names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def settings(command: Command, overrides: Sequence[str] = ()) -> Any:
    """A command's settings as its task gets them, an instance of its schema; raises as :func:`composed`."""
    return composed(command, overrides)[0]


def composed(command: Command, overrides: Sequence[str]) -> tuple[Any, str | None]:
    """A command's settings as its task gets them, an instance of its schema; and a note on borrowed recipes.

    Raises:
        hydra.errors.HydraException, omegaconf.errors.OmegaConfBaseException: an override that cannot be read or does
            not fit, or a setting that has to be given and is not.
        ValueError: what the schema refuses.
    """
    with composer(command) as compose:
        config = compose(overrides)
        note = borrowed_note(config.hydra.runtime.choices)
        del config.hydra
        return instantiate(config, load(command.schema)), note


def instantiate(config: DictConfig, schema: type[Any]) -> Any:
    """What Hydra has composed, as an instance of the schema; what ``+key=value`` has added must be known to it."""
    from omegaconf import OmegaConf

    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.to_container(config)))


@contextmanager
def composer(command: Command) -> Iterator[Callable[[Sequence[str]], DictConfig]]:
    """A function that composes a command's settings from overrides, inside a run of Hydra and outside."""
    import hydra
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra

    outer, others = GlobalHydra.instance().hydra, _other_schemas(command)
    register(command)
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            yield lambda overrides: hydra.compose(command.config, list(overrides), return_hydra_config=True)
    finally:
        GlobalHydra.instance().hydra = outer
        ConfigStore.instance().repo |= others


def _other_schemas(command: Command) -> dict[str, Any]:
    """Take the schemas of other commands out of Hydra's store, which it copies whole for each composition.

    They have to come back: where this command is composed inside a job of another one, that one's sweep goes on.
    """
    from hydra.core.config_store import ConfigStore

    repo = ConfigStore.instance().repo
    names = [name for name in repo if name.endswith("-schema.yaml") and name != f"{command.config}-schema.yaml"]
    return {name: repo.pop(name) for name in names}


def choices(group: str) -> list[str]:
    """The names in a group of ``conf/``, where Hydra is initialised."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.object_type import ObjectType

    # Its sources are asked one by one: the loader's own get_group_options copies all that Hydra knows each time.
    sources = GlobalHydra.instance().config_loader().get_sources()
    return sorted(
        {name for source in sources if source.is_group(group) for name in source.list(group, ObjectType.CONFIG)}
    )


def register(command: Command) -> type[Any]:
    """Tell Hydra a command's schema, the names in our registries, and the functions that ``conf/`` calls.

    Returns:
        The schema.
    """
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    schema: type[Any] = load(command.schema)
    keys = {field.name for field in fields(schema)}
    store = ConfigStore.instance()
    store.store(name=f"{command.config}-schema", node=schema)
    if "space" in keys:
        _store_spaces(store)
    if "search" in keys:
        for name in (*SEARCHERS, AUTO):
            store.store(group="search", name=name, node={"searcher": name})
    if not (CONF / f"{command.config}.yaml").exists():
        store.store(name=command.config, node=_config(command, keys))
    OmegaConf.register_new_resolver("search_folder", search_folder, replace=True)
    OmegaConf.register_new_resolver("recipe_of", recipe_of, replace=True)
    return schema


def _config(command: Command, keys: set[str]) -> dict[str, Any]:
    """The config of a command without a YAML file: what all have in common, its schema, and the folder of its run."""
    search = ["searcher", {"search": command.name}] if command.name in SEARCHERS else []
    defaults = ["common", f"{command.config}-schema", *search, {"override hydra/job_logging": "none"}, "_self_"]
    config: dict[str, Any] = {"defaults": defaults, "hydra": {"job": {"name": command.config}}}
    if {"runs", "name", "out"} <= keys and not search:
        config["out"] = f"${{runs}}/${{name}}/{command.config}"
    return config


def _store_spaces(store: ConfigStore) -> None:
    """``space=NAME`` for every named space."""
    from psvit.supernet.config import SpaceConfig
    from psvit.zoo import SPACES

    for name, spec in SPACES.items():
        if f"{name}.yaml" not in store.repo.get("space", {}):
            store.store(group="space", name=name, node=SpaceConfig.of(spec))


def recipe_of(kind: str, data: str) -> str:
    """Name of the recipe by which a dataset is trained: ``supernet/digits``, or the fallback's if it has none."""
    return f"{kind}/{data if data in choices(f'recipe/{kind}') else FALLBACK}"


def borrowed_note(chosen: Mapping[str, str | None]) -> str | None:
    """A line on those of Hydra's choices that :func:`recipe_of` made for want of a recipe; None if there are none."""
    data = chosen.get("data")
    recipes = [(group, name) for group, name in chosen.items() if group.partition("@")[0] == "recipe" and name]
    kinds = [name.partition("/")[0] for _, name in recipes]
    borrowed = " ".join(
        f"{group}={name}"
        for (group, name), kind in zip(recipes, kinds, strict=True)
        if data and recipe_of(kind, data) == name != f"{kind}/{data}"
    )
    if not borrowed:
        return None
    return (
        f"note: data={data} has no recipe of its own; it takes {borrowed}, for thousands of images (for a million: "
        f"{borrowed.replace(FALLBACK, LARGE)})"
    )


def search_folder(searcher: str, flops: str | None, params: str | None, seed: int, latency: str | None = None) -> str:
    """Name of a search's folder, ``evolve-1.3G-16Mparams-2ms-seed1``: what two searches of a supernet differ in."""
    parts = [searcher, flops, params and f"{params}params", latency, f"seed{seed}" if seed else None]
    return "-".join(re.sub(r"[^\w.+-]+", "", part) for part in parts if part)
