"""The campaign's short form, a handful of each kind; and that the campaign itself can fail."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from reliability import mutants, yaml_core
from reliability.campaign import PARTS
from reliability.runs import Answer, digests, same, sound
from reliability.trials import Failed, NotTried, Trial, fork, nothing_left, run_trials, wait


@pytest.fixture(scope="module")
def short(tmp_path_factory, project):
    """What the short form counted, from a process of its own: it forks, and this one may have threads."""
    out = tmp_path_factory.mktemp("reliability")
    command = [sys.executable, str(project / "tests" / "reliability" / "campaign.py"), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return json.loads((out / "campaign.json").read_text())


@pytest.mark.parametrize("part", PARTS)
def test_the_short_form_passes(short, part):
    tried = [name for name in short["seconds"] if name.startswith(f"{part}/")]
    failed = [f"{o['name']}: {o['said']}" for o in short["failures"] if o["name"].startswith(f"{part}/")]
    assert tried and not failed, "\n".join(failed)


# that it can fail -------------------------------------------------------------------------------------------


def outcomes(tmp_path, **works):
    trials = [Trial("kind", name, work, limit=2) for name, work in works.items()]
    return {o.name: o for o in run_trials(trials, 0, tmp_path, 2, lambda outcome: None)}


def fails(place):
    raise Failed("not so")


def stumbles(place):
    raise ValueError("a stone in the way")


def hangs(place):
    time.sleep(60)


def dies(place):
    os.kill(os.getpid(), signal.SIGKILL)


def cannot(place):
    raise NotTried("no rights")


def test_every_way_to_fail_is_counted(tmp_path):
    works = {f.__name__: f for f in (fails, stumbles, hangs, dies, cannot)}
    found = outcomes(tmp_path, **works, passes=lambda place: "refused")
    assert {name: o.state for name, o in found.items()} == {
        "fails": "failed",
        "stumbles": "failed",
        "hangs": "failed",
        "dies": "failed",
        "cannot": "not tried",
        "passes": "passed",
    }
    assert found["fails"].said == "not so" and "a stone in the way" in found["stumbles"].said
    assert "no answer" in found["hangs"].said and found["passes"].said == "refused"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dies", "fails", "hangs", "stumbles"]  # kept, to be looked at


def test_a_trial_repeats_itself_by_seed_and_name(tmp_path):
    def draw(place):
        return str(place.random.random())

    first, again = outcomes(tmp_path, one=draw, two=draw), outcomes(tmp_path, one=draw, two=draw)
    assert first["one"].said == again["one"].said != first["two"].said


def test_a_process_left_behind_is_noticed_and_ended(tmp_path):
    def leaves(place):
        victim = fork(lambda: subprocess.Popen(["sleep", "60"]) and 0, place.folder / "victim.txt")
        wait(victim, 5)
        nothing_left(victim, 0.2)

    found = outcomes(tmp_path, leaves=leaves)["leaves"]
    assert found.state == "failed" and "1 processes are still there" in found.said and "sleep 60" in found.said


def test_another_bit_is_another_table(finished, finished_copy):
    expected = digests(finished.folder)
    copy = finished_copy().folder
    same(copy, expected)
    path = copy / "tables" / "accuracy.csv"
    path.write_bytes(path.read_bytes()[:-2] + b"9\n")
    with pytest.raises(Failed, match="other than it was: tables/accuracy.csv"):
        same(copy, expected)
    path.unlink()
    with pytest.raises(Failed, match="missing: tables/accuracy.csv"):
        same(copy, expected)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(None, "", "Traceback (most recent call last):\nKeyError: 'x'\n"),
        Answer(0, "Traceback (most recent call last):\n", ""),
        Answer(1, "", "error: x\n"),
        Answer(2, "", "error: x\nmore\n"),
        Answer(2, "", ""),
        Answer(2, "", "usage: x\n"),
    ],
)
def test_what_is_no_sound_answer(answer):
    with pytest.raises(Failed):
        sound(answer, "split")


def test_a_value_taken_for_another_is_noticed():
    given = yaml_core.read("seed: 010\nstage1: {epochs: 0x1F}\ndevice: on\nbetas: [.5, 1e-3]\nname: '3'\n")
    assert given == {"seed": 10, "stage1": {"epochs": 31}, "device": "on", "betas": [0.5, 1e-3], "name": "3"}
    assert yaml_core.differs(given, given | {"more": 1}) is None
    assert "seed" in yaml_core.differs(given, given | {"seed": 8})
    assert "device" in yaml_core.differs(given, given | {"device": True})
    with pytest.raises(yaml_core.Unclear):
        yaml_core.read("seed: !!int '3'")


def test_mutants_differ_and_repeat_themselves():
    data = bytes(range(200))
    changed = [mutants.of_bytes(data, random.Random(n)) for n in range(50)]
    assert changed == [mutants.of_bytes(data, random.Random(n)) for n in range(50)]
    assert len(set(changed)) > 45 and sum(c == data for c in changed) <= 2
