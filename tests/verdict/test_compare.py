"""Tables and the sentence of the verdict from rows whose answer is known."""

import numpy as np
import pytest

from osdtw_lib.verdict import compare

LABELS = np.repeat(np.arange(4), 50)
GROUPS = {"many": np.array([0]), "medium": np.array([1, 2]), "few": np.array([3])}


def rows(name, share, seeds=(0, 1, 2), budget="epochs", passes=40.0):
    """A row a seed with this share of right answers, the wrong ones spread evenly."""
    found = []
    for seed in seeds:
        random = np.random.default_rng((seed, len(name)))
        wrong = random.permutation(len(LABELS))[: round((1 - share) * len(LABELS))]
        predicted = LABELS.copy()
        predicted[wrong] = (predicted[wrong] + 1) % 4
        metrics = dict.fromkeys(compare.OTHERS, 0.5 + seed)
        cost = {"passes": passes, "flops": passes and 3e9, "seconds": 2.0, "parameters": 100, "forwards": 1.0}
        found.append({"row": name, "title": name.upper(), "seed": seed, "budget": budget, "predicted": predicted.tolist()})
        found[-1]["ours"] = name in ("osdtw", "stage1")
        found[-1] |= {"metrics": metrics, "cost": cost}
    return found


def both(*named):
    made = [row for one in named for row in one]
    return compare.summary(made, LABELS, GROUPS, "epochs"), compare.matrix(made, LABELS, GROUPS, "epochs")


def test_a_line_a_row_the_best_first_with_its_interval():
    table, _ = both(rows("ce", 0.6), rows("osdtw", 0.8), rows("la", 0.7, seeds=(0,)))
    assert table["row"].tolist() == ["osdtw", "la", "ce"] and table["seeds"].tolist() == [3, 1, 3]
    assert table["class_mean"].round(6).tolist() == [80.0, 70.0, 60.0]
    assert (table["class_mean_low"] < table["class_mean"]).all() and (table["class_mean"] < table["class_mean_high"]).all()
    assert table["nll"].tolist() == [1.5, 0.5, 1.5] and table["nll_low"].isna().tolist() == [False, True, False]
    half = 0.95 * np.sqrt(2 / (4 * 0.975 * 0.025)) / np.sqrt(3)  # t of two degrees of freedom; 0.5, 1.5 and 2.5 deviate by one
    np.testing.assert_allclose(table.loc[0, ["nll_low", "nll_high"]].astype(float), [0, 1.5 + half], rtol=1e-12)
    assert half > 1.5 and table.loc[0, "seeds"] == 3  # a likelihood is not below 0
    assert table["flops"].tolist() == [3e9] * 3


def test_flops_that_were_not_counted_stay_unknown():
    table, _ = both(rows("osdtw", 0.8, passes=None))
    assert table["passes"].isna().all()
    assert " -- &" in compare.latex(table)


def test_rows_of_another_budget_are_not_mixed_in():
    table, _ = both(rows("osdtw", 0.8), rows("ce", 0.9, budget="osdtw"))
    assert table["row"].tolist() == ["osdtw"]


def test_where_osdtw_loses_the_first_words_say_so():
    said = compare.verdict(*both(rows("osdtw", 0.6), rows("la", 0.9), rows("ce", 0.5), rows("stage1", 0.95)))
    assert said.startswith("OSDTW loses: 1 of 2 other methods is ahead of it, first LA with 90.0 % (-30.0 points for OSDTW")
    assert "a clear loss" in said and "all pairs taken together: 1 won, 1 lost, 0 undecided" in said
    assert "Two seeds" not in said and said.endswith("With 3 seeds intervals are rough.")


def test_osdtws_pairs_alone_decide_what_all_pairs_leave_open():
    others = [rows(f"m{'o' * i}", 0.70) for i in range(8)]
    table, wins = both(rows("osdtw", 0.77), *others)
    own = wins[wins["row"] == "osdtw"]
    assert (own["p"] < 0.05 / 8).any() and (own["p_adjusted"] > 0.05).any()  # between the two corrections
    alone = compare.verdicts(own["difference"], compare.holm(own["p"]))
    assert f"alone taken together: {alone.count('wins')} won, 0 lost" in compare.verdict(table, wins)
    assert alone.count("wins") > (own["verdict"] == "wins").sum()


