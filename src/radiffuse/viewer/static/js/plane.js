// One plane of a scan with the mask on it, on a canvas: the picture comes from the server, the mask is drawn here at once.

import { canvas } from "./film.js";

export class PlaneView {
  /** `owner`: the editor, which is told of pointers and focus. */
  constructor(owner, plane, spacing) {
    this.owner = owner;
    this.plane = plane;
    this.walk = owner.mask.walk(plane, 0);
    this.spacing = [spacing[plane.u], spacing[plane.v]];
    this.screen = document.createElement("canvas");
    this.screen.className = "screen";
    this.screen.tabIndex = 0;
    this.screen.setAttribute("role", "img");
    this.node = document.createElement("div");
    this.node.className = `plane ${plane.name}`;
    this.node.append(this.screen);
    this.base = canvas(this.walk.columns, this.walk.rows);
    this.over = canvas(this.walk.columns, this.walk.rows);
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.node);
    this.index = -1;
    this.pixels = null;
    this.pointer = null;
    this.fit();
    this.listen();
  }

  close() {
    this.observer.disconnect();
  }

  fit() {
    this.zoom = 1;
    this.center = [0.5, 0.5];
    this.draw();
  }

  zoomBy(factor) {
    this.zoom = Math.min(40, Math.max(1, this.zoom * factor));
    if (this.zoom === 1) this.center = [0.5, 0.5];
    this.draw();
  }

  /** Show a slice: its mask now, its picture (`pixels`, [gray] or [red, green, blue] in the order of the array) when it is there. */
  show(index) {
    if (index === this.index) return;
    this.index = index;
    this.walk = this.owner.mask.walk(this.plane, index);
    this.screen.setAttribute("aria-label", this.owner.words(this));
    this.paint();
  }

  picture(pixels) {
    this.pixels = pixels;
    const { columns, rows } = this.walk, { u, v, turnU, turnV } = this.plane;
    const [low, high] = this.owner.window, scale = 255 / Math.max(1e-12, high - low);
    const image = new ImageData(columns, rows), out = image.data, right = u > v ? 1 : rows, down = u > v ? columns : 1;
    for (let y = 0, j = 0; y < rows; y++) {
      for (let x = 0; x < columns; x++, j += 4) {
        const i = (turnU ? columns - 1 - x : x) * right + (turnV ? rows - 1 - y : y) * down;
        for (let c = 0; c < 3; c++) out[j + c] = ((pixels[c] || pixels[0])[i] - low) * scale;
        out[j + 3] = 255;
      }
    }
    this.base.getContext("2d").putImageData(image, 0, 0);
    this.draw();
  }

  /** Draw the mask of a box of pixels anew; none: of all. */
  paint(box = [0, 0, this.walk.columns - 1, this.walk.rows - 1]) {
    const [left, top, last, bottom] = box, width = last - left + 1, height = bottom - top + 1;
    if (width < 1 || height < 1) return;
    const { start, right, down } = this.walk, { labels } = this.owner.mask, { lut } = this.owner;
    const image = new ImageData(width, height), out = new Uint32Array(image.data.buffer);
    for (let y = 0, j = 0; y < height; y++) {
      let cell = start + (top + y) * down + left * right;
      for (let x = 0; x < width; x++, j++, cell += right) out[j] = lut[labels[cell]];
    }
    this.over.getContext("2d").putImageData(image, left, top);
    this.draw();
  }

  frame() {
    const ratio = window.devicePixelRatio || 1, box = this.node.getBoundingClientRect();
    const { columns, rows } = this.walk, [sx, sy] = this.spacing;
    const width = Math.max(1, Math.round(box.width * ratio)), height = Math.max(1, Math.round(box.height * ratio));
    const scale = Math.min(width / (columns * sx), height / (rows * sy)) * this.zoom;
    const w = columns * sx * scale, h = rows * sy * scale;
    return { ratio, width, height, w, h, x: width / 2 - this.center[0] * w, y: height / 2 - this.center[1] * h };
  }

  draw() {
    this.waiting ||= requestAnimationFrame(() => { this.waiting = 0; this.now(); });
  }

  now() {
    const f = this.frame(), { screen, owner } = this, { columns, rows } = this.walk;
    if (screen.width !== f.width || screen.height !== f.height) [screen.width, screen.height] = [f.width, f.height];
    const context = screen.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.clearRect(0, 0, f.width, f.height);
    if (this.pixels) context.drawImage(this.base, f.x, f.y, f.w, f.h);
    context.globalAlpha = owner.masked ? owner.opacity : 0;
    context.drawImage(this.over, f.x, f.y, f.w, f.h);
    context.globalAlpha = 1;
    const [x, y] = this.of(owner.cursor), px = f.w / columns, py = f.h / rows;
    const at = [f.x + (x + 0.5) * px, f.y + (y + 0.5) * py];
    context.strokeStyle = "#35d0ff";
    context.lineWidth = f.ratio;
    context.globalAlpha = 0.55;
    context.beginPath();
    context.moveTo(at[0], f.y); context.lineTo(at[0], at[1] - 6 * f.ratio); context.moveTo(at[0], at[1] + 6 * f.ratio); context.lineTo(at[0], f.y + f.h);
    context.moveTo(f.x, at[1]); context.lineTo(at[0] - 6 * f.ratio, at[1]); context.moveTo(at[0] + 6 * f.ratio, at[1]); context.lineTo(f.x + f.w, at[1]);
    context.stroke();
    context.globalAlpha = 1;
    const ring = this.pointer || (document.activeElement === screen ? [x, y] : null);
    if (ring && (owner.tool === "brush" || owner.tool === "erase")) {
      const r = (owner.radius + 0.5) * Math.min(...this.spacing);
      context.strokeStyle = "#ffffff";
      context.beginPath();
      context.ellipse(f.x + (ring[0] + 0.5) * px, f.y + (ring[1] + 0.5) * py, (r / this.spacing[0]) * px, (r / this.spacing[1]) * py, 0, 0, 7);
      context.stroke();
    }
  }

  /** Column and row of a place in the array. */
  of(cursor) {
    const { u, v, turnU, turnV } = this.plane, { columns, rows } = this.walk;
    return [turnU ? columns - 1 - cursor[u] : cursor[u], turnV ? rows - 1 - cursor[v] : cursor[v]];
  }

  /** The place in the array of a column and row. */
  place([x, y]) {
    const { u, v, w, turnU, turnV } = this.plane, { columns, rows } = this.walk, found = [0, 0, 0];
    found[u] = turnU ? columns - 1 - x : x;
    found[v] = turnV ? rows - 1 - y : y;
    found[w] = this.index;
    return found;
  }

  /** Column and row under a pointer, also beyond the border. */
  under(event) {
    const f = this.frame(), box = this.screen.getBoundingClientRect();
    return [[event.clientX - box.left, f.x, f.w, this.walk.columns], [event.clientY - box.top, f.y, f.h, this.walk.rows]]
      .map(([at, begin, size, count]) => Math.floor(((at * f.ratio - begin) / size) * count));
  }

  move(dx, dy) {
    const f = this.frame();
    this.center = [this.center[0] - (dx * f.ratio) / f.w, this.center[1] - (dy * f.ratio) / f.h].map((v) => Math.min(1, Math.max(0, v)));
    this.draw();
  }

  listen() {
    const { screen, owner } = this;
    let drag = null, last = null;
    screen.addEventListener("pointerdown", (event) => {
      screen.setPointerCapture(event.pointerId);
      screen.focus();
      last = [event.clientX, event.clientY];
      drag = event.button === 0 ? owner.down(this, this.under(event)) : "move";
    });
    screen.addEventListener("pointermove", (event) => {
      const all = event.getCoalescedEvents?.() || [];
      this.pointer = this.under(event);
      if (drag === "move") {
        this.move(event.clientX - last[0], event.clientY - last[1]);
        last = [event.clientX, event.clientY];
      } else if (drag === "paint") {
        for (const one of all.length ? all : [event]) owner.drag(this, this.under(one));
      } else {
        owner.hover(this, this.pointer);
      }
      this.draw();
    });
    for (const type of ["pointerup", "pointercancel"]) {
      screen.addEventListener(type, () => { if (drag === "paint") owner.up(); drag = null; });
    }
    screen.addEventListener("pointerleave", () => { this.pointer = null; this.draw(); });
    screen.addEventListener("contextmenu", (event) => event.preventDefault());
    screen.addEventListener("wheel", (event) => {
      event.preventDefault();
      if (owner.info.dims === 2 || event.ctrlKey) this.zoomBy(Math.exp(-event.deltaY / 400));
      else owner.through(this, Math.sign(event.deltaY));
    }, { passive: false });
    screen.addEventListener("focus", () => { owner.active = this; this.draw(); });
    screen.addEventListener("blur", () => { owner.lift(); this.draw(); });
  }
}
