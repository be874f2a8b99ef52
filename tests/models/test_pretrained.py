"""Weights somebody gives: every layout they come in, what is fitted, and what is refused."""

import argparse
import pathlib
import pickle

import pytest
import torch
from safetensors.torch import save_file

from osdtw_lib.config.load import load_config
from osdtw_lib.config.schema import MaskedAutoencoding, Model
from osdtw_lib.errors import UserError
from osdtw_lib.models import pretrained as library
from osdtw_lib.models.masked_autoencoder import MaskedAutoencoder
from osdtw_lib.models.pretrained import given_start, read_weights
from osdtw_lib.models.vit import build_vit, depth_of, encode
from osdtw_lib.models.weights import weights
from osdtw_lib.stages.run import Run

DEPTH, WIDTH = 2, 12
SIZES = {"image_size": 8, "patch_size": 4, "width": WIDTH, "depth": DEPTH, "heads": 2, "channels": 2}


def small(n_outputs=4, seed=0, **changes):
    torch.manual_seed(seed)
    network = build_vit(Model(**(SIZES | changes)), n_outputs).eval()
    for parameter in network.parameters():  # away from zero biases and unit scales
        parameter.data += 0.1 * torch.randn_like(parameter)
    return network


def images(side=8):
    return torch.randn(3, 2, side, side, generator=torch.Generator().manual_seed(7))


def original_names(seed=1, patches=4):
    """The tensors of a masked autoencoder under the names and in the shapes of its authors' code."""
    g = torch.Generator().manual_seed(seed)

    def block(prefix, width):
        shapes = {
            "norm1.weight": (width,),
            "norm1.bias": (width,),
            "attn.qkv.weight": (3 * width, width),
            "attn.qkv.bias": (3 * width,),
            "attn.proj.weight": (width, width),
            "attn.proj.bias": (width,),
            "norm2.weight": (width,),
            "norm2.bias": (width,),
            "mlp.fc1.weight": (4 * width, width),
            "mlp.fc1.bias": (4 * width,),
            "mlp.fc2.weight": (width, 4 * width),
            "mlp.fc2.bias": (width,),
        }
        return {f"{prefix}.{name}": shape for name, shape in shapes.items()}

    shapes = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, 1 + patches, WIDTH),
        "mask_token": (1, 1, 8),
        "decoder_pos_embed": (1, 1 + patches, 8),
        "patch_embed.proj.weight": (WIDTH, 2, 4, 4),
        "patch_embed.proj.bias": (WIDTH,),
        "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
        "decoder_embed.weight": (8, WIDTH),
        "decoder_embed.bias": (8,),
        "decoder_norm.weight": (8,),
        "decoder_norm.bias": (8,),
        "decoder_pred.weight": (32, 8),
        "decoder_pred.bias": (32,),
    }
    for i in range(DEPTH):
        shapes |= block(f"blocks.{i}", WIDTH)
    shapes |= block("decoder_blocks.0", 8)
    return {name: torch.randn(shape, generator=g) for name, shape in shapes.items()}


@pytest.fixture
def given(tmp_path):
    """given(content, "x.pth") -> the Model whose `init` is a file of that name with this content."""

    def write(content, name="given.safetensors", **model):
        path = tmp_path / name
        save_file(content, path) if name.endswith(".safetensors") else torch.save(content, path)
        return Model(init=str(path), **model)

    return write


def refused(model, network):
    """The one line given_start refuses with; the network is as it was."""
    before = {name: tensor.clone() for name, tensor in weights(network).items()}
    with pytest.raises(UserError) as caught:
        given_start(model, network)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(network).items())
    return str(caught.value)


# layouts ------------------------------------------------------------------------------------------------------


def test_timm_names_fill_the_encoder_and_leave_the_decoder(given):
    source, network, before = small(9, 3), small(4, 0), small(4, 0)
    said = given_start(given(weights(source)), network).origin
    assert said == "the file given.safetensors, 28 tensors, 4 left out (fc_norm.bias, fc_norm.weight, head.bias and 1 more)"
    taken, kept, now = (dict(n.named_parameters()) for n in (source, before, network))
    for name, depth in depth_of(network).items():
        assert torch.equal(now[name], (taken if depth <= DEPTH else kept)[name]), name


