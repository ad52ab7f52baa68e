// Flows of two numbers: latent space at the left, data and density at the right.

import { Panel, Surface, contour, dashes, format, style, viridis } from "./panel.js";

const FINE = 192; // cells of the density's picture, each way
const COARSE = 48; // of the one that is there while the fine one is computed
const DEPTH = 10; // nats from the brightest to the darkest colour
const N_SAMPLES = 400;

const find = (id) => document.getElementById(id);

export class Plane {
  /** @param load a function of a model's name that promises its `Flow`. */
  constructor(models, load) {
    this.models = models;
    this.load = load;
    this.pictures = {};
    this.z = this.x = this.asked = this.cursor = null;
    this.latent = new Panel(find("latent"), (context) => this.#paintLatent(context));
    this.data = new Panel(find("data"), (context) => this.#paintData(context));
    this.legend = new Surface(find("legend"), (...given) => this.#paintLegend(...given));
    for (const id of ["show-guide", "show-samples", "show-data"]) {
      find(id).addEventListener("change", () => this.#draw());
    }
    this.#listen();
  }

  /** Shows another flow. */
  async show(name) {
    this.wanted = name;
    const flow = await this.load(name);
    if (name !== this.wanted) return; // another was chosen meanwhile
    this.model = this.models[name];
    this.flow = flow;
    this.asked = null;
    this.cursor = [...this.model.data.start];
    this.answer = null;
    find("about").textContent = this.model.about;
    find("latent-note").textContent = this.model.latent.note;
    this.latent.show(this.model.latent);
    this.data.show(this.model.data);
    for (const [panel, { low, high }] of [
      [this.latent, this.model.latent],
      [this.data, this.model.data],
    ]) {
      panel.canvas.setAttribute("aria-valuemin", low[0].toFixed(2));
      panel.canvas.setAttribute("aria-valuemax", high[0].toFixed(2));
    }
    this.#tell();
    this.#cursorText();
    await this.move(this.model.latent.start);
    this.picture = this.pictures[name];
    this.#draw();
    if (!this.picture) await this.#compute(name, flow);
  }

  /** What is drawn of a flow and does not change: its density, lines of latent space, and samples. */
  async #compute(name, flow) {
    const { model } = this;
    const picture = (this.picture = this.pictures[name] = { lines: await guide(model, flow) });
    this.#draw();
    await this.#density(picture, model, flow, COARSE);
    const samples = await flow.sample(N_SAMPLES);
    picture.samples = pairs(samples);
    picture.latents = pairs(await flow.encode(samples));
    this.#draw();
    await this.#density(picture, model, flow, FINE);
  }

  async #density(picture, model, flow, n) {
    const { low, high } = model.data;
    const cell = [0, 1].map((i) => (high[i] - low[i]) / n);
    const points = new Float32Array(2 * n * n);
    for (let k = 0; k < n * n; k++) {
      points[2 * k] = low[0] + ((k % n) + 0.5) * cell[0];
      points[2 * k + 1] = low[1] + (Math.floor(k / n) + 0.5) * cell[1];
    }
    const values = await flow.logProb(points);
    const top = values.reduce((a, b) => Math.max(a, b), -Infinity);
    const image = new ImageData(n, n);
    for (let k = 0; k < n * n; k++) {
      // Rows of an image go down, those of the plane up.
      const place = 4 * ((n - 1 - Math.floor(k / n)) * n + (k % n));
      image.data.set([...viridis(1 + (values[k] - top) / DEPTH), 255], place);
    }
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = n;
    canvas.getContext("2d").putImageData(image, 0, 0);
    const borders = contour(values, n, n, model.quantiles[1]).map((line) =>
      line.map((at) => at.map((v, i) => low[i] + (v + 0.5) * cell[i])),
    );
    Object.assign(picture, { canvas, top, borders });
    this.#draw();
  }

  /** Moves the latent point, and the sample with it. */
  async move(z) {
    const { latent } = this.model;
    this.z = inside(z, latent);
    const asked = this.z;
    const flow = this.flow;
    const x = await flow.decode(asked);
    if (asked !== this.z || flow !== this.flow) return; // moved on meanwhile
    this.x = [...x];
    this.sampleOf = asked;
    this.#draw();
    const [where, what] = [say(asked, latent), say(this.x, this.model.data)];
    find("z").textContent = where;
    find("sample").textContent = what;
    this.latent.canvas.setAttribute("aria-valuenow", asked[0].toFixed(2));
    this.latent.canvas.setAttribute("aria-valuetext", `z ${where}`);
    this.#announce(`sample x ${what}`);
  }

  /** Asks for the log-density of a point, and for the latent it comes from. */
  async ask(x) {
    const { model, flow } = this;
    this.cursor = inside(x, model.data);
    const asked = (this.asked = this.cursor);
    const [[logDensity], z] = [await flow.logProb(asked), await flow.encode(asked)];
    if (asked !== this.asked) return;
    const rank = model.quantiles.findIndex((quantile) => logDensity < quantile);
    const isOutlier = logDensity < model.quantiles[1];
    // Quantile k is what k % of the held-out data are below.
    const rarer = isOutlier ? 99 : rank < 0 ? 0 : 100 - rank;
    this.answer = { x: asked, z: [...z], logDensity, isOutlier, rarer };
    this.#tell();
    this.#draw();
    this.#announce(
      `log-density ${format(logDensity, 3)} nats, ${find("verdict").textContent}, from z ${find("origin").textContent}`,
    );
  }

  #tell() {
    const { answer, model } = this;
    find("answer").classList.toggle("empty", !answer);
    find("asked").textContent = answer ? say(answer.x, model.data) : "none yet";
    find("origin").textContent = answer ? say(answer.z, model.latent) : "–";
    find("log-density").textContent = answer ? `${format(answer.logDensity, 3)} nats` : "–";
    const verdict = find("verdict");
    verdict.className = !answer ? "" : answer.isOutlier ? "outlier" : "ordinary";
    verdict.textContent = !answer
      ? "–"
      : answer.isOutlier
        ? "outlier: rarer than 99 % of held-out data"
        : `ordinary: rarer than ${answer.rarer} % of held-out data`;
  }

