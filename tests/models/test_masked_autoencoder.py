"""What is hidden stays hidden, the loss counts hidden patches alone, and pictures fold back together."""

import pytest
import torch

from osdtw_lib.config.schema import MaskedAutoencoding, Model
from osdtw_lib.errors import UserError
from osdtw_lib.models.masked_autoencoder import MaskedAutoencoder
from osdtw_lib.models.vit import build_vit
from osdtw_lib.models.weights import weights


def autoencoder(normalize=False, class_token=False, **changes):
    torch.manual_seed(0)
    sizes = {"image_size": 16, "patch_size": 4, "width": 12, "depth": 2, "heads": 2, "channels": 2}
    vit = build_vit(Model(class_token=class_token, **sizes), 3)
    settings = {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2, "mask_ratio": 0.75}
    return MaskedAutoencoder(vit, MaskedAutoencoding(normalize_patches=normalize, **(settings | changes))).eval()


def images(n=3):
    return torch.rand(n, 2, 16, 16, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("ratio, visible", [(0.75, 4), (0.5, 8), (0.99, 1)])
@torch.no_grad()
def test_the_mask_ratio_says_how_many_patches_are_hidden(ratio, visible):
    _, _, hidden = autoencoder(mask_ratio=ratio).paint(images())
    assert ((~hidden).sum(1) == visible).all()


@pytest.mark.parametrize("class_token", [False, True])
@torch.no_grad()
def test_hidden_patches_do_not_reach_the_painting(class_token):
    model, x = autoencoder(class_token=class_token), images()
    torch.manual_seed(5)
    _, painted, hidden = model.paint(x)
    mask = hidden.view(3, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    torch.manual_seed(5)
    _, again, _ = model.paint(torch.where(mask, 9.0, x))
    assert torch.equal(painted, again)
    torch.manual_seed(5)
    _, other, _ = model.paint(torch.where(mask, x, 9.0))
    assert not torch.allclose(painted, other)


@torch.no_grad()
def test_the_loss_is_the_squared_error_on_hidden_patches():
    model = autoencoder()
    torch.manual_seed(5)
    loss = model(images())
    torch.manual_seed(5)
    target, painted, hidden = (t.double() if t.is_floating_point() else t for t in model.paint(images()))
    total, count = 0.0, 0
    for n in range(len(hidden)):
        for p in range(hidden.shape[1]):
            if hidden[n, p]:
                total += float(((painted[n, p] - target[n, p]) ** 2).mean())
                count += 1
    assert count == 3 * 12
    assert loss.item() == pytest.approx(total / count, rel=1e-5)  # one float32 sum of about a thousand terms


@pytest.mark.parametrize("class_token", [False, True])
def test_it_is_bit_for_bit_the_mean_over_the_places_that_the_mask_names(class_token):
    found = []
    for indexed in (False, True):
        model = autoencoder(class_token=class_token).train()
        torch.manual_seed(5)
        if indexed:
            target, painted, hidden = model.paint(images())
            loss = ((painted - target) ** 2).mean(-1)[hidden].mean()
        else:
            loss = model(images())
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert all(map(torch.equal, *found)) and len(found[0]) == len(found[1]) > 10


def test_patches_are_cut_row_by_row():
    x = images()
    cut = autoencoder().patches(x)
    assert cut.shape == (3, 16, 2 * 4 * 4)
    assert torch.equal(cut[1, 6], x[1, :, 4:8, 8:12].reshape(-1))


def test_normalised_patches_have_zero_mean_and_unit_variance():
    cut = autoencoder(normalize=True).patches(images())
    torch.testing.assert_close(cut.mean(-1), torch.zeros(3, 16), rtol=0, atol=1e-5)
    torch.testing.assert_close(cut.var(-1), torch.ones(3, 16), rtol=1e-3, atol=0)  # 1e-6 is added to the variance


@pytest.mark.parametrize("normalize", [False, True])
def test_a_reconstruction_keeps_what_was_seen(normalize):
    model, x = autoencoder(normalize), images()
    masked, painted = model.reconstruct(x)
    assert masked.shape == painted.shape == x.shape
    plain = autoencoder()  # cuts without normalising
    before, hidden_at_floor, after = (plain.patches(i) for i in (x, masked, painted))
    seen = (before == hidden_at_floor).all(-1)
    assert (seen.sum(1) == 4).all()
    torch.testing.assert_close(after[seen], before[seen])
    assert (hidden_at_floor[~seen] == x.min()).all()
    assert not (after[~seen] == before[~seen]).all(-1).any()


def test_a_reconstruction_is_the_same_twice_and_leaves_the_random_state():
    model, before = autoencoder(), torch.get_rng_state()
    first, second = model.reconstruct(images())[1], model.reconstruct(images())[1]
    assert torch.equal(first, second) and torch.equal(torch.get_rng_state(), before)


def test_the_encoder_is_trained_and_its_head_is_not():
    model = autoencoder()
    model(images()).backward()
    gradients = {name: p.grad is not None for name, p in model.encoder.named_parameters()}
    assert all(learns == (not name.startswith(("head", "norm", "fc_norm"))) for name, learns in gradients.items())
    assert {f"encoder.{name}" for name in weights(model.encoder)} <= weights(model).keys()


@pytest.mark.parametrize("changes", [{"decoder_width": 10, "decoder_heads": 5}, {"decoder_width": 12, "decoder_heads": 5}])
def test_a_decoder_that_cannot_be_built_is_one_line(changes):
    with pytest.raises(UserError, match="stage0.decoder_width"):
        autoencoder(**changes)


def test_a_mask_that_hides_nothing_is_refused():
    with pytest.raises(UserError, match="stage0.mask_ratio"):
        autoencoder(mask_ratio=0.01)


def test_a_width_without_four_coordinates_is_one_line():
    vit = build_vit(Model(class_token=False, image_size=16, patch_size=4, width=18, depth=2, heads=2, channels=2), 3)
    with pytest.raises(UserError, match="^model.width 18 is no multiple of 4"):
        MaskedAutoencoder(vit, MaskedAutoencoding(decoder_width=8, decoder_depth=1, decoder_heads=2))
