"use strict";

// names of files and models are only ever set as text, so that none of them can become markup
const find = (selector) => element.querySelector(selector);
const SVG = "http://www.w3.org/2000/svg";
const DRAG = 6; // pixels of the screen, from which on a click is a drag
const SLOW = 150; // milliseconds, from which on waiting is shown
const STEP = 1 / 100; // of the longer side, that an arrow key moves the cross
const TOOLS = { o: "object", "+": "object", b: "background", "-": "background", x: "box" };
const LAYERS = [
  { name: "mask", label: "Mask", shown: true, opacity: 30, key: "flat" },
  { name: "uncertainty", label: "Uncertainty", shown: true, opacity: 90, key: "scale", ends: ["sure", "coin toss"] },
  { name: "probability", label: "Probability", shown: false, opacity: 80, key: "scale", ends: ["0", "1"] },
  { name: "band", label: "Error band", shown: false, opacity: 60, key: "flat" },
];
const FILES = {
  ".mask.png": "Mask (PNG)",
  ".uncertainty.png": "Uncertainty (16 bit)",
  ".overlay.png": "Overlay (PNG)",
  ".json": "Summary (JSON)",
  ".coco.json": "COCO (JSON)",
  ".inner.png": "Inner mask (PNG)",
  ".outer.png": "Outer mask (PNG)",
};
const secret = Array.from(crypto.getRandomValues(new Uint8Array(16)), (n) => n.toString(16).padStart(2, "0")).join("");
const stage = find(".stage");
const frame = find(".frame");
const svg = find("svg");

let picture = null; // name, width, height
let answer = null;
let tool = "object";
let cross = null; // [x, y], where the keyboard is
let corner = null; // [x, y], where a box by keyboard starts
let drag = null; // where a pointer went down, and the box it draws
let pending = null; // a click or box that is not answered yet
let last = Promise.resolve();

