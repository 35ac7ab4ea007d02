// Where a mask is corrected: planes in the middle, tools at the right. The mask is here; slices come from the server one by one.

import { bytes, get, send } from "./api.js";
import { classColor, css, IGNORED, labelLut } from "./colors.js";
import { ask, button, el, guarded, say, select } from "./dom.js";
import { TYPES } from "./film.js";
import { act } from "./keys.js";
import { Mask, planesOf } from "./mask.js";
import { naming } from "./naming.js";
import { PlaneView } from "./plane.js";
import { amount } from "./stage.js";
import { AT_ONCE, grays, toolbar } from "./toolbar.js";

const KEPT = 96; // slices that stay in memory

export class Editor {
  /** `app`: of main.js. */
  constructor(app) {
    this.app = app;
    this.bar = el("div", { class: "bar", role: "toolbar", "aria-label": "Tools" });
    this.host = el("div", { class: "host planes" });
    this.status = el("output", { class: "status" });
    this.node = el("section", { class: "stage", "aria-label": "Scan" }, this.bar, this.host, this.status);
    this.panel = el("section", { class: "panel layers", "aria-label": "Correction" });
    Object.assign(this, { tool: "brush", radius: 4, value: 1, opacity: 0.5, masked: true, solid: false, views: [], cursor: [0, 0, 0] });
    this.empty();
  }

  get dirty() {
    return Boolean(this.mask?.dirty);
  }

  empty(text = "Choose a scan, or drop a file.") {
    for (const view of this.views) view.close();
    Object.assign(this, { id: null, mask: null, views: [], active: null, slices: new Map() });
    this.bar.replaceChildren();
    this.status.textContent = "";
    this.host.replaceChildren(el("p", { class: "hint" }, text));
    this.panel.replaceChildren();
  }

  /** Whether the scan may be left: changes are saved or given up first. */
  async mayLeave() {
    if (!this.dirty) return true;
    const answer = await ask(`The changes of ${this.info.name} are not saved.`, ["Save", "Discard", "Stay"]);
    if (answer === "Save") return this.save();
    return answer === "Discard";
  }

  /** Open a scan; `start` is the id of the mask to begin with, '' for none, null for the newest. */
  async open(id, start = null) {
    const turn = (this.turn = (this.turn || 0) + 1);
    this.empty("Reading ...");
    try {
      const info = await get(`api/scans/${id}`);
      if (!info.editable) throw new Error(`${info.name} is too large to be corrected here.`);
      const masks = info.layers.filter((one) => one.kind === "mask" || one.kind === "truth");
      const chosen = start === null ? this.first(masks) : masks.find((one) => one.id === start);
      const shape = info.dims === 2 ? [1, ...info.shape] : info.shape;
      const labels = chosen ? await bytes(`api/scans/${id}/layers/${encodeURIComponent(chosen.id)}/labels`) : null;
      const film = info.dims === 2 ? await bytes(`api/scans/${id}/image`) : null;
      if (turn !== this.turn) return;
      Object.assign(this, { info, id, start: chosen?.id || "", masks, window: info.windows[0], channel: 0 });
      this.before = this.app.state.scans.find((one) => one.id === id)?.corrected || 0;
      this.mask = new Mask(shape, labels ? new Uint8Array(labels) : new Uint8Array(shape.reduce((a, b) => a * b)));
      this.classes = this.named(chosen);
      this.lut = new Uint32Array(labelLut("mask", new Set()).slice().buffer);
      this.film = film && this.split(new TYPES[info.dtype](film));
      if (this.value >= this.classes.length && this.value !== IGNORED) this.value = 1;
      this.cursor = this.middle();
      const spacing = info.spacing || info.shape.map(() => 1);
      this.views = planesOf(info).map((plane) => new PlaneView(this, plane, info.dims === 2 ? [1, ...spacing] : spacing));
      this.active = this.views[0];
      this.host.className = `host planes ${info.dims === 2 ? "one" : "three"}`;
      this.host.replaceChildren(...this.views.map((view) => view.node));
      toolbar(this);
      this.side();
      this.show();
    } catch (error) {
      if (turn === this.turn) this.empty("This scan cannot be corrected.");
      throw error;
    }
  }

