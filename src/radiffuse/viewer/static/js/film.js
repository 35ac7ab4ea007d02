// A film on a canvas: window, layers, zoom, and what lies under the pointer. Every pixel is drawn as it is.

export const TYPES = { uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array, float32: Float32Array };

export function canvas(width, height) {
  const node = document.createElement("canvas");
  node.width = width;
  node.height = height;
  return node;
}

export class FilmView {
  /** `report(text)` is called with what lies under the pointer. */
  constructor(host, report) {
    this.host = host;
    this.report = report;
    this.screen = document.createElement("canvas");
    this.screen.className = "screen";
    this.screen.tabIndex = 0;
    this.screen.setAttribute("role", "img");
    this.layers = new Map();
    host.replaceChildren(this.screen);
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(host);
    this.listen();
  }

  async open(info, buffer, name, shades) {
    this.screen.setAttribute("aria-label", `Film ${name}. Arrow keys move, plus and minus zoom, 0 fits.`);
    this.info = info;
    [this.rows, this.columns] = info.sent;
    this.pixels = new TYPES[info.dtype](buffer);
    this.base = canvas(this.columns, this.rows);
    const [dy, dx] = info.spacing || [1, 1];
    this.aspect = dy / dx; // pixels that are not square are stretched downwards
    this.fit();
    this.setWindow(...shades);
  }

  close() {
    this.observer.disconnect();
    this.host.replaceChildren();
  }

  setWindow(low, high) {
    const { rows, columns, pixels } = this, count = rows * columns;
    const image = new ImageData(columns, rows), out = image.data;
    const scale = 255 / Math.max(1e-12, high - low), planes = this.info.colors ? 3 : 1;
    for (let i = 0, j = 0; i < count; i++, j += 4) {
      for (let c = 0; c < 3; c++) out[j + c] = (pixels[(planes === 3 ? c * count : 0) + i] - low) * scale;
      out[j + 3] = 255;
    }
    this.base.getContext("2d").putImageData(image, 0, 0);
    this.draw();
  }

  /** Put a layer on, or change it: {buffer, step, lut, opacity, visible}. */
  setLayer(id, change) {
    const layer = this.layers.get(id) || { opacity: 0.5, visible: true, step: 0 };
    const paint = "buffer" in change || "step" in change || "lut" in change;
    Object.assign(layer, change);
    if (change.buffer) layer.values = new Uint8Array(change.buffer);
    this.layers.set(id, layer);
    if (paint) this.paint(layer);
    this.draw();
  }

  removeLayer(id) {
    this.layers.delete(id);
    this.draw();
  }

  paint(layer) {
    const count = this.rows * this.columns, from = layer.step * count;
    const image = new ImageData(this.columns, this.rows);
    const out = new Uint32Array(image.data.buffer), lut = new Uint32Array(layer.lut.slice().buffer);
    for (let i = 0; i < count; i++) out[i] = lut[layer.values[from + i]];
    layer.canvas ||= canvas(this.columns, this.rows);
    layer.canvas.getContext("2d").putImageData(image, 0, 0);
  }

  fit() {
    this.zoom = 1;
    this.center = [0.5, 0.5];
    this.draw();
  }

  zoomBy(factor) {
    this.zoom = Math.min(64, Math.max(0.5, this.zoom * factor));
    this.draw();
  }

  /** Place of the film on the screen, in screen pixels. */
  frame() {
    const ratio = window.devicePixelRatio || 1;
    const width = Math.max(1, Math.round(this.host.clientWidth * ratio));
    const height = Math.max(1, Math.round(this.host.clientHeight * ratio));
    const scale = Math.min(width / this.columns, height / (this.rows * this.aspect)) * this.zoom;
    const w = this.columns * scale, h = this.rows * this.aspect * scale;
    return { width, height, ratio, w, h, x: width / 2 - this.center[0] * w, y: height / 2 - this.center[1] * h, scale };
  }

  draw() {
    if (!this.base || !this.host.clientWidth) return;
    const f = this.frame();
    if (this.screen.width !== f.width || this.screen.height !== f.height) {
      this.screen.width = f.width;
      this.screen.height = f.height;
    }
    const context = this.screen.getContext("2d");
    context.fillStyle = "#000";
    context.fillRect(0, 0, f.width, f.height);
    context.imageSmoothingEnabled = f.scale < 2;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.base, f.x, f.y, f.w, f.h);
    context.imageSmoothingEnabled = false; // a label between two classes would be a third one
    for (const layer of this.layers.values()) {
      if (!layer.visible || !layer.canvas) continue;
      context.globalAlpha = layer.opacity;
      context.drawImage(layer.canvas, f.x, f.y, f.w, f.h);
    }
    context.globalAlpha = 1;
  }

  /** Row and column under a pointer event, or null. */
  at(event) {
    const f = this.frame(), box = this.screen.getBoundingClientRect();
    const column = Math.floor((((event.clientX - box.left) * f.ratio - f.x) / f.w) * this.columns);
    const row = Math.floor((((event.clientY - box.top) * f.ratio - f.y) / f.h) * this.rows);
    return row >= 0 && column >= 0 && row < this.rows && column < this.columns ? [row, column] : null;
  }

  point(event) {
    const place = this.at(event);
    if (!place) return this.report(null);
    const [row, column] = place, i = row * this.columns + column, count = this.rows * this.columns, k = this.info.stride;
    const values = this.info.colors ? [0, 1, 2].map((c) => this.pixels[c * count + i]) : [this.pixels[i]];
    const layers = [...this.layers].filter(([, l]) => l.visible && l.values)
      .map(([id, l]) => [id, l.values[l.step * count + i]]);
    return this.report({ place: `row ${row * k}, column ${column * k}`, value: values.join(", "), layers });
  }

  move(dx, dy) {
    const f = this.frame();
    this.center = [this.center[0] - (dx * f.ratio) / f.w, this.center[1] - (dy * f.ratio) / f.h]
      .map((v) => Math.min(1, Math.max(0, v)));
    this.draw();
  }

  listen() {
    const pointers = new Map();
    let spread = 0;
    this.screen.addEventListener("pointerdown", (event) => {
      this.screen.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, [event.clientX, event.clientY]);
      spread = 0;
    });
    this.screen.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return this.point(event);
      pointers.set(event.pointerId, [event.clientX, event.clientY]);
      if (pointers.size === 2) {
        const [a, b] = [...pointers.values()], now = Math.hypot(a[0] - b[0], a[1] - b[1]);
        if (spread) this.zoomBy(now / spread);
        spread = now;
      } else {
        this.move(event.clientX - before[0], event.clientY - before[1]);
      }
      return undefined;
    });
    for (const type of ["pointerup", "pointercancel"]) {
      this.screen.addEventListener(type, (event) => { pointers.delete(event.pointerId); spread = 0; });
    }
    this.screen.addEventListener("pointerleave", () => this.report(null));
    this.screen.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoomBy(Math.exp(-event.deltaY / 400));
    }, { passive: false });
    this.screen.addEventListener("dblclick", () => this.fit());
    this.screen.addEventListener("keydown", (event) => {
      const keys = {
        "+": () => this.zoomBy(1.25), "=": () => this.zoomBy(1.25), "-": () => this.zoomBy(0.8), 0: () => this.fit(),
        ArrowLeft: () => this.move(40, 0), ArrowRight: () => this.move(-40, 0),
        ArrowUp: () => this.move(0, 40), ArrowDown: () => this.move(0, -40),
      };
      if (!keys[event.key] || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      keys[event.key]();
    });
  }
}
