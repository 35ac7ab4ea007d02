// The server's answers. Addresses are relative, so that the token in the page's own address goes with each.

async function answer(response) {
  if (response.ok) return response;
  let text = `The server answered ${response.status}.`;
  try {
    const body = await response.text();
    text = (response.headers.get("content-type") || "").includes("json") ? JSON.parse(body).error || text : body || text;
  } catch { /* the status says enough */ }
  throw new Error(text);
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is radiffuse view still running?");
  }
  return answer(response);
}

export const get = async (path) => (await ask(path)).json();
export const bytes = async (path) => (await ask(path)).arrayBuffer();
export const remove = async (path) => (await ask(path, { method: "DELETE" })).json();
export const post = async (path, body) => (await ask(path, {
  method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
})).json();

/** Send bytes. */
export const send = async (path, body) => (await ask(path, {
  method: "POST", headers: { "content-type": "application/octet-stream" }, body,
})).json();

/** Send a file; `progress` is told the share that is sent, `signal` stops it. */
export function upload(file, limit, progress, signal) {
  if (file.size > limit) {
    return Promise.reject(new Error(`${file.name} is larger than ${Math.round(limit / 1e6)} MB (--upload-limit).`));
  }
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch does not tell how far it is
    request.open("POST", `api/scans?name=${encodeURIComponent(file.name)}`);
    request.setRequestHeader("content-type", "application/octet-stream");
    request.upload.onprogress = (event) => progress(event.loaded / Math.max(1, event.total));
    request.onload = () => {
      let body = {};
      try { body = JSON.parse(request.responseText); } catch { /* not JSON */ }
      if (request.status === 200) resolve(body);
      else reject(new Error(body.error || `The server answered ${request.status}.`));
    };
    request.onerror = () => reject(new Error(`${file.name} could not be sent.`));
    request.onabort = () => reject(new DOMException("stopped", "AbortError"));
    signal?.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}