  #cursorText() {
    this.data.canvas.setAttribute("aria-valuenow", this.cursor[0].toFixed(2));
    this.data.canvas.setAttribute("aria-valuetext", `x ${say(this.cursor, this.model.data)}`);
  }

  /** Says it, once nothing has moved for a while. */
  #announce(text) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => (find("live").textContent = text), 500);
  }

  #listen() {
    const { latent, data } = this;
    latent.canvas.addEventListener("pointerdown", (event) => {
      if (!this.flow) return; // not loaded yet
      latent.canvas.setPointerCapture(event.pointerId);
      this.move(latent.toValue(event));
    });
    latent.canvas.addEventListener("pointermove", (event) => {
      if (latent.canvas.hasPointerCapture(event.pointerId)) this.move(latent.toValue(event));
    });
    data.canvas.addEventListener("click", (event) => {
      if (!this.flow) return;
      this.ask(data.toValue(event));
      this.#cursorText();
    });
    latent.canvas.addEventListener("keydown", (event) => {
      if (!this.flow) return;
      const moved = arrow(event, this.z, this.model.latent);
      if (moved) this.move(moved);
    });
    data.canvas.addEventListener("keydown", (event) => {
      if (!this.flow) return;
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        this.ask(this.cursor);
        return;
      }
      const moved = arrow(event, this.cursor, this.model.data);
      if (!moved) return;
      this.cursor = inside(moved, this.model.data);
      this.#cursorText();
      this.#draw();
    });
    for (const kind of ["focus", "blur"]) data.canvas.addEventListener(kind, () => this.#draw());
  }

  #draw() {
    for (const surface of [this.latent, this.data, this.legend]) surface.draw();
  }

  #paintLatent(context) {
    const { latent, picture } = this;
    if (find("show-guide").checked && picture?.lines) {
      context.strokeStyle = style("--guide");
      for (const line of picture.lines) trace(context, latent, line.z, line.isStrong);
    }
    context.fillStyle = style("--cloud");
    for (const z of picture?.latents ?? []) disc(context, latent.toPixel(z), 1.6);
    if (this.answer) {
      // What is far out in latent space is drawn at the edge.
      const { low, high } = this.model.latent;
      diamond(context, latent.toPixel(this.answer.z.map((v, i) => Math.min(Math.max(v, low[i]), high[i]))));
    }
    if (this.sampleOf) point(context, latent.toPixel(this.z));
  }

  #paintData(context) {
    const { data, picture } = this;
    const box = data.box;
    if (picture?.canvas) {
      context.imageSmoothingQuality = "high";
      context.drawImage(picture.canvas, box.x, box.y, box.width, box.height);
    }
    if (find("show-guide").checked && picture?.lines) {
      context.strokeStyle = "rgb(255 255 255 / 45%)";
      for (const line of picture.lines) trace(context, data, line.x, line.isStrong);
    }
    context.beginPath();
    for (const line of picture?.borders ?? []) {
      line.forEach((at, k) => context[k ? "lineTo" : "moveTo"](...data.toPixel(at)));
    }
    dashes(context);
    // Dark and light ones, for most lie where the colours are bright.
    if (find("show-data").checked) {
      context.fillStyle = "#000000c0";
      for (const x of this.model.held_out) disc(context, data.toPixel(x), 1.4);
    }
    if (find("show-samples").checked) {
      for (const x of picture?.samples ?? []) {
        context.fillStyle = "#000000";
        disc(context, data.toPixel(x), 3);
        context.fillStyle = "#ffffff";
        disc(context, data.toPixel(x), 2);
      }
    }
    if (document.activeElement === data.canvas && data.canvas.matches(":focus-visible")) {
      const [x, y] = data.toPixel(this.cursor);
      context.strokeStyle = "#ffffff";
      context.lineWidth = 1;
      context.strokeRect(x, box.y - 1, 0, box.height + 2);
      context.strokeRect(box.x - 1, y, box.width + 2, 0);
    }
    if (this.answer) diamond(context, data.toPixel(this.answer.x));
    if (this.sampleOf) point(context, data.toPixel(this.x));
  }

  #paintLegend(context, width) {
    const { picture, model } = this;
    if (!picture?.canvas) return;
    const { x, width: w } = this.data.box;
    const gradient = context.createLinearGradient(x, 0, x + w, 0);
    for (let i = 0; i <= 15; i++) gradient.addColorStop(i / 15, `rgb(${viridis(i / 15).map(Math.round)})`);
    context.fillStyle = gradient;
    context.fillRect(x, 2, w, 12);
    context.strokeStyle = style("--axis");
    context.strokeRect(x - 0.5, 1.5, w + 1, 13);
    const place = (value) => x + w * (1 + (value - picture.top) / DEPTH);
    context.fillStyle = style("--muted");
    context.textBaseline = "top";
    context.textAlign = "center";
    for (let tick = Math.ceil(picture.top - DEPTH); tick <= picture.top; tick++) {
      if (tick % 2) continue;
      context.strokeRect(place(tick), 15, 0, 4);
      const half = context.measureText(format(tick, 0)).width / 2;
      context.fillText(format(tick, 0), Math.min(place(tick), width - half), 22);
    }
    const threshold = place(model.quantiles[1]);
    context.beginPath();
    context.moveTo(threshold, 2);
    context.lineTo(threshold, 14);
    dashes(context);
    context.strokeStyle = style("--axis");
    this.legend.canvas.setAttribute(
      "aria-label",
      `Colours: log-density from ${format(picture.top - DEPTH, 1)} nats or less, dark violet, to ` +
        `${format(picture.top, 1)} nats, yellow. A dashed line encloses 99 % of held-out data, above ` +
        `${format(model.quantiles[1], 2)} nats.`,
    );
  }
}

