"""Intervals and tests on cases small enough to count by hand, and how often the intervals hold the truth."""

import time

import numpy as np
import pytest
from scipy import stats

from osdtw_lib.evaluation.intervals import (
    holm,
    image_bootstrap,
    noise_of_two,
    LEAST_DOF,
    SeedNoise,
    paired_test,
    seed_noise,
    strata,
    stretch,
    two_way_bootstrap,
    verdicts,
    who_wins,
    wilson,
)

pytestmark = pytest.mark.filterwarnings("error")

# right minus right of two rows, 3 seeds, 2 classes of 3 images
DIFFERENCE = np.array([[1, 0, 0, 0, 1, 0], [0, 0, 1, 0, 1, 1], [1, 0, 0, -1, 1, 0]])
LABELS = np.array([0, 0, 0, 1, 1, 1])


def rows(seed=0, n_seeds=5, n=200, n_classes=4, gain=0.1, seed_noise=0.03):
    """Two rows; the true difference is gain. Most images are easy or hard, half of them for both rows alike; seeds drift."""
    rng = np.random.default_rng(seed)
    chance = 0.04 + 0.72 * rng.beta(0.3, 0.3, (2, 1, n))
    chance[1] = np.where(rng.random(n) < 0.5, chance[0], chance[1])
    drift = rng.uniform(-seed_noise, seed_noise, (2, n_seeds, 1))
    right = rng.random((2, n_seeds, n)) < chance + drift + np.array([gain, 0])[:, None, None]
    return right[0], right[1], np.arange(n) % n_classes


def of(table, metric):
    return table.set_index("metric").loc[metric, ["value", "low", "high"]].tolist()


def test_holm_by_hand():
    # sorted: 0.005 * 4, 0.01 * 3, 0.03 * 2, and 0.04 * 1 is raised to the one before it
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]).tolist() == [1, 1]
    assert holm([]).tolist() == []
    one, unknown = holm([0.01, np.nan])
    assert one == 0.02 and np.isnan(unknown)


@pytest.mark.parametrize("right, n", [(0, 1), (1, 1), (0, 30), (30, 30), (73, 100), (876, 1000)])
def test_wilsons_interval_is_scipys(right, n):
    expected = stats.binomtest(right, n).proportion_ci(method="wilson")
    assert wilson(right, n) == pytest.approx((100 * expected.low, 100 * expected.high), abs=1e-9)
    assert 0 <= wilson(right, n)[0] < wilson(right, n)[1] <= 100


@pytest.mark.parametrize("right, n", [(0, 0), (2, 1), (-1, 5)])
def test_counts_that_are_no_share_have_no_interval(right, n):
    with pytest.raises(ValueError, match="needs an image"):
        wilson(right, n)


@pytest.mark.parametrize("metric", ["class_mean", "all"])
def test_the_paired_test_by_hand(metric):
    found = paired_test(DIFFERENCE > 0, DIFFERENCE < 0, LABELS, metric, noise=SeedNoise(0.0, LEAST_DOF))
    assert found.per_seed.tolist() == pytest.approx([100 * 2 / 6, 100 * 3 / 6, 100 * 1 / 6])
    assert found.mean == pytest.approx(100 / 3)
    u = ((1 / 6) ** 2 + 0 + (1 / 6) ** 2) / 2 / 3
    # images averaged over seeds: class 0 is 2/3, 0, 1/3 with mean 1/3; class 1 is -1/3, 1, 1/3 with mean 1/3
    v = (2 * (1 / 3) ** 2 + 2 * (2 / 3) ** 2) / (6 - 2) / 6
    assert found.u == pytest.approx(1e4 * u) and found.v == pytest.approx(1e4 * v)
    assert found.se == pytest.approx(100 * np.sqrt(u + v)) and found.se == pytest.approx(23.5702, abs=1e-4)
    assert found.dof == pytest.approx((u + v) ** 2 / (u**2 / 2 + v**2 / 4)) and found.dof == pytest.approx(16 / 3)
    alone = paired_test(DIFFERENCE > 0, DIFFERENCE < 0, LABELS, metric)  # of seeds nothing else is known
    assert alone.dof == 2 and alone.se == found.se and alone.p > found.p


