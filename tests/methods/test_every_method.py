"""What every method keeps to, whatever file it lies in: a new one is tested by lying in osdtw_lib/methods."""

import ast
import dataclasses
import importlib.util
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from osdtw_lib import load_predictor, methods
from osdtw_lib.config.load import load_config
from osdtw_lib.data.batches import Part
from osdtw_lib.evaluation.scores import scores_over
from osdtw_lib.methods._base import SingleNetwork
from osdtw_lib.methods.osdtw import Refined
from osdtw_lib.stages import execute
from osdtw_lib.stages.networks import started
from osdtw_lib.stages.run import Run
from osdtw_lib.training.phase import means
from osdtw_lib.verdict.tuning import TRIALS, values_to_try, values_tried

HERE = Path(__file__).parent
NAMES = methods.names()


@pytest.fixture(scope="module")
def trained(chain):
    """Every method that lies here, trained. For reading only."""
    return chain({"baselines": NAMES})


def method(run, name):
    kind, parameters = run.asked[name]
    return kind(started(run), parameters)


def parts(run, recipe=None, phase=None):
    """A step of an epoch, in two parts; of a phase: drawn, mixed and accompanied as it asks for."""
    asked = {"sampling": phase.sampling, "streams": phase.streams} if phase else {}
    half = (recipe or run.config.recipe).model_copy(
        update={"micro_batch": 20, "batch_size": 40} | (phase.recipe if phase else {})
    )
    return list(next(run.batches(run.train, recipe=half, **asked).epoch(0)))


def joined(seen):
    """Parts as one, whose further streams are joined as well."""
    return Part(
        torch.cat([p.images for p in seen]),
        torch.cat([p.labels for p in seen]),
        1.0,
        0,
        own=torch.cat([p.own for p in seen]),
        indices=torch.cat([p.indices for p in seen]),
        batch=seen[0].batch,
        more=tuple(map(joined, zip(*(p.more for p in seen)))),
    )


def as_trained(phase, network, seen):
    """The parts as this phase's loss is given them."""
    return [dataclasses.replace(part, images=phase.seen(network, part.images)) for part in seen]


def loss_over(phase, network, seen):
    torch.manual_seed(0)  # a loss may draw noise
    return sum(part.share * sum(means(phase, network, part).values()) for part in seen)


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is(name):
    kind = methods.load(name)
    assert kind.name == name and kind.title and kind.source and kind.__doc__
    assert kind.prior in ("training", "balanced", "adjusted")
    assert ast.get_docstring(ast.parse(Path(methods.__file__).with_name(f"{name}.py").read_text()))


@pytest.mark.parametrize("name", NAMES)
def test_its_scores_stand_for_class_shares(trained, name):
    row = method(trained, name)
    assert row.shares.shape == (10,) and (row.shares > 0).all() and abs(row.shares.sum() - 1) < 1e-9
    if "shares" not in vars(type(row)):  # it has none of its own
        counts = trained.class_counts
        assert np.allclose(row.shares, counts / counts.sum() if row.prior == "training" else 0.1)


WEIGHTED = [("disalign", {"rho": 0.8}), ("class_balanced", {"beta": 0.9}), ("class_balanced", {}), ("weight_balancing", {})]


@pytest.mark.parametrize("name, parameters", WEIGHTED)
def test_class_weights_leave_the_shares_that_the_loss_is_least_at(trained, name, parameters):
    """One softmax for all images, so that nothing but class frequencies is learned: it is least at the weight that each class has
    in a batch's mean, over many batches."""
    counts = np.array([400, 239, 143, 86, 51, 31, 18, 11, 7, 4])
    problem, kind = dataclasses.replace(trained.problem, class_counts=counts), methods.load(name)
    row = kind(problem, kind.Parameters(**parameters))
    phase = row.phases()[-1]
    weights, batch = phase.class_weights(10**6).double(), (phase.recipe or {}).get("batch_size", problem.config.recipe.batch_size)
    drawn = torch.as_tensor(np.random.default_rng(0).multinomial(batch, counts / counts.sum(), 60_000)) * weights
    found = (drawn / drawn.sum(1, keepdim=True)).mean(0)
    np.testing.assert_allclose(row.shares, found, rtol=0.03)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 2.0])
def test_scores_stand_for_what_the_logit_adjustment_leaves_of_the_priors(trained, strength):
    config = trained.config.model_copy(update={"logit_adjustment": strength})
    problem, priors = dataclasses.replace(trained.problem, config=config), trained.problem.priors
    posthoc = methods.load("posthoc_logit_adjustment")
    adjusted = [methods.load("logit_adjusted_ce")(problem), methods.load("balanced_bce")(problem), Refined(problem)]
    for row in [*adjusted, posthoc(problem, posthoc.Parameters(tau=strength))]:
        np.testing.assert_allclose(row.shares, priors ** (1 - strength) / (priors ** (1 - strength)).sum(), err_msg=row.name)
    assert np.allclose(methods.load("ce")(problem).shares, priors)


@pytest.mark.parametrize("name", NAMES)
def test_what_it_names_for_tuning_are_values_of_its_own_parameters(trained, name):
    kind = methods.load(name)
    for values in values_to_try(kind.space)[3:] if kind.space else ():
        assert 1 <= len(values) <= 2 and kind.Parameters.model_validate(values) != kind.Parameters()
    run = SimpleNamespace(asked={name: (kind, kind.Parameters())}, config=trained.config)
    assert len(values_tried(run, name)) == TRIALS, "as many as any other"


