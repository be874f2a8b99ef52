"""Mean, std, size, crop and interpolation: the start's own where the parameter file leaves them open, else as always."""

import pytest
import yaml

from osdtw_lib.backend.timm_import import timm
from osdtw_lib.config.load import load_config
from osdtw_lib.config.schema import IMAGENET_MEAN, IMAGENET_STD
from osdtw_lib.models.start_pixels import other_pixels, with_start_pixels

CLIP_MEAN, HALF = (0.48145466, 0.4578275, 0.40821073), (0.5, 0.5, 0.5)


@pytest.fixture
def config(tmp_path):
    """config(init, architecture, section data, section model) -> Config of files."""

    def load(init, architecture="vit_base_patch16_224", data=None, **model):
        values = {
            "name": "x",
            "data": {"dataset": "files", "train": "nowhere"} | (data or {}),
            "model": {"architecture": architecture, "init": init} | model,
        }
        (tmp_path / "x.yaml").write_text(yaml.safe_dump(values))
        return load_config(tmp_path / "x.yaml")

    return load


STARTS = {  # published: CLIP's own statistics, 0.5 for augreg, ImageNet's for DINO; the whole image for DINO, 0.9 otherwise
    "vit_base_patch16_clip_224.openai": (CLIP_MEAN, 0.9, 224),
    "vit_base_patch16_224.augreg_in21k": (HALF, 0.9, 224),
    "vit_base_patch16_224.mae": (IMAGENET_MEAN, 0.9, 224),
    "vit_base_patch14_dinov2.lvd142m": (IMAGENET_MEAN, 1.0, 518),
    "vit_base_patch16_dinov3.lvd1689m": (IMAGENET_MEAN, 1.0, 256),
    "eva02_base_patch14_224.mim_in22k": (CLIP_MEAN, 0.9, 224),
}


@pytest.mark.parametrize("tag", STARTS)
def test_pixels_are_those_the_start_was_trained_on(config, tag):
    mean, crop, size = STARTS[tag]
    asked = config(tag, tag.split(".")[0])
    assert asked.data.mean is None and asked.data.crop_share is None
    found = with_start_pixels(asked)
    assert (found.data.mean, found.data.crop_share, found.data.interpolation) == (mean, crop, "bicubic")
    assert found.data.std == timm.get_pretrained_cfg(tag).std and found.model.image_size in (None, size)
    assert with_start_pixels(found) == found and other_pixels(found) == ""


@pytest.mark.parametrize("init", ["scratch", "masked_autoencoding", "weights/clip.safetensors", "vit_base_patch16_224.may"])
def test_without_a_word_of_the_start_they_are_as_they_always_were(config, init):
    data = with_start_pixels(config(init)).data
    assert (data.mean, data.std, data.crop_share, data.interpolation) == (IMAGENET_MEAN, IMAGENET_STD, 0.875, "bicubic")


def test_what_the_parameter_file_names_counts_and_is_said(config):
    named = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "crop_share": 0.875, "interpolation": "bilinear"}
    found = with_start_pixels(config("vit_base_patch14_dinov2.lvd142m", "vit_base_patch14_dinov2", named, image_size=224))
    assert found.data.mean == HALF and found.data.interpolation == "bilinear" and found.model.image_size == 224
    said = other_pixels(found)
    assert "\n" not in said and "data.mean [0.5, 0.5, 0.5] for [0.485, 0.456, 0.406]" in said
    for part in ("data.crop_share 0.875 for 1.0", "data.interpolation bilinear for bicubic", "model.image_size 224 for 518"):
        assert part in said


def test_grey_images_have_the_numbers_they_are_given(config):
    grey = {"mean": [0.5], "std": [0.25]}
    found = with_start_pixels(config("vit_base_patch16_clip_224.openai", "vit_base_patch16_clip_224", grey, channels=1))
    assert found.data.mean == (0.5,) and found.data.crop_share == 0.9 and other_pixels(found) == ""


def test_a_start_of_another_size_is_taken_at_its_own(config):
    """The architecture's own size is 224."""
    tag = "vit_base_patch32_clip_448.laion2b_ft_in12k_in1k"
    assert with_start_pixels(config(tag, "vit_base_patch32_clip_224")).model.image_size == 448
    assert with_start_pixels(config(tag, "vit_base_patch32_clip_448")).model.image_size is None