function make(name, text = "", attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function draw(name, attributes, text = "") {
  const made = document.createElementNS(SVG, name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  svg.append(made);
  return made;
}

// ---- talking to the server: one request after the other, so that answers come in the order of the clicks

function ask(action, words = {}) {
  const done = last.then(() => send(action, words));
  last = done.catch(() => {});
  return done;
}

async function send(action, words) {
  const slow = setTimeout(() => (find(".spinner").hidden = false), SLOW);
  stage.setAttribute("aria-busy", "true");
  complain("");
  try {
    const reply = await server.ask({ secret, action, ...words });
    if (reply.error) throw new Error(reply.error);
    await take(reply);
    return reply;
  } catch (error) {
    pending = null;
    complain(error.message);
    mark();
    throw error;
  } finally {
    clearTimeout(slow);
    find(".spinner").hidden = true;
    stage.setAttribute("aria-busy", "false");
  }
}

async function take(reply) {
  if (reply.picture) show(reply.picture);
  if (reply.files) offer(reply.files);
  if ("answer" in reply) {
    pending = null;
    answer = reply.answer;
    await refresh();
  }
}

function complain(message) {
  find(".error").hidden = !message;
  find(".error").textContent = message;
}

// ---- pictures

async function openFile(file) {
  if (file.size > props.max_bytes) {
    complain(`${file.name}: over the limit of ${props.max_bytes / 2 ** 20} MB; scale the picture down`);
    return;
  }
  close();
  try {
    const { path } = await upload(file);
    await open("upload", { path, name: file.name });
  } catch (error) {
    stage.setAttribute("aria-busy", "false");
    if (find(".error").hidden) complain(`${file.name}: could not be uploaded (${error.message || error})`);
  }
}

function close() {
  picture = answer = pending = drag = corner = cross = null;
  stage.setAttribute("aria-busy", "true");
  stage.setAttribute("aria-label", "No picture yet");
  complain("");
  frame.hidden = true;
  find(".empty").hidden = false;
  refresh();
}

const open = (action, words) => {
  close();
  return ask(action, { ...words, model: find(".model select").value }).catch(() => {});
};

function show(opened) {
  picture = opened;
  find(".photo").src = opened.url;
  for (const layer of element.querySelectorAll(".layer")) layer.removeAttribute("src");
  frame.style.setProperty("--ratio", opened.width / opened.height);
  svg.setAttribute("viewBox", `0 0 ${opened.width} ${opened.height}`);
  frame.hidden = false;
  find(".empty").hidden = true;
  stage.setAttribute("aria-label", `${opened.name}, ${opened.width} by ${opened.height} pixels`);
}

// ---- what the answer says

async function refresh() {
  const said = Boolean(answer);
  find(".undo").disabled = find(".clear").disabled = !said;
  find(".masks").hidden = find(".files").hidden = find(".suggest").hidden = find(".legend").hidden = !said;
  find(".promise").hidden = find(".bounds").hidden = !(said && answer.promise);
  find(".status").textContent = !picture
    ? ""
    : said
      ? `${picture.name}: ${answer.points.length} ${answer.points.length === 1 ? "click" : "clicks"}${answer.box ? " and a box" : ""}`
      : `${picture.name}: click on an object, or drag a box around it`;
  find(".summary").textContent = said ? answer.summary : picture ? "Click on an object to see." : "Choose a picture, then click on an object.";
  if (said) {
    tell();
    await Promise.all(
      LAYERS.map(async ({ name }) => {
        const image = find(`.layer[data-layer="${name}"]`);
        image.src = answer.layers[name];
        await image.decode();
      }),
    );
  }
  layers();
  mark();
}

function tell() {
  const rows = answer.legend.map((row) => {
    const line = make("tr");
    const shade = make("td", "", { class: "shade" });
    const swatch = make("span");
    swatch.style.background = row.colour;
    shade.append(swatch, row.name);
    line.append(shade, make("td", row.words), make("td", percent(row.share)));
    return line;
  });
  find(".legend tbody").replaceChildren(...rows);
  find(".promise").textContent = answer.promise || "";
  [find(".bounds .outer").textContent, find(".bounds .inner").textContent] = answer.bounds || ["", ""];
  const wrong = answer.suggestion.label ? "background" : "object";
  find(".suggest p").textContent = `At the ? the mask says ${wrong}. If that is wrong, this click helps most.`;
  find(".take").textContent = `Take it: ${answer.suggestion.label ? "+ object" : "\u2212 background"}`;
  const masks = answer.candidates.map((candidate, number) => {
    const line = make("tr", "", number === answer.chosen ? { class: "chosen" } : {});
    const label = make("label");
    const input = make("input", "", { type: "radio", name: `candidate-${secret}`, value: number });
    input.checked = number === answer.chosen;
    input.addEventListener("change", () => ask("choose", { candidate: number }).catch(() => {}));
    label.append(input, number ? `Other ${number}` : "Model's choice");
    const first = make("td");
    first.append(label);
    line.append(first, make("td", candidate.score.toFixed(2)), make("td", candidate.expected_iou.toFixed(2)), make("td", percent(candidate.area)));
    return line;
  });
  const focused = element.contains(document.activeElement) && document.activeElement.name === `candidate-${secret}`;
  find(".masks tbody").replaceChildren(...masks);
  if (focused) find(`.masks input[value="${answer.chosen}"]`).focus();
}

const percent = (share) => (share > 0 && share < 0.001 ? "< 0.1 %" : `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`);

function layers() {
  for (const layer of LAYERS) {
    const image = find(`.layer[data-layer="${layer.name}"]`);
    image.hidden = !(layer.shown && answer);
    image.style.opacity = layer.opacity / 100;
  }
}

// ---- what is drawn over the picture, in its own pixels

function mark() {
  svg.replaceChildren();
  if (!picture || frame.hidden) return;
  const unit = picture.width / (frame.clientWidth || picture.width); // a pixel of the screen
  if (answer) {
    outline(answer.outlines.mask, unit, "mask");
    if (answer.outlines.outer !== undefined) {
      outline(answer.outlines.outer, unit, "outer");
      outline(answer.outlines.inner, unit, "inner");
    }
    box(answer.box, unit, "");
    const { x, y } = answer.suggestion;
    sign(x, y, "?", "ask", unit);
    for (const [px, py, label] of answer.points) sign(px, py, label ? "+" : "\u2212", label ? "plus" : "minus", unit);
  }
  if (pending?.box) box(pending.box, unit, "pending");
  else if (pending) sign(pending.x, pending.y, pending.label ? "+" : "\u2212", pending.label ? "plus pending" : "minus pending", unit);
  if (drag?.box) box(drag.box, unit, "pending");
  if (corner && cross) box([...corner, cross[0] + 1, cross[1] + 1], unit, "pending");
  if (cross && document.activeElement === stage) aim(unit);
}

function outline(path, unit, kind) {
  draw("path", { d: path, class: `${kind} under`, "stroke-width": 4 * unit });
  const line = draw("path", { d: path, class: kind, "stroke-width": 1.8 * unit });
  if (kind === "outer") line.setAttribute("stroke-dasharray", `${7 * unit} ${5 * unit}`);
}

function box(corners, unit, kind) {
  if (!corners) return;
  const [x0, y0, x1, y1] = corners;
  const place = { x: Math.min(x0, x1), y: Math.min(y0, y1), width: Math.abs(x1 - x0), height: Math.abs(y1 - y0) };
  draw("rect", { ...place, class: "box under", "stroke-width": 5 * unit });
  draw("rect", { ...place, class: `box ${kind}`, "stroke-width": 2.5 * unit });
}

function sign(x, y, text, kind, unit) {
  const at = { x: x + 0.5, y: y + 0.5 };
  draw("circle", { cx: at.x, cy: at.y, r: 10 * unit, class: `sign ${kind}`, "stroke-width": 2 * unit });
  draw("text", { ...at, class: `sign ${kind}`, "font-size": 16 * unit, dy: 5.5 * unit, "text-anchor": "middle" }, text);
}

function aim(unit) {
  const [x, y] = [cross[0] + 0.5, cross[1] + 0.5];
  const arm = 16 * unit;
  for (const kind of ["cross under", "cross"]) {
    const width = (kind === "cross" ? 1.5 : 4) * unit;
    draw("path", { d: `M${x - arm} ${y}H${x + arm}M${x} ${y - arm}V${y + arm}`, class: kind, "stroke-width": width });
  }
}

// ---- pointers

function place(event) {
  const area = frame.getBoundingClientRect();
  const x = ((event.clientX - area.left) / area.width) * picture.width;
  const y = ((event.clientY - area.top) / area.height) * picture.height;
  return [Math.min(Math.max(x, 0), picture.width), Math.min(Math.max(y, 0), picture.height)];
}

function pixel([x, y]) {
  return [Math.min(Math.floor(x), picture.width - 1), Math.min(Math.floor(y), picture.height - 1)];
}

function click(x, y, label) {
  pending = { x, y, label };
  mark();
  ask("click", { x, y, label }).catch(() => {});
}

function drawBox(corners) {
  pending = { box: corners };
  mark();
  ask("box", { box: corners }).catch(() => {});
}

frame.addEventListener("pointerdown", (event) => {
  if (!picture || (event.button !== 0 && event.button !== 2)) return;
  drag = { from: place(event), at: [event.clientX, event.clientY], button: event.button, box: null };
  frame.setPointerCapture(event.pointerId);
  stage.focus({ preventScroll: true });
  event.preventDefault();
});

frame.addEventListener("pointermove", (event) => {
  if (!drag || drag.button !== 0 || (event.pointerType === "touch" && tool !== "box")) return;
  if (!drag.box && Math.hypot(event.clientX - drag.at[0], event.clientY - drag.at[1]) < DRAG) return;
  drag.box = [...drag.from, ...place(event)];
  mark();
});

frame.addEventListener("pointerup", (event) => {
  if (!drag) return;
  const { from, button, box: corners } = drag;
  drag = null;
  if (corners) {
    if (corners[0] !== corners[2] && corners[1] !== corners[3]) drawBox(corners);
    else mark();
  } else if (tool !== "box" || button === 2) {
    click(...pixel(from), button === 2 || tool === "background" ? 0 : 1);
  } else {
    find(".status").textContent = "Drag from one corner of the box to the other";
  }
  event.preventDefault();
});

frame.addEventListener("pointercancel", () => {
  drag = null;
  mark();
});
frame.addEventListener("contextmenu", (event) => event.preventDefault());

// ---- keys

function choose(name) {
  tool = name;
  corner = null;
  stage.dataset.tool = name;
  for (const button of element.querySelectorAll("[data-tool]")) {
    if (button !== stage) {
      button.setAttribute("aria-checked", String(button.dataset.tool === name));
      button.tabIndex = button.dataset.tool === name ? 0 : -1;
    }
  }
  mark();
}

function press() {
  if (tool !== "box") {
    click(...cross, tool === "background" ? 0 : 1);
  } else if (!corner) {
    corner = [...cross];
    find(".status").textContent = "Now move to the opposite corner and press Enter";
    mark();
  } else {
    const xs = [corner[0], cross[0]].sort((a, b) => a - b);
    const ys = [corner[1], cross[1]].sort((a, b) => a - b);
    corner = null;
    drawBox([xs[0], ys[0], xs[1] + 1, ys[1] + 1]);
  }
}

const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const act = (button) => button.disabled || button.closest("[hidden]") || button.click();

stage.addEventListener("keydown", (event) => {
  if (!picture || event.altKey) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const known = () => event.preventDefault();
  if (event.ctrlKey || event.metaKey) {
    if (key === "z") known(act(find(".undo")));
    return;
  }
  if (moves[key]) {
    const step = Math.max(1, Math.round(Math.max(picture.width, picture.height) * STEP * (event.shiftKey ? 5 : 1)));
    const [x, y] = cross || [picture.width / 2, picture.height / 2].map(Math.floor);
    const bound = (value, end) => Math.min(Math.max(value, 0), end - 1);
    cross = cross ? [bound(x + moves[key][0] * step, picture.width), bound(y + moves[key][1] * step, picture.height)] : [x, y];
    known(mark());
  } else if (key === "Enter" || key === " ") {
    if (cross) press();
    known();
  } else if (key === "Escape" && corner) {
    corner = null;
    known(mark());
  } else if (TOOLS[key]) known(choose(TOOLS[key]));
  else if (key === "t") known(act(find(".take")));
  else if (key === "u") known(act(find(".undo")));
  else if (key === "c") known(act(find(".clear")));
  else if (LAYERS[Number(key) - 1]) known(find(`.rows input[data-layer="${LAYERS[Number(key) - 1].name}"]`).click());
});
stage.addEventListener("focus", mark);
stage.addEventListener("blur", mark);

// ---- buttons

const tools = [...element.querySelectorAll(".switch button")];
tools.forEach((button, number) => {
  button.addEventListener("click", () => choose(button.dataset.tool));
  button.addEventListener("keydown", (event) => {
    const way = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!way) return;
    const next = tools[(number + way + tools.length) % tools.length];
    choose(next.dataset.tool);
    next.focus();
    event.preventDefault();
  });
});
find(".undo").addEventListener("click", () => ask("undo").catch(() => {}));
find(".clear").addEventListener("click", () => ask("clear").catch(() => {}));
find(".take").addEventListener("click", () => ask("take").catch(() => {}));

find(".choose").addEventListener("click", () => find(".file").click());
find(".file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  event.target.value = ""; // so that the same file can be chosen again
  if (file) openFile(file);
});
stage.addEventListener("dragover", (event) => event.preventDefault());
stage.addEventListener("drop", (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (file) openFile(file);
});
stage.addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (file) openFile(file);
});

