// Predict the class of images with onnxruntime-web: the same WebAssembly that runs in a browser.
//
//   npm install
//   node predict.mjs image.png ...
//   node predict.mjs --model other.onnx image.png ...
//   node predict.mjs --check            compare the predictions for the check images with the expected ones
//
// In a browser: draw the image on a canvas and pass getImageData(...) to withoutAlpha; the rest is the same.
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import jpeg from "jpeg-js";
import * as ort from "onnxruntime-web";
import { PNG } from "pngjs";

const here = dirname(fileURLToPath(import.meta.url));
ort.env.wasm.numThreads = 1;

/** Red, green, blue of an image, with its transparent parts on white. */
export function withoutAlpha({ data, width, height }) {
  const rgb = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; from < data.length; from += 4) {
    const alpha = data[from + 3];
    for (let channel = 0; channel < 3; channel++) {
      rgb[to++] = Math.round((data[from + channel] * alpha + 255 * (255 - alpha)) / 255);
    }
  }
  return new ort.Tensor("uint8", rgb, [height, width, 3]);
}

/** Decode a PNG, or a JPEG (whose decoders differ by a few levels, and which is not turned upright here). */
function pixels(path) {
  const bytes = readFileSync(path);
  const isPng = bytes[0] === 0x89 && bytes[1] === 0x50;
  return withoutAlpha(isPng ? PNG.sync.read(bytes) : jpeg.decode(bytes, { useTArray: true }));
}

/** Name, probabilities, and novelty where the model has it (above 1: none of these). */
export async function answer(session, classes, image) {
  const found = await session.run({ image });
  const probabilities = Array.from(found.probabilities.data);
  const novelty = found.novelty ? found.novelty.data[0] : null;
  const best = probabilities.indexOf(Math.max(...probabilities));
  return { name: novelty !== null && novelty > 1 ? "none of these" : classes[best], probabilities, novelty };
}

async function main(words) {
  const options = { model: join(here, "model.onnx"), classes: join(here, "model.json"), json: false };
  const images = [];
  let check = false;
  while (words.length) {
    const word = words.shift();
    if (word === "--model") options.model = words.shift();
    else if (word === "--classes") options.classes = words.shift();
    else if (word === "--json") options.json = true;
    else if (word === "--check") check = true;
    else images.push(word);
  }
  const { classes } = JSON.parse(readFileSync(options.classes, "utf8"));
  const session = await ort.InferenceSession.create(readFileSync(options.model));
  if (check) {
    const expected = JSON.parse(readFileSync(join(here, "check.json"), "utf8"));
    for (const one of expected.images) {
      const found = await answer(session, classes, pixels(join(here, one.file)));
      const off = Math.max(...found.probabilities.map((value, at) => Math.abs(value - one.probabilities[at])));
      if (found.name !== one.name || !(off <= expected.largest_difference)) {
        console.error(`${one.file}: ${found.name}, expected ${one.name} (probabilities off by ${off})`);
        process.exit(1);
      }
    }
    console.log(`${expected.images.length} images are predicted as expected`);
  }
  for (const file of images) {
    const found = await answer(session, classes, pixels(file));
    if (options.json) console.log(JSON.stringify({ file, ...found }));
    else console.log(`${file}\t${found.name}\t${Math.max(...found.probabilities).toFixed(3)}`);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main(process.argv.slice(2));
