// Three kinds of chart: curves, bars by group, and maps of cells.

const MARKERS = {
  circle: "M-3.4 0a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0-6.8 0",
  square: "M-3 -3h6v6h-6z",
  triangle: "M0 -4L3.8 2.8H-3.8z",
  diamond: "M0 -4.2L3.8 0L0 4.2L-3.8 0z",
};
const SHAPES = Object.keys(MARKERS);

/** Axes with rules; returns the group to draw in and the two scales. */
function frame(svg, { width, height, x, y, right = 12, top = 10, bottom = 42 }) {
  const left = 32 + 7.2 * Math.max(2, ...y.ticks.map(({ text }) => text.length));
  const toX = scale(...x.span, left, width - right, x.log);
  const toY = scale(...y.span, height - bottom, top);
  const group = draw("g");
  for (const { at, text } of y.ticks) {
    group.append(
      draw("line", { class: at === 0 ? "zero" : "rule", x1: left, x2: width - right, y1: toY(at), y2: toY(at) }),
      draw("text", { class: "tick", x: left - 8, y: toY(at) + 4, "text-anchor": "end" }, text),
    );
  }
  for (const { at, text } of x.ticks)
    group.append(draw("text", { class: "tick", x: toX(at), y: height - bottom + 18, "text-anchor": "middle" }, text));
  const middle = (left + width - right) / 2;
  group.append(
    draw("text", { class: "label", x: middle, y: height - 5, "text-anchor": "middle" }, x.label),
    draw("text", { class: "label", transform: `translate(12 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, y.label),
  );
  svg.append(group);
  return { group, toX, toY, left, right: width - right };
}

/** Curves with markers; `levels` are horizontal lines with a name, `band` is low to high. */
function curves(width, { about, x, y, series, levels = [] }) {
  const height = 270;
  const svg = canvas(width, height, about);
  const right = levels.length ? 52 : 14;
  const { group, toX, toY, left, right: edge } = frame(svg, { width, height, x, y, right });
  for (const s of series.filter((s) => s.low)) {
    const there = s.x.map((at, i) => `${toX(at)},${toY(s.high[i])}`);
    const back = s.x.map((at, i) => `${toX(at)},${toY(s.low[i])}`).reverse();
    group.append(draw("polygon", { class: "band", points: [...there, ...back].join(" ") }));
  }
  for (const { at, text, name } of levels)
    group.append(
      draw("line", { class: `level ${name}`, x1: left, x2: edge, y1: toY(at), y2: toY(at) }),
      draw("text", { class: "tick", x: edge + 6, y: toY(at) + 4 }, text),
    );
  series.forEach((s, i) => {
    const points = s.x.map((at, n) => [toX(at), toY(s.y[n]), n]).filter(([, b]) => Number.isFinite(b));
    const line = draw("g", { class: `series series-${i}` });
    line.append(draw("polyline", { points: points.map(([a, b]) => `${a},${b}`).join(" ") }));
    for (const [a, b, n] of points) {
      const mark = draw("g", { transform: `translate(${a} ${b})`, "data-tip": s.tip(n) });
      mark.append(draw("circle", { class: "reach", r: 11 }), draw("path", { d: MARKERS[SHAPES[i % 4]] }));
      line.append(mark);
    }
    group.append(line);
  });
  const swatch = (i) => () => [
    draw("polyline", { points: "0,6 26,6" }),
    draw("path", { d: MARKERS[SHAPES[i % 4]], transform: "translate(13 6)" }),
  ];
  return [key(series.map((s, i) => ({ name: s.name, className: `series series-${i}`, swatch: swatch(i) }))), svg];
}

/** Bars in groups along x, above and below zero; `line` runs over the groups. */
function bars(width, { about, labels, xlabel, ylabel, series, line, level, extra = [], onpick, picked }) {
  const height = 270;
  const svg = canvas(width, height, about);
  const step = Math.max(1.6, labels.length * 0.075);
  const tail = extra.length ? (extra.length + 0.5) * step : 0;
  const all = [...series.map((s) => s.values), line ?? [], level ? [level.at] : [], extra.map((e) => e.value)];
  const most = Math.max(2, Math.floor(((width - 58 - (level ? 48 : 0)) * labels.length) / (labels.length + tail) / 20));
  const [low, high] = extent(all, 0);
  const pad = (high - low) * 0.06 || 1;
  const y = { span: [low < 0 ? low - pad : low, high + pad], ticks: ticks(low, high), label: ylabel };
  const x = { span: [-0.6, labels.length - 0.4 + tail], ticks: thinned(labels, most), label: tail ? "" : xlabel };
  const { group, toX, toY, left, right } = frame(svg, { width, height, x, y, right: level ? 60 : 12, bottom: tail ? 62 : 42 });
  const slot = toX(1) - toX(0);
  const one = (at, wide, value, className, tip, pick) => {
    const [a, b] = [toY(0), toY(value ?? 0)].sort((p, q) => p - q);
    const bar = draw("g", { class: className, "data-tip": tip });
    bar.append(
      draw("rect", { class: "reach", x: at, y: toY(y.span[1]), width: wide, height: toY(y.span[0]) - toY(y.span[1]) }),
      draw("rect", { x: at, y: a, width: wide, height: Math.max(b - a, 0.5) }),
    );
    if (pick) bar.addEventListener("click", pick);
    group.append(bar);
  };
  series.forEach((s, n) => {
    const wide = (0.8 * slot) / series.length;
    s.values.forEach((value, i) =>
      one(toX(i) - 0.4 * slot + n * wide, wide, value, `bars ${s.name}${picked === i ? " picked" : ""}`, s.tip(i), onpick && (() => onpick(i))),
    );
  });
  extra.forEach(({ label, value }, i) => {
    const place = toX(labels.length + (0.5 + i) * step);
    one(place - 0.25 * step * slot, 0.5 * step * slot, value, "bars text", `${label}: ${number(value)} logits`);
    group.append(draw("text", { class: "tick", "text-anchor": "end", transform: `translate(${place + 4} ${height - 48}) rotate(-35)` }, label));
  });
  if (tail) group.append(draw("text", { class: "label", x: toX((labels.length - 1) / 2), y: height - 24, "text-anchor": "middle" }, xlabel));
  if (level)
    group.append(
      draw("line", { class: "level full", x1: left, x2: right, y1: toY(level.at), y2: toY(level.at) }),
      draw("text", { class: "tick", x: right + 6, y: toY(level.at) + 4 }, level.text),
    );
  if (line) {
    const running = draw("g", { class: "series running" });
    running.append(draw("polyline", { points: line.map((v, i) => `${toX(i)},${toY(v)}`).join(" ") }));
    line.forEach((v, i) => running.append(draw("circle", { cx: toX(i), cy: toY(v), r: 2.6 })));
    group.append(running);
  }
  const swatch = () => [draw("rect", { x: 6, y: 0, width: 14, height: 12 })];
  const entries = series.map((s) => ({ name: s.title, className: `bars ${s.name}`, swatch }));
  if (extra.length) entries.push({ name: "read from text", className: "bars text", swatch });
  return [key(entries), svg];
}

/** A map of cells, rows down and columns across, under their scale. */
function cells(width, { about, rows, columns, values, low, high, xlabel, ylabel, unit, tip, picked, onpick }) {
  const [left, top, bottom] = [46, 2, 44];
  const size = (width - left) / columns.length;
  const tall = Math.max(10, Math.min(42, 400 / rows.length));
  const height = top + tall * rows.length + bottom;
  const svg = canvas(width, height, about);
  const far = Math.max(Math.abs(low), Math.abs(high)) || 1;
  values.forEach((row, r) =>
    row.forEach((value, c) => {
      const cell = draw("rect", {
        class: "cell", x: left + c * size, y: top + r * tall, width: size - 0.6, height: tall - 0.6,
        fill: shade(value === null ? NaN : value / far), "data-tip": tip(r, c),
      });
      if (onpick) cell.addEventListener("click", () => onpick(r, c));
      svg.append(cell);
    }),
  );
  const end = top + tall * rows.length;
  const row = (at) => ({ class: `tick${picked?.[0] === at ? " now" : ""}`, x: left - 8, y: top + (at + 0.5) * tall + 4, "text-anchor": "end" });
  const column = (at) => ({ class: `tick${picked?.[1] === at ? " now" : ""}`, x: left + (at + 0.5) * size, y: end + 17, "text-anchor": "middle" });
  for (const { at, text } of thinned(rows, Math.floor((tall * rows.length) / 15))) svg.append(draw("text", row(at), text));
  for (const { at, text } of thinned(columns, Math.floor((width - left) / 22))) svg.append(draw("text", column(at), text));
  svg.append(
    draw("text", { class: "label", transform: `translate(12 ${(top + end) / 2}) rotate(-90)`, "text-anchor": "middle" }, ylabel),
    draw("text", { class: "label", x: left + (width - left) / 2, y: end + 37, "text-anchor": "middle" }, xlabel),
  );
  if (picked)
    svg.append(draw("rect", { class: "picked", x: left + picked[1] * size - 1, y: top + picked[0] * tall - 1, width: size + 1.4, height: tall + 1.4 }));
  const scaleBar = draw("svg", { viewBox: "0 0 120 12", width: 120, height: 12, "aria-hidden": true });
  for (let i = 0; i < 24; i++)
    scaleBar.append(draw("rect", { x: i * 5, y: 1, width: 5.3, height: 10, fill: shade((low + ((i + 0.5) / 24) * (high - low)) / far) }));
  const line = Object.assign(document.createElement("p"), { className: "key" });
  const item = document.createElement("span");
  item.append(number(low), scaleBar, `${number(high)} ${unit}`);
  line.append(item);
  return [line, svg];
}
