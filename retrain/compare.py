"""``psvit-search compare``: trained networks side by side, paired image by image on the same test split.

The first run's network is compared with each other one. Runs of the same network are its seeds. What is printed of a
pair holds for other images of this kind and, with several seeds, for other trainings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

import psvit
from psvit.data.record import DATA, DataRecord
from psvit.engine.outcomes import OUTCOMES, ImageOutcomes
from psvit.intervals import Estimate, mean_interval, share
from psvit.retrain.config import CompareConfig
from psvit.retrain.plots import draw_comparison
from psvit.retrain.results import ComparedNetwork, CompareRecord, RetrainRecord
from psvit.run.files import write_text
from psvit.run.folder import differences
from psvit.units import format_quantity

_TRAINING = ("recipe", "hold_out", "distill", "adapt")  # settings that make two trainings comparable
_FREE = ("recipe.checkpoint_every",)


@dataclass(frozen=True)
class _Run:
    """A finished retraining."""

    folder: Path
    record: RetrainRecord
    outcomes: ImageOutcomes
    data: DataRecord
    training: dict[str, object]

    @classmethod
    def read(cls, folder: Path) -> _Run:
        """The files of a run folder.

        Raises:
            ValueError: it holds no finished retraining, or a file is damaged.
        """
        if not (folder / "result.json").is_file():
            raise ValueError(f"{folder} holds no finished retraining: there is no result.json; retrain it first")
        settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        training = {key: settings.get(key) for key in _TRAINING} if isinstance(settings, dict) else {}
        record, outcomes = RetrainRecord.load(folder / "result.json"), ImageOutcomes.load(folder / OUTCOMES)
        return cls(folder, record, outcomes, DataRecord.load(folder / DATA), training)

    @property
    def network(self) -> str:
        """What tells networks apart: ``2d_mini_4 B-BS-B``."""
        return f"{self.record.network} {self.record.layers or ''}".rstrip()


def compare(config: CompareConfig) -> CompareRecord:
    """Compare finished retrainings, print what was found and, with ``save``, write it as table, record and picture.

    Raises:
        ValueError: fewer than two networks, a run that is not finished, other data or (unless ``any_recipe``) another
            recipe than the first run's, or the same seed twice.
    """
    runs = [_Run.read(Path(folder)) for folder in config.runs]
    for run in runs[1:]:
        _check_same(runs[0], run, config.any_recipe)
    networks: dict[str, list[_Run]] = {}
    for run in runs:
        networks.setdefault(run.network, []).append(run)
    if len(networks) < 2:
        raise ValueError(f"all runs are of {runs[0].network}; give a run of another network to compare it with")
    for name, seeds in networks.items():
        numbers = [run.record.seed for run in seeds]
        if len(set(numbers)) < len(numbers):
            raise ValueError(f"{name} is there twice with the same seed ({numbers}); give each training once")
        seeds.sort(key=lambda run: run.record.seed)
    record = _record(networks)
    text = "\n".join(_table(record))
    print(text)
    if config.save is not None:
        folder = Path(config.save)
        record.save(folder / "compare.json")
        write_text(folder / "compare.md", text + "\n")
        draw_comparison(record, folder / "compare.png")
        print(f"wrote {folder / 'compare.md'}, and compare.json and compare.png beside it")
    return record


def _check_same(first: _Run, other: _Run, any_recipe: bool) -> None:
    """Refuse a run whose figures are not of the same images, or not of the same training."""
    if changed := first.data.changes(other.data):
        raise ValueError(f"{other.folder} is on other data than {first.folder}: {'; '.join(changed)}")
    if not np.array_equal(first.outcomes.labels, other.outcomes.labels):
        raise ValueError(f"{other.folder} was tested on other images than {first.folder}; retrain one of them")
    changed = [line for line in differences(first.training, other.training) if not line.startswith(_FREE)]
    if changed and not any_recipe:
        raise ValueError(
            f"{other.folder} was not trained as {first.folder}: {'; '.join(changed)}; retrain one of them, or compare "
            "them all the same with any_recipe=true"
        )


def _record(networks: dict[str, list[_Run]]) -> CompareRecord:
    """Everything that is said of the networks, the first one first."""
    (first, winner), *others = networks.items()
    compared = tuple(
        ComparedNetwork(
            name,
            runs[0].record.flops,
            runs[0].record.params,
            tuple(run.record.seed for run in runs),
            _top1(runs),
            _mean([run.outcomes.loss.astype(np.float64) for run in runs]),
            None if runs is winner else _mean(_ahead(winner, runs, "correct")),
            None if runs is winner else _mean(_ahead(runs, winner, "loss")),
        )
        for name, runs in networks.items()
    )
    record = winner[0].record
    kin = [runs for _, runs in others if runs[0].record.network == record.network and record.layers]
    mean = [row for runs in kin for row in _ahead(winner, runs, "correct")]
    return CompareRecord(
        first=first,
        data=record.data,
        num_images=record.num_test_images,
        epochs=record.epochs,
        networks=compared,
        others=len(kin),
        ahead_of_others=_mean(mean) if len(kin) > 1 else None,
        tool=f"psvit-search {psvit.__version__}",
    )


def _top1(runs: Sequence[_Run]) -> Estimate:
    """Of one training Wilson's interval, which holds near 1 and for few images, too."""
    correct = [run.outcomes.correct for run in runs]
    alone = share(correct[0].sum(), len(correct[0])) if len(runs) == 1 else None
    return alone or _mean([each.astype(np.float64) for each in correct])


def _mean(rows: Sequence[np.ndarray]) -> Estimate:
    """Over images and, where there are several, over trainings."""
    return mean_interval(np.stack(rows))


def _ahead(one: Sequence[_Run], other: Sequence[_Run], what: str) -> list[np.ndarray]:
    """How much more one network has of something than another, image by image: a row for each pair of trainings.

    Trainings of one seed are a pair: they see the images in one order, which may be lucky for both. The others are
    paired by the order of their seeds; where one network has more, its last are left out.
    """
    shared = {run.record.seed for run in one} & {run.record.seed for run in other}
    ours, theirs = (sorted(runs, key=lambda run: run.record.seed not in shared) for runs in (one, other))
    return [
        getattr(a.outcomes, what).astype(np.float64) - getattr(b.outcomes, what).astype(np.float64)
        for a, b in zip(ours, theirs, strict=False)
    ]


def _table(record: CompareRecord) -> list[str]:
    """The comparison in Markdown, and a sentence on each pair."""
    lines = [
        f"{record.data}: {record.num_images:,} test images, {record.epochs} epochs. Intervals (95 %) are over images "
        "and, with several seeds, over trainings; `ahead` is how much higher the first network's top-1 is.",
        "",
        "| network | FLOPs | parameters | seeds | top-1 | loss | ahead |",
        "|---|--:|--:|--:|---|---|---|",
    ]
    lines += [
        f"| {each.network} | {format_quantity(each.flops)} | {format_quantity(each.params)} | {len(each.seeds)} "
        f"| {each.top1} | {each.loss} | {each.ahead_top1 or ''} |"
        for each in record.networks
    ]
    return [*lines, "", *record.lines]
