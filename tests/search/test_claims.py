"""What a search claims of its winner: from which images, by which formulas, and in which words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.coverage import OTHERS, World
from psvit.arch import Architecture
from psvit.search.claims import TOP_ROWS, Claims, ImageShares, Reporter
from psvit.search.crossfit import (
    FOLDS,
    FoldSums,
    Headroom,
    cross_fitted_difference,
    cross_fitted_gain,
    cross_fitted_score,
    headroom,
    not_told_apart,
    reliability,
)
from psvit.search.evaluator import Outcomes
from psvit.search.tables import TOP
from psvit.search.trial import Trial
from psvit.supernet.space import SearchSpace
from psvit.zoo import SPACES
from tests.search.builders import claims

SPACE = SearchSpace(SPACES["2d_mini_4"])


class Scored:
    """All the outcomes of a search, of which some are asked for; the last ``others`` rows are the comparison."""

    def __init__(self, correct: np.ndarray, loss: np.ndarray, others: int, adaptive: bool, rank_by: str) -> None:
        self.correct, self.loss, self.asked = correct, loss, []
        within = SPACE.within()
        self.architectures = [within.unrank(number * 1000) for number in range(len(correct))]
        self.shares = ImageShares.of(correct.shape[1], adaptive)
        self.folds = self.shares.assign_folds(np.arange(correct.shape[1]) % 10, seed=0)
        searched = slice(0, len(self.shares.search))
        self.sums = FoldSums.of(correct[:, searched], loss[:, searched], self.folds[searched])
        trials = [self.trial(row) for row in range(len(correct))]
        self.searched, self.baseline = trials[: len(correct) - others], trials[len(correct) - others :]
        self.reporter = Reporter(self.searched, self, self.shares, self.folds, rank_by)
        self.order = sorted(range(len(self.searched)), key=lambda row: trials[row].sort_key(rank_by))

    def trial(self, row: int) -> Trial:
        images = len(self.shares.search)
        correct, loss = self.sums.correct[row], self.sums.loss[row]
        scores = (float(correct.sum() / images), float(loss.sum() / images), images)
        architecture = self.architectures[row]
        cost = SPACE.cost(architecture)
        return Trial(architecture, cost.flops, cost.params, *scores, 0, (*correct.tolist(), *loss.tolist()))

    def __call__(self, architectures: Sequence[Architecture], images: range) -> Outcomes:
        self.asked.append(images)
        rows = [self.architectures.index(architecture) for architecture in architectures]
        part = slice(images.start, images.stop)
        return Outcomes(self.correct[rows, part], self.loss[rows, part])

    def of_order(self, sums: FoldSums) -> FoldSums:
        """The sums of what was searched, best first."""
        return FoldSums(sums.correct[self.order], sums.loss[self.order], sums.sizes)


def draw(
    seed: int, images: int = 150, others: int = OTHERS, adaptive: bool = False, rank_by: str = "loss", spread: float = 1
) -> Scored:
    rng = np.random.default_rng(seed)
    world = World.draw(rng)
    world = World(spread * world.skill, spread * world.taste)
    return Scored(*world.score(images, rng), others, adaptive, rank_by)


both = pytest.mark.parametrize("adaptive", [False, True], ids=["cross-fitted", "held out"])
ranks = pytest.mark.parametrize("rank_by", ["loss", "top1"])


# ---------------------------------------------------------------------------------------------------- shares


@pytest.mark.parametrize("images", [36, 37, 38, 143, 1000])
def test_the_shares_of_an_adaptive_search_are_disjoint_and_all(images: int) -> None:
    shares = ImageShares.of(images, adaptive=True)
    assert [*shares.search, *shares.report] == list(range(images))
    assert len(shares.report) == images // 3 >= 2 * FOLDS
    assert not shares.cross_fitted
    whole = ImageShares.of(images, adaptive=False)
    assert whole.search == whole.report == range(images)
    assert whole.cross_fitted


@both
@pytest.mark.parametrize("images", [36, 143, 1001])
def test_folds_are_even_in_each_share_and_class(images: int, adaptive: bool) -> None:
    shares, labels = ImageShares.of(images, adaptive), np.random.default_rng(0).integers(0, 5, images)
    folds = shares.assign_folds(labels, seed=3)
    assert folds.shape == (images,)
    for share in (shares.search, shares.report):
        part, classes = folds[share.start : share.stop], labels[share.start : share.stop]
        assert np.ptp(np.bincount(part, minlength=FOLDS)) <= 1
        for label in range(5):
            assert np.ptp(np.bincount(part[classes == label], minlength=FOLDS)) <= 1


@both
def test_too_few_images_are_refused(adaptive: bool) -> None:
    with pytest.raises(ValueError, match=r"on 35 images; it needs 36 at least: .*data\.search_fraction$"):
        ImageShares.of(35, adaptive)


@both
def test_only_the_reporting_images_report(adaptive: bool) -> None:
    scored = draw(0, adaptive=adaptive)
    scored.reporter(scored.baseline)
    assert scored.asked == [range(100, 150) if adaptive else range(150)]


def test_the_reporting_images_have_no_say_in_the_choice() -> None:
    """Whatever they hold, the same winner is ranked first; what is claimed of it is theirs alone."""
    scored, other = draw(0, adaptive=True), draw(0, adaptive=True)
    other.correct[:, 100:] = ~other.correct[:, 100:]
    other.loss[:, 100:] = other.loss[::-1, 100:].copy()
    (found, top), (changed, changed_top) = scored.reporter(scored.baseline), other.reporter(other.baseline)
    assert list(top["layers"]) == list(changed_top["layers"])
    assert (found.reliability, found.top1) != (changed.reliability, changed.top1)
    assert found.reliability == changed.reliability
    assert changed.top1.value == pytest.approx(1 - found.top1.value)


# ---------------------------------------------------------------------------------------------------- figures


@both
@ranks
def test_claims_are_those_of_the_formulas(adaptive: bool, rank_by: str) -> None:
    scored = draw(1, adaptive=adaptive, rank_by=rank_by)
    found, top = scored.reporter(scored.baseline)
    number, sums = len(scored.searched), scored.of_order(scored.sums)
    report = slice(scored.shares.report.start, scored.shares.report.stop)
    folds = scored.folds[report]
    correct, loss = scored.correct[scored.order][:, report], scored.loss[scored.order][:, report].astype(float)
    others, other_loss = scored.correct[number:, report].astype(float), scored.loss[number:, report].astype(float)
    places = np.tile(np.arange(TOP_ROWS), (FOLDS, 1)) if adaptive else sums.fold_orders(rank_by, TOP_ROWS)
    chosen = places[:, 0]
    assert adaptive or len(set(chosen)) > 1  # else the folds agree, and show nothing
    for estimate, expected in (
        (found.top1, cross_fitted_score(correct, chosen, folds)),
        (found.loss, cross_fitted_score(loss, chosen, folds)),
        (found.gain_top1, cross_fitted_gain(correct, chosen, folds, others)),
        (found.gain_loss, cross_fitted_gain(-loss, chosen, folds, -other_loss)),
    ):
        assert estimate is not None
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx(
            (expected.value, expected.low, expected.high)
        )
    assert found.reliability == reliability(sums)
    assert (found.num_images, found.others, found.cross_fitted) == (len(folds), OTHERS, not adaptive)
    assert list(top.columns) == list(TOP.columns)
    assert list(top["layers"]) == [str(scored.architectures[row]) for row in scored.order[:TOP_ROWS]]
    for row in top.itertuples():
        at = places[:, row.place - 1]
        behind = cross_fitted_difference(correct.astype(float), chosen, at, folds)
        fresh = cross_fitted_score(correct, at, folds)
        assert (row.fresh_top1, row.fresh_low, row.fresh_high) == pytest.approx((fresh.value, fresh.low, fresh.high))
        assert row.fresh_loss == pytest.approx(cross_fitted_score(loss, at, folds).value)
        assert (row.behind, row.behind_low, row.behind_high) == pytest.approx((behind.value, behind.low, behind.high))


@both
@ranks
def test_the_winner_is_tied_with_itself_and_the_cheapest_is_of_the_tied(adaptive: bool, rank_by: str) -> None:
    for seed in range(6):
        scored = draw(seed, images=600, adaptive=adaptive, rank_by=rank_by, spread=3)
        found, _ = scored.reporter(scored.baseline)
        sums = scored.of_order(scored.sums)
        chosen = sums.fold_orders(rank_by, 1)[:, 0]
        report = slice(scored.shares.report.start, scored.shares.report.stop)
        rows = np.unique(np.arange(TOP_ROWS) if adaptive else sums.fold_orders(rank_by, TOP_ROWS))
        tied = not_told_apart(sums, chosen, scored.loss[scored.order][rows, report].astype(float))
        tied[0] = True
        flops = [SPACE.cost(scored.architectures[row]).flops for row in scored.order]
        assert found.tied == tied.sum() < len(scored.searched)
        assert found.cheapest_flops == min(cost for cost, is_tied in zip(flops, tied, strict=True) if is_tied)
        assert found.cheapest_flops <= flops[0]
        assert found.cheapest is not None
        assert SPACE.cost(Architecture.parse(found.cheapest)).flops == found.cheapest_flops


def test_a_winner_that_most_folds_do_not_choose_is_tied_with_itself() -> None:
    """By top-1 it leads by one image, so that folds without that image choose another, of a much lower loss."""
    folds = ImageShares.of(36, adaptive=False).assign_folds(np.arange(36) % 10, seed=0)
    correct = np.zeros((2, 36), bool)
    for fold, lead in enumerate((1, 1, 1, 1, -1, -2)):
        members = np.flatnonzero(folds == fold)
        correct[0, members[: 3 + lead]] = correct[1, members[:3]] = True
    loss = np.repeat([[2.0], [0.1]], 36, axis=1) + np.random.default_rng(0).normal(0, 0.01, (2, 36))
    scored = Scored(correct, loss, 0, adaptive=False, rank_by="top1")
    chosen = scored.of_order(scored.sums).fold_orders("top1", 1)[:, 0]
    assert scored.order == [0, 1]
    assert chosen.tolist() == [1, 1, 1, 1, 0, 0]
    assert scored.reporter([])[0].tied == 2


@both
def test_equals_gain_nothing_though_the_winner_leads_on_its_own_images(adaptive: bool) -> None:
    gains, leads = [], []
    for seed in range(40):
        scored = draw(seed, adaptive=adaptive, spread=0)
        found, _ = scored.reporter(scored.baseline)
        assert found.gain_top1 is not None
        assert found.gain_loss is not None
        gains.append((found.gain_top1.value, found.gain_loss.value))
        leads.append(np.mean([trial.loss for trial in scored.baseline]) - scored.reporter.trials[0].loss)
    error = np.std(gains, axis=0, ddof=1) / np.sqrt(len(gains))
    assert (np.abs(np.mean(gains, axis=0)) < 3 * error).all()
    assert np.mean(leads) > 10 * error[1]
    assert min(leads) > 0


@both
def test_headroom_is_of_the_images_that_were_searched_on(adaptive: bool) -> None:
    scored = draw(4, images=600, adaptive=adaptive, spread=3)
    found, _ = scored.reporter(scored.baseline)
    rows, images = slice(len(scored.searched), None), slice(0, len(scored.shares.search))
    drawn = FoldSums.of(scored.correct[rows, images], scored.loss[rows, images], scored.folds[images])
    assert found.headroom == headroom(drawn)
    assert found.headroom is not None
    assert found.flops == scored.reporter.trials[0].flops


@ranks
def test_the_place_counts_those_that_are_better(rank_by: str) -> None:
    for seed in range(5):
        scored = draw(seed, adaptive=True, rank_by=rank_by)
        found, _ = scored.reporter(scored.baseline)
        winner = scored.architectures.index(scored.reporter.trials[0].architecture)
        rows = [winner, *range(len(scored.searched), len(scored.correct))]
        better = [scored.loss[row, 100:].mean(dtype=float) for row in rows]
        if rank_by == "top1":
            better = [-int(scored.correct[row, 100:].sum()) for row in rows]
        assert found.place == 1 + sum(each < better[0] for each in better[1:])


def test_without_a_comparison_there_is_no_gain() -> None:
    scored = draw(2)
    none, _ = scored.reporter([])
    assert (none.others, none.place, none.gain_top1, none.gain_loss) == (0, None, None, None)
    assert none.lines[1] == "no other architectures of equal cost were scored to compare it with"
    failed = replace(scored.baseline[0], top1=float("nan"), loss=float("nan"))
    one, _ = scored.reporter([failed, scored.baseline[1]])
    assert (one.others, one.gain_top1, one.gain_loss) == (1, None, None)
    assert one.place in (1, 2)
    assert one.lines[1] == f"next to 1 random architecture of equal cost (within 2%): place {one.place} of 2"


def test_of_a_race_nothing_is_said_of_all() -> None:
    scored = draw(3, adaptive=True)
    scored.reporter = Reporter(
        [replace(trial, folds=()) for trial in scored.searched], scored, scored.shares, scored.folds, "loss"
    )
    found, _ = scored.reporter(scored.baseline)
    whole, _ = draw(3, adaptive=True).reporter(scored.baseline)
    nothing = {"reliability": None, "tied": None, "cheapest": None, "cheapest_flops": None}
    assert found == replace(whole, **nothing)


def test_one_architecture_is_reported_too() -> None:
    rng = np.random.default_rng(0)
    loss = rng.exponential(size=(1, 36)).astype(np.float32)
    scored = Scored(loss < 1, loss, 0, adaptive=False, rank_by="loss")
    found, top = scored.reporter([])
    assert found.top1.value == pytest.approx((loss < 1).mean())
    assert (found.reliability, found.tied, len(top)) == (None, 1, 1)
    assert len(found.lines) == 2


# ---------------------------------------------------------------------------------------------------- words

SCORE = "top-1 0.9125 (95% interval 0.8900 to 0.9300), loss 0.2500 (95% interval 0.2000 to 0.3000)"
PLACE = "next to 3 random architectures of equal cost (within 2%): place 2 of 4"
GAIN = (
    f"{PLACE}; better than their mean in top-1 by 0.0200 (95% interval -0.0100 to 0.0500), "
    "in loss by 0.0400 (95% interval 0.0100 to 0.0700)"
)
TIED = "the images cannot tell 7 architectures from the winner; the cheapest of them is B-B-BS, 2.5 M FLOPs"
FEW = (
    "these scores hardly tell the architectures apart: halves of the 1,200 images agree on their order by a tau of "
    "0.72 (loss) and 0.61 (top-1); "
)


ROOM = Headroom(number=50, spread=0.01, noise=0.005)
FOUND = (
    "losses of equal cost truly differ by 0.0100 (standard deviation; the images add 0.0050 by chance): the best of 50 "
    "is about 0.0224 ahead of their mean"
)
NOTHING = (
    "at this cost there is little to find: by their losses the best of 50 random architectures is about 0.0022 ahead "
    "of their mean, and the images add 0.0050 to each by chance; what a search can save here is cost"
)


def unreliable(share: float) -> Claims:
    enough = claims().reliability
    assert enough is not None
    return claims(reliability=replace(enough, loss=share))


@pytest.mark.parametrize(
    ("found", "lines"),
    [
        (claims(), [f"on 1,200 images that did not choose it: {SCORE}", GAIN, TIED]),
        (claims(cross_fitted=False), [f"on 1,200 images that the search did not see: {SCORE}", GAIN, TIED]),
        (claims(headroom=ROOM), [f"on 1,200 images that did not choose it: {SCORE}", GAIN, FOUND, TIED]),
        (
            claims(headroom=replace(ROOM, spread=0.001), flops=5_000_000),
            [NOTHING, f"on 1,200 images that did not choose it: {SCORE}", GAIN, f"{TIED}, 50% less"],
        ),
        (
            unreliable(0.5),
            [
                f"on 1,200 images that did not choose it: {SCORE}",
                GAIN,
                TIED,
                f"{FEW}about 4,800 would be enough to choose",
            ],
        ),
        (
            unreliable(0.0),
            [
                f"on 1,200 images that did not choose it: {SCORE}",
                GAIN,
                TIED,
                f"{FEW}no number of images would be enough to choose",
            ],
        ),
        (
            claims(others=0, place=None, gain_top1=None, gain_loss=None),
            [
                f"on 1,200 images that did not choose it: {SCORE}",
                "no other architectures of equal cost were scored to compare it with",
                TIED,
            ],
        ),
        (claims(tied=1), [f"on 1,200 images that did not choose it: {SCORE}", GAIN]),
    ],
    ids=[
        *("cross-fitted", "held out", "headroom", "no headroom", "too few images", "no images are enough"),
        *("no comparison", "nothing tied"),
    ],
)
def test_what_is_printed(found: Claims, lines: list[str]) -> None:
    assert found.lines == lines
    assert str(found) == "\n".join(lines)
