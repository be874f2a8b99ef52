"""torch.compile: one graph a network, none at an epoch's end, a line where nothing can be compiled."""

import os
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from osdtw_lib.artifacts.artifact import Artifact
from osdtw_lib.backend import torch_compile
from osdtw_lib.backend.threads import cores
from osdtw_lib.backend.torch_compile import OneSize, can_compile, compile_networks
from osdtw_lib.config.schema import Config, Digits, MaskedAutoencoding, Model, Recipe, Training
from osdtw_lib.data.batches import Batches
from osdtw_lib.data.source import LabelledImages
from osdtw_lib.models.masked_autoencoder import MaskedAutoencoder
from osdtw_lib.models.vit import build_vit
from osdtw_lib.training.loop import fit
from osdtw_lib.training.phase import Phase

pytestmark = pytest.mark.journey  # long

COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler here (Debian: g++)")
SIZES = {"image_size": 16, "patch_size": 4, "width": 12, "depth": 2, "heads": 2, "channels": 1}
RECIPE = Recipe(batch_size=5, learning_rate=1e-2, compile=True)


@pytest.fixture(autouse=True)
def afresh():
    yield
    can_compile.cache_clear()
    torch.compiler.reset()


def autoencoder():
    torch.manual_seed(0)
    settings = MaskedAutoencoding(decoder_width=8, decoder_depth=1, decoder_heads=2)
    return MaskedAutoencoder(build_vit(Model(**SIZES), 3), settings)


def graphs(backend_calls, network, phase, tmp_path, epochs=3):
    """Of a training over epochs whose last part is a smaller one."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 1), dtype=np.uint8)
    config = Config.model_construct(seed=0, data=Digits(dataset="digits"), recipe=RECIPE)
    batches = Batches(LabelledImages(pixels, np.arange(12) % 3), config, (16, 16), 3)
    checkpoint = Artifact("x", tmp_path, {}).making().__enter__().checkpoint("training")
    fit(network, phase(Training(epochs=epochs)), batches, RECIPE, checkpoint, 11, "test")
    return len(backend_calls)


@pytest.fixture
def counted(monkeypatch):
    """counted(network) compiles by a backend that runs a graph as it is; returns the list that graphs are noted in."""
    noted = []

    def backend(graph, inputs):
        noted.append([tuple(t.shape) for t in inputs if isinstance(t, torch.Tensor)])
        return graph.forward

    def call(network):
        torch.compiler.reset()
        network.compile(backend=backend)
        return noted

    return call


def test_masked_autoencoding_is_one_graph_whatever_is_hidden(counted, tmp_path):
    network = autoencoder()
    losses = lambda network, part: {"error": network(part.images)}  # noqa: E731
    assert graphs(counted(network), network, lambda length: Phase(length, losses), tmp_path) == 1
    torch.compiler.reset()
    explained = torch._dynamo.explain(autoencoder())(torch.rand(3, 1, 16, 16))
    assert explained.graph_break_count == 0 and explained.graph_count == 1


def test_the_last_part_of_an_epoch_compiles_nothing_anew(counted, tmp_path):
    torch.manual_seed(0)
    network = build_vit(Model(**SIZES), 3, 0.1)
    losses = lambda network, part: {"loss": nn.functional.cross_entropy(network(part.images), part.labels)}  # noqa: E731
    noted = counted(network)
    assert graphs(noted, network, lambda length: Phase(length, losses), tmp_path) == 1
    assert (5, 1, 16, 16) in noted[0]


def test_without_compiling_sizes_do_not_matter():
    for size in (4, 2, 4):
        with OneSize(False)(size):
            pass


def test_where_nothing_can_be_compiled_it_is_said_once_and_trained_all_the_same(monkeypatch, capsys, tmp_path):
    def no_compiler(*_, **__):
        raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.\nmore lines")

    monkeypatch.setattr(torch, "compile", no_compiler)
    network = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    for _ in range(2):
        compile_networks(network)
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and said.startswith(
        "torch.compile cannot be used here, training is slower: it needs a C compiler"
    )
    assert "Failed to find C compiler" in said and network["a"](torch.ones(1, 2)).shape == (1, 2)
    assert network["a"]._compiled_call_impl is None


@COMPILER
@pytest.mark.journey
def test_each_network_of_several_is_compiled_by_itself():
    network = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    compile_networks(network)
    assert all(one._compiled_call_impl for one in network.values()) and network._compiled_call_impl is None
    assert torch_compile.can_compile("cpu")


def test_what_is_compiled_is_kept_where_the_user_said_or_at_home(monkeypatch, tmp_path):
    names = ("TORCHINDUCTOR_CACHE_DIR", "TORCHINDUCTOR_COMPILE_THREADS")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    torch_compile._keep()
    assert [os.environ[name] for name in names] == [str(tmp_path / "osdtw" / "inductor"), str(cores())]
    monkeypatch.setenv(names[0], "elsewhere")
    torch_compile._keep()
    assert os.environ[names[0]] == "elsewhere"
    for name in names:
        monkeypatch.delenv(name)
