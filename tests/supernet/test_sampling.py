"""The samplers: one conformance test for all, and what each promises beyond it."""

from collections import Counter
from itertools import pairwise, product

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import chi2

from psvit.supernet.routing import to_paths
from psvit.supernet.sampling import (
    SAMPLINGS,
    CanonicalDepths,
    CanonicalPaths,
    FairCells,
    PathSampler,
    UniformCells,
    UniformPaths,
    make_sampler,
)
from psvit.supernet.space import SearchSpace
from psvit.zoo import SPACES

BASIC, SHARING, IDENTITY = range(3)
ALL = [(name, paths) for name in SAMPLINGS for paths in ("image", "batch") if (name, paths) != ("fair", "batch")]


@pytest.fixture(params=ALL, ids="-".join)
def sampler(request: pytest.FixtureRequest) -> PathSampler:
    return make_sampler(*request.param, stages=3, cells=6)


class TestEverySampler:
    def test_draws_valid_paths_of_the_promised_number(self, sampler: PathSampler) -> None:
        codes = sampler.draw(50, np.random.default_rng(0))
        assert codes.shape == (sampler.copies, 50, 3, 6)
        assert codes.dtype == np.int8
        to_paths(codes.reshape(-1, 3, 6))  # refuses what is not valid

    def test_is_a_function_of_the_generator(self, sampler: PathSampler) -> None:
        one, same, other = (sampler.draw(20, np.random.default_rng(seed)) for seed in (7, 7, 8))
        assert (one == same).all()
        assert (one != other).any()

    def test_serves_one_image_and_one_cell(self, sampler: PathSampler) -> None:
        assert sampler.draw(1, np.random.default_rng(0)).shape == (sampler.copies, 1, 3, 6)

    def test_reaches_every_layer(self, sampler: PathSampler) -> None:
        """In enough draws each cell takes each of its choices."""
        rng = np.random.default_rng(1)
        seen = np.concatenate([sampler.draw(8, rng)[0 if sampler.copies == 1 else 2] for _ in range(300)])
        for stage in range(3):
            for cell in range(6):
                reached = {int(code) for code in np.unique(seen[:, stage, cell])}
                canonical_first = cell == 0 and set(np.unique(seen[:, :, 0])) == {BASIC}
                first = {BASIC} if canonical_first else {BASIC, IDENTITY}
                assert reached == (first if cell == 0 else {BASIC, SHARING, IDENTITY}), (stage, cell)


@pytest.mark.parametrize("name", SAMPLINGS)
@pytest.mark.parametrize("cells", [1, 2])
def test_small_spaces(name: str, cells: int) -> None:
    codes = make_sampler(name, "image", stages=2, cells=cells).draw(9, np.random.default_rng(0))
    to_paths(codes.reshape(-1, 2, cells))


def test_one_path_a_batch_is_one_path() -> None:
    codes = make_sampler("uniform", "batch", 3, 6).draw(20, np.random.default_rng(0))
    assert (codes == codes[:, :1]).all()


def test_unknown_names_and_fair_shares_of_one_path_are_refused() -> None:
    with pytest.raises(ValueError, match="sampling is 'unifrom'; use one of uniform, uniform-paths, fair"):
        make_sampler("unifrom", "image", 3, 6)
    with pytest.raises(ValueError, match="needs paths=image"):
        make_sampler("fair", "batch", 3, 6)


def words(sampler: UniformCells, draws: int, images: int) -> npt.NDArray[np.int8]:
    """A million stages' words (n, cells), of many draws."""
    rng = np.random.default_rng(3)
    return np.concatenate([sampler.draw(images, rng)[0] for _ in range(draws)])


def uniform_cells(cells: int) -> dict[tuple[int, ...], float]:
    """Probability of each word when each cell draws uniformly from its valid choices, by going through them all."""
    table: dict[tuple[int, ...], float] = {(): 1.0}
    for cell in range(cells):
        grown = {}
        for word, probability in table.items():
            started = BASIC in word
            valid = [BASIC, SHARING, IDENTITY] if started else [BASIC] if cell == cells - 1 else [BASIC, IDENTITY]
            for code in valid:
                grown[*word, code] = probability / len(valid)
        table = grown
    return table


def agrees(counts: Counter[tuple[int, ...]], expected: dict[tuple[int, ...], float], number: int) -> None:
    """Pearson's chi-squared test at a level of 1e-6; a word that cannot be must not be."""
    assert counts.keys() <= expected.keys()
    statistic = sum((counts[word] - number * p) ** 2 / (number * p) for word, p in expected.items())
    assert statistic < chi2.isf(1e-6, len(expected) - 1) if len(expected) > 1 else statistic == 0, counts


