// The middle and right of the page: one scan, and what lies on it.

import { bytes, get } from "./api.js";
import { HEAT, IGNORED, classColor, css, DIFFERENCE, labelLut } from "./colors.js";
import { button, check, el, guarded, select, table } from "./dom.js";
import { FilmView } from "./film.js";
import { VolumeView } from "./volume.js";

export const WINDOWS = {
  "soft tissue": [-160, 240], lung: [-1350, 150], bone: [-450, 1050], brain: [0, 80], liver: [-45, 105],
};

/** A number for people: three digits that count. */
export function amount(value) {
  if (value === 0) return "0";
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return value.toLocaleString("en", { maximumFractionDigits: Math.min(3, digits), useGrouping: true });
}

const measure = (voxels, layer) => ["px", "voxels"].includes(layer.unit)
  ? `${voxels.toLocaleString("en")} ${layer.unit}` : `${amount(voxels * layer.voxel)} ${layer.unit}`;

export class Stage {
  constructor() {
    this.host = el("div", { class: "host" });
    this.bar = el("div", { class: "bar", role: "toolbar", "aria-label": "How to show the scan" });
    this.status = el("output", { class: "status" });
    this.node = el("section", { class: "stage", "aria-label": "Scan" }, this.bar, this.host, this.status);
    this.panel = el("section", { class: "panel layers", "aria-label": "Layers" });
    this.layers = new Map();
    this.empty();
  }

  empty(text = "Choose a scan, or drop a file.") {
    this.view?.close();
    this.view = null;
    this.id = null;
    this.layers.clear();
    this.bar.replaceChildren();
    this.status.textContent = "";
    this.host.replaceChildren(el("p", { class: "hint" }, text));
    this.panel.replaceChildren();
  }

  /** Show a scan; `visible` names layers to show at once, else the correction is, or the first mask or the truth. */
  async open(id, visible = null) {
    const turn = (this.turn = (this.turn || 0) + 1);
    this.empty("Reading ...");
    this.node.setAttribute("aria-busy", "true");
    try {
      const info = await get(`api/scans/${id}`);
      const buffer = await bytes(`api/scans/${id}/image`);
      if (turn !== this.turn) return; // another scan was chosen meanwhile
      this.info = info;
      this.id = id;
      const View = info.dims === 2 ? FilmView : VolumeView;
      this.view = new View(this.host, (found) => this.tell(found));
      this.shown = 0;
      await this.view.open(info, buffer, info.name, info.windows[0]);
      if (turn !== this.turn) return;
      this.controls();
      this.panel.replaceChildren(el("h2", {}, info.name), this.facts());
      const masks = info.layers.filter((l) => l.kind === "mask" || l.kind === "truth");
      const first = visible || [(masks.find((l) => l.id === "correction") || masks[0])?.id];
      for (const layer of info.layers) {
        await this.row(layer, first.includes(layer.id));
        if (turn !== this.turn) return;
      }
      if (!info.layers.length) this.panel.append(el("p", { class: "hint" }, "No masks yet. Segment makes one."));
    } catch (error) {
      if (turn === this.turn) this.empty("This scan cannot be shown.");
      throw error;
    } finally {
      this.node.removeAttribute("aria-busy");
    }
  }

  facts() {
    const { info } = this, spacing = info.spacing ? `${info.spacing.map((s) => amount(s)).join(" × ")} mm` : "spacing unknown";
    const thin = info.stride > 1 ? ` Shown at every ${info.stride}th pixel; masks and volumes are of all.` : "";
    return el("p", { class: "facts" }, `${info.shape.join(" × ")}, ${spacing}.${thin}`);
  }

