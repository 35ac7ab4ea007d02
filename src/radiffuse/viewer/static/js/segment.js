// The form that segments the chosen scan with a run.

import { el, button, check, field, guarded, say, select } from "./dom.js";
import { follow } from "./work.js";

export function segmentForm(app) {
  const runs = app.state.runs.filter((run) => run.use === "segment");
  if (!runs.length) {
    return el("p", { class: "hint" }, "No run that segments was given. Start with: radiffuse view RUN");
  }
  const choice = select(runs.map((run) => [run.id, `${run.name} (${run.dims}D)`]), undefined, adapt), named = el("small", {});
  const number = (value, max, text) => el("input", { type: "number", min: "1", max: String(max), value, placeholder: text });
  const samples = number("1", 64, ""), steps = number("", 1000, "as trained");
  const sampler = select([["", "as trained"], ["ddpm", "DDPM"], ["ddim", "DDIM"]], "");
  const keep = check("keep every step", true), doubt = check("maps of uncertainty", false);
  const diffusion = el("fieldset", {}, el("legend", {}, "Mask diffusion"), field("masks to average", samples),
    field("steps", steps), field("sampler", sampler), keep.node);
  const progress = el("div", {}), start = button("Segment", run, { class: "main" });

  function adapt() {
    const run = runs.find((one) => one.id === choice.value);
    named.textContent = run.name; // the box may be too narrow for it
    diffusion.hidden = !run.draws;
  }

  async function run() {
    const scan = app.chosen;
    if (!scan) return say("Choose a scan first, or drop a file.", "note");
    const draws = !diffusion.hidden;
    const body = { scan, run: choice.value, uncertainty: doubt.input.checked };
    if (draws) {
      Object.assign(body, { samples: Number(samples.value) || 1, keep_steps: keep.input.checked });
      if (steps.value) body.steps = Number(steps.value);
      if (sampler.value) body.sampler = sampler.value;
    }
    start.disabled = true;
    try {
      const result = await follow(progress, "api/segment", body);
      if (result && app.chosen === scan) await app.choose(scan, result.layers.slice(0, 1));
    } finally {
      start.disabled = false;
    }
    return undefined;
  }

  adapt();
  return el("form", { class: "form", on: { submit: (event) => { event.preventDefault(); guarded(run); } } },
    field("run", choice, named), diffusion, doubt.node, start, progress);
}
