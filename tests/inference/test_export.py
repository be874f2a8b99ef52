"""A row taken away: the same scores without this project, from image files of all kinds, and nothing half-written."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file

from osdtw_lib.artifacts.tables import read_table
from osdtw_lib.artifacts.manifest import own_checksum
from osdtw_lib.data.batches import normalized
from osdtw_lib.data.image_files import open_image
from osdtw_lib.errors import UserError
from osdtw_lib.evaluation.intervals import wilson
from osdtw_lib.inference import export as library
from osdtw_lib.inference.export import export
from osdtw_lib.inference.cost import Cost, Network
from osdtw_lib.inference.measured import Measured, measured
from osdtw_lib.inference.model_card import licence_of, model_card
from osdtw_lib.inference.predictor import Predictor, load_predictor
from osdtw_lib.methods._base import Problem
from osdtw_lib.methods.osdtw import Refined, two_branches
from osdtw_lib.models.vit import costs_by_depth
from osdtw_lib.models.weights import weights
from osdtw_lib.stages.scores import scores_of

pytestmark = pytest.mark.journey

FILES = {"README.md", "config.json", "model.onnx", "model.pt2", "model.safetensors", "predict.py", "preprocessing.json"}

ALONE = """
import sys

class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "torchvision", "timm", "osdtw_lib", "safetensors", "onnx", "scipy", "pandas"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Nothing())
folder, out, *files = sys.argv[1:]
sys.path.insert(0, folder)
import numpy as np
import predict

found = {}
for i, file in enumerate(files):
    try:
        found[f"{i}"] = np.concatenate([predict.seen(file).ravel(), predict.scores(file)])
    except Exception as error:
        print(f"{file}: {error}")
