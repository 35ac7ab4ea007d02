// Elements are made here and nowhere else. Text goes in as text: no string ever becomes markup.

/** An element. `props`: `on` holds listeners, `style` CSS properties, others attributes; children: nodes or text. */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name === "on") {
      for (const [type, listener] of Object.entries(value)) node.addEventListener(type, listener);
    } else if (name === "style") {
      for (const [key, text] of Object.entries(value)) node.style.setProperty(key, text);
    } else if (name in node && typeof value !== "string") {
      node[name] = value;
    } else if (value !== false && value !== null && value !== undefined) {
      node.setAttribute(name, value === true ? "" : value);
    }
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** An SVG element with attributes. */
export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  node.append(...children);
  return node;
}

/** A button that shows an error of its action instead of losing it. */
export function button(text, action, props = {}) {
  return el("button", { type: "button", ...props, on: { click: (event) => guarded(() => action(event)) } }, text);
}

/** A labelled input or select; the label stands above it. */
export function field(text, input, hint = "") {
  return el("label", { class: "field" }, el("span", {}, text), input, typeof hint === "string" && hint ? el("small", {}, hint) : hint);
}

/** A labelled check box. */
export function check(text, checked, change = () => {}) {
  const input = el("input", { type: "checkbox", checked, on: { change: () => guarded(() => change(input.checked)) } });
  return { node: el("label", { class: "check" }, input, el("span", {}, text)), input };
}

/** A choice; `options`: [value, text] pairs. */
export function select(options, value, change = () => {}, props = {}) {
  const node = el("select", { ...props, on: { change: () => guarded(() => change(node.value)) } },
    ...options.map(([key, text]) => el("option", { value: key }, text)));
  if (value !== undefined) node.value = value;
  return node;
}

/** A table of texts; numbers stand at the right. */
export function table(columns, rows, caption = "") {
  const numeric = columns.map((_, i) => rows.some((row) => row[i] !== "") &&
    rows.every((row) => row[i] === "" || row[i] === undefined || (typeof row[i] === "string" && !Number.isNaN(Number(row[i].replaceAll(",", ""))))));
  const cell = (tag, content, i) =>
    el(tag, { class: numeric[i] ? "number" : "", ...(tag === "th" ? { scope: "col" } : {}) }, content ?? "");
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption || "table" }, el("table", {},
    caption && el("caption", {}, caption),
    el("thead", {}, el("tr", {}, ...columns.map((c, i) => cell("th", c, i)))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...columns.map((_, i) => cell("td", row[i], i)))))));
}

const box = () => document.getElementById("message");
const NOTE = 8000; // milliseconds that a note stays
let timer = 0;

/** Show one line to the user over the page until it is closed or replaced; a note goes by itself. */
export function say(text, kind = "error") {
  clearTimeout(timer);
  if (kind === "note") timer = setTimeout(quiet, NOTE);
  box().replaceChildren(el("span", {}, text), button("Close", quiet, { class: "plain" }));
  box().className = kind;
  box().hidden = false;
}

/** Ask in a box; the text of the button that was pressed, or the last one where the box was closed. */
export function ask(text, answers) {
  return new Promise((resolve) => {
    const box = el("dialog", { class: "ask", "aria-label": text }, el("p", {}, text), el("div", { class: "acts" },
      ...answers.map((answer) => button(answer, () => box.close(answer), answer === answers[0] ? { class: "main" } : {}))));
    box.addEventListener("close", () => { box.remove(); resolve(box.returnValue || answers.at(-1)); });
    document.body.append(box);
    box.showModal();
  });
}

/** Take the line away. */
export function quiet() {
  box().hidden = true;
}

/** Run something, and say what went wrong. */
export async function guarded(action) {
  try {
    return await action();
  } catch (error) {
    if (error.name !== "AbortError") say(error.message || String(error));
    return undefined;
  }
}
