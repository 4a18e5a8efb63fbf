// ---- pointers

const DRAG = 6; // pixels of the screen, from which on a click is a drag
const STEP = 1 / 100; // of the longer side, that an arrow key moves the cross
const TOOLS = { o: "object", "+": "object", b: "background", "-": "background", x: "box" };

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
