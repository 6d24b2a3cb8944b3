// Lines over iterations, drawn as SVG: small ones side by side, one large.

const COLOURS_OF = ["var(--run-a)", "var(--run-b)"];

// Exponential smoothing that starts without a bias towards 0; absent values stay absent.
function smoothed(values, weight) {
  if (!weight) return values;
  let last = 0;
  let seen = 0;
  return values.map((value) => {
    if (value === null) return null;
    last = last * weight + (1 - weight) * value;
    seen += 1;
    return last / (1 - weight ** seen);
  });
}

function ticks(low, high, wanted) {
  const span = high - low || Math.abs(high) || 1;
  const rough = span / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => span / one <= wanted) || 10 * power;
  const found = [];
  const first = Math.ceil(low / step - 1e-9);
  for (let index = 0; index <= 2 * wanted && (first + index) * step <= high + step * 1e-9; index += 1)
    found.push((first + index) * step);
  return found;
}

// At most `most` points a line: the least and the largest of each stretch are kept.
function thinned(points, most = 800) {
  if (points.length <= most) return points;
  const size = Math.ceil(points.length / (most / 2));
  const found = [];
  for (let at = 0; at < points.length; at += size) {
    const part = points.slice(at, at + size);
    const low = part.reduce((a, b) => (b[1] < a[1] ? b : a));
    const high = part.reduce((a, b) => (b[1] > a[1] ? b : a));
    found.push(...(low[0] <= high[0] ? [low, high] : [high, low]));
  }
  return found;
}

