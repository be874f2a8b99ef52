"""The division of a network into depths, what two branches share, and which weights are taken."""

import pytest
import torch

from osdtw_lib.config.schema import Model
from osdtw_lib.errors import UserError
from osdtw_lib.models.two_branch import TwoBranchViT
from osdtw_lib.models.vit import build_vit, decode, depth_of, embed, encode, n_depths
from osdtw_lib.models.weights import copy_encoder, load_weights, weights

DEPTH = 3
KINDS = {
    "average pooling": {"class_token": False},
    "average pooling, class token": {},
    "class token": {"pooling": "token"},
}


def small(n_outputs=4, seed=0, **changes):
    torch.manual_seed(seed)
    sizes = {"image_size": 8, "patch_size": 4, "width": 12, "depth": DEPTH, "heads": 2, "channels": 2}
    network = build_vit(Model(**(sizes | changes)), n_outputs).eval()
    for parameter in network.parameters():  # away from zero biases and unit scales
        parameter.data += 0.1 * torch.randn_like(parameter)
    return network


def images(n=5):
    return torch.randn(n, 2, 8, 8, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("depth", range(DEPTH + 1))
@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_encode_then_decode_is_the_plain_forward_pass(options, depth):
    network, x = small(**options), images()
    assert torch.equal(decode(network, encode(network, x, depth), depth), network(x))


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_every_parameter_has_the_depth_from_which_it_is_shared(options):
    network = small(**options)
    depths = depth_of(network)
    assert depths.keys() == dict(network.named_parameters()).keys()
    for name, depth in depths.items():
        if name.startswith("blocks."):
            assert depth == int(name.split(".")[1]) + 1
        elif name.startswith(("patch_embed", "pos_embed", "cls_token")):
            assert depth == 1
        else:
            assert name.startswith(("norm", "fc_norm", "head")) and depth == DEPTH + 1
    assert n_depths(network) == DEPTH


@pytest.mark.parametrize("depth", range(DEPTH + 1))
@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_an_encoder_uses_exactly_the_parameters_of_its_depth(options, depth):
    network = small(**options).requires_grad_()
    hidden = encode(network, images().requires_grad_(), depth)
    used = torch.autograd.grad(hidden.square().sum(), list(network.parameters()), allow_unused=True)
    for (name, own), gradient in zip(depth_of(network).items(), used):
        assert (gradient is not None) == (own <= depth), name


@pytest.mark.parametrize("shared_depth", range(DEPTH + 1))
@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_two_branches_share_exactly_what_lies_up_to_the_shared_depth(options, shared_depth):
    head, tail = small(4, 0, **options), small(3, 1, **options)
    depths = depth_of(head)
    network = TwoBranchViT(head, tail, shared_depth)
    branches = dict(network.head.named_parameters()), dict(network.tail.named_parameters())
    for name, depth in depths.items():
        assert (branches[0][name] is branches[1][name]) == (depth <= shared_depth), name
    shared = {name for name, depth in depths.items() if depth <= shared_depth}
    assert network.encoder_parameters().keys() == shared
    assert len(list(network.parameters())) == 2 * len(depths) - len(shared)


@pytest.mark.parametrize("shared_depth", range(DEPTH + 1))
@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_two_branches_answer_as_two_plain_networks_with_the_same_weights(options, shared_depth):
    network = TwoBranchViT(small(4, 0, **options), small(3, 1, **options), shared_depth)
    head, tail = small(4, 8, **options), small(3, 9, **options)
    head.load_state_dict(network.head.state_dict())
    tail.load_state_dict(network.tail.state_dict())
    logits = network(images())
    assert torch.equal(logits["head"], head(images())) and torch.equal(logits["tail"], tail(images()))
    assert (logits["head"].shape, logits["tail"].shape) == ((5, 4), (5, 3))


def test_at_depth_zero_the_branches_are_the_networks_they_were():
    expected = small(4, 0)(images()), small(3, 1)(images())
    logits = TwoBranchViT(small(4, 0), small(3, 1), 0)(images())
    assert torch.equal(logits["head"], expected[0]) and torch.equal(logits["tail"], expected[1])


@pytest.mark.parametrize("shared_depth", [-1, DEPTH + 1])
def test_a_depth_the_model_has_not_is_refused(shared_depth):
    with pytest.raises(ValueError, match=f"0..{DEPTH}"):
        TwoBranchViT(small(), small(), shared_depth)


@pytest.mark.parametrize("depth", range(DEPTH + 1))
def test_copying_an_encoder_takes_its_depths_and_nothing_else(depth):
    source, target, before = small(4, 0), small(3, 1), small(3, 1)
    copy_encoder(source, target, depth)
    taken, kept, now = (dict(n.named_parameters()) for n in (source, before, target))
    for name, own in depth_of(target).items():
        assert torch.equal(now[name], (taken if own <= depth else kept)[name]), name


@pytest.mark.parametrize("shared_depth", range(DEPTH + 1))
def test_weights_make_the_round_trip_and_stand_there_once(shared_depth):
    network = TwoBranchViT(small(4, 0), small(3, 1), shared_depth)
    saved = {name: tensor.clone() for name, tensor in weights(network).items()}
    assert len({tensor.data_ptr() for tensor in weights(network).values()}) == len(saved)
    again = load_weights(TwoBranchViT(small(4, 5), small(3, 6), shared_depth), saved)
    for task, logits in network(images()).items():
        assert torch.equal(again(images())[task], logits)


@pytest.mark.parametrize("change", ["missing", "unknown", "another shape"])
def test_weights_that_do_not_fit_are_refused_and_named(change):
    network, saved = small(), dict(weights(small()))
    if change == "missing":
        del saved["blocks.1.mlp.fc1.weight"]
    elif change == "unknown":
        saved["blocks.1.mlp.fc1.weights"] = torch.zeros(1)
    else:
        saved["blocks.1.mlp.fc1.weight"] = torch.zeros(1)
    with pytest.raises(UserError, match="blocks.1.mlp.fc1.weight"):
        load_weights(network, saved)


@pytest.mark.parametrize(
    "model",
    [
        {"architecture": "vit_base_patch16_225"},
        {"architecture": "resnet18"},
        {"width": 13, "heads": 4},
        {"architecture": "deit_tiny_distilled_patch16_224"},
    ],
)
def test_a_model_that_cannot_be_built_is_one_line(model):
    with pytest.raises(UserError, match="model.architecture") as caught:
        build_vit(Model(**model), 3)
    assert "\n" not in str(caught.value)


def test_the_heads_weights_start_as_small_as_asked_for():
    torch.manual_seed(0)
    sizes = {"image_size": 8, "patch_size": 4, "width": 64, "depth": 1, "heads": 2, "channels": 2}
    plain, small_head = (build_vit(Model(**sizes, head_init_std=std), 50).head for std in (None, 2e-5))
    assert float(small_head.weight.detach().std()) == pytest.approx(2e-5, rel=0.05) and not small_head.bias.any()
    assert plain.weight.std() > 1e-3


def test_a_frozen_encoder_stays_in_evaluation_mode_while_the_decoders_train():
    network = TwoBranchViT(small(3), small(2), 1)
    network.freeze_encoder()
    network.train()
    assert not network.head.blocks[0].training and not network.head.patch_embed.training
    assert network.head.blocks[1].training and network.tail.blocks[1].training
    assert not any(p.requires_grad for p in network.encoder_parameters().values())
    assert network.head.blocks[1].mlp.fc1.weight.requires_grad and network.tail.head.weight.requires_grad


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_a_tokens_numbers_lie_side_by_side(options):
    network, x = small(**options), images()
    assert network.patch_embed(x).is_contiguous() and embed(network, x).is_contiguous()
    assert set(network.state_dict()) == set(dict(network.named_parameters())), "the layout adds no weight"
