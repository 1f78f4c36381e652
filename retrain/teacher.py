"""Distillation from a frozen teacher: DeiT (arXiv 2012.12877), section 4.

B images, C classes; logits of the student Z_s and of the teacher Z_t are (B, C), psi is the softmax, y the targets. As
in the paper,

    soft:  (1 - alpha) CE(psi(Z_s), y) + alpha tau^2 KL(psi(Z_s / tau), psi(Z_t / tau))      (equation 2)
    hard:  (1 - alpha) CE(psi(Z_s), y) + alpha CE(psi(Z_s), argmax Z_t)                      (equation 3, alpha 1/2)

PSViT has no distillation token: its one head learns both terms, as in the paper's table 3 where that token is missing.
Where images are mixed, the teacher sees the mixed ones. It is no part of the student, and of no checkpoint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from psvit.archfile import load_arch
from psvit.data.data import Data
from psvit.data.transforms import Normalize, Size
from psvit.flops import count_flops
from psvit.retrain.config import DistillConfig
from psvit.retrain.fit import load_trained
from psvit.weights import load_tensors, read_tensors, read_trained_on

DEIT_ALPHA = {"hard": 0.5, "soft": 0.1}


def distillation_loss(label_loss: Tensor, student: Tensor, teacher: Tensor, config: DistillConfig) -> Tensor:
    """The student's loss on the labels, and what it has to learn from the teacher: a scalar.

    Args:
        label_loss: CE(psi(Z_s), y), with the recipe's label smoothing.
        student: Z_s (B, C).
        teacher: Z_t (B, C).
    """
    alpha = DEIT_ALPHA[config.mode] if config.alpha is None else config.alpha
    term = hard_term(student, teacher) if config.mode == "hard" else soft_term(student, teacher, config.temperature)
    return (1 - alpha) * label_loss + alpha * term


def hard_term(student: Tensor, teacher: Tensor) -> Tensor:
    """Cross entropy with the class that the teacher decides for, which is not smoothed: (B, C) x 2 -> scalar."""
    return F.cross_entropy(student.float(), teacher.argmax(dim=1))


def soft_term(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """tau^2 times the mean over images of sum_c p_t log(p_t / p_s), p = psi(Z / tau): (B, C) x 2 -> scalar.

    The paper's formula; its published code divides by the number of classes as well.
    """
    log_student, log_teacher = (F.log_softmax(logits.float() / temperature, dim=1) for logits in (student, teacher))
    return temperature**2 * F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)


class Teacher:
    """A trained network that only answers: frozen, in eval mode, without gradients.

    Args:
        network: images (B, 3, h, w), normalised its own way, -> logits (B, C).
        theirs: the normalisation of the images that it is given.
        own: the normalisation that it was trained with.
        size: (height, width) that images are resized to for it; None takes them as they come.
        flops: multiply-adds of its forward pass of an image.
        order: (C,) which of its outputs each class of the student is; None: as they are.
    """

    def __init__(
        self,
        network: nn.Module,
        theirs: Normalize,
        own: Normalize,
        size: Size | None,
        flops: int,
        order: Sequence[int] | None = None,
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.size, self.flops = size, flops
        self._order = None if order is None else torch.tensor(order)
        (mean, std), (own_mean, own_std) = ((torch.tensor(each.mean), torch.tensor(each.std)) for each in (theirs, own))
        # ((x std + mean) - own mean) / own std; mixed images stay mixed, since the map is affine
        self._scale = (std / own_std).view(3, 1, 1)
        self._shift = ((mean - own_mean) / own_std).view(3, 1, 1)

    def to(self, device: torch.device, compiled: bool = False) -> Teacher:
        """The same on a device; on a GPU in the memory order that convolutions like there, and compiled if asked."""
        self.network.to(device)
        if device.type == "cuda":
            self.network.to(memory_format=torch.channels_last)
        if compiled:
            self.network.compile()
        self._scale, self._shift = self._scale.to(device), self._shift.to(device)
        self._order = None if self._order is None else self._order.to(device)
        return self

    def see(self, images: Tensor) -> Tensor:
        """The student's images (B, 3, H, W), as its own library would feed them to the teacher."""
        images = torch.addcmul(self._shift, images, self._scale)
        if self.size is not None:
            images = F.interpolate(images, size=self.size, mode="bicubic", antialias=True)
        return images

    def sha256(self) -> str:
        """Hexadecimal SHA-256 of its weights, wherever they are from."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """The student's images (B, 3, H, W) -> the teacher's logits (B, C), in the autocast around this call."""
        logits: Tensor = self.network(self.see(images))
        return logits if self._order is None else logits[:, self._order]


def load_teacher(config: DistillConfig, data: Data, size: Size) -> Teacher:
    """The teacher that a config names, on the CPU.

    Args:
        data: what the student learns; its classes must be the teacher's.
        size: (height, width) of the student's images. A teacher that cannot take them gets them in its own size.

    Raises:
        ValueError: an unknown name, a library that is not installed, weights that cannot be had or are of another
            network, or a teacher of other classes, by number or by name.
    """
    assert config.teacher is not None
    blueprint = _find(config.teacher, config.weights, data)
    order = None if blueprint.class_names is None else _order(config.teacher, blueprint.class_names, data)
    if config.weights is None:
        _same_classes(config.teacher, blueprint.classes, data)
        network = blueprint.pretrained()
    else:
        network = blueprint.build(data.classes)
        _fill(network, Path(config.weights), config.teacher, data)
    network.eval().requires_grad_(False)
    resized, classes = _try(network, size, blueprint.size, config.teacher)
    _same_classes(config.teacher, classes, data)
    flops = count_flops(network, torch.zeros(1, 3, *(blueprint.size if resized else size)))
    return Teacher(network, data.normalize, blueprint.normalize, blueprint.size if resized else None, flops, order)


@dataclass(frozen=True)
class _Blueprint:
    """What a library says of a network before anything is built or downloaded.

    Attributes:
        build: number of classes -> the network, with random weights.
        pretrained: -> the network with the library's own weights, which are of ``classes`` classes.
        normalize: what its images are normalised by.
        size: (height, width) of the images that it was trained on.
        class_names: what its outputs stand for; None where that is not known.
    """

    build: Callable[[int], nn.Module]
    pretrained: Callable[[], nn.Module]
    classes: int
    normalize: Normalize
    size: Size
    class_names: tuple[str, ...] | None = None


def _find(teacher: str, weights: str | None, data: Data) -> _Blueprint:
    library, colon, name = teacher.partition(":")
    if colon and library == "torchvision":
        return _of_torchvision(name)
    if colon and library == "timm":
        return _of_timm(name)
    if not Path(teacher).is_file():
        raise ValueError(
            f"distill.teacher is {teacher!r}, and there is no such file: write torchvision:NAME, timm:NAME, or the "
            "path of an arch.json"
        )
    return _of_ours(Path(teacher), None if weights is None else Path(weights), data)


def _of_torchvision(name: str) -> _Blueprint:
    from torchvision import models

    _known(name, models.list_models(module=models), "torchvision")
    weights = models.get_model_weights(name).DEFAULT
    preset = weights.transforms()

    def pretrained() -> nn.Module:
        network: nn.Module = models.get_model(name, weights=None)
        network.load_state_dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
        return network

    return _Blueprint(
        build=lambda classes: models.get_model(name, weights=None, num_classes=classes),
        pretrained=lambda: _download(pretrained, f"torchvision:{name}"),
        classes=len(weights.meta["categories"]),
        normalize=Normalize(_colour(preset.mean), _colour(preset.std)),
        size=(preset.crop_size[0], preset.crop_size[-1]),
    )


def _of_timm(name: str) -> _Blueprint:
    try:
        import timm
    except ImportError:
        raise ValueError(f"distill.teacher=timm:{name} needs timm, which is not installed: pip install timm") from None
    _known(name, [*timm.list_models(), *timm.list_pretrained()], "timm")
    settings = timm.get_pretrained_cfg(name)  # of the default weights where the name has no .tag
    assert settings is not None, "timm has one of every network in its lists"

    def pretrained() -> nn.Module:
        network: nn.Module = timm.create_model(name, pretrained=True)
        return network

    return _Blueprint(
        build=lambda classes: timm.create_model(name, num_classes=classes),
        pretrained=lambda: _download(pretrained, f"timm:{name}"),
        classes=settings.num_classes,
        normalize=Normalize(_colour(settings.mean), _colour(settings.std)),
        size=settings.input_size[1:],
    )


def _of_ours(path: Path, given: Path | None, data: Data) -> _Blueprint:
    arch, weights = load_arch(path), given or path.parent / "model.safetensors"
    ours = weights.suffix == ".safetensors" and weights.is_file()
    known = (read_trained_on(weights) if ours else None) or arch.trained_on
    return _Blueprint(
        build=lambda classes: arch.for_data(classes, None).build(),
        pretrained=lambda: load_trained(arch, weights),
        classes=arch.spec.classes,
        normalize=data.normalize if known is None else Normalize(known.preprocessing.mean, known.preprocessing.std),
        size=arch.spec.image_size,
        class_names=None if known is None else known.class_names,
    )


def _colour(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue


def _known(name: str, names: Sequence[str], library: str) -> None:
    if name not in names:
        close = get_close_matches(name, names, n=3)
        guess = f"; did you mean {' or '.join(close)}?" if close else f"; {library}.list_models() lists its names"
        raise ValueError(f"distill.teacher={library}:{name}: {library} has no such classifier{guess}")


def _same_classes(teacher: str, classes: int, data: Data) -> None:
    if classes != data.classes:
        raise ValueError(
            f"the teacher {teacher} has {classes} classes, the data {data.config.name} {data.classes}: give "
            "distill.weights=FILE of a teacher that was trained on these classes"
        )


def _order(teacher: str, class_names: tuple[str, ...], data: Data) -> list[int] | None:
    """Which of the teacher's outputs each class of the data is, by name; None if they are in one order."""
    if class_names == data.class_names:
        return None
    _same_classes(teacher, len(class_names), data)
    other = sorted(set(class_names) ^ set(data.class_names))
    if other:
        whose = "the teacher" if other[0] in class_names else f"the data {data.config.name}"
        raise ValueError(
            f"the teacher {teacher} has learned other classes than the data {data.config.name}: only {whose} has "
            f"{other[0]!r}; give a teacher that was trained on these classes"
        )
    return [class_names.index(name) for name in data.class_names]


