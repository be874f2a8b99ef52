"""The model card: what the exported model is, how good, at what cost, and what it is not for; its head is YAML for model hubs."""

from __future__ import annotations

import yaml

from ..backend.timm_import import timm
from ..longtail import shot_groups
from ..models.pretrained import SUFFIXES
from .cost import Cost
from .measured import Measured

GROUPS = {"many": "more than 100 training images", "medium": "20 to 100", "few": "fewer than 20", "all": "all classes"}
NAMED = 20  # classes that a sentence lists at most

USE = """\
## Use

    pip install onnxruntime numpy pillow
    python predict.py IMAGE...

prints file, class and probability. `model.onnx` (ONNX Runtime) and `model.pt2` (`torch.export.load`) take images prepared as
`preprocessing.json` says, any number at a time, and give raw scores in the order of `class_names` in `config.json`;
`model.safetensors` holds the weights by name. ONNX Runtime's scores differ from PyTorch's by {difference:.1g} at most, on random
images.
"""

NOT_FOR = """\
## Not for

- Decisions that may harm somebody, about people, health, law or safety: nothing here was tested for that.
- Images of anything but its {n_classes} classes: each gets one of them, whatever it shows; no answer says "none of these".
- Images of another source, camera or time than the training images, before it was tested on some of them.
- Judging methods: this is one training with one seed.
"""


def model_card(about: dict, measured: Measured, cost: Cost, difference: float) -> str:
    """README.md. about: config.json; difference: of ONNX Runtime's scores from PyTorch's, at most."""
    licence, sentence, base = licence_of(about["model"]["init"])
    return "\n".join(
        [
            f"---\n{yaml.safe_dump(_head(about, measured, licence, base), sort_keys=False, allow_unicode=True)}---\n",
            f"# {about['name']}: {about['title']}\n",
            f"An image classifier for long-tailed data. Method: {about['source']}.\n",
            USE.format(difference=difference),
            _data(about, measured),
            _accuracy(measured),
            _prior(about),
            _calibration(measured),
            _cost(cost),
            NOT_FOR.format(n_classes=len(about["class_names"])) + _rare(about),
            f"## Licence\n\n{sentence}\n",
        ]
    )


def _head(about: dict, measured: Measured, licence: str, base: str | None) -> dict:
    head: dict = {"license": licence, "library_name": "onnx", "pipeline_tag": "image-classification"}
    head["tags"] = ["image-classification", "long-tailed-recognition", "vision-transformer", "onnx", about["method"]]
    if base:
        head["base_model"] = base
    if measured.accuracy:
        metrics = [
            {"type": "accuracy", "name": f"accuracy, {one.group} (%)", "value": round(one.value, 2)} for one in measured.accuracy
        ]
        part = measured.caption.rpartition("; ")[2].partition(":")[0]  # test or val
        dataset = {"type": about["name"], "name": measured.caption.split(", ")[0], "split": part}
        task = {"type": "image-classification"}
        head["metrics"] = ["accuracy"]
        head["model-index"] = [
            {
                "name": f"{about['name']}-{about['method']}",
                "results": [{"task": task, "dataset": dataset, "metrics": metrics}],
            }
        ]
    return head


def _data(about: dict, measured: Measured) -> str:
    counts = about["class_counts"]
    said = [f"{sum(counts):,} training images, {len(counts):,} classes, {max(counts):,} to {min(counts):,} images a class."]
    if measured.caption:
        said = [f"{measured.caption}.", f"Start: {measured.start}."]
    return "## Data\n\n" + " ".join(said) + " The training images of each class are counted in `config.json`.\n"


def _accuracy(measured: Measured) -> str:
    if not measured.accuracy:
        return "## Accuracy\n\nNot measured of these weights: the run's tables are not there, or are of others.\n"
    lines = ["| classes with | classes | training images | test images | accuracy (%) | 95 % interval |", "| --- " * 6 + "|"]
    lines += [
        f"| {GROUPS[one.group]} ({one.group}) | {one.classes:,} | {one.training:,} | {one.test:,} | {one.value:.1f} "
        f"| {one.low:.1f} to {one.high:.1f} |"
        for one in measured.accuracy
    ]
    note = (
        f"Last epoch, seed {measured.seed}, nothing chosen on the test images. Intervals (Wilson) are of the test images alone: "
        "another seed would move the figures too."
    )
    return "## Accuracy\n\n" + "\n".join(lines) + f"\n\n{note}\n"


def _prior(about: dict) -> str:
    mix = {"training": "are as frequent as in training", "balanced": "are equally frequent"}
    return (
        f"## Class mix assumed\n\nThe softmax of the scores is a probability where the classes "
        f"{mix.get(about['prior'], 'come in shares between or beyond these two')} (`prior_shares` in "
        "`config.json`). Where images come in another mix, add log(share there / share assumed) to each class's score first.\n"
    )


def _calibration(measured: Measured) -> str:
    error = "not measured" if measured.ece is None else f"{measured.ece:.1f} points of %"
    measure = "Expected calibration error, under the class mix of the test images"
    return f"## Calibration\n\n{measure}: {error}. Nothing is rescaled: the scores are as they were trained.\n"


def _cost(cost: Cost) -> str:
    batches = list(cost.networks[0].milliseconds)
    heads = ["network", "parameters", "MFLOPs an image", *(f"ms an image, {batch} at a time" for batch in batches)]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for one in cost.networks:
        times = [f"{one.milliseconds[batch]:.2f}" for batch in batches]
        lines.append(f"| {' | '.join([one.name, f'{one.parameters:,}', one.megaflops, *times])} |")
    return (
        "## Cost of a prediction\n\n"
        + "\n".join(lines)
        + "\n\nOne network and two are of the same architecture, over all classes, "
        "and over the head's and the tail's, in PyTorch. FLOPs: two a multiply-add. Times are medians, measured on "
        f"{cost.machine}.\n"
    )


def _rare(about: dict) -> str:
    few = [about["class_names"][k] for k in shot_groups(about["class_counts"])["few"]]
    if not few:
        return ""
    listed = ", ".join(few[:NAMED]) + (f" and {len(few) - NAMED:,} more" if len(few) > NAMED else "")
    return f"- Relying on the classes with fewer than 20 training images without looking: {listed}.\n"


def licence_of(init: str) -> tuple[str, str, str | None]:
    """(identifier for hubs, sentence, base model on a hub) of weights that began with `model.init`."""
    yours = "Under which licence these weights are is for you to say, by what the training images allow."
    if init in ("masked_autoencoding", "scratch"):
        return "unknown", f"Trained from scratch here, on the training images alone. {yours}", None
    if init.endswith(SUFFIXES):
        return "unknown", f"Start: a file of weights, {init}, of unknown licence. {yours}", None
    known = timm.is_model(init.split(".")[0]) and timm.is_model_pretrained(init)
    source = timm.get_pretrained_cfg(init) if known else None
    start, hub = f"Start: timm's pretrained weights {init}", str(source.hf_hub_id or "") if source else ""
    if not source or not source.license:
        return "unknown", f"{start}, of unknown licence. {yours}", hub or None
    said = (
        f"{start}, whose licence timm says is {source.license}; it binds what is trained from them, as the training images' does."
    )
    return str(source.license), said, hub or None