@pytest.mark.parametrize("name", NAMES)
def test_it_starts_from_the_common_start(trained, name):
    start, network = trained.read("start", "weights"), method(trained, name).build()
    same = [n for n, p in network.named_parameters() if any(p.shape == t.shape and torch.equal(p, t) for t in start.values())]
    assert [n for n in same if "blocks." in n] and [n for n in same if "patch_embed" in n]


@pytest.mark.parametrize("name", NAMES)
def test_steps_lower_its_loss(trained, name):
    of = method(trained, name)
    network = of.build()
    for phase in of.phases():
        phase.prepared(network)
        network.eval()
        seen = as_trained(phase, network, parts(trained, phase=phase))
        optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=1e-3)
        before = loss_over(phase, network, seen)
        assert torch.isfinite(before)
        before.backward()
        optimizer.step()
        assert float(loss_over(phase, network, seen).detach()) < float(before.detach())


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_its_loss_is_the_same_in_one_part_or_several(trained, name, mixed, monkeypatch):
    """Noise, which a part draws for itself, is the same everywhere here."""
    monkeypatch.setattr(torch, "randn_like", torch.ones_like)
    of, recipe = method(trained, name), trained.config.recipe
    network, compared = of.build(), 0
    for phase in of.phases():
        phase.prepared(network)
        network.eval()
        asked = recipe.model_copy(update={"mixup": 0.8, "cutmix": 1.0} if mixed else {})
        seen = parts(trained, asked, phase)
        final = asked.model_copy(update=phase.recipe)
        assert seen[0].labels.ndim == 1 + bool(final.mixup or final.cutmix)
        if phase.coupled:
            continue
        several, one = (as_trained(phase, network, cut) for cut in (seen, [joined(seen)]))
        torch.testing.assert_close(loss_over(phase, network, several), loss_over(phase, network, one), rtol=1e-5, atol=1e-6)
        compared += 1
    if not compared:
        pytest.skip("it trains nothing of its own, or says that an image's loss depends on the others of its part")


@pytest.mark.parametrize("name", NAMES)
def test_its_scores_are_finite_and_a_column_a_class(trained, name):
    row = trained.methods[name]
    scores = scores_over(row.network(trained.read), row.scores, trained.batches(trained.test))
    assert scores.shape == (len(trained.test), len(trained.class_names)) and np.isfinite(scores).all()
    odds = scores - scores.mean(1, keepdims=True)
    assert scores.dtype == np.float32 and len(np.unique(odds.round(3), axis=0)) > len(odds) / 2  # they tell images apart


@pytest.mark.parametrize("name", NAMES)
def test_it_predicts_from_its_folder_as_it_scores(trained, name):
    row, predictor = trained.methods[name], load_predictor(trained.folder, name)
    scores = scores_over(row.network(trained.read), row.scores, trained.batches(trained.test)).astype(np.float64)
    odds = np.exp(scores - scores.max(1, keepdims=True))
    np.testing.assert_allclose(predictor(trained.test.pixels), odds / odds.sum(1, keepdims=True), rtol=1e-4)
    assert predictor.class_names == trained.class_names


@pytest.mark.parametrize("name", NAMES)
def test_stopped_it_goes_on_and_ends_bit_for_bit_the_same(trained, name, params, stop_after):
    if not trained.methods[name].phases():
        pytest.skip("it trains nothing of its own")
    path = params({"baselines": NAMES})
    run = Run(load_config(path))
    after = methods.load(name).after
    for stage in ("split", "start", *([f"baselines/{after}"] if after else [])):
        shutil.copytree(trained.folder / stage, run.folder / stage)
    stop_after(1)
    with pytest.raises(KeyboardInterrupt):
        execute(run, f"baselines/{name}")
    assert list((run.folder / "baselines" / name).glob("*.checkpoint"))
    execute(Run(load_config(path)), f"baselines/{name}")
    for file in ("network.safetensors", "curves.csv", "predictor.json"):
        left, right = (r.folder / "baselines" / name / file for r in (run, trained))
        assert left.read_bytes() == right.read_bytes(), file


@pytest.mark.parametrize("name", NAMES)
def test_its_loss_is_the_sum_written_out(trained, name):
    """tests/methods/reference_NAME.py: loss(scores (B, K), target (B, K), counts (K,)) in float64, for one network's scores."""
    file = HERE / f"reference_{name}.py"
    if not file.exists():
        assert not issubclass(methods.load(name), SingleNetwork), f"write tests/methods/{file.name}"
        pytest.skip("its loss is none of one network's scores")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    of = method(trained, name)
    network = of.build().eval()
    (phase,) = of.phases()
    for recipe in ({}, {"mixup": 0.8, "cutmix": 1.0}):
        for part in parts(trained, trained.config.recipe.model_copy(update=recipe)):
            with torch.no_grad():
                found = float(sum(means(phase, network, part).values()))
                scores = network(part.images).double().numpy()
            target = np.eye(scores.shape[1])[part.labels.numpy()] if part.labels.ndim == 1 else part.labels.double().numpy()
            assert found == pytest.approx(reference.loss(scores, target, trained.class_counts), rel=1e-5)
