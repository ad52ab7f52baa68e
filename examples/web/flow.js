// LiteRT.js, and flows as functions of any number of rows.

const WASM = "./node_modules/@litertjs/core/wasm/";
let litert;

/** Loads LiteRT.js, once. */
export async function start() {
  if (litert) return;
  // The runtime's log goes to standard error, also where nothing is wrong.
  self.Module = { printErr: (line) => (/^(INFO|WARNING|VERBOSE):/.test(line) ? console.debug(line) : console.error(line)) };
  const loaded = await import("@litertjs/core");
  // The plain build: threads would need headers that a simple server does not send.
  await loaded.loadLiteRt(WASM);
  litert = loaded;
}

let rested = performance.now();

/** Lets the browser draw and listen, if it has not lately. */
async function rest() {
  if (performance.now() - rested < 12) return;
  await new Promise((resolve) => setTimeout(resolve));
  rested = performance.now();
}

const product = (numbers) => numbers.reduce((a, b) => a * b, 1);

/** An exported flow. */
export class Flow {
  constructor(compiled) {
    this.compiled = compiled;
  }

  static async load(url) {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`${url}: ${response.status}`);
    const bytes = new Uint8Array(await response.arrayBuffer());
    return new Flow(await litert.loadAndCompile(bytes, { accelerator: "wasm" }));
  }

  /**
   * Runs a signature on n rows, however many the file takes at a time.
   *
   * @param signature its name: log_prob, sample, encode, decode or interpolate.
   * @param inputs numbers by the inputs' names, row by row.
   * @returns Float32Array of its only output, row by row.
   */
  async run(signature, inputs) {
    const runner = this.compiled.signatures[signature];
    const details = runner.getInputDetails();
    const size = details[0].shape[0];
    const widths = details.map(({ shape }) => product(shape.slice(1)));
    const n = inputs[details[0].name].length / widths[0];
    let result;
    for (let from = 0; from < n; from += size) {
      await rest();
      const rows = Math.min(size, n - from);
      const tensors = {};
      details.forEach(({ name, shape, dtype }, i) => {
        const width = widths[i];
        const block = dtype === "int32" ? new Int32Array(size * width) : new Float32Array(size * width);
        for (let row = 0; row < size; row++) {
          // The last row again fills up the batch: any other number might be none that the flow takes.
          const start = (from + Math.min(row, rows - 1)) * width;
          for (let j = 0; j < width; j++) block[row * width + j] = inputs[name][start + j];
        }
        tensors[name] = new litert.Tensor(block, [...shape]);
      });
      const outputs = await runner.run(tensors);
      const output = Object.values(outputs)[0];
      const numbers = output.toTypedArray();
      const width = numbers.length / size;
      result ??= new Float32Array(n * width);
      result.set(numbers.subarray(0, rows * width), from * width);
      // Their memory is not the browser's to collect.
      for (const tensor of [...Object.values(tensors), ...Object.values(outputs)]) tensor.delete();
    }
    return result;
  }

  logProb(x, context) {
    return this.run("log_prob", { x, context });
  }

  encode(x, context) {
    return this.run("encode", { x, context });
  }

  decode(z, context) {
    return this.run("decode", { z, context });
  }

  /** Draws n rows, the same ones each time. */
  sample(n) {
    return this.run("sample", { seed: Array.from({ length: n }, (_, i) => i), temperature: new Float32Array(n).fill(1) });
  }
}
