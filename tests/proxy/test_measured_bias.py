"""The measured bias against building each merged network and running it whole."""

import copy
import math

import numpy as np
import pytest
import torch
from several_processes import together

from osdtw_lib.backend import distributed
from osdtw_lib.backend.timm_import import timm
from osdtw_lib.models.likelihoods import task_likelihoods
from osdtw_lib.models.vit import depth_of
from osdtw_lib.proxy.exact import Proxy
from osdtw_lib.proxy.measured_bias import direct_bias, stratified_sample

COUNTS = np.array([40, 30, 20, 10, 5, 2])
TASKS = {"head": np.arange(3), "tail": np.arange(3, 6)}
LAM = 0.05


def setting():
    torch.manual_seed(0)
    vit = timm.models.vision_transformer.VisionTransformer
    networks = {
        t: vit(img_size=8, patch_size=4, in_chans=1, embed_dim=8, depth=3, num_heads=2, num_classes=3, global_pool="avg")
        for t in TASKS
    }
    for network in networks.values():
        network.double().eval()
        for p in network.parameters():
            p.data += 0.3 * torch.randn_like(p)
    fishers = {t: {n: torch.rand_like(p) ** 4 for n, p in net.named_parameters()} for t, net in networks.items()}
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 3, 3, 4, 5])
    images = torch.randn(10, 1, 8, 8, dtype=torch.float64)
    batches = [(images[:6], labels[:6]), (images[6:], labels[6:])]
    return networks, fishers, task_likelihoods("bernoulli", COUNTS, TASKS), batches


def by_hand(networks, fishers, likelihoods, batches, depth, weight, power=1):
    """(training, balanced, prediction) of one cell, every network built whole."""
    images, labels = (torch.cat(parts) for parts in zip(*batches))
    excess = torch.zeros(len(labels), dtype=torch.float64)
    own_scores, scores = [], []
    for task, network in networks.items():
        merged = copy.deepcopy(network)
        for name, p in merged.named_parameters():
            if depth_of(network)[name] <= depth:
                a, b = weight * (fishers["head"][name] + LAM) ** power, (1 - weight) * (fishers["tail"][name] + LAM) ** power
                own = {t: dict(net.named_parameters())[name] for t, net in networks.items()}
                p.data = (a * own["head"] + b * own["tail"]) / (a + b)
        with torch.no_grad():
            excess += likelihoods[task](network(images), labels) - likelihoods[task](merged(images), labels)
            own_scores.append(network(images))
            scores.append(merged(images))
    means = torch.stack([excess[labels == k].mean() for k in range(6)])
    added = [torch.log_softmax(torch.cat(s, 1), 1)[torch.arange(len(labels)), labels] for s in (own_scores, scores)]
    added = torch.stack([(added[0] - added[1])[labels == k].mean() for k in range(6)])
    return float(means @ torch.as_tensor(COUNTS / COUNTS.sum())), float(means.mean()), float(added.mean())


@pytest.mark.parametrize("power", [1, 2, 0.5])
def test_every_cell_equals_the_network_built_whole(power):
    networks, fishers, likelihoods, batches = setting()
    table = direct_bias(networks, fishers, likelihoods, batches, COUNTS, LAM, power, (0.0, 0.3, 1.0))
    assert len(table) == 4 * 3
    for row in table.itertuples():
        expected = by_hand(networks, fishers, likelihoods, batches, row.shared_depth, row.head_weight, power)
        assert np.allclose([row.bias_training, row.bias_balanced, row.bias_prediction], expected, rtol=1e-9, atol=1e-12)
    assert table["bias_balanced"].abs().max() > 1e-3


def test_sharing_nothing_costs_nothing():
    table = direct_bias(*setting(), COUNTS, LAM, head_weights=(0.5,)).set_index("shared_depth")
    assert (table.loc[0, ["bias_training", "bias_balanced", "standard_error_training", "standard_error_balanced"]] == 0).all()


def test_the_standard_error_covers_the_spread_of_samples_drawn_again():
    rng = np.random.default_rng(0)
    population = [rng.normal(k, 1 + k, 400) for k in range(3)]
    counts = np.array([400, 400, 400])
    from osdtw_lib.proxy.measured_bias import estimates

    draws = []
    for _ in range(400):
        excess = np.concatenate([rng.choice(p, 40, replace=False) for p in population])
        both = torch.from_numpy(np.stack([excess, 3 * excess], axis=1))  # (n, 2): of the tasks, of the prediction
        draws.append(estimates(both, np.repeat(np.arange(3), 40), counts))
    draws = np.array(draws)
    # 400 draws: the spread is known to about 1 / sqrt(800) = 3.5 %
    assert math.isclose(draws[:, 2].std(), draws[:, 3].mean(), rel_tol=0.12)
    assert np.allclose(draws[:, 4:], 3 * draws[:, 2:4])


