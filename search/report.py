"""``psvit-search report``: a search as one HTML page that opens without network and runs nothing. No torch.

What the search has written is read and shown; what is not there yet is said to be missing, so that an unfinished run
and one of an older version have a page, too.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from heapq import nsmallest
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

import psvit
from psvit.arch import LAYER_NAMES, NetworkSpec
from psvit.archfile import parse_network
from psvit.cost import Band, format_duration, format_quantity, network_cost
from psvit.inspect import parts
from psvit.run.files import sha256, write_text
from psvit.search.budget import Budget
from psvit.search.config import ReportConfig
from psvit.search.history import History
from psvit.search.latency import Conditions, LatencyTable, load_latency
from psvit.search.rank import summary
from psvit.search.trial import Trial
from psvit.search.trust import EQUAL_COST, RESAMPLES, gain_over_random, wilson
from psvit.supernet.space import ANY, SearchSpace

TOP, FRONT, FAILED = 20, 30, 20  # rows that are shown of the best, of the front and of what failed
_FEW = 10  # images a class: with fewer, one image is a tenth of a class's accuracy


def report_search(config: ReportConfig) -> Path:
    """Write the page of the search that the settings name, and say where it is.

    Raises:
        ValueError: no search is there, there are several, or one of its files is damaged.
    """
    page = report(_find(config))
    print(f"wrote {page}")
    return page


def report(folder: Path) -> Path:
    """Write ``report.html`` into the run folder of a search, from the files there.

    Raises:
        ValueError: nothing has been scored there, or a file is damaged.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    if not (folder / "history.csv").is_file():
        raise ValueError(f"{folder} holds no search: there is no history.csv; name the run folder of a search")
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
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
    page = folder / "report.html"
    write_text(page, environment.get_template("report.html.j2").render(_facts(folder)))
    return page


def _find(config: ReportConfig) -> Path:
    """The run folder that is named, or else the only search of the project."""
    project = Path(config.runs) / config.name
    folder = Path(config.run) if config.run is not None else project
    if (folder / "history.csv").is_file():
        return folder
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; name the run folder of a search")
    searches = sorted(path.parent for path in folder.rglob("history.csv"))
    if not searches:
        raise ValueError(f"{folder} holds no search: there is no history.csv; run psvit-search evolve first")
    if config.run is None and len(searches) == 1:
        return searches[0]
    names = ", ".join(map(str, searches))
    raise ValueError(f"{folder} is no search by itself; write psvit-search report RUN with one of {names}")


def _facts(folder: Path) -> dict[str, Any]:
    """All that the template shows."""
    history = History(folder / "history.csv")
    identity, result = _json(folder / "history.json") or {}, _json(folder / "result.json")
    space, budget = _space(identity.get("space")), _budget(identity.get("budget"))
    scored = [trial for trial in history.trials if not trial.failed]
    failed = [trial for trial in history.trials if trial.failed]
    images = max((trial.images for trial in scored), default=0)
    whole = [trial for trial in scored if trial.images == images]
    best = nsmallest(TOP, whole, key=lambda trial: trial.sort_key)
    winner = best[0] if best else None
    top = _top(folder, best)
    front = _csv(folder / "front.csv")
    config = _text(folder / "config.yaml")
    split = identity.get("search_split") or {}
    return {
        "folder": folder.resolve().name,
        "finished": result is not None,
        "outdated": winner is not None and result is not None and result.get("layers") != str(winner.architecture),
        "space": space,
        "budget": budget,
        "within": None if space is None or budget is None else budget.within(space).count,
        "latency": _latency(folder, budget, winner),
        "searcher": identity.get("searcher"),
        "placements": identity.get("placements"),
        "scored": len(scored),
        "images": images,
        "partly": len(scored) - len(whole),
        "failed": failed[:FAILED],
        "failures": len(failed),
        "winner": winner,
        "interval": None if winner is None else [float(end) for end in wilson(winner.top1, images)],
        "stages": [] if winner is None or space is None else _stages(space.spec, winner),
        "top": top,
        "resamples": RESAMPLES,
        "gain": None if winner is None else _gain(folder, winner, result),
        "equal_cost": EQUAL_COST,
        "warnings": _warnings(top, images, space),
        "race": _race(folder),
        "front": None if front is None else front.head(FRONT).to_dict("records"),
        "front_size": 0 if front is None else len(front),
        "ranks": _ranks(folder, identity.get("supernet_sha256")),
        "pictures": {name: _picture(folder / f"{name}.png") for name in ("scores", "progress", "architecture")},
        "command": (result or {}).get("command") or _command(config),
        "config": config,
        "versions": _json(folder / "versions.json"),
        "supernet": identity.get("supernet_sha256"),
        "split": split,
        "seed": identity.get("seed"),
        "files": [(path.name, sha256(path)) for path in _data_files(folder)],
        "tool": f"psvit-search {psvit.__version__}",
    }


