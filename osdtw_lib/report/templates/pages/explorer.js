// The explorer without a kernel. `terms` mirrors ProxySummary.terms_by_depth, `cells` Search.grid, `bestWeight` grid.best_weight
// and `arrays` linked_figures.arrays, in double precision; the figures themselves come with the page.
(function () {
  "use strict";
  const root = document.currentScript.parentElement;
  const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
  const weights = Array.from({ length: 101 }, (_, i) => i / 100);
  const TERMS = ["encoder_variance", "encoder_bias", "decoder_variance"];
  const L = data.n_depths;
  const encoder = unpack(data.encoder), decoders = unpack(data.decoders);

  function unpack(table) {
    const columns = { rows: table.rows };
    for (const [name, text] of Object.entries(table)) {
      if (name === "rows") continue;
      const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
      columns[name] = Float64Array.from(new Float32Array(bytes.buffer));
    }
    return columns;
  }

  // variance and bias [W] of the encoder's bins from..to, twice in nats: with h = w a + v b + lam, both are sums of
  // numbers of the bin alone by h^2
  function sums(from, to, form, lam) {
    const size = to - from, a = encoder.a.subarray(from, to), b = encoder.b.subarray(from, to);
    const [forA, forB, pullA, pullB] = Array.from({ length: 4 }, () => new Float64Array(size));
    let plainA = 0, plainB = 0;
    for (let k = 0; k < size; k++) {
      const A = a[k], B = b[k], n = encoder.count[from + k], DA = encoder.d2a[from + k], DB = encoder.d2b[from + k];
      forA[k] = n * (A + B) * A; pullA[k] = DA * (B + lam) ** 2; plainA += DA;
      forB[k] = n * (A + B) * B; pullB[k] = DB * (A + lam) ** 2; plainB += DB;
    }
    const variance = [], bias = [];
    for (const w of weights) {
      const v = 1 - w;
      let varA = 0, varB = 0, biasA = 0, biasB = 0;
      for (let k = 0; k < size; k++) {
        const inverse = 1 / (w * a[k] + v * b[k] + lam), r = inverse * inverse;
        varA += forA[k] * r; varB += forB[k] * r; biasA += pullA[k] * r; biasB += pullB[k] * r;
      }
      const spread = w * w * varA + v * v * varB;
      variance.push(Number.isNaN(spread) ? Infinity : spread); // h = 0: one Fisher is nought and has all the weight
      if (form === "paper" || v === 0 || w === 0) bias.push(v * v * plainA + w * w * plainB);
      else bias.push(v * v * biasA + w * w * biasB);
    }
    return { variance, bias };
  }

  // variance [L][W], bias [L][W], decoder [L + 1]: each depth alone, in nats
  function terms(form, lam) {
    const half = 2 * data.n_samples, variance = [], bias = [], decoder = [];
    let row = 0;
    for (const rows of encoder.rows) {
      const found = sums(row, row + rows, form, lam);
      variance.push(found.variance.map((x) => x / half));
      bias.push(found.bias.map((x) => x / 2));
      row += rows;
    }
    row = 0;
    for (let depth = 0; depth <= L; depth++) {
      let sum = 0;
      for (const end = row + decoders.rows[depth]; row < end; row++) {
        const j = decoders.j[row], share = form === "paper" || lam === 0 ? 1 : j / (j + lam);
        sum += decoders.count[row] * share * share;
      }
      decoder.push(sum / half);
    }
    return { variance, bias, decoder };
  }

  // the measured bias at a depth, linear between the weights it was measured at
  function measured(depth, w) {
    const x = data.bias.head_weight[depth], y = data.bias.bias[depth];
    let i = x.findIndex((known) => known >= w);
    if (i < 0) i = x.length - 1;
    if (i === 0 || x[i] === w) return y[i];
    return y[i - 1] + ((y[i] - y[i - 1]) / (x[i] - x[i - 1])) * (w - x[i - 1]);
  }

  // {term: [C][W]} for C = 0..L
  function cells(form, damping) {
    const lam = form === "paper" ? 0 : damping, t = terms(form, lam);
    const table = { encoder_variance: [], encoder_bias: [], decoder_variance: [], total: [] };
    for (let C = 0; C <= L; C++) {
      const decoder = t.decoder.slice(C).reduce((x, y) => x + y, 0);
      const row = weights.map((w, i) => {
        let variance = 0, bias = 0;
        for (let d = 0; d < C; d++) { variance += t.variance[d][i]; bias += t.bias[d][i]; }
        return [variance, form === "direct" ? measured(C, w) : bias, decoder];
      });
      TERMS.forEach((term, k) => table[term].push(row.map((r) => r[k])));
      table.total.push(row.map((r) => r[0] + r[1] + r[2]));
    }
    return table;
  }

  const finite = (values) => values.map((v) => (Number.isFinite(v) ? v : null));

  // the places of 0 < w < 1 whose total at a depth is the smallest but for rounding
  function least(totals) {
    const inner = weights.map((_, i) => i).filter((i) => i > 0 && i < 100 && Number.isFinite(totals[i]));
    const smallest = Math.min(...inner.map((i) => totals[i]));
    return inner.filter((i) => totals[i] <= smallest + 1e-9 * Math.abs(smallest));
  }

  // the place of the best head weight at a depth; of equals that nearest to the best of the nearest depth that has one; or -1
  function bestWeight(total, C) {
    const tied = least(total[C]);
    if (tied.length < 2) return tied.length ? tied[0] : -1;
    const others = total.map((_, depth) => depth).filter((depth) => depth !== C);
    others.sort((x, y) => Math.abs(x - C) - Math.abs(y - C) || x - y);
    const beside = others.map((depth) => least(total[depth])).find((found) => found.length === 1);
    const goal = beside ? beside[0] : 50;
    return tied.reduce((best, i) => (Math.abs(i - goal) < Math.abs(best - goal) ? i : best));
  }

  function smallest(totals) {
    let best = -1;
    totals.forEach((v, i) => { if (Number.isFinite(v) && (best < 0 || v < totals[best])) best = i; });
    return best;
  }

  function stack(x, pick, here, best) {
    const total = finite(pick("total"));
    const at = x.indexOf(here), point = (i) => (i < 0 ? { x: [], y: [] } : { x: [x[i]], y: [total[i]] });
    return [...TERMS.map((term) => ({ y: finite(pick(term)) })), { y: total }, point(best), point(at)];
  }

  function marginal(table, i) {
    const variance = (C) => table.encoder_variance[C][i] + table.decoder_variance[C][i];
    return Array.from({ length: L }, (_, C) => ({
      saves: variance(C) - variance(C + 1), costs: table.encoder_bias[C + 1][i] - table.encoder_bias[C][i],
    }));
  }

  function arrays(table, { depth, hundredths }) {
    const depths = Array.from({ length: L + 1 }, (_, C) => C), steps = marginal(table, hundredths);
    const at = (term) => depths.map((C) => table[term][C][hundredths]);
    const tenths = Array.from({ length: 11 }, (_, i) => 10 * i);
    return {
      map: [{ z: tenths.map((i) => finite(depths.map((C) => table.total[C][i]))) }, {}, { x: [depth], y: [weights[hundredths]] }],
      over_depth: stack(depths, at, depth, smallest(at("total"))),
      over_weight: stack(weights, (term) => table[term][depth], weights[hundredths], bestWeight(table.total, depth)),
      marginal: [{ y: finite(steps.map((s) => s.saves)) }, { y: finite(steps.map((s) => s.costs)) }, { x: [depth + 1], y: [0] }],
    };
  }

  const digits = (value, n) => (Number.isFinite(value) ? String(Number(value.toPrecision(n))) : "not finite");

  function rule(table, { depth, hundredths }) {
    if (depth === L) return `All ${L} blocks are shared; there is no next one.`;
    const { saves, costs } = marginal(table, hundredths)[depth];
    if (!Number.isFinite(saves) || !Number.isFinite(costs)) return `Sharing block ${depth + 1}: the proxy is not finite at this weight.`;
    const worth = saves > costs ? "worth it" : "not worth it";
    return `Sharing block ${depth + 1} saves ${digits(saves, 3)} and costs ${digits(costs, 3)} nats: ${worth}.`;
  }

  // state and page ---------------------------------------------------------------------------------------------

  const form = root.querySelector("form"), damping = form.elements.damping;
  const state = {
    depth: data.selected.shared_depth, hundredths: Math.round(100 * data.selected.head_weight),
    form: data.selected.form, damping: data.start_damping,
  };
  const computed = new Map();

  function table() {
    const key = `${state.form} ${state.form === "paper" ? 0 : state.damping}`;
    if (!computed.has(key)) {
      if (computed.size > 30) computed.clear();
      computed.set(key, cells(state.form, state.damping));
    }
    return computed.get(key);
  }

  function show(name, html) { root.querySelector(`[data-show="${name}"]`).innerHTML = html; }

  function draw() {
    const now = table(), changes = arrays(now, state), w = weights[state.hundredths];
    const at = Object.fromEntries([...TERMS, "total"].map((term) => [term, now[term][state.depth][state.hundredths]]));
    for (const [view, traces] of Object.entries(changes)) {
      const figure = data.figures[view];
      figure.data = figure.data.map((trace, i) => Object.assign({}, trace, traces[i]));
      Plotly.react(root.querySelector(`[data-view="${view}"]`), figure.data, figure.layout, { responsive: true, displaylogo: false });
    }
    const parts = TERMS.map((term) => `${term.replace("_", " ")} ${digits(at[term], 4)}`).join(" + ");
    show("depth", state.depth);
    show("weight", w.toFixed(2));
    show("damping", state.form === "paper" ? "none in this form" : digits(state.damping, 3));
    show("cell", `C = ${state.depth}, w<sub>A</sub> = ${w.toFixed(2)}: ${parts} = <b>${digits(at.total, 4)} nats</b>`);
    show("network", data.schematics[state.depth]);
    show("rule", rule(now, state));
    show("command", `${data.command} --set selection.shared_depth=${state.depth} --set selection.head_weight=${w}`);
    damping.disabled = state.form === "paper";
    root.explorer = { state, cell: at, table: now }; // for whoever wants the numbers, and for the tests
  }

  let waiting = false;
  form.addEventListener("input", (event) => {
    const { name, value } = event.target;
    if (name === "depth") state.depth = Number(value);
    if (name === "weight") state.hundredths = Math.round(100 * Number(value));
    if (name === "form") state.form = value;
    if (name === "damping") state.damping = data.evidence * Math.pow(10, Number(value));
    if (!waiting) requestAnimationFrame(() => { waiting = false; draw(); });
    waiting = true;
  });
  form.reset(); // browsers keep a form's values over a reload
  Plotly.newPlot(root.querySelector('[data-view="by_depth"]'), data.figures.by_depth.data, data.figures.by_depth.layout, { responsive: true, displaylogo: false });
  draw();
})();
