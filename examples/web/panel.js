// Drawing: colours, numbers, and a canvas with axes.

// Viridis at 16 even places: perceptually uniform, and legible to the colour-blind.
const VIRIDIS = [
  [68, 1, 84], [72, 26, 108], [71, 47, 125], [65, 68, 135], [57, 86, 140], [49, 104, 142], [42, 120, 142], [35, 136, 142],
  [31, 152, 139], [34, 168, 132], [53, 183, 121], [84, 197, 104], [122, 209, 81], [165, 219, 54], [210, 226, 27],
  [253, 231, 37],
];

/** The colour of a number in [0, 1], as [r, g, b]. */
export function viridis(t) {
  const place = Math.min(Math.max(t, 0), 1) * (VIRIDIS.length - 1);
  const i = Math.min(Math.floor(place), VIRIDIS.length - 2);
  return VIRIDIS[i].map((low, j) => low + (place - i) * (VIRIDIS[i + 1][j] - low));
}

/** A number to read, with a true minus sign. */
export function format(value, digits) {
  const text = Number(value).toFixed(digits);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "−");
}

/** A colour or other value of the style sheet. */
export function style(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Makes a canvas as fine as the screen, calls paint(context, width, height) in CSS pixels, and again on every change. */
export class Surface {
  constructor(canvas, paint) {
    this.canvas = canvas;
    this.paint = paint;
    this.asked = false;
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  draw() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      const { clientWidth: width, clientHeight: height } = this.canvas;
      if (!width || !height) return;
      const scale = devicePixelRatio || 1;
      this.canvas.width = Math.round(width * scale);
      this.canvas.height = Math.round(height * scale);
      const context = this.canvas.getContext("2d");
      context.scale(scale, scale);
      context.font = `12px ${style("--font")}`;
      this.paint(context, width, height);
    });
  }
}

const MARGIN = { left: 46, right: 12, top: 8, bottom: 40 };

/** A canvas with two axes. `content(context)` draws inside them. */
export class Panel extends Surface {
  constructor(canvas, content) {
    super(canvas, (context, width, height) => this.#paint(context, width, height));
    this.content = content;
    this.axes = null;
  }

  /** Shows other axes: labels, low, high, ticks, degrees. */
  show(axes) {
    this.axes = axes;
    this.draw();
  }

  get box() {
    const { clientWidth, clientHeight } = this.canvas;
    return {
      x: MARGIN.left,
      y: MARGIN.top,
      width: clientWidth - MARGIN.left - MARGIN.right,
      height: clientHeight - MARGIN.top - MARGIN.bottom,
    };
  }

  toPixel([x, y]) {
    const { low, high } = this.axes;
    const box = this.box;
    return [
      box.x + (box.width * (x - low[0])) / (high[0] - low[0]),
      box.y + box.height * (1 - (y - low[1]) / (high[1] - low[1])),
    ];
  }

  /** The point under a pointer, moved to the nearest one inside the axes. */
  toValue(event) {
    const { low, high } = this.axes;
    const box = this.box;
    const bounds = this.canvas.getBoundingClientRect();
    // Not quite up to the upper edges, which on a torus are the lower ones.
    const within = (fraction) => Math.min(Math.max(fraction, 0), 0.9999);
    const across = within((event.clientX - bounds.x - box.x) / box.width);
    const up = within(1 - (event.clientY - bounds.y - box.y) / box.height);
    return [low[0] + across * (high[0] - low[0]), low[1] + up * (high[1] - low[1])];
  }

  #paint(context, width, height) {
    if (!this.axes) return;
    const { x, y, width: w, height: h } = this.box;
    const { labels, ticks, degrees, low, high } = this.axes;
    context.fillStyle = style("--plot");
    context.fillRect(x, y, w, h);
    context.save();
    context.beginPath();
    context.rect(x, y, w, h);
    context.clip();
    this.content(context);
    context.restore();

    context.strokeStyle = style("--axis");
    context.lineWidth = 1;
    context.strokeRect(x - 0.5, y - 0.5, w + 1, h + 1);
    context.fillStyle = style("--muted");
    const unit = degrees ? Math.PI / 180 : 1;
    for (const tick of ticks) {
      const [across, down] = this.toPixel([tick * unit, tick * unit]);
      const text = format(tick, 0) + (degrees ? "°" : "");
      const isIn = (i) => tick * unit >= low[i] - 1e-9 && tick * unit <= high[i] + 1e-9;
      context.beginPath();
      if (isIn(0)) {
        context.moveTo(across, y + h + 1);
        context.lineTo(across, y + h + 5);
        context.textAlign = "center";
        context.textBaseline = "top";
        // Labels at the very edge would be cut off.
        const half = context.measureText(text).width / 2;
        context.fillText(text, Math.min(across, width - half - 1), y + h + 8);
      }
      if (isIn(1)) {
        context.moveTo(x - 1, down);
        context.lineTo(x - 5, down);
        context.textAlign = "right";
        context.textBaseline = "middle";
        context.fillText(text, x - 8, Math.max(down, 7));
      }
      context.stroke();
    }
    context.fillStyle = style("--text");
    context.font = `italic 14px ${style("--font")}`;
    context.textAlign = "center";
    context.textBaseline = "bottom";
    context.fillText(labels[0], x + w / 2, height - 1);
    context.save();
    context.translate(2, y + h / 2);
    context.rotate(-Math.PI / 2);
    context.textBaseline = "top";
    context.fillText(labels[1], 0, 0);
    context.restore();
  }
}