def test_a_start_needs_no_head_and_no_final_norm(given):
    source, network = small(9, 3), small()
    given_start(given({n: t for n, t in weights(source).items() if not n.startswith(("head", "norm", "fc_norm"))}), network)
    assert torch.equal(encode(network, images(), DEPTH), encode(source, images(), DEPTH))


@pytest.mark.parametrize("pooling", ["avg", "token"])
@pytest.mark.parametrize("name", ["mae.pth", "mae.pt", "pytorch_model.bin", "mae.safetensors"])
def test_the_original_masked_autoencoder(given, pooling, name):
    """The file has `norm` and a decoder; with average pooling the model has `fc_norm`. Both norms start anew."""
    tensors, network, before = original_names(), small(pooling=pooling), small(pooling=pooling)
    content = tensors if name.endswith(".safetensors") else {"model": tensors}
    said, under = given_start(given(content, name), network).origin, "" if content is tensors else " under 'model.'"
    assert said.startswith(f"the file {name}, 28 tensors{under}, 22 left out (") and said.endswith(" and 19 more)")
    for own, depth in depth_of(network).items():
        expected = tensors[own] if depth <= DEPTH else before.get_parameter(own)
        assert torch.equal(network.get_parameter(own), expected), own


PREFIXES = [
    "",
    "module.",
    "encoder.",
    "module.encoder.",
    "model.",
    "backbone.",
    "_orig_mod.",
    "base_encoder.",
    "visual.",
    "module._orig_mod.base_encoder.",
    "net.whoever.named.it.",
]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_fine_tuning_checkpoint_with_its_arguments(given, prefix):
    source, network = small(9, 3), small()
    content = {
        "model": {prefix + name: tensor for name, tensor in weights(source).items()},
        "optimizer": {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]},
        "epoch": 99,
        "scaler": {"scale": 65536.0},
        "args": argparse.Namespace(model="vit_base_patch16", lr=None, tau=1.0),
    }
    given_start(given(content, "checkpoint-99.pth"), network)
    assert torch.equal(encode(network, images(), DEPTH), encode(source, images(), DEPTH))


def test_stage_0_of_another_run(finished, params):
    path = finished.artifact("start").folder / "weights.safetensors"
    run = Run(load_config(params({"name": "other", "model.init": str(path)})))
    network = run.vit(3)
    given_start(run.config.model, network)
    tensors = finished.artifact("start").tensors("weights")
    assert all(torch.equal(network.get_parameter(n), tensors[n]) for n, d in depth_of(network).items() if d <= run.n_depths)


def test_a_file_of_any_kind_is_part_of_the_key(given, params):
    keys = []
    for seed in (1, 1, 2):
        model = given({"model": original_names(seed)}, "mae.pth")
        keys.append(Run(load_config(params({"model.init": model.init}))).artifact("start").key)
    assert keys[0] == keys[1] != keys[2]


def test_half_precision_is_taken_as_single(given):
    source, network = small(9, 3), small()
    given_start(given({name: tensor.half() for name, tensor in weights(source).items()}), network)
    assert network.pos_embed.dtype == torch.float32 and torch.equal(network.pos_embed, source.pos_embed.half().float())


# class token and position embedding ---------------------------------------------------------------------------


def test_positions_with_and_without_the_class_token_compute_the_same(given):
    """timm's no_embed_class adds no position to the class token."""
    source, network = small(9, 3), small()
    network.no_embed_class, network.pos_embed = True, torch.nn.Parameter(torch.zeros(1, 4, WIDTH))
    given_start(given(weights(source)), network)
    assert torch.allclose(encode(network, images(), DEPTH), encode(source, images(), DEPTH), atol=1e-6)
    back = small(seed=5)
    given_start(given(weights(network)), back)
    assert torch.equal(encode(back, images(), DEPTH), encode(network, images(), DEPTH))


def test_a_model_without_a_class_token_leaves_it_out_and_says_so(given):
    tensors, network = original_names(), small(class_token=False)
    assert given_start(given({"model": tensors}, "mae.pth"), network).origin.endswith("more), its class token left out")
    assert torch.equal(network.pos_embed, tensors["pos_embed"][:, 1:])


def test_a_file_without_a_class_token_says_what_to_set(given):
    assert "set model.class_token: false" in refused(given(weights(small(9, 3, class_token=False))), small())