def test_p_is_two_sided_students():
    # two seeds at 0 and 50 points and no variance over images averaged over seeds: t = 1 with one degree, so p = 1/2
    a = np.array([[True, True, False, False], [False, False, True, False]])
    b = np.array([[False, False, False, False], [False, False, False, True]])
    labels = np.array([0, 0, 1, 1])
    found = paired_test(a, b, labels)
    assert found.per_seed.tolist() == [50, 0]
    flipped = paired_test(b, a, labels)
    assert (flipped.mean, flipped.p) == (-found.mean, found.p)
    assert found.v == pytest.approx(1e4 * (1 / 4) ** 2 * 2 * (1 / 2))  # class 1 only: 1/2 and -1/2, so s^2 = 1/2
    assert 0 < found.p < 1
    steady = paired_test(a[:, :2], b[:, :2], labels[:2])
    assert steady.v == 0 and steady.dof == 1 and steady.p == pytest.approx(0.5)


def test_the_paired_test_weighs_classes_of_unequal_size_alike():
    a = np.array([[True] * 4 + [False, True]] * 2)
    b = np.zeros_like(a)
    labels = np.array([0, 0, 0, 0, 1, 1])
    found = paired_test(a, b, labels)
    assert found.mean == 75 and paired_test(a, b, labels, "all").mean == pytest.approx(100 * 5 / 6)
    assert found.v == pytest.approx(1e4 * (1 / 4) ** 2 * 2 * (1 / 2))  # only class 1 varies: s^2 = 1/2, weight 1/4 an image
    groups = {"many": [0], "medium": [], "few": [1]}
    assert paired_test(a, b, labels, "few", groups).mean == 50
    with pytest.raises(ValueError, match="no test image"):
        paired_test(a, b, labels, "medium", groups)
    with pytest.raises(ValueError, match="metric is"):
        paired_test(a, b, labels, "few")


def test_a_class_of_one_image_takes_the_pooled_variance_and_all_such_know_nothing():
    a = np.array([[True, False, True]] * 2)
    b = np.zeros_like(a)
    pooled = 1 / 2
    assert paired_test(a, b, [0, 0, 1]).v == pytest.approx(1e4 * (2 / 16 + 1 / 4) * pooled)
    assert np.isnan(paired_test(a, b, [0, 1, 2]).p)


def test_where_nothing_varies_p_is_the_sign_tests():
    sure, none = np.ones((3, 8), bool), np.zeros((3, 8), bool)
    labels = np.arange(8) % 2
    assert paired_test(sure, none, labels).p == pytest.approx(2 / 2**8)
    assert paired_test(sure, sure, labels).p == 1
    assert paired_test(sure[:, :4], none[:, :4], labels[:4]).p == pytest.approx(2 / 2**4)  # four images decide nothing


def test_one_seed_has_no_p():
    a, b, labels = rows(n_seeds=1)
    found = paired_test(a, b, labels)
    assert np.isnan([found.u, found.se, found.dof, found.p]).all() and found.v > 0
    with pytest.raises(ValueError, match="at least two"):
        two_way_bootstrap(a, labels)
    table = who_wins({"a": np.ones_like(a), "b": np.zeros_like(a)}, labels)
    assert (table["verdict"] == "undecided").all() and table[["p", "p_adjusted"]].isna().all(axis=None)


def test_the_image_interval_is_the_normal_ones_where_that_holds():
    a, b, labels = rows(n_seeds=1, n=1000, n_classes=10)
    value, low, high = of(image_bootstrap(a, labels, minus=b), "class_mean")
    d = a[0].astype(float) - b[0]
    half = 196 * np.sqrt(np.mean([d[labels == k].var() for k in range(10)]) / 1000)
    assert value == pytest.approx(100 * d.mean())
    assert (high - value, value - low) == pytest.approx((half, half), rel=0.05)