// `lines`: [{ x, y, raw, low, high, colour, name }], arrays with null where there is no value.
function plot(
  lines,
  { width = 300, height = 150, log = false, title = "", onhover = null, onclick = null, digits = 3 } = {},
) {
  const margin = { left: 44, right: 10, top: 8, bottom: 20 };
  const ok = (value) => value !== null && value !== undefined && (!log || value > 0);
  const f = (value) => (log ? Math.log10(value) : value);
  let xs = [Infinity, -Infinity];
  let ys = [Infinity, -Infinity];
  for (const line of lines) {
    line.x.forEach((x, at) => {
      for (const one of [line.y[at], line.raw?.[at], line.low?.[at], line.high?.[at]]) {
        if (!ok(one)) continue;
        ys = [Math.min(ys[0], f(one)), Math.max(ys[1], f(one))];
        xs = [Math.min(xs[0], x), Math.max(xs[1], x)];
      }
    });
  }
  const picture = svg("svg", {
    className: "plot",
    viewBox: `0 0 ${width} ${height}`,
    width,
    height,
    role: "img",
    "aria-label": title,
  });
  if (xs[0] > xs[1]) {
    picture.append(
      svg(
        "text",
        { x: width / 2, y: height / 2, "text-anchor": "middle", className: "tick" },
        log ? "nothing above 0" : "no values",
      ),
    );
    return { node: picture, mark: () => {} };
  }
  // Nearly the same is the same: rounding is no curve, and no scale could be marked on it.
  if (ys[1] - ys[0] <= 1e-9 * Math.max(Math.abs(ys[0]), Math.abs(ys[1]))) {
    const pad = Math.abs(ys[0]) * 0.1 || 1;
    ys = [ys[0] - pad, ys[1] + pad];
  } else {
    const pad = (ys[1] - ys[0]) * 0.06;
    ys = [ys[0] - pad, ys[1] + pad];
  }
  const inner = { width: width - margin.left - margin.right, height: height - margin.top - margin.bottom };
  const x = (value) =>
    margin.left + (xs[1] === xs[0] ? 0.5 : (value - xs[0]) / (xs[1] - xs[0])) * inner.width;
  const y = (value) => margin.top + (1 - (f(value) - ys[0]) / (ys[1] - ys[0])) * inner.height;
  for (const one of ticks(ys[0], ys[1], height > 250 ? 7 : 3)) {
    const at = margin.top + (1 - (one - ys[0]) / (ys[1] - ys[0])) * inner.height;
    picture.append(
      svg("path", {
        d: `M${margin.left},${at}H${width - margin.right}`,
        className: one === 0 && !log ? "grid zero" : "grid",
      }),
      svg(
        "text",
        { x: margin.left - 6, y: at + 3.5, "text-anchor": "end", className: "tick" },
        num(log ? 10 ** one : one, digits),
      ),
    );
  }
  for (const one of ticks(xs[0], xs[1], width > 500 ? 8 : 4))
    picture.append(
      svg(
        "text",
        { x: x(one), y: height - 5, "text-anchor": "middle", className: "tick" },
        one >= 1e4 ? `${num(one / 1000)}k` : num(one),
      ),
    );
  for (const line of lines) {
    const points = line.x.map((at, index) => [at, line.y[index], index]).filter(([, value]) => ok(value));
    if (line.low && line.high) {
      const band = points.filter(([, , index]) => ok(line.low[index]) && ok(line.high[index]));
      if (band.length)
        picture.append(
          svg("path", {
            d: `M${band.map(([at, , index]) => `${x(at).toFixed(1)},${y(line.high[index]).toFixed(1)}`).join("L")}L${band
              .reverse()
              .map(([at, , index]) => `${x(at).toFixed(1)},${y(line.low[index]).toFixed(1)}`)
              .join("L")}Z`,
            className: "band",
            style: { fill: line.colour },
          }),
        );
    }
    const path = (list) =>
      `M${thinned(list)
        .map(([at, value]) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`)
        .join("L")}`;
    if (line.raw) {
      const whole = line.x.map((at, index) => [at, line.raw[index]]).filter(([, value]) => ok(value));
      if (whole.length > 1)
        picture.append(svg("path", { d: path(whole), className: "raw", style: { stroke: line.colour } }));
    }
    if (points.length > 1)
      picture.append(svg("path", { d: path(points), className: "line", style: { stroke: line.colour } }));
    if (points.length <= 30)
      for (const [at, value] of points)
        picture.append(
          svg("circle", {
            cx: x(at),
            cy: y(value),
            r: points.length === 1 ? 3 : 1.8,
            style: { fill: line.colour },
          }),
        );
  }
  const cursor = svg("g", { className: "cursor" });
  picture.append(cursor);
  const mark = (at) => {
    cursor.replaceChildren();
    if (at === null) return [];
    const found = lines.map((line) => {
      let best = -1;
      line.x.forEach((one, index) => {
        if (ok(line.y[index]) && (best < 0 || Math.abs(one - at) < Math.abs(line.x[best] - at))) best = index;
      });
      return best < 0 ? null : { line, index: best, x: line.x[best], y: line.y[best] };
    });
    const first = found.find(Boolean);
    if (first)
      cursor.append(
        svg("path", { d: `M${x(first.x)},${margin.top}V${height - margin.bottom}`, className: "hair" }),
      );
    for (const one of found)
      if (one)
        cursor.append(svg("circle", { cx: x(one.x), cy: y(one.y), r: 3, style: { fill: one.line.colour } }));
    return found;
  };
  picture.addEventListener("mousemove", (event) => {
    const box = picture.getBoundingClientRect();
    const part = ((event.clientX - box.left) * (width / box.width) - margin.left) / inner.width;
    const at = xs[0] + Math.max(0, Math.min(1, part)) * (xs[1] - xs[0]);
    if (onhover) onhover(at);
    const found = mark(at).filter(Boolean);
    tip.show(
      event,
      el("b", {}, title),
      pairs(
        found.map((one) => [
          `${lines.length > 1 ? `${one.line.name} · ` : ""}${num(one.x, 6)}`,
          el(
            "span",
            {},
            num(one.y, 4),
            one.line.low && ok(one.line.low[one.index])
              ? el(
                  "span",
                  { className: "faint" },
                  ` ${num(one.line.low[one.index])} to ${num(one.line.high[one.index])}`,
                )
              : null,
          ),
        ]),
      ),
    );
  });
  picture.addEventListener("mouseleave", () => {
    tip.hide();
    mark(null);
    if (onhover) onhover(null);
  });
  if (onclick) picture.addEventListener("click", onclick);
  return { node: picture, mark };
}
