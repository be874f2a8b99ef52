// Tables that sort by column and can be copied as CSV or LaTeX, and figures that fit the paper they are printed on.
(function () {
  "use strict";
  const PAPER = 680; // pixels between the margins of an A4 or letter page
  const text = (cell) => cell.textContent.trim().replace(/\s+/g, " ");
  const rows = (table) => Array.from(table.rows, (row) => Array.from(row.cells, text)).filter((row) => row.some(Boolean));

  const csv = (table) =>
    rows(table).map((row) => row.map((v) => (/[",\n]/.test(v) ? `"${v.replace(/"/g, '""')}"` : v)).join(",")).join("\n") + "\n";

  const SPECIAL = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}" };
  const escaped = (value) => value.replace(/[\\~^&%$#_{}]/g, (c) => SPECIAL[c] || `\\${c}`);

  function latex(table) {
    const [head, ...body] = rows(table), line = (row) => `${row.map(escaped).join(" & ")} \\\\`;
    return [`\\begin{tabular}{l${"r".repeat(head.length - 1)}}`, "\\toprule", line(head), "\\midrule", ...body.map(line),
      "\\bottomrule", "\\end{tabular}", ""].join("\n");
  }

  async function copy(words, button) {
    try {
      await navigator.clipboard.writeText(words);
    } catch (_) { // not allowed, or a page that is not served safely
      const area = document.body.appendChild(Object.assign(document.createElement("textarea"), { value: words }));
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    const label = button.textContent;
    button.textContent = "copied";
    setTimeout(() => { button.textContent = label; }, 1200);
  }

  function sort(table, column, th) {
    const down = th.getAttribute("aria-sort") === "ascending";
    for (const other of th.parentElement.cells) other.removeAttribute("aria-sort");
    th.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => text(row.cells[column]), number = (v) => (v === "" ? NaN : Number(v.split(/ \(| ±/)[0]));
    const missing = (v) => v === "-" || v === "not run" || v === "";
    const order = (p, q) => {
      const [x, y] = [value(p), value(q)];
      if (missing(x) || missing(y)) return missing(x) - missing(y); // last, whichever way
      const [a, b] = [number(x), number(y)];
      const by = Number.isNaN(a) || Number.isNaN(b) ? x.localeCompare(y) : a - b;
      return down ? -by : by;
    };
    const body = table.tBodies[0];
    body.append(...Array.from(body.rows).sort(order));
  }

  function enliven(table) {
    Array.from(table.tHead.rows[0].cells).forEach((th, column) => {
      if (!text(th)) return;
      const button = document.createElement("button");
      button.className = "sort";
      button.title = "sort by this column";
      button.append(...th.childNodes);
      button.addEventListener("click", () => sort(table, column, th));
      th.append(button);
    });
    const bar = document.createElement("div");
    bar.className = "copy";
    for (const [label, made] of [["copy CSV", csv], ["copy LaTeX", latex]]) {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: label });
      button.addEventListener("click", () => copy(made(table), button));
      bar.append(button);
    }
    table.after(bar);
  }

  function figures(change) {
    if (!window.Plotly) return;
    for (const plot of document.querySelectorAll(".js-plotly-plot")) change(plot);
  }

  document.addEventListener("DOMContentLoaded", () => {
    for (const table of document.querySelectorAll("table")) if (table.tHead && table.tBodies.length) enliven(table);
  });
  addEventListener("beforeprint", () => figures((plot) => Plotly.relayout(plot, { autosize: false, width: PAPER })));
  addEventListener("afterprint", () => figures((plot) => Plotly.relayout(plot, { autosize: true, width: null })));
  window.tableText = { csv, latex }; // for the tests
})();
