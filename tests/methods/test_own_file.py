"""A method in a file of one's own: its row, its predictions, its key; and what is said of a file that is no method."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from osdtw_lib import load_predictor
from osdtw_lib.config.load import dump_config, load_config
from osdtw_lib.config.schema import Recipe
from osdtw_lib.data.augment import _mixed
from osdtw_lib.data.batches import Part
from osdtw_lib.data.sampling import order
from osdtw_lib.errors import UserError
from osdtw_lib.planning.plan import make_plan
from osdtw_lib.stages import execute
from osdtw_lib.stages.run import Run
from osdtw_lib.training.phase import hard

BRIER = '''"""The Brier score: the squared distance of the softmax from the label."""
from osdtw_lib.methods._base import SingleNetwork
from osdtw_lib.training.phase import Phase, hard
class Brier(SingleNetwork):
    title, source, prior = "Brier score", "Brier 1950", "training"
    def likelihood(self): ...
    def phases(self):
        wrong = lambda p, y: (p * p).sum(1) - 2 * p.gather(1, y[:, None])[:, 0] + 1
        return [Phase(self.problem.length, lambda net, part: {
            "brier": hard(part, lambda y: wrong(net(part.images).float().softmax(1), y))})]
METHOD = Brier
'''

DEFERRED = '''"""A margin for rare classes, and class weights from a share of the epochs on."""
import torch
import torch.nn.functional as F
from osdtw_lib.config.schema import Fraction, Rate, Section
from osdtw_lib.methods._base import SingleNetwork
from osdtw_lib.training.phase import Phase, hard


class Deferred(SingleNetwork):
    title, source = "margins, deferred weights", "after Cao et al. 2019"

    class Parameters(Section):
        largest_margin: Rate = 0.5
        from_share: Fraction = 0.5

    def likelihood(self): ...

    def phases(self):
        counts = torch.as_tensor(self.problem.class_counts)
        margins = self.parameters.largest_margin * (counts.min() / counts) ** 0.25
        late = self.parameters.from_share * self.problem.length.epochs

        def losses(network, part):
            z = network(part.images).float()
            return {"margin": hard(part, lambda y: F.cross_entropy(z - F.one_hot(y, len(counts)) * margins, y, reduction="none"))}

        return [Phase(self.problem.length, losses, class_weights=lambda epoch: 1 / counts if epoch >= late else None)]


METHOD = Deferred
'''

RETRAINED = '''"""Two phases: cross-entropy, then a new head on the frozen encoder's features, every class drawn as often."""
import torch.nn.functional as F
from osdtw_lib.methods._base import Method
from osdtw_lib.models.vit import decode, encode
from osdtw_lib.training.phase import Phase, hard


class Retrained(Method):
    title, source = "classifier retrained", "after Kang et al. 2020"

    def build(self):
        return self.problem.vit(self.problem.n_classes)

    def phases(self):
        depth = len(self.problem.vit(1).blocks)

        def new_head(network):
            network.requires_grad_(False)
            network.head.requires_grad_(True).reset_parameters()

        def whole(network, part):
            z = network(part.images).float()
            return {"ce": hard(part, lambda y: F.cross_entropy(z, y, reduction="none"))}

        def on_features(network, part):
            return {"ce": F.cross_entropy(decode(network, part.images, depth).float(), part.labels)}

        length = self.problem.length
        again = length.model_copy(update={"epochs": 3, "learning_rate": 0.05})
        return [
            Phase(length, whole, name="representation"),
            Phase(again, on_features, name="classifier", prepare=new_head, sampling="classes", recipe={"mixup": 0.0},
                  frozen=lambda network, images: encode(network, images, depth)),
        ]

    def scores(self, network, images):
        return network(images).float()


