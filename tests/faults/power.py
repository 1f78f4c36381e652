"""A power cut at each write of a command: the same command, run again, must end with the bits of an unbroken run.

    make campaign [MINUTES=60]
    python -m tests.faults.power [--minutes 60] [--command retrain] [--cut 17] [--way half] [--keep FOLDER]

A child process runs the real command while :mod:`tests.faults.disk` watches what it writes, and takes note before each
write of what a loss of power would leave then, in each of several ways. Since a process that has stopped has no part in
what is left, one run gives the pictures of all cuts. Each of them is put in the place of the run, and the same command
is run again.

Prints a table: writes of each command, cuts (a write and a way), different pictures among them, how many were tried,
how many held, and the cuts of those that failed. ``--command NAME --cut N --way WAY`` tries one of them again, and
``--keep FOLDER`` leaves what the cut left, what became of it, and the command's output.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from psvit.cli.main import main as command_line
from tests.cli.test_killed import result
from tests.faults.disk import WAYS, Disk, Picture, Record, restore

TRAINING = (
    *("recipe.epochs=2", "recipe.batch_size=720", "recipe.checkpoint_every=1", "recipe.warmup_epochs=0"),
    *("recipe.ema_decay=0.9", "data.workers=0"),
)
SEARCH = ("--flops", "5M", "search.baseline=5", "--supernet", "SUPERNET")
# of a command: its words, its run folder
COMMANDS = {
    "train-supernet": (("train-supernet", "space.cells=2", "watch=1", *TRAINING), "supernet"),
    "exhaustive": (("exhaustive", *SEARCH), "exhaustive-5M"),
    "race": (
        ("exhaustive", *SEARCH, "search.race=true", "search.race_keep=1", "search.rank_by=top1"),
        "exhaustive-5M",
    ),
    "retrain": (("retrain", "--arch", "ARCH", *TRAINING), "retrain"),
}
# what a child has imported before it is forked off
PRELOADED = ["psvit.supernet.train", "psvit.search.run", "psvit.retrain.train", "torch.utils.tensorboard", "hydra"]
PRELOADED += ["tests.cli.test_killed", "tests.faults.disk"]


@dataclass
class Unbroken:
    """A command that nothing has broken, and what it has written.

    Attributes:
        words: of the command line.
        name: of its run folder.
        files: those of its files that must not differ, by path.
        record: what was written, and what cuts would have left.
    """

    words: list[str]
    name: str
    files: dict[str, bytes]
    record: Record


@dataclass
class Tally:
    """What became of the cuts of a command; ``failed`` says why, by number of the write and way."""

    writes: int = 0
    cuts: int = 0
    pictures: int = 0
    tried: int = 0
    held: int = 0
    failed: dict[tuple[int, str], str] = field(default_factory=dict)


def _work(folder: Path, words: Sequence[str], watch: bool, pipe: Connection) -> None:
    """In a process of its own: run a command in a folder, and send its status and what it wrote."""
    import torch

    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    os.chdir(folder)
    record = None
    with open(f"{folder}.txt", "a", buffering=1) as output, redirect_stdout(output), redirect_stderr(output):
        if watch:
            with Disk(folder) as disk:
                status = command_line(words)
            record = disk.record
        else:
            status = command_line(words)
    pipe.send((status, record))


def run(folder: Path, words: Sequence[str], watch: bool = False) -> Record | None:
    """Run a command in a folder; what it wrote, if it was watched.

    Raises:
        RuntimeError: it failed; with its output.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(folder, words, watch, theirs))
    process.start()
    theirs.close()
    try:
        status, record = ours.recv()
    except EOFError:
        status, record = "no status", None
    process.join()
    if status != 0:
        lines = Path(f"{folder}.txt").read_text(errors="replace").splitlines()
        raise RuntimeError(f"{status}: {lines[-1] if lines else ''}")
    return record


def make_inputs(folder: Path) -> dict[str, Path]:
    """A supernet, and an architecture that was found in it: what the words ``SUPERNET`` and ``ARCH`` stand for."""
    folder.mkdir()
    run(folder, COMMANDS["train-supernet"][0])
    supernet = folder / "runs/default/supernet"
    run(folder, [str(supernet) if word == "SUPERNET" else word for word in COMMANDS["exhaustive"][0]])
    return {"SUPERNET": supernet, "ARCH": folder / "runs/default/exhaustive-5M/arch.json"}


def unbroken(command: str, inputs: dict[str, Path], folder: Path) -> Unbroken:
    """Run a command to its end in a new folder, and watch it."""
    words, name = COMMANDS[command]
    words = [str(inputs.get(word, word)) for word in words]
    folder.mkdir()
    record = run(folder, words, watch=True)
    assert record is not None
    return Unbroken(words, name, files(folder / "runs/default" / name), record)


