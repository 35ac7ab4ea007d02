// Tabs, the list of scans, and what the tabs share.

import { get, remove } from "./api.js";
import { button, el, guarded, quiet, say, select } from "./dom.js";
import { dropArea } from "./drop.js";
import { Editor } from "./editor.js";
import { help } from "./keys.js";
import { segmentForm } from "./segment.js";
import { Stage } from "./stage.js";

const TABS = ["view", "segment", "correct", "generate", "runs"];
const work = document.getElementById("work");

/** What all tabs know. */
const app = {
  state: null,
  stage: new Stage(),
  chosen: null,
  async refresh() {
    app.state = await get("api/state");
  },
  help,
  /** Choose a scan, and show it where the open tab shows scans; the mask that is corrected is left only by consent. */
  async choose(id, layers = null) {
    const correcting = app.tab === "correct";
    if (correcting && !(await app.editor.mayLeave())) return;
    quiet();
    app.chosen = id;
    side.update();
    if (correcting) await app.editor.open(id);
    else await app.stage.open(id, layers);
  },
  /** A scan was corrected. */
  saved(id) {
    if (app.stage.id === id) app.stage.empty(); // it is read anew when it is shown
    side.update();
  },
  /** A class has another name. */
  renamed() {
    app.stage.empty(); // what it shows is read anew
  },
  /** Go on in the list: to the next scan that is not corrected, or to the one before. */
  async next(by) {
    const all = side.sorted(), at = all.findIndex((scan) => scan.id === app.chosen);
    const rest = by > 0 ? [...all.slice(at + 1), ...all.slice(0, at)].filter((scan) => !scan.corrected) : all.slice(0, Math.max(0, at)).reverse();
    if (!rest.length) return say(by > 0 ? "All other scans of the list are corrected." : "This is the first scan of the list.", "note");
    await app.choose(rest[0].id);
    app.editor.active?.screen.focus();
    return undefined;
  },
};
app.editor = new Editor(app);

const ORDERS = {
  list: ["in the order of the list", () => 0],
  expected: ["lowest expected Dice first", (a, b) => (a.expected.dice ?? 2) - (b.expected.dice ?? 2)],
  name: ["by name", (a, b) => a.name.localeCompare(b.name, "en", { numeric: true })],
};

const side = {
  list: el("ul", { class: "scans" }),
  order: select(Object.entries(ORDERS).map(([key, [text]]) => [key, text]), "list", () => side.update(), { "aria-label": "Order of the scans" }),
  done: el("p", { class: "facts" }),
  sorted: () => app.state.scans.toSorted(ORDERS[side.order.value][1]),
  update() {
    const { scans } = app.state, count = scans.filter((scan) => scan.corrected).length;
    side.done.textContent = count || scans.some((scan) => scan.place) ? `${count} of ${scans.length} corrected` : "";
    side.order.hidden = scans.length < 2;
    const told = (scan) => [scan.corrected && "corrected", scan.expected.dice !== undefined && `expected Dice ${scan.expected.dice.toFixed(2)}`, scan.why].filter(Boolean);
    side.list.replaceChildren(...side.sorted().map((scan) => el("li", {},
      button(el("span", {}, scan.name), () => app.choose(scan.id), { class: "scan", "aria-current": String(scan.id === app.chosen), title: [scan.name, ...told(scan)].join(", ") }),
      scan.expected.dice !== undefined && el("small", { "aria-hidden": "true" }, scan.expected.dice.toFixed(2)),
      scan.corrected > 0 && el("small", { class: "tick", role: "img", "aria-label": "corrected" }, "✓"),
      scan.dropped && button("×", () => side.drop(scan), { class: "plain", "aria-label": `Remove ${scan.name}` }))));
  },
  async drop(scan) {
    if (app.editor.id === scan.id && !(await app.editor.mayLeave())) return;
    await remove(`api/scans/${scan.id}`);
    await app.refresh();
    if (app.editor.id === scan.id) app.editor.empty();
    if (app.chosen === scan.id) {
      app.chosen = null;
      app.stage.empty();
    }
    side.update();
  },
};

const limit = () => app.state.upload_limit;

async function dropped(scans) {
  await app.refresh();
  side.update();
  await app.choose(scans[0].id);
  if (scans.length > 1) say(`${scans.length} scans were found; all are in the list.`, "note");
}

function viewing(form) {
  const panel = el("section", { class: "panel side", "aria-label": "Scans" },
    dropArea("Drop a scan here, or choose one", limit, dropped), form, el("h2", {}, "Scans"), side.order, side.done, side.list);
  const shown = app.tab === "correct" ? app.editor : app.stage;
  if (app.chosen && (shown === app.stage ? shown.id !== app.chosen : !shown.dirty)) guarded(() => shown.open(app.chosen));
  else if (app.tab === "correct" && shown.dirty) app.chosen = shown.id; // what is not saved stays open
  side.update();
  return [panel, shown.node, shown.panel];
}

const content = {
  view: async () => viewing(null),
  segment: async () => viewing(segmentForm(app)),
  correct: async () => viewing(null),
  generate: async () => [(await import("./generate.js")).generatePage(app)],
  runs: async () => [await (await import("./runs.js")).runsPage(app)],
};

let opened = 0;

async function open(name) {
  quiet();
  app.tab = name;
  if (!app.state) return; // it is opened once the server has answered
  for (const tab of TABS) {
    const node = document.getElementById(`tab-${tab}`);
    node.setAttribute("aria-selected", String(tab === name));
    node.tabIndex = tab === name ? 0 : -1;
  }
  work.className = name;
  work.setAttribute("aria-labelledby", `tab-${name}`);
  const turn = (opened += 1);
  work.replaceChildren(el("p", { class: "hint", role: "status" }, "Loading ..."));
  const nodes = await guarded(content[name]);
  if (turn === opened) work.replaceChildren(...(nodes || [])); // else another tab was opened meanwhile
}

function listen() {
  for (const [i, tab] of TABS.entries()) {
    const node = document.getElementById(`tab-${tab}`);
    node.addEventListener("click", () => open(tab));
    node.addEventListener("keydown", (event) => {
      const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!move) return;
      const next = TABS[(i + move + TABS.length) % TABS.length];
      document.getElementById(`tab-${next}`).focus();
      open(next);
    });
  }
  window.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input:not([type=radio], [type=checkbox]), select, textarea");
    if (document.querySelector("dialog") || (typing && !(event.ctrlKey && event.key === "s"))) return;
    if (event.key === "?") help();
    else if (app.tab !== "correct" || !app.editor.key(event)) return;
    event.preventDefault();
  });
  document.getElementById("help").addEventListener("click", help);
  window.addEventListener("keyup", (event) => app.editor.released(event));
  window.addEventListener("beforeunload", (event) => { if (app.editor.dirty) event.preventDefault(); });
  // A file that misses the area must not replace the page.
  for (const type of ["dragover", "drop"]) window.addEventListener(type, (event) => event.preventDefault());
}

listen();
await guarded(async () => {
  await app.refresh();
  const onlyRuns = !app.state.scans.length && app.state.runs.length && app.state.runs.every((run) => !run.use);
  const { scans } = app.state, work = scans.some((scan) => scan.place);
  if (!work && scans.some((scan) => scan.expected.dice !== undefined)) side.order.value = "expected";
  app.chosen = side.sorted()[0]?.id || null;
  await open(app.tab || (onlyRuns ? "runs" : work ? "correct" : "view"));
});