  first(masks) {
    return masks.find((one) => one.id === "correction") || masks.filter((one) => one.kind === "mask").at(-1) || masks[0];
  }

  /** Names of the classes: those of the mask, continued by those of earlier corrections. */
  named(layer) {
    const own = layer?.classes || [], known = this.app.state.corrections.classes;
    const found = known.length > own.length && own.every((name, i) => name === known[i]) ? known.slice() : own.slice();
    let top = IGNORED - 1;
    while (top > 0 && !this.mask.counts[top]) top -= 1;
    for (let value = found.length; value <= top; value++) found.push(value ? `class ${value}` : "background");
    return found.length > 1 ? found : ["background", "class 1"];
  }

  split(values) {
    const count = this.info.shape[0] * this.info.shape[1];
    return Array.from({ length: values.length / count }, (_, i) => values.subarray(i * count, (i + 1) * count));
  }

  /** Where to begin: at the largest part of the mask along each axis, or in the middle. */
  middle() {
    const { shape, labels, strides } = this.mask, sums = [0, 0, 0];
    let count = 0;
    for (let i = 0; i < labels.length; i++) {
      if (!labels[i]) continue;
      count += 1;
      for (let axis = 0; axis < 3; axis++) sums[axis] += Math.floor(i / strides[axis]) % shape[axis];
    }
    return shape.map((n, axis) => (count ? Math.round(sums[axis] / count) : Math.floor(n / 2)));
  }

  // ------------------------------------------------------------------------------------------------ pictures

  show() {
    for (const view of this.views) {
      const index = this.cursor[view.plane.w];
      if (index !== view.index) {
        view.show(index);
        guarded(() => this.fetch(view, index));
      }
      view.draw();
    }
  }

  async fetch(view, index) {
    const { id } = this;
    const pixels = this.film || [await this.slice(view.plane.w, index)];
    if (id === this.id && index === view.index) view.picture(pixels);
    if (this.film) return;
    for (const next of [index + 1, index - 1]) {
      if (next >= 0 && next < this.mask.shape[view.plane.w]) await this.slice(view.plane.w, next);
    }
  }

  slice(axis, index) {
    const key = `${this.channel}/${axis}/${index}`, { slices, info } = this;
    const found = slices.get(key) || bytes(`api/scans/${this.id}/slices/${axis}/${index}?channel=${this.channel}`)
      .then((buffer) => new TYPES[info.dtype](buffer));
    found.catch(() => slices.delete(key));
    slices.delete(key);
    slices.set(key, found); // the one that was used last stands last
    if (slices.size > KEPT) slices.delete(slices.keys().next().value);
    return found;
  }

  again() {
    for (const view of this.views) if (view.pixels) view.picture(view.pixels);
  }

  repaint() {
    for (const view of this.views) view.paint();
  }

  words(view) {
    const { plane, index } = view, many = this.mask.shape[plane.w];
    const place = this.info.dims === 2 ? `Film ${this.info.name}` : `${plane.name} plane of ${this.info.name}, slice ${index + 1} of ${many}`;
    return `${place}. Arrow keys move the cursor, space uses the tool, question mark lists all keys.`;
  }

  // ------------------------------------------------------------------------------------------------ tools at work

  /** A pointer goes down on a pixel; what dragging it will do. */
  down(view, pixel) {
    this.lift();
    this.active = view;
    if (this.tool === "move") {
      if (this.inside(view, pixel)) this.go(view.place(pixel));
      return "move";
    }
    if (this.inside(view, pixel)) this.go(view.place(pixel));
    if (AT_ONCE.includes(this.tool)) {
      if (this.inside(view, pixel)) this.use(view, pixel);
      return "";
    }
    this.mask.begin(this.tool === "erase" ? 0 : this.value);
    this.last = { pixel, index: view.index };
    this.drag(view, pixel);
    return "paint";
  }

  /** A stroke goes on to a pixel; in another slice it begins there. */
  drag(view, pixel) {
    const { mask, radius, last } = this, from = last.index === view.index ? last.pixel : pixel;
    view.paint(mask.sweep(view.plane, view.index, from, pixel, radius, view.spacing));
    this.last = { pixel, index: view.index };
    if (this.inside(view, pixel)) this.cursor = view.place(pixel);
  }