props.samples.forEach((sample, number) => {
  const button = make("button", "", { type: "button", title: sample.name, "aria-label": `Sample: ${sample.name}` });
  button.append(make("img", "", { src: sample.url, alt: "" }));
  button.addEventListener("click", () => open("sample", { number }));
  find(".samples").append(button);
});

const models = find(".model select");
models.replaceChildren(...props.models.map((name) => make("option", name, { value: name })));
find(".model").hidden = props.models.length < 2;
let model = models.value;
models.addEventListener("change", () =>
  ask("model", { model: models.value }).then(
    () => (model = models.value),
    () => (models.value = model),
  ),
);

for (const layer of LAYERS) {
  const row = make("div", "", { class: "row" });
  const label = make("label");
  const box = make("input", "", { type: "checkbox", "data-layer": layer.name });
  box.checked = layer.shown;
  box.addEventListener("change", () => {
    layer.shown = box.checked;
    layers();
  });
  label.append(box, layer.label);
  const range = make("input", "", { type: "range", min: 0, max: 100, value: layer.opacity, "aria-label": `Opacity of ${layer.label}` });
  range.addEventListener("input", () => {
    layer.opacity = Number(range.value);
    layers();
  });
  const key = make("span", "", { class: `key ${layer.key}` });
  const colours = props.colours[layer.name];
  const bar = make("span", "", { class: "bar" });
  bar.style.background = colours.length > 1 ? `linear-gradient(90deg, ${colours.join(", ")})` : colours[0];
  key.append(...(layer.ends ? [layer.ends[0], bar, layer.ends[1]] : [bar, props.words[layer.name]]));
  row.append(label, range, key);
  find(".rows").append(row);
}

function offer(kinds) {
  const buttons = kinds.map((kind) => {
    const button = make("button", FILES[kind], { type: "button", "data-kind": kind });
    button.addEventListener("click", () => ask("download", { kind }).then(({ file }) => save(file), () => {}));
    return button;
  });
  find(".files .buttons").replaceChildren(...buttons);
}

function save(file) {
  const bytes = Uint8Array.from(atob(file.content), (letter) => letter.charCodeAt(0));
  const link = make("a", "", { href: URL.createObjectURL(new Blob([bytes], { type: file.type })), download: file.name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

new ResizeObserver(mark).observe(frame);
choose("object");
refresh();
