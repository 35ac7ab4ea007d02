// Long work on the server: its progress, and a button that stops it.

import { get, post, remove } from "./api.js";
import { button, el, say } from "./dom.js";

const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

/** Ask for a job and follow it in `host`; the result, or null where it was cancelled or failed. */
export async function follow(host, path, body) {
  let job = await post(path, body);
  const bar = el("progress", { "aria-label": "Progress" }), text = el("span", { role: "status" });
  const stop = button("Cancel", async () => { stop.disabled = true; await remove(`api/jobs/${job.id}`); });
  host.replaceChildren(el("div", { class: "work" }, el("strong", {}, job.title), bar, text, stop));
  const began = performance.now();
  while (job.state === "waiting" || job.state === "running") {
    const share = job.total ? Math.min(0.99, job.done / job.total) : 0;
    if (share) bar.value = share;
    else bar.removeAttribute("value");
    const seconds = Math.round((performance.now() - began) / 1000);
    text.textContent = job.state === "waiting" ? "waiting for the job before" :
      `${job.step}${share ? `, ${Math.round(share * 100)} %` : ""}, ${seconds} s`;
    await pause(350);
    job = await get(`api/jobs/${job.id}`);
  }
  host.replaceChildren();
  if (job.state === "failed") say(job.error);
  if (job.state === "cancelled") say("Cancelled.", "note");
  return job.state === "done" ? job.result : null;
}
