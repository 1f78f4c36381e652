"""What later budgets' picks are worth on images that did not pick them, as far as the searches' files tell. No torch.

What a history says of its best is in-sample: the same images scored all of them, and chose. Two things are not. Where
searches asked the same whatever the scores, the sums of each fold of the images are kept: within any budget each fold
can report on what the others choose (cross-fitting). Where they followed the scores, a third of the images was held
out, and top.csv says what the 20 best reach there; those images choose nothing within any budget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from psvit.intervals import Estimate
from psvit.search.claims import TOP_ROWS
from psvit.search.crossfit import FOLDS, FoldSums, cross_fitted_share
from psvit.search.records import SearchRecord
from psvit.search.tables import FOLD_COLUMNS, TOP


@dataclass(frozen=True)
class FreshScore:
    """What the picked architecture reaches on images that did not pick it; ``str`` says it in a line.

    Attributes:
        kind: ``cross-fitted``, ``held-out`` or ``none``.
        reason: why it is of this kind.
        num_images: that report; None for ``none``, as are the scores.
        top1: with a 95 % interval.
        loss: mean cross-entropy.
    """

    kind: str
    reason: str
    num_images: int | None = None
    top1: Estimate | None = None
    loss: float | None = None

    def __str__(self) -> str:
        if self.top1 is None:
            return f"no score of the first on images that did not pick it: {self.reason}"
        score = f"top-1 {self.top1}, loss {self.loss:.4f}"
        return f"the first, {self.kind} on {self.num_images:,} images ({self.reason}): {score}"


def fresh_score(ranked: pd.DataFrame, folders: Mapping[str, Path], rank_by: str) -> FreshScore:
    """The score, on other images, of the first of a ranking.

    Args:
        ranked: what was scored within a budget, best first, with the columns of ``history.csv`` and ``search``.
        folders: the run folder of each search.
        rank_by: ``loss`` or ``top1``, that they are ranked by.
    """
    rivals = ranked[ranked["num_images"] == ranked["num_images"].iloc[0]]  # others never come first
    names = [str(name) for name in rivals["search"].unique()]
    try:
        results = {name: SearchRecord.load(folders[name] / "result.json") for name in names}
        followed = [name for name, record in results.items() if not record.claims.cross_fitted]
        held_out = [TOP.read(folders[name] / "top.csv") for name in followed]
    except ValueError as error:
        return FreshScore("none", f"{error}")
    shares = {(record.claims.cross_fitted, record.claims.num_images) for record in results.values()}
    if len(shares) > 1:
        return FreshScore("none", f"{', '.join(names)} chose on different images; pick from one of them")
    ((cross_fitted, num_images),) = shares
    return _cross_fitted(rivals, rank_by) if cross_fitted else _held_out(rivals, held_out, num_images)


def _cross_fitted(rivals: pd.DataFrame, rank_by: str) -> FreshScore:
    """Each fold reports on the best that all others choose within the budget."""
    sums, num_images = rivals[list(FOLD_COLUMNS)].to_numpy(float), int(rivals["num_images"].iloc[0])
    fold_sums = FoldSums.of_images(sums[:, :FOLDS], sums[:, FOLDS:], num_images)
    chosen = fold_sums.fold_orders(rank_by, 1)[:, 0]
    top1, loss = cross_fitted_share(fold_sums, chosen)
    return FreshScore("cross-fitted", "each sixth of them by what the others pick", num_images, top1, loss)


def _held_out(rivals: pd.DataFrame, tables: Sequence[pd.DataFrame], num_images: int) -> FreshScore:
    """What a search has recorded of it on the images that it held out."""
    layers = rivals["layers"].iloc[0]
    for table in tables:
        for row in table[table["layers"] == layers].to_dict("records"):
            top1 = Estimate(*(float(row[key]) for key in ("fresh_top1", "fresh_low", "fresh_high")))
            return FreshScore("held-out", "no search saw them", num_images, top1, float(row["fresh_loss"]))
    return FreshScore(
        "none",
        f"a search that follows the scores tries its {TOP_ROWS} best on held-out images; {layers} is not one of them: "
        "search within this budget",
    )