/** Lines where values [ny][nx] on an even grid cross a level, by marching squares: lists of [x, y] in cells. */
export function contour(values, nx, ny, level) {
  const segments = [];
  for (let j = 0; j < ny - 1; j++) {
    for (let i = 0; i < nx - 1; i++) {
      const corners = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]];
      const heights = corners.map(([a, b]) => values[b * nx + a] - level);
      const crossings = [];
      for (let k = 0; k < 4; k++) {
        const a = heights[k];
        const b = heights[(k + 1) % 4];
        if (a < 0 === b < 0) continue;
        const t = a / (a - b);
        const [from, to] = [corners[k], corners[(k + 1) % 4]];
        crossings.push([from[0] + t * (to[0] - from[0]), from[1] + t * (to[1] - from[1])]);
      }
      for (let k = 0; k + 1 < crossings.length; k += 2) segments.push([crossings[k], crossings[k + 1]]);
    }
  }
  return chained(segments);
}

/** Lines from segments that share ends, so that dashes go on from one to the next. */
function chained(segments) {
  const name = ([x, y]) => `${x.toFixed(4)} ${y.toFixed(4)}`;
  const touching = new Map();
  for (const segment of segments) {
    for (const end of segment) touching.set(name(end), [...(touching.get(name(end)) ?? []), segment]);
  }
  const unused = new Set(segments);
  const lines = [];
  for (const segment of segments) {
    if (!unused.delete(segment)) continue;
    const line = [...segment];
    for (const isForward of [true, false]) {
      for (;;) {
        const tip = name(isForward ? line.at(-1) : line[0]);
        const next = touching.get(tip).find((each) => unused.has(each));
        if (!next) break;
        unused.delete(next);
        const far = name(next[0]) === tip ? next[1] : next[0];
        if (isForward) line.push(far);
        else line.unshift(far);
      }
    }
    lines.push(line);
  }
  return lines;
}

/** Dashes that can be seen on every colour. */
export function dashes(context) {
  context.lineCap = "butt";
  context.lineWidth = 3;
  context.strokeStyle = "#111111";
  context.stroke();
  context.lineWidth = 1.6;
  context.strokeStyle = "#ffffff";
  context.setLineDash([5, 4]);
  context.stroke();
  context.setLineDash([]);
}