np.savez(out, **found)
"""


def alone(folder, files, tmp_path):
    """What the exported script makes of files, without torch and this project: {file: (pixels, scores)}, and what it refused."""
    out, sizes = tmp_path / "found.npz", json.loads((folder / "config.json").read_text(encoding="utf-8"))
    code = [sys.executable, "-c", ALONE, folder, out, *files]
    done = subprocess.run(list(map(str, code)), cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    rows, n = np.load(out), len(sizes["class_names"])
    return {files[int(i)]: (rows[i][:-n], rows[i][-n:]) for i in rows.files}, done.stdout.splitlines()


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    return export(finished.folder, tmp_path_factory.mktemp("exported") / "deep" / "model")


@pytest.fixture(scope="module")
def others(finished, tmp_path_factory):
    """Two networks of which nothing is shared, and a single one."""
    folder = tmp_path_factory.mktemp("others")
    return {name: export(finished.folder, folder / name, name) for name in ("stage1", "ce")}


def session(folder):
    return onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])


def kinds(folder):
    return [node.op_type for node in onnx.load(folder / "model.onnx").graph.node]


# programs -------------------------------------------------------------------------------------------------------


def test_all_files_are_there_and_name_no_folder_of_this_machine(exported, project):
    assert {file.name for file in exported.iterdir()} == FILES
    assert [file.name for file in exported.parent.iterdir()] == ["model"]
    for file in exported.iterdir():
        assert str(project).encode() not in file.read_bytes(), file


def test_the_script_alone_gives_the_runs_scores(exported, finished, tmp_path):
    files = [tmp_path / f"{i}.png" for i in range(len(finished.test))]
    for file, pixels in zip(files, finished.test.pixels):
        Image.fromarray(pixels[..., 0]).save(file)
    found, refused = alone(exported, files, tmp_path)
    scores, expected = np.stack([found[file][1] for file in files]), scores_of(finished, "osdtw")
    assert not refused and np.array_equal(scores.argmax(1), expected.argmax(1))
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4)


def test_the_script_prints_what_predict_prints(exported, finished, tmp_path, command):
    files = [str(tmp_path / "a b.png"), str(tmp_path / "none.png"), str(tmp_path / "c.png")]
    for file, pixels in zip((files[0], files[2]), finished.test.pixels):
        Image.fromarray(pixels[..., 0]).save(file)
    done = subprocess.run([sys.executable, exported / "predict.py", *files], capture_output=True, text=True, timeout=100)
    assert done.stdout == command("predict", finished.folder, *files)[1] and done.stdout.count("\n") == 2
    assert done.returncode == 2 and re.fullmatch(rf"{re.escape(files[1])}: .*No such file.*\n", done.stderr)


def test_the_script_writes_out_names_that_a_terminal_cannot_show(exported, finished, tmp_path):
    Image.fromarray(finished.test.pixels[0, ..., 0]).save(tmp_path / "\u00e9.png")
    command, ascii_only = [sys.executable, exported / "predict.py", "\u00e9.png"], os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, env=ascii_only)
    assert done.returncode == 0 and done.stdout.startswith("\\xe9.png\t")


@pytest.mark.parametrize("number", [1, 7, 64])
@pytest.mark.parametrize("method", ["osdtw", "stage1", "ce"])
def test_both_programs_give_the_rows_scores_for_any_number_of_images(exported, others, finished, method, number):
    folder = others.get(method, exported)
    predictor, images = load_predictor(finished.folder, method), torch.randn(number, 1, 28, 28)
    with torch.no_grad():
        expected = predictor.row.scores(predictor.network, images).numpy()
        found = torch.export.load(folder / "model.pt2").module()(images).numpy()
    assert expected.shape == (number, 10)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(session(folder).run(None, {"images": images.numpy()})[0], expected, rtol=0, atol=1e-4)


def test_what_is_shared_is_computed_once(exported, others, finished):
    # 3 blocks: two shared and one in each branch; or three in each
    assert (kinds(exported).count("Conv"), kinds(exported).count("Gelu")) == (1, 4)
    assert (kinds(others["stage1"]).count("Conv"), kinds(others["stage1"]).count("Gelu")) == (2, 6)
    numbers = {
        folder: sum(t.numel() for t in load_file(folder / "model.safetensors").values())
        for folder in (exported, *others.values())
    }
    one = numbers[others["ce"]]
    assert one < numbers[exported] < numbers[others["stage1"]] < 2 * one
    assert (exported / "model.onnx").stat().st_size < (others["stage1"] / "model.onnx").stat().st_size


def test_the_weights_are_those_that_were_trained(exported, finished):
    kept, trained = load_file(exported / "model.safetensors"), finished.read("stage3", "network")
    assert kept.keys() == trained.keys() and all(torch.equal(kept[name], trained[name]) for name in kept)


# image files ----------------------------------------------------------------------------------------------------


def of_random_weights(channels, crop_share=0.875):
    """(row, network, about) of a run in which nothing was trained, for images of 28 pixels."""
    model = {"image_size": 28, "patch_size": 14, "width": 16, "depth": 2, "heads": 2, "channels": channels, "class_token": False}
    about = {
        "model": model | {"init": "weights/deep/mine.pth"},
        "likelihood": "categorical",
        "class_names": ["a", "b\u00e9", "c"],
        "class_counts": [200, 50, 3],
        "mean": [0.4, 0.5, 0.6][:channels],
        "std": [0.2, 0.3, 0.4][:channels],
        "crop_share": crop_share,
    }
    torch.manual_seed(0)
    row = Refined(Problem.of(about), 1)
    return row, two_branches(row.problem, 1), about


@pytest.fixture
def given(monkeypatch):
    """given(row, network, about): what export finds in whatever run it is asked for."""

    def put(row, network, about):
        predictor = Predictor(row, network, about)
        monkeypatch.setattr(library, "load_predictor", lambda *run: predictor)
        return predictor

    return put


def pictures(folder):
    """Files of every kind: sizes that are not square, modes, orientation, transparency, more than 8 bits."""
    rng = np.random.default_rng(0)
    photograph = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8)).resize((61, 43), Image.Resampling.BICUBIC)
    clear = photograph.copy()
    clear.putalpha(photograph.convert("L"))
    turned = photograph.getexif()
    deep = rng.integers(0, 65536, (40, 30), np.uint16)
    made = {
        "wide.jpg": photograph,
        "tall.png": photograph.resize((29, 200)),
        "thin.png": photograph.resize((300, 1)),
        "dot.png": photograph.resize((1, 1)),
        "exact.png": photograph.resize((32, 32)),
        "grey.png": photograph.convert("L"),
        "bits.png": photograph.convert("1"),
        "palette.png": photograph.convert("P"),
        "clear palette.png": clear.quantize(20),
        "clear.png": clear,
        "clear grey.png": clear.convert("LA"),
        "print.jpg": photograph.convert("CMYK"),
        "lab.tif": photograph.convert("RGB"),
        "moving.gif": photograph,
        "photograph.webp": photograph,
        "16 bits.png": Image.fromarray(deep),
        "16 bits.tif": Image.fromarray(deep),
        "numbers.tif": Image.fromarray(deep.astype(np.float32)),
    }
    for name, image in made.items():
        image.save(folder / name)
    for orientation in range(2, 9):
        turned[0x0112] = orientation
        photograph.save(folder / f"turned {orientation}.jpg", exif=turned)
    Image.merge("LAB", [photograph.getchannel(0)] * 3).save(folder / "lab.tif")
    Image.fromarray(deep).save(folder / "clear 16 bits.png", transparency=int(deep[0, 0]))
    (folder / "cut.jpg").write_bytes((folder / "wide.jpg").read_bytes()[:-200])
    return sorted(folder.iterdir())


REFUSED = {"16 bits.tif", "numbers.tif", "clear 16 bits.png", "cut.jpg"}


@pytest.fixture(params=["in colour, bilinear, the middle of it", "grey, the whole"])
def model(request, given, exported, finished, tmp_path, monkeypatch):
    """(an exported folder, its predictor); the one in colour as a large network's, with the weights beside the program."""
    if request.param.startswith("grey"):
        return exported, load_predictor(finished.folder)
    row, network, about = of_random_weights(3)
    predictor = given(row, network, about | {"interpolation": "bilinear"})
    monkeypatch.setattr(library, "ONE_FILE", 0)
    folder = export("any", tmp_path / "out")
    assert {file.name for file in folder.iterdir()} == FILES | {"model.onnx.data"}
    return folder, predictor


