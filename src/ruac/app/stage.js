"use strict";

// marks.js, hands.js and panel.js follow this in the same scope
// names of files and models are only ever set as text, so that none of them can become markup
const find = (selector) => element.querySelector(selector);
const SLOW = 150; // milliseconds, from which on waiting is shown
const LAYERS = [
  { name: "mask", label: "Mask", shown: true, opacity: 30, key: "flat" },
  { name: "uncertainty", label: "Uncertainty", shown: true, opacity: 90, key: "scale", ends: ["sure", "coin toss"] },
  { name: "probability", label: "Probability", shown: false, opacity: 80, key: "scale", ends: ["0", "1"] },
  { name: "band", label: "Error band", shown: false, opacity: 60, key: "flat" },
];
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
    const reply = await post({ secret, action, ...words });
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

// gradio's own way to ask keeps to itself why a request was refused
async function post(data) {
  let response, text;
  try {
    const body = JSON.stringify({ data, component_id: props.part, fn_name: "ask", session_hash: "page" });
    response = await fetch("gradio_api/component_server/", { method: "POST", headers: { "Content-Type": "application/json" }, body });
    text = await response.text();
  } catch {
    throw new Error("The server did not answer: it may have been stopped, or the network is gone. Try again in a moment");
  }
  let reply = null;
  let words = response.status === 500 || text.startsWith("<") ? "" : text; // a refusal is plain text for people
  try {
    reply = JSON.parse(text);
    words = reply.error || reply.detail;
  } catch {}
  if (response.ok && reply && !reply.error) return reply;
  throw new Error(typeof words === "string" && words ? words : `The server could not do that (${response.status}); try again`);
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
  stage.setAttribute("aria-busy", "true");
  complain("");
  try {
    const { path } = await upload(file);
    await open("upload", { path, name: file.name });
  } catch (error) {
    stage.setAttribute("aria-busy", "false");
    if (find(".error").hidden) complain(`${file.name}: could not be uploaded (${error.message || error})`);
  }
}

// until it is there, and where it cannot be, the picture before stays
const open = (action, words) => ask(action, { ...words, model: find(".model select").value }).catch(() => {});

function show(opened) {
  answer = pending = drag = corner = cross = null;
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
