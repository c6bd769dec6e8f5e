// The frame, the strip and the layer x frame map: one state, three views.

const HEAT = [[0, 244, 164, 106], [0.45, 217, 96, 31], [0.8, 154, 49, 8], [1, 74, 21, 2]];
const COLD = [[0, 138, 190, 224], [0.5, 60, 124, 172], [1, 18, 57, 91]];

/** [red, green, blue] between the stops of a ramp. */
function ramp(stops, share) {
  const next = Math.max(1, stops.findIndex(([at]) => at >= share));
  const [a, ...from] = stops[next - 1];
  const [b, ...to] = stops[next];
  const part = Math.min(Math.max((share - a) / (b - a), 0), 1);
  return from.map((value, i) => Math.round(value + part * (to[i] - value)));
}

/** Values [layer][cell] of what Python packed: 16 bits, each layer on its own scale. */
function unpack({ values, low, high }) {
  const bytes = Uint8Array.from(atob(values), (c) => c.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const cellCount = bytes.length / 2 / low.length;
  return low.map((from, layer) =>
    Float32Array.from({ length: cellCount }, (_, cell) => {
      const step = view.getUint16(2 * (layer * cellCount + cell), true);
      return step === 65535 ? NaN : from + (step / 65534) * (high[layer] - from);
    }),
  );
}

/** The linked views; returns a function that moves them to a frame. */
function viewer(data) {
  const [height, width] = data.size;
  const buttons = [...$("strip").querySelectorAll("button")];
  const images = buttons.map((button) => button.querySelector("img"));
  const sources = data.overlays.map((overlay) => ({ ...overlay, cells: unpack(overlay) }));
  const state = { source: 0, layer: 0, frame: 0, gain: 1 };
  $("strip").style.setProperty("--count", Math.min(buttons.length, 16));
  const source = () => sources[state.source];
  const value = (layer, frame) => source().byFrame[layer][data.group[frame]];

  function tint(context, frame, wide, tall) {
    const { cells, grid, low, high } = source();
    const [rows, columns] = grid;
    const { layer, gain } = state;
    context.clearRect(0, 0, wide, tall);
    context.imageSmoothingEnabled = width > 160;
    context.fillStyle = "#fff";
    context.fillRect(0, 0, wide, tall);
    context.globalAlpha = 1 - 0.3 * Math.min(gain, 1);
    context.drawImage(images[frame], 0, 0, wide, tall);
    const far = Math.max(Math.abs(low[layer]), Math.abs(high[layer])) || 1;
    const edge = (i, count, length) => Math.round((i * length) / count);
    for (let r = 0; r < rows; r++)
      for (let c = 0; c < columns; c++) {
        const share = cells[layer][(frame * rows + r) * columns + c] / far;
        const size = Math.min(Math.abs(share) * gain, 1);
        if (!(size > 0)) continue;
        context.globalAlpha = 0.9 * Math.min(size / 0.6, 1);
        context.fillStyle = `rgb(${ramp(share < 0 ? COLD : HEAT, size)})`;
        const [x, y] = [edge(c, columns, wide), edge(r, rows, tall)];
        context.fillRect(x, y, edge(c + 1, columns, wide) - x, edge(r + 1, rows, tall) - y);
      }
    context.globalAlpha = 1;
    for (const { box } of data.evidence.filter((item) => item.frame === frame)) {
      const [x0, y0, x1, y1] = box.map((at, i) => (i % 2 ? (at * tall) / height : (at * wide) / width));
      for (const [color, line] of [["#000", 4], ["#fff", 2]]) {
        context.strokeStyle = color;
        context.lineWidth = Math.max((line * wide) / 480, line / 2);
        context.strokeRect(x0, y0, x1 - x0, y1 - y0);
      }
    }
  }

  function paint(target, frame, wide) {
    target.width = wide;
    target.height = Math.round((wide * height) / width);
    tint(target.getContext("2d"), frame, target.width, target.height);
  }

  function map() {
    const { byFrame, unit, name, about } = source();
    const [low, high] = extent(byFrame);
    const signed = low < 0;
    const far = Math.max(Math.abs(low), high);
    chart("map", (wide) => {
      const made = cells(wide, {
        about: `${name} by layer and frame, ${about}; highest ${number(high)} ${unit}`,
        rows: data.layers, columns: data.groups, values: byFrame, unit,
        low: signed ? -far : 0, high: far, xlabel: "frame", ylabel: "layer",
        picked: [state.layer, data.group[state.frame]],
        tip: (r, c) => `layer ${data.layers[r]}, frame ${data.groups[c]}\n${number(byFrame[r][c])} ${unit}`,
        onpick: (r, c) => move({ layer: r, frame: data.group.indexOf(c) }),
      });
      made[1].setAttribute("tabindex", "0");
      return made;
    });
  }

  /** Change the state and redraw what depends on it. */
  function move(change) {
    const strip = ["source", "layer", "gain"].some((name) => name in change);
    Object.assign(state, change);
    const { layer, frame } = state;
    $("layer").value = layer;
    $("layer-out").textContent = `${data.layers[layer]} (0 to ${data.layers.at(-1)})`;
    $("time").value = frame;
    paint($("frame"), frame, Math.max(480, Math.min(width, 960)));
    if (strip) buttons.forEach((button, at) => paint(button.querySelector("canvas"), at, 96));
    buttons.forEach((button, at) => button.setAttribute("aria-current", at === frame));
    const { name, unit, about } = source();
    const text = `${data.times[frame]} s, frame ${data.source[frame]} of the file. `;
    const bold = Object.assign(document.createElement("b"), { textContent: `Frame ${frame} ` });
    $("frame-text").replaceChildren(bold, text, `Layer ${data.layers[layer]}: ${name}, whole frame: ${number(value(layer, frame))} ${unit}, ${about}.`);
    $("frame").setAttribute("aria-label", `Frame ${frame} tinted by ${name} in layer ${data.layers[layer]}`);
    map();
    data.onframe?.(frame);
  }

  /** The tip over the large frame is the value of the token under the pointer. */
  $("frame").addEventListener("pointermove", (event) => {
    const { cells, grid, unit } = source();
    const [rows, columns] = grid;
    const box = event.target.getBoundingClientRect();
    const r = Math.min(Math.max(Math.floor(((event.clientY - box.top) / box.height) * rows), 0), rows - 1);
    const c = Math.min(Math.max(Math.floor(((event.clientX - box.left) / box.width) * columns), 0), columns - 1);
    const token = cells[state.layer][(state.frame * rows + r) * columns + c];
    event.target.dataset.tip = `row ${r}, column ${c}\n${number(token)} ${unit}`;
  });

  let timer = 0;
  function play(on) {
    clearInterval(timer);
    timer = 0;
    const step = (data.seconds.at(-1) - data.seconds[0]) / Math.max(buttons.length - 1, 1);
    if (on) timer = setInterval(() => move({ frame: (state.frame + 1) % buttons.length }), Math.min(Math.max(step * 1000, 120), 800));
    $("play").textContent = on ? "Stop" : "Play";
    $("play").setAttribute("aria-pressed", on);
  }

  sources.forEach(({ name }, at) => $("source").append(new Option(name, at)));
  $("layer").max = data.layers.length - 1;
  $("time").max = buttons.length - 1;
  $("source").addEventListener("change", (event) => move({ source: Number(event.target.value) }));
  $("layer").addEventListener("input", (event) => move({ layer: Number(event.target.value) }));
  $("gain").addEventListener("input", (event) => move({ gain: Number(event.target.value) }));
  $("time").addEventListener("input", (event) => (play(false), move({ frame: Number(event.target.value) })));
  $("play").addEventListener("click", () => play(!timer));
  buttons.forEach((button, frame) => button.addEventListener("click", () => (play(false), move({ frame }))));
  $("map").addEventListener("keydown", (event) => {
    const [down, across] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [0, 0];
    if (!down && !across) return;
    event.preventDefault();
    const group = Math.min(Math.max(data.group[state.frame] + across, 0), data.groups.length - 1);
    const layer = Math.min(Math.max(state.layer + down, 0), data.layers.length - 1);
    move({ layer, frame: across ? data.group.indexOf(group) : state.frame });
  });

  // Start where attention from the last position is highest.
  const start = Math.max(sources.findIndex(({ name }) => name.endsWith(" last")), 0);
  const table = sources[start].byFrame;
  const [, top] = extent(table);
  const layer = Math.max(table.findIndex((row) => row.includes(top)), 0);
  $("source").value = start;
  move({ source: start, layer, frame: Math.max(data.group.indexOf(table[layer].indexOf(top)), 0) });
  return (frame) => move({ frame });
}