def _download(pretrained: Callable[[], nn.Module], teacher: str) -> nn.Module:
    try:
        return pretrained()
    except Exception as error:  # each library has its own ways to fail without network
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"cannot get the pretrained weights of {teacher} ({reason}); download them elsewhere and give "
            "distill.weights=FILE"
        ) from error


def _fill(network: nn.Module, path: Path, teacher: str, data: Data) -> None:
    """Load a file of weights into a network of the data's classes."""
    tensors = read_tensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for name, own in network.state_dict().items():
        there = tensors.get(name, own).shape
        # the head, whatever its name: only its first side, the classes, differs
        if there != own.shape and len(own) == data.classes and there[1:] == own.shape[1:]:
            _same_classes(teacher, there[0], data)
    load_tensors(path, tensors, network)


def _read_torch(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of ``torch.save``; nothing in it is run."""
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such weights file") from None
    except Exception as error:  # a damaged archive raises almost anything
        raise ValueError(
            f"{path}: cannot be read as plain tensors: it is damaged, of another kind, or holds code (none was run); "
            "save only the state_dict(), or use safetensors"
        ) from error
    for key in ("model", "state_dict"):  # as DeiT's, and as timm's training scripts write it
        content = content.get(key, content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path}: holds no state_dict of tensors; save network.state_dict()")
    return content


@torch.no_grad()
def _try(network: nn.Module, size: Size, own: Size, teacher: str) -> tuple[bool, int]:
    """Whether images of a size must be resized to its own for a network, and how many classes it answers with."""
    for resized, side in ((False, size), (True, own)):
        try:
            return resized, network(torch.zeros(1, 3, *side)).shape[-1]
        except Exception as error:  # networks refuse a size in many ways
            if resized:
                raise ValueError(f"the teacher {teacher} takes no images of its own size: {error}") from error
    raise AssertionError("one of the two has answered or raised")
