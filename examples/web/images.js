// The flow of images: from one to another, through latent space and, to compare, pixel by pixel.

import { Surface, format, style } from "./panel.js";

const N_IN_STRIP = 11;
const find = (id) => document.getElementById(id);

export class Images {
  constructor(model, flow) {
    this.model = model;
    this.flow = flow;
    this.size = model.shape[0];
    this.n = model.n_steps;
    this.ends = [...model.ends];
    this.way = null;
    this.step = Math.floor(this.n / 2);
    find("images-about").textContent = model.about;
    this.thumbnails = model.images.map(({ pixels }) => picture(pixels, this.size));
    ["first", "second"].forEach((id, k) => this.#choices(find(id), k));
    const slider = find("t");
    Object.assign(slider, { min: 0, max: this.n - 1, step: 1, value: this.step });
    slider.addEventListener("input", () => {
      this.step = Number(slider.value);
      this.#show();
    });
    this.chart = new Surface(find("chart"), (...given) => this.#paintChart(...given));
    this.strips = ["flow", "blend"].map((kind) => {
      const canvas = find(`strip-${kind}`);
      canvas.addEventListener("click", (event) => {
        const place = Math.floor((N_IN_STRIP * event.offsetX) / canvas.clientWidth);
        slider.value = (place * (this.n - 1)) / (N_IN_STRIP - 1);
        slider.dispatchEvent(new Event("input"));
      });
      return new Surface(canvas, (context, width, height) => this.#paintStrip(kind, context, width, height));
    });
  }

  /** Computes the whole way between the chosen images, so that the slider need not wait. */
  async compute() {
    const { model, flow, n } = this;
    const asked = (this.asked = [...this.ends]);
    const chosen = asked.map((k) => model.images[k]);
    const classes = chosen.map(({ label }) => Float32Array.from({ length: model.n_classes }, (_, k) => Number(k === label)));
    const pixels = chosen.map((image) => Float32Array.from(image.pixels));
    const z = await flow.encode(join(pixels), join(classes));
    const size = z.length / 2;
    const [z0, z1] = [z.subarray(0, size), z.subarray(size)];
    const times = Array.from({ length: n }, (_, i) => i / (n - 1));
    const contexts = join(times.map((t) => mix(...classes, t)));
    const decoded = await flow.decode(join(times.map((t) => spherical(z0, z1, t))), contexts);
    // A density is one of images whose pixels are whole numbers from 0 to 255.
    const blended = join(times.map((t) => mix(...pixels, t)));
    const frames = { flow: decoded.map(whole), blend: blended.map(whole) };
    const scores = {};
    for (const kind of ["flow", "blend"]) scores[kind] = await flow.logProb(frames[kind], contexts);
    if (asked !== this.asked) return; // others were chosen meanwhile
    const one = pixels[0].length;
    const pictures = {};
    for (const kind of ["flow", "blend"]) {
      pictures[kind] = times.map((_, i) => picture(frames[kind].subarray(i * one, (i + 1) * one), this.size));
    }
    this.way = { decoded, frames, scores, pictures, labels: chosen.map(({ label }) => label) };
    this.#show();
  }

  #choices(fieldset, k) {
    const seen = {};
    this.model.images.forEach(({ label }, i) => {
      seen[label] = (seen[label] ?? 0) + 1;
      const choice = document.createElement("label");
      const input = Object.assign(document.createElement("input"), { type: "radio", name: fieldset.id, value: i });
      input.checked = this.ends[k] === i;
      input.addEventListener("change", () => {
        this.ends[k] = i;
        this.compute();
      });
      const image = Object.assign(document.createElement("img"), {
        src: this.thumbnails[i].toDataURL(),
        alt: `handwritten ${label}${seen[label] > 1 ? ", another" : ""}`,
        width: this.size,
        height: this.size,
      });
      choice.append(input, image);
      fieldset.append(choice);
    });
  }

  #show() {
    const { way, step, model, n } = this;
    if (!way) return;
    const t = step / (n - 1);
    const [from, to] = way.labels;
    const shown = { first: way.pictures.blend[0], second: way.pictures.blend[n - 1] };
    const labels = { first: `The first image, a ${from}`, second: `The second image, a ${to}` };
    for (const [kind, how] of [["flow", "Through the flow"], ["blend", "Pixels mixed"]]) {
      shown[kind] = way.pictures[kind][step];
      const score = way.scores[kind][step];
      const isOutlier = score < model.outlier_below;
      labels[kind] = `${how}: ${Math.round(100 * t)} % of the way from a ${from} to a ${to}`;
      const output = find(`${kind}-score`);
      output.textContent = `${format(score, 0)} nats: ${isOutlier ? "outlier" : "ordinary"}`;
      output.className = isOutlier ? "outlier" : "ordinary";
    }
    for (const [kind, image] of Object.entries(shown)) {
      const canvas = find(`image-${kind}`);
      canvas.width = canvas.height = this.size;
      canvas.getContext("2d").drawImage(image, 0, 0);
      canvas.setAttribute("aria-label", labels[kind]);
    }
    find("t-shown").textContent = `t = ${t.toFixed(3)}`;
    find("t").setAttribute(
      "aria-valuetext",
      `${Math.round(100 * t)} % of the way; flow ${find("flow-score").textContent}, pixels ${find("blend-score").textContent}`,
    );
    find("strip-flow").setAttribute("aria-label", `Eleven images through the flow, from a ${from} to a ${to}`);
    find("strip-blend").setAttribute("aria-label", `Eleven images with pixels mixed, from a ${from} to a ${to}`);
    const middle = ["flow", "blend"].map((kind) => format(way.scores[kind][(n - 1) / 2], 0));
    find("chart").setAttribute(
      "aria-label",
      `Log-density on the way: in the middle ${middle[0]} nats through the flow, ${middle[1]} with pixels mixed; ` +
        `below ${format(model.outlier_below, 0)} an image is an outlier`,
    );
    for (const surface of [...this.strips, this.chart]) surface.draw();
  }

  #paintStrip(kind, context, width, height) {
    if (!this.way) return;
    const each = width / N_IN_STRIP;
    context.imageSmoothingEnabled = each < this.size;
    for (let k = 0; k < N_IN_STRIP; k++) {
      const step = (k * (this.n - 1)) / (N_IN_STRIP - 1);
      context.drawImage(this.way.pictures[kind][step], k * each, 0, each, height);
    }
    const nearest = Math.round((this.step * (N_IN_STRIP - 1)) / (this.n - 1));
    context.strokeStyle = style("--point");
    context.lineWidth = 2;
    context.strokeRect(nearest * each + 1, 1, each - 2, height - 2);
  }

