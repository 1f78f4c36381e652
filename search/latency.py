"""latency.json: the table that predicts how long a network takes on one device, and how it is fitted. No torch.

A network's latency is a fixed part (patch embedding, token poolings, norm and head) plus, in each stage, so much per
basic and so much per sharing layer. So a stage's latency depends only on how many of each it has, and all that the
space can do exactly with FLOPs it can do with latencies. The amounts are fitted to whole networks, since a layer is not
as fast on its own as among others; ``search/timing.py`` times them. The file records where it was measured, and how
well random networks are predicted from the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np

from psvit.arch import BASIC, SHARING, Architecture, NetworkSpec
from psvit.run.folder import differences
from psvit.run.records import Record
from psvit.supernet.space import Additive, SearchSpace
from psvit.units import Band, format_duration

_GOOD = 0.05  # mean error on a machine that does nothing else


@dataclass(frozen=True)
class Conditions:
    """What a latency depends on beside the layers.

    Attributes:
        device: name of the GPU, or model of the CPU.
        threads: threads that torch computes with on a CPU; 0 on a GPU, where they do not matter.
        batch: images per forward pass.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        torch: version of torch.
        network: the dimensions.
    """

    device: str
    threads: int
    batch: int
    precision: str
    torch: str
    network: NetworkSpec

    def __str__(self) -> str:
        threads = f", {self.threads} thread{'s' * (self.threads > 1)}" if self.threads else ""
        return f"{self.device}{threads}, batch {self.batch}, {self.precision}, torch {self.torch}"

    def differences(self, here: Conditions) -> list[str]:
        """What makes latencies measured under these conditions wrong here, one phrase per setting."""
        measured, wanted = asdict(self), asdict(here)
        for values in (measured, wanted):
            del values["torch"], values["network"]["name"]  # a release of torch is seldom worth measuring anew
        return differences(measured, wanted)


@dataclass(frozen=True)
class Checked:
    """A random network: nanoseconds that a fit to all other networks predicts, and that it was measured to take."""

    layers: str
    predicted: int
    measured: int

    def __post_init__(self) -> None:
        if self.measured < 1:
            raise ValueError(f"measured is {self.measured}; it must be at least 1")


@dataclass(frozen=True)
class LatencyTable(Record):
    """Latencies in nanoseconds of a forward pass of one batch.

    Attributes:
        conditions: where it holds.
        fixed: of all that every network has.
        basic: of one basic layer, for each stage.
        sharing: of one sharing layer, for each stage.
        check: random networks, each predicted without itself.

    Raises:
        ValueError: a negative latency, or not one for each stage.
    """

    format: ClassVar[str] = "psvit-latency"
    remedy: ClassVar[str] = "measure one by psvit-search latency"

    conditions: Conditions
    fixed: int
    basic: tuple[int, ...]
    sharing: tuple[int, ...]
    check: tuple[Checked, ...] = ()

    def __post_init__(self) -> None:
        stages = self.conditions.network.stages
        for key, amounts in (("fixed", (self.fixed,)), ("basic", self.basic), ("sharing", self.sharing)):
            if min(amounts, default=0) < 0:
                raise ValueError(f"{key} is {min(amounts)}; it must be at least 0")
            if key != "fixed" and len(amounts) != stages:
                raise ValueError(f"{key} has {len(amounts)} stages, but the network has {stages}")

    @cached_property
    def cost(self) -> Additive:
        """The same as a cost that a search space can be bounded in."""
        return Additive("latency", self.fixed, self.basic, self.sharing, format_duration)

    def predict(self, architecture: Architecture) -> int:
        """Nanoseconds that a forward pass of an architecture of these dimensions takes."""
        return self.cost.of(architecture)

    @property
    def errors(self) -> list[float]:
        """Of each checked network, by which share of its latency the prediction is too high."""
        return [network.predicted / network.measured - 1 for network in self.check]

    @property
    def tau(self) -> float:
        """Kendall's tau between the predicted and the measured latencies of the checked networks."""
        from scipy.stats import kendalltau

        ranks = kendalltau([n.predicted for n in self.check], [n.measured for n in self.check])
        return float(ranks.statistic)

    @property
    def trust(self) -> str:
        """How well it predicts, in a sentence."""
        if not self.check:
            return "not checked against whole networks"
        errors = np.abs(self.errors)
        advice = "; measure again when the machine is idle, or with more repeats" if errors.mean() > _GOOD else ""
        return (
            f"mean error {errors.mean():.1%}, largest {errors.max():.1%}, Kendall's tau {self.tau:.3f} "
            f"over {len(errors)} random networks, each predicted from the others{advice}"
        )

    def require_same(self, here: Conditions, path: Path, force: bool) -> None:
        """Refuse to predict latencies under other conditions, unless ``force``.

        Raises:
            ValueError: the conditions differ; the message says in what.
        """
        if self.conditions.network.stages != here.network.stages:
            raise ValueError(
                f"{path} is of a network of {self.conditions.network.stages} stages, and this one has "
                f"{here.network.stages}; measure it by psvit-search latency"
            )
        changed = self.conditions.differences(here)
        if changed and not force:
            raise ValueError(
                f"{path} holds other latencies than those of this network here: {'; '.join(changed)}. Measure anew by "
                "psvit-search latency, or take them all the same by search.latency.force=true"
            )


