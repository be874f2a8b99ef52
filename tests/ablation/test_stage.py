"""Notebook 08's measuring: cells, their features, the tables made of them, and what a kill leaves."""

import contextlib
import io
import itertools

import numpy as np
import pandas as pd
import pytest
import torch

from osdtw_lib.ablation import grid_cell, stage
from osdtw_lib.ablation import paper_claims as claims
from osdtw_lib.ablation import tables as tabled
from osdtw_lib.ablation.grid_cell import measure, prepare, refine
from osdtw_lib.ablation.variant import Variant
from osdtw_lib.config.load import load_config
from osdtw_lib.evaluation.metrics import accuracy_by_group
from osdtw_lib.evaluation.scores import class_scores, negative_log_likelihood, predict
from osdtw_lib.longtail import class_priors
from osdtw_lib.methods import osdtw
from osdtw_lib.models.vit import encode
from osdtw_lib.stages import execute
from osdtw_lib.stages.networks import stage1_networks, stage2_network
from osdtw_lib.stages.proxy_inputs import load_proxy, measured_bias
from osdtw_lib.stages.run import Run
from osdtw_lib.training import frozen_features
from osdtw_lib.training.frozen_features import CACHE_BYTES, Features

pytestmark = pytest.mark.journey

SMALL = {
    "selection.shared_depth": None,
    "selection.head_weight": None,
    "selection.form": "direct",
    "ablation.depths": [2],
    "ablation.head_weights": [0.4, 0.7],
    "ablation.seeds": [0, 1],
    "baselines": ["ce"],
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory, write_params):
    """The whole ablation on the tiny configuration: (Run, what it printed). For reading only."""
    run, said = Run(load_config(write_params(tmp_path_factory.mktemp("ablation"), SMALL))), io.StringIO()
    with contextlib.redirect_stdout(said):
        execute(run, "ablation")
    return run, said.getvalue()


def test_its_cells_are_shared_out_over_all_threads_though_each_is_made_by_one(params, monkeypatch):
    seen, threads = [], torch.get_num_threads()
    monkeypatch.setattr(stage, "_measure_everything", lambda run: seen.append(torch.get_num_threads()))
    monkeypatch.setattr(stage, "_write_tables", lambda run, write: write.json("nothing", {}))
    monkeypatch.setattr(stage, "publish", lambda run, artifact: None)
    torch.set_num_threads(threads + 1)
    try:
        execute(Run(load_config(params(SMALL))), "ablation")
    finally:
        torch.set_num_threads(threads)
    assert seen == [threads + 1]


# the refinement from features -------------------------------------------------------------------------------


@pytest.mark.parametrize("depth, likelihood", [(0, "separate"), (1, "separate"), (2, "separate"), (3, "separate"), (1, "joint")])
def test_refinement_from_features_is_the_ordinary_stage_3(finished_copy, depth, likelihood):
    run = finished_copy({"selection.shared_depth": depth, "stage3.likelihood": likelihood, "recipe.random_shift": 0})
    for name in ("split", "start", "stage1", "fisher", "direct", "proxy", "stage2", "stage3"):
        execute(run, name)
    ordinary = run.artifact("stage3")
    network, joint = refined_from_features(run, depth)
    assert ordinary.tensors("network").keys() == dict(network.named_parameters()).keys()
    moved = osdtw.assemble(run.problem, joint.head, stage1_networks(run), depth).state_dict()
    for name, tensor in ordinary.tensors("network").items():
        torch.testing.assert_close(network.get_parameter(name).detach(), tensor, msg=name)
    changed = {n for n, p in network.named_parameters() if not torch.equal(p, moved[n])}
    assert changed and changed.isdisjoint({f"head.{n}" for n in network.encoder_parameters()})


def test_refinement_from_features_sees_the_same_shifted_images_as_the_ordinary_one(finished_copy):
    run = finished_copy({"recipe.random_shift": 2})
    for name in ("split", "start", "stage1", "fisher", "direct", "proxy", "stage2", "stage3"):
        execute(run, name)
    network, _ = refined_from_features(run, 2)
    for name, tensor in run.artifact("stage3").tensors("network").items():
        torch.testing.assert_close(network.get_parameter(name).detach(), tensor, msg=name)


def refined_from_features(run, depth):
    joint = stage2_network(run)
    network = osdtw.assemble(run.problem, joint.head, stage1_networks(run), depth)
    features = Features(run.batches(run.train), joint.head, [1, 2, 3, depth], run.config.stage3.epochs, "fp32")
    refine(run, network, features.at(depth), run.config.stage3, NoCheckpoint())
    return network, joint


