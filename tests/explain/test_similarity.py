"""Similarity of maps and tokens, against slow direct computations image by image."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from psvit.arch import Architecture, NetworkSpec
from psvit.explain import similarity
from psvit.explain.similarity import images_at_once, match_heads, measure, walk
from psvit.layers import Attention
from psvit.model import PSViT
from psvit.zoo import NETWORKS, SPACES

DEIT = replace(NETWORKS["deit_tiny_16"][0], image_size=(16, 24), patch_size=4, widths=(24,), heads=(3,), classes=10)
NETS = {
    "2d": (replace(SPACES["2d_mini_4"], image_size=(32, 16)), "BSSB-BBS-BS"),
    "1d": (replace(SPACES["1d_mini_4"], image_size=(16, 24)), "BSB-BB-BSBS"),
    "deit": (DEIT, "BBSB"),
}


def build(name: str) -> PSViT:
    """A network of random weights whose attention is not uniform, in eval mode."""
    torch.manual_seed(0)
    spec, letters = NETS[name]
    network = PSViT(spec, Architecture.parse(letters)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network


def some_images(spec: NetworkSpec, count: int = 5) -> Tensor:
    return torch.randn(count, 3, *spec.image_size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_walk_is_the_network(name: str) -> None:
    network = build(name)
    images = some_images(network.spec)
    steps = list(walk(network, images))
    assert [step.letter for step in steps] == list("".join(network.architecture.stages))
    logits = network.forward_head(network.norm(steps[-1].tokens))
    torch.testing.assert_close(logits, network(images))
    for step in steps:
        tokens, heads = network.spec.tokens[step.stage], network.spec.heads[step.stage]
        assert step.map.shape == (5, heads, tokens, tokens)
        assert step.tokens.shape == (5, tokens, network.spec.widths[step.stage])


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_maps_are_the_softmax_of_what_the_layers_computed(name: str) -> None:
    network = build(name)
    images = some_images(network.spec)
    computed: list[Tensor] = []  # qkv of each basic layer

    def keep(module: torch.nn.Module, inputs: object, output: Tensor) -> None:
        computed.append(output)

    for module in network.modules():
        if isinstance(module, Attention):
            module.qkv.register_forward_hook(keep)
    network(images)
    expected, products = [], iter(computed)
    for stage, letters in enumerate(network.architecture.stages):
        for letter in letters:
            if letter == "B":
                q, k, _ = next(products).chunk(3, dim=2)
                heads = network.spec.heads[stage]
                q, k = (part.reshape(5, part.shape[1], heads, -1) for part in (q, k))
                scores = torch.einsum("bnhd,bmhd->bhnm", q, k) / q.shape[3] ** 0.5
                own = scores.softmax(dim=3)
            expected.append(own)
    for step, one in zip(walk(network, images), expected, strict=True):
        torch.testing.assert_close(step.map, one)


def slow_heads(one: Tensor, other: Tensor, different: bool) -> np.ndarray:
    """(H, H) from the maps (B, H, N, N) of two layers, pair of images by pair of images."""
    table = np.zeros((one.shape[1], other.shape[1]))
    pairs = [(i, j) for i, j in product(range(len(one)), repeat=2) if (i != j) == different]
    for (head, another), (i, j) in product(np.ndindex(table.shape), pairs):
        table[head, another] += F.cosine_similarity(one[i, head].flatten(), other[j, another].flatten(), dim=0)
    return table / len(pairs)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_likeness_of_maps(name: str, batch: int) -> None:
    network = build(name)
    images = some_images(network.spec)
    measured, _ = measure(network, images.split(batch))
    with torch.no_grad():
        steps = list(walk(network, images))
    for stage, letters in enumerate(network.architecture.stages):
        maps = [step.map for step in steps if step.stage == stage]
        for different in (False, True):
            layers = measured[stage].layers(different)
            assert layers.shape == (len(letters), len(letters))
            for one, other in product(range(len(letters)), repeat=2):
                heads = slow_heads(maps[one], maps[other], different)
                np.testing.assert_allclose(measured[stage].heads(one, other, different), heads, atol=2e-6)
                best = max(
                    np.mean([heads[h, p] for h, p in enumerate(order)]) for order in permutations(range(len(heads)))
                )
                assert layers[one, other] == pytest.approx(best, abs=2e-6)


def test_a_shared_map_is_exactly_alike() -> None:
    network = build("2d")
    (stage, *_), _ = measure(network, [some_images(network.spec)])
    assert stage.letters == "BSSB"
    assert stage.map_of == [0, 0, 0, 1]
    assert [stage.shared(*pair) for pair in stage.neighbours] == [True, True, False]
    layers = stage.layers()
    assert (layers[:3, :3] == 1).all()  # to the last bit
    assert layers[3, 3] == 1
    assert (layers[3, :3] < 0.999).all()
    assert (stage.layers(different=True) < 0.999).all()


def test_heads_are_matched_one_to_one() -> None:
    table = np.array([[0.9, 0.8, 0.1], [0.9, 0.1, 0.1], [0.5, 0.5, 0.2]])
    assert match_heads(table) == [1, 0, 2]  # the best of each row would take the first head three times


@pytest.mark.parametrize("name", NETS)
def test_likeness_of_tokens(name: str) -> None:
    network = build(name)
    images = some_images(network.spec, 3)
    _, measured = measure(network, images.split(2))
    with torch.no_grad():
        steps = list(walk(network, images))
    for step in steps:
        first = network.spec.class_tokens
        patches = step.tokens[:, first:]
        count = patches.shape[1]
        table = F.cosine_similarity(patches[:, None, :, None], patches[None, :, None, :], dim=4)  # (3, 3, N, N)
        own = torch.stack([table[i, i] for i in range(3)])
        off = own[:, ~torch.eye(count, dtype=torch.bool)].reshape(3, count, count - 1)
        one = measured[step.stage][step.layer]
        assert one.same == pytest.approx(off.mean().item(), abs=1e-5)
        np.testing.assert_allclose(one.each, off.mean(dim=(0, 2)), atol=1e-5)
        others = torch.stack([table[i, j] for i, j in product(range(3), repeat=2) if i != j])
        assert one.different == pytest.approx(others.mean().item(), abs=1e-5)
        if first:
            with_class = F.cosine_similarity(step.tokens[:, :1], patches, dim=2)
            assert one.class_token == pytest.approx(with_class.mean().item(), abs=1e-5)
        else:
            assert one.class_token is None


def test_a_single_token_has_no_other_to_be_like() -> None:
    spec = NetworkSpec("2d", (8, 8), 4, (8, 8), (2, 2), 3)
    network = PSViT(spec, Architecture.parse("B-B")).eval()
    _, (first, last) = measure(network, [some_images(spec)])
    assert np.isfinite(first[0].same)
    assert np.isnan(last[0].same)
    assert np.isfinite(last[0].different)


def test_images_pass_together_as_memory_allows() -> None:
    base = SPACES["1d_base_8"]
    assert images_at_once(base, Architecture.parse("BBBBBB-B-B")) == 3  # 6 layers x 6 heads x 785^2 x 4 bytes
    assert images_at_once(base, Architecture.parse("BSSSSS-B-B")) == 18
    assert images_at_once(replace(base, image_size=(448, 448)), Architecture.parse("BBBBBB-B-B")) == 1
    assert images_at_once(SPACES["2d_mini_4"], Architecture.parse("B-B-B")) == 32


def test_maps_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory does not grow with the number of images: a batch's maps are gone when the next but one comes."""
    network = build("2d")
    alive: list[list[weakref.ref[Tensor]]] = []

    def watched(network: PSViT, images: Tensor) -> Iterator[similarity.Step]:
        alive.append([])
        for step in walk(network, images):
            alive[-1].append(weakref.ref(step.map))
            yield step

    def batches() -> Iterator[Tensor]:
        for _ in range(4):
            gc.collect()
            assert not any(ref() is not None for refs in alive[:-1] for ref in refs)
            yield some_images(network.spec, 2)

    monkeypatch.setattr(similarity, "walk", watched)
    measure(network, batches())
    assert len(alive) == 4