  /** A key goes down that uses the tool at the cursor; while `held`, a brush stays down, and its way is one change. */
  press(view, held) {
    const pixel = view.of(this.cursor);
    if (this.tool === "move") return;
    if (AT_ONCE.includes(this.tool)) this.use(view, pixel);
    else if (this.down(view, pixel)) this.pen = true;
    if (!held) this.lift();
  }

  /** The brush that a key holds down is lifted. */
  lift() {
    if (this.pen) this.up();
  }

  up() {
    this.pen = false;
    if (this.mask.end()) this.changed();
    this.show();
  }

  /** Use a tool that is done at once, on one pixel. */
  use(view, pixel) {
    const { mask, tool } = this, at = [view.plane, view.index, ...pixel];
    mask.begin(tool === "fill" ? this.value : 0);
    if (tool === "fill") mask.fill(...at, this.solid);
    else if (tool === "remove") mask.remove(...at);
    else mask.keep(...at);
    if (mask.end()) this.changed();
    else if (tool !== "fill") this.status.textContent = `Nothing to remove here · ${this.told()}`;
  }

  inside(view, [x, y]) {
    return x >= 0 && y >= 0 && x < view.walk.columns && y < view.walk.rows;
  }

  go(cursor) {
    this.cursor = cursor.map((v, axis) => Math.min(this.mask.shape[axis] - 1, Math.max(0, v)));
    this.show();
    this.tell(this.cursor);
  }

  /** Go on through the slices of a plane: by 1 to the top, front or right. */
  through(view, by) {
    const cursor = this.cursor.slice();
    cursor[view.plane.w] += by * view.plane.up;
    this.go(cursor);
  }

  hover(view, pixel) {
    if (this.inside(view, pixel)) this.tell(view.place(pixel));
  }

  tell(place) {
    const label = this.mask.labels[place.reduce((sum, v, axis) => sum + v * this.mask.strides[axis], 0)];
    const name = label === IGNORED ? "not counted" : this.classes[label];
    const where = this.info.dims === 2 ? `row ${place[1]}, column ${place[2]}` : `voxel ${place.join(", ")}`;
    this.status.textContent = `${where} · ${name} · ${this.told()}`;
  }

  told() {
    return this.dirty ? "not saved" : this.before ? "saved" : "unchanged";
  }

  changed() {
    this.repaint();
    this.sizes();
  }

  undo() {
    if (!this.mask.stroke && this.mask.undo()) this.changed();
  }

  redo() {
    if (!this.mask.stroke && this.mask.redo()) this.changed();
  }

  async save() {
    if (!this.mask || this.saving) return false;
    const { id, mask } = this, top = mask.done.at(-1);
    if (this.app.state.corrections.problem) {
      say(this.app.state.corrections.problem);
      return false;
    }
    this.saving = true;
    this.sizes();
    const words = new URLSearchParams([["before", this.before], ["start", this.start], ...this.classes.map((name) => ["classes", name])]);
    const found = await guarded(async () => send(`api/scans/${id}/correction?${words}`, await mask.packed()));
    this.saving = false;
    if (found) {
      Object.assign(this.app.state.scans.find((one) => one.id === id), found, { corrections: undefined });
      this.app.state.corrections = found.corrections;
      if (id === this.id) Object.assign(this, { before: found.corrected, start: "correction" });
      mask.saved = top;
      this.app.saved(id);
      say(`${found.name} is saved as corrected; what was there before stays.`, "note");
    }
    if (id === this.id) this.sizes();
    return Boolean(found);
  }

  // ------------------------------------------------------------------------------------------------ what is around the planes

  only(name) {
    for (const view of this.views) view.node.hidden = name !== "all" && name !== view.plane.name;
    this.host.classList.toggle("three", name === "all");
    this.host.classList.toggle("one", name !== "all");
  }

  look(channel) {
    this.channel = channel;
    this.window = this.info.windows[channel];
    this.shades.replaceChildren(...grays(this));
    for (const view of this.views) guarded(() => this.fetch(view, view.index));
  }

  take(name) {
    this.tool = name;
    for (const [key, node] of Object.entries(this.keys)) node.setAttribute("aria-pressed", String(key === name));
    for (const view of this.views) view.draw();
  }

  grow(radius) {
    this.radius = Math.min(Number(this.size.max), Math.max(0, radius));
    this.size.value = String(this.radius);
    this.sized.textContent = `${this.radius} px`;
    for (const view of this.views) view.draw();
  }

