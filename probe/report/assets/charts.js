// What all charts share: elements, numbers, scales, shades, tooltips, redrawing.

const NS = Object.assign(document.createElement("div"), { innerHTML: "<svg></svg>" })
  .firstChild.namespaceURI;
const $ = (id) => document.getElementById(id);

/** An SVG element with attributes; children are elements or text. */
function draw(name, attributes = {}, ...children) {
  const element = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined) continue;
    if (key === "fill" && name === "rect") element.style.fill = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

/** A number with three digits that matter and a true minus sign. */
function number(value) {
  if (value === null || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  let text;
  if (size === 0) text = "0";
  else if (size < 1e-3 || size >= 1e6) {
    const [digits, power] = size.toExponential(1).split("e");
    const raised = [...String(Number(power))].map((c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c] ?? "⁻").join("");
    text = `${digits} × 10${raised}`;
  } else {
    const decimals = Math.max(0, 2 - Math.floor(Math.log10(size)));
    text = size.toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
  }
  return value < 0 ? `−${text}` : text;
}

/** Round values that span [low, high], about `count` of them. */
function ticks(low, high, count = 5) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(i * step);
  return found.map((value) => ({
    at: value,
    text: (Math.abs(value) < step / 1e6 ? "0" : String(+value.toPrecision(6))).replace("-", "−"),
  }));
}

/** Every n-th of a list of labels, so that about `most` remain, as ticks at their places. */
function thinned(labels, most) {
  const step = Math.ceil(labels.length / most);
  return labels.map((text, at) => ({ at, text: String(text) })).filter((_, i) => i % step === 0);
}

/** Map [low, high] to [from, to]; logarithmic if asked. */
function scale(low, high, from, to, log = false) {
  const f = log ? Math.log : (x) => x;
  const width = f(high) - f(low) || 1;
  return (value) => from + ((f(value) - f(low)) / width) * (to - from);
}

/** Smallest and largest of all finite numbers in nested lists. */
function extent(...lists) {
  const flat = lists.flat(Infinity).filter((x) => Number.isFinite(x));
  return flat.length ? [flat.reduce((a, b) => Math.min(a, b)), flat.reduce((a, b) => Math.max(a, b))] : [0, 1];
}

/** CSS colour of a share of the scale, -1 (takes away) to 1 (adds). */
function shade(share) {
  if (!Number.isFinite(share)) return "var(--wash)";
  const [mid, high] = share < 0 ? ["var(--cold-mid)", "var(--cold-high)"] : ["var(--heat-mid)", "var(--heat-high)"];
  const size = Math.min(Math.abs(share), 1) * 200;
  return size < 100
    ? `color-mix(in oklab, ${mid} ${size.toFixed(1)}%, var(--heat-low))`
    : `color-mix(in oklab, ${high} ${(size - 100).toFixed(1)}%, ${mid})`;
}

/** Charts are drawn at the width they have, and again when it changes. */
const drawn = new Map();
function chart(id, paint) {
  const box = $(id);
  const redraw = () => {
    const focused = box.contains(document.activeElement);
    box.replaceChildren(...[paint(Math.max(box.clientWidth, 240))].flat());
    if (focused) box.querySelector("[tabindex]")?.focus();
  };
  drawn.set(id, redraw);
  redraw();
}
let waiting = 0;
let seen = 0;
new ResizeObserver(() => {
  if (document.body.clientWidth === seen) return;
  seen = document.body.clientWidth;
  cancelAnimationFrame(waiting);
  waiting = requestAnimationFrame(() => drawn.forEach((redraw) => redraw()));
}).observe(document.body);

/** An SVG of a size that shrinks with its column and says what it shows. */
function canvas(width, height, about) {
  return draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": about });
}

/** Key to the series of a chart: swatches and names in one line above it. */
function key(entries) {
  const list = Object.assign(document.createElement("p"), { className: "key" });
  for (const { name, className, swatch } of entries) {
    const picture = draw("svg", { viewBox: "0 0 26 12", width: 26, height: 12, class: className });
    picture.append(...swatch());
    const item = document.createElement("span");
    item.append(picture, name);
    list.append(item);
  }
  return list;
}

/** Tooltips: any element with data-tip, under the pointer or focused. */
function tips() {
  const tip = $("tip");
  const show = (target, x, y) => {
    tip.textContent = target.dataset.tip;
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - width - 8))}px`;
    tip.style.top = `${y + height + 24 > innerHeight ? y - height - 10 : y + 16}px`;
  };
  const hide = () => (tip.hidden = true);
  const at = (event) => event.target.closest?.("[data-tip]");
  document.addEventListener("pointermove", (event) => {
    const target = at(event);
    if (target) show(target, event.clientX, event.clientY);
    else hide();
  });
  document.addEventListener("focusin", (event) => {
    const target = at(event);
    if (!target) return hide();
    const box = target.getBoundingClientRect();
    show(target, box.left, box.bottom - 10);
  });
  document.addEventListener("scroll", hide, { passive: true });
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
}
