// From pixels and clicks to a mask and its uncertainty: no DOM in here but for a canvas that resizes.

// largest side of a picture that is worked on, in pixels
const LARGEST = 2048;

/** The model in a folder that `ruac export` wrote. `ort`: onnxruntime-web. */
export async function openModel(ort, folder) {
  const about = await (await get(`${folder}/ruac-onnx.json`)).json();
  if (about.format !== "ruac-onnx-1") throw new Error(`${folder} is no exported model of this kind`);
  const [encoder, decoder] = await Promise.all(
    ["encoder", "decoder"].map(async (name) => {
      const graph = new Uint8Array(await (await get(`${folder}/${name}.onnx`)).arrayBuffer());
      return ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
    }),
  );
  return { ort, about, encoder, decoder };
}

async function get(address) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`${address}: ${response.status}`);
  return response;
}

/** Width and height that a picture is shown and segmented at. */
export function workingSize(width, height) {
  const scale = Math.min(1, LARGEST / Math.max(width, height));
  return [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
}

/** Encode a picture, whatever a canvas can draw, once for all clicks. */
export async function encode(model, picture, width, height) {
  const { side, grid, fit, grey } = model.about;
  const stride = side / grid;
  const fitted = (n) => Math.max(stride, Math.min(side, Math.round((n * side) / Math.max(width, height) / stride) * stride));
  const inside = fit === "pad" ? [fitted(width), fitted(height)] : [side, side];
  const canvas = new OffscreenCanvas(side, side);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = `rgb(${grey} ${grey} ${grey})`;
  context.fillRect(0, 0, side, side);
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, inside[0], inside[1]);
  const rgba = context.getImageData(0, 0, side, side).data;
  const pixels = new Uint8Array(3 * side * side);
  for (let i = 0, plane = side * side; i < plane; i++) {
    for (let channel = 0; channel < 3; channel++) pixels[channel * plane + i] = rgba[4 * i + channel];
  }
  const levels = await model.encoder.run({ pixels: new model.ort.Tensor("uint8", pixels, [1, 3, side, side]) });
  return { levels, inside, width, height };
}

/** The mask of all clicks {x, y, label} together; `before`: the answer to all but the last of them, if there is one. */
export async function decode(model, image, clicks, before) {
  const { Tensor } = model.ort;
  const { grid } = model.about;
  const scale = [image.inside[0] / image.width, image.inside[1] / image.height];
  const points = clicks.flatMap(({ x, y }) => [(x + 0.5) * scale[0] - 0.5, (y + 0.5) * scale[1] - 0.5]);
  const found = await model.decoder.run({
    ...image.levels,
    points: new Tensor("float32", points, [1, clicks.length, 2]),
    labels: new Tensor("int32", clicks.map(({ label }) => label), [1, clicks.length]),
    mask_input: new Tensor("float32", before?.prompt ?? new Float32Array(grid * grid), [1, grid, grid]),
  });
  const chosen = Number(found.chosen.data[0]);
  const cells = grid * grid;
  const of = (name) => found[name].data.slice(chosen * cells, (chosen + 1) * cells);
  const [mean, gain] = [of("mean"), found.gain.data[chosen]];
  return { mean, variance: of("variance"), prompt: mean.map((logit) => logit / gain), iou: found.iou.data[chosen] };
}

/** What the moments of the logits say at the picture's size: mask of 0 and 1, and entropy in bits, of every pixel. */
export function readOut(model, image, answer) {
  const { side, grid } = model.about;
  const { width, height } = image;
  const cells = image.inside.map((n) => (n * grid) / side);
  const columns = places(width, cells[0]);
  const rows = places(height, cells[1]);
  const mask = new Uint8Array(width * height);
  const uncertainty = new Float32Array(width * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const mean = between(answer.mean, grid, rows[y], columns[x]);
      const variance = between(answer.variance, grid, rows[y], columns[x]);
      const i = y * width + x;
      mask[i] = mean > 0 ? 1 : 0;
      uncertainty[i] = entropy(mean / Math.sqrt(1 + (Math.PI / 8) * variance));
    }
  }
  return { mask, uncertainty };
}

/** Of each pixel along a side: the cell before its centre, the one after, and how far it is between them. */
function places(pixels, cells) {
  return Array.from({ length: pixels }, (_, i) => {
    const place = Math.max(0, ((i + 0.5) * cells) / pixels - 0.5);
    const first = Math.floor(place);
    return [first, Math.min(first + 1, cells - 1), place - first];
  });
}

function between(values, stride, [top, bottom, down], [left, right, along]) {
  const above = values[top * stride + left] * (1 - along) + values[top * stride + right] * along;
  const below = values[bottom * stride + left] * (1 - along) + values[bottom * stride + right] * along;
  return above * (1 - down) + below * down;
}

function entropy(logit) {
  const size = Math.abs(logit);
  const tail = Math.exp(-size);
  return (Math.log1p(tail) + (size * tail) / (1 + tail)) / Math.LN2;
}
