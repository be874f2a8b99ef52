"""Weights in the layouts of the codes they were published with: the encoder computes what the network they were made of did."""

import re

import pytest
import torch
from safetensors.torch import save_file
from small_starts import DEPTH, SIDE, WIDTH, model_of, small_start, some_images

from osdtw_lib.errors import UserError
from osdtw_lib.models.pretrained import given_start
from osdtw_lib.models.vit import depth_of, encode
from osdtw_lib.models.weights import weights

SPARE = torch.ones(2, WIDTH)


def renamed(tensors, swaps):
    found = {}
    for name, tensor in tensors.items():
        for ours, theirs in swaps:
            name = re.sub(ours, theirs, name)
        found[name] = tensor.clone()
    return found


def clip(network, prefix="visual."):
    swaps = [
        (r"patch_embed\.proj", "conv1"),
        ("pos_embed", "positional_embedding"),
        ("cls_token", "class_embedding"),
        ("norm_pre", "ln_pre"),
        (r"^norm\.", "ln_post."),
        (r"norm(\d)", r"ln_\1"),
        (r"attn\.qkv\.", "attn.in_proj_"),
        (r"attn\.proj", "attn.out_proj"),
        (r"mlp\.fc1", "mlp.c_fc"),
        (r"mlp\.fc2", "mlp.c_proj"),
        (r"gamma_(\d)", r"ls_\1.gamma"),
        (r"^blocks\.", "transformer.resblocks."),
    ]
    own = {n: t for n, t in weights(network).items() if not n.startswith(("head", "fc_norm"))}
    tower = {prefix + name: tensor for name, tensor in renamed(own, swaps).items()}
    for name in ("class_embedding", "positional_embedding"):
        tower[prefix + name] = tower[prefix + name][0, 0] if name == "class_embedding" else tower[prefix + name][0]
    words = prefix.removesuffix("visual.")
    text = {f"{words}transformer.resblocks.{i}.ln_1.weight": torch.zeros(WIDTH) for i in range(DEPTH)}
    return tower | (
        {**text, f"{words}token_embedding.weight": SPARE, f"{words}positional_embedding": SPARE} if "visual" in prefix else {}
    )


def dinov2(network):
    """With registers: its code adds a position to the class token, timm's network has it in the token."""
    swaps = [("reg_token", "register_tokens"), (r"mlp\.fc1", "mlp.w12"), (r"mlp\.fc2", "mlp.w3")]
    found = renamed(weights(network), swaps if type(network.blocks[0].mlp).__name__ != "Mlp" else swaps[:1])
    place = torch.full((1, 1, WIDTH), 0.3)
    found["cls_token"], found["pos_embed"] = found["cls_token"] - place, torch.cat([place, found["pos_embed"]], dim=1)
    return found | {"mask_token": SPARE[:1]}


def dinov3(network):
    found = renamed(weights(network), [("reg_token", "storage_tokens"), (r"gamma_(\d)", r"ls\1.gamma")])
    for i in range(DEPTH):
        at = f"blocks.{i}.attn"
        query, value = (found.pop(f"{at}.{n}_bias", torch.zeros(WIDTH)) for n in "qv")
        found |= {f"{at}.qkv.bias": torch.cat([query, torch.zeros(WIDTH), value]), f"{at}.qkv.bias_mask": torch.ones(3 * WIDTH)}
    return found | {"mask_token": SPARE[:1], "rope_embed.periods": torch.ones(4)}


def eva02(network):
    swaps = [("fc1_g", "w1"), ("fc1_x", "w2"), ("fc2", "w3"), (r"mlp\.norm", "mlp.ffn_ln"), (r"attn\.norm", "attn.inner_attn_ln")]
    found = renamed(weights(network), [*swaps, (r"([qv])_proj\.bias", r"\1_bias")])
    return found | {"mask_token": SPARE[:1], "lm_head.weight": SPARE, "rope.freqs_cos": SPARE, "rope.freqs_sin": SPARE}


def deit3(network):
    return renamed(weights(network), [(r"ls(\d)\.gamma", r"gamma_\1")])


