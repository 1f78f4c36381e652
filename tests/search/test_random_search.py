"""Random search draws uniformly."""

from collections import Counter
from itertools import permutations

from psvit.arch import Architecture
from psvit.search.random_search import RandomSearch
from psvit.units import Band
from tests.search.test_searchers import SMALL


def test_random_search_is_uniform() -> None:
    """Every ordered pair comes first equally often (within 4.5 standard deviations)."""
    subspace = SMALL.space.within(Band(high=SMALL.space.cost(Architecture.parse("B-B-BSS")).flops))
    pairs = list(permutations(subspace, 2))
    rounds = 100 * len(pairs)
    firsts = Counter(tuple(RandomSearch(subspace, seed).ask(2)) for seed in range(rounds))
    assert 10 < len(pairs) < 50
    assert set(firsts) == set(pairs)
    assert all(abs(times - 100) < 45 for times in firsts.values())
