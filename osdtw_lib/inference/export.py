"""A trained row taken away: files that need nothing of this project, in a folder of their own.

model.safetensors   the weights                     config.json         classes, training counts, prior, architecture, origin
model.pt2           torch.export's program          preprocessing.json  from an image file to the network's input
model.onnx          the same for ONNX Runtime       predict.py          predicts with onnxruntime, numpy and Pillow alone
README.md           the model card

Both programs take normalised images, float32 (B, channels, height, width) for any B, and give the row's raw scores (B, K) in
class order. What is shared is computed once.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ..artifacts.files import write_tensors, write_text
from ..artifacts.manifest import read_manifest, versions
from ..data.image_files import NO_PICTURES
from ..errors import UserError
from ..methods._base import Row
from ..methods.osdtw import ROWS
from ..models.weights import weights
from .cost import Cost, costs
from .measured import measured
from .model_card import model_card
from .predictor import Predictor, load_predictor, run_folder

NEEDS = ("onnx", "onnxscript", "onnxruntime")
SCRIPT = Path(__file__).with_name("predict_alone.py")
ONE_FILE = 1_500_000_000  # bytes: an ONNX file holds 2 GB at most, and of a larger network the weights lie beside it
CLOSE = 1e-4  # of the largest score, or of 1: how far ONNX Runtime may be from PyTorch
BATCHES = (1, 7)  # that are compared


class Scores(nn.Module):
    """Normalised images (B, C, H, W) -> the row's raw scores (B, K)."""

    def __init__(self, row: Row, network: nn.Module):
        super().__init__()
        self.row, self.network = row, network

    def forward(self, images: Tensor) -> Tensor:
        return self.row.scores(self.network, images)