  controls() {
    const { info, view, shown } = this, [low, high] = info.windows[shown];
    const number = (value, label) => el("input", { type: "number", value: String(Math.round(value * 100) / 100), step: "any", "aria-label": label });
    const lower = number(low, "Black at"), upper = number(high, "White at");
    const apply = () => {
      const pair = [Number(lower.value), Number(upper.value)];
      if (pair[1] > pair[0]) guarded(() => view.setWindow(...pair));
    };
    for (const input of [lower, upper]) input.addEventListener("change", apply);
    const set = ([a, b]) => { lower.value = String(a); upper.value = String(b); apply(); };
    const parts = [];
    if (info.dims === 3) {
      const planes = ["axial", "coronal", "sagittal", "all", "3d"].map((name) => {
        const node = button(name === "3d" ? "3D" : name, () => {
          view.setPlanes(name);
          planes.forEach((other) => other.setAttribute("aria-pressed", String(other === node)));
        }, { "aria-pressed": String(name === "all") });
        return node;
      });
      parts.push(el("div", { class: "group", role: "group", "aria-label": "Planes" }, ...planes));
      parts.push(check("smooth", true, (on) => view.setSmooth(on)).node);
    } else {
      parts.push(el("div", { class: "group", role: "group", "aria-label": "Zoom" },
        button("−", () => view.zoomBy(0.8), { "aria-label": "Zoom out" }),
        button("fit", () => view.fit()),
        button("+", () => view.zoomBy(1.25), { "aria-label": "Zoom in" })));
    }
    const presets = info.hounsfield[shown]
      ? select([["", "window"], ...Object.keys(WINDOWS).map((n) => [n, n])], "", (n) => n && set(WINDOWS[n]), { "aria-label": "Window" })
      : button("reset window", () => set(info.windows[shown].map((v) => Math.round(v * 100) / 100)), { class: "plain" });
    parts.push(el("div", { class: "window" }, el("span", {}, "black"), lower, el("span", {}, "white"), upper, presets));
    if (info.channels > 1) {
      const options = Array.from({ length: info.channels }, (_, i) => [String(i), `channel ${i + 1}`]);
      parts.push(select(options, String(shown), (i) => this.channel(Number(i)), { "aria-label": "Channel" }));
    }
    this.bar.replaceChildren(...parts);
  }

  /** Show another channel, in a window of its own. */
  async channel(index) {
    const { info } = this, buffer = await bytes(`api/scans/${this.id}/image?channel=${index}`);
    this.view.close();
    this.view = new this.view.constructor(this.host, (found) => this.tell(found));
    this.shown = index;
    await this.view.open(info, buffer, info.name, info.windows[index]);
    this.controls();
    for (const row of this.layers.values()) if (row.toggle.input.checked) await row.show();
  }

  tell(found) {
    if (!found) {
      this.status.textContent = "";
      return;
    }
    const names = (found.layers || []).map(([id, value]) => this.layers.get(id)?.describe(value)).filter(Boolean);
    this.status.textContent = [found.place, `value ${found.value}`, ...names].join(" · ");
  }

  /** A layer's row in the panel. Its pixels are asked for when it is first shown. */
  async row(listed, visible) {
    const row = new LayerRow(this, listed);
    this.layers.set(listed.id, row);
    this.panel.append(row.node);
    if (visible) {
      row.toggle.input.checked = true;
      await row.show();
    }
  }
}

class LayerRow {
  constructor(stage, listed) {
    this.stage = stage;
    this.listed = listed;
    this.base = `api/scans/${stage.id}/layers/${encodeURIComponent(listed.id)}`;
    this.hidden = new Set();
    this.opacity = listed.kind === "map" ? 0.7 : 0.5;
    this.toggle = check(listed.name, false, (on) => (on ? this.show() : this.hide()));
    this.body = el("div", { class: "body" });
    this.body.hidden = true;
    this.node = el("article", { class: `layer ${listed.kind}` }, this.toggle.node, this.body);
  }

  get lut() {
    return this.listed.kind === "map" ? HEAT : labelLut(this.listed.kind, this.hidden);
  }

  async show() {
    const { view } = this.stage;
    this.details ||= await get(this.base);
    this.buffer ||= await bytes(`${this.base}/data`);
    if (view !== this.stage.view) return; // another scan was opened meanwhile
    this.step ??= this.details.steps - 1;
    await view.setLayer(this.listed.id, {
      buffer: this.buffer, lut: this.lut, opacity: this.opacity, visible: true, step: this.step, kind: this.listed.kind,
      span: this.details.span,
    });
    if (!this.body.childNodes.length) this.fill();
    this.body.hidden = false;
  }