def test_the_two_way_interval_is_as_wide_as_the_test_says():
    a, b, labels = rows(n_seeds=10, n=1000, n_classes=10)
    test = paired_test(a, b, labels)
    _, low, high = of(two_way_bootstrap(a, labels, minus=b), "class_mean")
    assert high - low == pytest.approx(2 * 1.96 * test.se, rel=0.2)
    _, inner_low, inner_high = of(image_bootstrap(a, labels, minus=b), "class_mean")
    assert inner_high - inner_low < high - low


def test_seeds_alone_vary_by_their_variance_with_one_less():
    a = np.zeros((4, 20), bool)
    a[0] = True  # every image the same, so images add nothing: values 100, 0, 0, 0
    labels = np.arange(20) % 2
    value, low, high = of(two_way_bootstrap(a, labels), "all")
    # 0 to 3 of 4 draws are the first (4 of them: 1 in 256), stretched by sqrt(4 / 3) around 25 and cut at 0
    assert (value, low) == (25, 0) and high == pytest.approx(25 + np.sqrt(4 / 3) * 50)


@pytest.mark.parametrize("seed_noise, at_most", [(0.08, 0.99), (0.02, 1.0)])
def test_the_two_way_interval_covers_the_truth(seed_noise, at_most):
    """Where seeds hardly drift, luck of single images is most of what differs between them, and it is too wide."""
    inside = 0
    for seed in range(200):
        a, b, labels = rows(seed, seed_noise=seed_noise)
        _, low, high = of(two_way_bootstrap(a, labels, minus=b, resamples=1000, seed=seed), "class_mean")
        inside += low <= 10 <= high
    assert 0.90 <= inside / 200 <= at_most


def test_the_paired_test_rarely_sees_what_is_not_there():
    p = [paired_test(*rows(seed, gain=0.0)).p for seed in range(400)]
    assert np.mean(np.array(p) < 0.05) < 0.075


def alike(draw, n_rows=14, n_seeds=3, n=3000, spread=0.0):
    """Rows of which none is better: what a seed does to one of them is its own luck; spread: how unlike their luck is."""
    rng = np.random.default_rng(draw)
    size = 0.02 * np.exp(spread * rng.normal(size=(n_rows, 1, 1)))
    luck = size * rng.normal(size=(n_rows, n_seeds, 1))
    hard = rng.normal(0, 0.3, n)
    return {str(i): rng.random((n_seeds, n)) < 0.7 + hard + luck[i] for i in range(n_rows)}, np.arange(n) % 4


@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_a_table_of_few_seeds_rarely_decides_what_is_not_there(spread):
    decided, taken_at_their_word = 0, 0
    for draw in range(40):
        table, labels = alike(draw, spread=spread)
        decided += (who_wins(table, labels, resamples=2)["verdict"] != "undecided").any()
        pairs = [(a, b) for a in table for b in table if a < b]
        tests = [paired_test(table[a], table[b], labels, noise=SeedNoise(0.0, LEAST_DOF)) for a, b in pairs]
        taken_at_their_word += (holm([test.p for test in tests]) < 0.05).any()
    assert decided <= 4 < taken_at_their_word, (decided, taken_at_their_word)


