"""Experts, ensembles and distillation: their losses by numbers worked out by hand, and what they reduce to."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from osdtw_lib import methods
from osdtw_lib.config.load import load_config
from osdtw_lib.errors import UserError
from osdtw_lib.methods._parts import effective_weights, ldam, margins
from osdtw_lib.methods.deit_lt_style import Teacher, from_teacher
from osdtw_lib.methods.ride import distances, temperatures
from osdtw_lib.methods.sade import adjustments, of_each, reversed_priors
from osdtw_lib.planning.steps import memory_of, steps_of
from osdtw_lib.stages import execute
from osdtw_lib.stages.networks import started
from osdtw_lib.stages.run import Run

COUNTS = np.array([100, 10, 1])
PRIORS = COUNTS / COUNTS.sum()
LABELS = torch.tensor([0, 2])
Z1, Z2, Z3 = (
    torch.tensor(z, dtype=torch.float64)
    for z in ([[2.0, 0.5, -1.0], [0.2, -0.3, 0.7]], [[1.0, 1.5, 0.0], [-0.4, 0.6, 0.9]], [[0.5, 0.2, 0.9], [-1.0, 0.0, 1.4]])
)
TWO, THREE = torch.stack([Z1, Z2], 1), torch.stack([Z1, Z2, Z3], 1)  # (B, M, K)
ANY = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
ANY_LABELS = torch.tensor([0, 1, 2, 3, 1])


def close(found, expected):
    torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected, dtype=torch.float64), rtol=1e-6, atol=0)


def ce(scores, labels):
    return F.cross_entropy(scores, labels, reduction="none")


@pytest.fixture(scope="module")
def opened(write_params, tmp_path_factory):
    """opened([...], {...}) is a run that has its start, on the tiny configuration."""

    def call(baselines, changes=None):
        folder = tmp_path_factory.mktemp("branches")
        run = Run(load_config(write_params(folder, {"baselines": baselines, "model.init": "scratch"} | (changes or {}))))
        for stage in ("split", "start"):
            execute(run, stage, quiet=True)
        return run

    return call


def built(run, name):
    kind, parameters = run.asked[name]
    return kind(started(run), parameters)


# RIDE -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "strength, temperature, kl, total",
    [
        (0.0, [1, 1, 1], [[0.11225738404747176, 0.03388315981829226], [0.1232706786624321, 0.03258180891490847]], None),
        (
            0.05,
            [1.0, 0.8879202988792031, 0.8767123287671235],
            [[0.12953597832978547, 0.036957535762836044], [0.1386921422682244, 0.03606620093433105]],
            -0.028980600000130113,
        ),
        (
            0.02,
            [1.0, 0.9529534762153685, 0.9482488238369055],
            [[0.11885038950631953, 0.035108597276981846], [0.12930775495504598, 0.033949109639424005]],
            -0.02966664247457617,
        ),
    ],
)
def test_rides_experts_are_as_far_from_their_mean_as_worked_out(strength, temperature, kl, total):
    found = temperatures(COUNTS, strength)
    close(found, temperature)
    close(distances(TWO, found).T, kl)
    if total:
        close(-0.2 * found.mean() ** 2 * distances(TWO, found).sum(1).mean(), total)


def test_rides_loss_without_margins_and_with_them():
    away = distances(TWO, temperatures(COUNTS, 0.0))
    each = torch.stack([ldam(one, LABELS, torch.zeros(3), 30.0) for one in TWO.unbind(1)], 1)
    close((each.sum(1) - 0.2 * away.sum(1)).mean(), 1.3325564872747189)
    close(margins(COUNTS, 0.5), [0.15811388300841897, 0.28117066259517454, 0.5])
    close(margins(COUNTS, 0.3), [0.09486832980505137, 0.16870239755710473, 0.3])
    lowered = torch.stack([ldam(one, LABELS, margins(COUNTS, 0.5), 30.0) for one in TWO.unbind(1)])
    close(lowered, [[3.476241409908152, 14.974077298115967], [5.449139045054197, 15.013261989390498]])
    weights = effective_weights(COUNTS).double()[LABELS]
    close((weights * lowered).sum(1) / weights.sum(), [14.859678498523188, 14.918102848607147])
    close(TWO.mean(1), [[1.5, 1.0, -0.5], [-0.1, 0.15, 0.8]])


def test_no_gradient_flows_through_the_experts_mean():
    scores = TWO.clone().requires_grad_()
    distances(scores, torch.ones(3)).sum().backward()
    mean = TWO.mean(1, keepdim=True).softmax(-1)
    torch.testing.assert_close(scores.grad, TWO.softmax(-1) - mean)


def part_of(run, phase, epoch):
    """The first step of an epoch, as one part."""
    recipe = run.config.recipe.model_copy(update=phase.recipe)
    (part,) = next(run.batches(run.train, recipe=recipe, sampling=phase.sampling).epoch(epoch))
    return part


def test_rides_terms_are_the_experts_and_their_distance_and_change_when_the_weights_set_in(opened):
    run = opened([{"ride": {"weights_from": 0.5, "temperature": 0.05, "diversity": 0.45}}, "logit_adjusted_ce"])
    of = built(run, "ride")
    (phase,), network, counts = of.phases(), of.build().eval(), run.class_counts
    for epoch, weights, temperature in ((0, None, torch.ones(10)), (1, effective_weights(counts), temperatures(counts, 0.05))):
        part = part_of(run, phase, epoch)
        found, z = phase.losses(network, part), network(part.images)
        expected = sum(ldam(z[:, m], part.labels, margins(counts, 0.5), 30.0) for m in range(3))
        torch.testing.assert_close(found["experts"], expected)
        far = -0.45 * temperature.mean() ** 2 * distances(z, temperature).sum(1).mean()
        torch.testing.assert_close(found["diversity"], far.float(), rtol=1e-4, atol=1e-9)
        got = phase.class_weights(epoch)
        assert got is None if weights is None else torch.equal(got, weights)


def test_ride_without_margins_and_diversity_is_cross_entropies(opened):
    run = opened([{"ride": {"diversity": 0.0, "margin": 0.0}}])
    of = built(run, "ride")
    (phase,), network = of.phases(), of.build().eval()
    part = part_of(run, phase, 0)
    found = phase.losses(network, part)
    assert float(found["diversity"].detach()) == 0
    torch.testing.assert_close(found["experts"], sum(ce(z, part.labels) for z in network(part.images).unbind(1)))


# SADE -----------------------------------------------------------------------------------------------------------


def test_sades_experts_cost_what_was_worked_out():
    close(reversed_priors(PRIORS), [0.009009009009009009, 0.09009009009009009, 0.9009009009009009])
    each = of_each(THREE, LABELS, adjustments(PRIORS, 2.0))
    expected = [[0.24131129665715711, 0.6802696706417346], [0.15576445430654384, 3.5740676872931325]]
    rare = [0.0007420348253379672, 11.418235816081689]
    torch.testing.assert_close(each.T, torch.tensor([*expected, rare], dtype=torch.float64), rtol=2e-6, atol=0)
    assert float(each.sum(1).mean()) == pytest.approx(8.035195479902796, rel=1e-6)
    milder = of_each(THREE, LABELS, adjustments(PRIORS, 1.0))[:, 2]
    torch.testing.assert_close(milder, torch.tensor([0.007528951702584941, 6.838232653484463]).double(), rtol=2e-6, atol=0)


def test_sades_experts_are_ce_logit_adjustment_and_at_equal_counts_all_ce():
    counts = np.array([7, 50, 3, 12])
    each = of_each(ANY, ANY_LABELS, adjustments(counts / counts.sum(), 2.0))
    torch.testing.assert_close(each[:, 0], ce(ANY[:, 0], ANY_LABELS))
    torch.testing.assert_close(each[:, 1], ce(ANY[:, 1] + torch.as_tensor(counts / counts.sum()).log(), ANY_LABELS))
    assert reversed_priors(np.array([0.1, 0.5, 0.05, 0.35])).tolist() == [0.35, 0.05, 0.5, 0.1]
    alike = of_each(ANY, ANY_LABELS, adjustments(np.full(4, 0.25), 2.0))
    torch.testing.assert_close(alike, torch.stack([ce(z, ANY_LABELS) for z in ANY.unbind(1)], 1))


# both -----------------------------------------------------------------------------------------------------------

LOSSES = {
    "ldam": lambda z: ldam(z[:, 0], ANY_LABELS, margins([9, 5, 2, 1], 0.5), 30.0),
    "sade": lambda z: of_each(z, ANY_LABELS, adjustments([0.6, 0.2, 0.15, 0.05], 2.0)),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_gradients_are_the_differences(loss):
    assert torch.autograd.gradcheck(loss, ANY.clone().requires_grad_())


@pytest.mark.parametrize(
    "loss", [*LOSSES.values(), lambda z: distances(z, temperatures([9, 5, 2, 1], 0.05))], ids=[*LOSSES, "distances"]
)
def test_losses_are_finite_however_large_the_scores(loss):
    assert torch.isfinite(loss(1e4 * ANY.float().sign())).all()


@pytest.mark.parametrize("name", ["ride", "sade"])
def test_experts_share_three_quarters_and_their_heads_begin_apart(opened, name):
    run = opened([name, {"logit_adjusted_ce": {}}])
    network = built(run, name).build()
    first, second, third = network.networks
    assert network.shared_depth == 2 and first.blocks[1] is second.blocks[1] and first.blocks[2] is not third.blocks[2]
    assert torch.equal(first.blocks[2].mlp.fc1.weight, third.blocks[2].mlp.fc1.weight)
    assert not torch.allclose(first.head.weight, second.head.weight) and first.head.weight.undecayed
    torch.testing.assert_close(network(torch.zeros(2, 1, 28, 28)).shape, torch.Size([2, 3, 10]))


@pytest.mark.parametrize("depth, shared", [(1, 0), (2, 1), (4, 3), (6, 4), (12, 9)])
def test_where_experts_part_by_default(opened, depth, shared):
    assert built(opened(["sade"], {"model.depth": depth, "selection.shared_depth": 0}), "sade").build().shared_depth == shared


def test_a_shared_depth_there_is_not_is_one_line(opened, refused, params):
    with pytest.raises(UserError, match=r"baselines.ride.shared_depth: the model has 3 blocks, got 4"):
        built(opened([{"ride": {"shared_depth": 4}}]), "ride").build()
    assert built(opened([{"ride": {"shared_depth": 0, "experts": 2}}]), "ride").build().shared_depth == 0
    assert "diversity" in refused("split", params({"baselines": [{"ride": {"diversity": -0.2}}]}))


def test_experts_cost_by_the_depth_they_share(params):
    model = {"model.width": 48, "model.depth": 4, "model.heads": 3}
    config = load_config(params({"baselines": ["ce", {"sade": {}}, {"ride": {"experts": 4}}], **model}))
    cost = {}
    for name, (_, parameters) in methods.asked(config).items():
        one = steps_of(config.model_copy(update={"baselines": {name: parameters.model_dump()}}), 10)[-1]
        cost[name] = one.flops
    assert cost["sade"] / cost["ce"] == pytest.approx((3 + 3) / 4, rel=0.03)
    assert cost["ride"] / cost["ce"] == pytest.approx((3 + 4) / 4, rel=0.03)


# ensemble -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(opened):
    """Two networks of logit-adjusted cross-entropy, and one."""
    run = opened(["logit_adjusted_ce", "ensemble"])
    execute(run, "baselines")
    return run


def test_the_first_of_an_ensemble_is_the_method_and_the_others_are_others(pair):
    both, one = pair.read("baselines/ensemble", "network"), pair.read("baselines/logit_adjusted_ce", "network")
    for name, tensor in one.items():
        assert torch.equal(both[f"0.{name}"], tensor)
    start = built(pair, "ensemble").build()
    assert torch.equal(start["0"].blocks[0].mlp.fc1.weight, start["1"].blocks[0].mlp.fc1.weight)
    assert not torch.allclose(start["0"].head.weight, start["1"].head.weight)
    assert start["0"].head.weight.std().item() == pytest.approx(start["1"].head.weight.std().item(), rel=0.2)
    assert not torch.equal(both["0.blocks.2.mlp.fc1.weight"], both["1.blocks.2.mlp.fc1.weight"])
    curves = pair.artifact("baselines/ensemble").table("curves")
    assert curves["phase"].tolist() == ["training_1"] * 2 + ["training_2"] * 2


def test_an_ensembles_scores_are_the_mean_of_its_members(pair):
    row = pair.methods["ensemble"]
    network = row.network(pair.read).eval()
    images = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(row.scores(network, images), (network["0"](images) + network["1"](images)) / 2)
    assert row.title == "2 networks, scores averaged, of: logit-adjusted cross-entropy" and row.prior == "adjusted"


def test_a_member_learns_from_other_batches_while_the_others_stay(pair):
    of = built(pair, "ensemble")
    network, (first, second) = of.build(), of.phases()
    assert (first.draw, second.draw) == (0, 1)
    for phase, number in ((first, "0"), (second, "1")):
        phase.prepared(network)
        assert {n.split(".")[0] for n, p in network.named_parameters() if p.requires_grad} == {number}
    orders = [next(pair.batches(pair.train, draw=d).epoch(0)).__next__().indices.tolist() for d in (0, 1)]
    assert orders[0] != orders[1]


def test_an_ensemble_of_experts_goes_on_bit_for_bit_in_its_second_network(opened, stop_after):
    asked = [{"ensemble": {"of": "ride", "networks": 3, "parameters": {"experts": 2}}}]
    whole, stopped = opened(asked), opened(asked)
    execute(whole, "baselines")
    stop_after(3)  # within the first, at its end, within the second
    with pytest.raises(KeyboardInterrupt):
        execute(stopped, "baselines")
    execute(Run(stopped.config), "baselines")
    for file in ("network.safetensors", "curves.csv", "predictor.json"):
        left, right = (run.folder / "baselines" / "ensemble" / file for run in (whole, stopped))
        assert left.read_bytes() == right.read_bytes()
    heads = [t for n, t in whole.read("baselines/ensemble", "network").items() if n.endswith("head.weight")]
    assert len(heads) == 6 and all(not torch.allclose(a, b) for i, a in enumerate(heads) for b in heads[:i])


@pytest.mark.parametrize(
    "values, words",
    [
        ({"of": "ensemble"}, "baselines.ensemble.of: 'ensemble'"),
        ({"of": "mine.py"}, "name another method that lies in methods/"),
        ({"of": "rid"}, "did you mean 'ride'"),
        ({"networks": 1}, "baselines.ensemble: networks"),
        ({"of": "ride", "parameters": {"expert": 2}}, "unknown key 'expert'; did you mean 'experts'?"),
        ({"network": 3}, "did you mean 'networks'"),
    ],
    ids=str,
)
def test_what_an_ensemble_cannot_be_of_is_one_line(params, refused, values, words):
    assert words in refused("split", params({"baselines": [{"ensemble": values}]}))


def test_a_method_that_stands_on_another_or_is_coupled_is_no_ensembles(opened, params, refused, monkeypatch):
    monkeypatch.setattr(methods.load("sade"), "after", "ce")
    line = refused("split", params({"baselines": [{"ensemble": {"of": "sade"}}]}))
    assert "'sade' starts from ce's one network" in line
    monkeypatch.undo()
    of = built(opened([{"ensemble": {"of": "sade"}}]), "ensemble")
    coupled = dataclasses.replace(of.inner.phases()[0], coupled=True)
    monkeypatch.setattr(of.inner, "phases", lambda: [coupled])
    with pytest.raises(UserError, match="cost what they do together"):
        of.phases()


def test_an_ensembles_parameters_are_filled_in_and_its_key_says_them(opened):
    run = opened([{"ensemble": {"of": "ride", "parameters": {"margin": 0.3}}}])
    known = run.artifact("baselines/ensemble").parameters["parameters"]
    assert known["parameters"] == methods.load("ride").Parameters(margin=0.3).model_dump()


# DeiT-LT style --------------------------------------------------------------------------------------------------


def test_the_teachers_term_costs_what_was_worked_out():
    told = torch.tensor([1, 2])
    label = ce(Z1, LABELS)
    close((label + ce(Z2, told)) / 2, [0.42272095099694273, 0.6900348394220865])
    close((label.mean() + from_teacher(Z2, told, None)) / 2, (0.42272095099694273 + 0.6900348394220865) / 2)
    weighted = from_teacher(Z2, told, effective_weights(COUNTS))
    close(weighted, 0.6910992313003779)
    close((label.mean() + weighted) / 2, 0.5759448574749119)
    close(from_teacher(Z2, told, effective_weights([5, 5, 5])), from_teacher(Z2, told, None))


def test_the_student_learns_from_the_teachers_label_and_weighs_by_it_late(opened):
    run = opened([{"deit_lt_style": {"weights_from": 0.5, "teacher_weights_from": 0.5}}], {"recipe.mixup": 0.8})
    of = built(run, "deit_lt_style")
    network, (first, second) = of.build(), of.phases()
    first.prepared(network)
    assert {n.split(".")[0] for n, p in network.named_parameters() if p.requires_grad} == {"teacher"}
    second.prepared(network).eval()
    assert {n.split(".")[0] for n, p in network.named_parameters() if p.requires_grad} == {"vit", "second"}
    assert second.coupled and not first.coupled
    late = effective_weights(run.class_counts)
    assert first.class_weights(0) is None and torch.equal(first.class_weights(1), late)
    batches = run.batches(run.train, recipe=run.config.recipe, unmixed_from=second.unmixed_from)
    for epoch, weights in ((0, None), (1, late)):
        (part,) = next(batches.epoch(epoch))
        assert part.labels.ndim == 2 - epoch  # mixed, and then no more
        with torch.no_grad():
            found, (label, other), told = second.losses(network, part), network(part.images), network.teacher(part.images)
        torch.testing.assert_close(found["label"], F.cross_entropy(label, part.labels) / 2)
        torch.testing.assert_close(found["teacher"], from_teacher(other, told.argmax(1), weights) / 2)
        torch.testing.assert_close(of.scores(network, part.images), (label + other) / 2)


@pytest.mark.parametrize("pooling", ["avg", "token"])
def test_both_heads_read_pooled_features_whichever_way(opened, pooling):
    run = opened(["deit_lt_style"], {"model.class_token": True, "model.pooling": pooling})
    network = built(run, "deit_lt_style").build().eval()
    one, two = network(torch.zeros(2, 1, 28, 28))
    assert one.shape == two.shape == (2, 10) and not torch.allclose(one, two)
    torch.testing.assert_close(one, network.vit(torch.zeros(2, 1, 28, 28)))


def test_the_teacher_begins_alike_each_time_and_shrinks_large_images(opened):
    run = opened(["deit_lt_style"])
    left, right = (built(run, "deit_lt_style").build().teacher.state_dict() for _ in range(2))
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert Teacher(3, 224, 5, 8, 1, 30.0)[0](torch.zeros(1, 3, 224, 224)).shape == (1, 8, 56, 56)
    assert Teacher(3, 224, 5, 8, 1, 30.0)(torch.zeros(2, 3, 224, 224)).shape == (2, 5)


def test_an_epoch_that_is_unmixed_sees_the_same_images_in_the_same_order(opened):
    run = opened(["ce"], {"recipe.cutmix": 1.0})
    plain = run.batches(run.train, recipe=run.config.recipe.model_copy(update={"cutmix": 0.0}))
    mixed, late = run.batches(run.train), run.batches(run.train, unmixed_from=1)
    for epoch, like in ((0, mixed), (1, plain), (2, plain)):
        (found,), (expected,) = (next(b.epoch(epoch)) for b in (late, like))
        assert torch.equal(found.images, expected.images) and torch.equal(found.labels, expected.labels)


@pytest.mark.parametrize("name", ["ride", "sade", "ensemble", "deit_lt_style"])
def test_it_is_planned_without_a_value_being_known(params, name):
    config = load_config(params({"baselines": [name]}))
    for step in steps_of(config, 10):  # in the plan's order: torch swaps a shared weight once its shape has been seen
        row = memory_of(step, config, 4, None)
        assert row["gradients"] > 0 and row["activations of 4 images"] > 0
