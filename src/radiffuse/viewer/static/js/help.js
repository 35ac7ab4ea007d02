// All keys, in a box that the key ? opens and Escape closes.

import { button, el } from "./dom.js";

const KEYS = {
  Everywhere: [["?", "this list"], ["← →", "another tab, where a tab has the focus"], ["Tab", "the next control"], ["Esc", "close a box"]],
  View: [["arrows", "move the film, or the cross hair of a volume"], ["Page up, Page down", "next slice"], ["+ − 0", "larger, smaller, whole film"]],
  Correct: [
    ["b e f v", "brush, erase, fill, move"], ["[ ]", "smaller, larger brush"], ["1 … 9", "class to paint"], ["i", "paint: not counted"],
    ["arrows", "move the cursor in the plane that has the focus; with Shift by ten"], ["space", "use the tool at the cursor; held down, while it moves"],
    ["Page up, Page down", "next slice"], ["+ − 0", "larger, smaller, whole"], ["m", "hide and show the mask"],
    ["z, Ctrl Z", "undo"], ["y, Ctrl Y", "redo"], ["s, Ctrl S", "save"], ["n p", "next scan that is not corrected, scan before"],
  ],
};

export function help() {
  const part = ([name, rows]) => [el("h2", {}, name), el("dl", { class: "keys" }, ...rows.flatMap(([key, text]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, text)]))];
  const box = el("dialog", { class: "help", "aria-label": "Keys" }, ...Object.entries(KEYS).flatMap(part),
    button("Close", () => box.close(), { autofocus: "" }));
  box.addEventListener("close", () => box.remove());
  document.body.append(box);
  box.showModal();
}
