"""The explorer in the page, without a kernel and without a network, against Python."""

import json
import re

import numpy as np
import pytest

from osdtw_lib.explorer.load import load_landscape
from osdtw_lib.explorer.state import in_words, marginal, marginal_rule

TERMS = ("encoder_variance", "encoder_bias", "decoder_variance", "total")
PLACES = ["04_proxy_explorer.html", "index.html"]


@pytest.fixture(scope="session")
def landscape(batch):
    return load_landscape(batch[3])


@pytest.fixture(scope="module", params=PLACES)
def opened(request, batch, kept_tab):
    page = kept_tab(batch[3].folder / request.param)
    page.wait_for_function("document.querySelector('.explorer')?.explorer")
    return page, dict(state(page))


@pytest.fixture
def page(opened):
    """With every control as it was when the page was opened."""
    page, first = opened
    page.evaluate(
        """() => {
            const form = document.querySelector('.explorer form');
            form.reset();
            for (const control of form.elements)
                if (control.name && (control.type !== 'radio' || control.checked))
                    control.dispatchEvent(new Event('input', {bubbles: true}));
        }"""
    )
    settle(page)
    assert {k: v if isinstance(v, str) else pytest.approx(v, rel=1e-12) for k, v in first.items()} == state(page)
    return page


def state(page):
    return page.evaluate("document.querySelector('.explorer').explorer.state")


def cells(page):
    """{term: (C, w_A)} as the page computed it."""
    script = "JSON.stringify(document.querySelector('.explorer').explorer.table, (k, v) => v === Infinity ? 'inf' : v)"
    return {term: np.array(rows, dtype=float) for term, rows in json.loads(page.evaluate(script)).items()}


def drawn(page, view):
    """The traces that a figure of the page shows now."""
    return page.evaluate(
        f"document.querySelector('[data-view={view}]').data.map(t => ({{name: t.name, x: t.x, y: t.y, z: t.z}}))"
    )


def choose_form(page, form):
    page.locator(f"input[value={form}]").check()
    settle(page)


def press(page, slider, key, times=1):
    page.locator(f"input[name={slider}]").focus()
    for _ in range(times):
        page.keyboard.press(key)
    settle(page)


def settle(page):
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def expected(landscape, form, damping):
    table = landscape.cells(form, damping)
    return {term: table[term].to_numpy().reshape(landscape.n_depths + 1, -1) for term in TERMS}


@pytest.mark.parametrize("form", ["paper", "damped", "direct"])
def test_every_cell_of_every_form_is_pythons(page, landscape, form):
    choose_form(page, form)
    found, wanted = cells(page), expected(landscape, form, state(page)["damping"])
    for term in TERMS:
        assert (np.isinf(found[term]) == np.isinf(wanted[term])).all()
        assert np.allclose(found[term], wanted[term], rtol=1e-6, atol=0), term


def test_the_damping_slider_changes_the_numbers_as_python_does(page, landscape):
    choose_form(page, "damped")
    before = cells(page)["total"]
    press(page, "damping", "ArrowLeft", 20)
    damping = state(page)["damping"]
    assert damping == pytest.approx(landscape.summary.evidence() / 10, rel=1e-9)
    assert np.allclose(cells(page)["total"], expected(landscape, "damped", damping)["total"], rtol=1e-6, atol=0)
    assert not np.allclose(cells(page)["total"], before, rtol=1e-6)


def test_both_sliders_move_marker_numbers_and_words_by_keyboard(page, landscape):
    assert (state(page)["depth"], state(page)["hundredths"]) == (2, 40)
    star = drawn(page, "map")[1]
    press(page, "depth", "ArrowLeft")
    press(page, "weight", "ArrowRight", 7)
    assert (state(page)["depth"], state(page)["hundredths"]) == (1, 47)
    selected, current = drawn(page, "map")[1:]
    assert selected == star and (selected["x"], selected["y"]) == ([2], [0.4])
    assert (current["name"], current["x"], current["y"]) == ("current", [1], [0.47])
    over_depth = landscape.over_depth("damped", state(page)["damping"], 0.47)
    shown = page.locator(".readout").inner_text()
    for value in over_depth.iloc[1][list(TERMS)]:
        assert any(float(word) == pytest.approx(value, rel=1e-3) for word in re.findall(r"\d[\d.e-]*\b", shown)), shown
    assert "C = 1" in shown and "0.47" in shown and in_words(over_depth.iloc[1]).endswith("nats</b>")
    rule = page.locator("[data-show=rule]").inner_text()
    assert [w for w in rule.split() if not w[0].isdigit()] == [
        w for w in marginal_rule(over_depth, 1).split() if not w[0].isdigit()
    ]
    assert "selection.shared_depth=1 --set selection.head_weight=0.47" in page.locator("[data-show=command]").inner_text()


def test_the_views_are_linked(page, landscape):
    choose_form(page, "direct")
    press(page, "weight", "ArrowRight", 3)
    press(page, "depth", "ArrowRight")
    damping = state(page)["damping"]
    over_depth = landscape.over_depth("direct", damping, 0.43)
    over_weight = landscape.over_weight("direct", damping, 3)
    for view, table, over in (("over_depth", over_depth, "shared_depth"), ("over_weight", over_weight, "head_weight")):
        traces = {trace["name"].split(",")[0]: trace for trace in drawn(page, view)}  # "minimum, by hundredths"
        finite = np.isfinite(table["total"].to_numpy())
        for term in TERMS:
            y = np.array(traces[term.replace("_", " ")]["y"], dtype=float)
            assert np.allclose(y[finite], table[term].to_numpy()[finite], rtol=1e-6, atol=0)
        best = table.loc[table.loc[finite, "total"].idxmin()]
        assert traces["minimum"]["x"] == [best[over]] and traces["minimum"]["y"] == [pytest.approx(best["total"], rel=1e-6)]
        assert traces["current"]["y"] == [pytest.approx(landscape.over_depth("direct", damping, 0.43)["total"].iloc[3], rel=1e-6)]
    saves, costs, _ = drawn(page, "marginal")
    assert np.allclose(saves["y"], marginal(over_depth)["saves"], rtol=1e-4, atol=1e-12)
    assert np.allclose(costs["y"], marginal(over_depth)["costs"], rtol=1e-4, atol=1e-12)


def test_cells_that_are_not_finite_are_left_to_the_grey_behind(page, landscape):
    choose_form(page, "paper")
    z = np.array(drawn(page, "map")[0]["z"], dtype=float)
    assert (
        np.isnan(z)
        == ~np.isfinite(landscape.map("paper", 0.0).pivot(index="head_weight", columns="shared_depth", values="total"))
    ).all(axis=None)
    assert page.evaluate("document.querySelector('[data-view=map]').layout.plot_bgcolor") == "#999999"


def test_the_network_is_drawn_with_its_cost(page, landscape):
    for presses in range(2):
        depth = 2 + presses
        assert page.locator(".network").inner_html() == page.evaluate(
            "html => Object.assign(document.createElement('div'), {innerHTML: html}).innerHTML", landscape.schematic(depth)
        )
        press(page, "depth", "ArrowRight")


@pytest.mark.parametrize("width", [800, 1440])
def test_nothing_is_cut_off(batch, tab, width):
    for place in PLACES:
        page = tab(batch[3].folder / place, width)
        page.wait_for_function("document.querySelector('.explorer')?.explorer")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("[...document.querySelectorAll('.js-plotly-plot')].every(p => p.scrollWidth <= p.clientWidth + 1)")
