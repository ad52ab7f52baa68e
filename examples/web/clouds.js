// The flow of shapes: new ones, and the way from one to another, as clouds of points that can be turned.

import { Surface, format, style } from "./panel.js";

const STEP = Math.PI / 36; // of an arrow key
const SPEED = 0.25; // of the slow turn, radians in a second
const DISTANCE = 5; // of the eye, in radii: near points are larger than far ones
const SHADES = 12;
const find = (id) => document.getElementById(id);
const degrees = (angle) => Math.round((angle * 180) / Math.PI);

/** A canvas with a cloud of points, which keys, mouse and touch turn. */
class Turntable extends Surface {
  /** @param taken is called when somebody turns it. */
  constructor(canvas, radius, taken) {
    super(canvas, (...given) => this.#paint(...given));
    this.radius = radius;
    this.points = null;
    this.yaw = 5.6; // from the front and the side
    this.pitch = 0.4; // from a little above
    canvas.setAttribute("aria-valuemin", 0);
    canvas.setAttribute("aria-valuemax", 360);
    const turn = (right, down) => {
      taken();
      this.turn(right, down);
      this.tell();
    };
    let held;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      held = [event.clientX, event.clientY];
      taken();
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!canvas.hasPointerCapture(event.pointerId)) return;
      // Across the canvas is half a turn.
      const angle = Math.PI / canvas.clientWidth;
      turn((event.clientX - held[0]) * angle, (event.clientY - held[1]) * angle);
      held = [event.clientX, event.clientY];
    });
    canvas.addEventListener("keydown", (event) => {
      const directions = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      const direction = directions[event.key];
      if (!direction || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      const angle = STEP * (event.shiftKey ? 5 : 1);
      turn(direction[0] * angle, direction[1] * angle);
    });
    this.tell();
  }

  /** Shows another cloud, x y z point by point, with z up. */
  show(points) {
    this.points = points;
    this.draw();
  }

  /** Moves what is in front to the right and down. */
  turn(right, down) {
    const full = 2 * Math.PI;
    this.yaw = (((this.yaw + right) % full) + full) % full;
    this.pitch = Math.min(Math.max(this.pitch + down, -Math.PI / 2), Math.PI / 2);
    this.draw();
  }

  /** Says to a screen reader how it is turned. */
  tell() {
    const height = `seen from ${Math.abs(degrees(this.pitch))}° ${this.pitch < 0 ? "below" : "above"}`;
    this.canvas.setAttribute("aria-valuenow", degrees(this.yaw));
    this.canvas.setAttribute("aria-valuetext", `turned by ${degrees(this.yaw)}°, ${height}`);
  }

  get isInView() {
    const { top, bottom } = this.canvas.getBoundingClientRect();
    return bottom > 0 && top < innerHeight;
  }

  #paint(context, width, height) {
    const { points, radius } = this;
    if (!points) return;
    const [cosYaw, sinYaw] = [Math.cos(this.yaw), Math.sin(this.yaw)];
    const [cosPitch, sinPitch] = [Math.cos(this.pitch), Math.sin(this.pitch)];
    const size = 0.44 * Math.min(width, height); // with a margin, for what is near is larger
    const shades = Array.from({ length: SHADES }, () => []);
    for (let i = 0; i < points.length; i += 3) {
      const [x, y, z] = [points[i] / radius, points[i + 1] / radius, points[i + 2] / radius];
      const right = x * cosYaw - y * sinYaw;
      const away = x * sinYaw + y * cosYaw;
      const up = z * cosPitch + away * sinPitch;
      const near = z * sinPitch - away * cosPitch;
      const scale = (size * DISTANCE) / (DISTANCE - Math.min(near, 1)); // a stray point may be behind the eye
      const shade = Math.floor(((near + 1) / 2) * SHADES);
      shades[Math.min(Math.max(shade, 0), SHADES - 1)].push([width / 2 + right * scale, height / 2 - up * scale]);
    }
    // The far ones first, which the near ones hide.
    const [ground, colour] = [style("--plot"), style("--accent")];
    shades.forEach((shade, k) => {
      const nearness = k / (SHADES - 1);
      const dot = (0.01 + 0.007 * nearness) * size;
      context.beginPath();
      for (const [x, y] of shade) {
        context.moveTo(x + dot, y);
        context.arc(x, y, dot, 0, 2 * Math.PI);
      }
      context.globalAlpha = 1;
      context.fillStyle = ground;
      context.fill();
      context.globalAlpha = 0.25 + 0.75 * nearness;
      context.fillStyle = colour;
      context.fill();
    });
  }
}

