"""Files for other runtimes: how each is written from an exported program and opened; both say what they are of."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import re
import sys
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
_SEAL = re.compile(rb'(?<=<psvit_sha256 value=")[0-9a-f]{64}(?=")')
_UNSEALED = b"0" * 64


@dataclass(frozen=True)
class Format:
    """How a network is written for a runtime.

    Attributes:
        file: name of the file that is opened.
        extra: of this package, which installs what it needs; empty where it needs nothing.
        needs: modules that must be installed.
        write: program, what it is as JSON, path -> the file, and those beside it.
        open: path -> the network in that runtime, and what the file says it is: None, where it does not say.
        beside: names of files that it is nothing without, in the same folder.
    """

    file: str
    extra: str
    needs: tuple[str, ...]
    write: Callable[[torch.export.ExportedProgram, str, Path], None]
    open: Callable[[Path], tuple[Run, str | None]]
    beside: tuple[str, ...] = ()

    def require(self) -> None:
        """Make sure that what it needs is installed.

        Raises:
            ValueError: it is not.
        """
        missing = [module for module in self.needs if importlib.util.find_spec(module) is None]
        if missing:
            raise ValueError(f"{self.file} needs {', '.join(missing)}: pip install 'psvit-search[{self.extra}]'")


def is_exported(path: Path) -> bool:
    """Whether the end of a file's name is one that ``export`` gives to what can be opened."""
    return path.suffix in {Path(each.file).suffix for each in FORMATS_BY_NAME.values()}


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


def open_onnx(path: Path, threads: int = 0) -> tuple[Run, str | None]:
    """The network in an ONNX file, and what it says it is; 0 ``threads`` are as many as onnxruntime likes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (name,) = (each.name for each in session.get_inputs())
    about = session.get_modelmeta().custom_metadata_map.get("psvit")
    return lambda images: torch.from_numpy(session.run(None, {name: images.numpy()})[0]), about


def _openvino() -> Any:
    """OpenVINO, which else would send its makers word of each import and conversion: it runs without that package."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if it were not installed
    return importlib.import_module("openvino")


def _write_openvino(program: torch.export.ExportedProgram, about: str, path: Path) -> None:
    openvino, (images,) = _openvino(), program.example_inputs[0]
    model = openvino.convert_model(program)
    model.reshape([-1, *images.shape[1:]])
    model.inputs[0].get_tensor().set_names({"images"})
    model.outputs[0].get_tensor().set_names({"logits"})
    model.set_rt_info(about, ["psvit"])
    model.set_rt_info(_UNSEALED.decode(), ["psvit_sha256"])
    openvino.save_model(model, path, compress_to_fp16=False)
    path.write_bytes(_SEAL.sub(_seal(path).encode(), path.read_bytes(), count=1))


def _seal(path: Path) -> str:
    """SHA-256 of an .xml, its own seal as zeros, and of the .bin beside it: neither is anything without the other."""
    digest = hashlib.sha256(_SEAL.sub(_UNSEALED, path.read_bytes()))
    with open(path.with_suffix(".bin"), "rb") as weights:
        while block := weights.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def open_openvino(path: Path, threads: int = 0, precision: str = "f32") -> tuple[Run, str | None]:
    """The network in an .xml and the .bin beside it, and what it says it is.

    Args:
        threads: that it computes with; 0 are as many as OpenVINO likes.
        precision: that it computes in, ``f32`` or ``bf16``. Left alone, OpenVINO takes bfloat16 where the CPU has
            instructions for it, and the logits are others.

    Raises:
        ValueError: one of the files is missing or damaged, they are not of one export, or OpenVINO cannot run them.
    """
    seals = _SEAL.findall(path.read_bytes())
    if not seals:
        return lambda images: images, None
    if not path.with_suffix(".bin").is_file():
        raise ValueError(f"its weights, {path.with_suffix('.bin').name}, are not beside it")
    if seals != [_seal(path).encode()]:  # before OpenVINO reads it, which believes whatever weights there are
        raise ValueError(f"it or {path.with_suffix('.bin').name} was cut short or changed")
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    core = _openvino().Core()
    try:
        model = core.read_model(path)
        network = core.compile_model(model, "CPU", settings)
    except RuntimeError as error:  # its first lines are places in OpenVINO's source
        raise ValueError(str(error).strip().splitlines()[-1]) from None
    return lambda images: torch.from_numpy(network([images.numpy()])[0]), model.get_rt_info(["psvit"]).value


FORMATS_BY_NAME = {
    "torch-export": Format("model.pt2", "", (), _write_torch, _open_torch),
    "onnx": Format("model.onnx", "export", ("onnx", "onnxscript", "onnxruntime"), _write_onnx, open_onnx),
    "openvino": Format("model.xml", "openvino", ("openvino",), _write_openvino, open_openvino, ("model.bin",)),
}
assert tuple(FORMATS_BY_NAME) == FILES
