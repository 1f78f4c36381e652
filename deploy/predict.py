"""``psvit-search predict``: what a trained network takes pictures for."""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path

from psvit.data.formats import SUFFIXES
from psvit.deploy.config import PredictConfig
from psvit.deploy.model import Fault, Prediction, load
from psvit.run.progress import Counter

_FEW = 512  # pictures: for fewer, processes to read them do not pay


def predict(config: PredictConfig) -> int:
    """Print the most probable classes of each picture, and on stderr which cannot be read.

    Returns:
        How many could be read.

    Raises:
        ValueError: no trained network, no picture, or none that can be read.
    """
    model = load(config.model, config.device)
    paths = find_pictures(config.pictures)
    workers = config.workers
    if workers is None:
        workers = 0 if len(paths) < _FEW else min(8, os.cpu_count() or 1)
    answers: dict[str, list[Prediction]] = {}
    faults: list[Fault] = []
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if config.csv:
        writer.writerow(["file", "place", "class", "confidence"])
    with Counter(len(paths), "predict", "images") as counter:
        for batch in model.predict_files(paths, config.top, config.batch_size, workers):
            for answer in batch:
                if isinstance(answer, Fault):
                    faults.append(answer)
                    continue
                path, classes = answer
                answers[path] = classes
                if config.csv:
                    writer.writerows([path, place, *each] for place, each in enumerate(classes, 1))
                elif not config.json:
                    print(f"{path}: {', '.join(f'{name} {confidence:.1%}' for name, confidence in classes)}")
            counter.advance(len(batch))
    if config.json:
        named = {path: [each._asdict() for each in classes] for path, classes in answers.items()}
        print(json.dumps({"predictions": named, "unreadable": dict(faults)}, indent=2))
    for fault in faults:
        print(f"cannot be read: {fault.reason}", file=sys.stderr)
    if not answers:
        raise ValueError(f"none of {len(paths):,} pictures can be read")
    return len(answers)


def find_pictures(given: list[str]) -> list[str]:
    """Files as they are given; of a folder those that end as images do, at any depth, by name; of ``-`` lines of stdin.

    Raises:
        ValueError: nothing is given, a folder has no picture, or something does not exist.
    """
    paths: list[str] = []
    for text in given:
        if text == "-":
            paths += [line for line in sys.stdin.read().splitlines() if line]
        elif os.path.isdir(text):
            below = [
                os.path.join(folder, name)
                for folder, _, names in os.walk(text)
                for name in names
                if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
            ]
            if not below:
                raise ValueError(f"{text} holds no image files")
            paths += sorted(below)
        elif os.path.exists(text):
            paths.append(text)
        else:
            raise ValueError(f"{text}: there is no such file or folder")
    if not paths:
        raise ValueError("no pictures are given; name image files, a folder, or - for a list on standard input")
    return paths
