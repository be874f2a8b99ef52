"""RSG: its terms by numbers worked out by hand, its pairs, and a training in which it makes new maps."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from osdtw_lib.config.load import load_config
from osdtw_lib.data.sampling import order
from osdtw_lib.errors import UserError
from osdtw_lib.methods._parts import effective_weights, ldam, margins
from osdtw_lib.methods.rsg import assigned, pairs, strays, to_centres
from osdtw_lib.models.vit import decode, encode
from osdtw_lib.planning.steps import memory_of, steps_of
from osdtw_lib.stages import execute
from osdtw_lib.stages.networks import started
from osdtw_lib.stages.run import Run


def tensor(*values):
    return torch.tensor([*values], dtype=torch.float64)


def close(found, expected):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-9)


@pytest.fixture(scope="module")
def opened(write_params, tmp_path_factory):
    """opened({...of rsg}, {...}) is a run that has its start, on the tiny configuration; asked again, the same one."""
    runs = {}

    def call(values=None, changes=None):
        key = repr((values, changes))
        runs[key] = runs.get(key) or opening(values, changes)
        return runs[key]

    def opening(values, changes):
        baselines = [{"rsg": {"generate_from": 0.5, "centres": 3, "width": 8} | (values or {})}]
        fixed = {"baselines": baselines, "model.init": "scratch", "recipe.drop_path": 0.0}
        run = Run(load_config(write_params(tmp_path_factory.mktemp("rsg"), fixed | (changes or {}))))
        for stage in ("split", "start"):
            execute(run, stage, quiet=True)
        return run

    return call


def built(run):
    kind, parameters = run.asked["rsg"]
    return kind(started(run), parameters)


def part_of(run, method, epoch):
    (phase,) = method.phases()
    return next(run.batches(run.train, sampling=phase.sampling, recipe=run.config.recipe).epoch(epoch)).__next__()


# one position, two channels, two centres
MAP = tensor(1.0, 2.0).view(1, 2, 1, 1)
CENTRES = tensor([0.0, 1.0], [2.0, 2.0])[None]
SHARES = assigned(MAP.flatten(1), tensor([0.5, -0.5], [0.25, 0.25])[None], tensor(1.0, 1.0)[None])


def test_the_centres_cost_what_was_worked_out():
    close(SHARES, [[0.7310585786300049, 0.2689414213699951]])
    close(to_centres(MAP, SHARES, CENTRES), [1.7310585786300049])


def test_the_centres_cost_the_sum_written_out():
    maps, centres = torch.randn(3, 4, 2, 3, dtype=torch.float64), torch.randn(3, 5, 4, dtype=torch.float64)
    shares = torch.rand(3, 5, dtype=torch.float64).softmax(1)
    apart = (maps[:, None] - centres[..., None, None]).square().sum((2, 3, 4))
    close(to_centres(maps, shares, centres), (shares * apart).sum(1))


def test_a_variation_strays_by_length_and_by_angle():
    own, moved, rare = (tensor(*v).view(1, 2, 1, 1) for v in ([1.0, 1.0], [0.6, 0.8], [3.0, 4.0]))
    close(strays(moved, own, rare), [0.41421356237309515])  # the angle is none; element by element it would cost 1 more
    close(strays(moved, moved, tensor(-4.0, 3.0).view(1, 2, 1, 1)), [1.0])
    two = torch.cat([own, moved], dim=3)  # positions add up
    close(strays(two, two, torch.cat([own, -moved], dim=3)), [2.0])


@pytest.mark.parametrize(
    "frequent, rare, often",
    [
        ([1, 1, 0, 1, 1, 0, 1], [2, 5, 2, 5], [0, 1, 3, 4]),  # five and two: twice round, the fifth is left
        ([0, 1, 0, 0], [0, 2, 3], [1, 1, 1]),
        ([0, 0, 1, 1], [0, 1], [2, 3]),
        ([0, 0], [], []),
        ([1], [], []),
    ],
)
def test_the_fewer_go_round_as_often_as_they_wholly_fit(frequent, rare, often):
    found = pairs(torch.tensor(frequent, dtype=torch.bool))
    assert [f.tolist() for f in found] == [rare, often]


@pytest.mark.parametrize("class_token", [False, True])
def test_new_maps_are_the_rare_ones_moved_and_go_on_through_the_later_blocks(opened, class_token):
    run = opened(changes={"model.class_token": class_token})
    network = built(run).build().eval()
    network.centres.data.normal_(generator=torch.Generator().manual_seed(0))
    part = part_of(run, built(run), 0)
    with torch.no_grad():
        scores, labels, _, _ = network(part.images, part.labels, True)
        rare, often = pairs(network.frequent[part.labels])
        tokens = encode(network.vit, part.images, network.depth)
        patches = tokens[:, int(class_token) :]
        nearest = network.centres[part.labels, (patches.mean(1) @ network.directions[part.labels]).diagonal().T.argmax(1)]
        varied = (patches - nearest[:, None])[often].mT.unflatten(2, (2, 2))
        new = tokens[rare].clone()
        new[:, int(class_token) :] += network.move(varied).flatten(2).mT
        expected = torch.cat([network.vit(part.images), decode(network.vit, new, network.depth)])
    assert network.depth == 2 and len(rare) > 5 and not network.frequent[part.labels[rare]].any()
    assert torch.equal(labels, torch.cat([part.labels, part.labels[rare]]))
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)


def test_the_frequent_are_the_most_frequent_fifth(opened):
    run = opened()
    frequent = built(run).build().frequent.numpy()
    assert frequent.sum() == 2 and run.class_counts[frequent].min() >= run.class_counts[~frequent].max()
    assert type(built(run))(run.problem, built(run).Parameters(frequent=0.0)).build().frequent.sum() == 1


def test_what_learns_before_new_maps_are_made_and_what_after(opened):
    run = opened()
    method = built(run)
    network, (phase,) = method.build(), method.phases()
    moved = {}
    for epoch in (0, 1):
        network.zero_grad()
        part = part_of(run, method, epoch)
        losses = phase.losses(network, part)
        sum(losses.values()).backward()
        moved[epoch] = {n.split(".")[0] for n, p in network.named_parameters() if p.grad is not None and p.grad.any()}
        assert set(losses) == {"ldam", "centres", "variation"} and bool(losses["variation"] > 0) == bool(epoch)
    assert moved[0] == {"vit", "directions", "bias", "centres", "alike"}
    assert moved[1] == {"vit", "directions", "bias", "centres", "move"}  # what compares is fixed then


def test_nothing_of_the_centres_and_maps_reaches_the_network_before_them(opened):
    network = built(opened()).build()
    images, labels = torch.randn(6, 1, 28, 28), torch.tensor([0, 0, 1, 7, 8, 9])
    for late in (False, True):
        scores, _, sought, cost = network(images, labels, late)
        gradients = torch.autograd.grad(sought + cost + scores[6:].sum(), network.vit.blocks[0].mlp.fc1.weight, allow_unused=True)
        assert gradients[0] is None or not gradients[0].any()


def test_without_the_terms_it_is_ldam_until_new_maps_come(opened):
    run = opened({"centre_loss": 0.0, "variation_loss": 0.0, "generate_from": 1.0})
    method = built(run)
    network, (phase,) = method.build().eval(), method.phases()
    part = part_of(run, method, 1)
    with torch.no_grad():
        found, scores = phase.losses(network, part), network.vit(part.images)
    expected = ldam(scores, part.labels, margins(run.class_counts, 0.5), 30.0).mean()
    torch.testing.assert_close(sum(found.values()), expected, rtol=1e-5, atol=0)


def test_late_the_classes_weigh_or_are_drawn_by_effective_numbers(opened):
    weighted, sampled = opened({"margin": 0.0}), opened({"margin": 0.0, "late": "sampling"})
    effective = effective_weights(weighted.class_counts)
    for run, weights in ((weighted, effective), (sampled, torch.ones(10))):
        method = built(run)
        network, (phase,) = method.build().eval(), method.phases()
        part = part_of(run, method, 1)
        with torch.no_grad():
            scores, labels, _, _ = network(part.images, part.labels, True)
            found = phase.losses(network, part)["ldam"]
        torch.testing.assert_close(found, F.cross_entropy(scores, labels, weight=weights))
    (phase,) = built(sampled).phases()
    assert phase.sampling(0) == "images" and built(weighted).phases()[0].sampling(1) == "images"
    np.testing.assert_allclose(phase.sampling(1), sampled.class_counts * effective.numpy(), rtol=1e-6)
    drawn = sampled.batches(sampled.train, sampling=phase.sampling)
    for epoch, sampling in ((0, "images"), (1, phase.sampling(1))):
        found = torch.cat([places.indices for step in drawn.plan(epoch) for places in step])
        assert found.tolist() == order(sampling, sampled.train.labels, sampled.config.seed, epoch).tolist()


@pytest.mark.parametrize("late", ["weights", "sampling"])
def test_it_trains_to_its_end_and_its_row_is_read_back(opened, late):
    run = opened({"margin": 0.0} | ({"late": late} if late == "sampling" else {}))
    execute(run, "baselines", quiet=True)
    curve = run.artifact("baselines/rsg").table("curves")
    assert curve["variation"].tolist()[0] == 0 and curve["variation"].tolist()[1] > 0 and np.isfinite(curve["ldam"]).all()
    row = run.methods["rsg"]
    network = row.network(run.read).eval()
    assert network.centres.any() and row.scores(network, torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_what_compares_maps_learns_who_is_alike_and_calls_what_was_moved_another(opened):
    network = built(opened()).build().eval()
    network.centres.data.normal_(generator=torch.Generator().manual_seed(0))
    images, labels = torch.randn(4, 1, 28, 28), torch.tensor([0, 8, 0, 9])  # pairs of the same and of two classes
    with torch.no_grad():
        maps = encode(network.vit, images, network.depth).mT.unflatten(2, (2, 2))
        shares = assigned(maps.mean((2, 3)), network.directions[labels], network.bias[labels])
        centres = to_centres(maps, shares, network.centres[labels]).mean()
        told = network.alike(torch.cat([maps[:2], maps[2:]], dim=1)).log_softmax(1)
        varied = maps - network.centres[labels, shares.argmax(1)][:, :, None, None]
        moved = network.move(varied[[0, 2]])
        apart = network.alike(torch.cat([maps[[0, 2]], moved], dim=1)).log_softmax(1)[:, 0]
        stray = strays(moved, varied[[0, 2]], varied[[1, 3]])
    for late, sought, cost in (
        (False, centres - (told[0, 1] + told[1, 0]) / 2, torch.zeros(())),
        (True, centres, (stray - apart).mean()),
    ):
        _, _, *found = network(images, labels, late)
        torch.testing.assert_close([f.detach() for f in found], [sought, cost], rtol=1e-5, atol=1e-6)
    assert torch.autograd.grad(found[1], network.centres, allow_unused=True) == (None,)


@pytest.mark.parametrize("size", [1, 3])
def test_a_last_part_of_one_image_or_an_odd_number_is_no_trouble(opened, size):
    network = built(opened()).build()
    for late in (False, True):
        scores, labels, sought, cost = network(torch.zeros(size, 1, 28, 28), torch.zeros(size, dtype=torch.int64), late)
        assert len(scores) == len(labels) == size and torch.isfinite(sought + cost)


def test_a_class_token_that_is_pooled_is_refused(opened):
    with pytest.raises(UserError, match="baselines.rsg: .* set model.pooling: avg"):
        built(opened(changes={"model.pooling": "token", "model.class_token": True})).build()


def test_it_is_planned_without_a_value_being_known(params):
    config = load_config(params({"baselines": [{"rsg": {"generate_from": 0.0}}]}))
    *_, step = steps_of(config, 10)
    assert step.flops > 0 and memory_of(step, config, 4, None)["activations of 4 images"] > 0