@pytest.mark.parametrize("side", [8, 16])
@pytest.mark.parametrize("class_token", [True, False])
def test_another_grid_is_resampled_and_said(given, side, class_token):
    tensors, network = original_names(patches=9), small(image_size=side, class_token=class_token)
    smooth = torch.linspace(-1, 1, 3).view(1, 1, 3, 1).expand(1, 3, 3, WIDTH)  # grows from left to right
    tensors["pos_embed"][:, 1:] = smooth.reshape(1, 9, WIDTH)
    n = side // 4
    assert (
        f"position embedding resampled from 3 x 3 to {n} x {n}"
        in given_start(given({"model": tensors}, "mae.pth"), network).origin
    )
    rows = network.pos_embed[0, class_token:].detach().view(n, n, WIDTH)
    assert torch.allclose(rows, rows[:1].expand_as(rows), atol=1e-6) and (rows[:, 1:] > rows[:, :-1]).all()
    if class_token:
        assert torch.equal(network.pos_embed[:, :1], tensors["pos_embed"][:, :1])


# what is refused ----------------------------------------------------------------------------------------------


MISFITS = {  # what is done to the tensors, and what is said
    "missing": (lambda t: t.pop("blocks.1.attn.qkv.weight"), "missing blocks.1.attn.qkv.weight"),
    "unknown": (lambda t: t.update({"blocks.1.gate": torch.zeros(1)}), "unknown blocks.1.gate"),
    "deeper": (lambda t: t.update({"blocks.2.norm1.weight": torch.zeros(WIDTH)}), "unknown blocks.2.norm1.weight"),
    "colour": (lambda t: t.update({"patch_embed.proj.weight": torch.zeros(12, 3, 4, 4)}), "(12, 3, 4, 4), here (12, 2, 4, 4)"),
    "positions": (lambda t: t.update(pos_embed=torch.zeros(1, 8, WIDTH)), "pos_embed (1, 8, 12), here (1, 5, 12)"),
    "flat positions": (lambda t: t.update(pos_embed=torch.zeros(5, WIDTH)), "pos_embed (5, 12), here (1, 5, 12)"),
    "no positions": (lambda t: t.pop("pos_embed"), "missing pos_embed"),
    "nan": (lambda t: t["cls_token"].fill_(float("nan")), "not finite cls_token"),
    "another model": (
        lambda t: (t.clear(), t.update({"conv1.weight": torch.zeros(2)})),
        "none of the encoder's 28 tensors is there, but model.conv1.weight",
    ),
}


@pytest.mark.parametrize("change, words", MISFITS.values(), ids=MISFITS)
def test_tensors_that_do_not_fit_are_named_and_nothing_is_taken(given, change, words):
    tensors = original_names()
    change(tensors)
    said = refused(given({"model": tensors}, "mae.pth"), small())
    assert "weights do not fit the model" in said and words in said


@pytest.mark.parametrize("content", [torch.nn.Linear(2, 2), {"model": original_names(), "args": pathlib.PurePosixPath("x")}])
def test_what_would_need_unpickling_is_refused(given, content):
    said = refused(given(content, "model.pth"), small())
    assert "could run code" in said and ("torch.nn.modules.linear.Linear" in said or "pathlib.PurePosixPath" in said)


def test_code_in_a_pickle_does_not_run(tmp_path):
    class Attack:
        def __reduce__(self):
            return pathlib.Path.touch, (tmp_path / "ran",)

    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"model": Attack()}, protocol=2))
    torch.save({"model": Attack()}, tmp_path / "evil.pth")
    for name in ("evil.pt", "evil.pth"):
        refused(Model(init=str(tmp_path / name)), small())
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content, words",
    [({"epoch": 3}, "epoch"), ([1], "a list"), ({}, "a dict"), ({"model": {"lr": 1.0}}, "lr"), (torch.zeros(2), "a Tensor")],
)
def test_a_file_without_a_state_dict_is_refused(given, content, words):
    said = refused(given(content, "x.pt"), small())
    assert "no state dict" in said and words in said


