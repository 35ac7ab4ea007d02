// A mask that is corrected: its labels, the planes through them, brush, fill, pieces, undo and redo. All of it is done here, at once.

const MOST_REMEMBERED = 3e7; // changed voxels that undo keeps

/** The planes of a scan: which axis of its array runs to the right (u), down (v) and through (w), and which are turned; `up`: which way through it is to the top, front or right. */
export function planesOf(info) {
  if (info.dims === 2) return [{ name: "film", u: 2, v: 1, w: 0, turnU: false, turnV: false, up: 1 }];
  const [right, front, top] = info.axes.map(([axis, turned]) => ({ axis, turn: !turned }));
  const plane = (name, u, v, w) => ({ name, u: u.axis, v: v.axis, w: w.axis, turnU: u.turn, turnV: v.turn, up: w.turn ? 1 : -1 });
  return [plane("axial", right, front, top), plane("coronal", right, top, front), plane("sagittal", front, top, right)];
}

export class Mask {
  /** `shape`: three axes, of films the first is 1; `labels`: a Uint8Array in their order. */
  constructor(shape, labels) {
    this.shape = shape;
    this.labels = labels;
    this.strides = [shape[1] * shape[2], shape[2], 1];
    this.counts = new Float64Array(256);
    for (let i = 0; i < labels.length; i++) this.counts[labels[i]] += 1;
    this.done = [];
    this.undone = [];
    this.saved = undefined;
    this.stroke = null;
  }

  get dirty() {
    return this.done.at(-1) !== this.saved;
  }

  /** Begin a change: every place that `paint` meets becomes `value`. */
  begin(value) {
    this.stroke = { value, cells: [], before: [] };
  }

  paint(cell) {
    const { labels, stroke } = this, old = labels[cell];
    if (old === stroke.value) return;
    stroke.cells.push(cell);
    stroke.before.push(old);
    labels[cell] = stroke.value;
    this.counts[old] -= 1;
    this.counts[stroke.value] += 1;
  }

  /** End it; whether anything changed. */
  end() {
    const { stroke } = this;
    this.stroke = null;
    if (!stroke?.cells.length) return false;
    this.done.push({ value: stroke.value, cells: Uint32Array.from(stroke.cells), before: Uint8Array.from(stroke.before) });
    this.undone = [];
    let kept = this.done.reduce((sum, one) => sum + one.cells.length, 0);
    while (kept > MOST_REMEMBERED && this.done.length > 1) {
      const gone = this.done.shift();
      kept -= gone.cells.length;
      if (this.saved === undefined || this.saved === gone) this.saved = null; // what was saved cannot be reached by undo
    }
    return true;
  }

  undo() {
    const one = this.done.pop();
    if (!one) return null;
    for (let i = one.cells.length - 1; i >= 0; i--) this.set(one.cells[i], one.before[i]);
    this.undone.push(one);
    return one;
  }

  redo() {
    const one = this.undone.pop();
    if (!one) return null;
    for (const cell of one.cells) this.set(cell, one.value);
    this.done.push(one);
    return one;
  }

  set(cell, value) {
    this.counts[this.labels[cell]] -= 1;
    this.counts[value] += 1;
    this.labels[cell] = value;
  }

  /** Where a plane at index s begins in the array, and the steps to the next column and row of the picture. */
  walk(plane, s) {
    const { shape, strides } = this, { u, v, w, turnU, turnV } = plane;
    return {
      columns: shape[u], rows: shape[v],
      start: s * strides[w] + (turnU ? (shape[u] - 1) * strides[u] : 0) + (turnV ? (shape[v] - 1) * strides[v] : 0),
      right: turnU ? -strides[u] : strides[u], down: turnV ? -strides[v] : strides[v],
    };
  }