def test_one_image_of_a_class_leaves_its_spread_to_the_others():
    from osdtw_lib.proxy.measured_bias import estimates

    counts = np.array([500, 500, 1])
    labels = np.array([0] * 20 + [1, 2])
    excess = torch.randn(22, 2, generator=torch.Generator().manual_seed(0)).double()
    variance = float(excess[:20, 0].var())
    wanted = math.sqrt(sum(variance / n * (1 - n / 500) / 9 for n in (20, 1)))  # of the third class, nothing is left out
    assert math.isclose(estimates(excess, labels, counts)[3], wanted, rel_tol=1e-12)
    assert np.isnan(estimates(excess[19:], labels[19:], counts)[[1, 3, 5]]).all()  # one image each: nobody knows


def test_the_sample_is_even_over_classes_and_fixed_by_its_seed():
    labels = np.repeat(np.arange(4), [100, 50, 6, 2])
    chosen = stratified_sample(labels, 40, seed=3)
    assert np.bincount(labels[chosen]).tolist() == [16, 16, 6, 2]
    assert len(set(chosen.tolist())) == 40 and (np.diff(chosen) > 0).all()
    assert (chosen == stratified_sample(labels, 40, seed=3)).all()
    assert (chosen != stratified_sample(labels, 40, seed=4)).any()
    assert len(stratified_sample(labels, 10_000, seed=0)) == len(labels)
    assert np.bincount(labels[stratified_sample(labels, 2, seed=0)]).tolist() == [1, 1, 1, 1]


class Memory:
    def __init__(self, stop_after):
        self.saved, self.left = None, stop_after

    def save(self, tensors, state):
        self.saved, self.left = ({n: t.clone() for n, t in tensors.items()}, dict(state)), self.left - 1
        if self.left == 0:
            raise KeyboardInterrupt

    def load(self):
        return self.saved


def test_a_run_that_was_stopped_goes_on_and_ends_the_same():
    whole = direct_bias(*setting(), COUNTS, LAM, 1, (0.1, 0.5, 0.9))
    memory = Memory(stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        direct_bias(*setting(), COUNTS, LAM, 1, (0.1, 0.5, 0.9), checkpoint=memory)
    assert direct_bias(*setting(), COUNTS, LAM, 1, (0.1, 0.5, 0.9), checkpoint=memory).equals(whole)


def _write(folder):
    direct_bias(*setting(), COUNTS, LAM, 1, (0.1, 0.5, 0.9)).to_csv(f"{folder}/{distributed.rank()}.csv", index=False)


@pytest.mark.journey
def test_two_processes_give_what_one_gives(tmp_path):
    together(_write, (tmp_path,), 2)
    expected = direct_bias(*setting(), COUNTS, LAM, 1, (0.1, 0.5, 0.9)).to_csv(index=False)
    assert all((tmp_path / f"{rank}.csv").read_text() == expected for rank in range(2))


def test_the_direct_form_takes_its_bias_from_the_measurement():
    networks, fishers, likelihoods, batches = setting()
    measured = direct_bias(networks, fishers, likelihoods, batches, COUNTS, LAM, 1, (0.0, 0.5, 1.0))
    measured = measured.rename(columns={"bias_balanced": "bias"})
    depths = depth_of(networks["head"])
    own = {t: dict(net.named_parameters()) for t, net in networks.items()}
    mismatch = {n: (own["tail"][n] - p).detach() for n, p in own["head"].items() if depths[n] <= 3}
    search = Proxy(fishers["head"], fishers["tail"], mismatch, depths, 100)
    direct = search.grid(head_weights=[0.0, 0.25, 0.5], form="direct", damping=LAM, measured_bias=measured)
    damped = search.grid(head_weights=[0.0, 0.25, 0.5], form="damped", damping=LAM)
    assert (direct["encoder_variance"] == damped["encoder_variance"]).all()
    at = {(r.shared_depth, r.head_weight): r.bias for r in measured.itertuples()}
    for row in direct.itertuples():
        expected = at.get((row.shared_depth, row.head_weight), (at[row.shared_depth, 0.0] + at[row.shared_depth, 0.5]) / 2)
        assert math.isclose(row.encoder_bias, expected, abs_tol=1e-12)
    with pytest.raises(ValueError, match="measured_bias"):
        search.grid(form="direct")
    with pytest.raises(ValueError, match="does not cover"):
        search.grid(head_weights=[0.5], form="direct", measured_bias=measured[measured["head_weight"] < 0.4])
