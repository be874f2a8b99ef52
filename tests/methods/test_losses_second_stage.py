"""Second stages by hand: rules and losses at three classes of 100, 10 and 1 images, and what each comes down to."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from osdtw_lib.config.load import load_config
from osdtw_lib.config.schema import Recipe, Training
from osdtw_lib.methods import crt, disalign, gcl, lws, mislas, tau_norm, weight_balancing
from osdtw_lib.methods._base import Problem
from osdtw_lib.methods._parts import CosineHead, features
from osdtw_lib.methods._second_stage import ScaledHead, cross_entropy, second_stage
from osdtw_lib.models.vit import build_vit
from osdtw_lib.models.weights import weights
from osdtw_lib.stages import execute
from osdtw_lib.stages.run import Run
from osdtw_lib.training.optimizer import parameter_groups
from osdtw_lib.training.phase import _mean

COUNTS = np.array([100, 10, 1])
LABELS = torch.tensor([0, 2])


def double(values):
    return torch.tensor(values, dtype=torch.float64)


Z = double([[2.0, 0.5, -1.0], [0.2, -0.3, 0.7]])
COSINES = double([[0.60, 0.20, -0.10], [0.10, -0.05, 0.30]])
NOISE = double([[0.10, -0.30, 0.50], [-0.20, 0.40, -1.20]])
WEIGHT = double([[0.5, 0.1, 0.7, -0.3], [0.2, 0.4, 0.1, 0.3], [-0.1, 0.3, -0.2, 0.1]])
FEATURES = double([[1.0, 0.0, 2.0, -1.0], [0.5, 1.0, -0.5, 1.0]])


def near(found, expected):
    assert_close(found, double(expected), rtol=1e-6, atol=1e-12)


@pytest.fixture
def problem(params):
    """Three classes of 100, 10 and 1 images, the tiny network."""

    def of(counts=COUNTS, changes=None):
        config = load_config(params(changes))

        def vit(outputs):
            torch.manual_seed(0)
            return build_vit(config.model, outputs)

        return Problem(config, tuple("abc"), np.asarray(counts), vit)

    return of


# rules and losses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tau, expected",
    [
        (0.0, [[2.2, 0.1, -0.6], [-0.3, 0.75, 0.45]]),
        (
            0.7,
            [
                [2.3384329975122355, 0.15240792870188324, -1.1655187712882094],
                [-0.31887722693348663, 1.1430594652641237, 0.8741391534661569],
            ],
        ),
        (
            1.0,
            [
                [2.4003967925959158, 0.18257418583505536, -1.549193338482967],
                [-0.32732683535398854, 1.369306393762915, 1.161895003862225],
            ],
        ),
    ],
)
def test_tau_normalised_scores(tau, expected):
    near(FEATURES @ tau_norm.normalised(WEIGHT, tau).T, expected)


def test_scales_times_the_scores_of_a_linear_head():
    linear = nn.Linear(3, 3).double()
    head = ScaledHead(linear)
    assert_close(head(Z), linear(Z))  # at first its own
    with torch.no_grad():
        linear.weight.copy_(torch.eye(3)), linear.bias.zero_(), head.scale.copy_(double([0.8, 1.0, 1.3]))
    near(head(Z), [[1.6, 0.5, -1.3], [0.16, -0.3, 0.91]])
    near(cross_entropy(head(Z), LABELS), [0.3277877091522612, 0.5712980451087952])


def test_disalign_weights_scores_and_loss():
    weights = disalign.rarity_weights(COUNTS / 111, 1.2)
    near(weights, [0.011192460606145224, 0.1773885462156875, 2.811418993178167])
    scores = disalign.aligned(Z, double([0.9, 1.1, 1.5]), double([-0.2, 0.0, 0.4]), double([[0.25], [0.75]]))
    near(scores, [[1.9, 0.5125, -1.025], [0.035, -0.3225, 1.2625]])
    each = cross_entropy(scores, LABELS)
    near(each, [0.2649482030788355, 0.404112204291583])
    near((weights[LABELS] * each).sum() / weights[LABELS].sum(), 0.4035603792788704)


def test_disalign_starts_from_the_scores_it_is_given():
    linear = nn.Linear(4, 3)
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert_close(disalign.AlignedHead(linear)(x), linear(x))


@pytest.mark.parametrize(
    "head, tail, smooth, each",
    [
        (0.3, 0.0, [0.3, 0.04269445148198554, 0.0], [0.6913112966571571, 0.6802696706417346]),
        (0.4, 0.1, [0.4, 0.14269445148198556, 0.1], [0.8413112966571572, 0.7302696706417346]),
    ],
)
def test_label_aware_smoothing(head, tail, smooth, each):
    near(mislas.smoothing(COUNTS, head, tail), smooth)
    near(mislas.label_aware(Z, LABELS, mislas.smoothing(COUNTS, head, tail)), each)


def test_label_aware_smoothing_without_any_is_cross_entropy_and_of_equal_classes_the_heads():
    near(mislas.label_aware(Z, LABELS, mislas.smoothing(COUNTS, 0.0, 0.0)), [0.24131129665715711, 0.6802696706417346])
    near(mislas.smoothing([7, 7, 7], 0.3, 0.1), [0.3, 0.3, 0.3])


def test_clouds_and_the_losses_of_both_stages():
    cloud = torch.from_numpy(gcl.cloud_sizes(COUNTS))
    near(cloud, [0.0, 0.5, 1.0])
    first = [gcl.clouded(COSINES, LABELS, NOISE, mu * cloud, 30.0) for mu in (0.5, 1.0)]
    near(first[0], [6.475954279494545e-07, 9.000676265455196])
    near(first[1], [6.825603193760799e-08, 24.00002753610798])
    near(gcl.clouded(COSINES, LABELS, NOISE, 0.5 * cloud, 20.0, 0.1, 1.0), [3.0569444673208466e-07, 8.00438131106952])


def test_without_noise_and_margin_a_clouded_loss_is_cross_entropy():
    cloud = torch.from_numpy(gcl.cloud_sizes(COUNTS))
    assert_close(gcl.clouded(COSINES, LABELS, 0 * NOISE, cloud, 30.0), F.cross_entropy(30 * COSINES, LABELS, reduction="none"))
    assert_close(gcl.clouded(COSINES, LABELS, NOISE, 0 * cloud, 30.0), F.cross_entropy(30 * COSINES, LABELS, reduction="none"))
    near(torch.from_numpy(gcl.cloud_sizes(np.array([7, 7, 7]))), [0.0, 0.0, 0.0])


def test_no_gradient_goes_through_the_focus():
    z, cloud = COSINES.clone().requires_grad_(), torch.from_numpy(gcl.cloud_sizes(COUNTS))
    (focused,) = torch.autograd.grad(gcl.clouded(z, LABELS, NOISE, cloud, 5.0, 0.1, 1.0).sum(), z)
    plain = gcl.clouded(z, LABELS, NOISE, cloud, 5.0, 0.1)
    (own,) = torch.autograd.grad(plain.sum(), z)
    assert_close(focused, (1 - (-plain.detach()).exp())[:, None] * own)


def test_the_noise_has_a_third_for_its_deviation():
    torch.manual_seed(0)
    assert float(gcl.drawn(torch.zeros(200, 500)).std()) == pytest.approx(1 / 3, rel=0.01)


def test_shares_of_the_clouded_sampling_are_almost_equal():
    near(double(gcl.sampling_shares(COUNTS)), [0.33438578734292246, 0.3328782410302048, 0.33273597162687274])
    near(double(gcl.sampling_shares(np.array([7, 7]))), [0.5, 0.5])


def test_rows_longer_than_allowed_are_cut_and_no_others():
    longest = weight_balancing.longest_allowed(WEIGHT, 0.1)
    near(longest, 0.44022001505778435)
    cut = weight_balancing.shortened(WEIGHT, longest)
    near(
        cut,
        [
            [0.24015970731391625, 0.04803194146278325, 0.33622359023948273, -0.14409582438834975],
            [0.16074562167494158, 0.32149124334988316, 0.08037281083747079, 0.24111843251241236],
            [-0.1, 0.3, -0.2, 0.1],
        ],
    )
    assert_close(weight_balancing.shortened(cut, longest), cut)
    assert_close(weight_balancing.shortened(WEIGHT, weight_balancing.longest_allowed(WEIGHT, 1.0)), WEIGHT)


LOSSES = {
    "cross-entropy": cross_entropy,
    "label-aware": lambda z, y: mislas.label_aware(z, y, mislas.smoothing(COUNTS, 0.3, 0.0)),
    "clouded": lambda z, y: gcl.clouded(z, y, NOISE, torch.from_numpy(gcl.cloud_sizes(COUNTS)), 20.0, 0.1),
    "aligned": lambda z, y: cross_entropy(
        disalign.aligned(z, double([0.9, 1.1, 1.5]), double([-0.2, 0, 0.4]), z[:, :1].sigmoid()), y
    ),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_gradients_are_right_and_losses_finite(loss):
    assert torch.autograd.gradcheck(lambda z: loss(z, LABELS), Z.clone().requires_grad_())
    assert torch.isfinite(loss(double([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]]), LABELS)).all()
    turned = torch.tensor([2, 0, 1])  # classes under other numbers, of the same size
    if loss is cross_entropy:
        assert_close(loss(Z, LABELS), loss(Z[:, turned], turned.argsort()[LABELS]))


# phases ---------------------------------------------------------------------------------------------------------

ALL = [crt, lws, disalign, mislas, gcl, weight_balancing]
NAMED = {module.__name__.split(".")[-1]: module.METHOD for module in ALL}
TRAINED = {
    "crt": ["weight", "bias"],
    "lws": ["scale"],
    "disalign": ["scale", "shift", "gate", "gate_bias"],
    "mislas": ["weight", "bias", "scale"],
    "gcl": ["weight"],
    "weight_balancing": ["weight", "bias"],
}


@pytest.mark.parametrize("name", TRAINED)
def test_the_second_stage_trains_its_part_of_the_head_and_nothing_else(problem, name):
    method = NAMED[name](problem())
    network, last = method.build(), method.phases()[-1]
    for phase in method.phases():
        phase.prepared(network)
    assert [n for n, p in network.named_parameters() if p.requires_grad] == [f"head.{n}" for n in TRAINED[name]]
    assert last.momentum == 0.9 and last.views == 4 and last.frozen is features
    assert last.recipe["mixup"] == last.recipe["cutmix"] == last.recipe["final_learning_rate"] == 0.0


@pytest.mark.parametrize("name", TRAINED)
def test_its_features_under_its_head_are_its_scores(problem, name):
    method = NAMED[name](problem())
    network = method.build().eval()
    images = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        own = network.head(features(network, images))
        assert_close(method.scores(network, images), own * (20 if name == "gcl" else 1))


def test_a_smaller_batch_has_a_rate_less_by_as_much(problem):
    for batch, expected in ((2048, (512, 0.2)), (512, (512, 0.2)), (128, (128, 0.05))):
        (phase,) = crt.METHOD(problem(changes={"recipe.batch_size": batch})).phases()
        assert (phase.recipe["batch_size"], phase.length.learning_rate) == pytest.approx(expected)
    assert phase.recipe["weight_decay"] == 5e-4
    (phase,) = weight_balancing.METHOD(problem()).phases()
    assert phase.recipe["weight_decay"] == 0.1 and phase.length == Training(epochs=10, learning_rate=0.01 * 32 / 64)


def test_what_comes_after_cross_entropy_scores_as_it_did(problem):
    of = problem()
    trained = of.vit(3)
    with torch.no_grad():
        trained.head.bias.copy_(torch.tensor([0.3, -0.1, 0.2]))
    images = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    for module in (crt, lws, disalign, weight_balancing):
        method = module.METHOD(of)
        network = method.build()
        method.begin(network, weights(trained))
        with torch.no_grad():
            assert_close(method.scores(network.eval(), images), trained.eval()(images))
    plain = tau_norm.METHOD(of, tau_norm.METHOD.Parameters(tau=0.0))
    with torch.no_grad():
        assert_close(plain.scores(trained, images), trained(images) - trained.head.bias)


def test_a_new_head_depends_on_the_seed_alone(problem):
    method = crt.METHOD(problem())
    heads = []
    for seed in (0, 0, 1):
        network = method.build()
        torch.rand(1)
        heads.append(method.phases()[0].prepared(network, seed).head.weight)
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


def test_rows_stay_as_short_as_allowed_after_every_step(problem):
    method = weight_balancing.METHOD(problem())
    network = method.build()
    method.begin(network, weights(problem().vit(3)))
    (phase,) = method.phases()
    lengths = network.head.weight.norm(dim=1)
    assert_close(network.head.longest, lengths.min() + 0.1 * (lengths.max() - lengths.min()))
    phase.prepared(network)
    phase.after_step(network)
    assert float(network.head.weight.detach().norm(dim=1).max()) == pytest.approx(float(network.head.longest))
    assert network.head.weight.requires_grad


def test_the_linear_head_learns_slower_than_its_scales(problem):
    method = mislas.METHOD(problem())
    network = method.build()
    for phase in method.phases():
        phase.prepared(network)
    depths = {name: 4 for name, _ in network.named_parameters()}
    groups = parameter_groups(network, Recipe(weight_decay=5e-4), depths)
    found = {id(p): (group["scale"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert found[id(network.head.weight)] == (0.05, 5e-4) and found[id(network.head.bias)] == (0.05, 0.0)
    assert found[id(network.head.scale)] == (1.0, 0.0)


def test_class_weights_count_in_the_whole_batch(problem):
    (phase,) = disalign.METHOD(problem()).phases()
    network = phase.prepared(disalign.METHOD(problem()).build())
    part = phase.part_of(torch.zeros(2, 16), LABELS)
    each = phase.losses(network, part)["second_stage"]
    near(
        _mean(Z[:, 0], part, phase.class_weights(0)),
        float((disalign.rarity_weights(COUNTS / 111, 1.2)[LABELS] * Z[:, 0]).sum() / (0.011192460606145224 + 2.811418993178167)),
    )
    assert each.shape == (2,)


def test_the_clouded_sampling_is_asked_for_and_the_head_is_a_cosine(problem):
    method = gcl.METHOD(problem())
    first, second = method.phases()
    assert second.sampling == gcl.sampling_shares(COUNTS) and first.sampling == "images" and first.recipe["cutmix"] == 0
    assert isinstance(method.build().head, CosineHead) and method.build().head.scale == 1
    assert second_stage(problem(), method.parameters, cross_entropy).sampling == "images"


def test_cross_entropy_is_trained_once_for_all_that_come_after_it(params):
    config = load_config(params({"baselines": ["crt", "tau_norm"]}))
    run = Run(config)
    assert list(run.asked) == ["ce", "crt", "tau_norm"]
    assert run.artifact("baselines/tau_norm").inputs[1].name == "baselines/ce"
    for stage in ("split", "start", "baselines"):
        execute(run, stage)
    ce, cut = run.read("baselines/ce", "network"), run.read("baselines/crt", "network")
    assert all(torch.equal(ce[n], cut[n]) != n.startswith("head.") for n in ce)
    assert all(torch.equal(t, run.read("baselines/tau_norm", "network")[n]) for n, t in ce.items())
    curves = run.artifact("baselines/crt").table("curves")
    assert len(curves) == 10 and curves["second_stage"].iloc[-1] < curves["second_stage"].iloc[0]
    assert len(run.artifact("baselines/tau_norm").table("curves")) == 0
