// Tabs, the list of scans, and what the tabs share.

import { get, remove } from "./api.js";
import { button, el, guarded, quiet, say } from "./dom.js";
import { dropArea } from "./drop.js";
import { segmentForm } from "./segment.js";
import { Stage } from "./stage.js";

const TABS = ["view", "segment", "generate", "runs"];
const work = document.getElementById("work");

/** What all tabs know. */
const app = {
  state: null,
  stage: new Stage(),
  chosen: null,
  async refresh() {
    app.state = await get("api/state");
  },
  async choose(id, layers = null) {
    quiet();
    app.chosen = id;
    side.update();
    await app.stage.open(id, layers);
  },
};

const side = {
  list: el("ul", { class: "scans" }),
  update() {
    side.list.replaceChildren(...app.state.scans.map((scan) => el("li", {},
      button(scan.name, () => app.choose(scan.id), { class: "scan", "aria-current": String(scan.id === app.chosen), title: scan.name }),
      scan.dropped && button("×", () => side.drop(scan), { class: "plain", "aria-label": `Remove ${scan.name}` }))));
  },
  async drop(scan) {
    await remove(`api/scans/${scan.id}`);
    await app.refresh();
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
  side.update();
  const panel = el("section", { class: "panel side", "aria-label": "Scans" },
    dropArea("Drop a scan here, or choose one", limit, dropped), form, el("h2", {}, "Scans"), side.list);
  return [panel, app.stage.node, app.stage.panel];
}

const content = {
  view: async () => viewing(null),
  segment: async () => viewing(segmentForm(app)),
  generate: async () => [(await import("./generate.js")).generatePage(app)],
  runs: async () => [await (await import("./runs.js")).runsPage(app)],
};

async function open(name) {
  quiet();
  for (const tab of TABS) {
    const node = document.getElementById(`tab-${tab}`);
    node.setAttribute("aria-selected", String(tab === name));
    node.tabIndex = tab === name ? 0 : -1;
  }
  work.className = name;
  work.setAttribute("aria-labelledby", `tab-${name}`);
  const nodes = await guarded(content[name]);
  if (nodes) work.replaceChildren(...nodes);
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
  // A file that misses the area must not replace the page.
  for (const type of ["dragover", "drop"]) window.addEventListener(type, (event) => event.preventDefault());
}

listen();
await guarded(async () => {
  await app.refresh();
  const onlyRuns = !app.state.scans.length && app.state.runs.length && app.state.runs.every((run) => !run.use);
  await open(onlyRuns ? "runs" : "view");
  if (app.state.scans.length) await app.choose(app.state.scans[0].id);
});