export class Clouds {
  constructor(model, flow) {
    this.model = model;
    this.flow = flow;
    this.label = 0;
    this.step = 0;
    find("clouds-about").textContent = model.about;
    const stop = () => (find("turn").checked = false);
    const [drawn, between] = ["drawn", "between"].map((id) => new Turntable(find(id), model.radius, stop));
    Object.assign(this, { drawn, between });
    this.draw = oneAtATime(() => this.#draw());
    this.decode = oneAtATime(() => this.#decode());
    this.#listen();
    this.#turnSlowly();
  }

  /** Fills both canvases. */
  async compute() {
    await Promise.all([this.draw(), this.decode()]);
  }

  #listen() {
    const { model } = this;
    const [seed, temperature, way, slider] = ["seed", "temperature", "way", "way-t"].map(find);
    Object.assign(seed, { min: 0, max: 2 ** 31 - 1, step: 1, value: 0 });
    Object.assign(temperature, { min: 0, max: 1.5, step: 0.1, value: 1 });
    seed.addEventListener("input", () => seed.value && seed.validity.valid && this.draw());
    temperature.addEventListener("input", () => this.draw());
    model.shapes.forEach((name, label) => {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: `New ${name}` });
      button.addEventListener("click", () => {
        // Of what it already shows another one; of the other kind the first one may have the same seed.
        if (label === this.label) seed.value = seed.validity.valid ? (Number(seed.value) + 1) % 2 ** 31 : 0;
        this.label = label;
        this.draw();
      });
      find("new").append(button);
    });

    way.append(...model.ways.map(({ title }, k) => new Option(title, k)));
    const last = model.ways[0].latents.length - 1;
    this.step = last / 2;
    Object.assign(slider, { min: 0, max: last, step: 1, value: this.step });
    slider.addEventListener("input", () => {
      this.step = Number(slider.value);
      this.decode();
    });
    way.addEventListener("change", () => this.decode());
    this.#tellWay();
  }

  async #draw() {
    const { model, flow, label } = this;
    const [seed, temperature] = [Number(find("seed").value), Number(find("temperature").value)];
    const context = model.shapes.map((_, k) => Number(k === label));
    this.drawn.show(await flow.run("sample", { seed: [seed], temperature: [temperature], context }));
    find("temperature-shown").textContent = format(temperature, 1);
    find("drawn-shown").textContent = `A ${model.shapes[label]}: seed ${seed}, temperature ${format(temperature, 1)}.`;
    this.drawn.canvas.setAttribute("aria-label", `A new ${model.shapes[label]}, ${model.n_points} points`);
  }

  async #decode() {
    const { model, flow, step } = this;
    const way = model.ways[find("way").value];
    this.#tellWay();
    this.between.show(await flow.run("decode", { latent: way.latents[step], seed: [model.seed] }));
  }

  #tellWay() {
    const { ends, latents } = this.model.ways[find("way").value];
    const t = this.step / (latents.length - 1);
    const how = `${Math.round(100 * t)} % of the way from a ${ends[0]} to ${ends[0] === ends[1] ? "another" : `a ${ends[1]}`}`;
    find("way-shown").textContent = `t = ${t.toFixed(3)}`;
    find("way-t").setAttribute("aria-valuetext", how);
    this.between.canvas.setAttribute("aria-label", `A shape ${how}`);
  }

  #turnSlowly() {
    const box = find("turn");
    // Some are made ill by what moves unasked.
    box.checked = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    let before = performance.now();
    const turn = (now) => {
      if (!box.checked) return;
      // A page that was not seen for a while must not jump.
      const angle = (SPEED * Math.min(now - before, 100)) / 1000;
      before = now;
      for (const table of [this.drawn, this.between]) if (table.isInView) table.turn(angle, 0);
      requestAnimationFrame(turn);
    };
    const begin = () => {
      before = performance.now();
      requestAnimationFrame(turn);
    };
    box.addEventListener("change", begin);
    begin();
  }
}

/** The function, not called again before it is done; of the calls that come meanwhile one at the end stands for all. */
function oneAtATime(work) {
  let running = null;
  let isAsked = false;
  return () => {
    isAsked = true;
    running ??= (async () => {
      try {
        while (isAsked) {
          isAsked = false;
          await work();
        }
      } finally {
        running = null;
      }
    })();
    return running;
  };
}
