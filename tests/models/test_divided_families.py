"""Every family of starts is divided, shared and counted as timm's own forward pass computes it."""

import pytest
import torch
from small_starts import DEPTH, FAMILIES, model_of, small_start, some_images

from osdtw_lib.config.schema import Model
from osdtw_lib.errors import UserError
from osdtw_lib.models.two_branch import TwoBranchViT
from osdtw_lib.models.vit import Eva, build_vit, costs_by_depth, decode, depth_of, embed, encode, n_depths, through

DEPTHS = range(DEPTH + 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_divided_at_any_depth_it_computes_what_timm_does(family):
    network, x = small_start(family).double(), some_images()
    with torch.no_grad():
        expected, tokens = network(x), embed(network, x)
        for depth in DEPTHS:
            assert torch.allclose(decode(network, encode(network, x, depth), depth), expected, rtol=0, atol=1e-12)
        for depth in range(1, DEPTH + 1):
            tokens = through(network, tokens, depth - 1, depth)
            assert torch.equal(tokens, encode(network, x, depth))
    assert float(expected.std()) > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_an_encoder_uses_exactly_the_parameters_of_its_depth(family):
    network, depths = small_start(family), depth_of(small_start(family))
    assert depths.keys() == dict(network.named_parameters()).keys() and n_depths(network) == DEPTH
    for depth in DEPTHS:
        hidden = encode(network, some_images(dtype=torch.float32).requires_grad_(), depth)
        used = torch.autograd.grad(hidden.square().sum(), list(network.parameters()), allow_unused=True)
        assert [g is not None for g in used] == [own <= depth for own in depths.values()], depth


@pytest.mark.parametrize("family", [name for name in FAMILIES if "giant" not in name])
def test_two_branches_are_one_up_to_the_shared_depth_and_two_plain_networks_outside(family):
    head, tail, depths = small_start(family, 4), small_start(family, 3, seed=1), depth_of(small_start(family))
    network, x = TwoBranchViT(head, tail, 1), some_images(dtype=torch.float32)
    for (name, a), b in zip(network.head.named_parameters(), network.tail.parameters()):
        assert (a is b) == (depths[name] <= 1), name
    plain = small_start(family, 3, seed=5)
    plain.load_state_dict(network.tail.state_dict())
    assert torch.allclose(network(x)["tail"], plain(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["DINOv3", "EVA-02", "DINOv2, registers"])
def test_costs_are_those_of_the_matrix_products(family):
    """Counted by hand: 2 x 2 patches, the class token and the registers; two FLOPs a multiply-add."""
    network = small_start(family)
    parameters, flops = costs_by_depth(model_of(family), 3)
    assert sum(parameters) == sum(p.numel() for p in network.parameters())
    tokens, width = 4 + network.num_prefix_tokens, network.embed_dim
    linear = [m for m in network.blocks[1].modules() if isinstance(m, torch.nn.Linear)]
    attention = 4 * tokens * tokens * width
    assert flops[1] == attention + 2 * tokens * sum(m.weight.numel() for m in linear)
    assert flops[0] - flops[1] == 2 * 4 * network.patch_embed.proj.weight.numel()


@pytest.mark.parametrize("family", ["DINOv3", "Perception Encoder"])
def test_rotary_positions_are_those_of_the_grid(family):
    """The same weights over another grid, also where rotations are kept between calls and where they are not."""
    small, large = small_start(family), small_start(family, image_size=32)
    own = {name: tensor for name, tensor in small.state_dict().items() if name != "pos_embed"}
    assert not large.load_state_dict(own, strict=False).unexpected_keys
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.allclose(decode(large, encode(large, x, 1), 1), large(x), atol=1e-6)
    assert isinstance(large, Eva) and large.dynamic_img_size == (family == "DINOv3")


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"architecture": "vit_small_patch16_rope_mixed_224"}, "rotary positions of all its blocks in one tensor"),
        ({"architecture": "vit_base_patch16_sapiens2", "depth": None, "heads": None, "width": None}, "anew at each call"),
        ({"architecture": "swin_tiny_patch4_window7_224", "patch_size": None}, "swin"),
        ({"architecture": "vit_base_patch16_dinov3", "init": "masked_autoencoding"}, "Stage 0 paints with a VisionTransformer"),
        ({"architecture": "eva02_base_patch14_224", "heads": 5}, "cannot build it"),
    ],
)
def test_what_cannot_be_divided_is_one_line(changes, words):
    with torch.device("meta"), pytest.raises(UserError, match="model.architecture") as caught:
        build_vit(
            Model(**({"image_size": 32, "patch_size": 8, "width": 32, "depth": 2, "heads": 2, "init": "scratch"} | changes)), 3
        )
    assert words in str(caught.value) and "\n" not in str(caught.value)
