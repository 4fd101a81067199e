"use strict";
// Draws the document of the page. Its text comes from runs, so it is only ever set as text or as an attribute's value.
const doc = JSON.parse(document.getElementById("data").textContent);
const byId = new Map(doc.nodes.map((node) => [node.id, node]));
const chain = new Set(doc.chain);
const front = new Set(doc.front);
const base = byId.get(doc.base);
const champion = byId.get(doc.champion);
const own = doc.nodes.filter((node) => node.own && node.kind === "action");
const $ = (id) => document.getElementById(id);
// MLflow shows artifacts in a sandboxed frame that lets no link out: there, run ids stand instead.
const boxed = window !== window.parent && window.origin === "null";
let picked = null;

// Elements ---------------------------------------------------------------------------------------------------------

function make(space, tag, attributes, children) {
  const made = space ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children) {
    if (child !== null && child !== undefined) made.append(child); // a string becomes a text node
  }
  return made;
}
const h = (tag, attributes, ...children) => make(false, tag, attributes, children);
const s = (tag, attributes, ...children) => make(true, tag, attributes, children);
const bdi = (text, more) => h("bdi", more, text);

// Words and figures ------------------------------------------------------------------------------------------------

const cut = (text, most) => (text.length > most ? [...text.slice(0, most - 1)].join("") + "…" : text);
const known = (value) => value !== null && value !== undefined;
const figure = (value, digits = 3) => (known(value) ? value.toFixed(digits) : "–");
const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(3);
const plus = (pair) => (pair ? `${figure(pair[0])} ± ${figure(pair[1])}` : "–");
function span(seconds) {
  if (!known(seconds)) return "–";
  if (seconds < 100) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}
function handle(node) {
  if (known(node.trial)) return `#${node.trial}`;
  return node.kind === "base" ? "base" : node.id.slice(0, 8);
}
const title = (node) => (node.kind === "action" ? cut(node.action || node.name, 60) : cut(node.name, 60));
// The base is called so by its run already.
const called = (node) => (node.kind === "base" ? title(node) : `${handle(node)} ${title(node)}`);
function spoken(node) {
  const score = known(node.score) ? `score ${figure(node.score)}` : node.status;
  return `${called(node)}, ${score}${node.id === doc.champion ? ", champion" : ""}`;
}
function href(node) {
  if (!doc.links || boxed || !node.experiment) return null;
  return `${doc.links}#/experiments/${encodeURIComponent(node.experiment)}/runs/${encodeURIComponent(node.id)}`;
}

// Head and tiles ---------------------------------------------------------------------------------------------------

function head() {
  const search = doc.search;
  const tasks = doc.tasks.map((task) => `${cut(task.name, 60)} × ${task.weight}`).join(", ");
  const date = new Date(search.started).toISOString().slice(0, 16).replace("T", " ");
  const status = { FINISHED: "finished", RUNNING: "running", FAILED: "failed", KILLED: "interrupted" }[search.status] || search.status;
  const link = href({ experiment: search.experiment, id: search.id });
  const right = link ? h("a", { class: "button", href: link, target: "_top", rel: "noopener" }, "Search run in MLflow") : h("span", { class: "meta" }, `search run ${search.id}`);
  const words = [status, `started ${date} UTC`, search.agent && `agent ${cut(search.agent, 60)}`, search.seed && `seed ${cut(search.seed, 20)}`];
  $("head").append(
    h("div", {},
      h("p", { class: "kicker" }, "LaMDAgent · post-training pipeline search"),
      h("h1", {}, bdi(cut(search.name, 120))),
      h("p", { class: "meta" }, bdi(words.filter(Boolean).join(" · "))),
      tasks ? h("p", { class: "meta" }, "tasks ", bdi(tasks)) : null),
    h("nav", {}, right));
  const notes = [];
  if (search.why) notes.push(search.why);
  if (search.overlap) notes.push(search.overlap);
  if (search.status === "RUNNING") notes.push("The search is running; load the page again for news.");
  if (search.shown < search.trials) notes.push(`Shown: the newest ${search.shown} of ${search.trials} trials and the best of all; failures and costs are of those shown.`);
  $("note").hidden = !notes.length;
  $("note").textContent = notes.join(" ");
}

