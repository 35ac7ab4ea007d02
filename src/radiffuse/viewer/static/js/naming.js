// Names of the classes of a mask that is corrected: new ones, and other ones.

import { post } from "./api.js";
import { IGNORED } from "./colors.js";
import { button, el, say } from "./dom.js";

/** A field for a name, and what can be done with it. */
export function naming(editor) {
  const input = el("input", { type: "text", maxlength: "100", "aria-label": "Name of a class", placeholder: "name of a class" });
  return el("div", { class: "adding" }, input, button("Add", () => add(editor, input)),
    button("Rename", () => rename(editor, input), { title: "Give the chosen class this name, in all corrections" }));
}

function add(editor, input) {
  const name = input.value.trim();
  if (!name) return;
  if (editor.classes.includes(name)) throw new Error(`There is a class ${name} already.`);
  editor.classes.push(name);
  editor.value = editor.classes.length - 1;
  input.value = "";
  editor.sizes();
}

/** Give the chosen class another name, which the folder of corrections and the whole page have from then on. */
async function rename(editor, input) {
  const { app, classes, value } = editor, before = classes[value];
  if (value === IGNORED) throw new Error("What is not counted has no name. Choose a class.");
  const found = await post("api/corrections/classes", { classes, value, name: input.value });
  app.state.corrections = found.corrections;
  app.renamed();
  if (classes !== editor.classes) return; // another scan was opened meanwhile; both names are known when it is saved
  classes[value] = found.classes[value];
  input.value = "";
  editor.sizes();
  say(`${before} is called ${found.classes[value]} now, in ${found.corrections.folder}.`, "note");
}
