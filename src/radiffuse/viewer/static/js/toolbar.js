// The tools above the planes where a mask is corrected, and how the scan is shown.

import { button, check, el, select } from "./dom.js";
import { WINDOWS } from "./stage.js";

const TOOLS = {
  move: ["Move", "v"], brush: ["Brush", "b"], erase: ["Erase", "e"], fill: ["Fill", "f"],
  remove: ["Remove piece", "r", "Remove the connected piece under the pointer"],
  keep: ["Keep piece only", "k", "Keep the connected piece under the pointer, and remove all others of its class"],
};
const LARGEST = 60; // radius of the brush in pixels, where the scan is not very large
/** Tools that are done with a click. */
export const AT_ONCE = ["fill", "remove", "keep"];

/** Fill the bar of an editor: `keys` of the tools, `size` of the brush with what it says, planes, window, channel. */
export function toolbar(editor) {
  const { info, mask } = editor;
  editor.keys = Object.fromEntries(Object.entries(TOOLS).map(([name, [text, key, title = text]]) =>
    [name, button(text, () => editor.take(name), { "aria-keyshortcuts": key, title: `${title} (${key})` })]));
  const largest = Math.max(LARGEST, Math.round(Math.max(...mask.shape) / 10));
  editor.size = el("input", { type: "range", min: "0", max: String(largest), value: String(editor.radius), on: { input: () => editor.grow(Number(editor.size.value)) } });
  editor.sized = el("output", {});
  const parts = [el("div", { class: "group", role: "group", "aria-label": "Tool" }, ...Object.values(editor.keys)),
    el("label", { class: "slide radius", title: "Radius of brush and eraser ([ and ])" }, el("span", {}, "radius"), editor.size, editor.sized)];
  if (info.dims === 3) {
    parts.push(check("fill in all slices", editor.solid, (on) => { editor.solid = on; }).node);
    const names = ["all", ...editor.views.map((view) => view.plane.name)];
    parts.push(select(names.map((n) => [n, n === "all" ? "three planes" : n]), "all", (name) => editor.only(name), { "aria-label": "Planes" }));
  }
  const zoom = (text, label, by) => button(text, () => (by ? editor.active.zoomBy(by) : editor.active.fit()), { "aria-label": label });
  parts.push(el("div", { class: "group", role: "group", "aria-label": "Zoom" }, zoom("−", "Zoom out", 0.8), zoom("fit", "Whole picture", 0), zoom("+", "Zoom in", 1.25)));
  editor.shades = el("div", { class: "shades" }, ...grays(editor));
  parts.push(editor.shades);
  if (info.channels > 1) {
    const options = Array.from({ length: info.channels }, (_, i) => [String(i), `channel ${i + 1}`]);
    parts.push(select(options, "0", (i) => editor.look(Number(i)), { "aria-label": "Channel" }));
  }
  editor.bar.replaceChildren(...parts);
  editor.take(editor.tool);
  editor.grow(editor.radius);
}

/** Which values are black and white. */
export function grays(editor) {
  const number = (i, label) => el("input", { type: "number", value: String(Math.round(editor.window[i] * 100) / 100), step: "any", "aria-label": label });
  const lower = number(0, "Black at"), upper = number(1, "White at");
  const apply = () => {
    const pair = [Number(lower.value), Number(upper.value)];
    if (pair[1] > pair[0]) { editor.window = pair; editor.again(); }
  };
  for (const input of [lower, upper]) input.addEventListener("change", apply);
  const named = (name) => { if (name) { [lower.value, upper.value] = WINDOWS[name].map(String); apply(); } };
  return [editor.info.hounsfield[editor.channel] && select([["", "window"], ...Object.keys(WINDOWS).map((n) => [n, n])], "", named, { "aria-label": "Window" }),
    el("div", { class: "window" }, el("span", {}, "black"), lower, el("span", {}, "white"), upper)].filter(Boolean);
}