def test_the_script_sees_image_files_as_the_predictor_does_or_refuses_them(model, tmp_path):
    folder, predictor = model
    (tmp_path / "images").mkdir()
    files = pictures(tmp_path / "images")
    found, refused = alone(folder, files, tmp_path)
    assert {line.split("images/")[1].split(": ")[0] for line in refused} == REFUSED | (
        {"lab.tif"} if predictor.channels == 1 else set()
    )
    assert len(refused) + len(found) == len(files) and all(len(line.split(": ")[1]) > 5 for line in refused)
    for file, (pixels, scores) in found.items():
        seen = normalized(torch.tensor(predictor.seen(open_image(file))).permute(2, 0, 1)[None], predictor.mean, predictor.std)
        np.testing.assert_allclose(pixels.reshape(seen.shape), seen.numpy(), rtol=0, atol=1e-5, err_msg=file.name)
        with torch.no_grad():
            expected = predictor.row.scores(predictor.network, seen)[0].numpy()
        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4, err_msg=file.name)


# what the card says ---------------------------------------------------------------------------------------------


def card(folder):
    """(head, text) of the model card."""
    _, head, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(head), text


def test_the_card_gives_the_tables_figures_with_intervals(exported, finished):
    head, text = card(exported)
    table = finished.artifact("tables").table("accuracy").set_index("method").loc["osdtw"]
    (result,) = head["model-index"][0]["results"]
    assert {one["name"]: one["value"] for one in result["metrics"]} == {
        f"accuracy, {group} (%)": round(table[group], 2)
        for group in ("medium", "few", "all")  # no class has more than 100 images
    }
    read_by_a_hub = ModelCard((exported / "README.md").read_text(encoding="utf-8")).data.eval_results
    assert [one.metric_value for one in read_by_a_hub] == [one["value"] for one in result["metrics"]]
    assert (head["license"], head["pipeline_tag"], result["dataset"]["split"]) == ("unknown", "image-classification", "test")
    low, high = wilson(round(table["all"]), 100)
    assert f"| 10 | {sum(finished.class_counts):,} | 100 | {table['all']:.1f} | {low:.1f} to {high:.1f} |" in text
    assert (
        re.search(r"Expected calibration error, [a-z ]+: \d+\.\d points", text)
        and "equally frequent" in text
        and "from scratch here" in text
    )


