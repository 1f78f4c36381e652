"""How a network or a supernet is trained: the recipe, and what every run has. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from psvit.checks import check_above, check_at_least, check_choice, check_share
from psvit.data.config import AugmentConfig

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
COMPILE = ("auto", "true", "false")


@dataclass
class LoopRecipe:
    """What the training loop does, whatever the network learns.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per optimiser step, over all processes and accumulated micro-batches.
        accumulate: micro-batches that a process's share of a batch is split into, to save memory.
        lr: peak learning rate of AdamW. It rises linearly for ``warmup_epochs`` and falls as a cosine to ``min_lr``.
        min_lr: learning rate at the end.
        warmup_epochs: epochs over which the learning rate rises.
        decay_epochs: divide the learning rate by ten after each of these epochs, instead of the cosine.
        layer_decay: factor by which the learning rate falls per layer from the head down to the embedding, for
            fine-tuning (BEiT, arXiv 2106.08254); None leaves it the same everywhere.
        weight_decay: weight decay of matrices and kernels. Biases, norms, positions and class token have none.
        clip_norm: largest gradient norm; None does not clip.
        ema_decay: decay of the exponential moving average of the weights, which is scored beside them; in the first
            steps it is ``(1 + step) / (10 + step)``. None keeps no average.
        precision: ``fp32``, ``bf16`` or ``fp16`` autocast, or ``auto`` for bf16 on a GPU and fp32 on a CPU.
        compile: compile the layers with torch.compile: ``true``, ``false``, or ``auto`` (on a GPU only).
        checkpoint_activations: recompute activations inside layers in the backward pass instead of keeping them. Much
            less memory for about a third more computation, and the same result.
        checkpoint_every: optimiser steps between checkpoints; None is once per epoch. No effect on the result.
    """

    epochs: int = 300
    batch_size: int = 1024
    accumulate: int = 1
    lr: float = 1e-3
    min_lr: float = 1e-5
    warmup_epochs: float = 5.0
    decay_epochs: list[float] | None = None
    layer_decay: float | None = None
    weight_decay: float = 0.05
    clip_norm: float | None = None
    ema_decay: float | None = None
    precision: str = "auto"
    compile: str = "auto"
    checkpoint_activations: bool = False
    checkpoint_every: int | None = None

    def __post_init__(self) -> None:
        self.compile = str(self.compile).lower()  # YAML reads true and false as what they are
        check_at_least(self, 1, "epochs", "batch_size", "accumulate", "checkpoint_every", prefix="recipe.")
        check_above(self, 0, "lr", "clip_norm", prefix="recipe.")
        check_at_least(self, 0, "min_lr", "warmup_epochs", "decay_epochs", "weight_decay", prefix="recipe.")
        check_share(self, "layer_decay", prefix="recipe.", zero=False)
        check_share(self, "ema_decay", prefix="recipe.", zero=False, one=False)
        check_choice(self, PRECISIONS, "precision", prefix="recipe.")
        check_choice(self, COMPILE, "compile", prefix="recipe.")

    def compiles_on(self, device: str) -> bool:
        """Whether layers are compiled on a device: ``cpu`` or ``cuda``."""
        return self.compile == "true" or (self.compile == "auto" and device == "cuda")


@dataclass
class Recipe(LoopRecipe):
    """How a classifier is trained; the defaults are the DeiT recipe (arXiv 2012.12877, table 9).

    Attributes:
        label_smoothing: share of the target that is spread evenly over all classes.
        drop_path: drop-path rate of the last layer. It rises linearly from 0 over depth.
        augment: how training images are augmented.
    """

    label_smoothing: float = 0.1
    drop_path: float = 0.1
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share(self, "label_smoothing", "drop_path", prefix="recipe.", one=False)


@dataclass
class RunConfig:
    """What every command that makes a run folder has.

    Attributes:
        runs: folder of all runs.
        name: name of the project; its runs are in ``runs/NAME/``.
        out: the run folder.
        seed: random seed of weights, data order, augmentation, paths and search.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
    """

    runs: str = "runs"
    name: str = "default"
    out: str = "???"
    seed: int = 0
    device: str = "auto"


@dataclass
class TrainConfig(RunConfig):
    """What every command that trains has.

    Attributes:
        profile: trace a few steps with torch's profiler, into ``profile/`` of the run folder.
    """

    profile: bool = False
