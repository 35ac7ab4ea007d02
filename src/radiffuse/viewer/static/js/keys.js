// What keys do where a mask is corrected, and the box that lists all keys: ? opens it, Escape closes it.

import { IGNORED } from "./colors.js";
import { button, el, guarded } from "./dom.js";

const GOES_ON = /^(Arrow|Page|Shift| )/; // keys that a brush which is held down goes on with
const STEP = 1.25; // by which a large brush grows; a small one grows by a pixel
const KEYS = {
  Everywhere: [["?", "this list"], ["← →", "another tab, where a tab has the focus"], ["Tab", "the next control"], ["Esc", "close a box"]],
  View: [["arrows", "move the film, or the cross hair of a volume"], ["Page up, Page down", "next slice"], ["+ − 0", "larger, smaller, whole film"], ["mouse wheel", "larger or smaller; of a volume the next slice"], ["right button", "drag: a film moves, in a volume the window of grays changes"]],
  Correct: [
    ["b e f v", "brush, erase, fill, move"], ["r k", "remove the piece at the cursor, keep it and remove all others of its class"],
    ["[ ]", "smaller, larger brush"], ["1 … 9", "class to paint"], ["i", "paint: not counted"],
    ["arrows", "move the cursor in the plane that has the focus; with Shift by ten"], ["space", "use the tool at the cursor; held down, while it moves"],
    ["Page up, Page down", "next slice"], ["+ − 0", "larger, smaller, whole"], ["mouse wheel", "larger or smaller; of a volume the next slice, with Ctrl larger or smaller"],
    ["right button", "drag: move the picture"], ["m", "hide and show the mask"],
    ["z, Ctrl Z", "undo"], ["y, Ctrl Y", "redo"], ["s, Ctrl S", "save"], ["n p", "next scan that is not corrected, scan before"],
  ],
};

/** The box with all keys; what closes it stands first, so that it opens at the top. */
export function help() {
  const part = ([name, rows]) => [el("h2", {}, name), el("dl", { class: "keys" }, ...rows.flatMap(([key, text]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, text)]))];
  const box = el("dialog", { class: "help", "aria-label": "Keys" }, button("Close", () => box.close(), { class: "close" }), ...Object.entries(KEYS).flatMap(part));
  box.addEventListener("close", () => box.remove());
  document.body.append(box);
  box.showModal();
}

/** Do in an editor what a key stands for; whether it stands for anything. */
export function act(editor, event) {
  const { key } = event, brush = { "[": -1, "]": 1 }[key]; // on some keyboards with a modifier
  if (!GOES_ON.test(key)) editor.lift();
  if (brush) editor.grow(resized(editor.radius, brush));
  else if (event.ctrlKey || event.metaKey) return withControl(editor, event);
  else if (event.altKey) return false;
  else if (document.activeElement === editor.active.screen && onPlane(editor, event)) return true;
  else if (/^[1-9]$/.test(key) && Number(key) < editor.classes.length) editor.choose(Number(key));
  else return plain(editor, key);
  return true;
}

const resized = (radius, by) => (by > 0 ? Math.max(radius + 1, Math.round(radius * STEP)) : Math.min(radius - 1, Math.round(radius / STEP)));

function withControl(editor, { key, shiftKey }) {
  const done = { z: () => (shiftKey ? editor.redo() : editor.undo()), Z: () => editor.redo(), y: () => editor.redo(), s: () => editor.save() }[key];
  done?.();
  return Boolean(done);
}

/** Keys of the plane that has the focus: arrows move the cursor, space and Enter use the tool there. */
function onPlane(editor, { key, shiftKey, repeat }) {
  const view = editor.active, [x, y] = view.of(editor.cursor), step = shiftKey ? 10 : 1;
  const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
  if (move) {
    editor.go(view.place([x + move[0] * step, y + move[1] * step]));
    if (editor.pen) editor.drag(view, view.of(editor.cursor));
  } else if (key === " " || key === "Enter") {
    if (!repeat) editor.press(view, key === " ");
  } else return false;
  return true;
}

function plain(editor, key) {
  const view = editor.active;
  const acts = {
    b: () => editor.take("brush"), e: () => editor.take("erase"), f: () => editor.take("fill"), v: () => editor.take("move"),
    r: () => editor.take("remove"), k: () => editor.take("keep"),
    z: () => editor.undo(), y: () => editor.redo(), s: () => editor.save(), n: () => editor.app.next(1), p: () => editor.app.next(-1),
    m: () => { editor.masked = !editor.masked; for (const one of editor.views) one.draw(); },
    i: () => editor.choose(IGNORED), "+": () => view.zoomBy(1.25), "=": () => view.zoomBy(1.25), "-": () => view.zoomBy(0.8), 0: () => view.fit(),
    PageUp: () => editor.through(view, 1), PageDown: () => editor.through(view, -1),
  };
  if (!acts[key]) return false;
  guarded(acts[key]);
  return true;
}
