"""What a phase may ask for beyond a loss: streams, draws, shares of classes, kept features, SGD, a hand after each step."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from osdtw_lib.artifacts.artifact import Artifact
from osdtw_lib.backend import distributed
from osdtw_lib.config.schema import Config, Digits, Files, Recipe, Training
from osdtw_lib.data.batches import Batches, times_before
from osdtw_lib.data.image_files import ImageFiles
from osdtw_lib.data.sampling import order
from osdtw_lib.data.source import LabelledImages
from osdtw_lib.training import loop
from osdtw_lib.training.frozen_features import Views
from osdtw_lib.training.phase import Phase

LABELS = np.repeat(np.arange(3), (24, 6, 2))
RECIPE = Recipe(batch_size=8, micro_batch=3, random_shift=2, drop_path=0.0, learning_rate=0.05)


def batches(**options):
    pixels = np.random.default_rng(0).integers(0, 256, (len(LABELS), 8, 8, 1), dtype=np.uint8)
    config = Config.model_construct(seed=0, data=Digits(dataset="digits"), recipe=RECIPE)
    return Batches(LabelledImages(pixels, LABELS), config, (8, 8), 3, **options)


def parts(of, epoch=0):
    return [part for step in of.epoch(epoch) for part in step]


def test_how_often_a_place_was_drawn_before():
    drawn = np.random.default_rng(0).integers(0, 5, 40)
    expected = [int((drawn[:i] == value).sum()) for i, value in enumerate(drawn)]
    assert times_before(torch.from_numpy(drawn)).tolist() == expected
    assert times_before(torch.zeros(0, dtype=torch.int64)).tolist() == []


def test_a_second_view_shows_the_same_images_augmented_anew_and_the_first_as_without_it():
    alone, together = parts(batches()), parts(batches(streams=("again",)))
    for plain, part in zip(alone, together):
        (again,) = part.more
        assert torch.equal(plain.images, part.images) and torch.equal(part.indices, again.indices)
        assert torch.equal(part.labels, again.labels)
    assert any(not torch.equal(part.images, part.more[0].images) for part in together)


def test_a_stream_of_another_sampling_is_drawn_by_it_and_is_the_same_again():
    first, second = (parts(batches(streams=("reversed",)), 3) for _ in range(2))
    other = torch.cat([part.more[0].labels for part in first])
    assert torch.bincount(other, minlength=3).argmax() == 2 and len(other) == len(LABELS)
    for a, b in zip(first, second):
        assert torch.equal(a.more[0].images, b.more[0].images) and len(a.labels) == len(a.more[0].labels)


def test_another_draw_is_another_order_of_the_same_images():
    one, two = (torch.cat([part.indices for part in parts(batches(draw=draw))]) for draw in (0, 1))
    assert not torch.equal(one, two) and torch.equal(one.sort().values, two.sort().values)


@pytest.mark.parametrize("sampling, share", [("reversed", [1 / 24, 1 / 6, 1 / 2]), ((1.0, 2.0, 1.0), [1.0, 2.0, 1.0])])
def test_classes_come_by_their_share(sampling, share):
    drawn = np.bincount(LABELS[np.concatenate([order(sampling, LABELS, 0, e) for e in range(300)])], minlength=3)
    assert drawn / drawn.sum() == pytest.approx(np.array(share) / sum(share), abs=0.02)


def test_an_image_that_is_drawn_twice_is_cropped_twice(tmp_path):
    rng, paths = np.random.default_rng(0), []
    for i in range(4):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(paths[-1])
    recipe = RECIPE.model_copy(update={"random_crop": (0.2, 0.9)})
    data = Files(dataset="files", train="x", mean=[0.5] * 3, std=[0.5] * 3)
    config = Config.model_construct(seed=0, data=data, recipe=recipe, loader_workers=0)
    files = np.array([str(path) for path in paths])
    images = ImageFiles(files, np.array([0, 0, 0, 1]), files)
    seen = {}
    for part in parts(Batches(images, config, (16, 16), 2, sampling="classes"), 1):
        for index, image in zip(part.indices.tolist(), part.images):
            seen.setdefault(index, []).append(image)
    assert len(seen[3]) > 1
    assert all(not torch.equal(a, b) for same in seen.values() for i, a in enumerate(same) for b in same[:i])


def test_kept_features_are_those_of_the_augmented_images_in_the_order_that_was_drawn():
    calls = []

    def seen(images):
        calls.append(len(images))
        return images.flatten(1) * 2

    shown, drawn = batches(), batches(sampling="classes")
    views = Views(shown, drawn, seen, 2, "fp32")
    for epoch in (0, 1, 2, 3):
        made = {int(i): image for part in parts(shown, epoch % 2) for i, image in zip(part.indices, part.images)}
        for part, plain in zip(parts(views, epoch), parts(drawn, epoch)):
            assert torch.equal(part.indices, plain.indices) and torch.equal(part.labels, plain.labels)
            assert part.share == plain.share and part.number == plain.number and torch.equal(part.batch, plain.batch)
            assert torch.equal(part.images, torch.stack([2 * made[int(i)].flatten() for i in part.indices]))
    assert sum(calls) == 2 * len(LABELS)


class Two(nn.Module):
    """A linear map, and one that no loss uses."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.used, self.unused = nn.Linear(64, 3), nn.Linear(4, 4)


