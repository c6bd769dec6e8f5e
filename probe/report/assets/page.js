// Reads the data and puts every chart in its place.

const data = JSON.parse($("data").textContent);
const logits = (value) => `${number(value)} logits`;

function heads() {
  data.heads.forEach(({ query }, at) => $("query").append(new Option(query, at)));
  $("query").value = data.heads.length - 1;
  const show = () => {
    const { query, mass, entropy } = data.heads[$("query").value];
    const [, high] = extent(mass);
    chart("head-map", (width) =>
      cells(width, {
        about: `Attention from ${query} to the video by layer and head; highest ${number(high)}`,
        rows: data.layers, columns: mass[0].map((_, head) => head), values: mass, low: 0, high,
        xlabel: "head", ylabel: "layer", unit: "share of attention",
        tip: (r, c) =>
          `layer ${data.layers[r]}, head ${c}\nto the video ${number(mass[r][c])}` +
          (entropy ? `\nentropy ${number(entropy[r][c])} nats` : ""),
      }),
    );
  };
  $("query").addEventListener("change", show);
  show();
  const { mass, similarity } = data.profile;
  const [low] = extent(similarity, 0);
  const line = (name, y) => ({
    name, y, x: data.layers, tip: (i) => `layer ${data.layers[i]}\n${name} ${number(y[i])}`,
  });
  chart("profile", (width) =>
    curves(width, {
      about: "Attention to the video and similarity of adjacent frames, by layer",
      x: { span: [0, data.layers.length - 1], ticks: thinned(data.layers, 12), label: "layer" },
      y: { span: [Math.min(low, 0), 1], ticks: ticks(Math.min(low, 0), 1), label: "share or cosine" },
      series: [line("attention to video", mass), line("similarity of frames", similarity)],
    }),
  );
}

function contributions(go) {
  const { parts, values, sum, frames, others } = data.contributions;
  const titles = { mlp: "MLP" };
  const running = [];
  values.forEach((row) => running.push((running.at(-1) ?? 0) + row.reduce((a, b) => a + b, 0)));
  chart("by-layer", (width) =>
    bars(width, {
      about: `Contributions to the margin by layer and part; they sum to ${logits(sum)}`,
      labels: data.layers, xlabel: "layer", ylabel: `adds to ${data.of} (logits)`, line: running,
      level: { at: sum, text: `sum ${number(sum)}` },
      series: parts.map((name, p) => ({
        name, title: titles[name] ?? name, values: values.map((row) => row[p]),
        tip: (i) => `layer ${data.layers[i]}, ${titles[name] ?? name}\n${logits(values[i][p])}`,
      })),
    }),
  );
  data.onframe = (frame) =>
    chart("by-frame", (width) =>
      bars(width, {
        about: "Contributions of attention to the margin by frame and by text",
        labels: data.groups, xlabel: "frame", ylabel: `adds to ${data.of} (logits)`,
        extra: others, picked: data.group[frame], onpick: (group) => go(data.group.indexOf(group)),
        series: [{ name: "attention", title: "read from frames", values: frames, tip: (i) => `frame ${data.groups[i]}\n${logits(frames[i])}` }],
      }),
    );
}

function needs() {
  const { full, blind } = data;
  const levels = [
    { at: full, text: "full", name: "full" },
    { at: blind, text: "no clip", name: "blind" },
  ];
  const axis = (...lists) => {
    const [low, high] = extent(full, blind, ...lists);
    const pad = (high - low) * 0.05 || 1;
    return { span: [low - pad, high + pad], ticks: ticks(low, high), label: `${data.of} (logits)` };
  };
  const counts = [...new Set(data.kept.flatMap((s) => s.tokens))].sort((a, b) => b - a).filter((n) => n > 0);
  const shown = [];
  for (const n of counts) if (!shown.length || shown.at(-1) / n > 1.5) shown.push(n);
  const known = ["attention", "norm", "uniform", "random"];
  chart("kept", (width) =>
    curves(width, {
      about: "Margin against visual tokens kept, for each way of choosing them",
      x: {
        span: [Math.min(...counts) * 0.93, Math.max(...counts) * 1.07], log: true, label: "visual tokens kept",
        ticks: shown.map((n) => ({ at: n, text: n.toLocaleString("en") })),
      },
      y: axis(data.kept.map((s) => [s.margin, s.margin_low, s.margin_high])), levels,
      series: [...data.kept]
        .sort((a, b) => known.indexOf(a.score) - known.indexOf(b.score))
        .map((s) => {
          const spread = s.margin_low.some((low, i) => low < s.margin_high[i]);
          return {
            name: s.score, x: s.tokens, y: s.margin, low: spread && s.margin_low, high: s.margin_high,
            tip: (i) =>
              `${s.score}, ${s.tokens[i]} tokens\n${logits(s.margin[i])}` +
              (s.margin_low[i] < s.margin_high[i] ? `\n${number(s.margin_low[i])} to ${number(s.margin_high[i])}` : "") +
              `\nanswers “${s.answer[i].trim()}”`,
          };
        }),
    }),
  );
  const { layer, margin, answer } = data.drop;
  const last = layer.length - 1;
  chart("drop", (width) =>
    curves(width, {
      about: "Margin with all visual tokens gone from a layer on",
      x: {
        span: [layer[0] - 0.15, layer[last] + 0.15], label: "video gone from this layer on",
        ticks: [...thinned(layer.slice(0, last), 10).filter((t) => t.at <= last * 0.94).map((t) => ({ ...t, at: layer[t.at] })), { at: layer[last], text: "none" }],
      },
      y: axis(margin), levels,
      series: [{
        name: "all visual tokens gone", x: layer, y: margin,
        tip: (i) => `${i === last ? "nothing gone" : `gone from layer ${layer[i]} on`}\n${logits(margin[i])}\nanswers “${answer[i].trim()}”`,
      }],
    }),
  );
}

tips();
heads();
needs();
let go = () => {};
contributions((frame) => go(frame));
Promise.all([...$("strip").querySelectorAll("img")].map((image) => image.decode().catch(() => {}))).then(
  () => (go = viewer(data)),
);
