"""The loop: its schedule, its parameter groups, and a resumed run against one that was not cut short."""

import math

import pytest
import torch
from torch import nn

from osdtw_lib.artifacts.artifact import Artifact
from osdtw_lib.config.schema import Config, Digits, Model, Recipe, Training
from osdtw_lib.data.batches import Batches
from osdtw_lib.data.source import LabelledImages
from osdtw_lib.errors import UserError
from osdtw_lib.models.vit import build_vit, depth_of, is_embedding
from osdtw_lib.models.weights import weights
from osdtw_lib.training import loop
from osdtw_lib.training.loop import fit
from osdtw_lib.training.optimizer import learning_rate, parameter_groups
from osdtw_lib.training.phase import Phase

LENGTH = Training(epochs=4, warmup_epochs=1)
RECIPE = Recipe(batch_size=5, drop_path=0.3, learning_rate=1e-2)


@pytest.fixture(autouse=True)
def checkpoint_every_epoch(monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0)


@pytest.fixture
def checkpoint(tmp_path):
    """checkpoint() is a new look at the same place, as a new process has it."""

    def look():
        writer = Artifact("x", tmp_path, {}).making().__enter__()
        return writer.checkpoint("training")

    return look


def network():
    torch.manual_seed(0)
    sizes = {"image_size": 8, "patch_size": 4, "width": 8, "depth": 2, "heads": 2, "channels": 1}
    return build_vit(Model(**sizes), 3, RECIPE.drop_path)


def batches(recipe=RECIPE):
    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (13, 8, 8, 1), generator=g, dtype=torch.uint8).numpy()
    images = LabelledImages(pixels, torch.randint(0, 3, (13,), generator=g).numpy())
    config = Config.model_construct(seed=0, data=Digits(dataset="digits"), recipe=recipe)
    return Batches(images, config, (8, 8), 3)


def train(model, checkpoint, recipe=RECIPE, length=LENGTH, losses=None):
    losses = losses or (lambda x, y: {"a": nn.functional.cross_entropy(model(x), y), "b": model(x).square().mean()})
    phase = Phase(length, lambda model, part: losses(part.images, part.labels))
    return fit(model, phase, batches(recipe), recipe, checkpoint, 11, "test")


def forget(folder):
    for path in folder.glob("*.checkpoint"):
        path.unlink()


class Killed(BaseException):
    pass


def killing(checkpoint, after):
    """The checkpoint, with an exception right after its nth save."""
    save = checkpoint.save

    def and_die(tensors, state):
        nonlocal after
        save(tensors, state)
        after -= 1
        if after == 0:
            raise Killed

    checkpoint.save = and_die
    return checkpoint


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_resumed_training_ends_bit_for_bit_where_the_uninterrupted_one_does(checkpoint, tmp_path, capsys, after):
    whole = network()
    expected = train(whole, checkpoint())
    forget(tmp_path)
    with pytest.raises(Killed):
        train(network(), killing(checkpoint(), after))
    resumed = network()
    torch.manual_seed(999)  # a new process has another random state
    history = train(resumed, checkpoint())
    assert f"resumes after epoch {after} of 4" in capsys.readouterr().out
    assert history.equals(expected)
    for name, tensor in weights(resumed).items():
        assert torch.equal(tensor, weights(whole)[name]), name


def test_training_is_the_same_twice_and_leaves_the_random_state(checkpoint, tmp_path):
    torch.manual_seed(5)
    first, before = network(), torch.get_rng_state()
    train(first, checkpoint())
    assert torch.equal(torch.get_rng_state(), before)
    forget(tmp_path)
    torch.manual_seed(6)
    second = network()
    train(second, checkpoint())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))


def test_training_lowers_the_loss_and_records_every_part(checkpoint):
    history = train(network(), checkpoint(), length=Training(epochs=12, warmup_epochs=1))
    assert history["epoch"].tolist() == list(range(1, 13)) and {"a", "b", "learning_rate"} <= set(history)
    assert (history["a"] + history["b"]).iloc[-1] < (history["a"] + history["b"]).iloc[0]