const pairs = (flat) => Array.from({ length: flat.length / 2 }, (_, i) => [flat[2 * i], flat[2 * i + 1]]);

/** A point as text, in degrees where it is angles. */
function say(point, { degrees }) {
  return degrees
    ? `(${point.map((v) => `${format((v * 180) / Math.PI, 1)}°`).join(", ")})`
    : `(${point.map((v) => format(v, 3)).join(", ")})`;
}

/** The point itself, or the one that stands for it inside the axes: around the torus, or at the edge. */
function inside(point, { low, high, periodic }) {
  return point.map((v, i) => {
    const span = high[i] - low[i];
    if (!periodic) return Math.min(Math.max(v, low[i]), high[i]);
    const around = v - span * Math.floor((v - low[i]) / span);
    return around < high[i] ? around : low[i];
  });
}

/** Where an arrow key leads from a point; null for another key. */
function arrow(event, from, { step }) {
  const directions = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  const direction = directions[event.key];
  if (!direction || event.ctrlKey || event.altKey || event.metaKey) return null;
  event.preventDefault();
  return from.map((v, i) => v + direction[i] * step * (event.shiftKey ? 5 : 1));
}

/** Lines of latent space, and where the flow moves them: [{ z, x, isStrong }]. */
async function guide(model, flow) {
  const lines = [];
  const line = (at, n, isStrong = false) => {
    lines.push({ z: Array.from({ length: n }, (_, i) => at(i / (n - 1))), isStrong });
  };
  if (model.latent.guide === "rings") {
    for (let radius = 0.5; radius <= 3; radius += 0.5) {
      const isStrong = Number.isInteger(radius);
      line((t) => [radius * Math.cos(2 * Math.PI * t), radius * Math.sin(2 * Math.PI * t)], 181, isStrong);
    }
    for (let k = 0; k < 12; k++) {
      const angle = (2 * Math.PI * k) / 12;
      line((t) => [3 * t * Math.cos(angle), 3 * t * Math.sin(angle)], 61);
    }
  } else {
    const edge = Math.PI * (1 - 1e-6); // the other edge is the same
    for (let k = -5; k <= 6; k++) {
      const at = (Math.PI * k) / 6 - (k === 6 ? 1e-6 : 0);
      line((t) => [at, (2 * t - 1) * edge], 361, k % 3 === 0);
      line((t) => [(2 * t - 1) * edge, at], 361, k % 3 === 0);
    }
  }
  const moved = pairs(await flow.decode(lines.flatMap(({ z }) => z.flat())));
  for (const each of lines) each.x = moved.splice(0, each.z.length);
  return lines;
}

/** Draws a line through points, but not where it leaves a torus at one edge, or where it is unknown in between. */
function trace(context, panel, points, isStrong) {
  const { low, high } = panel.axes;
  context.lineWidth = isStrong ? 1.6 : 0.8;
  context.beginPath();
  points.forEach((point, k) => {
    const jumps = k === 0 || point.some((v, i) => Math.abs(v - points[k - 1][i]) > (high[i] - low[i]) / 8);
    context[jumps ? "moveTo" : "lineTo"](...panel.toPixel(point));
  });
  context.stroke();
}

function disc(context, [x, y], radius) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
}

/** The point that is dragged, and its sample. */
function point(context, at) {
  context.fillStyle = "#ffffff";
  disc(context, at, 9);
  context.fillStyle = style("--point");
  disc(context, at, 7);
}

/** The point that is asked about, and the latent it comes from. */
function diamond(context, [x, y]) {
  context.beginPath();
  for (const [i, j] of [[0, -9], [9, 0], [0, 9], [-9, 0]]) context.lineTo(x + i, y + j);
  context.closePath();
  context.fillStyle = "#ffffff";
  context.fill();
  context.strokeStyle = "#111111";
  context.lineWidth = 2;
  context.stroke();
}