class NoCheckpoint:
    def load(self):
        return None

    def require_room(self, size):
        pass

    def save(self, tensors, state):
        pass


@pytest.mark.parametrize("limit", [CACHE_BYTES, 0])
def test_features_are_the_encoders_output_kept_or_not(finished, monkeypatch, limit):
    monkeypatch.setattr(frozen_features, "CACHE_BYTES", limit)
    encoder = stage2_network(finished).head
    recipe = finished.config.recipe.model_copy(update={"random_shift": 1, "micro_batch": 20})
    batches = finished.batches(finished.train, recipe=recipe)
    features = Features(batches, encoder, [0, 1, 3], 2, "fp32")
    assert features.keep is (limit > 0)
    for number in (1, 0, 1):
        for depth in (0, 1, 3):
            at = features.at(depth)
            assert len(at) == len(batches) and torch.equal(at.labels, batches.labels)
            for ours, theirs in zip(at.epoch(number), batches.epoch(number), strict=True):
                for part, plain in zip(ours, theirs, strict=True):
                    assert torch.equal(part.labels, plain.labels) and (part.share, part.number) == (plain.share, plain.number)
                    torch.testing.assert_close(part.images, encode(encoder, plain.images, depth).detach())
    for (hidden, _), (images, _) in zip(features.at(3), batches, strict=True):
        torch.testing.assert_close(hidden, encode(encoder, images, 3).detach())


# a cell -----------------------------------------------------------------------------------------------------


def test_a_cells_scores_are_those_of_the_whole_network(measured):
    run = Variant(measured[0], 1, "bernoulli")
    scores = run.cell(0.7, 2).table("scores")
    network = osdtw.assemble(run.problem, stage2_network(run.weighted(0.7)).head, stage1_networks(run), 2)
    batches = run.batches(run.test)
    predicted = predict(class_scores(network, run.likelihoods, batches))
    found = tabled.summary(scores[scores["network"] == "assembled"], run.groups, run.class_counts)
    for group, value in accuracy_by_group(predicted, run.test.labels, run.groups).items():
        assert found[group] == pytest.approx(value, nan_ok=True), group
    balanced = negative_log_likelihood(network, run.likelihoods, batches)
    prior = negative_log_likelihood(network, run.likelihoods, batches, class_priors(run.class_counts))
    assert found["nll_balanced"] == pytest.approx(balanced, rel=1e-5)
    assert found["nll_training_prior"] == pytest.approx(prior, rel=1e-5)
    assert abs(balanced - prior) > 1e-3
    assert scores.groupby(["network", "half"])["images"].sum().tolist() == [50, 50, 50, 50]


def test_cells_of_another_refinement_are_other_cells_measured_by_its_own_loss(measured, monkeypatch):
    run = measured[0]
    stage3 = run.config.stage3.model_copy(update={"likelihood": "joint"})
    separate, joint = Variant(run, 0, "bernoulli"), Variant(Run(run.config.model_copy(update={"stage3": stage3})), 0, "bernoulli")
    assert all(separate.cell(0.4, depth).key != joint.cell(0.4, depth).key for depth in (None, 0, 2))
    network, batches = stage2_network(separate.weighted(0.4)), separate.batches(separate.test)
    scores, labels = class_scores(network, separate.likelihoods, batches), separate.test.labels
    adjusted = scores.astype(np.float64) + np.log(class_priors(run.class_counts))
    nll = np.log(np.exp(adjusted).sum(1)) - adjusted[np.arange(len(labels)), labels]
    table = grid_cell._scores(joint, network, batches)
    assert table["nll"].sum() == pytest.approx(nll.sum(), rel=1e-5)
    assert table["right"].sum() == grid_cell._scores(separate, network, batches)["right"].sum()


def test_a_variant_shares_what_does_not_depend_on_it(measured):
    run = measured[0]
    folders = {
        (s, lik, name): Variant(run, s, lik).artifact(name).folder.relative_to(run.folder).as_posix()
        for s in (0, 1)
        for lik in ("bernoulli", "categorical")
        for name in ("start", "stage1", "baselines/ce")
    }
    assert folders[0, "bernoulli", "start"] == folders[0, "categorical", "start"] == "start"
    assert folders[0, "bernoulli", "stage1"] == "stage1" and folders[0, "bernoulli", "baselines/ce"] == "baselines/ce"
    assert folders[1, "bernoulli", "start"] == folders[1, "categorical", "start"] == "ablation/seed1/start"
    assert len({folders[s, lik, "stage1"] for s in (0, 1) for lik in ("bernoulli", "categorical")}) == 4
    assert not np.array_equal(Variant(run, 1, "bernoulli").indices[0], run.indices[0])