# ---------------------------------------------------------------------------------------------------- measurements


def design(stages: int, cells: int) -> list[Architecture]:
    """Networks that every part of a table shows in, to fit it to.

    In each stage in turn, one layer, all basic, one basic and else sharing, while the other stages alternate, as random
    architectures do on average; and each of these, and alternation, in all stages at once.
    """
    alternating = (BASIC + SHARING) * cells
    words = [BASIC, BASIC * cells, BASIC + SHARING * (cells - 1), alternating[:cells]]
    chosen = [(word,) * stages for word in words]
    for stage in range(stages):
        for word in words:
            others = [words[-1]] * stages
            others[stage] = word
            chosen.append(tuple(others))
    return [Architecture(words) for words in dict.fromkeys(chosen)]


def table_of(
    conditions: Conditions, measured: Sequence[tuple[Architecture, int]], checked: Sequence[Architecture]
) -> LatencyTable:
    """The table fitted to all measured networks; each checked one is predicted by a fit to all but itself."""
    check = []
    for number, (network, latency) in enumerate(measured):
        if network in checked and len(measured) > 1:
            without = LatencyTable(conditions, *fit([*measured[:number], *measured[number + 1 :]]))
            check.append(Checked(str(network), without.predict(network), latency))
    return LatencyTable(conditions, *fit(measured), tuple(check))


def fit(measured: Iterable[tuple[Architecture, int]]) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Fixed latency, those of a basic and those of a sharing layer of each stage: least squares of relative errors.

    Args:
        measured: networks and their latencies in nanoseconds.
    """
    from scipy.optimize import nnls

    rows, latencies = [], []
    for architecture, latency in measured:
        basic, sharing = zip(*architecture.counts, strict=True)
        rows.append([1, *basic, *sharing])
        latencies.append(latency)
    weights = 1 / np.array(latencies, dtype=float)
    # no layer takes negative time, which noise on a layer of a few microseconds could else give
    amounts, _ = nnls(np.array(rows) * weights[:, None], np.ones(len(weights)))
    fixed, *layers = (round(amount) for amount in amounts)
    return fixed, tuple(layers[: len(layers) // 2]), tuple(layers[len(layers) // 2 :])


def sample_by_cost(space: SearchSpace, number: int, rng: np.random.Generator) -> list[Architecture]:
    """At most ``number`` random architectures: one from each of as many equal parts of the space's range of FLOPs."""
    reach = space.within().flops
    assert reach is not None
    assert reach.low is not None
    assert reach.high is not None
    ends = np.linspace(reach.low, reach.high + 1, number + 1).round().astype(int)
    parts = [space.within(Band(int(low), int(high) - 1)) for low, high in pairwise(ends) if low < high]
    return [part.draw(rng) for part in parts if part.count]
