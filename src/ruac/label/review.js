"use strict";

// names and labels are only ever set as text, so that none of them can become markup
const data = JSON.parse(document.getElementById("data").textContent);
const STORE = `ruac review ${data.run}`;
const WORDS = { accepted: "✓ accepted", rejected: "✗ rejected" };
const COLUMNS = ["decision", "image", "object", "annotation", "category", "expected_iou", "mean_uncertainty", "score", "reason"];
const byId = (id) => document.getElementById(id);
const filters = { text: byId("text"), state: byId("state"), category: byId("category"), low: byId("low"), high: byId("high") };

let decisions = {};
let chosen = [];
let page = 0;

function restore() {
  try {
    decisions = JSON.parse(localStorage.getItem(STORE)) || {};
  } catch {
    byId("unkept").hidden = false;
  }
}

function keep() {
  try {
    localStorage.setItem(STORE, JSON.stringify(decisions));
  } catch {
    byId("unkept").hidden = false;
  }
}

function make(name, text = "", attributes = {}) {
  const element = document.createElement(name);
  element.textContent = text;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function matches(item) {
  const decision = decisions[item.key] || "undecided";
  const text = `${item.image} ${item.category} ${item.reason}`.toLowerCase();
  const state = filters.state.value;
  return (
    (state === "all" || (state === "review" ? item.review : state === decision)) &&
    (!filters.category.value || item.category === filters.category.value) &&
    item.expected_iou >= Number(filters.low.value) &&
    item.expected_iou <= Number(filters.high.value || 1) &&
    text.includes(filters.text.value.trim().toLowerCase())
  );
}

function choose() {
  chosen = data.items.filter(matches);
  page = 0;
  draw();
}

function draw() {
  const start = page * data.page;
  const here = chosen.slice(start, start + data.page);
  byId("cards").replaceChildren(...here.map(card));
  const pages = Math.max(1, Math.ceil(chosen.length / data.page));
  byId("found").textContent = chosen.length
    ? `${chosen.length} of ${data.items.length} masks, the worst first; here ${start + 1} to ${start + here.length}.`
    : `None of the ${data.items.length} masks fits. Choose “all masks”, or clear the search.`;
  byId("where").textContent = `Page ${page + 1} of ${pages}`;
  byId("previous").disabled = page === 0;
  byId("next").disabled = page + 1 >= pages;
  count();
}

function card(item) {
  const name = `${item.image}, object ${item.object}`;
  const element = make("article", "", { class: "card", tabindex: "0", "aria-label": `${name}, ${item.category}`, "data-key": item.key });
  const picture = make("div", "", { class: "picture" });
  const image = make("img", "", { alt: `Outline and uncertainty of ${name}`, decoding: "async", loading: "lazy" });
  image.src = `data:image/jpeg;base64,${item.thumbnail}`;
  picture.append(image);
  const head = make("div", "", { class: "head" });
  head.append(make("h2", `${item.image} · ${item.category} ${item.object}`), make("span", "", { class: "state" }));
  const meter = make("div", "", { class: "meter" });
  const track = make("i");
  const fill = make("b");
  fill.style.width = `${100 * item.expected_iou}%`;
  track.append(fill);
  meter.append(make("span", "expected IoU"), track, make("strong", item.expected_iou.toFixed(2)));
  const [x, y, kind] = item.next_click;
  const facts = `No. ${item.rank} · ${item.mean_uncertainty.toFixed(2)} bit around it · predicted IoU ${item.score.toFixed(2)} · next click ${x}, ${y} as ${kind ? "object" : "background"}${item.guaranteed === false ? " · no guarantee" : ""}`;
  const buttons = make("div", "", { class: "buttons" });
  buttons.append(button(item, "accepted", "✓ Accept", "A", "yes"), button(item, "rejected", "✗ Reject", "R", "no"));
  element.append(picture, head, meter, make("p", item.reason.charAt(0).toUpperCase() + item.reason.slice(1), { class: "reason" }), make("p", facts, { class: "facts" }), buttons);
  mark(element, item.key);
  return element;
}

function button(item, decision, text, key, name) {
  const element = make("button", `${text} `, { type: "button", class: name, "data-decision": decision });
  element.append(make("kbd", key));
  element.addEventListener("click", () => decide(item.key, decisions[item.key] === decision ? null : decision));
  return element;
}

function mark(element, key) {
  const decision = decisions[key];
  element.classList.toggle("accepted", decision === "accepted");
  element.classList.toggle("rejected", decision === "rejected");
  element.querySelector(".state").textContent = WORDS[decision] || "";
  for (const each of element.querySelectorAll("button")) each.setAttribute("aria-pressed", String(each.dataset.decision === decision));
}

function decide(key, decision) {
  if (decision) decisions[key] = decision;
  else delete decisions[key];
  keep();
  for (const element of cards()) if (element.dataset.key === key) mark(element, key);
  byId("said").textContent = decision || "undecided";
  count();
}

function count() {
  const wanted = data.items.filter((item) => item.review);
  const done = wanted.filter((item) => decisions[item.key]).length;
  byId("count").textContent = `${done} of ${wanted.length} for review decided`;
  byId("progress").max = Math.max(1, wanted.length);
  byId("progress").value = done;
}

const cards = () => [...byId("cards").children];
const current = () => document.activeElement.closest(".card");

function turn(step) {
  const pages = Math.ceil(chosen.length / data.page);
  if (page + step < 0 || page + step >= pages) return false;
  page += step;
  draw();
  scrollTo({ top: 0 });
  cards()[0].focus({ preventScroll: true });
  return true;
}

function move(step) {
  const every = cards();
  const at = every.indexOf(current());
  const to = at < 0 ? 0 : at + step;
  if (every[to]) every[to].focus();
  else if (to >= every.length) turn(1);
  else if (turn(-1)) cards().at(-1).focus();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const decisive = { a: "accepted", r: "rejected", u: null };
  const key = event.key.toLowerCase();
  if (key in decisive && current()) {
    decide(current().dataset.key, decisive[key]);
    if (decisive[key]) move(1);
  } else if (key in decisive || key === "arrowright" || key === "j") move(key in decisive ? 0 : 1);
  else if (key === "arrowleft" || key === "k") move(-1);
  else if (key === "n") turn(1);
  else if (key === "p") turn(-1);
  else if (key === "/") filters.text.focus();
  else return;
  event.preventDefault();
}

function decided() {
  return data.items
    .filter((item) => decisions[item.key])
    .map((item) => Object.fromEntries(COLUMNS.map((name) => [name, name === "decision" ? decisions[item.key] : item[name]])));
}

function cell(value) {
  // a spreadsheet would take these for formulas
  const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function save(name, type, text) {
  const link = make("a", "", { download: name, href: URL.createObjectURL(new Blob([text], { type })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

for (const name of data.categories) filters.category.append(make("option", name, { value: name }));
for (const filter of Object.values(filters)) filter.addEventListener("input", choose);
byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("previous").addEventListener("click", () => turn(-1));
byId("next").addEventListener("click", () => turn(1));
byId("json").addEventListener("click", () => save("decisions.json", "application/json", `${JSON.stringify(decided(), null, 2)}\n`));
byId("csv").addEventListener("click", () => {
  const rows = [COLUMNS, ...decided().map((row) => COLUMNS.map((name) => row[name]))];
  save("decisions.csv", "text/csv", rows.map((row) => `${row.map(cell).join(",")}\n`).join(""));
});
document.addEventListener("keydown", onKey);
restore();
if (!data.items.some((item) => item.review)) filters.state.value = "all";
choose();
