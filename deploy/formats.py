"""Files for other runtimes: how each is written from an exported program and opened; both say what they are of."""

from __future__ import annotations

import importlib.util
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from psvit.deploy.config import FILES

Run = Callable[[Tensor], Tensor]
"""Images (B, 3, height, width), normalised, -> logits (B, classes), in another runtime, on the CPU."""
OPSET = 18  # that torch's exporter writes; to any other it would have to convert


@dataclass(frozen=True)
class Format:
    """How a network is written for a runtime.

    Attributes:
        file: name of the file.
        needs: modules that must be installed.
        write: program, what it is as JSON, path -> the file.
        open: path -> the network in that runtime, and what the file says it is: None, where it does not say.
    """

    file: str
    needs: tuple[str, ...]
    write: Callable[[torch.export.ExportedProgram, str, Path], None]
    open: Callable[[Path], tuple[Run, str | None]]

    def require(self) -> None:
        """Make sure that what it needs is installed.

        Raises:
            ValueError: it is not.
        """
        missing = [module for module in self.needs if importlib.util.find_spec(module) is None]
        if missing:
            raise ValueError(f"{self.file} needs {', '.join(missing)}: pip install 'psvit-search[export]'")


class Runtime(nn.Module):
    """A network in another runtime that is called as one of torch is."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def forward(self, images: Tensor) -> Tensor:
        return self._run(images)


def open_file(path: Path) -> tuple[Runtime, dict[str, Any]]:
    """The network in a file that ``export`` wrote, by the end of its name, and what it says it is.

    Raises:
        ValueError: its runtime is not installed, or it is cut short, of another kind, or of another program.
    """
    (form,) = (each for each in FORMATS_BY_NAME.values() if Path(each.file).suffix == path.suffix)
    form.require()
    try:
        run, about = form.open(path)
    except Exception as error:  # of classes that only the runtimes know
        raise ValueError(f"{path} cannot be opened: {str(error).splitlines()[0]}; export it again") from None
    if about is None:
        raise ValueError(f"{path} does not say its classes and its preprocessing: psvit-search export did not write it")
    found: dict[str, Any] = json.loads(about)
    return Runtime(run), found


def _write_torch(program: torch.export.ExportedProgram, about: str, path: Path) -> None:
    torch.export.save(program, path, extra_files={"psvit.json": about})


def _open_torch(path: Path) -> tuple[Run, str | None]:
    if not zipfile.is_zipfile(path):  # torch would log a traceback
        raise ValueError("it is cut short or of another kind")
    extra = {"psvit.json": ""}
    network = torch.export.load(path, extra_files=extra).module()
    return lambda images: network(images), extra["psvit.json"] or None  # a module of its own could not be set to eval


def _write_onnx(program: torch.export.ExportedProgram, about: str, path: Path) -> None:
    made: Any = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=OPSET,
        input_names=["images"],
        output_names=["logits"],
        verbose=False,
        external_data=False,
    )
    made.model.metadata_props["psvit"] = about
    made.save(path)


def _open_onnx(path: Path) -> tuple[Run, str | None]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (name,) = (each.name for each in session.get_inputs())
    about = session.get_modelmeta().custom_metadata_map.get("psvit")
    return lambda images: torch.from_numpy(session.run(None, {name: images.numpy()})[0]), about


FORMATS_BY_NAME = {
    "torch-export": Format("model.pt2", (), _write_torch, _open_torch),
    "onnx": Format("model.onnx", ("onnx", "onnxscript", "onnxruntime"), _write_onnx, _open_onnx),
}
assert tuple(FORMATS_BY_NAME) == FILES
