"""Every stage and the predictor from starts of other families, given as files of weights."""

import contextlib
import io

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from small_photographs import write_photographs

from osdtw_lib import load_predictor
from osdtw_lib.config.load import load_config
from osdtw_lib.config.schema import IMAGENET_MEAN, IMAGENET_STD, Model
from osdtw_lib.errors import UserError
from osdtw_lib.models import pretrained
from osdtw_lib.models.vit import build_vit, depth_of, encode
from osdtw_lib.planning.plan import make_plan
from osdtw_lib.stages import CONTENTS, execute
from osdtw_lib.stages.networks import start_network
from osdtw_lib.stages.run import Run

pytestmark = pytest.mark.journey

SIZES = {"patch_size": 14, "width": 16, "depth": 3, "heads": 2}
STAGES = ("split", "start", "stage1", "fisher", "direct", "proxy", "selection", "stage2", "stage3", "baselines", "tables")
KEPT = {  # how it is pooled, a rival, and every stage or those of the method alone
    "vit_base_patch16_dinov3": ("token", "ride", [name for name, stage in CONTENTS.items() if not stage.optional]),
    "vit_base_patch14_reg4_dinov2": ("avg", "rsg", STAGES),
    "eva02_base_patch14_224": ("avg", "rsg", STAGES),
}


def quietly(run, stages):
    with contextlib.redirect_stdout(io.StringIO()) as said:
        for name in stages:
            execute(run, name)
    return said.getvalue()


@pytest.fixture(scope="module", params=KEPT)
def run(request, write_params, tmp_path_factory):
    folder, (pooling, rival, stages) = tmp_path_factory.mktemp("start"), KEPT[request.param]
    given = Model(architecture=request.param, image_size=42, channels=1, init="scratch", **SIZES)
    torch.manual_seed(3)
    torch.save({"teacher": {f"backbone.{n}": p for n, p in build_vit(given, 5).state_dict().items()}}, folder / "start.pth")
    model = SIZES | {"architecture": request.param, "image_size": 28, "channels": 1, "pooling": pooling}
    changes = {
        "model": model | {"init": str(folder / "start.pth")},
        "selection.form": "direct",
        "baselines": [rival],
    }
    run = Run(load_config(write_params(folder, changes)))
    quietly(run, stages)
    return run


def test_all_start_from_the_file_and_train(run):
    origin, table = run.artifact("start").notes()["origin"], run.artifact("start").table("weights")
    assert "under 'teacher.backbone.'" in origin
    assert ("position embedding resampled from 3 x 3 to 2 x 2" in origin) == (
        "patch16_dinov3" not in run.config.model.architecture
    )
    assert set(table["what"]) >= {"taken", "starts anew", "left out"}
    start, depths = start_network(run, 2), depth_of(start_network(run, 2))
    for task in ("head", "tail"):
        trained = run.artifact("stage1").tensors(task)
        moved = [n for n, p in start.named_parameters() if not torch.equal(p, trained[n])]
        assert {depths[n] for n in moved} == set(range(1, run.n_depths + 2))
    accuracy = pd.read_csv(run.folder / "tables" / "accuracy.csv").set_index("method")
    assert list(accuracy.index[1:]) == ["stage1", "stage2", "osdtw_assembled", "osdtw"]
    assert accuracy["all"].between(0, 100).all()


def test_the_fisher_has_every_tensor_of_both_tasks(run):
    for task in ("head", "tail"):
        fisher = run.artifact("fisher").tensors(task)
        assert fisher.keys() == dict(run.vit(1).named_parameters()).keys()
        assert all(torch.isfinite(f).all() and (f >= 0).all() for f in fisher.values())


def test_the_predictor_answers_as_the_run_scored(run):
    predictor = load_predictor(run.folder)
    test = run.test.pixels[:40]
    (images, _), *_ = run.batches(run.test, 40)
    scores = predictor.row.scores(predictor.network, images).detach().double().softmax(1)
    assert np.allclose(predictor(test), scores.numpy(), atol=1e-5)


def test_the_shared_encoder_is_one_and_the_refinement_leaves_it(run):
    joint, refined = (run.artifact(stage).tensors("network") for stage in ("stage2", "stage3"))
    for name, depth in depth_of(run.vit(1)).items():
        assert (f"tail.{name}" in joint) == (depth > run.n_depths), name
        assert (f"tail.{name}" in refined) == (depth > 2), name  # the tiny run's choice
        assert depth > 2 or torch.equal(joint[f"head.{name}"], refined[f"head.{name}"]), name