  side() {
    const { info } = this, scan = this.app.state.scans.find((one) => one.id === this.id);
    const options = [["", "nothing"], ...this.masks.map((one) => [one.id, one.name])];
    const start = select(options, this.start, async (id) => {
      if (await this.mayLeave()) await this.open(this.id, id);
      else start.value = this.start;
    });
    const facts = [scan?.why, scan?.expected.dice !== undefined && `expected Dice ${scan.expected.dice.toFixed(3)} (${scan.expected.low.toFixed(3)} to ${scan.expected.high.toFixed(3)})`];
    this.list = el("ul", { class: "classes", role: "radiogroup", "aria-label": "Class to paint" });
    const opacity = el("input", { type: "range", min: "0", max: "100", value: String(this.opacity * 100),
      on: { input: () => { this.opacity = opacity.value / 100; for (const view of this.views) view.draw(); } } });
    this.back = button("Undo", () => this.undo(), { title: "Undo (Ctrl Z)" });
    this.forth = button("Redo", () => this.redo(), { title: "Redo (Ctrl Y)" });
    this.keep = button("Save", () => this.save(), { class: "main", title: "Save the mask as it is now (s)", "aria-keyshortcuts": "s" });
    const next = button("Next", () => this.app.next(1), { title: "Next scan (n)", "aria-keyshortcuts": "n" });
    this.fit = el("div", { class: "again" });
    this.panel.replaceChildren(el("h2", {}, info.name), ...facts.filter(Boolean).map((text) => el("p", { class: "facts" }, text)),
      el("label", { class: "field" }, el("span", {}, "begin with"), start),
      el("article", { class: "layer" }, this.list, naming(this),
        el("label", { class: "slide" }, el("span", {}, "opacity"), opacity)),
      el("div", { class: "acts" }, this.back, this.forth, this.keep, next), this.fit,
      button("All keys (?)", () => this.app.help(), { class: "plain" }));
    this.sizes();
  }

  choose(value) {
    this.value = value;
    if (this.tool !== "fill") this.take("brush");
    this.sizes();
  }

  /** Classes with their sizes, and what can be done now. */
  sizes() {
    if (!this.list) return;
    const { info, mask, classes } = this;
    const measure = (n) => (["px", "voxels"].includes(info.unit) ? `${n.toLocaleString("en")} ${info.unit}` : `${amount(n * info.voxel)} ${info.unit}`);
    const rows = [...classes.map((name, value) => [name, value]).slice(1), ["not counted", IGNORED]];
    const held = this.list.contains(document.activeElement);
    this.list.replaceChildren(...rows.map(([name, value]) => {
      const input = el("input", { type: "radio", name: "class", checked: value === this.value, on: { change: () => this.choose(value) } });
      const key = value < 10 ? String(value) : value === IGNORED ? "i" : "";
      return el("li", {}, el("label", { class: "check" }, input, el("i", { class: "swatch", style: { background: css(classColor(value)) } }),
        el("span", { class: "name" }, name), key && el("kbd", {}, key), el("span", { class: "size" }, measure(mask.counts[value]))));
    }));
    if (held) this.list.querySelector("input:checked")?.focus();
    this.back.disabled = !mask.done.length;
    this.forth.disabled = !mask.undone.length;
    this.keep.disabled = Boolean(this.saving);
    this.keep.textContent = this.saving ? "Saving ..." : this.dirty ? "Save" : this.before ? "Saved" : "Accept";
    this.tell(this.cursor);
    const { next, folder } = this.app.state.corrections, count = this.app.state.scans.filter((one) => one.corrected).length;
    this.fit.replaceChildren(...(next ? [el("h2", {}, "Fit again"), el("p", { class: "facts" }, `${count} corrected here, in ${folder}. This learns from labels and corrections:`),
      el("pre", { tabindex: "0", "aria-label": "Command" }, next), button("Copy", () => navigator.clipboard.writeText(next))] : []));
  }

  // ------------------------------------------------------------------------------------------------ keys

  /** What a key does; whether it does anything. */
  key(event) {
    return Boolean(this.mask) && act(this, event);
  }

  released(event) {
    if (event.key === " ") this.lift();
  }
}