def test_two_seeds_are_said_to_be_few():
    assert "Two seeds are few" in compare.verdict(*both(rows("osdtw", 0.9, seeds=(0, 1)), rows("la", 0.5, seeds=(0, 1))))


def test_where_osdtw_is_ahead_and_where_that_is_undecided():
    said = compare.verdict(*both(rows("osdtw", 0.9), rows("la", 0.6)))
    assert said.startswith("OSDTW is ahead of all 1 other methods, the next being LA with 60.0 %") and "a clear win" in said
    assert "undecided)" in compare.verdict(*both(rows("osdtw", 0.71), rows("la", 0.7)))


def test_one_seed_decides_nothing_and_no_row_of_osdtw_is_no_verdict():
    said = compare.verdict(*both(rows("osdtw", 0.9, seeds=(0,)), rows("la", 0.5, seeds=(0,))))
    assert "undecided" in said and "one seed, images alone" in said
    assert compare.verdict(*both(rows("la", 0.5))) == "OSDTW has no row yet: there is no verdict."
    assert compare.verdict(*both(rows("osdtw", 0.5))).endswith("no other method has a row yet.")
    assert compare.verdict(*both()) == "OSDTW has no row yet: there is no verdict."


def test_pairs_are_compared_over_the_seeds_that_both_have():
    _, wins = both(rows("osdtw", 0.9), rows("la", 0.6, seeds=(1, 2)))
    assert wins.set_index(["row", "other"]).loc[("osdtw", "la"), "difference"] == pytest.approx(30.0)
    assert wins["seeds"].tolist() == [2, 2]
    assert ", each over the seeds both have:" in compare.verdict(*both(rows("osdtw", 0.9), rows("la", 0.6, seeds=(1, 2))))


def test_a_row_of_one_seed_leaves_the_other_pairs_their_seeds():
    named = rows("osdtw", 0.9), rows("la", 0.6), rows("late", 0.7, seeds=(2,))
    _, wins = both(*named)
    wins, (_, alone) = wins.set_index(["row", "other"]), both(*named[:2])
    assert wins.loc[("osdtw", "la"), ["verdict", "seeds"]].tolist() == ["wins", 3]
    assert wins.loc[("la", "osdtw"), "verdict"] == "loses"
    assert wins.loc[("osdtw", "la"), "p_adjusted"] == pytest.approx(3 * alone["p"][0])  # three pairs
    assert wins.loc[("late", "osdtw"), ["verdict", "seeds"]].tolist() == ["undecided", 1]
    assert list(wins.index) == [(a, b) for a in ("osdtw", "la", "late") for b in ("osdtw", "la", "late") if a != b]
    _, apart = both(rows("osdtw", 0.9, seeds=(0, 1)), rows("la", 0.6, seeds=(2,)))
    assert not len(apart)


def test_nothing_yet_is_a_table_with_its_columns():
    table, wins = both()
    assert not len(table) and {"class_mean", "class_mean_low", "passes", "ours"} <= set(table.columns) and not len(wins)


def test_a_method_whose_name_begins_as_ours_is_none_of_ours():
    said = compare.verdict(*both(rows("osdtw", 0.6), rows("stagewise", 0.9)))
    assert said.startswith("OSDTW loses: 1 of 1 other methods is ahead")


def test_what_was_asked_for_and_not_run_is_listed():
    asked = [("ce", "epochs", seed) for seed in (0, 1, 2, 3)] + [("la", "osdtw", 0)]
    table = compare.not_run(asked, rows("ce", 0.5, seeds=(0, 2)), {("la", "osdtw", 0): "it diverged"})
    assert table.to_dict("records") == [
        {"row": "ce", "budget": "epochs", "seeds": "1 3", "why": "not yet"},
        {"row": "la", "budget": "osdtw", "seeds": "0", "why": "it diverged"},
    ]


def test_latex_has_a_line_a_row_and_no_bare_percent():
    table, _ = both(rows("osdtw", 0.8), rows("100 %", 0.7))
    text = compare.latex(table)
    assert text.count(r"\\") == 3 and r"100 \%" in text and "$80.0 \\pm" in text
    table["title"] = ["a #1 $x$ {b}", r"c^2 ~ \d_e | f"]
    assert r"a \#1 \$x\$ \{b\} &" in (text := compare.latex(table))
    assert r"c\textasciicircum{}2 \textasciitilde{} \textbackslash{}d\_e | f &" in text
    assert r"\d_e \| f: 70.0 |" in compare.markdown(table)
