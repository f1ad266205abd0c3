// The page of verdicts: `explore(root, data, options)` builds it inside an element, from plain data (see page.py). It asks nobody
// for anything: no framework, no network. Text from elsewhere becomes text nodes and nothing else. What it gives back ends it.
function explore(root, data, options) {
  "use strict";
  options = Object.assign({ hash: false, full: false }, options);
  const NS = "http://www.w3.org/2000/svg";
  const runs = data.runs, many = runs.length > 1, N = data.names.length;
  const labels = data.labels, known = !!labels && labels.some((y) => y >= 0);
  const defects = data.defects || null, errors = data.errors || {};
  const both = known && labels.includes(0) && labels.includes(1);
  let serial = (explore.serial = (explore.serial || 0) + 1);
  const id = (name) => `g100-${serial}-${name}`;

  // ---- small tools

  function h(tag, attributes, ...children) {
    const element = ["svg", "path", "rect", "line", "circle", "polyline", "g", "text"].includes(tag)
      ? document.createElementNS(NS, tag) : document.createElement(tag);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
      else if (key === "style") for (const [name, told] of Object.entries(value)) name.startsWith("--") ? element.style.setProperty(name, told) : (element.style[name] = told);
      else element.setAttribute(key, value === true ? "" : value);
    }
    element.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return element;
  }
  const fill = (element, ...children) => { element.replaceChildren(...children.flat().filter((child) => child !== null)); return element; };
  const percent = (x, digits = 1) => (x === null || Number.isNaN(x) ? "–" : `${(100 * x).toFixed(digits)} %`);
  const rateText = (x) => `${Number((100 * x).toPrecision(3))} %`;
  const figures = (x) => (x === null || x === undefined ? "–" : String(Number(Number(x).toPrecision(4))));
  const plural = (n, one, more) => `${n.toLocaleString("en")} ${n === 1 ? one : more || `${one}s`}`;
  const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
  const upper = (sorted, x) => { // how many of `sorted` are <= x
    let low = 0, high = sorted.length;
    while (low < high) { const mid = (low + high) >> 1; if (sorted[mid] <= x) low = mid + 1; else high = mid; }
    return low;
  };
  const lower = (sorted, x) => { // how many of `sorted` are < x
    let low = 0, high = sorted.length;
    while (low < high) { const mid = (low + high) >> 1; if (sorted[mid] < x) low = mid + 1; else high = mid; }
    return low;
  };

  // ---- the calibration: scores of good pictures, sorted, and what they promise

  const judged = (run, i) => run.scores[i] !== null;
  const promise = (run, threshold) => (run.calibration.length - upper(run.calibration, threshold) + 1) / (run.calibration.length + 1);
  const least = (run) => 1 / (run.calibration.length + 1);
  function thresholdAt(run, rate) {
    const n = run.calibration.length, beyond = Math.max(1, Math.floor((n + 1) * rate + 1e-9));
    return run.calibration[Math.max(0, n - beyond)];
  }
  for (const run of runs) {
    run.p = run.scores.map((s) => (s === null ? null : (run.calibration.length - lower(run.calibration, s) + 1) / (run.calibration.length + 1)));
  }
  function auroc(run) {
    const pairs = [];
    for (let i = 0; i < N; i++) if (labels[i] >= 0 && judged(run, i)) pairs.push([run.scores[i], labels[i]]);
    pairs.sort((a, b) => a[0] - b[0]);
    let bad = 0, good = 0, below = 0, sum = 0;
    for (let i = 0; i < pairs.length;) {
      let j = i, g = 0, b = 0;
      for (; j < pairs.length && pairs[j][0] === pairs[i][0]; j++) pairs[j][1] ? b++ : g++;
      sum += b * (below + g / 2); below += g; good += g; bad += b; i = j;
    }
    return good && bad ? sum / (good * bad) : null;
  }

  // ---- the state, and its place in the address bar

  const main = runs[0];
  const start = { threshold: main.threshold, rate: data.rate, q: "", verdict: "", truth: "", defect: "",
    sort: many ? (both ? "quarrel" : "p0") : "score", up: false, size: 132, map: true };
  const state = Object.assign({}, start);
  let shown = [], sorted = [], current = -1;
  const thresholds = () => (many ? runs.map((run) => thresholdAt(run, state.rate)) : [state.threshold]);
  let limits = thresholds();
  const called = (r, i) => runs[r].scores[i] > limits[r];

  const HASH = { q: "q", verdict: "verdict", truth: "truth", defect: "defect", sort: "sort" };
  const picture = new Map(data.names.map((name, i) => [name, i]));
  function write() {
    if (!options.hash) return;
    const words = new URLSearchParams();
    if (current >= 0) words.set("picture", data.names[current]);
    for (const [key, word] of Object.entries(HASH)) if (state[key] !== start[key]) words.set(word, state[key]);
    if (state.up) words.set("up", "1");
    if (many ? state.rate !== start.rate : state.threshold !== start.threshold) words.set(many ? "rate" : "threshold", many ? state.rate : state.threshold);
    const text = words.toString();
    try { history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search); } catch { /* not allowed here */ }
  }
  function read() {
    if (!options.hash) return;
    const words = new URLSearchParams(location.hash.slice(1));
    for (const [key, word] of Object.entries(HASH)) state[key] = words.has(word) ? words.get(word) : start[key];
    state.up = words.has("up");
    const number = Number(words.get(many ? "rate" : "threshold"));
    const told = words.has(many ? "rate" : "threshold") && Number.isFinite(number);
    if (many) state.rate = told ? clamp(number, 1e-6, 1) : start.rate; else state.threshold = told ? number : start.threshold;
    const i = words.has("picture") ? picture.get(words.get("picture")) : undefined;
    return i === undefined ? -1 : i;
  }

  // ---- where pictures lie

  const file = (run, kind, i) => {
    if (run.embedded) return run.embedded[kind][i];
    if (run.files) i = run.files[i];
    return `${run.base}/${kind}/${String(i).padStart(6, "0")}.${kind === "map" ? "png" : "jpg"}`;
  };
  const frame = (run, i) => (run.frames && run.frames[i]) || [0, 0, 1, 1];
  const aspect = (i) => { const [w, hgt] = data.sizes[i] || [1, 1]; return w / hgt; };
  function verdictText(i) {
    if (errors[i]) return `cannot be read: ${errors[i]}`;
    return runs.map((run, r) => {
      if (!judged(run, i)) return null;
      const says = `${called(r, i) ? "abnormal" : "good"}, ${many ? `p ${figures(run.p[i])}` : `score ${figures(run.scores[i])}`}`;
      return many ? `${run.name}: ${says}` : says;
    }).filter(Boolean).join("; ");
  }
  function truthText(i, r = 0) {
    if (!known || labels[i] < 0 || !judged(runs[r], i)) return "";
    return called(r, i) ? (labels[i] ? "found" : "false alarm") : (labels[i] ? "miss" : "right");
  }

  // ---- which pictures are shown, in which order

  const SORTS = many
    ? [["quarrel", "disagreement"], ...runs.map((run, r) => [`p${r}`, `p-value of ${run.name}`]), ["name", "name"], ["defect", "defect"]]
    : [["score", "score"], ["p", "p-value"], ["marked", "share marked"], ["name", "name"], ["defect", "defect"]];
  if (!defects) SORTS.pop();
  const quarrel = (i) => { // how far the algorithms are apart, in p-values, undecided ones first
    const ps = runs.map((run) => run.p[i]).filter((p) => p !== null).map((p) => -Math.log(p));
    return ps.length ? Math.max(...ps) - Math.min(...ps) : 0;
  };
  const collator = new Intl.Collator("en", { numeric: true });
  function sort() {
    const order = Array.from({ length: N }, (_, i) => i), key = state.sort;
    let value = (i) => main.scores[i];
    if (key === "name" || key === "defect") {
      const words = key === "name" || !defects ? data.names : defects;
      order.sort((a, b) => collator.compare(words[a], words[b]) || a - b);
    } else {
      if (key === "p") value = (i) => (main.p[i] === null ? null : -main.p[i]);
      else if (key === "marked") value = (i) => main.marked[i];
      else if (key === "quarrel") value = quarrel;
      else if (/^p\d+$/.test(key)) { const run = runs[Number(key.slice(1))] || main; value = (i) => (run.p[i] === null ? null : -run.p[i]); }
      const values = order.map((i) => { const v = value(i); return v === null || v === undefined ? -Infinity : v; });
      order.sort((a, b) => values[b] - values[a] || a - b);
    }
    sorted = state.up ? order.reverse() : order;
  }
  function fits(i) {
    if (state.q && !data.names[i].toLowerCase().includes(state.q.toLowerCase())) return false;
    if (state.defect && (!defects || defects[i] !== state.defect)) return false;
    if (state.verdict === "error") return !!errors[i];
    if (state.verdict === "far") return runs.some((run) => run.far && run.far[i]);
    if (!state.verdict && !state.truth) return true;
    if (errors[i]) return false;
    const calls = runs.map((run, r) => called(r, i));
    if (state.verdict === "abnormal" && !calls.some(Boolean)) return false;
    if (state.verdict === "good" && calls.every(Boolean)) return false;
    if (state.verdict === "split" && (calls.every(Boolean) || !calls.some(Boolean))) return false;
    if (!state.truth) return true;
    if (!known || labels[i] < 0) return false;
    const wrong = calls.map((c) => c !== (labels[i] === 1));
    if (state.truth === "wrong") return wrong.some(Boolean);
    if (state.truth === "alarm") return labels[i] === 0 && wrong.some(Boolean);
    if (state.truth === "miss") return labels[i] === 1 && wrong.some(Boolean);
    if (state.truth === "all") return labels[i] === 1 && wrong.every(Boolean);
    if (state.truth === "found") return labels[i] === 1 && !wrong.some(Boolean);
    if (state.truth === "right") return labels[i] === 0 && !wrong.some(Boolean);
    return !wrong.some(Boolean);
  }

  // ---- the histogram with its slider

  const W = 360, H = 118, PAD = 8;
  const scale = (() => {
    let low = Infinity, high = -Infinity;
    for (const s of main.scores) if (s !== null) { low = Math.min(low, s); high = Math.max(high, s); }
    for (const s of main.calibration) { low = Math.min(low, s); high = Math.max(high, s); }
    if (!(low < high)) { low -= 1; high += 1; }
    const room = (high - low) * 0.01;
    return { low: low - room, high: high + room };
  })();
  const across = (s) => clamp((s - scale.low) / (scale.high - scale.low), 0, 1);
  const STEPS = 2000;
  const tint = h("rect", { class: "tint", y: 0, height: H });
  const mark = h("line", { class: "mark", y1: 0, y2: H });
  function histogram() {
    const bins = 56, counts = [new Array(bins).fill(0), new Array(bins).fill(0)];
    for (let i = 0; i < N; i++) if (judged(main, i)) counts[known && labels[i] === 1 ? 1 : 0][Math.min(bins - 1, Math.floor(across(main.scores[i]) * bins))]++;
    const top = Math.max(1, ...counts[0].map((n, k) => n + counts[1][k]));
    const width = (W - 2 * PAD) / bins, bars = [];
    const tall = (n) => Math.sqrt(n / top) * (H - 14);
    for (let k = 0; k < bins; k++) {
      const sum = counts[0][k] + counts[1][k], all = tall(sum), bad = sum === counts[1][k] ? all : all * counts[1][k] / sum;
      if (counts[0][k]) bars.push(h("rect", { class: "g", x: PAD + k * width, y: H - all, width: width - 1, height: all - bad }));
      if (counts[1][k]) bars.push(h("rect", { class: "b", x: PAD + k * width, y: H - bad, width: width - 1, height: bad }));
    }
    const rug = main.calibration.map((s) => { const x = (PAD + across(s) * (W - 2 * PAD)).toFixed(1); return `M${x} ${H + 3}v6`; }).join("");
    return h("svg", { viewBox: `0 0 ${W} ${H + 10}`, preserveAspectRatio: "none", "aria-hidden": "true" }, tint, ...bars,
      h("path", { class: "rug", d: rug }), mark);
  }
  const slider = h("input", { type: "range", min: 0, max: STEPS, step: 1, id: id("slider"),
    "aria-label": many ? "false-positive rate" : "threshold on the score",
    oninput: () => {
      if (many) moveRate(Math.pow(10, -3 + 3 * slider.value / STEPS)); else move(scale.low + (scale.high - scale.low) * slider.value / STEPS);
    } });
  const scoreBox = h("input", { type: "number", step: "any", id: id("score"), onchange: () => { const v = Number(scoreBox.value); if (scoreBox.value !== "" && Number.isFinite(v)) move(v); else draw(); } });
  const rateBox = h("input", { type: "number", step: "any", min: 0, max: 100, id: id("rate"), onchange: () => { const v = Number(rateBox.value) / 100; if (rateBox.value !== "" && v >= 0 && v <= 1) moveRate(v); else draw(); } });
  const reset = h("button", { type: "button", class: "quiet", onclick: () => { many ? moveRate(start.rate) : move(start.threshold); } }, "Reset");
  const saidNow = h("p", { class: "now", "aria-live": "polite" });
  const promised = h("p", { class: "note" });
  function move(threshold) { state.threshold = threshold; later(); }
  function moveRate(rate) { if (many) state.rate = clamp(rate, 1e-6, 1); else state.threshold = thresholdAt(main, rate); later(); }

  // ---- what follows from the threshold

  function table(r, limit) {
    const run = runs[r], t = { tn: 0, fp: 0, fn: 0, tp: 0, abnormal: 0, judged: 0 };
    for (let i = 0; i < N; i++) {
      if (!judged(run, i)) continue;
      const bad = run.scores[i] > limit;
      t.judged++; if (bad) t.abnormal++;
      if (known && labels[i] >= 0) labels[i] ? (bad ? t.tp++ : t.fn++) : (bad ? t.fp++ : t.tn++);
    }
    const part = (a, b) => (a + b ? a / (a + b) : NaN);
    t.normal = part(t.tn, t.fp); t.recall = part(t.tp, t.fn); t.precision = part(t.tp, t.fp);
    t.f1 = 2 * t.tp + t.fp + t.fn ? 2 * t.tp / (2 * t.tp + t.fp + t.fn) : NaN;
    return t;
  }
  const before = known && !many ? table(0, start.threshold) : null;
  const matrix = h("div", { class: "matrix" });
  const byRun = h("div", { class: "byrun" });
  const values = h("dl", { class: "values" });
  const kinds = h("div", { class: "kinds" });

  function only(changes) { Object.assign(state, { verdict: "", truth: "" }, changes); controls(); refilter(); }
  function drawMatrix(t) {
    const cell = (n, truth, name, wrong) => h("td", {}, h("button", { type: "button", class: wrong ? "wrong" : "", "aria-pressed": String(state.truth === truth),
      title: `show the ${name}`, onclick: () => only({ truth: state.truth === truth ? "" : truth }) }, h("b", {}, n.toLocaleString("en")), h("span", {}, name)));
    fill(matrix, h("table", {}, h("caption", { class: "hidden" }, "Confusion matrix: truth in the rows, verdict in the columns"),
      h("thead", {}, h("tr", {}, h("td", {}), h("th", { scope: "col" }, "called good"), h("th", { scope: "col" }, "called abnormal"))),
      h("tbody", {}, h("tr", {}, h("th", { scope: "row" }, "good"), cell(t.tn, "right", "right", false), cell(t.fp, "alarm", "false alarms", t.fp > 0)),
        h("tr", {}, h("th", { scope: "row" }, "abnormal"), cell(t.fn, "miss", "misses", t.fn > 0), cell(t.tp, "found", "found", false)))));
  }
  function drawValues(t) {
    const rows = known ? [["normal recall", t.normal], ["abnormal recall", t.recall], ["precision", t.precision], ["F1", t.f1]] : [];
    fill(values, rows.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, percent(value)))));
  }
  function drawKinds() {
    if (!defects || !known) return;
    const of = new Map();
    for (let i = 0; i < N; i++) {
      if (labels[i] !== 1) continue;
      const row = of.get(defects[i]) || { n: 0, found: runs.map(() => 0) };
      row.n++;
      runs.forEach((run, r) => { if (judged(run, i) && called(r, i)) row.found[r]++; });
      of.set(defects[i], row);
    }
    if (!of.size) return;
    const rows = [...of].sort((a, b) => a[1].found[0] / a[1].n - b[1].found[0] / b[1].n || collator.compare(a[0], b[0]));
    fill(kinds, h("table", {}, h("caption", {}, "Found, by kind of defect"),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "defect"), h("th", { scope: "col", class: "n" }, "pictures"),
        runs.map((run) => h("th", { scope: "col", class: "n" }, many ? run.name : "found")))),
      h("tbody", {}, rows.map(([name, row]) => h("tr", {}, h("th", { scope: "row" }, h("button", { type: "button", class: "link", "aria-pressed": String(state.defect === name),
        onclick: () => { state.defect = state.defect === name ? "" : name; controls(); refilter(); } }, name)), h("td", { class: "n" }, String(row.n)),
      row.found.map((found) => h("td", { class: "n bar", style: { "--share": `${100 * found / row.n}%` } }, h("span", {}, percent(found / row.n, 0)))))))));
  }
  function drawRuns() {
    const head = both ? ["AUROC, %", "normal recall, %", "abnormal recall, %", "precision, %"] : ["called abnormal"];
    const bare = (x) => percent(x).replace(" %", "");
    fill(byRun, h("table", {}, h("caption", { class: "hidden" }, "Algorithms at the same promised rate"),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "algorithm"), head.map((word) => h("th", { scope: "col", class: "n" }, word)))),
      h("tbody", {}, runs.map((run, r) => {
        const t = table(r, limits[r]), name = run.href ? h("a", { href: run.href }, run.name) : run.name;
        const cells = both ? [`${bare(auroc(run))}${run.mark ? ` ${run.mark}` : ""}`, bare(t.normal), bare(t.recall), bare(t.precision)] : [t.abnormal.toLocaleString("en")];
        return h("tr", {}, h("th", { scope: "row" }, h("i", { class: `dot c${r % 8}`, "aria-hidden": "true" }), name), cells.map((text) => h("td", { class: "n" }, text)));
      }))), data.marks ? h("p", { class: "note" }, data.marks) : null);
  }
  function sentence(t) {
    if (!known) return `${plural(t.abnormal, "picture")} of ${t.judged.toLocaleString("en")} called abnormal.`;
    const parts = [], alarms = t.fp - before.fp, misses = t.fn - before.fn;
    if (state.threshold === start.threshold) return `At this run's threshold: ${plural(t.fp, "false alarm")}, ${plural(t.fn, "miss", "misses")}.`;
    const change = (n, one, more) => (n === 0 ? `as many ${more}` : `${plural(Math.abs(n), one, more)} ${n < 0 ? "fewer" : "more"}`);
    parts.push(change(alarms, "false alarm", "false alarms"), change(misses, "miss", "misses"));
    return `Against this run's threshold: ${parts.join(", ")}.`;
  }

  // ---- curves

  const curves = h("div", { class: "curves" });
  const points = [];
  function curve() {
    const pairs = [];
    for (let i = 0; i < N; i++) if (labels[i] >= 0 && judged(main, i)) pairs.push([main.scores[i], labels[i]]);
    pairs.sort((a, b) => b[0] - a[0]);
    const bad = pairs.filter((p) => p[1]).length, good = pairs.length - bad, roc = [[0, 0]], pr = [];
    let tp = 0, fp = 0;
    for (let i = 0; i < pairs.length; i++) {
      pairs[i][1] ? tp++ : fp++;
      if (i + 1 < pairs.length && pairs[i + 1][0] === pairs[i][0]) continue;
      roc.push([fp / good, tp / bad]); pr.push([tp / bad, tp / (tp + fp)]);
    }
    const thin = (line) => { const step = Math.ceil(line.length / 600); return line.filter((_, i) => i % step === 0 || i === line.length - 1); };
    const S = 132, xy = ([x, y]) => `${(x * S).toFixed(1)},${((1 - y) * S).toFixed(1)}`;
    const plot = (line, title, x, y, base) => {
      const point = h("circle", { class: "point", r: 5 });
      points.push(point);
      return h("figure", {}, h("figcaption", {}, title), h("svg", { viewBox: `-18 -6 ${S + 26} ${S + 22}`, role: "img", "aria-label": `${title}: ${y} against ${x}` },
        h("path", { class: "grid", d: [0, 0.25, 0.5, 0.75, 1].map((v) => `M${v * S} 0v${S}M0 ${v * S}h${S}`).join("") }),
        base ? h("path", { class: "base", d: base }) : null, h("polyline", { class: "line", points: thin(line).map(xy).join(" ") }), point,
        h("text", { x: S / 2, y: S + 13, "text-anchor": "middle" }, x), h("text", { x: -6, y: S / 2, "text-anchor": "middle", transform: `rotate(-90 -6 ${S / 2})` }, y)));
    };
    const value = auroc(main);
    fill(curves, plot(roc, `ROC, AUROC ${percent(value)}`, "false-positive rate", "recall", `M0 ${S}L${S} 0`), plot(pr, "Precision and recall", "recall", "precision"));
  }
  function drawPoints(t) {
    if (!points.length) return;
    const S = 132, place = (circle, x, y) => {
      const there = !Number.isNaN(x + y);
      circle.style.display = there ? "" : "none";
      if (there) { circle.setAttribute("cx", x * S); circle.setAttribute("cy", (1 - y) * S); }
    };
    place(points[0], 1 - t.normal, t.recall); place(points[1], t.recall, t.precision);
  }

  // ---- tools above the grid

  const option = ([value, text]) => h("option", { value }, text);
  function choice(name, label, choices) {
    const select = h("select", { id: id(name), onchange: () => { state[name] = select.value; if (name === "sort") sort(); refilter(); controls(); } }, choices.map(option));
    return [h("label", { class: "field" }, h("span", {}, label), select), select];
  }
  const search = h("input", { type: "search", id: id("search"), placeholder: "name", oninput: () => { state.q = search.value.trim(); refilter(); } });
  const counts = (of) => { const found = new Map(); for (const word of of) found.set(word, (found.get(word) || 0) + 1); return [...found].sort((a, b) => collator.compare(a[0], b[0])); };
  const selects = {}, fields = [h("label", { class: "field grow" }, h("span", {}, "Search"), search)];
  function add(name, label, choices) { const [field, select] = choice(name, label, choices); selects[name] = select; fields.push(field); }
  const verdicts = [["", "all"], ["abnormal", many ? "abnormal by some" : "abnormal"], ["good", many ? "good by some" : "good"]];
  if (many) verdicts.push(["split", "they disagree"]);
  if (runs.some((run) => run.far && run.far.some(Boolean))) verdicts.push(["far", "unlike the training pictures"]);
  if (Object.keys(errors).length) verdicts.push(["error", "cannot be read"]);
  add("verdict", "Verdict", verdicts);
  if (known) add("truth", "Truth", [["", "all"], ["wrong", many ? "wrong by some" : "wrong"], ["alarm", "false alarms"], ["miss", "misses"], ...(many ? [["all", "missed by all"]] : []), ["found", "found"], ["right", "rightly good"]]);
  if (defects && counts(defects).length > 1) add("defect", "Kind", [["", "all"], ...counts(defects).map(([word, n]) => [word, `${word || "unknown"} (${n})`])]);
  add("sort", "Sort by", SORTS);
  const direction = h("button", { type: "button", class: "quiet square", title: "turn the order round", onclick: () => { state.up = !state.up; sort(); refilter(); controls(); } });
  const heat = h("button", { type: "button", class: "quiet", onclick: () => { state.map = !state.map; controls(); grid(true); } }, "Map");
  const sizes = h("input", { type: "range", min: 80, max: 256, step: 4, id: id("size"), "aria-label": "size of the thumbnails", oninput: () => { state.size = Number(sizes.value); grid(true); } });
  const count = h("p", { class: "count", "aria-live": "polite" });
  const clear = h("button", { type: "button", class: "quiet", onclick: () => { Object.assign(state, { q: "", verdict: "", truth: "", defect: "" }); controls(); refilter(); } }, "Clear filters");
  function controls() {
    search.value = state.q;
    for (const [name, select] of Object.entries(selects)) {
      select.value = state[name];
      if (select.selectedIndex < 0) { state[name] = start[name]; select.value = start[name]; }
    }
    direction.textContent = state.up ? "↑" : "↓";
    direction.setAttribute("aria-label", state.up ? "order: ascending" : "order: descending");
    heat.setAttribute("aria-pressed", String(state.map));
    sizes.value = state.size;
    clear.hidden = !(state.q || state.verdict || state.truth || state.defect);
  }

  // ---- the grid: only what is near the window exists

  const pool = h("div", { class: "pool" });
  const nothing = h("p", { class: "nothing" }, "No picture fits these filters.");
  const cards = new Map();
  let layout = { columns: 1, width: 1, height: 1 }, printing = false;
  function layers(i, side, run = main, withMap = state.map) {
    const a = aspect(i), w = a >= 1 ? side : side * a, hgt = a >= 1 ? side / a : side, [x, y, fw, fh] = frame(run, i);
    const left = (side - w) / 2, top = (side - hgt) / 2;
    return [h("img", { src: file(run, "thumb", i), alt: "", loading: "lazy", decoding: "async", style: { left: `${left}px`, top: `${top}px`, width: `${w}px`, height: `${hgt}px` } }),
      withMap ? h("img", { class: "map", src: file(run, "map", i), alt: "", loading: "lazy", decoding: "async",
        style: { left: `${left + x * w}px`, top: `${top + y * hgt}px`, width: `${fw * w}px`, height: `${fh * hgt}px` } }) : null];
  }
  function card(i, place) {
    const side = layout.width - 12, truth = many ? "" : truthText(i), wrong = truth === "miss" || truth === "false alarm", bad = errors[i];
    const r = Math.max(0, runs.findIndex((run) => judged(run, i)));
    const far = runs.some((run) => run.far && run.far[i]);
    const link = h("a", { class: `card${wrong ? ` ${truth === "miss" ? "miss" : "alarm"}` : ""}`, href: `#${new URLSearchParams({ picture: data.names[i] })}`, "data-i": i, title: data.names[i], onclick: (event) => { if (event.metaKey || event.ctrlKey || event.shiftKey) return; event.preventDefault(); open(i); } },
    h("span", { class: "thumb", style: { width: `${side}px`, height: `${side}px` } }, bad ? h("span", { class: "broken" }, "cannot be read") : layers(i, side, runs[r])),
    h("span", { class: "name" }, data.names[i]), h("span", { class: "hidden" }, `: ${verdictText(i)}${truth ? `, ${truth}` : ""}`),
    h("span", { class: "line" }, bad ? "" : many
      ? runs.map((run, k) => h("i", { class: `dot ${judged(run, i) ? (called(k, i) ? "bad" : "fine") : "none"}`, title: run.name }))
      : [h("b", { class: called(0, i) ? "bad" : "fine" }, figures(main.scores[i])), wrong ? h("em", {}, truth) : far ? h("em", { class: "far" }, "unlike training") : h("span", {}, defects && labels && labels[i] === 1 ? defects[i] : called(0, i) ? "abnormal" : "good")]));
    if (place) Object.assign(link.style, place);
    return link;
  }
  function measure() {
    const wide = Math.max(120, pool.clientWidth), want = state.size + 12, gap = 8;
    const columns = Math.max(2, Math.floor((wide + gap) / (want + gap))), width = Math.floor((wide + gap) / columns) - gap;
    layout = { columns, width, height: width + 37 + gap, gap };
  }
  let waiting = 0;
  function grid(fresh) {
    if (fresh) { measure(); cards.clear(); pool.replaceChildren(); }
    nothing.hidden = shown.length > 0;
    if (printing) { pool.style.height = ""; pool.replaceChildren(...shown.slice(0, 60).map((i) => card(i))); return; }
    const rows = Math.ceil(shown.length / layout.columns), box = pool.getBoundingClientRect(), view = window.innerHeight;
    pool.style.height = `${rows * layout.height}px`;
    const first = clamp(Math.floor((-box.top - view / 2) / layout.height), 0, rows), last = clamp(Math.ceil((1.5 * view - box.top) / layout.height), 0, rows);
    const wanted = new Set();
    const places = []; // the first two rows are always there, for whoever comes by keyboard
    for (let k = 0; k < Math.min(shown.length, last * layout.columns, 2 * layout.columns); k++) places.push(k);
    for (let k = Math.max(first, 2) * layout.columns; k < Math.min(shown.length, last * layout.columns); k++) places.push(k);
    if (!places.length) for (let k = 0; k < Math.min(shown.length, 2 * layout.columns); k++) places.push(k);
    for (const k of places) {
      const i = shown[k], key = `${i}`, place = { left: `${(k % layout.columns) * (layout.width + layout.gap)}px`, top: `${Math.floor(k / layout.columns) * layout.height}px`, width: `${layout.width}px`, height: `${layout.height - layout.gap}px` };
      wanted.add(key);
      const look = many ? runs.map((run, r) => called(r, i)).join() : `${called(0, i)}`;
      const there = cards.get(key);
      if (there && there.look === look) Object.assign(there.element.style, place);
      else {
        const element = card(i, place);
        if (there) there.element.replaceWith(element); else pool.append(element);
        cards.set(key, { element, look });
      }
    }
    for (const [key, there] of cards) if (!wanted.has(key)) { there.element.remove(); cards.delete(key); }
    [...cards.values()].sort((a, b) => parseFloat(a.element.style.top) - parseFloat(b.element.style.top) || parseFloat(a.element.style.left) - parseFloat(b.element.style.left))
      .forEach(({ element }, k) => { if (pool.children[k] !== element) pool.insertBefore(element, pool.children[k] || null); });
  }
  function soon() { if (!waiting) waiting = requestAnimationFrame(() => { waiting = 0; if (!printing) grid(false); }); }

  // ---- one picture, large

  const look = { map: true, opacity: 0.75, outline: true, region: true, zoom: 1, x: 0, y: 0 };
  const panes = h("div", { class: "panes" }), facts = h("div", { class: "facts" }), title = h("h2", { id: id("title"), tabindex: -1 });
  const where = h("p", { class: "where" }), tell = h("p", { class: "hidden", "aria-live": "polite" });
  const toggle = (name, label, key) => h("button", { type: "button", class: "quiet", "data-toggle": name, onclick: () => { look[name] = !look[name]; paint(); } }, label, " ", h("kbd", {}, key));
  const opacity = h("input", { type: "range", min: 0, max: 100, step: 1, "aria-label": "opacity of the map", oninput: () => { look.opacity = opacity.value / 100; look.map = true; paint(); } });
  const buttons = h("div", { class: "tools", role: "toolbar", "aria-label": "what is drawn" }, toggle("map", "Map", "m"), opacity, toggle("outline", "Mask", "o"), toggle("region", "Worst region", "r"),
    h("button", { type: "button", class: "quiet square", "aria-label": "zoom out", onclick: () => zoom(1 / 1.5) }, "−"),
    h("button", { type: "button", class: "quiet square", "aria-label": "zoom in", onclick: () => zoom(1.5) }, "+"),
    h("button", { type: "button", class: "quiet", onclick: () => unzoom() }, "Fit ", h("kbd", {}, "0")));
  const dialog = h("dialog", { class: "large", "aria-labelledby": id("title") },
    h("div", { class: "head" }, h("div", {}, title, where),
      h("div", { class: "tools" }, h("button", { type: "button", class: "quiet square", "aria-label": "previous picture", onclick: () => step(-1) }, "←"),
        h("button", { type: "button", class: "quiet square", "aria-label": "next picture", onclick: () => step(1) }, "→"),
        h("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Close"))),
    h("div", { class: "body" }, h("div", { class: "stage" }, panes, buttons), facts), tell);
  dialog.addEventListener("close", () => {
    const was = current; current = -1; write();
    const there = cards.get(String(was)); if (there) there.element.focus();
  });
  function pressed(event) {
    const sliding = event.target.type === "range";
    const keys = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), ArrowUp: () => step(-1), ArrowDown: () => step(1), Home: () => step(-Infinity), End: () => step(Infinity) };
    const words = { m: "map", o: "outline", r: "region" };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (keys[event.key] && !sliding) { event.preventDefault(); keys[event.key](); } else if (words[event.key]) { look[words[event.key]] = !look[words[event.key]]; paint(); } else if (event.key === "+" || event.key === "=") zoom(1.5);
    else if (event.key === "-") zoom(1 / 1.5); else if (event.key === "0") unzoom();
  }
  function pane(run, i, plain) {
    const [x, y, w, hgt] = frame(run, i), spot = { left: `${100 * x}%`, top: `${100 * y}%`, width: `${100 * w}%`, height: `${100 * hgt}%` };
    const region = run.regions && run.regions[i], r = runs.indexOf(run), drawn = [];
    const says = plain ? "the picture" : `${run.name || "verdict"}: ${called(r, i) ? "abnormal" : "good"}`;
    drawn.push(h("img", { src: file(run, "image", i), alt: `${data.names[i]}, ${plain ? "as it is" : verdictText(i)}`, draggable: "false", onerror: (event) => { if (!event.target.dataset.small) { event.target.dataset.small = 1; event.target.src = file(run, "thumb", i); } } }));
    if (!plain && judged(run, i)) {
      drawn.push(h("img", { class: "map", src: file(run, "map", i), alt: "", draggable: "false", style: spot }));
      if (run.outlines && run.outlines[i]) drawn.push(h("svg", { class: "outline", viewBox: "0 0 1000 1000", preserveAspectRatio: "none", style: spot, "aria-hidden": "true" }, h("path", { d: run.outlines[i] })));
      if (region) drawn.push(h("svg", { class: "region", viewBox: "0 0 1000 1000", preserveAspectRatio: "none", style: spot, "aria-hidden": "true" }, h("rect", { x: 1000 * region[0], y: 1000 * region[1], width: 1000 * region[2], height: 1000 * region[3] })));
    }
    return h("figure", { class: "pane" }, h("div", { class: "glass" }, h("div", { class: "sheet", style: { "--aspect": aspect(i) } }, drawn)), many || plain ? h("figcaption", {}, says) : null);
  }
  function paint() {
    for (const sheet of panes.querySelectorAll(".sheet")) sheet.style.transform = `translate(${look.x}px, ${look.y}px) scale(${look.zoom})`;
    panes.style.setProperty("--opacity", look.map ? look.opacity : 0);
    panes.classList.toggle("sharp", look.zoom > 3);
    panes.style.setProperty("--zoom", look.zoom);
    panes.dataset.outline = look.outline; panes.dataset.region = look.region; panes.dataset.map = look.map;
    opacity.value = 100 * look.opacity;
    for (const button of buttons.querySelectorAll("[data-toggle]")) button.setAttribute("aria-pressed", String(look[button.dataset.toggle]));
  }
  function zoom(by, at) {
    const next = clamp(look.zoom * by, 1, 24), box = panes.querySelector(".glass");
    if (!box) return;
    const rect = box.getBoundingClientRect(), [px, py] = at || [rect.width / 2, rect.height / 2], cx = px - rect.width / 2, cy = py - rect.height / 2;
    look.x = cx - (cx - look.x) * next / look.zoom; look.y = cy - (cy - look.y) * next / look.zoom; look.zoom = next;
    if (next === 1) look.x = look.y = 0;
    paint();
  }
  function unzoom() { look.zoom = 1; look.x = look.y = 0; paint(); }
  panes.addEventListener("wheel", (event) => {
    event.preventDefault();
    const glass = event.target.closest(".glass") || panes.querySelector(".glass"), rect = glass.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY / 400), [event.clientX - rect.left, event.clientY - rect.top]);
  }, { passive: false });
  let hold = null;
  panes.addEventListener("pointerdown", (event) => { if (event.button) return; hold = [event.clientX - look.x, event.clientY - look.y]; try { panes.setPointerCapture(event.pointerId); } catch { /* a made-up event */ } });
  panes.addEventListener("pointermove", (event) => { if (hold && look.zoom > 1) { look.x = event.clientX - hold[0]; look.y = event.clientY - hold[1]; paint(); } });
  for (const name of ["pointerup", "pointercancel"]) panes.addEventListener(name, () => { hold = null; });
  panes.addEventListener("dblclick", () => (look.zoom > 1 ? unzoom() : zoom(3)));

  function fact(name, value) { return value === null || value === "" ? null : h("div", {}, h("dt", {}, name), h("dd", {}, value)); }
  function evidence(run, i) {
    const told = run.evidence && run.evidence[i], region = run.regions && run.regions[i], found = [];
    if (run.far && run.far[i]) found.push(h("p", { class: "far" }, "Unlike the training pictures: even its most ordinary regions are unusual. Another product, camera or light? The verdict means little."));
    if (region && judged(run, i)) found.push(h("p", {}, `The worst region holds ${percent(region[4], 0)} of the score.`));
    if (told) {
      found.push(h("p", {}, told.said));
      if (told.pictures) found.push(h("div", { class: "crops" }, told.pictures.map(([text, source]) => h("figure", {}, h("img", { src: run.embedded ? source : `${run.base}/${source}`, alt: text }), h("figcaption", {}, text)))));
    }
    return found.length ? h("section", {}, h("h3", {}, many ? `Evidence, ${run.name}` : "Evidence"), found) : null;
  }
  function open(i, keep) {
    current = i;
    if (!keep) look.zoom = 1, look.x = look.y = 0;
    const k = shown.indexOf(i), truth = many ? "" : truthText(i), r = Math.max(0, runs.findIndex((run) => judged(run, i)));
    title.textContent = data.names[i];
    where.textContent = k < 0 ? "not among the pictures shown" : `${(k + 1).toLocaleString("en")} of ${shown.length.toLocaleString("en")}`;
    tell.textContent = `${data.names[i]}: ${verdictText(i)}`;
    if (errors[i]) fill(panes, h("p", { class: "nothing" }, `Cannot be read: ${errors[i]}`));
    else fill(panes, many ? [pane(runs[r], i, true), ...runs.filter((run) => judged(run, i)).map((run) => pane(run, i))] : [pane(main, i)]);
    panes.style.setProperty("--panes", panes.children.length);
    const rows = many
      ? h("table", {}, h("thead", {}, h("tr", {}, ["", "score", "p-value", "verdict"].map((word) => h("th", { scope: "col" }, word)))), h("tbody", {}, runs.filter((run) => judged(run, i)).map((run) => {
        const q = runs.indexOf(run), word = called(q, i) ? "abnormal" : "good";
        return h("tr", {}, h("th", { scope: "row" }, run.href ? h("a", { href: `${run.href}#${new URLSearchParams({ picture: data.names[i] })}` }, run.name) : run.name), h("td", {}, figures(run.scores[i])), h("td", {}, figures(run.p[i])), h("td", { class: called(q, i) ? "bad" : "fine" }, word + (truthText(i, q) && ["miss", "false alarm"].includes(truthText(i, q)) ? `, ${truthText(i, q)}` : "")));
      })))
      : errors[i] ? null : h("dl", {}, h("div", { class: "big" }, h("dt", {}, "verdict"), h("dd", { class: called(0, i) ? "bad" : "fine" }, called(0, i) ? "abnormal" : "good")),
        fact("truth", known && labels[i] >= 0 ? `${labels[i] ? (defects && defects[i]) || "abnormal" : "good"}${truth === "miss" ? " (a miss)" : truth === "false alarm" ? " (a false alarm)" : ""}` : ""),
        fact("score", figures(main.scores[i])), fact("threshold", figures(state.threshold)),
        fact("p-value", figures(main.p[i])), fact("share marked", main.marked ? percent(main.marked[i]) : null),
        fact("size", data.sizes[i] ? `${data.sizes[i][0]} × ${data.sizes[i][1]}` : null));
    fill(facts, rows, many || errors[i] ? null : h("p", { class: "note" }, `Of good pictures at most ${rateText(main.p[i])} score as high.`), runs.map((run) => evidence(run, i)),
      main.scalebar && !errors[i] ? h("div", { class: "scale" }, h("div", { class: "ramp", style: { background: main.scalebar } }), h("p", {}, h("span", {}, "as good pictures"), h("span", {}, "pixel threshold"), h("span", {}, "twice as far"))) : null);
    paint(); write();
    if (!dialog.open) { dialog.showModal(); title.focus(); }
    for (const near of [k + 1, k - 1]) if (k >= 0 && shown[near] !== undefined && !errors[shown[near]]) { new Image().src = file(runs[r], "image", shown[near]); }
  }
  function step(by) {
    if (!shown.length) return;
    const k = shown.indexOf(current);
    open(shown[k < 0 ? 0 : clamp(k + by, 0, shown.length - 1)], look.zoom > 1);
  }

  // ---- drawing

  let pending = 0;
  function later() { draw(); if (!pending) pending = setTimeout(() => { pending = 0; write(); }, 250); }
  function refilter() {
    shown = sorted.filter(fits);
    const hidden = N - shown.length;
    count.textContent = hidden ? `${shown.length.toLocaleString("en")} of ${plural(N, "picture")}` : plural(N, "picture");
    for (const button of matrix.querySelectorAll("button")) button.setAttribute("aria-pressed", "false");
    if (known && !many) drawMatrix(table(0, limits[0]));
    drawKinds();
    clear.hidden = !(state.q || state.verdict || state.truth || state.defect);
    grid(false); write();
  }
  function draw() {
    limits = thresholds();
    if (many) {
      slider.value = Math.round(STEPS * (Math.log10(state.rate) + 3) / 3);
      rateBox.value = Number((100 * state.rate).toPrecision(3));
      const odd = runs.filter((run) => least(run) > state.rate + 1e-9).map((run) => run.name);
      promised.textContent = `Each algorithm at the threshold that its own good pictures set for ${rateText(state.rate)}.${odd.length ? ` Too few to promise that: ${odd.join(", ")}.` : ""}`;
      drawRuns();
    } else {
      const x = PAD + across(state.threshold) * (W - 2 * PAD), t = table(0, limits[0]), p = promise(main, state.threshold);
      mark.setAttribute("x1", x); mark.setAttribute("x2", x); tint.setAttribute("x", x); tint.setAttribute("width", Math.max(0, W - PAD - x));
      slider.value = Math.round(STEPS * across(state.threshold));
      slider.setAttribute("aria-valuetext", `${figures(state.threshold)}, promises ${rateText(p)}`);
      scoreBox.value = figures(state.threshold); rateBox.value = Number((100 * p).toPrecision(3));
      promised.textContent = `${plural(main.calibration.length, "good picture")} promise that at most ${rateText(p)} of new good pictures score above ${figures(state.threshold)}${p <= least(main) + 1e-9 ? ", the least that so many can promise" : ""}.`;
      saidNow.textContent = sentence(t);
      if (known) drawMatrix(t);
      drawValues(t); drawPoints(t);
      reset.disabled = state.threshold === start.threshold;
    }
    refilter();
    if (current >= 0 && dialog.open) open(current, true);
  }

  const panel = h("section", { class: "panel", "aria-label": "threshold and what follows from it" });
  const boxes = h("div", { class: "boxes" }, many ? null : h("label", { class: "field" }, h("span", {}, "Score"), scoreBox), h("label", { class: "field" }, h("span", {}, many ? "Rate, %" : "Promised rate, %"), rateBox), reset);
  if (many) panel.append(h("div", { class: "block" }, h("h2", {}, "False-positive rate"), h("div", { class: "rates" }, slider), boxes, promised), h("div", { class: "block" }, byRun));
  else {
    panel.append(h("div", { class: "block" }, h("h2", {}, "Threshold"),
      h("div", { class: "histogram" }, histogram(), slider), h("p", { class: "axis", "aria-hidden": "true" }, h("span", {}, figures(scale.low)), h("span", {}, "score"), h("span", {}, figures(scale.high))),
      h("p", { class: "legend" }, h("span", { class: "g" }, known ? "good" : "pictures"), known ? h("span", { class: "b" }, "abnormal") : null, h("span", { class: "r" }, "calibration")), boxes, saidNow, promised));
    if (known) panel.append(h("div", { class: "block" }, h("h2", {}, "Verdicts"), matrix, values));
    if (both) { curve(); panel.append(h("div", { class: "block" }, h("h2", { class: "hidden" }, "Curves"), curves)); }
  }
  if (defects && known && labels.includes(1)) panel.append(h("div", { class: "block" }, kinds));
  const links = (data.links || []).map(([text, href]) => h("a", { href }, text));
  root.classList.add("g100");
  root.classList.toggle("whole", options.full);
  fill(root, h("header", { class: "top" }, h("div", {}, h(options.full ? "h1" : "h2", {}, data.title), (data.said || []).map((text) => h("p", {}, text))), links.length ? h("nav", { "aria-label": "files" }, links) : null),
    h("div", { class: "columns" }, panel, h("section", { class: "pictures", "aria-label": "pictures" },
      h("div", { class: "toolbar" }, h("div", { class: "fields" }, fields, direction), h("div", { class: "fields end" }, count, clear, heat, h("label", { class: "field thin" }, h("span", {}, "Size"), sizes))), nothing, pool)), dialog);

  const asked = read();
  controls(); sort(); limits = thresholds(); measure(); draw(); grid(true);
  const gone = new AbortController();
  window.addEventListener("keydown", (event) => { // before a notebook around it, which has keys of its own
    if (!dialog.open && !root.contains(event.target)) return;
    if (!options.full) event.stopPropagation();
    if (dialog.open) pressed(event);
  }, { capture: true, signal: gone.signal });
  window.addEventListener("scroll", soon, { passive: true, capture: true, signal: gone.signal });
  const observer = new ResizeObserver(() => { const was = JSON.stringify(layout); measure(); if (JSON.stringify(layout) !== was) grid(true); else soon(); });
  observer.observe(pool);
  if (options.hash) {
    window.addEventListener("hashchange", () => {
      const i = read(); controls(); sort(); draw();
      if (i >= 0) open(i); else if (dialog.open) dialog.close();
    });
    if (asked >= 0) open(asked);
    document.addEventListener("keydown", (event) => {
      if (event.key === "/" && !dialog.open && !/INPUT|SELECT|TEXTAREA/.test(document.activeElement.tagName)) { event.preventDefault(); search.focus(); }
    });
    window.addEventListener("beforeprint", () => { printing = true; grid(true); });
    window.addEventListener("afterprint", () => { printing = false; grid(true); });
  }
  root.dataset.ready = "true";
  return () => { gone.abort(); observer.disconnect(); };
}