def test_config_says_classes_counts_and_the_prior_the_scores_stand_for(exported, others, finished):
    balanced, training = (json.loads((folder / "config.json").read_text(encoding="utf-8")) for folder in (exported, others["ce"]))
    assert balanced["class_names"] == list("0123456789") and balanced["class_counts"] == finished.class_counts.tolist()
    assert (balanced["prior"], balanced["prior_shares"]) == ("balanced", [0.1] * 10)
    assert training["prior"] == "training"
    np.testing.assert_allclose(training["prior_shares"], finished.class_counts / finished.class_counts.sum())
    assert balanced["made"]["key"] == finished.artifact("stage3").key


def test_costs_are_counted(exported, finished):
    rows = re.findall(r"^\| ([^|]+) \| ([\d,]+) \| ([\d.,]+) \| ([\d.]+) \| ([\d.]+) \|$", card(exported)[1], re.M)
    found = {name: (int(count.replace(",", "")), float(flops.replace(",", ""))) for name, count, flops, *_ in rows}
    ours, one, two = (found[name] for name in ("OSDTW refined", "one network", "two networks"))
    parameters, flops = map(np.array, costs_by_depth(finished.config.model, 5))  # of each depth; two of three are shared
    assert ours == (
        parameters[:2].sum() + 2 * parameters[2:].sum(),
        pytest.approx((flops[:2].sum() + 2 * flops[2:].sum()) / 1e6, abs=1e-3),
    )
    assert two == (2 * parameters.sum(), pytest.approx(2 * flops.sum() / 1e6, abs=1e-3))
    parameters, flops = costs_by_depth(finished.config.model, 10)
    assert one == (sum(parameters), pytest.approx(sum(flops) / 1e6, abs=1e-3))
    assert found["OSDTW refined, ONNX Runtime"] == ours and all(
        float(ms) > 0 for *_, first, second in rows for ms in (first, second)
    )


def test_figures_of_other_weights_are_not_given(finished_copy):
    run = finished_copy()
    row = load_predictor(run.folder).row
    assert measured(run.folder, row).accuracy
    for stage in ("tables", "calibration"):
        manifest = json.loads((run.folder / stage / "manifest.json").read_text(encoding="utf-8"))
        manifest["inputs"]["stage3"] = "0" * 64
        rewrite(run.folder / stage, manifest)
    assert measured(run.folder, row) == Measured()
    cost = Cost([Network("one network", 1, 1, {1: 1.0})], "a machine")
    about = library.described(run.folder, load_predictor(run.folder))
    text = model_card(about, Measured(), cost, 1e-6)
    assert "model-index" not in text and "Not measured of these weights" in text


def rewrite(folder, manifest):
    (folder / "manifest.json").write_text(json.dumps(manifest | {"checksum": own_checksum(manifest)}), encoding="utf-8")


def test_a_calibration_that_was_measured_is_said(finished_copy, tmp_path):
    run = finished_copy()
    path = run.folder / "calibration" / "calibration.csv"
    table = read_table(path).set_index(["method", "group", "measure"])["before"]
    found = measured(run.folder, load_predictor(run.folder).row).ece
    assert found == table["osdtw", "all", "ece_equal_mass"] > 0
    path.write_text(path.read_text(encoding="utf-8").replace("osdtw,", "other,"), encoding="utf-8")
    assert "calibration.csv was changed" in refusal(run.folder, tmp_path / "out")
    shutil.rmtree(run.folder / "calibration")
    assert measured(run.folder, load_predictor(run.folder).row).ece is None


