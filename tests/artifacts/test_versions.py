"""Another version of a library that can change results makes a stage stale, and is named."""

import json

import pytest

from osdtw_lib.artifacts import manifest as module
from osdtw_lib.artifacts.artifact import Artifact
from osdtw_lib.artifacts.manifest import DECIDING, own_checksum, versions


@pytest.fixture
def made(tmp_path):
    artifact = Artifact("stage", tmp_path, {"epochs": 2})
    with artifact.making() as writer:
        writer.text("a.txt", "a")
    return artifact


def recorded(artifact, change):
    path = artifact.folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["versions"] = change(manifest["versions"])
    manifest["checksum"] = own_checksum(manifest)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("library", DECIDING)
def test_a_stage_made_with_another_version_is_stale(made, library):
    now = ".".join(versions()[library].split(".")[:2])
    recorded(made, lambda v: v | {library: "0.7.1"})
    assert made.why_not_done() == f"stale: {library} 0.7 -> {now}"


def test_a_repair_of_a_library_another_build_and_another_python_are_none(made):
    recorded(made, lambda v: {name: f"{'.'.join(now.split('.')[:2])}.99+cu999" for name, now in v.items()} | {"python": "3.99.1"})
    assert made.why_not_done() is None


def test_a_version_that_was_not_recorded_is_not_compared(made):
    recorded(made, lambda v: {name: v[name] for name in ("python", "torch", "timm", "numpy")})
    assert made.why_not_done() is None


def test_another_parameter_is_said_before_another_version(made, monkeypatch):
    monkeypatch.setattr(module, "versions", lambda: versions() | {"torch": "99.1"})
    assert made.why_not_done().endswith("-> 99.1")
    assert Artifact("stage", made.folder, {"epochs": 3}).why_not_done() == "stale: epochs 2 -> 3"
