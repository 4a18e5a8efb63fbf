// ---- buttons

const FILES = {
  ".mask.png": "Mask (PNG)",
  ".uncertainty.png": "Uncertainty (16 bit)",
  ".overlay.png": "Overlay (PNG)",
  ".json": "Summary (JSON)",
  ".coco.json": "COCO (JSON)",
  ".inner.png": "Inner mask (PNG)",
  ".outer.png": "Outer mask (PNG)",
};

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
  const row = make("div", "", { class: "row", "data-layer": layer.name });
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
