// Where files are dropped: with the mouse, or chosen with the keyboard.

import { upload } from "./api.js";
import { button, el, guarded, say } from "./dom.js";

export const KINDS = "PNG, JPEG, TIFF, DICOM, NIfTI, MHA, NRRD, or a DICOM series as zip";

/** A drop area. `done(scans)` gets what the files became; `limit()` is the largest file in bytes. */
export function dropArea(text, limit, done) {
  const input = el("input", { type: "file", multiple: true, class: "file", on: { change: () => { send([...input.files]); input.value = ""; } } });
  const bar = el("progress", { max: 1, value: 0, "aria-label": "Sent" }), stop = button("Cancel", () => stopping?.abort());
  const line = el("div", { class: "sending" }, bar, stop);
  line.hidden = true;
  let stopping = null;
  const node = el("label", { class: "drop" }, input, el("strong", {}, text), el("small", {}, KINDS), line);

  async function send(files) {
    if (stopping) return say("A file is on its way; wait, or cancel it.");
    stopping = new AbortController();
    line.hidden = false;
    const found = [];
    for (const file of files) {
      const scans = await guarded(() => upload(file, limit(), (share) => { bar.value = share; }, stopping.signal));
      if (scans) found.push(...scans);
      if (stopping.signal.aborted) break;
    }
    stopping = null;
    line.hidden = true;
    if (found.length) await guarded(() => done(found));
    return undefined;
  }

  for (const type of ["dragenter", "dragover"]) {
    node.addEventListener(type, (event) => { event.preventDefault(); node.classList.add("over"); });
  }
  for (const type of ["dragleave", "drop"]) node.addEventListener(type, () => node.classList.remove("over"));
  node.addEventListener("drop", (event) => { event.preventDefault(); send([...event.dataTransfer.files]); });
  return node;
}
