"""The index pages: links, tables that sort and can be copied, and how they print."""

import re
from pathlib import Path

import pandas as pd
import pytest

from osdtw_lib.report.page import page_script


@pytest.fixture(params=["index.html", "../index.html"])
def index(request, batch):
    return (batch[3].folder / request.param).resolve()


def test_every_link_leads_somewhere(index, tab):
    page = tab(index)
    links = page.evaluate("[...document.querySelectorAll('a[href]')].map(a => a.href)")
    assert len(links) >= 7
    for link in links:
        target = link.removeprefix("file://").split("#")[0]
        assert link.startswith("file://") and Path(target).exists(), link


@pytest.mark.parametrize("width", [800, 1440])
def test_the_page_of_all_runs_fits_the_window(batch, tab, width):  # a run's own: test_static_explorer.py
    page = tab((batch[3].folder / "../index.html").resolve(), width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.fixture(scope="module")
def report(batch, kept_tab):
    """A run's page, which tests take one after the other."""
    return kept_tab(batch[3].folder / "index.html")


def test_tables_are_copied_as_csv_and_as_latex(batch, report):
    page = report
    page.evaluate(
        "Object.defineProperty(navigator, 'clipboard', {value: {writeText: async (words) => { window.copied = words; }}})"
    )
    accuracy = pd.read_csv(batch[3].folder / "tables" / "accuracy.csv").set_index("method")["all"]
    page.locator("button", has_text="copy CSV").first.click()
    lines = page.evaluate("copied").splitlines()
    assert lines[0] == "method,many,medium,few,all,class mean,worst class,harmonic mean of groups" and lines[-1].startswith(
        "OSDTW refined,-,"
    )
    assert float(lines[-1].split(",")[4]) == pytest.approx(accuracy["osdtw"], abs=0.051)
    page.locator("button", has_text="copy LaTeX").first.click()
    latex = page.evaluate("copied")
    assert latex.startswith("\\begin{tabular}{lrrrrrrr}\n\\toprule\nmethod & many & medium & few & all & class mean & ")
    assert latex.endswith("\\bottomrule\n\\end{tabular}\n") and latex.count("\\\\") == 8


def test_tables_sort_by_any_column_both_ways_with_what_is_missing_last(report):
    table = report.locator("table").first

    def column(number):
        return table.locator(f"tbody tr td:nth-child({number})").all_inner_texts()

    for _ in range(2):
        table.locator("th button").nth(4).press("Enter")
        numbers = [float(v) for v in column(5)]
        way = table.locator("th").nth(4).get_attribute("aria-sort")
        assert numbers == sorted(numbers, reverse=way == "descending") and len(set(numbers)) > 1
    table.locator("th button").nth(1).click()  # no class is that large
    assert set(column(2)) == {"-"}
    table.locator("th button").first.click()
    assert column(1) == sorted(column(1), key=str.lower)


def test_latex_and_csv_escape_what_needs_it(tmp_path, tab):
    (tmp_path / "empty.html").write_text(f'<meta charset="utf-8"><script>{page_script()}</script>', encoding="utf-8")
    page = tab(tmp_path / "empty.html")
    made = page.evaluate(
        """() => {
            const table = document.createElement('table');
            table.innerHTML = '<thead><tr><th>w_A</th><th>a, "b"</th></tr></thead>'
                + '<tbody><tr><td>5 % &amp; $</td><td>1</td></tr></tbody>';
            return [tableText.csv(table), tableText.latex(table)];
        }"""
    )
    assert made[0] == 'w_A,"a, ""b"""\n5 % & $,1\n'
    assert 'w\\_A & a, "b" \\\\' in made[1] and "5 \\% \\& \\$ & 1 \\\\" in made[1]


def test_what_is_printed_has_every_figure_whole(batch, tab, tmp_path):
    page = tab(batch[3].folder / "index.html")
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    widths = page.evaluate(
        "[...document.querySelectorAll('.js-plotly-plot .main-svg')].map(s => s.getBoundingClientRect().width)"
    )
    assert widths and max(widths) <= 681
    assert page.evaluate("[...document.querySelectorAll('figure')].every(f => getComputedStyle(f).breakInside === 'avoid')")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.querySelector('.js-plotly-plot .main-svg').getBoundingClientRect().width") > 700
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "report.pdf").read_bytes())) >= 4


def test_means_with_their_errors_sort_as_numbers(tmp_path, tab):
    values = "14.4 ± 1.4", "0.7 ± 0.3", "-", "-0.11 ± 0.06", "2.6 (1.0 to 3.0)"
    cells = "".join(f"<tr><td>{value}</td></tr>" for value in values)
    table = f"<table><thead><tr><th>regret</th></tr></thead><tbody>{cells}</tbody></table>"
    (tmp_path / "t.html").write_text(f'<meta charset="utf-8"><script>{page_script()}</script>{table}', encoding="utf-8")
    page = tab(tmp_path / "t.html")
    page.locator("th button").click()
    order = [text.split()[0] for text in page.locator("tbody td").all_inner_texts()]
    assert order == ["-0.11", "0.7", "2.6", "14.4", "-"]