LAYOUTS = {
    "CLIP, OpenAI's": ("CLIP, QuickGELU", clip),
    "CLIP, of several processes": ("CLIP", lambda n: {"state_dict": clip(n, "module.visual."), "epoch": 3}),
    "CLIP, the images' tower alone": ("CLIP", lambda n: clip(n, "")),
    "Perception Encoder": ("Perception Encoder", clip),
    "DINOv2 with registers": ("DINOv2, registers", dinov2),
    "DINOv2 giant": ("DINOv2 giant", dinov2),
    "DINOv2, its teacher": ("DINOv2, registers", lambda n: {"teacher": {f"backbone.{k}": t for k, t in dinov2(n).items()}}),
    "DINOv3": ("DINOv3", dinov3),
    "DINOv3, biases": ("DINOv3, biases", dinov3),
    "EVA-02": ("EVA-02", eva02),
    "EVA-02, under model_ema": ("EVA-02", lambda n: {"model_ema": eva02(n), "optimizer": {"state": {0: {"exp_avg": SPARE}}}}),
    "DeiT III": ("DeiT III", lambda n: {"model": deit3(n)}),
    **{f"timm's names, {family}": (family, weights) for family in ("DINOv2", "DINOv3", "EVA-02", "EVA")},
    **{
        f"timm's names under {prefix}": ("DINOv3", lambda n, prefix=prefix: {prefix + k: t for k, t in weights(n).items()})
        for prefix in ("module.", "model.", "backbone.", "encoder.", "visual.trunk.", "state_dict.", "model_ema.")
    },
}


def given(tmp_path, content, family, **changes):
    """The Model whose start is a file of this content."""
    flat = all(isinstance(value, torch.Tensor) for value in content.values())
    path = tmp_path / ("start.safetensors" if flat else "start.pth")
    save_file({n: t.clone().contiguous() for n, t in content.items()}, path) if flat else torch.save(content, path)
    return model_of(family, **({"init": str(path)} | changes))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_encoder_computes_what_it_did(layout, tmp_path):
    family, written = LAYOUTS[layout]
    source, network = small_start(family, 9, seed=3), small_start(family)
    content = written(source)
    origin, table = given_start(given(tmp_path, content, family), network)
    x = some_images(dtype=torch.float32)
    assert torch.allclose(encode(network, x, DEPTH), encode(source, x, DEPTH), rtol=0, atol=1e-5)
    own = table[table["tensor"] != ""].set_index("tensor")["what"]
    assert own.to_dict() == {n: "taken" if depth <= DEPTH else "starts anew" for n, depth in depth_of(network).items()}
    left = set(table.loc[table["tensor"] == "", "in_the_start"])
    assert not any(re.search(r"(mlp|in_proj_weight|cls_token|class_embedding|conv1)", name) for name in left), left
    assert f"{(own == 'taken').sum()} tensors" in origin.split("(")[0], origin


@pytest.mark.parametrize("family", ["DINOv2, registers", "CLIP"])
def test_positions_of_another_grid_are_resized_and_said(family, tmp_path):
    source, network = small_start(family, seed=3, image_size=32), small_start(family)
    content = {"DINOv2, registers": dinov2, "CLIP": clip}[family](source)
    origin, table = given_start(given(tmp_path, content, family), network)
    assert "position embedding resampled from 4 x 4 to 2 x 2" in origin
    (row,) = table[table["what"] == "resized"].itertuples()
    tokens = (0 if "registers" in family else 1) + 4
    assert (row.tensor, row.shape) == (
        "pos_embed",
        f"1 x {tokens} x {WIDTH}",
    ) and row.shape_there == f"1 x {tokens + 12} x {WIDTH}"


def test_rotary_positions_fit_any_grid_and_a_class_token_may_be_left_out(tmp_path):
    source, network = (
        small_start("DINOv3", seed=3, pooling="avg"),
        small_start("DINOv3", image_size=32, class_token=False, pooling="avg"),
    )
    origin, table = given_start(given(tmp_path, weights(source), "DINOv3", pooling="avg", class_token=False), network)
    assert "its class token left out" in origin and "resampled" not in origin and "resized" not in set(table["what"])
    assert torch.equal(network.reg_token, source.reg_token) and SIDE == 16


def test_a_file_of_which_nothing_is_the_models_is_refused(tmp_path):
    network = small_start("DINOv3")
    before = {name: tensor.clone() for name, tensor in weights(network).items()}
    with pytest.raises(UserError, match="none of the encoder's .* tensors .* layer1.0.conv1.weight"):
        given_start(given(tmp_path, {"layer1.0.conv1.weight": torch.zeros(2, 2)}, "DINOv3"), network)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(network).items())


def test_a_patch_of_another_size_is_refused_not_resized(tmp_path):
    source = small_start("DINOv2, registers", seed=3, patch_size=4, image_size=8)
    with pytest.raises(UserError, match=r"patch_embed.proj.weight \(32, 3, 4, 4\), here \(32, 3, 8, 8\)"):
        given_start(given(tmp_path, dinov2(source), "DINOv2, registers"), small_start("DINOv2, registers"))