LICENCES = {
    "vit_base_patch16_224.mae": ("cc-by-nc-4.0", "timm/vit_base_patch16_224.mae"),
    "scratch": ("unknown", None),
    "vit_base_patch16_224.gone": ("unknown", None),
    "mine.pth": ("unknown", None),
}


@pytest.mark.parametrize("init, expected", LICENCES.items(), ids=LICENCES)
def test_the_licence_is_that_of_the_start(init, expected):
    licence, sentence, base = licence_of(init)
    assert (licence, base) == expected and (init in sentence or "from scratch here" in sentence)


# what cannot be -------------------------------------------------------------------------------------------------


def refusal(folder, to, method="osdtw"):
    """The one line; nothing is left, not even half of it."""
    before = sorted(os.listdir(to.parent))
    with pytest.raises(UserError) as caught:
        export(folder, to, method)
    assert sorted(os.listdir(to.parent)) == before and "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_that_is_there_stays_as_it_is(finished, tmp_path, refused):
    (tmp_path / "there").mkdir()
    assert "there: is there already" in refused("export", finished.folder, tmp_path / "there")
    assert not any((tmp_path / "there").iterdir())


def test_what_is_no_finished_run_is_told(finished_copy, tmp_path, refused):
    run, to = finished_copy(), tmp_path / "out"
    assert "no method 'nice' was trained there; there are stage1" in refused("export", run.folder, to, "--method", "nice")
    network = run.folder / "stage3" / "network.safetensors"
    network.write_bytes(network.read_bytes()[:-1])
    assert "network.safetensors was changed or cut short" in refusal(run.folder, to)
    (run.folder / "stage3" / "manifest.json").unlink()
    assert "no finished Stage 3" in refusal(run.folder, to)


def test_without_onnx_the_extra_is_named(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(library, "NEEDS", ("onnx", "no_such_module"))
    said = refusal(finished.folder, tmp_path / "out")
    assert said == "export needs no_such_module; run: pip install -c constraints.txt -e '.[export]'"


def raising(error):
    def call(*_):
        raise error

    return call


@pytest.mark.parametrize("where", ["pathlib.Path.write_bytes", "osdtw_lib.inference.export._save_onnx"])
def test_a_full_disk_leaves_nothing(given, tmp_path, monkeypatch, where):
    given(*of_random_weights(1))
    monkeypatch.setattr(where, raising(OSError(28, "No space left on device")))
    assert "out: cannot be written (No space left on device)" in refusal("any", tmp_path / "out")


def test_an_interruption_leaves_nothing(given, tmp_path, monkeypatch):
    given(*of_random_weights(1))
    monkeypatch.setattr(library, "_save_onnx", raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        export("any", tmp_path / "out")
    assert not any(tmp_path.iterdir())


def test_scores_that_no_graph_can_say_are_told_in_a_line(given, tmp_path):
    row, network, about = of_random_weights(1)
    scores = row.scores
    row.scores = lambda network, images: scores(network, images) * (2 if float(images.sum()) > 0 else 1)
    given(row, network, about)
    assert "OSDTW refined: torch.export cannot take it" in refusal("any", tmp_path / "out")


def test_a_program_that_computes_something_else_is_not_written(others, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(library, "_save_onnx", lambda program, row, path: shutil.copy(others["ce"] / "model.onnx", path))
    assert "ONNX Runtime's scores differ from PyTorch's by" in refusal(finished.folder, tmp_path / "out")


def test_what_only_helped_to_train_is_left_out(given):
    row, network, about = of_random_weights(1)
    network.register_buffer("queue", torch.full((100, 100), 0.5))
    used = weights(network).keys() - {"queue"}
    network.teacher = torch.nn.Linear(100, 100)
    program = library.traced(library.Scores(row, network), given(row, network, about))
    assert weights(network).keys() == used
    assert not [name for name in program.state_dict if "teacher" in name or "queue" in name]
