// The page around segment.js: a picture, clicks, and what is seen of the answer.
import { decode, encode, openModel, readOut, workingSize } from "./segment.js";

const MASK = [30, 144, 255];
// stops of a perceptually uniform map, from certain to a coin toss
const MAP = [[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]];
const [view, status, file, label, show, undo, saveMask, saveUncertainty] = [
  "view", "status", "file", "label", "show", "undo", "save-mask", "save-uncertainty",
].map((id) => document.getElementById(id));
const context = view.getContext("2d", { willReadFrequently: true });

let model = null;
let image = null; // encoded, with the picture to draw
let clicks = [];
let answers = []; // after each click, with what was read out
let busy = false;

/** One thing at a time; what goes wrong is said. */
async function work(words, action) {
  if (busy) return;
  busy = true;
  status.textContent = words;
  try {
    await action();
  } catch (error) {
    status.textContent = `That did not work: ${error.message}`;
  } finally {
    busy = false;
  }
}

function draw() {
  if (!image) return;
  context.drawImage(image.picture, 0, 0, image.width, image.height);
  const answer = answers.at(-1);
  for (const button of [undo, saveMask, saveUncertainty]) button.disabled = !answer;
  if (!answer) {
    status.textContent = "Click on an object.";
    return;
  }
  const shown = context.getImageData(0, 0, image.width, image.height);
  for (let i = 0; i < answer.mask.length; i++) {
    if (show.value !== "uncertainty" && answer.mask[i]) blend(shown.data, i, MASK, 0.4);
    if (show.value !== "mask") blend(shown.data, i, colour(answer.uncertainty[i]), answer.uncertainty[i]);
  }
  context.putImageData(shown, 0, 0);
  for (const { x, y, label } of clicks) mark(x, y, label);
  const area = answer.mask.reduce((sum, inside) => sum + inside, 0);
  const doubt = answer.uncertainty.reduce((sum, bits) => sum + bits, 0) / answer.uncertainty.length;
  status.textContent =
    `Predicted IoU ${answer.iou.toFixed(2)}, ${area} pixels, ${doubt.toFixed(3)} bit of uncertainty a pixel. ` +
    "Click again where it is wrong.";
}

function blend(data, i, [red, green, blue], share) {
  data[4 * i] += (red - data[4 * i]) * share;
  data[4 * i + 1] += (green - data[4 * i + 1]) * share;
  data[4 * i + 2] += (blue - data[4 * i + 2]) * share;
}

function colour(bits) {
  const place = Math.min(bits, 1) * (MAP.length - 1);
  const first = Math.min(Math.floor(place), MAP.length - 2);
  return MAP[first].map((value, channel) => value + (MAP[first + 1][channel] - value) * (place - first));
}

function mark(x, y, label) {
  const size = Math.max(4, image.width / 150);
  context.beginPath();
  context.arc(x, y, size, 0, 2 * Math.PI);
  context.fillStyle = label ? "#fff" : "#000";
  context.strokeStyle = label ? "#000" : "#fff";
  context.lineWidth = size / 3;
  context.fill();
  context.stroke();
}

async function open(chosen) {
  const picture = await createImageBitmap(chosen);
  const [width, height] = workingSize(picture.width, picture.height);
  image = null;
  [clicks, answers] = [[], []];
  image = { ...(await encode(model, picture, width, height)), picture };
  [view.width, view.height] = [width, height];
  draw();
}

async function click(x, y) {
  const said = [...clicks, { x, y, label: Number(label.value) }];
  const answer = await decode(model, image, said, answers.at(-1));
  answers.push({ ...answer, ...readOut(model, image, answer) });
  clicks = said;
  draw();
}

async function save(name, grey) {
  const canvas = new OffscreenCanvas(image.width, image.height);
  const pixels = new ImageData(image.width, image.height);
  for (let i = 0; i < grey.length; i++) pixels.data.set([grey[i], grey[i], grey[i], 255], 4 * i);
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await canvas.convertToBlob());
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

file.addEventListener("change", () => file.files.length && work("Looking at the picture …", () => open(file.files[0])));
view.addEventListener("click", (event) => {
  if (!image) return;
  const box = view.getBoundingClientRect();
  const x = Math.floor(((event.clientX - box.left) * image.width) / box.width);
  const y = Math.floor(((event.clientY - box.top) * image.height) / box.height);
  work("Looking for the object …", () => click(Math.min(Math.max(x, 0), image.width - 1), Math.min(Math.max(y, 0), image.height - 1)));
});
show.addEventListener("change", draw);
undo.addEventListener("click", () => {
  if (busy) return;
  clicks.pop();
  answers.pop();
  draw();
});
saveMask.addEventListener("click", () => save("mask.png", answers.at(-1).mask.map((inside) => 255 * inside)));
saveUncertainty.addEventListener("click", () => save("uncertainty.png", answers.at(-1).uncertainty.map((bits) => Math.round(255 * bits))));

work("Loading the model …", async () => {
  const { ort } = globalThis;
  ort.env.wasm.wasmPaths = new URL("ort/", location.href).href;
  // more than one thread needs a page that its server isolates from others
  ort.env.wasm.numThreads = crossOriginIsolated ? navigator.hardwareConcurrency : 1;
  model = await openModel(ort, "model");
  file.disabled = false;
  status.textContent = "Ready: choose a picture. The network is not needed any more.";
});