def test_the_noise_of_seeds_is_what_row_and_seed_leave_over():
    """Two rows have their difference's; of many, whatever all of them do at a seed is no noise, and the mean is the truth."""
    table, labels = alike(0, n_rows=5, n_seeds=4)
    accuracy = {name: 100 * np.stack([right[:, labels == k].mean(1) for k in range(4)]).mean(0) for name, right in table.items()}
    two = seed_noise(np.stack([table["0"], table["1"]]), labels)
    half = (accuracy["0"] - accuracy["1"]).var(ddof=1) / 2
    assert [noise.variance for noise in two] == pytest.approx([half, half]) and [noise.dof for noise in two] == [3, 3]
    assert [noise.dof for noise in seed_noise(np.stack(list(table.values())), labels)] == [7] * 5  # 4 of the median, 3 of its own
    draws = [np.stack(list(alike(draw, 9, 4, n=400)[0].values())) for draw in range(60)]
    found = [noise.variance for rows in draws for noise in seed_noise(rows, np.arange(400) % 4)]
    alone = 1e4 * np.mean([rows.mean(2).var(1, ddof=1) for rows in draws])
    assert np.mean(found) == pytest.approx(alone, rel=0.1)  # nothing is done to all rows here
    two = noise_of_two(SeedNoise(1.0, 7), SeedNoise(3.0, 7))
    assert two.variance == 2 and two.dof == pytest.approx(16 / (10 / 7))
    a, b = table["0"], table["1"]
    small, large = paired_test(a, b, labels, noise=SeedNoise(0.0, 12)), paired_test(a, b, labels, noise=SeedNoise(90.0, 12))
    assert small.u == paired_test(a, b, labels).u and large.u == pytest.approx(2 * 90 / 4) and large.p > small.p
    assert paired_test(a, b, labels).dof <= 3 < small.dof  # without a table the seeds' own degrees are all there are


def test_a_row_whose_seeds_are_far_apart_says_nothing_of_two_others():
    """Beside rows that vary little one that varies by tens of points: p of the others' pairs stays what it was."""
    table, labels = alike(0, n_rows=8, n_seeds=3)
    right = alike(1, n_rows=1)[0]["0"]
    wild = {"wild": right & (np.random.default_rng(0).random(right.shape) < np.array([0.3, 0.9, 0.6])[:, None])}
    before, after = (who_wins(rows, labels, resamples=2).set_index(["row", "other"])["p"] for rows in (table, table | wild))
    after = after.loc[before.index]
    assert (after / before).between(0.5, 2).all()


@pytest.mark.parametrize("images", [1, 2, 3])
def test_the_image_interval_covers_the_truth_where_classes_have_few_images(images):
    """60 classes, each with a chance of its own; of one image a class their own differences count as chance too."""
    chance, inside = np.random.default_rng(images).beta(4, 2, 60), 0
    labels = np.repeat(np.arange(60), images)
    for seed in range(200):
        right = np.random.default_rng((seed, images)).random((1, len(labels))) < chance[labels]
        _, low, high = of(image_bootstrap(right, labels, resamples=500, seed=seed), "class_mean")
        inside += low <= 100 * chance.mean() <= high
    assert inside / 200 >= 0.9


def test_classes_of_one_image_are_redrawn_together():
    members = [own.tolist() for own in strata(np.array([0, 1, 1, 2, 3, 3, 3]))]
    assert members == [[0, 3], [1, 2], [4, 5, 6]]
    assert [own.tolist() for own in strata(np.array([0, 1, 1, 3, 3, 3]))] == [[0, 1, 2], [3, 4, 5]]
    assert [own.tolist() for own in strata(np.array([7]))] == [[0]] and stretch(1) == 1


def test_every_metric_is_resampled():
    a, _, labels = rows(n=400, n_classes=20)
    groups = {"many": np.arange(5), "medium": np.arange(5, 20), "few": np.array([], int)}
    table = two_way_bootstrap(a, labels, groups).set_index("metric")
    assert table.index.tolist() == [
        *("all", "class_mean", "many", "medium", "few"),
        *("worst_class", "worst_tenth", "harmonic_mean", "harmonic_mean_smoothed"),
    ]
    assert table.loc["few"].isna().all()
    full = table.drop(index="few")
    assert (full["low"] < full["high"]).all() and (full["low"] >= 0).all() and (full["high"] <= 100).all()
    assert "many" not in two_way_bootstrap(a, labels)["metric"].tolist()


def test_all_right_and_all_wrong_have_no_width():
    sure, labels = np.ones((3, 12), bool), np.arange(12) % 3
    table = two_way_bootstrap(sure, labels).set_index("metric")
    assert (table.drop(index="harmonic_mean_smoothed") == 100).all(axis=None)
    table = two_way_bootstrap(~sure, labels).set_index("metric")
    assert (table.drop(index="harmonic_mean_smoothed") == 0).all(axis=None)
    assert (two_way_bootstrap(sure, labels, minus=~sure).set_index("metric").loc[["all", "worst_class"]] == 100).all(axis=None)