@pytest.mark.parametrize("name", ["given.safetensors", "given.pth"])
@pytest.mark.parametrize("bytes_left", [-7, 300, 0])
def test_a_truncated_file_is_refused(given, name, bytes_left):
    model = given(original_names(), name)
    path = pathlib.Path(model.init)
    path.write_bytes(path.read_bytes()[:bytes_left])
    assert "damaged" in refused(model, small())


@pytest.mark.parametrize("name", ["page.pth", "page.safetensors"])
def test_a_web_page_saved_as_weights_is_refused(tmp_path, name):
    (tmp_path / name).write_text("<!DOCTYPE html><html><body>not found</body></html>")
    assert "damaged" in refused(Model(init=str(tmp_path / name)), small())


@pytest.mark.parametrize("suffix", library.SUFFIXES)
def test_a_file_that_is_not_there_is_refused(tmp_path, suffix):
    assert "no such file" in refused(Model(init=str(tmp_path / f"nowhere{suffix}")), small())


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "x.pth").mkdir()
    assert "no such file" in refused(Model(init=str(tmp_path / "x.pth")), small())


# timm's tags --------------------------------------------------------------------------------------------------


def test_an_init_that_is_nothing_known_is_refused():
    said = refused(Model(init="masked_autoencodin"), small())
    assert "masked_autoencodin'" in said and "timm" in said


@pytest.mark.parametrize("init, words", [("vit_base_patch16_224.may", "base_patch16_224.mae"), ("vit_base_patch28.x", "neither")])
def test_a_tag_timm_does_not_know_names_those_it_does(init, words):
    assert words in refused(Model(init=init), small())


@pytest.mark.parametrize(
    "init, file",
    [
        ("vit_base_patch16_224.mae", "mae_pretrain_vit_base.pth"),
        ("vit_small_patch16_224.augreg_in1k", "vit_small_patch16_224.augreg_in1k.safetensors"),
    ],
)
def test_without_a_network_the_line_says_what_to_fetch_and_where_to_put_it(monkeypatch, init, file):
    def offline(*_, **__):
        raise ConnectionError("no network\nat all")

    network = small()
    monkeypatch.setattr(library.timm, "create_model", offline)
    said = refused(Model(init=init), network)
    assert "ConnectionError" in said and "fetch " in said
    assert said.count(f"weights/{file}") == 2 and f"set model.init: weights/{file}" in said


def test_a_tag_is_fetched_and_fitted(monkeypatch, capsys):
    asked, network, source = {}, small(), small(0, 3, image_size=12, pooling="token")

    def fetch(name, **options):
        asked.update(options, name=name)
        return source

    monkeypatch.setattr(library.timm, "create_model", fetch)
    origin, _ = given_start(Model(init="vit_base_patch16_224.mae", channels=2), network)
    assert asked["name"] == "vit_base_patch16_224.mae" and asked["pretrained"] and asked["in_chans"] == 2
    assert origin == (
        "timm's pretrained weights 'vit_base_patch16_224.mae', 28 tensors, 2 left out (norm.weight, norm.bias), "
        "position embedding resampled from 3 x 3 to 2 x 2"
    )
    assert "fetches" in capsys.readouterr().out
    assert torch.equal(network.blocks[1].attn.qkv.weight, source.blocks[1].attn.qkv.weight)


def test_the_tensors_of_a_file_are_read_as_they_are(given):
    tensors = original_names()
    for content, outer in ((tensors, ""), ({"model": tensors, "epoch": 3}, "model.")):
        read = read_weights(pathlib.Path(given(content, "x.bin").init))
        assert len(read) == len(tensors) and all(torch.equal(read[outer + n], t) for n, t in tensors.items())


