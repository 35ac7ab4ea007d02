// Synthetic films: variations of one film, or the way from one film to another.

import { button, el, field, say, select } from "./dom.js";
import { dropArea } from "./drop.js";
import { follow } from "./work.js";

export function generatePage(app) {
  const runs = app.state.runs.filter((run) => run.use === "generate");
  if (!runs.length) return el("p", { class: "hint" }, "No run of radiffuse synthesize was given. Start with: radiffuse view RUN");
  const scans = () => app.state.scans.map((scan) => [scan.id, scan.name]);
  const run = select(runs.map((one) => [one.id, one.name]));
  const kind = select([["variation", "variations"], ["from-image", "close variations"], ["interpolate", "from film to film"]],
    "variation", adapt);
  const first = select(scans()), second = select(scans());
  const number = (value, min, max, step = "1") => el("input", { type: "number", value, min: String(min), max: String(max), step });
  const count = number("8", 1, 32), steps = number("50", 1, 1000), guidance = number("1.5", 0, 20, "any");
  const strength = number("0.5", 0.05, 1, "any"), seed = number("0", 0, 2147483647);
  const what = { variation: "what the film shows, drawn anew", "from-image": "drawn anew, and close to the film", interpolate: "in even steps from one film to another" };
  const meaning = el("small", {});
  const other = field("to this film", second), close = field("strength, 0 to 1", strength);
  const progress = el("div", {}), gallery = el("div", { class: "gallery" });
  const start = button("Generate", draw, { class: "main", type: "submit" });

  function adapt() {
    meaning.textContent = what[kind.value];
    other.hidden = kind.value !== "interpolate";
    close.hidden = kind.value !== "from-image";
  }

  async function dropped(found) {
    await app.refresh();
    const before = [first.value, second.value];
    for (const list of [first, second]) list.replaceChildren(...scans().map(([id, name]) => el("option", { value: id }, name)));
    if (kind.value === "interpolate" && before[0]) [first.value, second.value] = [before[0], found.at(-1).id];
    else [first.value, second.value] = [found[0].id, found.at(-1).id];
  }

  async function draw() {
    if (!first.value) return say("Drop a film first.", "note");
    const films = kind.value === "interpolate" ? [first.value, second.value] : [first.value];
    start.disabled = true;
    try {
      const result = await follow(progress, "api/generate", {
        run: run.value, kind: kind.value, films, count: Number(count.value), steps: Number(steps.value),
        guidance: Number(guidance.value), strength: Number(strength.value), seed: Number(seed.value),
      });
      if (result) show(result);
    } finally {
      start.disabled = false;
    }
    return undefined;
  }

  function show(result) {
    gallery.replaceChildren(...result.images.map((image) => {
      const address = `api/made/${image.id}`;
      return el("figure", {}, el("img", { src: address, alt: `Synthetic film, ${image.text}`, loading: "lazy" }),
        el("figcaption", {}, image.text, " ", el("a", { href: `${address}?save=1`, download: true }, "save")));
    }));
  }

  adapt();
  const form = el("form", { class: "form", on: { submit: (event) => { event.preventDefault(); } } },
    dropArea("Drop films here, or choose them", () => app.state.upload_limit, dropped), field("run", run), field("what", kind, meaning),
    field("film", first), other, close, field("images", count), field("inference steps", steps),
    field("guidance", guidance, "1 is none"), field("seed", seed), start, progress);
  return el("div", { class: "two" }, form, el("section", { "aria-label": "Synthetic films" },
    el("p", { class: "hint" }, "Synthetic films show no patient; each file says so, and what it was drawn from."), gallery));
}

