// Curves and tables of several runs side by side.

import { get } from "./api.js";
import { chart, color, dash, short } from "./chart.js";
import { check, el, select, svg, table } from "./dom.js";

const FIRST = 6; // runs that are chosen at first

/** The page; its runs are read when they are chosen. */
export async function runsPage(app) {
  const { runs } = app.state;
  if (!runs.length) return el("p", { class: "hint" }, "No run, study or table was given. Start with: radiffuse view RUN ...");
  const known = new Map(), chosen = new Set(runs.slice(0, FIRST).map((run) => run.id));
  const body = el("div", {});
  let log = false;

  const boxes = runs.map((run, i) => {
    const box = check(run.name, chosen.has(run.id), async (on) => {
      if (on) chosen.add(run.id);
      else chosen.delete(run.id);
      await draw();
    });
    box.node.append(el("small", {}, run.command || run.kind));
    box.node.insertBefore(key(i), box.node.children[1]);
    return box.node;
  });
  const scale = select([["", "linear"], ["log", "logarithmic"]], "", async (value) => { log = value === "log"; await draw(); });

  async function draw() {
    const picked = runs.map((run, order) => ({ run, order })).filter(({ run }) => chosen.has(run.id));
    for (const { run } of picked) if (!known.has(run.id)) known.set(run.id, await get(`api/runs/${run.id}`));
    const all = picked.map(({ run, order }) => ({ ...known.get(run.id), order }));
    const parts = [...problems(all), ...notes(all), ...choices(all), ...curves(all, log), ...settings(all), ...tables(all)];
    body.replaceChildren(...(parts.length || !all.length ? parts : [el("p", { class: "hint" }, "Nothing was logged or scored yet.")]));
  }

  await draw();
  return el("div", { class: "runs" },
    el("div", { class: "choose" }, el("fieldset", {}, el("legend", {}, "Side by side"), ...boxes),
      el("label", { class: "field" }, el("span", {}, "axis of the curves"), scale)), body);
}

function key(i) {
  const line = svg("line", { x1: 1, x2: 21, y1: 6, y2: 6, class: "curve", "stroke-dasharray": dash(i) });
  line.style.setProperty("--series", color(i));
  return svg("svg", { viewBox: "0 0 22 12", class: "key", "aria-hidden": "true" }, line);
}

const problems = (all) => all.flatMap((run) => run.problems).map((text) => el("p", { class: "problem" }, text));

/** What a plan did to the images. */
const notes = (all) => all.flatMap((run) => run.notes.map((text) => el("p", { class: "reason" }, `${run.name}: ${text}`)));

/** What an automatic run tried, on which folds, and what it chose. */
function choices(all) {
  return all.filter((run) => run.choice.sentences).flatMap((run) => [el("h2", {}, `Choice of ${run.name}`),
    ...run.choice.sentences.map((text) => el("p", { class: "reason" }, text)),
    ...run.choice.tables.map((one) => table(one.columns, one.rows, one.title))]);
}

function curves(all, log) {
  const names = [...new Set(all.flatMap((run) => Object.keys(run.curves)))];
  if (!names.length) return [];
  const rank = (name) => (name === "loss" ? 0 : name.startsWith("validation.") ? 1 : name.startsWith("loss") ? 2 : 3);
  names.sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
  const figure = (name) => chart(name, all.filter((run) => run.curves[name])
    .map((run) => ({ name: run.name, points: run.curves[name], order: run.order })), log);
  const learned = names.filter((name) => rank(name) < 3), first = (learned.length ? learned : names).slice(0, 4);
  const more = names.filter((name) => !first.includes(name));
  const drawn = all.filter((run) => Object.keys(run.curves).length);
  const rows = names.map((name) => [name, ...drawn.map((run) => (run.curves[name] ? short(run.curves[name].at(-1)[1]) : ""))]);
  return [el("h2", {}, "Training"), el("div", { class: "charts" }, ...first.map(figure)),
    more.length && el("details", {}, el("summary", {}, `${more.length} more curve${more.length > 1 ? "s" : ""}`), el("div", { class: "charts" }, ...more.map(figure))),
    table(["last value", ...drawn.map((run) => run.name)], rows)].filter(Boolean);
}

/** An automatic run stands for its members, whose settings its choice has made. */
function settings(all) {
  const parts = new Set(all.map((run) => `member of ${run.name}`));
  const runs = all.filter((run) => Object.keys(run.settings).length && !parts.has(run.command));
  const value = (run, name) => (run.settings[name] ?? "None") === "None" ? "" : run.settings[name];
  if (runs.length < 2) return [];
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.settings)))]
    .filter((name) => new Set(runs.map((run) => value(run, name))).size > 1 && name !== "out");
  if (!names.length) return [el("h2", {}, "Settings"), el("p", {}, "These runs have the same settings.")];
  return [el("h2", {}, "Settings that differ"),
    table(["setting", ...runs.map((run) => run.name)], names.map((name) => [name, ...runs.map((run) => value(run, name))]))];
}

function tables(all) {
  const parts = [];
  const scored = all.map((run) => [run, run.tables.find((t) => t.columns.includes("metric") && t.columns.includes("mean") && t.columns.includes("class") && !t.columns.includes("method"))]).filter(([, t]) => t);
  if (scored.length > 1) parts.push(sideBySide(scored));
  for (const run of all) {
    for (const one of run.tables) {
      const cut = one.cut ? ` (the first ${one.rows.length} rows)` : "";
      parts.push(el("details", { open: all.length === 1 }, el("summary", {}, `${run.name}: ${one.name}${cut}`), table(one.columns, one.rows)));
    }
  }
  return parts.length ? [el("h2", {}, "Scores"), ...parts] : [];
}

/** Means of the same class and metric in neighboring columns. */
function sideBySide(scored) {
  const rows = new Map();
  for (const [i, [, one]] of scored.entries()) {
    const at = (name) => one.columns.indexOf(name);
    for (const row of one.rows) {
      const id = `${row[at("class")]}\n${row[at("metric")]}`;
      if (!rows.has(id)) rows.set(id, [row[at("class")], row[at("metric")], ...scored.map(() => "")]);
      const value = Number(row[at("mean")]);
      rows.get(id)[2 + i] = Number.isNaN(value) ? "" : short(value);
    }
  }
  return table(["class", "metric", ...scored.map(([run]) => run.name)], [...rows.values()], "Mean scores");
}
