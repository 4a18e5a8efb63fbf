// ---- what is drawn over the picture, in its own pixels

const SVG = "http://www.w3.org/2000/svg";

function draw(name, attributes, text = "") {
  const made = document.createElementNS(SVG, name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  svg.append(made);
  return made;
}

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