def test_what_is_killed_goes_on_in_the_cell_it_was_in(measured, tmp_path, monkeypatch, capsys, write_params):
    run = Variant(Run(load_config(write_params(tmp_path, SMALL))), 0, "bernoulli")
    prepare(run)
    calls = []

    def killed(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return refine(*arguments, **options)

    monkeypatch.setattr(grid_cell, "refine", killed)
    with pytest.raises(KeyboardInterrupt):
        measure(run, 0.4, [0, 2, 3])
    assert [run.cell(0.4, c).why_not_done() is None for c in (None, 0, 2, 3)] == [True, True, False, False]
    monkeypatch.setattr(grid_cell, "refine", refine)
    capsys.readouterr()
    measure(run, 0.4, [0, 2, 3])
    out = capsys.readouterr().out
    assert "stage2: up to date" in out and "C 2" in out and "C 3" in out and "C 0" not in out and "joint" not in out
    for depth in (None, 0, 2, 3):
        same = Variant(measured[0], 0, "bernoulli").cell(0.4, depth)
        assert run.cell(0.4, depth).table("scores").equals(same.table("scores")), depth
    measure(run, 0.4, [0, 2, 3])
    assert capsys.readouterr().out == ""


# the stage --------------------------------------------------------------------------------------------------


def test_the_tables_have_the_columns_and_every_cell(measured):
    run = measured[0]
    table = pd.read_csv(run.folder / "tables" / "ablation.csv")
    assert table.columns.tolist() == [
        "shared_depth",
        "head_weight",
        "seed",
        "many",
        "medium",
        "few",
        "all",
        "nll_training_prior",
        "nll_balanced",
    ]
    cells = set(table[["shared_depth", "head_weight", "seed"]].itertuples(index=False, name=None))
    assert cells == {(c, w, s) for c in (0, 2, 3) for w in (0.4, 0.7) for s in (0, 1)} and len(table) == 12
    ranking = pd.read_csv(run.folder / "tables" / "proxy_ranking.csv")
    assert ranking.columns.tolist()[:6] == ["form", "damping", "spearman", "regret", "rank_of_pick", "seeds"]
    assert set(ranking["form"]) == {"paper", "damped", "direct", "bias alone", "depth alone"} and set(ranking["seeds"]) == {2}
    assert ranking["regret"].ge(0).all() and ranking["rank_of_pick"].between(1, 5).all()


def test_c_0_is_measured_once_and_stands_at_every_weight(measured):
    run, said = measured
    assert said.count("refinement, C 0: epoch 2/2") == 2 + 2  # both seeds of the grid, both of the other likelihood
    table = pd.read_csv(run.folder / "tables" / "ablation.csv")
    assert (table[table["shared_depth"] == 0].groupby("seed")["all"].nunique() == 1).all()


def test_forms_say_of_the_cells_what_the_proxy_says(measured):
    run = Variant(measured[0], 0, "bernoulli")
    forms = measured[0].folder / "ablation" / "forms.csv"
    forms = pd.read_csv(forms).query("seed == 0")
    grid = load_proxy(run).grid([0, 2, 3], [0.4, 0.7], "direct", "evidence", measured_bias(run))
    balanced = forms[forms["loss"] == "prediction"].set_index(["form", "merge", "damping"]).sort_index()
    assert np.allclose(balanced.loc[("direct", "squared Fisher", "evidence"), "total"], grid["total"])
    assert np.allclose(balanced.loc[("bias alone", "squared Fisher", "-"), "total"], grid["encoder_bias"])
    other = run.merging_by(1.0, "evidence")
    grid = load_proxy(run).grid([0, 2, 3], [0.4, 0.7], "direct", "evidence", measured_bias(other))
    assert np.allclose(balanced.loc[("direct", "Fisher + evidence", "evidence"), "total"], grid["total"])
    assert other.artifact("direct").folder != run.artifact("direct").folder == measured[0].folder / "direct"
    bias = [balanced.loc[("bias alone", merge, "-"), "total"] for merge in ("squared Fisher", "Fisher", "Fisher + evidence")]
    assert not any(np.allclose(*pair) for pair in itertools.combinations(bias, 2))


def test_each_likelihood_goes_the_whole_way_beside_the_single_networks(measured):
    table = pd.read_csv(measured[0].folder / "ablation" / "likelihoods.csv")
    rows = table.groupby("seed")[["method", "likelihood"]].apply(lambda t: t.fillna("-").to_numpy().tolist())
    expected = [[m, lik] for lik in ("bernoulli", "categorical") for m in ("stage1", "stage2", "osdtw")] + [["ce", "-"]]
    assert rows.tolist() == [expected, expected]
    run = Variant(measured[0], 1, "categorical")
    at = table[(table["seed"] == 1) & (table["likelihood"] == "categorical")].iloc[0]
    pick = stage.picked(run)
    assert (at["shared_depth"], at["head_weight"]) == (pick.shared_depth, pick.head_weight)


def test_a_finished_ablation_is_found_and_its_tables_are_put_back(measured, capsys):
    run = measured[0]
    (run.folder / "tables" / "ablation.csv").unlink()
    execute(run, "ablation")
    assert capsys.readouterr().out.startswith("ablation: up to date")
    assert (run.folder / "tables" / "ablation.csv").exists()


def test_another_grid_is_stale_and_keeps_the_cells_it_has(measured, capsys):
    run = measured[0]
    other = Run(run.config.model_copy(update={"ablation": run.config.ablation.model_copy(update={"head_weights": (0.4,)})}))
    reason = other.artifact("ablation").why_not_done()
    assert "ablation.head_weights" in reason
    assert Variant(other, 0, "bernoulli").cell(0.4, 2).why_not_done() is None


def test_a_depth_the_model_has_not_is_one_line(params, refused):
    assert "3 blocks, got 4" in refused("ablation", params({"ablation.depths": [4]}))
    assert "3 blocks, got 4" in refused("run", params({"ablation.depths": [4]}), "--ablations")  # before anything is trained


def test_decoders_of_stage_2_have_a_weight_where_nothing_is_shared_too(finished_copy):
    def key(weight, **changes):
        run = finished_copy({f"stage3.{name}": value for name, value in changes.items()})
        return Variant(run, 0, "bernoulli").cell(weight, 0).key

    assert key(0.4) == key(0.6) and key(0.4, decoders="stage2") != key(0.6, decoders="stage2")


# claims -----------------------------------------------------------------------------------------------------


def grid(accuracy, few=None):
    """A measured grid of two seeds over C = 8, 12 and three weights; accuracy(c, w, seed)."""
    rows = []
    for c in (8, 12):
        for w in (0.3, 0.5, 0.7):
            for seed in (0, 1):
                value = accuracy(c, w, seed)
                row = {"shared_depth": c, "head_weight": w, "seed": seed, "all": value, "nll_balanced": -value}
                rows += [row | {"network": n, "few": (few or accuracy)(c, w, seed)} for n in ("refined", "joint")]
    return pd.DataFrame(rows)


def verdicts(table):
    return dict(zip(table["claim"], table["holds"]))


def test_claims_hold_where_the_paper_would_have_measured_them():
    gain = {0.3: -1, 0.5: 0, 0.7: 0.8}
    found = verdicts(claims.of_section_6_4(grid(lambda c, w, s: 60 + 0.2 * (c == 8) + gain[w] + s), 12))
    assert found["C = 8, w_A = 0.7 is better than C = 12, w_A = 0.5"] is True
    assert found["C = 8, w_A = 0.7 is better than C = 12, w_A = 0.5 by about 1 point"] is True
    assert found["from C = 12, w_A = 0.5 the best weight alone gains more than the best depth alone"] is True
    assert found["few-shot accuracy rises with w_A at C = 12 (refined)"] is True
    assert found["accuracy rises, then falls with w_A at C = 12 (refined)"] is False  # the peak is at the end
    assert found["more weight to the head beats more to the tail at C = 12 (Stage 2's own network)"] is True
    assert found["accuracy and generalization error are best in the same cell"] is True


def test_claims_do_not_hold_where_it_is_the_other_way():
    table = claims.of_section_6_4(grid(lambda c, w, s: 60 + 30 * (c == 8) - 5 * w + s, few=lambda c, w, s: -w), 12)
    found = verdicts(table)
    assert found["C = 8, w_A = 0.7 is better than C = 12, w_A = 0.5"] is True
    assert found["C = 8, w_A = 0.7 is better than C = 12, w_A = 0.5 by about 1 point"] is False
    assert found["from C = 12, w_A = 0.5 the best weight alone gains more than the best depth alone"] is False
    assert found["few-shot accuracy rises with w_A at C = 12 (refined)"] is False
    assert "+29.0 ± 0.0 points" in table["here"].iloc[0]


def test_a_claim_whose_cells_lack_is_not_measured():
    table = grid(lambda c, w, s: 60.0)
    found = claims.of_section_6_4(table[table["head_weight"] != 0.7], 12)
    assert found["holds"].iloc[0] is None and found["here"].iloc[0].startswith("not measured")
