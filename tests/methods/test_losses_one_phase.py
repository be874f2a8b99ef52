"""Losses of one training against values worked out by hand, and what each becomes where its own part is taken away."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from osdtw_lib import methods
from osdtw_lib.backend import distributed
from osdtw_lib.config.load import load_config
from osdtw_lib.data.batches import Part
from osdtw_lib.data.sampling import POWERS
from osdtw_lib.methods import _parts
from osdtw_lib.methods._base import Problem
from osdtw_lib.methods._contrast import parametric_contrast
from osdtw_lib.methods._parts import ldam, margins
from osdtw_lib.methods.bbn import bilateral, share_of
from osdtw_lib.methods.class_balanced import sigmoid_focal
from osdtw_lib.methods.focal import focal
from osdtw_lib.methods.lade import disentangled
from osdtw_lib.methods.posthoc_logit_adjustment import adjusted
from osdtw_lib.models.vit import build_vit, decode, encode
from osdtw_lib.planning.steps import Step, steps_of
from osdtw_lib.training.phase import Phase, hard, means

HERE = "focal class_balanced ldam_drw class_sampling root_sampling mixup lade paco gpaco bbn".split()


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


COUNTS = np.array([100, 10, 1])
PRIORS = tensor([100 / 111, 10 / 111, 1 / 111])
Z = tensor([[2.0, 0.5, -1.0], [0.2, -0.3, 0.7]])
Y, OTHER, SHARE = torch.tensor([0, 2]), torch.tensor([2, 0]), 0.7
COSINES = tensor([[0.60, 0.20, -0.10], [0.10, -0.05, 0.30]])
SECOND = tensor([[1.0, 1.5, 0.0], [-0.4, 0.6, 0.9]])  # scores of another branch or view
ANCHORS, KEYS, QUEUE = tensor([[0.6, 0.8], [0.0, 1.0]]), tensor([[0.8, 0.6], [-0.6, 0.8]]), tensor([[1.0, 0.0], [0.0, -1.0]])
QUEUE_LABELS = torch.tensor([0, 1])


def ce(scores, labels):
    return F.cross_entropy(scores, labels, reduction="none")


def close(found, expected):
    torch.testing.assert_close(found, tensor(expected), rtol=1e-6, atol=0)


def mixed_part(number=0, epoch=0):
    """Two images that are mixed with each other, 0.7 of their own."""
    labels = SHARE * F.one_hot(Y, 3).double() + (1 - SHARE) * F.one_hot(OTHER, 3).double()
    return Part(torch.zeros(2, 1, 2, 2), labels, 1.0, number, epoch, own=Y, batch=Y)


def plain_part():
    return Part(torch.zeros(2, 1, 2, 2), Y, 1.0, 0, own=Y, batch=Y)


def weighted(part, loss, weights):
    """What the loop minimises of a loss with class weights."""
    phase = Phase(None, lambda network, part: {"loss": hard(part, loss, weights)}, class_weights=lambda epoch: weights)
    return means(phase, None, part)["loss"]


@pytest.fixture
def made(params):
    """made("ldam_drw", {"margin": 0.3}, counts) -> the method over the tiny network, for ten classes."""
    config = load_config(params({"recipe.drop_path": 0.0}))

    def vit(outputs):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            return build_vit(config.model, outputs)

    def make(name, parameters=None, counts=tuple(range(40, 0, -4))):
        kind = methods.load(name)
        problem = Problem(config, tuple("abcdefghij"), np.array(counts), vit)
        return kind(problem, kind.Parameters.model_validate(parameters or {}))

    return make


def images(n=6, seed=0):
    return torch.randn(n, 1, 28, 28, generator=torch.Generator().manual_seed(seed)), torch.arange(n) % 3


def loss_of(of, network, part):
    (phase,) = of.phases()
    return sum(means(phase, network, part).values())


# values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "gamma, expected", [(1.0, [0.05173785759040147, 0.3357264218318079]), (2.0, [0.011092750091379824, 0.16568757241471838])]
)
def test_focal(gamma, expected):
    close(focal(Z, Y, gamma), expected)


def test_focal_of_a_mixed_image_counts_both_labels():
    close(hard(mixed_part(), lambda y: focal(Z, y, 2.0)), [0.9055802596878288, 0.2859321808766769])


def test_effective_weights():
    expected = tensor([0.027158721622260334, 0.2703688739931705, 2.7024724043845696])
    torch.testing.assert_close(_parts.effective_weights(COUNTS, 0.9999).double(), expected, rtol=1e-6, atol=0)
    expected = tensor([0.2393292360088335, 0.3674419730958617, 2.3932287908953045])
    torch.testing.assert_close(_parts.effective_weights(COUNTS, 0.9).double(), expected, rtol=1e-6, atol=0)
    assert _parts.effective_weights(COUNTS, 0.0).tolist() == [1, 1, 1]  # no image has anything of another


def test_class_balanced_over_the_batch():
    weights = tensor([0.027158721622260334, 0.2703688739931705, 2.7024724043845696])
    close(weighted(plain_part(), lambda y: ce(Z, y), weights), 0.6759022130137704)
    close(weighted(mixed_part(), lambda y: ce(Z, y), weights), 1.4393729798543107)
    close(weighted(plain_part(), lambda y: focal(Z, y, 2.0), weights), 0.16414941668967561)
    close(sigmoid_focal(Z, Y, 1.0), [0.7057025414165607, 0.8085359687022247])
    close(weighted(plain_part(), lambda y: sigmoid_focal(Z, y, 1.0), weights), 0.8075128178455008)


def test_ldam():
    m = margins(COUNTS, 0.5)
    close(m, [0.15811388300841897, 0.28117066259517454, 0.5])
    close(margins(COUNTS, 0.3), [0.09486832980505137, 0.16870239755710473, 0.3])
    close(ldam(30 * COSINES, Y, m, 30.0), [0.000705352553286076, 9.011169791308271])
    close(hard(mixed_part(), lambda y: ldam(30 * COSINES, y, m, 30.0)), [10.800495590045346, 9.530858537682452])
    weights = tensor([0.027158721622260334, 0.2703688739931705, 2.7024724043845696])
    close(weighted(plain_part(), lambda y: ldam(30 * COSINES, y, m, 30.0), weights), 8.921519327900269)
    close(weighted(mixed_part(), lambda y: ldam(30 * COSINES, y, m, 30.0), weights), 16.969677675135085)


def test_posthoc_adjustment():
    expected = [
        [2.1043600153242425, 2.9069451083182885, 3.709530201312334],
        [0.3043600153242428, 2.1069451083182886, 5.409530201312334],
    ]
    close(adjusted(Z, PRIORS, 1.0), expected)
    assert torch.equal(adjusted(Z, PRIORS, 0.0), Z)


def test_lade():
    added = disentangled(Z, Y, PRIORS, 0.1)
    close(added, -1.1683246975491643)
    close(ce(Z + PRIORS.log(), Y).mean() + 0.1 * added, 1.9841847470165765)


def test_paco():
    keys, labels = torch.cat([KEYS, QUEUE]), torch.cat([Y, QUEUE_LABELS])
    found = parametric_contrast(Z + PRIORS.log(), ANCHORS, Y, keys, labels, 0.05, 0.2)
    close(found, [3.2552326714291837, 8.50693164050533])
    unseen, none = torch.cat([keys, torch.ones(5, 2).double()]), torch.cat([labels, torch.full((5,), -1)])
    close(parametric_contrast(Z + PRIORS.log(), ANCHORS, Y, unseen, none, 0.05, 0.2), [3.2552326714291837, 8.50693164050533])


def test_gpaco():
    a = PRIORS.log()
    close(parametric_contrast(Z + a, ANCHORS, Y, QUEUE, QUEUE_LABELS, 0.05, 0.2), [2.4525052216341154, 8.04889268837632])
    two = parametric_contrast(torch.cat([Z, SECOND]) + a, torch.cat([ANCHORS, KEYS]), Y.repeat(2), QUEUE, QUEUE_LABELS, 0.05, 0.2)
    close(two, [3.2552326714291837, 8.50693164050533, 4.084626852821954, 7.540483747053962])


def test_bbn():
    close(tensor([share_of(epoch, 40) for epoch in (0, 20, 39)]), [1.0, 0.75, 0.04937500000000006])
    scores = 2 * (0.75 * Z + 0.25 * SECOND)
    close(bilateral(scores, Y, torch.tensor([1, 2]), 0.75), [0.6328452337275756, 0.36370299998787314])
    reversed_shares = COUNTS ** POWERS["reversed"] / (COUNTS ** POWERS["reversed"]).sum()
    np.testing.assert_allclose(reversed_shares, [0.009009009009009009, 0.09009009009009009, 0.9009009009009009])


# with its own part taken away -----------------------------------------------------------------------------------


def test_each_is_cross_entropy_again():
    close(focal(Z, Y, 0.0), ce(Z, Y).tolist())
    close(ldam(30 * COSINES, Y, margins(COUNTS, 0.0), 30.0), ce(30 * COSINES, Y).tolist())
    nothing = Z[:0, :2]
    alone = [parametric_contrast(Z[i : i + 1], ANCHORS[i : i + 1], Y[i : i + 1], nothing, Y[:0], 0.0, 0.2) for i in range(2)]
    close(torch.cat(alone), ce(Z, Y).tolist())
    close(bilateral(Z, Y, OTHER, 1.0), ce(Z, Y).tolist())


def test_lade_without_its_bound_is_the_balanced_softmax(made):
    network = made("lade").build().eval()
    part = made("lade").phases()[0].part_of(*images())
    found = loss_of(made("lade", {"alpha": 0.0}), network, part)
    torch.testing.assert_close(found, loss_of(made("logit_adjusted_ce"), network, part), rtol=1e-5, atol=0)
    assert loss_of(made("lade"), network, part) != found


def test_of_equal_counts_nothing_is_corrected(made):
    equal = [7] * 10
    part = made("ce").phases()[0].part_of(*images())
    network = made("ce").build().eval()
    reference = loss_of(made("ce"), network, part)
    torch.testing.assert_close(loss_of(made("class_balanced", counts=equal), network, part), reference)
    for epoch in (0, 1):
        weights = made("ldam_drw", counts=equal).class_weights(epoch)
        assert weights is None or torch.allclose(weights, torch.ones(10))
    assert len(set(margins(equal, 0.5).tolist())) == 1
    scores = made("posthoc_logit_adjustment", counts=equal).scores(network, part.images)
    torch.testing.assert_close(scores.softmax(1), network(part.images).softmax(1))


@pytest.mark.parametrize("name", ["class_sampling", "root_sampling", "mixup"])
def test_beside_its_images_it_is_cross_entropy(made, name):
    network, (x, _) = made("ce").build().eval(), images(2)
    for part in (plain_part(), mixed_part()):
        labels = F.pad(part.labels.float(), (0, 7)) if part.labels.ndim == 2 else part.labels
        part = Part(**{**vars(part), "images": x, "labels": labels})
        torch.testing.assert_close(loss_of(made(name), network, part), loss_of(made("ce"), network, part))


@pytest.mark.parametrize("base", ["cross_entropy", "focal"])
def test_each_label_of_a_mixed_image_has_its_own_weight(made, base):
    of, (x, _) = made("class_balanced", {"base": base, "gamma": 0.5}), images(2)
    network, w = of.build().eval(), _parts.effective_weights(of.problem.class_counts)
    part = Part(**{**vars(mixed_part()), "images": x, "labels": F.pad(mixed_part().labels.float(), (0, 7))})
    z = network(x)
    first, second = (sigmoid_focal(z, y, 0.5) if base == "focal" else ce(z, y) for y in (Y, OTHER))
    expected = (SHARE * w[Y] * first + (1 - SHARE) * w[OTHER] * second).sum() / w[Y].sum()
    torch.testing.assert_close(loss_of(of, network, part), expected)


def test_lade_adds_its_bound(made):
    of = made("lade", {"alpha": 0.3, "decay": 0.2})
    network, part = of.build().eval(), of.phases()[0].part_of(*images())
    z, prior = network(part.images), torch.as_tensor(of.problem.priors).float()
    expected = ce(z + prior.log(), part.labels).mean() + 0.3 * disentangled(z, part.labels, prior, 0.2)
    torch.testing.assert_close(loss_of(of, network, part), expected)


def test_paco_compares_with_keys_of_the_other_view_and_the_queue(made):
    of = made("paco", {"queue": 8, "size": 4, "alpha": 0.3, "temperature": 0.5})
    (phase,) = of.phases()
    network = of.build().eval()
    one = phase.part_of(*images())
    part = Part(**{**vars(one), "more": (Part(images(seed=1)[0], one.labels, 1.0, 0),)})
    loss_of(of, network, one)
    phase.after_step(network)
    scores, anchors = network(part.images)
    keys, labels = torch.cat([network.keys(part.more[0].images), network.queue]), torch.cat([one.labels, network.queue_labels])
    prior = torch.as_tensor(of.problem.priors).log().float()
    expected = parametric_contrast(scores + prior, anchors, one.labels, keys, labels, 0.3, 0.5).mean()
    torch.testing.assert_close(loss_of(of, network, part), expected)
    assert (network.queue_labels >= 0).sum() == 6


# numbers that are hard to hold ----------------------------------------------------------------------------------

LOSSES = {
    "focal": lambda z: focal(z, Y, 2.0),
    "focal, gamma below 1": lambda z: focal(z, Y, 0.5),
    "sigmoid focal": lambda z: sigmoid_focal(z, Y, 0.5),
    "ldam": lambda z: ldam(z, Y, margins(COUNTS, 0.5), 30.0),
    "lade": lambda z: disentangled(z, Y, PRIORS.to(z), 0.1),
    "contrast": lambda z: parametric_contrast(z, ANCHORS.to(z), Y, KEYS.to(z), Y, 0.05, 0.2),
    "bbn": lambda z: bilateral(z, Y, OTHER, 0.25),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_gradients_are_those_of_the_values(loss):
    assert torch.autograd.gradcheck(loss, Z.clone().requires_grad_())


@pytest.mark.parametrize("size", [1.0, -1.0])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_it_is_finite_where_scores_are_far_apart(loss, size):
    z = (size * 1e4 * tensor([[1.0, -1.0, 0.0], [0.5, -1.0, 1.0]])).float().requires_grad_()
    value = loss(z).sum()
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(z.grad).all()


def test_projections_have_a_gradient():
    def of(anchors):
        return parametric_contrast(Z, F.normalize(anchors), Y, KEYS, Y, 0.05, 0.2)

    assert torch.autograd.gradcheck(of, ANCHORS.clone().requires_grad_())


@pytest.mark.parametrize("name", HERE)
def test_losses_are_single_precision_under_bf16(made, name):
    of = made(name)
    (phase,) = of.phases()
    network = phase.prepared(of.build())
    part = phase.part_of(*images())
    with torch.autocast("cpu", torch.bfloat16):
        found = means(phase, network.eval(), part)
        assert of.scores(network, part.images).dtype == torch.float32
    assert all(loss.dtype == torch.float32 and torch.isfinite(loss) for loss in found.values())


def test_a_cosine_is_not_rounded_under_bf16(made):
    network = made("ldam_drw").build().eval()
    found = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = network.head(found)
    assert torch.equal(rounded, network.head(found)) and rounded.abs().max() <= 30


# networks and phases --------------------------------------------------------------------------------------------


def test_deferred_weights_come_with_the_last_fifth(made):
    of = made("ldam_drw")
    epochs = of.problem.length.epochs
    assert [of.class_weights(e) is None for e in range(epochs)] == [e < math.ceil(0.8 * epochs) for e in range(epochs)]
    assert [math.ceil(0.8 * e) for e in (40, 100, 200, 30)] == [
        next(at for at in range(e) if _parts.is_late(at, e)) for e in (40, 100, 200, 30)
    ]
    assert made("ldam_drw", {"weights_from": 0.0}).class_weights(0).argmax() == 9


def test_the_sigmoid_form_begins_at_answers_of_one_in_k(made):
    head = made("class_balanced", {"base": "focal"}).build().head
    torch.testing.assert_close(head.bias.sigmoid(), torch.full((10,), 0.1))
    assert not made("class_balanced").build().head.bias.any()


def test_mixup_is_all_its_mixing_and_two_sample_otherwise(made):
    (phase,) = made("mixup", {"alpha": 1.0}).phases()
    assert phase.recipe == {"mixup": 1.0, "cutmix": 0.0}
    assert [made(f"{s}_sampling").phases()[0].sampling for s in ("class", "root")] == ["classes", "root"]
    assert made("class_sampling").phases()[0].recipe == {}


def test_bbn_shares_all_but_the_last_depth_and_halves_at_test(made):
    of = made("bbn")
    network = of.build().eval()
    first, second = network.networks
    assert first.blocks[1] is second.blocks[1] and first.blocks[2] is not second.blocks[2]
    assert first.patch_embed is second.patch_embed and not torch.equal(first.head.weight, second.head.weight)
    x, y = images(4), images(4, seed=1)
    with torch.no_grad():
        network.bias.normal_()
        branches = [decode(n, encode(first, i, 2), 2) for n, i in ((first, x[0]), (second, y[0]), (second, x[0]))]
        torch.testing.assert_close(of.scores(network, x[0]), branches[0] + branches[2] + network.bias)
        torch.testing.assert_close(network(x[0], y[0], 0.75), 1.5 * branches[0] + 0.5 * branches[1] + network.bias)
        part = Part(*x, 1.0, 0, own=x[1], batch=x[1], more=(Part(*y, 1.0, 0),))
        torch.testing.assert_close(loss_of(of, network, part), F.cross_entropy(2 * branches[0] + network.bias, x[1]))


@pytest.mark.parametrize("name, parameters", [("paco", {}), ("gpaco", {}), ("gpaco", {"views": 2})])
def test_the_queue_holds_what_was_seen_the_newest_first(made, name, parameters):
    of = made(name, {"queue": 10, "size": 4} | parameters)
    (phase,) = of.phases()
    network = of.build().eval()
    assert network.queue_labels.tolist() == [-1] * 10
    seen = [[images(3, seed=2 * step + number) for number in (0, 1)] for step in range(3)]
    loss_of(of, network, phase.part_of(*images(5, seed=9)))  # a step that never was: what is counted before a training
    for step in seen:
        for number, (x, y) in enumerate(step):
            part = phase.part_of(x, y + number)
            loss_of(of, network, Part(**{**vars(part), "number": number})).backward()
        assert network.queue_labels.tolist() != (y + number).tolist()
        phase.after_step(network)
    y = [0, 1, 2, 1, 2, 3]
    assert network.queue_labels.tolist() == (y + y)[:10] and not network.fresh
    torch.testing.assert_close(network.queue.norm(dim=1), torch.ones(10))
    with torch.no_grad():
        found = network.keys(seen[2][1][0]) if name == "paco" else network(seen[2][1][0])[1]
    torch.testing.assert_close(network.queue[3:6], found)
    kept = {n for n, _ in network.named_buffers()} & network.state_dict().keys()
    assert kept == {"queue", "queue_labels"}


def test_the_moving_average_follows_and_is_not_trained(made):
    of = made("paco", {"average": 0.9, "queue": 8, "size": 4})
    (phase,) = of.phases()
    network = of.build()
    assert not any(p.requires_grad for p in network.slow.parameters())
    before, part = copy.deepcopy(network.slow), phase.part_of(*images())
    assert torch.equal(before["projector"][0].weight, network.projector[0].weight)
    loss_of(of, network, part).backward()
    with torch.no_grad():
        for p in network.projector.parameters():
            p.add_(1.0)
    phase.after_step(network)
    torch.testing.assert_close(network.slow["projector"][0].weight, before["projector"][0].weight + 0.1)
    assert network.vit.blocks[0].attn.qkv.weight.grad.any() and network.projector[0].weight.grad.any()


def test_two_views_are_each_anchor_and_key(made):
    of = made("gpaco", {"views": 2, "queue": 8, "size": 4})
    (phase,) = of.phases()
    assert phase.streams == ("again",) and phase.coupled and made("gpaco").phases()[0].streams == ()
    network = of.build().eval()
    (x, y), (again, _) = images(), images(seed=1)
    one = phase.part_of(x, y)
    part = Part(**{**vars(one), "more": (Part(again, y, 1.0, 0),)})
    scores, anchors = network(torch.cat([x, again]))
    prior = torch.as_tensor(of.problem.priors).log().float()
    each = parametric_contrast(scores + prior, anchors, y.repeat(2), anchors[:0], y[:0], 0.05, 0.2)
    torch.testing.assert_close(loss_of(of, network, part), each.mean())


def test_what_a_method_draws_does_not_depend_on_what_was_drawn_before(made):
    for name in ("paco", "gpaco", "bbn"):
        torch.manual_seed(1)
        first, after = made(name).build().state_dict(), torch.rand(1)
        torch.manual_seed(1)
        assert torch.equal(torch.rand(1), after), name
        second = made(name).build().state_dict()
        assert all(torch.equal(first[n], second[n]) for n in first), name


@pytest.mark.parametrize(
    "name, parameters",
    [
        ("focal", {"gamma": -1.0}),
        ("class_balanced", {"beta": 1.0}),
        ("class_balanced", {"base": "hinge"}),
        ("ldam_drw", {"scale": 0.0}),
        ("ldam_drw", {"weights_from": 1.5}),
        ("posthoc_logit_adjustment", {"tau": float("nan")}),
        ("mixup", {"alpha": -0.1}),
        ("lade", {"lambda": 0.1}),
        ("paco", {"queue": 0}),
        ("paco", {"average": 1.0}),
        ("gpaco", {"views": 3}),
        ("gpaco", {"temperature": 0.0}),
        ("bbn", {"depth": 2}),
    ],
    ids=str,
)
def test_parameters_that_are_none_are_refused(made, name, parameters):
    with pytest.raises(ValueError):
        made(name, parameters)


def test_what_a_step_costs_is_counted_over_every_view_and_stream(made):
    def cost(name, parameters=None):
        of = made(name, parameters)
        (phase,) = of.phases()
        return Step(name, 1, of.build, phase).flops / plain

    plain, small = 1.0, {"queue": 8, "size": 4}
    plain = cost("ce")
    assert all(cost(name) == 1 for name in HERE[:7])
    assert cost("bbn") == pytest.approx(2, rel=0.05)
    one, two, average = cost("gpaco", small), cost("gpaco", small | {"views": 2}), cost("paco", small)
    assert 1 < one < 1.2 and two == pytest.approx(2 * one, rel=0.05) and average == pytest.approx(4 / 3 * one, rel=0.05)


def test_the_plan_names_each_training(params):
    config = load_config(params({"baselines": [*HERE, "posthoc_logit_adjustment"], "model.init": "scratch"}))
    steps = [step for step in steps_of(config, 10) if step.name.startswith("baselines")]
    assert sum(step.epochs for step in steps) == config.stage2.epochs * (len(HERE) + 1)  # and cross-entropy


def test_several_processes_are_refused_where_a_loss_is_of_the_part(params, refused):
    path = params({"baselines": ["ce", "lade", "paco", "gpaco"], "workers": 2, "device": "cpu"})
    assert "lade, paco, gpaco" in refused("baselines", path)


def test_so_they_are_under_torchrun_where_workers_says_nothing(params, refused, monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    assert "paco" in refused("baselines", params({"baselines": ["paco"], "workers": 1, "device": "cpu"}))