def _space(record: dict[str, Any] | None) -> SearchSpace | None:
    if record is None:
        return None
    return SearchSpace(parse_network({k: v for k, v in record.items() if k != "cells"}), record["cells"])


def _budget(record: dict[str, Any] | None) -> Budget | None:
    """The budget that ``Budget.to_json`` has recorded."""
    if record is None:
        return None
    bands = {key: Band(*record[key]) if key in record else ANY for key in ("flops", "params", "latency")}
    return Budget(**bands, table=_latency_table(record.get("latency_table")))


def _latency_table(record: dict[str, Any] | None) -> LatencyTable | None:
    if record is None:
        return None
    keys = ("device", "threads", "batch", "precision", "torch")
    conditions = Conditions(**{key: record[key] for key in keys}, network=parse_network(record["network"]))
    return LatencyTable(conditions, record["fixed"], tuple(record["basic"]), tuple(record["sharing"]))


def _latency(folder: Path, budget: Budget | None, winner: Trial | None) -> dict[str, str] | None:
    """What a budget of latency means, and the winner's; None where there is no such budget."""
    if budget is None or budget.table is None:
        return None
    measured = folder / "latency.json"
    return {
        "winner": "" if winner is None else format_duration(budget.table.predict(winner.architecture)),
        "conditions": str(budget.table.conditions),
        "trust": load_latency(measured).trust if measured.is_file() else "",
    }


def _stages(spec: NetworkSpec, winner: Trial) -> list[dict[str, Any]]:
    """Rows of the table of the winner's parts, from stem to head."""
    total = network_cost(spec, winner.architecture).flops
    return [
        {
            "name": part.name,
            "layers": part.layers or "",
            "words": ", ".join(LAYER_NAMES[letter] for letter in part.layers or ""),
            "tokens": part.tokens,
            "grid": part.grid if spec.kind == "2d" else None,
            "width": part.width,
            "heads": part.heads,
            "flops": part.cost.flops,
            "params": part.cost.params,
            "share": part.cost.flops / total,
        }
        for part in parts(spec, winner.architecture)
    ]


def _top(folder: Path, best: Sequence[Trial]) -> list[dict[str, Any]]:
    """Rows of ``top.csv``; of a run without it, the best trials with the intervals that the history alone gives."""
    table = _csv(folder / "top.csv")
    if table is not None:
        return [{str(key): value for key, value in row.items()} for row in table.head(TOP).to_dict("records")]
    rows = [trial.row(place) for place, trial in enumerate(best, start=1)]
    for row in rows:
        low, high = wilson(row["top1"], row["images"])
        row |= {"place": row["number"], "low": float(low), "high": float(high)}
    return rows


def _gain(folder: Path, winner: Trial, result: dict[str, Any] | None) -> str | None:
    """The winner among random architectures of equal cost, in a sentence."""
    baseline = folder / f"baseline_{winner.architecture}.csv"
    if baseline.is_file():
        return str(gain_over_random(winner, History(baseline).trials))
    if result is not None and result.get("layers") == str(winner.architecture):
        return result.get("comparison")
    return None