def test_a_class_without_test_images_changes_nothing():
    a, b, labels = rows()
    gap = np.where(labels == 3, 7, labels)  # 3 to 6 have no image
    for metric in ("class_mean", "worst_class", "harmonic_mean"):
        assert of(two_way_bootstrap(a, gap, minus=b), metric) == pytest.approx(of(two_way_bootstrap(a, labels, minus=b), metric))
    assert paired_test(a, b, gap).p == pytest.approx(paired_test(a, b, labels).p, rel=1e-12)


def test_the_order_of_images_and_rows_changes_nothing():
    a, b, labels = rows()
    shuffled = np.random.default_rng(1).permutation(len(labels))
    one = two_way_bootstrap(a, labels, minus=b)
    assert one.equals(two_way_bootstrap(a[:, shuffled], labels[shuffled], minus=b[:, shuffled]))
    assert one.equals(two_way_bootstrap(a, labels, minus=b)) and not one.equals(two_way_bootstrap(a, labels, minus=b, seed=1))
    table = who_wins({"a": a, "b": b, "c": a & b}, labels, resamples=500)
    other = {"c": (a & b)[:, shuffled], "a": a[:, shuffled], "b": b[:, shuffled]}
    again = who_wins(other, labels[shuffled], resamples=500)
    pair = ["row", "other"]
    assert table.sort_values(pair, ignore_index=True).equals(again.sort_values(pair, ignore_index=True))
    assert again["row"].unique().tolist() == ["c", "a", "b"]  # as given


def test_who_wins_goes_both_ways_round():
    a, b, labels = rows(n=1000, n_classes=10, gain=0.2)
    table = who_wins({"better": a, "worse": b, "twin": b.copy()}, labels, resamples=2000).set_index(["row", "other"])
    assert len(table) == 6
    there, back = table.loc[("better", "worse")], table.loc[("worse", "better")]
    assert (there["verdict"], back["verdict"]) == ("wins", "loses")
    assert (there["low"], there["difference"], there["high"]) == (-back["high"], -back["difference"], -back["low"])
    assert there["low"] < there["difference"] < there["high"]
    twin = table.loc[("worse", "twin")]
    assert twin[["difference", "low", "high", "p", "p_adjusted", "verdict"]].tolist() == [0, 0, 0, 1, 1, "undecided"]
    noise = seed_noise(np.stack([a, b, b]), labels)
    assert there["p"] == paired_test(a, b, labels, noise=noise_of_two(*noise[:2])).p
    assert there["p_adjusted"] == pytest.approx(3 * there["p"])  # of three pairs


def test_a_p_that_only_holm_makes_too_large_decides_nothing():
    for seed in range(100):
        a, b, labels = rows(seed, gain=0.04)
        table = who_wins({"a": a, "b": b, "twin": b}, labels, resamples=100)
        if 0.02 < table["p"][0] < 0.05:
            break
    assert (table["verdict"] == "undecided").all() and verdicts(table["difference"], table["p"])[0] != "undecided"


def test_who_wins_needs_two_rows_and_the_same_seeds_and_images():
    a, b, labels = rows()
    assert who_wins({"a": a}, labels).empty
    with pytest.raises(ValueError, match="share seeds and images"):
        who_wins({"a": a, "b": b[:3]}, labels)
    with pytest.raises(ValueError, match="labels"):
        who_wins({"a": a, "b": b}, labels[1:])
    with pytest.raises(TypeError, match="predictions == labels"):
        image_bootstrap(labels[None], labels)
    with pytest.raises(ValueError, match="neither empty"):
        image_bootstrap(np.zeros((2, 0), bool), np.array([], int))


def test_ten_thousand_resamples_take_seconds_at_most():
    a, b, labels = rows(n=1000, n_classes=10)
    start = time.process_time()
    two_way_bootstrap(a, labels, minus=b)
    assert time.process_time() - start < 5
