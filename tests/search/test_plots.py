import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from psvit.figures import save_figure
from psvit.search.correlation import correlations
from psvit.search.plots import draw_progress, draw_rank, draw_scores
from psvit.units import Band
from tests.search.builders import trained_once
from tests.search.test_correlation import table

LETTERS = ["B", "BS", "BB", "BSS", "BSB", "BBS", "BBB"]


def history(trials=40, seed=0):
    """A frame with the columns of history.csv."""
    rng = np.random.default_rng(seed)
    layers = [f"{LETTERS[i % 7]}-{LETTERS[i // 7 % 7]}-B" for i in range(trials)]
    flops = rng.integers(2_000_000, 8_000_000, trials)
    top1 = 0.9 + 0.01 * flops / 8e6 + rng.normal(0, 0.005, trials)
    frame = pd.DataFrame({"number": np.arange(1, trials + 1), "layers": layers, "flops": flops, "params": flops // 40})
    return frame.assign(top1=top1, loss=1 - top1, num_images=100, generation=np.arange(trials) // 10)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn, with all that is in them; they are not written."""
    figures = []
    monkeypatch.setattr("psvit.search.plots.save_figure", lambda figure, path: figures.append(figure))
    return figures


@pytest.fixture
def written(monkeypatch):
    """The figures that are drawn and written."""
    figures = []
    monkeypatch.setattr(
        "psvit.search.plots.save_figure", lambda figure, path: (figures.append(figure), save_figure(figure, path))
    )
    return figures


def check_png(path):
    with Image.open(path) as image:
        image.load()
        assert (image.format, image.size) == ("PNG", (1200, 800))


def legend(figure):
    return [text.get_text() for box in figure.legends for text in box.get_texts()]


def line(ax, label):
    return next(each for each in ax.lines if str(each.get_label()).startswith(label))


def test_points_are_alike_where_there_are_no_generations(tmp_path, drawn):
    draw_scores(history(), tmp_path / "scores.png", Band(), "", "space", colours=None)
    (figure,) = drawn
    assert len(figure.axes) == 1
    assert figure.axes[0].collections[0].get_array() is None


def test_every_trial_is_a_point_in_its_generation_s_colour(tmp_path, drawn):
    frame = history()
    draw_scores(frame, tmp_path / "scores.png", Band(None, 8_000_000), frame["layers"][0], "2d_mini_4")
    points = drawn[0].axes[0].collections[0]
    np.testing.assert_allclose(points.get_offsets(), frame[["flops", "top1"]] / [1e6, 1])
    np.testing.assert_array_equal(points.get_array(), frame["generation"])
    assert drawn[0].axes[0].get_xlabel() == "FLOPs (M multiply-adds per image)"
    assert drawn[0].axes[0].get_title(loc="left") == "2d_mini_4: 40 architectures scored"


def test_front_is_what_no_trial_beats(tmp_path, drawn):
    frame = history()
    frame.loc[3, ["flops", "top1"]] = [8_500_000, frame["top1"].max()]  # as good as the best, but dearer
    draw_scores(frame, tmp_path / "scores.png", Band(), "", "x")
    front = line(drawn[0].axes[0], "Pareto").get_xydata()
    corners = {(round(x * 1e6), y) for x, y in front[:-1]}
    trials = list(zip(frame["flops"], frame["top1"], strict=True))
    unbeaten = {
        (f, t) for f, t in trials if not any(g <= f and u >= t and (g, u) != (f, t) for g, u in trials)
    }  # brute force
    assert corners == unbeaten
    assert tuple(front[-1]) == (frame["flops"].max() / 1e6, frame["top1"].max())  # on to the largest


def test_trials_of_equal_flops_leave_one_on_the_front(tmp_path, drawn):
    frame = history(5).assign(flops=3_000_000)
    draw_scores(frame, tmp_path / "scores.png", Band(), "", "x")
    assert set(line(drawn[0].axes[0], "Pareto").get_ydata()) == {frame["top1"].max()}


def test_winner_and_budget_are_marked(tmp_path, drawn):
    frame = history()
    winner = frame.loc[7]
    draw_scores(frame, tmp_path / "scores.png", Band(1_500_000, 8_000_000), winner["layers"], "x")
    ax = drawn[0].axes[0]
    assert line(ax, "winner").get_xydata().tolist() == [[winner["flops"] / 1e6, winner["top1"]]]
    assert "budget: 1.5 M to 8 M" in legend(drawn[0])
    ends = [each.get_xdata()[0] for each in ax.lines if each.get_linestyle() == "--"]
    assert ends == [1.5, 8.0]
    assert ax.get_xlim()[0] < 1.5
    assert ax.get_xlim()[1] > 8.0


def test_a_budget_far_off_does_not_squeeze_the_trials(tmp_path, drawn):
    draw_scores(history(), tmp_path / "scores.png", Band(None, 10**12), "", "x")
    assert drawn[0].axes[0].get_xlim()[1] < 10
    assert "budget: at most 1 T" in legend(drawn[0])


def test_baseline_has_points_of_its_own(tmp_path, drawn):
    baseline = history(12, seed=1)
    baseline.loc[3, "top1"] = np.nan
    draw_scores(history(), tmp_path / "scores.png", Band(), "", "x", baseline)
    assert "11 random of the winner's cost" in legend(drawn[0])
    assert len(drawn[0].axes[0].collections[1].get_offsets()) == 11


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", ["one", "equal", "some_nan", "all_nan", "none", "same_flops"])
def test_degenerate_histories_are_drawn(tmp_path, written, case):
    frame = history(30)
    frame = {
        "one": frame.head(1),
        "equal": frame.assign(top1=0.97),
        "some_nan": frame.assign(top1=frame["top1"].where(frame["number"] % 3 > 0)),
        "all_nan": frame.assign(top1=np.nan),
        "none": frame.head(0),
        "same_flops": frame.assign(flops=5_000_000, top1=0.5),
    }[case]
    draw_scores(frame, tmp_path / "scores.png", Band(None, 6_000_000), "B-B-B", "$space$")
    draw_progress({"evolution": frame}, tmp_path / "progress.png")
    check_png(tmp_path / "scores.png")
    check_png(tmp_path / "progress.png")
    title = written[0].axes[0].get_title(loc="left")
    assert title.startswith("$space$: ")
    scored = int(frame["top1"].notna().sum())
    assert f": {scored} architecture" in title
    assert ("without a score" in title) == (scored < len(frame))
    assert ("no architecture has a score yet" in [text.get_text() for text in written[0].axes[0].texts]) == (
        scored == 0
    )


def test_progress_is_the_best_so_far(tmp_path, drawn):
    evolution, random = history(30), history(20, seed=2).sample(frac=1, random_state=0)
    evolution.loc[[0, 5], "top1"] = np.nan
    evolution.loc[9, ["top1", "loss"]] = [0.999, np.nan]  # failed: does not count
    draw_progress({"evolution": evolution, "random": random}, tmp_path / "progress.png")
    ax = drawn[0].axes[0]
    for name, frame in (("evolution", evolution), ("random", random.sort_values("number"))):
        scores = frame["top1"].where(frame["loss"].notna()).tolist()
        best = [
            np.nanmax(scores[: n + 1]) if not np.isnan(scores[: n + 1]).all() else np.nan for n in range(len(scores))
        ]
        np.testing.assert_array_equal(line(ax, name).get_ydata(), best)
        np.testing.assert_array_equal(line(ax, name).get_xdata(), np.arange(1, len(scores) + 1))
        assert f"{name}: {best[-1]:.2%} after {len(scores)}" in legend(drawn[0])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", ["some", "equal", "same inherited", "one", "none"])
def test_a_ranking_is_drawn(tmp_path, written, case):
    frame = {
        "some": table([0.7, 0.8, 0.9, 0.9, 0.9], [0.8, 0.85, 0.95, 0.95, 0.9]),
        "equal": table([0.7] * 4, [0.8] * 4),
        "same inherited": table([0.7] * 3, [0.8, 0.9, 0.95]),
        "one": table([0.7, np.nan], [0.8, 0.9]),
        "none": table([np.nan], [0.8]),
    }[case]
    figures = correlations(frame, trained_once(frame), 0)
    draw_rank(frame, figures, tmp_path / "rank.png", "$space$")
    check_png(tmp_path / "rank.png")
    ax = written[0].axes[0]
    title = ax.get_title(loc="left")
    count = int(frame["inherited_top1"].notna().sum())
    assert title.startswith(f"$space$: {count} network")
    value = figures.top1.tau.value
    assert title.endswith("undefined" if value is None else f"tau {value:.2f} (-1.00 to 1.00)") or case == "some"
    if count:
        points = np.asarray(ax.collections[0].get_offsets())
        known = frame.dropna()
        assert len({tuple(point) for point in points}) == count  # each is to be seen
        np.testing.assert_array_equal(points[:, 1], known["standalone_top1"])
        np.testing.assert_allclose(points[:, 0], known["inherited_top1"], atol=0.01)
        np.testing.assert_allclose(ax.collections[0].get_array(), known["flops"] / 1000)


def test_no_search_at_all(tmp_path):
    draw_progress({}, tmp_path / "progress.png")
    check_png(tmp_path / "progress.png")


def test_svg_holds_its_text(tmp_path):
    frame = history()
    draw_scores(frame, tmp_path / "scores.svg", Band(), frame["layers"][0], "2d_mini_4")
    said = [
        "".join(each.itertext()) for each in ET.parse(tmp_path / "scores.svg").iter("{http://www.w3.org/2000/svg}text")
    ]
    assert "2d_mini_4: 40 architectures scored" in said
    assert "top-1 on the search split" in said


def test_refuses_another_ending(tmp_path):
    with pytest.raises(ValueError, match=r"\.png or \.svg"):
        draw_progress({"evolution": history()}, tmp_path / "progress.pdf")


def test_imports_neither_retrain_nor_torch_nor_pyplot(tmp_path):
    code = (
        "import sys, pathlib, psvit.search.plots;"
        "assert 'matplotlib' not in sys.modules;"
        "psvit.search.plots.draw_progress({}, pathlib.Path(sys.argv[1]));"
        "assert not {'psvit.retrain', 'torch', 'matplotlib.pyplot'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "progress.png")], check=True)