  #paintChart(context, width, height) {
    if (!this.way) return;
    const { scores } = this.way;
    const { outlier_below: threshold } = this.model;
    const strip = this.strips[0].canvas;
    const left = strip.offsetLeft - this.chart.canvas.offsetLeft;
    const half = strip.clientWidth / N_IN_STRIP / 2; // the images' middles
    const all = [...scores.flow, ...scores.blend, threshold];
    const [low, high] = [Math.min(...all) - 250, Math.max(...all) + 150];
    const across = (step) => left + half + ((width - left - 2 * half) * step) / (this.n - 1);
    const down = (value) => 8 + (height - 16) * (1 - (value - low) / (high - low));
    context.fillStyle = style("--outlier-area");
    context.fillRect(left, down(threshold), width - left, down(low) - down(threshold));
    context.textAlign = "right";
    context.textBaseline = "middle";
    context.lineWidth = 1;
    for (let tick = Math.ceil(low / 500) * 500; tick <= high; tick += 500) {
      if (Math.min(down(tick) - down(high), down(low) - down(tick)) < 10) continue; // too near to the frame
      context.strokeStyle = style("--rule");
      context.strokeRect(left, down(tick), width - left, 0);
      context.fillStyle = style("--muted");
      context.fillText(format(tick, 0), left - 8, down(tick));
    }
    context.strokeStyle = style("--axis");
    context.strokeRect(left + 0.5, down(high), width - left - 1, down(low) - down(high));
    context.setLineDash([5, 4]);
    context.strokeRect(left, down(threshold), width - left, 0);
    context.setLineDash([]);
    context.strokeStyle = style("--point");
    context.strokeRect(across(this.step), down(high), 0, down(low) - down(high));
    context.textBaseline = "bottom";
    for (const [kind, name, colour] of [["flow", "flow", style("--flow")], ["blend", "pixels", style("--blend")]]) {
      context.strokeStyle = context.fillStyle = colour;
      context.lineWidth = 2.5;
      context.lineJoin = "round";
      context.beginPath();
      scores[kind].forEach((score, step) => context.lineTo(across(step), down(score)));
      context.stroke();
      context.beginPath();
      context.arc(across(this.step), down(scores[kind][this.step]), 5, 0, 2 * Math.PI);
      context.fill();
      // Beside the line, where it is even.
      const place = Math.round(0.72 * (this.n - 1));
      context.textAlign = "center";
      context.fillText(name, across(place), down(Math.max(...scores[kind].slice(place - 2, place + 3))) - 5);
    }
    context.fillStyle = style("--muted");
    context.textAlign = "left";
    context.fillText("log-density, nats", left + 8, down(high) + 18);
    context.fillText(`outliers: below ${format(threshold, 0)} nats`, left + 8, down(low) - 4);
  }
}

const whole = (value) => Math.min(Math.max(Math.round(value), 0), 255);

function join(rows) {
  const joined = new Float32Array(rows.reduce((n, row) => n + row.length, 0));
  let from = 0;
  for (const row of rows) {
    joined.set(row, from);
    from += row.length;
  }
  return joined;
}

const mix = (a, b, t) => a.map((v, i) => (1 - t) * v + t * b[i]);

/** From a to b along the arc between their directions, the length changing evenly, as `tfflows.latents.spherical`. */
export function spherical(a, b, t) {
  const length = (v) => Math.max(Math.hypot(...v), 1e-12);
  const [p, q] = [length(a), length(b)];
  const [u, v] = [a.map((x) => x / p), b.map((x) => x / q)];
  // Exact for small angles too, where the arc cosine of a product is not.
  const angle = 2 * Math.atan2(Math.hypot(...u.map((x, i) => v[i] - x)), Math.hypot(...u.map((x, i) => v[i] + x)));
  const sine = Math.sin(angle);
  // Between equal directions the arc is its chord; opposite ones span no plane.
  const [s, r] = sine > 1e-4 ? [Math.sin((1 - t) * angle) / sine, Math.sin(t * angle) / sine] : [1 - t, t];
  return u.map((x, i) => ((1 - t) * p + t * q) * (s * x + r * v[i]));
}

/** A canvas of grey pixels, each as large as one. */
function picture(pixels, size) {
  const image = new ImageData(size, size);
  pixels.forEach((v, i) => image.data.set([v, v, v, 255], 4 * i));
  const canvas = Object.assign(document.createElement("canvas"), { width: size, height: size });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}