METHOD = Retrained
'''


@pytest.fixture
def own(tmp_path):
    """own("name", text) writes a file of one's own and returns its path."""

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        return str(tmp_path / f"{name}.py")

    return write


@pytest.fixture
def opened(finished_copy):
    """opened([...], {...}) opens the finished run with these baselines."""
    return lambda baselines, changes=None: finished_copy({"baselines": baselines} | (changes or {}))


def test_a_file_of_ten_lines_has_its_row_its_title_and_predicts(own, opened, finished):
    run = opened(["ce", own("brier", BRIER)])
    execute(run, "baselines"), execute(run, "tables")
    table = pd.read_csv(run.folder / "tables" / "accuracy.csv")
    assert table["method"].tolist() == ["ce", "brier", "stage1", "stage2", "osdtw_assembled", "osdtw"]
    assert table.set_index("method").loc["brier", "all"] > 0
    assert run.artifact("tables").notes()["titles"]["brier"] == "Brier score"
    rows = load_predictor(run.folder, "brier")(run.test.pixels)
    assert 100 * (rows.argmax(1) == run.test.labels).mean() == pytest.approx(table.set_index("method").loc["brier", "all"])
    assert run.artifact("baselines/ce").key == finished.artifact("baselines/ce").key


MEAN = '''"""Cross-entropy, averaged: class weights and mixed images would be lost without a word."""
import torch.nn.functional as F
from osdtw_lib.methods._base import OneNetwork
class Mean(OneNetwork):
    title, source = "a mean", "nobody"
    def loss(self, scores, labels):
        return F.cross_entropy(scores, labels)