  /** What a round brush meets on its way from a pixel of a plane to another, round in mm: all whose middle lies in the ring that is shown around it, of radius `r` + 1/2 pixels of the finer side, and the pixels of the way. The box it lies in. */
  sweep(plane, s, from, to, r, [sx, sy]) {
    const walk = this.walk(plane, s), reach = (r + 0.5) * Math.min(sx, sy), most = reach ** 2 + 1e-9;
    const [dx, dy] = [(to[0] - from[0]) * sx, (to[1] - from[1]) * sy], length = dx * dx + dy * dy || 1;
    const within = (value, last) => Math.min(last, Math.max(0, value));
    const lows = [[0, sx, walk.columns], [1, sy, walk.rows]].map(([k, side, n]) => within(Math.min(from[k], to[k]) - Math.floor(reach / side), n));
    const highs = [[0, sx, walk.columns], [1, sy, walk.rows]].map(([k, side, n]) => within(Math.max(from[k], to[k]) + Math.floor(reach / side), n - 1));
    const cell = (column, row) => walk.start + column * walk.right + row * walk.down;
    for (let row = lows[1]; row <= highs[1]; row++) {
      for (let column = lows[0]; column <= highs[0]; column++) {
        const x = (column - from[0]) * sx, y = (row - from[1]) * sy, along = within((x * dx + y * dy) / length, 1);
        if ((x - along * dx) ** 2 + (y - along * dy) ** 2 <= most) this.paint(cell(column, row));
      }
    }
    const count = Math.max(1, Math.abs(to[0] - from[0]), Math.abs(to[1] - from[1]));
    for (let i = 0; i <= count; i++) { // the coarser side of a pixel may be wider than a thin brush
      const [column, row] = [0, 1].map((k) => Math.round(from[k] + ((to[k] - from[k]) * i) / count));
      if (column >= 0 && row >= 0 && column < walk.columns && row < walk.rows) this.paint(cell(column, row));
    }
    return [...lows, ...highs];
  }

  /** Where a pixel of a plane is in the array. */
  cell(plane, s, x, y) {
    const walk = this.walk(plane, s);
    return walk.start + x * walk.right + y * walk.down;
  }

  /** Fill what is connected to a pixel and has its label: in the plane, or `solid` in all of the volume. */
  fill(plane, s, x, y, solid) {
    this.spread(this.cell(plane, s, x, y), solid ? [0, 1, 2] : [plane.u, plane.v]);
  }

  /** Take away the piece of a class that holds a pixel, in all of the volume; nothing where there is no class. */
  remove(plane, s, x, y) {
    this.spread(this.cell(plane, s, x, y), [0, 1, 2]);
  }

  /** Take away all other pieces of the class at a pixel. */
  keep(plane, s, x, y) {
    const { labels, stroke } = this, first = this.cell(plane, s, x, y), label = labels[first];
    if (label === stroke.value) return;
    this.spread(first, [0, 1, 2]);
    const own = stroke.cells.length;
    for (let i = 0; i < labels.length; i++) if (labels[i] === label) this.paint(i);
    for (let i = 0; i < own; i++) this.set(stroke.cells[i], label); // it comes back
    stroke.cells = stroke.cells.slice(own);
    stroke.before = stroke.before.slice(own);
  }

  /** Paint a place and what is connected to it along some axes, side by side, and has its label. */
  spread(first, axes) {
    const { labels, shape, strides } = this, label = labels[first], todo = [first];
    if (label === this.stroke.value) return;
    this.paint(first);
    while (todo.length) {
      const cell = todo.pop();
      for (const axis of axes) {
        const step = strides[axis], at = Math.floor(cell / step) % shape[axis];
        if (at > 0 && labels[cell - step] === label) { this.paint(cell - step); todo.push(cell - step); }
        if (at < shape[axis] - 1 && labels[cell + step] === label) { this.paint(cell + step); todo.push(cell + step); }
      }
    }
  }

  /** As it is sent: deflated. */
  async packed() {
    const stream = new Blob([this.labels]).stream().pipeThrough(new CompressionStream("deflate"));
    return new Response(stream).arrayBuffer();
  }
}