function tile(name, big, small, mood) {
  return h("dl", { class: "tile" }, h("dt", {}, name), h("dd", { class: `big ${mood || ""}` }, big), h("dd", { class: "small" }, small));
}

// 95 % confidence, and whether the two were compared item by item.
const interval = (gain) => `${signed(gain[0])} [${signed(gain[2])}, ${signed(gain[3])}] ${gain[4]}`;

function beyond(gain) {
  if (Math.abs(gain[0]) > 2 * gain[1]) return "more than two standard errors";
  return Math.abs(gain[0]) > gain[1] ? "between one and two standard errors" : "within one standard error";
}

function tiles() {
  const search = doc.search;
  const all = [];
  if (champion) {
    const name = champion === base ? "the base" : called(champion);
    all.push(tile("Best score, search split", figure(champion.score), bdi(`± ${figure(champion.stderr)} · ${name}`)));
  }
  if (champion && base && champion !== base) {
    const gain = champion.gain;
    all.push(tile("Gain over base", signed(gain[0]), `± ${figure(gain[1])} · ${beyond(gain)}`, gain[0] > 2 * gain[1] ? "good" : ""));
  }
  if (champion && champion.test) {
    const gain = champion !== base && champion.test_gain;
    all.push(tile("Champion on the test split", figure(champion.test[0]), `± ${figure(champion.test[1])}` + (gain ? ` · ${interval(gain)} over base` : "")));
  } else if (champion) {
    all.push(tile("Champion on the test split", "–", search.status === "RUNNING" ? "read once, at the end" : "not tested"));
  }
  all.push(tile("Trials", String(search.trials), search.failed ? `${search.failed} failed` : "none failed"));
  const wall = (known(search.ended) ? search.ended : Date.now()) - search.started;
  all.push(tile("Time", span(wall / 1000), `${span(search.seconds)} in actions and scoring`));
  if (search.gpu_seconds > 0) all.push(tile("GPU time", span(search.gpu_seconds), "seconds × GPUs in use"));
  if (search.usd > 0) all.push(tile("LLM cost", `$${search.usd.toFixed(2)}`, "US dollars"));
  $("tiles").replaceChildren(...all);
}

// Charts -----------------------------------------------------------------------------------------------------------

function ticks(low, high, about) {
  const raw = (high - low) / about || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const size = [1, 2, 2.5, 5, 10].map((m) => m * power).find((step) => step >= raw);
  const found = [];
  for (let value = Math.ceil(low / size - 1e-9) * size; value <= high + size * 1e-9; value += size) found.push(value);
  return found;
}