  async hide() {
    this.body.hidden = true;
    await this.stage.view.setLayer(this.listed.id, { visible: false });
  }

  change(values) {
    return guarded(() => this.stage.view.setLayer(this.listed.id, values));
  }

  /** What the layer says at a place. */
  describe(value) {
    if (!this.details) return "";
    if (this.listed.kind === "map") {
      const [low, high] = this.details.span, film = this.stage.info.dims === 2;
      return `${this.listed.name} ${amount(film ? low + (value / 255) * (high - low) : value)}`;
    }
    if (value === 0) return "";
    return value === IGNORED ? "not counted" : `${this.listed.name}: ${this.details.classes[value] || value}`;
  }

  fill() {
    const { details } = this;
    const slider = el("input", {
      type: "range", min: "0", max: "100", value: String(this.opacity * 100),
      on: { input: () => { this.opacity = slider.value / 100; this.change({ opacity: this.opacity }); } },
    });
    this.body.append(el("label", { class: "slide" }, el("span", {}, "opacity"), slider));
    if (details.steps > 1) this.body.append(this.steps());
    if (this.listed.kind === "map") this.body.append(this.scale());
    else this.body.append((this.list = el("ul", { class: "classes" })));
    this.classes();
    if (details.note) this.body.append(el("p", {}, details.note));
    if (details.scores) this.body.append(this.scores());
    this.body.append(this.downloads());
  }

  steps() {
    const { steps, timesteps } = this.details, shown = el("output", {});
    const label = () => {
      const t = timesteps[this.step], all = timesteps.filter((one) => one !== null).length;
      shown.textContent = t === null ? "result" : `step ${this.step + 1} of ${all}, t = ${t}`;
    };
    const slider = el("input", {
      type: "range", min: "0", max: String(steps - 1), step: "1", value: String(this.step), class: "step",
      on: { input: () => { this.step = Number(slider.value); label(); this.classes(); this.change({ step: this.step }); } },
    });
    label();
    return el("label", { class: "slide" }, el("span", {}, "step"), slider, shown);
  }

  scale() {
    const bar = el("canvas", { class: "scale", width: 256, height: 1, "aria-hidden": "true" });
    const image = new ImageData(256, 1);
    image.data.set(HEAT);
    bar.getContext("2d").putImageData(image, 0, 0);
    const [low, high] = this.details.span;
    return el("div", { class: "span" }, el("span", {}, amount(low)), bar, el("span", {}, amount(high)));
  }

  classes() {
    if (!this.list) return;
    const { details } = this, counts = details.counts[this.step ?? 0];
    const rows = details.classes.map((name, value) => [name, value, counts[value] || 0]).filter(([, value]) => value > 0);
    this.list.replaceChildren(...rows.map(([name, value, voxels]) => {
      const color = this.listed.kind === "difference" ? DIFFERENCE[value] : classColor(value);
      const box = check("", !this.hidden.has(value), (on) => {
        if (on) this.hidden.delete(value);
        else this.hidden.add(value);
        this.change({ lut: this.lut });
      });
      box.node.replaceChildren(box.input, el("i", { class: "swatch", style: { background: css(color || [0, 0, 0]) } }),
        el("span", { class: "name" }, name), el("span", { class: "size" }, measure(voxels, details)));
      return el("li", {}, box.node);
    }));
  }

  scores() {
    const digits = (value) => (value === null ? "" : value.toFixed(3));
    const rows = this.details.scores.map((row) => [row.name, digits(row.dice), digits(row.iou)]);
    return table(["class", "Dice", "IoU"], rows, "Against the truth");
  }

  downloads() {
    const names = { nifti: "NIfTI", png: "PNG", tiff: "TIFF", "dicom-seg": "DICOM-SEG" };
    return el("p", { class: "downloads" }, el("span", {}, "save as "), ...this.details.formats.map((format) =>
      el("a", { href: `${this.base}/file?format=${format}`, download: true, class: "button" }, names[format] || format)));
  }
}
