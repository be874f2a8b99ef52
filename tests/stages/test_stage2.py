"""Stage 2 from the merge of Stage 1's encoders: what it begins with, how long it trains, and whose key it is in."""

import torch

from osdtw_lib.config.load import load_config
from osdtw_lib.models.vit import depth_of
from osdtw_lib.planning.steps import steps_of
from osdtw_lib.proxy.measured_bias import merged_encoder
from osdtw_lib.stages import execute
from osdtw_lib.stages.networks import stage1_networks, stage2_network
from osdtw_lib.stages.proxy_inputs import merge_of
from osdtw_lib.stages.run import Run
from osdtw_lib.stages.stage2 import merged

FROM_MERGE = {"stage2.from_merge": 1, "direct": {"damping": 0.5}}


def test_the_papers_way_has_nothing_of_it_in_its_key(finished):
    artifact = finished.artifact("stage2")
    assert "from_merge" not in artifact.parameters["stage2"] and "merge" not in artifact.parameters
    assert [one.name for one in artifact.inputs] == ["start"]


def test_it_begins_with_both_encoders_merged_under_both_heads(finished_copy):
    run = finished_copy(FROM_MERGE)
    networks, weight = stage1_networks(run), 0.4
    begun, expected = merged(run, weight), merged_encoder(networks, *merge_of(run)[:1], weight, 0.5, 2.0)
    depths, heads = depth_of(begun.head), 0
    for task in ("head", "tail"):
        for name, parameter in getattr(begun, task).named_parameters():
            shared = depths[name] <= begun.shared_depth
            heads += not shared
            torch.testing.assert_close(parameter, (expected if shared else networks[task]).get_parameter(name), rtol=0, atol=0)
    assert begun.shared_depth == run.n_depths and heads


def test_it_trains_so_long_and_everything_but_stages_2_and_3_stays_done(finished_copy):
    run = finished_copy(FROM_MERGE)
    for stage in ("direct", "proxy", "stage2", "stage3"):
        execute(run, stage)
    assert len(run.artifact("stage2").table("curves")) == 1
    assert [one.name for one in run.artifact("stage2").inputs] == ["start", "stage1", "fisher"]
    assert all(run.artifact(name).why_not_done() is None for name in ("stage1", "fisher", "baselines/ce"))
    begun, trained = merged(run, 0.4), stage2_network(run)
    moved = [not torch.equal(p, trained.get_parameter(n)) for n, p in begun.named_parameters()]
    assert any(moved)


def test_the_plan_counts_what_it_trains(finished):
    config = finished.config
    shorter = config.model_copy(update={"stage2": config.stage2.model_copy(update={"from_merge": 1})})
    epochs = [{step.name: step.epochs for step in steps_of(c, 10)} for c in (config, shorter)]
    assert (epochs[0]["stage2"], epochs[1]["stage2"]) == (2, 1)
    assert {n: e for n, e in epochs[0].items() if n != "stage2"} == {n: e for n, e in epochs[1].items() if n != "stage2"}


def test_a_merge_of_another_kind_is_another_stage_2(params):
    settings = ({"power": 1.0}, {"power": 2.0}, {"power": 2.0, "damping": 0.1})
    runs = [Run(load_config(params({"stage2.from_merge": 1, "direct": direct}))) for direct in settings]
    assert len({run.artifact("stage2").key for run in runs}) == 3
