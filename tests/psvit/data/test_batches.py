import json
import multiprocessing
import os
import random
import threading
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from psvit.data import batches as batches_module
from psvit.data.batches import BatchAssembler, Source, chunk_keys
from psvit.data.config import AugmentConfig, DataConfig
from psvit.data.data import Data, open_data
from psvit.data.loading import ahead_on_gpu, jpeg_decoder, one_ahead
from psvit.data.plan import ALL, Plan, Share
from psvit.data.transforms import TrainTransform
from tests.hold import wait_until

SIZE = (32, 32)
NO_MIX = AugmentConfig(mixup=0.0, cutmix=0.0)
Batches = list[tuple[Tensor, Tensor]]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of JPEGs of many sizes, with a PNG, a grey JPEG, one that EXIF turns, and a broken one of each kind."""
    for number in range(24):
        rng = np.random.default_rng(number)
        shape = (int(rng.integers(40, 200)), int(rng.integers(40, 200)))
        picture = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize(shape)
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number:02}.{'png' if number == 4 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = 6 if number == 6 else 1
        (picture.convert("L") if number == 5 else picture).save(path, quality=90, exif=exif)
    return tmp_path / "photos"


@pytest.fixture(scope="module")
def digits() -> Data:
    return open_data(DataConfig())


def equal(one: Batches, other: Batches) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b) for a, b in zip(chain(*one), chain(*other), strict=True)
    )  # images and targets


def names(data: Data, split: str) -> list[str]:
    images, indices = data._part(split)
    return [images.names[index] for index in indices]


def test_digits_splits(digits: Data) -> None:
    assert digits.classes == 10
    assert digits.image_size == (32, 32)
    assert open_data(DataConfig(image_size="64x32")).image_size == (64, 32)
    sizes = {split: digits.size(split) for split in ("train", "search", "train+search", "test")}
    assert sizes["train"] + sizes["search"] == sizes["train+search"]
    assert sizes["train+search"] + sizes["test"] == 1797
    assert sizes["test"] == pytest.approx(0.2 * 1797, abs=5)
    assert sizes["search"] == pytest.approx(0.1 * sizes["train+search"], abs=5)
    parts = [set(digits._part(split)[1].tolist()) for split in ("train", "search", "test")]
    assert len(set.union(*parts)) == 1797  # disjoint, as the sizes sum up to it
    assert set(digits.labels("search")) == set(range(10))
    with pytest.raises(ValueError, match="no split is named 'val'; use one of train, search"):
        digits.size("val")


def test_split_record_changes_with_the_search_split_alone(digits: Data, make_folder) -> None:
    record = digits.split_record()
    assert json.loads(json.dumps(record)) == record
    assert record["images"] == digits.size("search")
    assert open_data(DataConfig(workers=2, image_size="64")).split_record() == record
    assert open_data(DataConfig(split_seed=1)).split_record()["sha256"] != record["sha256"]
    assert open_data(DataConfig(search_fraction=0.2)).split_record()["sha256"] != record["sha256"]

    root = make_folder("root", count=9)
    before = open_data(DataConfig("imagefolder", str(root)))
    held = set(before._part("search")[1].tolist())
    there = root.rename(root.with_name("elsewhere"))
    assert open_data(DataConfig("imagefolder", str(there))).split_record() == before.split_record()
    for index in (min(held), min(set(range(9)) - held)):  # rename an image of the split, and one that is not in it
        (there / f"ant/{index:02}.png").rename(there / f"ant/{index:02}x.png")
        same = open_data(DataConfig("imagefolder", str(there))).split_record() == before.split_record()
        assert same == (index not in held)
        (there / f"ant/{index:02}x.png").rename(there / f"ant/{index:02}.png")


def test_an_epoch_sees_every_image_once_and_epochs_differ(digits: Data) -> None:
    steps = digits.training_set("train", SIZE, NO_MIX, 100, 0).plan.steps_per_epoch
    assert steps == digits.size("train") // 100
    config = AugmentConfig([1.0, 1.0], flip=0, randaugment_ops=0, erasing=0, mixup=0, cutmix=0)
    training = digits.training_set("train", SIZE, config, 100, 0)
    epochs = [
        torch.cat([images for images, _ in training.batches(range(first, first + steps))]) for first in (0, steps)
    ]
    whole = torch.cat([images for images, _ in digits.eval_batches("train", SIZE, 256)]).flatten(1)
    for epoch in epochs:
        place = torch.cdist(epoch.flatten(1), whole).argmin(1)
        assert len(place.unique()) == len(epoch) == steps * 100
    assert not torch.equal(*epochs)


def test_augmentation_differs_between_epochs(digits: Data) -> None:
    n = digits.size("search")  # the batch is the whole split, so that an epoch is a step
    assert digits.training_set("search", SIZE, NO_MIX, 10 * n, 0).plan.steps_per_epoch == 1
    first, second = digits.training_set("search", SIZE, NO_MIX, 10 * n, 0).batches(range(2))
    assert len(first[0]) == n
    assert sorted(first[1].tolist()) == sorted(second[1].tolist())
    assert not torch.equal(first[0].sum((1, 2, 3)).sort()[0], second[0].sum((1, 2, 3)).sort()[0])


@pytest.mark.parametrize("name", ["digits", "imagefolder"])
def test_workers_and_start_have_no_effect(name: str, make_folder) -> None:
    root = None if name == "digits" else str(make_folder("root", count=10))
    batch_size, first, last = (64, 19, 23) if name == "digits" else (6, 1, 5)  # over the end of an epoch

    def batches(workers: int, first: int) -> Batches:
        data = open_data(DataConfig(name, root, workers=workers))
        training = data.training_set("train", SIZE, AugmentConfig(), batch_size, 7)
        return list(training.batches(range(first, last), Share(accumulate=2)))

    unbroken = batches(0, first)
    assert len(unbroken) == 2 * (last - first)
    assert unbroken[0][1].dtype == torch.float32
    assert equal(batches(2, first), unbroken)
    assert equal(batches(0, first + 2), unbroken[4:])
    assert equal(batches(2, last - 1), unbroken[-2:])


def test_evaluation_batches_are_in_order_whatever_the_workers(digits: Data) -> None:
    batches = list(digits.eval_batches("search", SIZE, 50))
    assert [len(labels) for _, labels in batches] == [50, 50, digits.size("search") - 100]
    assert torch.cat([labels for _, labels in batches]).tolist() == digits.labels("search").tolist()
    assert torch.equal(batches[1][0][3], digits.normalize(digits.image("search", 53)))
    assert equal(list(open_data(DataConfig(workers=2)).eval_batches("search", SIZE, 50)), batches)


@pytest.mark.parametrize(("world", "accumulate"), [(1, 3), (2, 1), (3, 2), (4, 1), (31, 2)])
def test_shares_together_are_the_batch(digits: Data, world: int, accumulate: int) -> None:
    def batches(rank: int, world: int, accumulate: int) -> Batches:
        training = digits.training_set("train", SIZE, NO_MIX, 62, 0)
        return list(training.batches(range(3, 5), Share(rank, world, accumulate)))

    shares = [batches(rank, world, accumulate) for rank in range(world)]
    for step, whole in enumerate(batches(0, 1, 1)):
        micro = [share[step * accumulate + part] for share in shares for part in range(accumulate)]
        sizes = [len(labels) for _, labels in micro]
        assert max(sizes) - min(sizes) <= 1  # and nothing is dropped
        assert torch.equal(torch.cat([images for images, _ in micro]), whole[0])
        assert torch.equal(torch.cat([labels for _, labels in micro]), whole[1])


def test_a_batch_too_small_to_share_is_refused_at_once(digits: Data) -> None:
    with pytest.raises(ValueError, match="a batch of 7 images is too small for 2 processes with 4 micro-batches each"):
        digits.training_set("train", SIZE, NO_MIX, 7, 0).batches(range(1), Share(world=2, accumulate=4))
    enough = digits.training_set("train", SIZE, NO_MIX, 8, 0)
    assert len(list(enough.batches(range(1), Share(world=2, accumulate=4)))) == 4


@pytest.mark.parametrize("workers", [0, 2])
def test_global_random_states_are_left_alone(workers: int, monkeypatch) -> None:
    """Not even changed and put back: beside a step, in a thread, that would change what the step draws."""
    for name in ("manual_seed", "set_rng_state", "seed"):
        monkeypatch.setattr(torch.random, name, lambda *ignored: pytest.fail("changes torch's random state"))
    data = open_data(DataConfig(workers=workers))
    torch.manual_seed(5)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    list(data.training_set("train", SIZE, AugmentConfig(), 8, 0).batches(range(3)))
    list(data.eval_batches("search", SIZE, 100))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]  # noqa: NPY002


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_one_line_even_from_a_worker(workers: int, make_folder) -> None:
    root = make_folder("root/train", count=8).parent
    (root / "train/bee/03.png").write_bytes(b"no picture")
    data = open_data(DataConfig("imagefolder", str(root), workers=workers))
    split = next(split for split in ("train+search", "test") if "bee/03.png" in names(data, split))
    for batches in (data.training_set(split, SIZE, NO_MIX, 2, 0).batches(range(99)), data.eval_batches(split, SIZE, 4)):
        with pytest.raises(
            ValueError, match=r"^cannot read image .*03\.png \(it is not an image in .*\); repair .*"
        ) as caught:
            list(batches)
        assert "\n" not in str(caught.value)


def test_training_and_search_do_not_look_at_the_test_split(make_folder, tmp_path: Path) -> None:
    make_folder("own/train", count=10)
    own_test = make_folder("own/test", count=10)
    for path in own_test.glob("*/*.png"):
        path.write_bytes(b"")
    alone = make_folder("alone", count=10)
    held_out = open_data(DataConfig("imagefolder", str(alone)))
    for name in names(held_out, "test"):
        (alone / name).write_bytes(b"")

    for root in (tmp_path / "own", alone):
        data = open_data(DataConfig("imagefolder", str(root)))
        data.split_record()
        list(data.training_set("train", SIZE, NO_MIX, 8, 0).batches(range(4)))
        list(data.training_set("train+search", SIZE, NO_MIX, 8, 0).batches(range(4)))
        list(data.eval_batches("search", SIZE, 8))
        with pytest.raises(ValueError, match="cannot read image"):
            list(data.eval_batches("test", SIZE, 8))


def test_every_micro_batch_is_mixed_in_its_own_proportion(digits: Data) -> None:
    training = digits.training_set("train", SIZE, AugmentConfig(), 64, 0)
    batches = chain(*(training.batches(range(3), Share(rank, world=2, accumulate=2)) for rank in (0, 1)))
    proportions = [tuple(targets[(targets > 0) & (targets < 1)].unique().tolist()) for _, targets in batches]
    assert len(set(proportions)) == len(proportions) == 12


def test_signals_to_the_runs_process_group_do_not_reach_its_workers() -> None:
    others = set(multiprocessing.active_children())  # of tests before
    batches = open_data(DataConfig(workers=2)).eval_batches("test", SIZE, 8)
    for _ in range(3):  # of two workers in turn: then both have begun
        next(batches)
    workers = [*set(multiprocessing.active_children()) - others]
    assert len(workers) == 2
    assert os.getpgrp() not in {os.getpgid(worker.pid) for worker in workers}
    workers[0].terminate()  # but each can be ended by itself
    workers[0].join(10)
    assert workers[0].exitcode is not None


@pytest.mark.parametrize("name", ["digits", "imagefolder"])
def test_it_does_not_matter_where_images_are_varied_nor_in_which_chunks(name: str, photos: Path, monkeypatch) -> None:
    """What a GPU would do to the chunks is done here in the process, and compared bit for bit."""
    data = open_data(DataConfig(name, None if name == "digits" else str(photos)))
    training = data.training_set("train", SIZE, AugmentConfig(), 12, 3)
    expected = list(training.batches(range(4), Share(accumulate=2)))
    monkeypatch.setattr(batches_module, "CHUNK_BYTES", 0)  # then 16 images are a chunk
    assert equal(list(training.batches(range(4), Share(accumulate=2))), expected)
    images, indices = data._part("train")
    source = Source(images, indices, TrainTransform(SIZE, AugmentConfig(), data.normalize), seed=3, augment=False)
    keys = list(chunk_keys(Plan(indices, 12, 3), range(4), Share(accumulate=2), SIZE))
    assert equal(list(BatchAssembler(source, data.classes, torch.device("cpu"))(source[key] for key in keys)), expected)


def test_a_micro_batch_of_several_chunks_is_varied_and_mixed_as_one(digits: Data, monkeypatch) -> None:
    expected = list(digits.training_set("train", SIZE, AugmentConfig(), 50, 3).batches(range(2)))
    monkeypatch.setattr(batches_module, "CHUNK_BYTES", 0)
    keys = list(chunk_keys(Plan(digits._part("train")[1], 50, 3), range(2), ALL, SIZE))
    assert [(len(key.part.images), key.last) for key in keys] == [(16, False)] * 3 + [(2, True)] + [
        *([(16, False)] * 3),
        (2, True),
    ]
    assert equal(list(digits.training_set("train", SIZE, AugmentConfig(), 50, 3).batches(range(2))), expected)


def decode(files: list[Tensor]) -> list[Tensor]:
    """Of the kind that a GPU has: a list at once, all or nothing."""
    return decode_jpeg(files, mode=ImageReadMode.RGB)


@pytest.mark.filterwarnings("ignore:.*TorchVision are deprecated")
@pytest.mark.parametrize("workers", [0, 2])
def test_decoding_files_in_batch_gives_what_the_workers_give(workers: int, photos: Path, monkeypatch) -> None:
    data = open_data(DataConfig("imagefolder", str(photos), workers=workers))
    decoded = []

    def counted(files: list[Tensor]) -> list[Tensor]:
        decoded.append(len(files))
        return decode(files)

    large = (200, 200)  # so that no JPEG is decoded at a reduced scale
    expected = list(data.training_set("train+search", large, NO_MIX, 8, 0).batches(range(4)))
    found = list(data.training_set("train+search", large, NO_MIX, 8, 0).batches(range(4), decode=counted))
    assert sum(decoded) >= 2 * (data.size("train+search") // 8 * 8 - 2)  # two epochs; not the PNG and the turned one
    assert len(found) == len(expected)
    for (images, labels), (same, same_labels) in zip(found, expected, strict=True):
        assert torch.equal(labels, same_labels)
        assert (images - same).abs().max() < 0.5  # of a standard deviation: decoders differ by a rounding


@pytest.mark.filterwarnings("ignore:.*TorchVision are deprecated")
def test_a_file_that_the_decoder_refuses_is_left_to_the_workers_way(photos: Path) -> None:
    def fussy(files: list[Tensor]) -> list[Tensor]:
        if any(len(file) % 2 for file in files):
            raise RuntimeError("nvjpegDecode failed")
        return decode(files)

    data = open_data(DataConfig("imagefolder", str(photos)))
    large = (200, 200)
    expected = list(data.training_set("train", large, AugmentConfig(), 8, 0).batches(range(2)))
    found = list(data.training_set("train", large, AugmentConfig(), 8, 0).batches(range(2), decode=fussy))
    assert all((a[0] - b[0]).abs().max() < 0.5 for a, b in zip(found, expected, strict=True))


def break_files(photos: Path, data: Data, split: str, count: int) -> list[str]:
    """Cut off the first JPEGs of a split."""
    corrupt = [name for name in names(data, split) if name.endswith(".jpg")][:count]
    for name in corrupt:
        (photos / name).write_bytes((photos / name).read_bytes()[:300])
    return corrupt


def test_broken_images_are_replaced_the_same_way_by_any_number_of_workers(photos: Path, capfd) -> None:
    def opened(**settings: object) -> Data:
        return open_data(DataConfig("imagefolder", str(photos), corrupt="skip", **settings))

    whole = list(opened().training_set("train", SIZE, NO_MIX, 4, 0).batches(range(8)))
    data = opened()
    corrupt = break_files(photos, data, "train", 2)
    capfd.readouterr()
    found = list(data.training_set("train", SIZE, NO_MIX, 4, 0).batches(range(8)))
    lines = capfd.readouterr().err.splitlines()
    assert sorted(lines) == lines
    assert [line.split(":")[0] for line in lines] == ["skipped corrupt image 1", "skipped corrupt image 2"]
    assert all(sum(name in line for line in lines) == 1 for name in corrupt)
    assert equal(list(opened(workers=2).training_set("train", SIZE, NO_MIX, 4, 0).batches(range(8))), found)
    assert equal(list(opened(workers=1).training_set("train", SIZE, NO_MIX, 4, 0).batches(range(5, 8))), found[5:])

    # the others are as they were
    images, indices = data._part("train")
    lost = [images.names.index(name) for name in corrupt]
    order = [index for step in range(8) for index in Plan(indices, 4, 0).part(step).images]
    before, after = (torch.cat([images for images, _ in batches]) for batches in (whole, found))
    same = [torch.equal(*pair) for pair in zip(before, after, strict=True)]
    assert same == [index not in lost for index in order]
    assert same.count(False) > 2
    # and what stands in is another image of the split, varied as the broken one would have been
    source = Source(images, indices, TrainTransform(SIZE, NO_MIX, data.normalize), seed=0, skip=True)
    (draw,) = source.transform.draws([1])
    pixels, instead, worse = source.read(lost[0], draw)
    assert worse[0].name == corrupt[0]
    assert instead in set(indices.tolist()) - set(lost)
    assert torch.equal(pixels, source.read(instead, draw)[0])


@pytest.mark.filterwarnings("ignore:.*TorchVision are deprecated")
@pytest.mark.parametrize("way", ["workers", "decoder"])
def test_more_broken_images_than_the_limit_end_the_run(way: str, photos: Path, capfd) -> None:
    data = open_data(DataConfig("imagefolder", str(photos), corrupt="skip", corrupt_limit=2))
    break_files(photos, data, "train", 3)
    training = data.training_set("train", SIZE, NO_MIX, 4, 0)
    with pytest.raises(ValueError, match=r"^3 training images are corrupt, more than data\.corrupt_limit=2; the last"):
        list(training.batches(range(8), decode=decode if way == "decoder" else None))
    assert capfd.readouterr().err.count("skipped") == 2


def test_where_all_images_are_broken_the_search_for_another_ends(photos: Path) -> None:
    data = open_data(DataConfig("imagefolder", str(photos), corrupt="skip"))
    for path in photos.glob("*/*.*"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="101 training images in a row are corrupt, the last: cannot read image"):
        list(data.training_set("train", SIZE, NO_MIX, 4, 0).batches(range(1)))


@pytest.mark.parametrize("split", ["search", "test"])
def test_an_image_that_scores_is_never_skipped(split: str, photos: Path) -> None:
    data = open_data(DataConfig("imagefolder", str(photos), corrupt="skip"))
    (photos / names(data, split)[0]).write_bytes(b"")
    with pytest.raises(ValueError, match=r"^cannot read image .*; repair .* a score without this image would not"):
        list(data.eval_batches(split, SIZE, 4))


def test_large_photographs_are_decoded_at_a_reduced_scale(tmp_path: Path, monkeypatch) -> None:
    for label in "ab":
        for number in range(5):
            path = tmp_path / label / f"{number}.jpg"
            path.parent.mkdir(exist_ok=True)
            Image.effect_noise((1600, 1200), 50).resize((800, 600)).convert("RGB").save(path)
    cut: list[tuple[int, ...]] = []
    original = TrainTransform.cut
    monkeypatch.setattr(
        TrainTransform, "cut", lambda self, image, *rest: (cut.append(image.shape), original(self, image, *rest))[1]
    )
    whole = AugmentConfig(crop_scale=[0.9, 1.0], mixup=0.0, cutmix=0.0)
    list(open_data(DataConfig("imagefolder", str(tmp_path))).training_set("train", SIZE, whole, 6, 0).batches(range(1)))
    assert set(cut) == {(3, 75, 100)}  # an eighth, which is still more than the 32 pixels that are wanted


def test_repeated_augmentation_has_versions_of_an_image_in_a_batch(digits: Data) -> None:
    thrice = AugmentConfig(mixup=0.0, cutmix=0.0, repeats=3)
    training = digits.training_set("search", SIZE, thrice, 30, 0)
    steps = training.plan.steps_per_epoch
    epoch = list(training.batches(range(steps)))
    assert len(epoch) == steps
    for images, labels in epoch:
        assert torch.equal(labels.view(10, 3), labels.view(10, 3)[:, :1].expand(10, 3))
        for versions in images.view(10, 3, -1):
            assert min(torch.dist(versions[a], versions[b]) for a, b in ((0, 1), (0, 2), (1, 2))) > 1
    # the randomness is of the image and the version: it is the same in whatever part of a step
    parts = [list(training.batches(range(1), Share(rank, world=4))) for rank in range(4)]
    assert torch.equal(torch.cat([part[0][0] for part in parts]), epoch[0][0])


def test_mixing_does_not_mix_an_image_with_another_version_of_itself(digits: Data) -> None:
    mixup = AugmentConfig(cutmix=0.0, repeats=3)
    for rank, world in ((0, 1), (1, 3)):
        training, share = digits.training_set("train", SIZE, mixup, 30, 0), Share(rank, world)
        _, targets = next(training.batches(range(1), share))
        order = training.plan.part(0, 0, share).images
        labels = torch.from_numpy(digits._part("train")[0].labels[order])
        partners = targets.scatter(1, labels[:, None], 0).argmax(1)
        half = len(order) // 2
        assert all(order[place] != order[place - half] for place in range(len(order)))
        mixed = targets.amax(1) < 1  # else the two are of one class
        assert torch.equal(partners[mixed], labels.roll(half)[mixed])
        assert mixed.any()


def test_of_one_size_and_small_they_are_sent_whole(digits: Data) -> None:
    images, indices = digits._part("train")
    source = Source(images, indices, TrainTransform((16, 16), NO_MIX, digits.normalize), seed=0, augment=False)
    key = next(chunk_keys(Plan(indices, 8, 0), range(1), ALL, SIZE))
    assert not source.whole  # far larger than the network wants: averaged by cut()
    assert source[key].pixels.shape == (8, 3, 16, 16)
    source = Source(images, indices, TrainTransform((64, 64), NO_MIX, digits.normalize), seed=0, augment=False)
    assert source.whole
    assert torch.equal(source[key].pixels, images.pixels[key.part.images])


@pytest.mark.filterwarnings("ignore:.*TorchVision are deprecated")
def test_a_decoder_that_is_not_there() -> None:
    cpu = torch.device("cpu")
    assert jpeg_decoder("auto", cpu) is None
    assert jpeg_decoder("cpu", torch.device("cuda")) is None
    with pytest.raises(ValueError, match=r"^data.decode=gpu: no JPEG can be decoded there \(this run is on cpu\); use"):
        jpeg_decoder("gpu", cpu)
    if not torch.cuda.is_available():  # a GPU that does not work is no reason not to train
        assert jpeg_decoder("auto", torch.device("cuda")) is None


def test_one_ahead_and_no_more() -> None:
    made: list[int] = []

    def make() -> int:
        if len(made) == 4:
            raise StopIteration
        made.append(threading.get_ident())
        return len(made)

    batches = one_ahead(make)
    assert made == []
    for number in (1, 2, 3):
        assert next(batches) == number
        wait_until(lambda number=number: len(made) == number + 1)
        assert len(made) == number + 1
    assert list(batches) == [4]
    assert threading.get_ident() not in made


def test_an_error_ahead_comes_in_its_turn_and_leaving_early_ends_the_thread() -> None:
    numbers = iter([1, 2])

    def make() -> int:
        number = next(numbers, None)
        if number is None:
            raise ValueError("corrupt")
        return number

    batches = one_ahead(make)
    assert [next(batches), next(batches)] == [1, 2]
    with pytest.raises(ValueError, match="corrupt"):
        next(batches)
    endless = one_ahead(lambda: 1)
    next(endless)
    endless.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_a_gpus_batches_are_waited_for_before_they_are_used(monkeypatch) -> None:
    """With streams that only write down what they are asked."""
    asked: list[str] = []
    made = SimpleNamespace(record_event=lambda: asked.append("recorded") or "event")
    user = SimpleNamespace(wait_event=lambda event: asked.append(f"waits for {event}"))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: made)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: user)
    monkeypatch.setattr(Tensor, "record_stream", lambda tensor, stream: asked.append(f"kept for {stream is user}"))

    def finish(chunks: Iterable[int]) -> Iterator[tuple[Tensor, Tensor]]:
        return ((torch.full((2,), number), torch.zeros(1)) for number in chunks)

    found = [int(images[0]) for images, _ in ahead_on_gpu(iter([5, 6]), finish, torch.device("cuda"))]
    assert found == [5, 6]
    assert asked.count("recorded") == 2
    assert [line for line in asked if line != "recorded"] == ["waits for event", "kept for True", "kept for True"] * 2
    assert list(ahead_on_gpu(iter([]), finish, torch.device("cuda"))) == []