def test_of_the_whole_masked_autoencoder_of_a_run_the_encoder_is_taken_and_the_rest_named(given):
    settings, network = MaskedAutoencoding(epochs=1, warmup_epochs=0, decoder_width=8, decoder_depth=1, decoder_heads=2), small()
    whole = MaskedAutoencoder(small(seed=4), settings)
    said = given_start(given(weights(whole)), network).origin
    assert "28 tensors under 'encoder.'" in said and "left out (decoder.0" in said
    assert torch.equal(encode(network, images(), DEPTH), encode(whole.encoder, images(), DEPTH))


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_ema", "teacher", "anything"])
def test_a_state_dict_is_found_whatever_it_is_called(given, wrapper):
    source, network = small(9, 3), small()
    content = {"epoch": 3, wrapper: weights(source), "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}}}
    said = given_start(given(content, "x.pth"), network).origin
    assert f"28 tensors under '{wrapper}.', 5 left out" in said
    assert torch.equal(encode(network, images(), DEPTH), encode(source, images(), DEPTH))


def test_of_two_networks_the_first_is_taken_and_the_other_named(given):
    """A contrastive checkpoint holds its network and the slow copy of it."""
    source, slow, network = small(9, 3), small(9, 4), small()
    content = {f"module.base_encoder.{n}": t for n, t in weights(source).items()}
    content |= {f"module.momentum_encoder.{n}": t for n, t in weights(slow).items()}
    said = given_start(given({"state_dict": content}, "x.pth"), network).origin
    assert "under 'state_dict.module.base_encoder.' (as many are under 'state_dict.module.momentum_encoder.')" in said
    assert torch.equal(encode(network, images(), DEPTH), encode(source, images(), DEPTH))


def test_a_prefix_that_not_all_names_have_is_said_by_what_is_missing(given):
    tensors = {f"model.{name}": tensor for name, tensor in original_names().items()}
    tensors["blocks.1.norm1.bias"] = tensors.pop("model.blocks.1.norm1.bias")
    assert "missing blocks.1.norm1.bias" in refused(given(tensors), small())


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn])
@pytest.mark.parametrize("name", ["blocks.1.attn.qkv.weight", "pos_embed"])
def test_weights_without_a_point_are_refused(given, kind, name):
    tensors = original_names()
    tensors[name] = tensors[name].to(kind)
    said = refused(given({"model": tensors}, "int8.pth"), small())
    assert "no floating-point numbers" in said and f"{name} {str(kind).removeprefix('torch.')}" in said


def test_a_packed_tensor_is_refused(given):
    tensors = original_names()
    tensors["blocks.0.mlp.fc1.weight"] = tensors["blocks.0.mlp.fc1.weight"].to_sparse()
    assert "packed" in refused(given({"model": tensors}, "sparse.pth"), small())


@pytest.mark.parametrize("token", [torch.zeros(WIDTH), torch.zeros(3, 1, WIDTH), torch.zeros(())])
def test_a_class_token_of_another_shape_is_named(given, token):
    assert "of another shape cls_token" in refused(given({"model": original_names() | {"cls_token": token}}, "x.pth"), small())


@pytest.mark.parametrize("tag", ["resnet18.a1_in1k", "swin_tiny_patch4_window7_224.ms_in1k", "beit_base_patch16_224"])
def test_a_tag_of_another_architecture_is_refused_before_anything_is_fetched(monkeypatch, capsys, tag):
    network = small()
    monkeypatch.setattr(library.timm, "create_model", lambda *_, **__: pytest.fail("fetched"))
    assert "no timm VisionTransformer or Eva (nothing was fetched)" in refused(Model(init=tag), network)
    assert "fetches" not in capsys.readouterr().out


def test_another_number_of_heads_is_refused_before_anything_is_fetched(monkeypatch):
    """The tensors would fit, and compute something else."""
    network = build_vit(Model(width=192, depth=12, heads=4, image_size=16, patch_size=16), 3)
    with monkeypatch.context() as patched:
        patched.setattr(library.timm, "create_model", lambda *_, **__: pytest.fail("fetched"))
        said = refused(Model(init="vit_tiny_patch16_224.augreg_in21k"), network)
    assert "it has 3 heads and the model 4 (nothing was fetched); set model.heads: 3" in said


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"model.init": "nowhere/x.pth"}, "no such file"),
        ({"model.init": "vit_base_patch16_224.may"}, "timm has no such weights"),
        ({"model.init": "a\0.pth"}, "control character"),
        ({"model.init": "~nobody_here/x.pth"}, "nobody"),
        ({"model.init": "x" * 300 + ".pth"}, "too long"),
        ({"model.architecture": "hf-hub:timm/vit_tiny_patch16_224.augreg_in21k"}, "no such model"),
    ],
)
def test_a_start_that_cannot_be_is_said_when_the_run_is_opened(params, changes, words):
    with pytest.raises(UserError) as caught:
        Run(load_config(params(changes)))
    assert words in str(caught.value) and "\n" not in str(caught.value)