@pytest.mark.parametrize("kind", [UniformCells, pytest.param(FairCells, marks=pytest.mark.slow)])
def test_a_million_paths_are_uniform_in_each_cell_and_each_pair_of_cells(kind: type[UniformCells]) -> None:
    """Each cell, each pair of neighbouring cells (stages meet, too), and whole words, of a million images.

    The images of a fair draw exclude each other a little, which makes their counts vary less than independent ones: a
    bias is seen as well, chance deviations are smaller.
    """
    drawn = words(kind(3, 6), draws=4000, images=250)
    number = len(drawn)
    assert number == 1_000_000
    probability = uniform_cells(6)
    for stage in range(3):
        word_counts = Counter(dict(zip(*unique_rows(drawn[:, stage]), strict=True)))
        agrees(word_counts, probability, number)
        for cells in [*((cell,) for cell in range(6)), *pairwise(range(6))]:
            marginal: dict[tuple[int, ...], float] = {}
            counts: Counter[tuple[int, ...]] = Counter()
            for word, p in probability.items():
                part = tuple(word[cell] for cell in cells)
                marginal[part] = marginal.get(part, 0) + p
                counts[part] += word_counts[word]
            agrees(counts, marginal, number)
    for stage in range(2):  # the last cell of a stage and the first of the next are independent
        last, first = ({}, {})
        for word, p in probability.items():
            last[word[-1]] = last.get(word[-1], 0) + p
            first[word[0]] = first.get(word[0], 0) + p
        pair = np.stack([drawn[:, stage, -1], drawn[:, stage + 1, 0]], axis=1)
        joint = {(a, b): p * q for a, p in last.items() for b, q in first.items()}
        agrees(Counter(dict(zip(*unique_rows(pair), strict=True))), joint, number)


def unique_rows(rows: npt.NDArray[np.int8]) -> tuple[list[tuple[int, ...]], list[int]]:
    weights = 3 ** np.arange(rows.shape[1])
    _, first, counts = np.unique(rows @ weights, return_index=True, return_counts=True)
    return [tuple(row) for row in rows[first].tolist()], counts.tolist()


@pytest.mark.parametrize("images", [1, 5, 12, 100, 128])
def test_fair_shares_are_exact(images: int) -> None:
    """Among the images with the same valid choices, no choice is taken more than once more often than another."""
    for seed in range(20):
        codes = FairCells(3, 6).draw(images, np.random.default_rng(seed))[0]
        started = np.zeros(codes.shape[:2], bool)
        for cell in range(6):
            for stage in range(3):
                for begun, valid in ((True, (0, 1, 2)), (False, (0,) if cell == 5 else (0, 2))):
                    among = codes[started[:, stage] == begun, stage, cell]
                    shares = [int((among == code).sum()) for code in valid]
                    assert sum(shares) == len(among)
                    assert max(shares) - min(shares) <= 1, (cell, stage, begun, shares)
            started |= codes[:, :, cell] == BASIC


@pytest.mark.parametrize("cells", [1, 2, 6])
def test_uniform_paths_are_uniform_over_all_valid_paths_of_a_stage(cells: int) -> None:
    """Against a list of all words: a stage holds a layer, and nothing is shared before it. 364 for six cells."""
    valid = [
        word
        for word in product((BASIC, SHARING, IDENTITY), repeat=cells)
        if BASIC in word and SHARING not in word[: word.index(BASIC)]
    ]
    assert cells != 6 or len(valid) == 364
    drawn = words(UniformPaths(3, cells), draws=400, images=250)
    for stage in range(3):
        agrees(
            Counter(dict(zip(*unique_rows(drawn[:, stage]), strict=True))),
            dict.fromkeys(valid, 1 / len(valid)),
            len(drawn),
        )


def test_canonical_paths_are_uniform_over_architectures() -> None:
    space = SearchSpace(SPACES["2d_mini_4"], cells=3)
    drawn = CanonicalPaths(3, 3).draw(100_000, np.random.default_rng(0))[0]
    rows, counts = unique_rows(drawn.reshape(len(drawn), -1))
    assert len(rows) == space.architectures == 343
    expected = len(drawn) / 343
    assert sum((count - expected) ** 2 / expected for count in counts) < chi2.isf(1e-6, 342)
    for path in to_paths(drawn[:200]):
        assert all(word == word.replace("I", "").ljust(3, "I") for word in path.stages)


def test_canonical_depths_are_uniform_and_layers_fair_coins() -> None:
    drawn = CanonicalDepths(3, 6).draw(100_000, np.random.default_rng(0))[0]
    depths = (drawn != IDENTITY).sum(axis=2)
    for stage in range(3):
        for depth in range(1, 7):
            these = drawn[depths[:, stage] == depth, stage]
            assert abs(len(these) - 1e5 / 6) < 5 * (1e5 * 5 / 36) ** 0.5
            assert (these[:, depth:] == IDENTITY).all()
            assert (these[:, 0] == BASIC).all()
            for cell in range(1, depth):
                assert abs((these[:, cell] == SHARING).mean() - 0.5) < 5 * 0.5 / len(these) ** 0.5


def test_a_sandwich_is_the_largest_the_smallest_and_random_ones() -> None:
    largest, smallest, *random = make_sampler("sandwich", "image", 3, 6).draw(30, np.random.default_rng(0))
    assert {str(path) for path in to_paths(largest)} == {"BBBBBB-BBBBBB-BBBBBB"}
    assert {str(path) for path in to_paths(smallest)} == {"BIIIII-BIIIII-BIIIII"}
    assert len(random) == 2
    assert len({str(path) for codes in random for path in to_paths(codes)}) > 50