def export(folder: str | Path, to: str | Path, method: str = "osdtw") -> Path:
    """Write a trained row into the new folder `to`, which appears whole or not at all; says what it does and what it costs.

    folder, method: as load_predictor takes them. Raises UserError where `to` is there already, where what ONNX needs is not
    installed, for a row that cannot be exported, and as load_predictor does.
    """
    to = Path(to).expanduser().absolute()
    if os.path.lexists(to):
        raise UserError(f"{to}: is there already; name a folder that is not")
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"export needs {', '.join(missing)}; run: pip install -c constraints.txt -e '.[export]'")
    predictor, run = load_predictor(folder, method), run_folder(folder)
    part = to.with_name(f".{to.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        cost = _write_all(run, predictor, part)
        part.rename(to)
    except OSError as error:
        raise UserError(
            f"{to}: cannot be written ({error.strerror or error}); make room or give rights, then run again"
        ) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    print(*cost.lines(), f"{to}: {', '.join(sorted(os.listdir(to)))}", sep="\n", flush=True)
    return to


def _write_all(run: Path, predictor: Predictor, part: Path) -> Cost:
    title, found = predictor.row.title, measured(run, predictor.row)
    print(f"{title}: traced for any number of images", flush=True)
    model = Scores(predictor.row, predictor.network).eval()
    program = traced(model, predictor)
    kept = weights(predictor.network)
    write_tensors(part / "model.safetensors", kept)
    _save(program, part / "model.pt2")
    print(f"{title}: written for ONNX and compared", flush=True)
    _save_onnx(program, predictor.row, part / "model.onnx")
    difference = _compared(model, predictor, part / "model.onnx")
    write_text(part / "preprocessing.json", _json(preprocessing(predictor)))
    write_text(part / "config.json", _json(described(run, predictor)))
    write_text(part / "predict.py", SCRIPT.read_text(encoding="utf-8"))
    print(f"{title}: its cost is measured", flush=True)
    cost = costs(model, predictor, sum(tensor.numel() for tensor in kept.values()), part / "model.onnx")
    write_text(part / "README.md", model_card(described(run, predictor), found, cost, difference))
    shutil.copymode(part / "README.md", part / "model.safetensors")  # which its library makes for this user alone
    return cost


# programs -------------------------------------------------------------------------------------------------------


def traced(model: Scores, predictor: Predictor) -> ExportedProgram:
    """torch.export's program for any batch size; what only helped to train leaves the model, and so the files.

    Raises UserError, one line, for a row whose scores cannot be traced.
    """
    program = _traced(model, predictor)
    idle = _idle(program)
    for name in idle:
        owner, _, tensor = name.rpartition(".")
        setattr(model.get_submodule(owner), tensor, None)
    program = _traced(model, predictor) if idle else program
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # folders of this machine
    return program


def _traced(model: Scores, predictor: Predictor) -> ExportedProgram:
    images = torch.zeros(2, predictor.channels, *predictor.size)
    try:
        with _quiet(), torch.no_grad():
            return torch.export.export(model, (images,), dynamic_shapes=({0: Dim("batch")},), strict=False)
    except Exception as error:  # whatever a method does that a graph cannot say
        raise _cannot(predictor.row, "torch.export", error) from None


def _idle(program: ExportedProgram) -> list[str]:
    """Parameters and buffers that the scores do not depend on, under any of their names."""
    live = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    used = {str(spec.target) for spec in program.graph_signature.input_specs if spec.arg.name in live}
    places = {tensor.data_ptr() for name, tensor in program.state_dict.items() if name in used}
    return [name for name, tensor in program.state_dict.items() if tensor.data_ptr() not in places]


def _save(program: ExportedProgram, path: Path) -> None:
    whole = io.BytesIO()  # PyTorch's own writer ends the process on a full disk
    torch.export.save(program, whole)
    path.write_bytes(whole.getbuffer())


def _save_onnx(program: ExportedProgram, row: Row, path: Path) -> None:
    options = {"input_names": ["images"], "output_names": ["scores"], "dynamo": True, "verbose": False}
    try:
        with _quiet():
            made = cast(torch.onnx.ONNXProgram, torch.onnx.export(program, **options))
    except Exception as error:  # an operator that ONNX lacks, and what its translation may raise
        raise _cannot(row, "ONNX", error) from None
    graph = made.model.graph
    for thing in (*graph.all_nodes(), *graph.inputs, *graph.outputs):
        thing.metadata_props.clear()  # names of classes and lines of this machine's files
    made.save(str(path), external_data=sum(t.nbytes for t in program.state_dict.values()) > ONE_FILE)


def _compared(model: Scores, predictor: Predictor, path: Path) -> float:
    """How far the scores of ONNX Runtime are from PyTorch's at most. Raises UserError where that is more than rounding."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    random, worst = torch.Generator().manual_seed(0), 0.0
    for batch in BATCHES:
        images = torch.randn(batch, predictor.channels, *predictor.size, generator=random)
        with torch.no_grad():
            expected = model(images).numpy()
        found = session.run(None, {"images": images.numpy()})[0]
        difference = float(np.abs(found - expected).max())
        if not difference <= CLOSE * max(1.0, float(np.abs(expected).max())):  # nor is what is no number
            raise UserError(
                f"{model.row.title}: ONNX Runtime's scores differ from PyTorch's by {difference:.1g}; nothing was written"
            )
        worst = max(worst, difference)
    return worst


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The tracers' own notes, on how they are made, are kept back."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _cannot(row: Row, what: str, error: Exception) -> UserError:
    return UserError(f"{row.title}: {what} cannot take it ({_line(error)}); export another row with --method")


def _line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]


# descriptions ---------------------------------------------------------------------------------------------------


def preprocessing(predictor: Predictor) -> dict:
    """What Predictor.seen and the normalisation do, in numbers and words."""
    share, (height, width) = predictor.about["crop_share"], predictor.size
    return {
        "opened": "first frame; upright by its EXIF orientation; transparent pixels on white; 16 bits to 8 as "
        "(value * 255 + 32767) // 65535; then in this mode",
        "mode": "L" if predictor.channels == 1 else "RGB",
        "formats_refused": sorted(NO_PICTURES),
        "resize": "both sides divided by min(height / cover height, width / cover width), rounded half to even",
        "resize_to_cover": [round(height / share), round(width / share)],
        "interpolation": predictor.about.get("interpolation", "bicubic"),  # Pillow's, which is antialiased
        "crop": [height, width],
        "crop_share": share,
        "crop_place": "the middle; left and top are half of what is over, rounded half to even",
        "normalised": "(pixel / 255 - mean) / std, a channel each, float32",
        "mean": list(predictor.mean),
        "std": list(predictor.std),
        "channels": predictor.channels,
        "input": {"name": "images", "type": "float32", "shape": ["batch", predictor.channels, height, width]},
        "output": {"name": "scores", "type": "float32", "shape": ["batch", len(predictor.class_names)]},
    }


def described(run: Path, predictor: Predictor) -> dict:
    """What else a user of the scores must know, and where they come from."""
    row, about = predictor.row, predictor.about
    counts, made = row.problem.class_counts, read_manifest(run / stage_of(row)) or {}
    init = about["model"]["init"]
    return {
        "name": run.resolve().name,
        "method": row.name,
        "title": row.title,
        "source": row.source,
        "class_names": list(predictor.class_names),
        "class_counts": counts.tolist(),
        "scores": "softmax(scores) is p(class | image) where the classes' shares are prior_shares",
        "prior": _in_a_word(row),
        "prior_shares": row.shares.tolist(),
        "model": about["model"] | {"init": Path(init).name if "/" in init or "\\" in init else init},
        **{key: about[key] for key in ("shared_depth", "likelihood", "parameters") if key in about},
        "made": {"key": made.get("key"), "finished": made.get("finished"), "commit": made.get("git_commit")},
        "versions": versions(),
    }


def _in_a_word(row: Row) -> str:
    """For which class shares its scores answer: "balanced", "training" (the training set's), or "own"."""
    known = {"balanced": np.full(row.problem.n_classes, 1 / row.problem.n_classes), "training": row.problem.priors}
    return next((word for word, shares in known.items() if np.allclose(row.shares, shares)), "own")


def stage_of(row: Row) -> str:
    return "stage3" if row.name in ROWS else f"baselines/{row.name}"


def _json(values: dict) -> str:
    return json.dumps(values, indent=1, ensure_ascii=False)