def files(run: Path) -> dict[str, bytes]:
    """What must not differ, and the names of everything else that a run leaves but logs and earlier checkpoints."""
    hub = {f"hub/{name}": content for name, content in result(run / "hub").items()} if (run / "hub").exists() else {}
    others = (path for path in run.rglob("*") if path.is_file() and path.parent.name != "tensorboard")
    names = sorted(str(path.relative_to(run)) for path in others if path.stat().st_size)
    return {**result(run), **hub, "names": "\n".join(names).encode()}


def resume(whole: Unbroken, picture: Picture, folder: Path) -> str:
    """Run the command on what a cut has left; nothing, or why it did not end as the unbroken run did."""
    folder.mkdir()
    restore(picture, whole.record.blobs, folder)
    try:
        run(folder, whole.words)
    except RuntimeError as error:
        return f"the command ends with {error}"
    found = files(folder / "runs/default" / whole.name)
    differ = sorted(name for name in found.keys() | whole.files.keys() if found.get(name) != whole.files.get(name))
    return f"other than in the unbroken run: {', '.join(differ)}" if differ else ""


def distinct(record: Record) -> dict[Picture, tuple[int, str]]:
    """Each picture that a cut may leave, and the first cut that leaves it: number of the write, from 1, and way."""
    pictures: dict[Picture, tuple[int, str]] = {}
    for number, cut in enumerate(record.cuts, start=1):
        for way, picture in cut.pictures.items():
            pictures.setdefault(picture, (number, way))
    return pictures


def try_many(whole: Unbroken, folder: Path, seconds: float = math.inf, most: int = sys.maxsize) -> Tally:
    """Try cuts of a command in random order, one for each picture, as long as there is time."""
    end, pictures = time.monotonic() + seconds, distinct(whole.record)
    cuts = len(whole.record.cuts)
    tally = Tally(cuts, cuts * len(WAYS), len(pictures))
    order = list(pictures.items())
    random.Random(whole.name).shuffle(order)
    for picture, (number, way) in order[:most]:
        if time.monotonic() > end:
            break
        why = resume(whole, picture, folder)
        tally.tried += 1
        if why:
            tally.failed[number, way] = f"before {whole.record.cuts[number - 1].write}: {why}"
        else:
            tally.held += 1
        shutil.rmtree(folder)
        Path(f"{folder}.txt").unlink()
    return tally


def table(tallies: dict[str, Tally]) -> Iterator[str]:
    """The lines of the table."""
    yield "| power cuts in | writes | cuts | different pictures | tried | held | failed | cuts of these |"
    yield "|---|---|---|---|---|---|---|---|"
    for command, tally in tallies.items():
        counts = (tally.writes, tally.cuts, tally.pictures, tally.tried, tally.held, len(tally.failed))
        which = ", ".join(f"{number} {way}" for number, way in [*tally.failed][:8])
        yield f"| {command} | {' | '.join(f'{count:,}' for count in counts)} | {which} |"


def campaign(folder: Path, commands: Sequence[str], seconds: float) -> dict[str, Tally]:
    """Cut the power in some commands; what failed, and what was not synced in time, is told on stderr."""
    inputs, tallies, end = make_inputs(folder / "inputs"), {}, time.monotonic() + seconds
    for place, command in enumerate(commands):
        whole = unbroken(command, inputs, folder / command)
        share = (end - time.monotonic()) / (len(commands) - place)
        tallies[command] = try_many(whole, folder / "cut", share)
        if whole.record.late:
            tallies[command].failed[len(whole.record.cuts), "late"] = "; ".join(whole.record.late[:8])
        for (number, way), why in list(tallies[command].failed.items())[:8]:
            print(f"{command}, cut {number} {way}: {why}", file=sys.stderr, flush=True)
    return tallies


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.power")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--command", choices=COMMANDS, help="only this one")
    parser.add_argument("--cut", type=int, help="only the one before this write")
    parser.add_argument("--way", choices=WAYS, default="lost", help="what --cut leaves")
    parser.add_argument("--keep", type=Path, help="where to leave the folders of --cut")
    asked = parser.parse_args()
    commands = [asked.command] if asked.command else list(COMMANDS)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        if asked.cut is None:
            tallies = campaign(folder, commands, 60 * asked.minutes)
            print("\n".join(table(tallies)))
            sys.exit(any(tally.failed for tally in tallies.values()))
        if asked.command is None:
            parser.error("--cut is of a command: give --command")
        whole = unbroken(asked.command, make_inputs(folder / "inputs"), folder / "unbroken")
        cut = whole.record.cuts[asked.cut - 1]
        (folder / "left").mkdir()
        restore(cut.pictures[asked.way], whole.record.blobs, folder / "left")
        why = resume(whole, cut.pictures[asked.way], folder / "cut")
        print(f"{asked.command}, cut {asked.cut} {asked.way}, before {cut.write}: {why or 'held'}")
        if asked.keep:
            shutil.copytree(folder, asked.keep)
        sys.exit(bool(why))


if __name__ == "__main__":
    main()