# pixels of a tag ------------------------------------------------------------------------------------------------


@pytest.fixture
def photographs(tmp_path):
    """photographs("tag", data.mean=...) -> the Config of a small CLIP on photographs."""
    data = write_photographs(tmp_path)

    def load(init, **more):
        model = {
            "architecture": "vit_base_patch16_clip_224",
            "image_size": 32,
            "patch_size": 16,
            "width": 16,
            "depth": 2,
            "heads": 2,
        }
        recipe = {"batch_size": 32, "random_crop": [0.5, 1.0]}
        values = {"name": "clip", "outputs": str(tmp_path / "outputs"), "loader_workers": 0, "recipe": recipe}
        values |= {"data": data | more, "model": model | {"init": init}, "stage1": {"epochs": 1, "warmup_epochs": 0}}
        (tmp_path / "clip.yaml").write_text(yaml.safe_dump(values))
        return load_config(tmp_path / "clip.yaml")

    return load


CLIP = "vit_base_patch16_clip_224.openai"


def test_images_are_brought_to_the_network_as_the_start_was_trained(photographs):
    own, todays = Run(photographs(CLIP)), Run(photographs("scratch"))
    (images, _), (usual, _) = (next(iter(run.batches(run.test, 4))) for run in (own, todays))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (own.config.data.mean, own.config.data.std))
    as_pixels = torch.from_numpy(own.batches(own.test, 4).pictures()[:4]).permute(0, 3, 1, 2) / 255
    assert torch.allclose(images, (as_pixels - mean) / std, atol=1e-6) and not torch.allclose(images, usual, atol=0.05)
    assert own.problem.described()["mean"] == own.config.data.mean and own.config.data.crop_share == 0.9


def test_another_interpolation_is_another_picture_and_another_key(photographs):
    smooth, usual = (Run(photographs(CLIP, interpolation=kind)) for kind in ("bilinear", "bicubic"))
    pictures = [run.batches(run.test, 4).pictures().astype(int) for run in (smooth, usual)]
    assert 0 < np.abs(pictures[0] - pictures[1]).mean() < 20
    assert smooth.artifact("split").key != usual.artifact("split").key == Run(photographs(CLIP)).artifact("split").key


def test_what_is_said_at_the_default_has_the_key_of_what_is_left_open(photographs):
    """As before anything could be left open: mean, std and crop stand in the key of photographs, interpolation does not."""
    named = {"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD), "crop_share": 0.875}
    run = Run(photographs("scratch"))
    assert run.artifact("split").key == Run(photographs("scratch", **named)).artifact("split").key
    data = run.artifact("split").parameters["data"]
    assert data["mean"] == list(IMAGENET_MEAN) and data["crop_share"] == 0.875 and "interpolation" not in data


def test_other_pixels_are_said_once_where_the_start_is_made(photographs, monkeypatch):
    run = Run(photographs(CLIP, mean=[0.5, 0.5, 0.5]))
    monkeypatch.setattr(pretrained, "_pretrained", lambda model, vit: build_vit(model, 1).state_dict())
    said = quietly(run, ("split", "start"))
    (line,) = [line for line in said.splitlines() if "other pixels" in line]
    assert line.startswith("start: ") and "data.mean [0.5, 0.5, 0.5] for [0.4815, 0.4578, 0.4082]" in line
    assert any("other pixels" in line for line in make_plan(run.config, gpus=1).lines)


def test_an_architecture_that_computes_otherwise_is_refused_before_anything_is_fetched(photographs, monkeypatch):
    run = Run(photographs("vit_base_patch16_clip_quickgelu_224.openai"))
    network = run.vit(3)
    monkeypatch.setattr(pretrained.timm, "create_model", lambda *_, **__: pytest.fail("fetched"))
    with pytest.raises(UserError, match="set model.architecture: vit_base_patch16_clip_quickgelu_224") as caught:
        pretrained.given_start(run.config.model, network)
    assert "QuickGELU" in str(caught.value)


def test_a_rotary_network_is_not_painted(write_params, tmp_path, refused):
    path = write_params(tmp_path, {"model.architecture": "vit_base_patch16_dinov3", "model.class_token": True})
    assert "Stage 0 paints with a VisionTransformer alone" in refused("start", path)


def test_encoders_of_both_starts_differ(run):
    """What the file holds is not what random weights would be."""
    given, drawn = start_network(run, 2), run.vit(2)
    (images, _), *_ = run.batches(run.test, 4)
    assert not torch.allclose(encode(given, images, 1), encode(drawn, images, 1), atol=1e-3)