def _warnings(top: Sequence[dict[str, Any]], images: int, space: SearchSpace | None) -> list[str]:
    """Why the scores may not tell the best apart."""
    warnings = []
    if space is not None and 0 < images < _FEW * space.spec.classes:
        warnings.append(
            f"The search split is small: {images:,} images of {space.spec.classes:,} classes are fewer than {_FEW} a "
            "class. A larger data.search_fraction for the supernet makes the scores surer."
        )
    if len(top) > 1:
        wide, spread = top[0]["high"] - top[0]["low"], top[0]["top1"] - top[-1]["top1"]
        if wide > spread:
            warnings.append(
                f"The best {len(top)} lie within {spread:.4f} of top-1, but the winner's 95 % interval is {wide:.4f} "
                "wide: these images hardly tell them apart."
            )
    return warnings


def _race(folder: Path) -> dict[str, Any] | None:
    """What racing dropped and saved."""
    race = _json(folder / "race.json")
    if race is None:
        return None
    madds = race.get("madds") or {}
    saved = 1 - madds["race"] / madds["full"] if madds.get("full") else None
    return {"confidence": None, "k": None, "image_share": None} | race | {"madds": madds, "saved": saved}


def _command(config: str | None) -> str | None:
    """A command line of all settings in a search's config.yaml; it repeats the search whatever the defaults are."""
    settings = yaml.safe_load(config) if config else None
    if not isinstance(settings, dict):
        return None
    searcher = (settings.get("search") or {}).get("searcher", "")
    words = [f"{key}={_hydra(value)}" for key, value in _flatten(settings)]
    return shlex.join(["psvit-search", searcher, *words])


def _flatten(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _hydra(value: Any) -> str:
    """A plain value in the grammar of Hydra's overrides."""
    if isinstance(value, list):
        return f"[{','.join(map(_hydra, value))}]"
    if not isinstance(value, str):
        return json.dumps(value)
    if re.fullmatch(r"[\w/.+-]+", value) and not _is_other(value):
        return value
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), value)
    return f"'{escaped}'"


def _is_other(text: str) -> bool:
    """Whether Hydra would take a text for a number, a truth value or nothing."""
    try:
        float(text)
    except ValueError:
        return text.lower() in ("null", "true", "false")
    return True


def _data_files(folder: Path) -> list[Path]:
    """The files that hold the result, pictures apart."""
    return [path for path in sorted(folder.iterdir()) if path.suffix in (".csv", ".json", ".yaml")]


def _ranks(folder: Path, supernet: str | None) -> list[dict[str, Any]]:
    """What ``psvit-search rank`` has found out about the same supernet, in the folders beside this one."""
    ranks = []
    for path in sorted(folder.resolve().parent.glob("rank*/rank.json")):
        figures = _json(path)
        if figures["how"]["supernet_sha256"] == supernet:
            networks, lines = figures["networks"], summary(figures).splitlines()
            picture = _picture(path.with_name("rank.png"))
            ranks.append({"name": path.parent.name, "networks": networks, "lines": lines, "picture": picture})
    return ranks


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def _json(path: Path) -> Any:
    """What a JSON file holds; None when there is none."""
    text = _text(path)
    try:
        return None if text is None else json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read as JSON ({error}); start the same search again to mend it") from None


def _csv(path: Path) -> pd.DataFrame | None:
    """A table; None when there is none."""
    try:
        return pd.read_csv(path) if path.is_file() else None
    except ValueError as error:
        raise ValueError(f"{path}: is no table ({error}); start the same search again to mend it") from None


def _picture(path: Path) -> str | None:
    """A PNG as the address of an image in the page itself; None when there is none."""
    if not path.is_file():
        return None
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