def trained(phase, tmp_path, recipe=RECIPE):
    model = Two()
    checkpoint = Artifact("x", tmp_path, {}).making().__enter__().checkpoint("training")
    loop.fit(model, phase, batches(recipe=recipe), recipe, checkpoint, 11, "test")
    return model


def loss(model, part):
    return {"loss": nn.functional.cross_entropy(model.used(part.images.flatten(1)), part.labels, reduction="none")}


def test_momentum_is_sgd_written_out(tmp_path):
    recipe = RECIPE.model_copy(update={"micro_batch": None, "weight_decay": 0.1, "final_learning_rate": 0.05})
    found = trained(Phase(Training(epochs=2, learning_rate=0.05), loss, momentum=0.9), tmp_path, recipe)
    model, speed = Two(), {}
    for epoch in range(2):
        for part in parts(batches(recipe=recipe), epoch):
            model.zero_grad()
            loss(model, part)["loss"].mean().backward()
            for name, p in model.used.named_parameters():
                step = p.grad + (0.1 * p.data if name == "weight" else 0)
                speed[name] = step if name not in speed else 0.9 * speed[name] + step
                p.data -= 0.05 * speed[name]
    torch.testing.assert_close(found.used.weight, model.used.weight)
    torch.testing.assert_close(found.used.bias, model.used.bias)


def test_what_no_loss_uses_decays_as_it_would_on_several_processes(tmp_path):
    model = trained(Phase(Training(epochs=1), loss), tmp_path)
    assert not torch.equal(model.unused.weight, Two().unused.weight)
    assert torch.equal(model.unused.bias, Two().unused.bias)  # nothing decays a vector


def test_a_hand_after_each_step(tmp_path):
    steps = []

    def flatten(model):
        steps.append(None)
        model.used.weight.data.clamp_(-0.01, 0.01)

    model = trained(Phase(Training(epochs=2), loss, after_step=flatten), tmp_path)
    assert len(steps) == 2 * len(batches()) and model.used.weight.abs().max() <= 0.01


def test_parts_are_shared_out_with_their_streams(monkeypatch):
    whole = parts(batches(streams=("reversed",)))
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    halves = []
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        halves.append(parts(batches(streams=("reversed",))))
    found = {(tuple(p.indices.tolist()), tuple(p.more[0].indices.tolist())) for half in halves for p in half}
    assert found == {(tuple(p.indices.tolist()), tuple(p.more[0].indices.tolist())) for p in whole}
    assert sum(map(len, halves)) == len(whole)