def test_the_recorded_loss_is_the_mean_over_images_not_over_batches(checkpoint):
    seen = []

    def losses(x, y):
        seen.append((len(y), float(model(x).detach().square().mean())))
        return {"a": model(x).square().mean() * 0 + seen[-1][1]}

    model = network().eval()
    history = train(model, checkpoint(), length=Training(epochs=1), losses=losses)
    assert [n for n, _ in seen] == [5, 5, 3]
    assert history["a"][0] == pytest.approx(sum(n * v for n, v in seen) / 13, rel=1e-6)


def test_frozen_parameters_stay_bit_for_bit(checkpoint):
    model = network()
    model.blocks[0].requires_grad_(False)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train(model, checkpoint())
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]) == name.startswith("blocks.0."), name


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_one_line(checkpoint, value):
    model = network()
    with pytest.raises(UserError, match="test: the loss is not finite in epoch 1.*learning rate") as caught:
        train(model, checkpoint(), losses=lambda x, y: {"a": model(x).mean() * value})
    assert "\n" not in str(caught.value)


def test_a_loss_that_is_not_finite_leaves_no_checkpoint_of_it(checkpoint, tmp_path):
    model = network()
    with pytest.raises(UserError):
        train(model, checkpoint(), losses=lambda x, y: {"a": model(x).mean() * float("nan")})
    assert list(tmp_path.glob("*.checkpoint")) == []


def test_bfloat16_trains_and_keeps_weights_in_single_precision(checkpoint):
    model = network()
    history = train(model, checkpoint(), recipe=RECIPE.model_copy(update={"precision": "bf16"}))
    assert all(math.isfinite(v) for v in history["a"])
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_the_rate_warms_up_linearly_then_falls_by_half_a_cosine():
    length = Training(epochs=10, warmup_epochs=2)
    rates = [learning_rate(e, length, 1.0, 0.1) for e in (0, 1, 2, 6, 10)]
    assert rates == pytest.approx([0, 0.5, 1.0, 0.55, 0.1])
    steps = [learning_rate(e / 10, length, 1.0, 0.1) for e in range(101)]
    assert all(a <= b for a, b in zip(steps[:20], steps[1:21])) and all(a >= b for a, b in zip(steps[20:], steps[21:]))


def test_without_warm_up_the_rate_starts_at_its_peak():
    assert learning_rate(0, Training(epochs=3), 0.5, 0.0) == 0.5


def test_warm_up_over_all_epochs_divides_by_nothing():
    assert learning_rate(2.5, Training(epochs=3, warmup_epochs=3), 0.6, 0.0) == pytest.approx(0.5)


def test_a_stages_own_rate_takes_the_place_of_the_recipes(checkpoint):
    history = train(network(), checkpoint(), length=Training(epochs=1, learning_rate=0.123))
    first_step_of_three = learning_rate(2 / 3, Training(epochs=1), 0.123, RECIPE.final_learning_rate)
    assert history["learning_rate"][0] == pytest.approx(first_step_of_three)


def test_the_rate_decays_with_every_depth_below_the_head():
    model = network()
    depths = depth_of(model)
    groups = parameter_groups(model, Recipe(layer_decay=0.5, weight_decay=0.05), depths)
    scale = {id(p): group["scale"] for group in groups for p in group["params"]}
    for name, p in model.named_parameters():
        below = 3 if is_embedding(name) else 3 - depths[name]
        assert scale[id(p)] == 0.5**below, name
    named = dict(model.named_parameters())
    first, last = named["blocks.0.attn.qkv.weight"], named["head.weight"]
    assert (scale[id(named["patch_embed.proj.weight"])], scale[id(first)], scale[id(last)]) == (1 / 8, 1 / 4, 1)
    assert len(scale) == len(depths)


def test_weight_decay_leaves_out_vectors_tokens_and_positions():
    model = network()
    groups = parameter_groups(model, Recipe(weight_decay=0.05), depth_of(model))
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for name, p in model.named_parameters():
        plain = p.ndim == 1 or name in ("pos_embed", "cls_token")
        assert decay[id(p)] == (0.0 if plain else 0.05), name
