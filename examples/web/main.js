// Loads LiteRT.js and the flows, and says so.

import { Clouds } from "./clouds.js";
import { Flow, start } from "./flow.js";
import { Images } from "./images.js";
import { Plane } from "./plane.js";

const find = (id) => document.getElementById(id);
const flows = {};

/** The parts of the page, to try it from outside. */
export const page = { flows, plane: null, images: null, clouds: null };

function tell(text, isError = false) {
  find("status").textContent = text;
  find("status").classList.toggle("error", isError);
}

/** Does it, or says what would help and goes no further. */
async function need(promise, advice) {
  try {
    return await promise;
  } catch (error) {
    console.warn(error);
    tell(`${advice} (${error.message ?? "no reason given"})`, true);
    throw error;
  }
}

async function models() {
  const response = await fetch("./models/models.json");
  if (!response.ok) throw new Error(`models.json: ${response.status}`);
  return response.json();
}

async function main() {
  const began = performance.now();
  const missing = "The models are missing: run “python build.py” in this folder, then reload.";
  const found = await need(models(), missing);
  tell("Loading LiteRT.js: 9 MB of WebAssembly.");
  await need(start(), "LiteRT.js does not load: run “npm install” in this folder, then reload.");

  const load = (name) => need((flows[name] ??= Flow.load(`./models/${found[name].file}`)), missing);
  const planes = Object.keys(found).filter((name) => found[name].kind === "plane");
  find("flow").append(...planes.map((name) => new Option(found[name].title, name)));
  find("plane").hidden = false;
  const plane = new Plane(found, load);
  const show = async (name) => {
    tell(`Loading the flow: ${found[name].title}.`);
    await plane.show(name);
    if (find("flow").value === name) tell(`Ready: ${found[name].title}.`);
  };
  find("flow").addEventListener("change", (event) => show(event.target.value));
  await show(planes[0]);
  page.plane = plane;
  const shown = performance.now();

  for (const [kind, Part] of [["images", Images], ["clouds", Clouds]]) {
    const name = Object.keys(found).find((each) => found[each].kind === kind);
    tell(`Loading the flow: ${found[name].title}.`);
    const part = new Part(found[name], await load(name));
    find(kind).hidden = false;
    await part.compute();
    page[kind] = part;
  }
  find("timing").textContent = `First flow drawn after ${((shown - began) / 1000).toFixed(1)} s.`;
  tell("Ready.");
}

// What goes wrong has been told where it did; the rest is worth a line too.
main().catch((error) => {
  if (!find("status").classList.contains("error")) tell(`Something went wrong: ${error.message}`, true);
});
