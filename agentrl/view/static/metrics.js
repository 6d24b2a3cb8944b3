// The metrics of one run or two, by room.

const ROOMS_FIRST = [
  "eval",
  "rollout",
  "policy",
  "credit",
  "train",
  "stop",
  "env",
  "time",
  "budget",
  "workers",
];

// `a_mean` with `a_low` and `a_high` is one line with a band.
function metricNames(tables) {
  const names = new Set(tables.flatMap((table) => Object.keys(table.values)));
  const bands = [...names].filter(
    (name) =>
      name.endsWith("_mean") &&
      names.has(`${name.slice(0, -5)}_low`) &&
      names.has(`${name.slice(0, -5)}_high`),
  );
  for (const name of bands) {
    names.delete(`${name.slice(0, -5)}_low`);
    names.delete(`${name.slice(0, -5)}_high`);
  }
  return { names: [...names].sort(), bands: new Set(bands) };
}

function xOf(table) {
  if (state.x === "time" && table.time.length)
    return table.time.map((one) => (one === null ? 0 : (one - table.time[0]) / 60));
  if (state.x === "tokens" && table.values["budget/generated_tokens"])
    return table.values["budget/generated_tokens"].map((one) => one || 0);
  return table.iteration;
}

async function drawMetrics(room) {
  const tables = await Promise.all(sources.map((source) => source.metricsData()));
  if (!tables.some((table) => table && table.iteration.length)) {
    fill(
      room,
      el(
        "div",
        { className: "page" },
        el(
          "p",
          { className: "empty" },
          "No metrics were written here (there is no metrics.jsonl, or it has no row).",
        ),
      ),
    );
    return;
  }
  const shown = tables
    .map((table, number) => ({ table, number }))
    .filter(({ table }) => table && table.iteration.length);
  const { names, bands } = metricNames(shown.map(({ table }) => table));
  const grid = el("div", { className: "plots" });
  const big = el("div", { className: "big-plot" });
  const linesOf = (name) =>
    shown
      .filter(({ table }) => table.values[name])
      .map(({ table, number }) => {
        const raw = table.values[name];
        const weight = Number(state.smooth);
        const y = smoothed(raw, weight);
        const stem = name.slice(0, -5);
        const banded = bands.has(name) && !weight;
        return {
          x: xOf(table),
          y,
          raw: weight ? raw : null,
          low: banded ? table.values[`${stem}_low`] : null,
          high: banded ? table.values[`${stem}_high`] : null,
          colour: COLOURS_OF[number],
          name: sources[number].name,
        };
      });
  let all = [];
  const hover = (at) => all.forEach((one) => one.mark(at));
  const draw = () => {
    const needle = state.mq.toLowerCase();
    const wanted = names.filter((name) => !needle || name.toLowerCase().includes(needle));
    const rooms = [...new Set(wanted.map((name) => name.split("/")[0]))];
    rooms.sort(
      (a, b) => (ROOMS_FIRST.indexOf(a) + 1 || 99) - (ROOMS_FIRST.indexOf(b) + 1 || 99) || a.localeCompare(b),
    );
    all = [];
    const asked = names.includes(state.big) ? state.big : "";
    fill(big);
    if (asked) {
      const one = plot(linesOf(asked), {
        width: Math.max(600, Math.min(1500, room.clientWidth - 80)),
        height: 360,
        log: Boolean(state.log),
        title: asked,
        onhover: hover,
      });
      all.push(one);
      big.append(
        el(
          "h3",
          {},
          asked,
          el("span", { className: "push" }),
          el("button", { type: "button", className: "quiet", onclick: () => go({ big: "" }) }, "close"),
        ),
        one.node,
      );
    }
    fill(
      grid,
      ...rooms.flatMap((name) => {
        const metrics = wanted.filter((one) => one.startsWith(`${name}/`) || one === name);
        const varying = metrics.filter((metric) => !constantly(linesOf(metric)));
        const flat = metrics.filter((metric) => constantly(linesOf(metric)));
        return [
          el("h2", { id: `room-${name}` }, name),
          el(
            "div",
            { className: "room" },
            varying.map((metric) => {
              const one = plot(linesOf(metric), {
                log: Boolean(state.log),
                title: metric,
                onhover: hover,
                onclick: () => {
                  go({ big: metric }, { push: true });
                  window.scrollTo(0, 0);
                  byId("room").scrollTop = 0;
                },
              });
              all.push(one);
              return el(
                "figure",
                { "data-metric": metric },
                el("figcaption", {}, metric.slice(metric.indexOf("/") + 1)),
                one.node,
              );
            }),
          ),
          flat.length
            ? el(
                "p",
                { className: "flat" },
                flat.map((metric) =>
                  el(
                    "span",
                    {},
                    `${metric.slice(metric.indexOf("/") + 1)} `,
                    el("b", {}, num(linesOf(metric)[0].y.find((one) => one !== null))),
                  ),
                ),
                el("em", {}, "throughout"),
              )
            : null,
        ].filter(Boolean);
      }),
    );
    if (!wanted.length) grid.append(el("p", { className: "empty" }, "No metric has this name."));
  };
  const settings = el(
    "div",
    { className: "bar sticky metrics-bar" },
    el("input", {
      type: "search",
      placeholder: "Find a metric",
      value: state.mq,
      "aria-label": "Find a metric",
      oninput: (event) => go({ mq: event.target.value }),
    }),
    el(
      "label",
      {},
      "smoothing ",
      el("input", {
        type: "range",
        min: 0,
        max: 0.99,
        step: 0.01,
        value: state.smooth,
        "aria-label": "smoothing",
        oninput: (event) => {
          go({ smooth: event.target.value });
          event.target.nextSibling.textContent = num(Number(event.target.value), 2);
        },
      }),
      el("span", { className: "number" }, num(Number(state.smooth), 2)),
    ),
    el(
      "label",
      {},
      el("input", {
        type: "checkbox",
        checked: Boolean(state.log),
        onchange: (event) => go({ log: event.target.checked ? "1" : "" }),
      }),
      " log scale",
    ),
    select(
      [
        ["iteration", "by iteration"],
        ["time", "by minutes"],
        ["tokens", "by generated tokens"],
      ],
      state.x,
      (x) => go({ x }),
      "axis",
    ),
    el("span", { className: "push" }),
    shown.length > 1
      ? shown.map(({ number }) =>
          el(
            "span",
            { className: "key" },
            el("i", { style: { background: COLOURS_OF[number] } }),
            sources[number].name,
          ),
        )
      : null,
  );
  fill(room, el("div", { className: "page wide" }, settings, big, grid));
  draw();
  room.redraw = draw;
}

function constantly(lines) {
  const values = lines.flatMap((line) => (line.raw || line.y).filter((one) => one !== null));
  return values.length > 0 && values.every((one) => one === values[0]) && values.length > 1;
}