function frame(width, height, xs, ys, names, whole) {
  const left = 58, right = 14, top = 12, bottom = 42;
  const x = (value) => left + ((value - xs[0]) / (xs[1] - xs[0] || 1)) * (width - left - right);
  const y = (value) => height - bottom - ((value - ys[0]) / (ys[1] - ys[0] || 1)) * (height - top - bottom);
  const svg = s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `${names[1]} by ${names[0]}` });
  for (const value of ticks(ys[0], ys[1], 6)) {
    svg.append(s("line", { class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }));
    svg.append(s("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, String(+value.toPrecision(6))));
  }
  const across = ticks(xs[0], xs[1], Math.max(2, width / 110)).filter((value) => !whole || Number.isInteger(+value.toPrecision(6)));
  for (const value of across) svg.append(s("text", { x: x(value), y: height - bottom + 18, "text-anchor": "middle" }, String(+value.toPrecision(6))));
  svg.append(s("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }));
  svg.append(s("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, cut(names[0], 60)));
  svg.append(s("text", { transform: `translate(11 ${(height - bottom + top) / 2}) rotate(-90)`, "text-anchor": "middle" }, cut(names[1], 36)));
  return { svg, x, y };
}

function padded(values) {
  const low = Math.min(...values), high = Math.max(...values);
  const room = (high - low || 0.1) * 0.08;
  return [low - room, high + room];
}

function mark(node, x, y, extra) {
  const failed = node.status === "failed" || (node.status === "finished" && !known(node.score));
  const shape = failed ? s("path", { d: `M${x - 4} ${y - 4}l8 8m0 -8l-8 8` }) : s("circle", { cx: x, cy: y, r: node.id === doc.champion ? 6.5 : 4.5 });
  const kinds = ["mark", extra, node.id === doc.champion && "champion", node.status === "running" && "running"].filter(Boolean).join(" ");
  return pickable(s("g", { class: kinds }, s("rect", { x: x - 9, y: y - 9, width: 18, height: 18, fill: "transparent" }), shape), node);
}

function pickable(made, node) {
  const point = (event) => tip(node, event.clientX, event.clientY);
  const listen = {
    click: () => pick(node.id, made), mousemove: point, mouseleave: () => tip(null), blur: () => tip(null),
    focus: () => { const at = made.getBoundingClientRect(); tip(node, at.right, at.bottom); },
    keydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pick(node.id, made); } },
  };
  for (const [name, action] of Object.entries(listen)) made.addEventListener(name, action);
  made.setAttribute("tabindex", "0");
  made.setAttribute("role", "button");
  made.setAttribute("aria-label", spoken(node));
  made.dataset.node = node.id;
  return made;
}

function tip(node, x, y) {
  $("tip").hidden = !node;
  if (!node) return;
  const figures = known(node.score) ? `${figure(node.score)} ± ${figure(node.stderr)}` : node.failure ? cut(node.failure, 120) : node.status;
  $("tip").replaceChildren(h("strong", {}, bdi(called(node))), h("br"), bdi(cut(node.pipeline, 160)), h("br"), bdi(figures));
  const size = $("tip").getBoundingClientRect();
  $("tip").style.left = `${Math.max(6, Math.min(x + 14, innerWidth - size.width - 6))}px`;
  $("tip").style.top = `${y + 16 + size.height > innerHeight ? Math.max(6, y - size.height - 10) : y + 16}px`;
}

function curve() {
  const dots = own.filter((node) => known(node.trial));
  const scored = dots.filter((node) => known(node.score));
  if (!dots.length && !doc.curve.length) {
    $("curve").replaceChildren(h("p", { class: "hint" }, "No trial yet."));
    return;
  }
  const values = [...scored.map((node) => node.score), ...doc.curve.map((point) => point[1])];
  if (base) values.push(base.score);
  if (!values.length) values.push(0, 1);
  const last = Math.max(1, doc.search.trials);
  const ys = padded(values);
  const width = Math.max(300, $("curve").clientWidth), height = width < 500 ? 250 : 310;
  const { svg, x, y } = frame(width, height, [0, last + 0.4], ys, ["trial", "score, search split"], true);
  if (base) {
    svg.append(s("line", { class: "baseline", x1: x(0), x2: width - 14, y1: y(base.score), y2: y(base.score) }));
    svg.append(s("text", { class: "halo", x: width - 16, y: y(base.score) + 15, "text-anchor": "end" }, `base ${figure(base.score)}`));
  }
  const points = doc.curve.length ? doc.curve : [];
  if (points.length) {
    let path = `M${x(points[0][0])} ${y(points[0][1])}`;
    for (const point of points.slice(1)) path += `H${x(point[0])}V${y(point[1])}`;
    svg.append(s("path", { class: "step", d: `${path}H${x(last)}` }));
  }
  for (const node of dots) svg.append(mark(node, x(node.trial), known(node.score) ? y(node.score) : height - 50));
  $("curve").replaceChildren(svg);
}

// The graph of pipelines -------------------------------------------------------------------------------------------

const BOX = { width: 172, height: 46, across: 50, down: 14, few: 40 };

function shownNodes(everything) {
  if (everything) return doc.nodes;
  const ranked = doc.nodes.filter((node) => known(node.rank)).sort((a, b) => a.rank - b.rank).slice(0, 24);
  const kept = new Set();
  const waiting = [...ranked, ...(picked ? [byId.get(picked)] : [])];
  while (waiting.length) {
    const node = waiting.pop();
    if (kept.has(node.id)) continue;
    kept.add(node.id);
    for (const parent of node.parents) waiting.push(byId.get(parent));
  }
  return doc.nodes.filter((node) => kept.has(node.id));
}

function layers(nodes) {
  const kept = new Set(nodes.map((node) => node.id));
  const columns = [];
  for (const node of nodes) (columns[node.depth] ||= []).push(node);
  const filled = columns.filter(Boolean);
  const row = new Map();
  const place = (column) => column.forEach((node, index) => row.set(node.id, index));
  const children = new Map();
  for (const node of nodes) for (const parent of node.parents) if (kept.has(parent)) (children.get(parent) || children.set(parent, []).get(parent)).push(node.id);
  const middle = (ids, otherwise) => { const at = ids.filter((id) => row.has(id)).map((id) => row.get(id)); return at.length ? at.reduce((a, b) => a + b, 0) / at.length : otherwise; };
  filled.forEach(place);
  for (let round = 0; round < 6; round += 1) {
    const order = round % 2 ? [...filled].reverse() : filled;
    for (const column of order) {
      const weight = new Map(column.map((node) => [node.id, middle(round % 2 ? children.get(node.id) || [] : node.parents, row.get(node.id))]));
      column.sort((a, b) => chain.has(b.id) - chain.has(a.id) || weight.get(a.id) - weight.get(b.id) || (a.rank ?? 1e9) - (b.rank ?? 1e9));
      place(column);
    }
  }
  return filled;
}

function dag() {
  const many = doc.nodes.length > BOX.few;
  const everything = !many || $("dag").dataset.all === "1";
  if (many) {
    const words = everything ? "Show the best" : `Show all ${doc.nodes.length}`;
    $("dag-bar").replaceChildren(h("button", { type: "button", click: () => { $("dag").dataset.all = everything ? "0" : "1"; dag(); } }, words));
  }
  const nodes = shownNodes(everything);
  const columns = layers(nodes);
  const tallest = Math.max(1, ...columns.map((column) => column.length));
  const width = columns.length * (BOX.width + BOX.across) - BOX.across + 8;
  const height = tallest * (BOX.height + BOX.down) + 8;
  const at = new Map();
  columns.forEach((column, i) => column.forEach((node, j) => at.set(node.id, {
    x: 4 + i * (BOX.width + BOX.across), y: 4 + j * (BOX.height + BOX.down),
  })));
  const best = Math.max(...nodes.map((node) => node.score ?? 0), 1e-9);
  const lines = [], strong = [];
  for (const [from, to] of doc.edges) {
    const a = at.get(from), b = at.get(to);
    if (!a || !b) continue;
    const x1 = a.x + BOX.width, y1 = a.y + BOX.height / 2, y2 = b.y + BOX.height / 2, bend = Math.max(30, (b.x - x1) / 2);
    const dip = b.x - x1 > BOX.across + 1 ? 42 : 0; // past other columns it goes between the rows, not behind boxes
    const path = s("path", { class: "edge", d: `M${x1} ${y1}C${x1 + bend} ${y1 + dip} ${b.x - bend} ${y2 + dip} ${b.x} ${y2}` });
    path.dataset.from = from;
    path.dataset.to = to;
    if (chain.has(from) && chain.has(to)) { path.classList.add("champion"); strong.push(path); } else lines.push(path);
  }
  const svg = s("svg", { width, height, viewBox: `0 0 ${width} ${height}` }, ...lines, ...strong);
  for (const node of nodes) svg.append(box(node, at.get(node.id), best));
  $("dag").replaceChildren(svg);
  show();
}

function box(node, at, best) {
  const kinds = ["box", node.status, chain.has(node.id) && "chain", node.id === doc.champion && "champion", !node.own && node.kind !== "base" && "aside"].filter(Boolean).join(" ");
  const score = known(node.score) ? figure(node.score) : node.status === "finished" ? "not comparable" : node.status;
  const made = s("g", { class: kinds, transform: `translate(${at.x} ${at.y})` },
    s("rect", { class: "frame", width: BOX.width, height: BOX.height, rx: 8 }),
    s("text", { x: 10, y: 18 }, cut(called(node), 25)),
    s("text", { class: "sub", x: 10, y: 33 }, cut(node.kind === "action" ? node.objects || (node.parents.length > 1 ? `of ${node.parents.length} models` : " ") : "", 20)),
    s("text", { class: "sub", x: BOX.width - 10, y: 33, "text-anchor": "end" }, score));
  if (known(node.score)) {
    made.append(s("rect", { class: "track", x: 10, y: 38, width: BOX.width - 20, height: 3, rx: 1.5 }));
    made.append(s("rect", { class: "value", x: 10, y: 38, width: Math.max(0, Math.min(1, node.score / best)) * (BOX.width - 20), height: 3, rx: 1.5 }));
  }
  return pickable(made, node);
}

// Trade-offs -------------------------------------------------------------------------------------------------------

let axes = [0, 1];

function trade() {
  if (doc.tasks.length < 2) { $("front-section").hidden = true; return; }
  const names = doc.tasks.map((task) => task.name + (task.higher ? "" : " (lower is better)"));
  if (doc.tasks.length > 2) {
    const choose = (which, word) => h("label", {}, word, h("select", { change: (event) => { axes[which] = +event.target.value; trade(); } },
      ...names.map((name, index) => h("option", { value: index, selected: axes[which] === index }, cut(name, 60)))));
    $("front-bar").replaceChildren(choose(0, "across"), choose(1, "up"));
  }
  const [a, b] = axes.map((index) => doc.tasks[index]);
  const value = (node, task) => (node.scores[task.name] || [null])[0];
  const dots = doc.nodes.filter((node) => known(node.score) && known(value(node, a)) && known(value(node, b)));
  $("front-hint").textContent = `Each dot is a model; ${front.size} of ${dots.length} are on the Pareto front of all ${doc.tasks.length} tasks (orange): nothing beats them everywhere. The dashed line is the front of the two tasks shown.`;
  if (!dots.length) { $("front").replaceChildren(h("p", { class: "hint" }, "No scores yet.")); return; }
  const width = Math.max(300, $("front").clientWidth), height = width < 500 ? 300 : 340;
  const { svg, x, y } = frame(width, height, padded(dots.map((node) => value(node, a))), padded(dots.map((node) => value(node, b))), [names[axes[0]], names[axes[1]]], false);
  const sign = (task) => (task.higher ? 1 : -1);
  let reach = -Infinity;
  const edge = [...dots].sort((p, q) => sign(a) * (value(q, a) - value(p, a)) || sign(b) * (value(q, b) - value(p, b)))
    .filter((node) => { const good = sign(b) * value(node, b) > reach; if (good) reach = sign(b) * value(node, b); return good; });
  let path = "";
  edge.forEach((node, index) => { path += index ? `V${y(value(node, b))}H${x(value(node, a))}` : `M${x(value(node, a))} ${y(value(node, b))}`; });
  svg.append(s("path", { class: "front-line", d: path }));
  const order = [...dots].sort((p, q) => front.has(p.id) - front.has(q.id) || (p.id === doc.champion) - (q.id === doc.champion));
  for (const node of order) svg.append(mark(node, x(value(node, a)), y(value(node, b)), front.has(node.id) && "on-front"));
  $("front").replaceChildren(svg);
  show();
}

// The table --------------------------------------------------------------------------------------------------------

const columns = [
  { name: "rank", of: (n) => n.rank, number: true },
  { name: "pipeline", of: (n) => (n.kind === "base" ? n.name : `${handle(n)}  ${n.pipeline || n.name}`), wide: true },
  { name: "score", of: (n) => n.score, cell: (n) => (known(n.score) ? [figure(n.score), h("span", { class: "pm" }, ` ± ${figure(n.stderr)}`)] : ["–"]), number: true, high: true },
  { name: "gain", of: (n) => (n.gain && n.id !== doc.base ? n.gain[0] : null), cell: (n) => (n.gain && n.id !== doc.base ? [h("span", { class: n.gain[0] > 2 * n.gain[1] ? "good" : n.gain[0] < -2 * n.gain[1] ? "bad" : "" }, signed(n.gain[0])), h("span", { class: "pm" }, ` ± ${figure(n.gain[1])}`)] : ["–"]), number: true, high: true },
  ...doc.tasks.map((task) => ({ name: task.name, of: (n) => (n.scores[task.name] || [null])[0], cell: (n) => [figure((n.scores[task.name] || [null])[0])], number: true, high: task.higher })),
  { name: "test", of: (n) => (n.test ? n.test[0] : null), cell: (n) => (n.test ? [figure(n.test[0]), h("span", { class: "pm" }, ` ± ${figure(n.test[1])}`)] : ["–"]), number: true, high: true },
  { name: "test gain", of: (n) => (n.test_gain && n.id !== doc.base ? n.test_gain[0] : null), cell: (n) => (n.test_gain && n.id !== doc.base ? [h("span", { class: n.test_gain[2] > 0 ? "good" : n.test_gain[3] < 0 ? "bad" : "", title: n.test_gain[4] }, signed(n.test_gain[0])), h("span", { class: "pm" }, ` [${signed(n.test_gain[2])}, ${signed(n.test_gain[3])}]`)] : ["–"]), number: true, high: true },
  { name: "time", of: (n) => n.seconds, cell: (n) => [span(n.seconds)], number: true },
  { name: "status", short: true, of: (n) => n.status, cell: (n) => [h("span", { class: n.status === "failed" ? "bad" : "dim" }, n.comparable ? n.state || n.status : "other tasks")] },
  { name: "reason", of: (n) => n.failure || n.reason, reason: true },
];
let sorting = { column: 0, down: false };
let wanted = { words: "", which: "all" };

function tableBar() {
  const box = h("input", { type: "search", placeholder: "Filter", "aria-label": "Filter the table", input: (event) => { wanted.words = event.target.value.toLowerCase(); table(); } });
  const options = { all: "all", own: "this search", front: "Pareto front", failed: "failed" };
  const which = h("select", { "aria-label": "Which models", change: (event) => { wanted.which = event.target.value; table(); } }, ...Object.entries(options).map(([value, text]) => h("option", { value }, text)));
  $("table-bar").replaceChildren(box, which);
}

function table() {
  const fits = (node) => ({ all: true, own: node.own, front: front.has(node.id), failed: node.status === "failed" })[wanted.which]
    && (!wanted.words || [handle(node), node.name, node.pipeline, node.status, node.reason, node.failure, node.id, ...Object.entries(node.params).flat()].join(" ").toLowerCase().includes(wanted.words));
  const column = columns[sorting.column];
  const rows = doc.nodes.filter((node) => node.status !== "unknown").filter(fits).sort((a, b) => {
    const [one, other] = [column.of(a), column.of(b)];
    if (!known(one) || !known(other)) return known(other) - known(one) || a.started - b.started;
    return (sorting.down ? -1 : 1) * (typeof one === "number" ? one - other : one.localeCompare(other)) || a.started - b.started;
  });
  const top = columns.map((one, index) => h("th", { scope: "col", class: one.number && "number", "aria-sort": index === sorting.column ? (sorting.down ? "descending" : "ascending") : null },
    h("button", { type: "button", title: cut(one.name, 200), click: () => { sorting = { column: index, down: sorting.column === index ? !sorting.down : !!one.high }; table(); } }, bdi(cut(one.name, 40)))));
  const body = rows.map((node) => {
    const line = h("tr", { class: "row", click: () => pick(node.id, line) }, ...columns.map((one) => {
      if (one.wide) return h("td", { class: "cell" }, h("button", { type: "button", "aria-label": spoken(node) }, bdi(cut(one.of(node), 240), { class: "clip" })));
      if (one.reason) return h("td", { class: "reason" }, bdi(cut(one.of(node), 240), { class: "clip" }));
      const value = one.of(node);
      return h("td", { class: one.number ? "number" : one.short && "short" }, ...(one.cell ? one.cell(node) : [known(value) ? String(value) : "–"]));
    }));
    line.dataset.node = node.id;
    return line;
  });
  if (!rows.length) body.push(h("tr", {}, h("td", { colspan: columns.length, class: "dim" }, "Nothing fits.")));
  $("table").replaceChildren(h("table", {}, h("thead", {}, h("tr", {}, ...top)), h("tbody", {}, ...body)));
  show();
}

// Details ----------------------------------------------------------------------------------------------------------

let opener = null;

function pick(id, from) {
  picked = picked === id && !$("drawer").hidden ? null : id;
  opener = from || null;
  tip(null);
  drawer(picked && byId.get(picked));
  show();
}

function show() {
  for (const made of document.querySelectorAll("[data-node]")) made.classList.toggle("picked", made.dataset.node === picked);
  for (const edge of document.querySelectorAll(".edge")) edge.classList.toggle("picked", !!picked && (edge.dataset.from === picked || edge.dataset.to === picked));
}

function part(name, ...content) {
  return [h("h3", {}, name), ...content];
}

function pairs(entries) {
  return h("table", {}, h("tbody", {}, ...entries.map(([key, value]) => h("tr", {}, h("th", { scope: "row" }, bdi(cut(key, 80))), h("td", {}, bdi(value))))));
}

function drawer(node) {
  $("drawer").hidden = !node;
  if (!node) return;
  const close = h("button", { type: "button", "aria-label": "Close details", click: () => pick(node.id, opener) }, "Close");
  const link = href(node);
  const scores = [["score", known(node.score) ? plus([node.score, node.stderr]) : "–", plus(node.test)], ...doc.tasks.map((task) => [task.name, plus(node.scores[task.name]), plus(node.tests[task.name])])];
  const content = [
    h("div", { class: "top" }, h("h2", {}, bdi(called(node))), close),
    h("p", { class: "dim" }, bdi([cut(node.name, 120), node.rank && `rank ${node.rank}`, node.id === doc.champion && "champion", !node.own && node.kind === "action" && "of an earlier or another search"].filter(Boolean).join(" · "))),
    h("p", {}, link ? h("a", { href: link, target: "_top", rel: "noopener" }, "Open the run in MLflow") : "Run ", link ? null : h("span", { class: "id" }, node.id)),
  ];
  if (node.failure) content.push(...part(node.status === "failed" ? "Why it failed" : "Note", h("p", { class: "bad" }, bdi(node.failure))));
  if (!node.comparable && node.status === "finished") content.push(h("p", { class: "dim" }, "Scored on tasks that have changed since: not compared."));
  if (node.reason) content.push(...part(`Why it was tried (${cut(node.policy || "policy", 40)})`, h("p", {}, bdi(node.reason))));
  if (node.pipeline) content.push(...part("Pipeline", h("p", {}, bdi(node.pipeline))));
  if (node.parents.length) {
    content.push(...part(node.parents.length > 1 ? `Made from ${node.parents.length} models` : "Made from", h("p", {}, ...node.parents.flatMap((parent) => [
      h("button", { type: "button", click: () => { picked = null; pick(parent, opener); } }, bdi(called(byId.get(parent)))), " "]))));
  }
  const head = h("thead", {}, h("tr", {}, ...["", "search split", "test split"].map((text) => h("th", { scope: "col" }, text))));
  if (node.status === "finished") content.push(...part("Scores ± standard error", h("table", {}, head, h("tbody", {}, ...scores.map((row) => h("tr", {}, h("th", { scope: "row" }, bdi(cut(row[0], 60))), h("td", {}, row[1]), h("td", {}, row[2])))))));
  if (node.gain && node.id !== doc.base) content.push(h("p", { class: "dim" }, `${signed(node.gain[0])} ± ${figure(node.gain[1])} over the base: ${beyond(node.gain)}.`));
  if (node.test_gain && node.id !== doc.base) content.push(h("p", { class: "dim" }, `On the test split ${interval(node.test_gain)} over the base (95 % confidence).`));
  if (node.state) content.push(h("p", { class: "dim" }, bdi(`${cut(node.state, 40)}: ${node.state_reason}`)));
  const cost = [["time", span(node.seconds)], node.gpu_seconds && ["GPU time", span(node.gpu_seconds)], node.usd && ["LLM", `$${node.usd.toFixed(4)}`]].filter(Boolean);
  if (known(node.seconds)) content.push(...part("Cost", pairs(cost)));
  if (Object.keys(node.params).length) content.push(...part("Settings", pairs(Object.entries(node.params))));
  if (node.reused) content.push(h("p", { class: "dim" }, bdi(`Not made again: weights, and scores on the same items, are those of run ${node.reused}.`)));
  $("drawer").replaceChildren(...content);
  $("drawer").scrollTop = 0;
  close.focus({ preventScroll: true });
}

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || $("drawer").hidden) return;
  const back = opener;
  pick(picked, null);
  if (back && back.focus) back.focus();
});

// All of it --------------------------------------------------------------------------------------------------------

head();
tiles();
tableBar();
table();
dag();
const measured = () => { curve(); trade(); };
addEventListener("resize", measured);
measured();
if (doc.search.reflection) { $("memory-section").hidden = false; $("memory").replaceChildren(bdi(doc.search.reflection)); }
// `#<run id>` opens its details.
const asked = decodeURIComponent(location.hash.slice(1));
if (byId.has(asked)) pick(asked, null);
document.documentElement.dataset.ready = "1";