METHOD = Mean
'''


def test_a_loss_that_is_no_number_an_image_is_refused(own, opened):
    run = opened([own("mean", MEAN)])
    with pytest.raises(UserError, match=r"^mean: loss\(scores, labels\) is one number an image, .* it is of shape \(\)$"):
        execute(run, "baselines")
    each = MEAN.replace("cross_entropy(scores, labels)", "cross_entropy(scores, labels, reduction='none')")
    assert execute(opened([own("each", each)]), "baselines")


def test_a_file_whose_annotations_are_strings_has_its_parameters(own, opened):
    run = opened(["ce", own("deferred", "from __future__ import annotations\n" + DEFERRED)])
    assert run.asked["deferred"][1].model_dump() == {"largest_margin": 0.5, "from_share": 0.5}


def test_what_stands_on_a_method_that_stands_on_another_brings_both_along(own, opened):
    upon = BRIER.replace('prior = "Brier score", "Brier 1950", "training"', 'prior, after = "b", "B", "training", "crt"')
    run = opened([own("upon", upon)])
    assert list(run.asked) == ["ce", "crt", "upon"]
    assert [a.name for a in run.artifact("baselines/upon").inputs] == ["start", "baselines/crt"]
    circle = own("circle", upon.replace('"crt"', '"circle"').replace("Brier(", "Circle(").replace("= Brier", "= Circle"))
    with pytest.raises(UserError, match="no method 'circle'|starts from its own"):
        opened([circle])


def test_the_command_predicts_with_any_row(finished, own, opened, command, refused, tmp_path, picture):
    picture(tmp_path / "a.png", size=(28, 28), mode="L")
    for method in ("ce", "stage1", "stage2", "osdtw_assembled", "osdtw"):
        status, out, err = command("predict", "--method", method, finished.folder, tmp_path / "a.png")
        row = load_predictor(finished.folder, method)([Image.open(tmp_path / "a.png")])[0]
        assert (status, err) == (0, "") and out.split("\t")[1:] == [str(row.argmax()), f"{row.max():.4f}\n"]
    line = refused("predict", "--method", "focal", finished.folder, tmp_path / "a.png")
    assert "no method 'focal'" in line and "balanced_bce" in line


@pytest.mark.parametrize("row", ["stage1", "stage2", "osdtw_assembled", "osdtw", "ce"])
def test_every_row_predicts_as_the_table_says(finished, row):
    table = pd.read_csv(finished.folder / "tables" / "accuracy.csv").set_index("method")["all"]
    right = (load_predictor(finished.folder, row)(finished.test.pixels).argmax(1) == finished.test.labels).mean()
    assert 100 * right == pytest.approx(table[row])


def test_its_parameters_are_checked_when_the_file_is_opened_and_stand_in_its_key(own, opened, refused, params):
    path = own("deferred", DEFERRED)
    run, other = opened([path]), opened([{path: {"largest_margin": 0.3}}])
    assert run.artifact("baselines/deferred").parameters["parameters"] == {"largest_margin": 0.5, "from_share": 0.5}
    execute(run, "baselines/deferred")
    assert run.artifact("baselines/deferred").why_not_done() is None
    assert "largest_margin 0.5 -> 0.3" in other.artifact("baselines/deferred").why_not_done()
    line = refused("split", params({"baselines": [{path: {"largest_margn": 0.3}}]}))
    assert "baselines.deferred: unknown key 'largest_margn'; did you mean 'largest_margin'?" in line
    assert "largest_margin" in refused("split", params({"baselines": [{path: {"largest_margin": -1}}]}))
    assert "unknown key 'tau'; known keys: none" in refused("split", params({"baselines": {"ce": {"tau": 1.0}}}))


def test_an_edited_file_runs_its_method_again_and_what_was_trained_predicts_as_it_was(own, opened):
    path = own("brier", BRIER)
    run = opened(["ce", path])
    execute(run, "baselines/brier")
    own("brier", BRIER.replace("1950", "1951"))
    edited = opened(["ce", path])
    assert "file" in edited.artifact("baselines/brier").why_not_done() and edited.artifact("baselines/ce").why_not_done() is None
    before = load_predictor(run.folder, "brier")
    assert before.row.source == "Brier 1950"
    Path(path).unlink()
    pixels = run.test.pixels[:4]
    assert np.array_equal(load_predictor(run.folder, "brier")(pixels), before(pixels))
    (run.folder / "baselines" / "brier" / "brier.py").write_text(BRIER.replace("1950", "1952"))
    with pytest.raises(UserError, match="brier.py was changed or cut short"):
        load_predictor(run.folder, "brier")


def test_a_file_edited_while_it_trains_is_kept_as_it_was_imported(own, opened):
    path = own("brier", BRIER)
    run = opened([path])
    assert run.asked
    own("brier", BRIER.replace("1950", "1951"))
    execute(run, "baselines/brier")
    assert load_predictor(run.folder, "brier").row.source == "Brier 1950"
    assert "file" in opened([path]).artifact("baselines/brier").why_not_done()


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("def loss(self, scores, labels):", "def los(self, scores, labels):", "METHOD Mean has no loss; methods/_base.py says"),
        ('"nobody"', '"nobody"\n    prior = "balance"', "has the prior 'balance'; it is one of training, balanced, adjusted"),
        ('"nobody"', '"nobody"\n    sampling = "class"', "mean.py: sampling has 'class'; it is one of images, classes, root"),
        ('"nobody"', '"nobody"\n    def sampling(self, e): return "class" if e else "images"', "mean.py: sampling has 'class'"),
        ('"nobody"', '"nobody"\n    def scores(self, net, x): return net(x)[:, 1:]', r"of shape \(2, 9\); it is .* \(2, 10\)"),
        ('"nobody"', '"nobody"\n    def scores(self, net, x): return {"z": net(x)}', "is a dict; it is a tensor of shape"),
    ],
    ids=["no loss", "prior", "sampling", "later sampling", "columns", "kind"],
)
def test_a_method_that_cannot_work_is_refused_before_it_trains(own, opened, old, new, said):
    assert old in MEAN
    with pytest.raises(UserError, match=said):
        execute(opened([own("mean", MEAN.replace(old, new))]), "baselines")


def test_what_a_file_of_ones_own_may_read_of_the_run_stands_in_its_key(own, opened):
    path = own("brier", BRIER)
    run = opened(["ce", path])
    for change in ({"stage1.epochs": 7}, {"head_share": 0.3}):
        other = opened(["ce", path], change)
        assert run.artifact("baselines/ce").key == other.artifact("baselines/ce").key
        assert run.artifact("baselines/brier").key != other.artifact("baselines/brier").key


def test_class_weights_come_with_the_epoch_and_do_not_depend_on_how_the_batch_is_cut(own, params, finished):
    path, found = own("deferred", DEFERRED), []
    for i, micro in enumerate((None, 8)):
        run = Run(
            load_config(
                params(
                    {
                        "baselines": [path],
                        "recipe.micro_batch": micro,
                        "recipe.drop_path": 0.0,
                        "model.init": "scratch",
                        "name": f"cut{i}",
                    }
                )
            )
        )
        for stage in ("split", "start", "baselines"):
            execute(run, stage)
        found.append((run.artifact("baselines/deferred").table("curves"), run.read("baselines/deferred", "network")))
    (curve, whole), (cut_curve, cut) = found
    pd.testing.assert_frame_equal(curve, cut_curve, rtol=1e-4)
    assert all(torch.allclose(whole[n], cut[n], rtol=1e-3, atol=1e-4) for n in whole)
    run = Run(
        load_config(
            params({"baselines": [{path: {"from_share": 1.0}}], "recipe.drop_path": 0.0, "model.init": "scratch", "name": "cut0"})
        )
    )
    execute(run, "baselines")
    never = run.artifact("baselines/deferred").table("curves")
    assert never["margin"][0] == curve["margin"][0] and never["margin"][1] != pytest.approx(curve["margin"][1], rel=1e-3)


def test_two_phases_train_the_second_on_features_and_predict(own, opened, capsys):
    run = opened([own("retrained", RETRAINED)], {"recipe.mixup": 0.8})
    for stage in ("start", "stage1", "fisher", "direct", "proxy", "stage2", "stage3", "baselines", "tables"):
        execute(run, stage)
    curves = run.artifact("baselines/retrained").table("curves")
    assert curves["phase"].tolist() == ["representation"] * 2 + ["classifier"] * 3
    assert curves["ce"].iloc[-1] < curves["ce"].iloc[-3]
    right = (load_predictor(run.folder, "retrained")(run.test.pixels).argmax(1) == run.test.labels).mean()
    table = pd.read_csv(run.folder / "tables" / "accuracy.csv").set_index("method")["all"]
    assert 100 * right == pytest.approx(table["retrained"])


@pytest.mark.parametrize("saves", [1, 2])
def test_two_phases_killed_go_on_in_the_phase_they_were_in(own, opened, stop_after, capsys, saves):
    path = own("retrained", RETRAINED)
    whole = opened([path])
    execute(whole, "baselines")
    expected = {p.name: p.read_bytes() for p in (whole.folder / "baselines" / "retrained").iterdir() if p.name != "manifest.json"}
    for file in (whole.folder / "baselines" / "retrained").iterdir():
        file.unlink()

    stop_after(saves + 1)
    with pytest.raises(KeyboardInterrupt):
        execute(whole, "baselines")
    capsys.readouterr()
    execute(whole, "baselines")
    out = capsys.readouterr().out
    assert "representation: epoch" not in out and ("classifier: resumes after epoch 1" in out) == (saves == 2)
    folder = whole.folder / "baselines" / "retrained"
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "manifest.json"} == expected


BROKEN = {
    "no METHOD": ("x = 1\n", "METHOD is missing"),
    "no class": ("METHOD = 3\n", "METHOD is missing"),
    "no scores": (RETRAINED.replace("def scores", "def points"), "METHOD Retrained has no scores;"),
    "no title and no phases": (
        RETRAINED.replace("title, source =", "name, source =").replace("def phases", "def phase"),
        "no title, phases;",
    ),
    "nothing at all": ("class Method: pass\nMETHOD = Method\n", "no title, source, prior, Parameters, build, phases, scores;"),
    "an import that fails": ("import no_such_package\n", "cannot be imported: ModuleNotFoundError: No module named"),
    "no Python": ("def\n", "cannot be imported: SyntaxError"),
}


@pytest.mark.parametrize("text, words", BROKEN.values(), ids=BROKEN)
def test_a_file_that_is_no_method_is_one_line_that_names_what_is_missing(own, params, refused, tmp_path, text, words):
    line = refused("split", params({"baselines": ["ce", own("mine", text)]}))
    assert words in line and "mine.py" in line
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    "asked, words",
    [
        (["ce", "focall"], "no method 'focall'"),
        (["logit_adjusted"], "did you mean 'logit_adjusted_ce'"),
        (["none.py"], "no such file"),
        (["ce", "ce"], "'ce' is given twice"),
        ([3], "names of methods"),
        ({"ce": 3}, "names of methods"),
        (["osdtw"], "no method 'osdtw'"),
    ],
    ids=str,
)
def test_what_is_no_method_is_one_line(params, refused, asked, words):
    line = refused("split", params({"baselines": asked}))
    assert words in line and "baselines" in line


def test_a_file_called_as_a_method_is_refused(own, params, refused):
    for name in ("ce", "stage2", "osdtw"):
        assert f"'{name}' is taken" in refused("split", params({"baselines": [own(name, BRIER)]}))


def test_the_resolved_parameter_file_asks_for_the_same(own, params, tmp_path):
    config = load_config(params({"baselines": ["ce", {own("deferred", DEFERRED): {"from_share": 0.9}}]}))
    (tmp_path / "again.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "again.yaml") == config and list(config.baselines)[0] == "ce"


def test_the_plan_counts_what_each_method_trains(own, params):
    config = load_config(params({"baselines": ["ce", "balanced_bce", own("retrained", RETRAINED)], "model.init": "scratch"}))
    stages = make_plan(config, gpus=1).stages.set_index("stage")
    alike, second = (s for s in stages.index if s.startswith("baselines"))
    assert (alike, second) == ("baselines (ce, balanced_bce, retrained)", "baselines (retrained)")
    assert stages.loc[alike, "epochs"] == 6 and stages.loc[second, "epochs"] == 3
    # the head alone, on features of the last depth: its product, and its weight's gradient
    assert stages.loc[second, "GFLOP an image"] * 1e9 == 2 * 2 * 16 * 10


def test_class_balanced_draws_have_every_class_as_often():
    labels = np.repeat([0, 1, 2], [80, 16, 4])
    drawn = np.bincount(labels[np.concatenate([order("classes", labels, 0, e) for e in range(200)])], minlength=3)
    np.testing.assert_allclose(drawn / drawn.sum(), 1 / 3, atol=0.01)
    roots = np.bincount(labels[np.concatenate([order("root", labels, 0, e) for e in range(200)])], minlength=3)
    np.testing.assert_allclose(roots / roots.sum(), np.sqrt([80, 16, 4]) / np.sqrt([80, 16, 4]).sum(), atol=0.01)
    once = order("classes", labels, 0, 3)
    assert len(set(once[labels[once] == 0])) == (labels[once] == 0).sum()  # none twice before all have come
    assert np.array_equal(once, order("classes", labels, 0, 3)) and not np.array_equal(once, order("classes", labels, 0, 4))
    assert np.array_equal(order("images", labels, 7, 2), np.random.default_rng((7, 2)).permutation(100))
    with pytest.raises(ValueError, match="images, classes, root"):
        order("class", labels, 0, 0)


def test_hard_labels_see_both_labels_of_a_mixed_image():
    own_labels, z = torch.tensor([0, 2, 1, 1]), torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    ce = torch.nn.functional.cross_entropy
    images, labels = _mixed(torch.zeros(4, 1, 2, 2), own_labels, Recipe(mixup=0.8), 3)
    part = Part(images, labels, 1.0, 0, own=own_labels)
    torch.testing.assert_close(hard(part, lambda y: ce(z, y, reduction="none")), ce(z, labels, reduction="none"))
    plain = Part(images, own_labels, 1.0, 0, own=own_labels)
    torch.testing.assert_close(hard(plain, lambda y: ce(z, y, reduction="none")), ce(z, own_labels, reduction="none"))
