// What a run or an evaluation is, what it reached, and what could not be read.

function notesOf(source) {
  if (!source.notes.length) return null;
  return el(
    "div",
    { className: "notes" },
    el("b", {}, count(source.notes.length, "note")),
    el(
      "ul",
      {},
      source.notes.map(({ file, message }) =>
        el("li", {}, el("code", {}, file), " ", visible(message.slice(0, 600))),
      ),
    ),
  );
}

function factsOf(source) {
  const { settings } = source;
  const has = (one) => (one ? String(one) : null);
  const policy =
    settings.policy && typeof settings.policy === "object" ? settings.policy.model : settings.policy;
  return pairs([
    ["folder", el("code", {}, source.folder)],
    ["environment", has(settings.env && settings.env.id)],
    ["policy", has(policy)],
    ["engine", has(settings.engine && settings.engine.type)],
    ["sampler", settings.sampler ? inWords(settings.sampler) : null],
    [
      "credit",
      source.credit
        ? `${inWords(source.credit)}${{ stored: ", stored with the trees", recipe: ", computed from recipe.yaml", "": "" }[source.creditFrom]}`
        : null,
    ],
    ["score", has([...new Set(Object.values(source.score))].map(words).join(", "))],
    ["seed", settings.seed === undefined ? null : String(settings.seed)],
    ...provenance(source),
  ]);
}

// What produced an evaluation's results.
function provenance(source) {
  const made = (source.results && source.results.provenance) || {};
  const commit = made.commit ? ` at ${String(made.commit).slice(0, 10)}` : "";
  return [
    ["command", made.command ? el("code", {}, visible(String(made.command))) : null],
    ["made by", made.agentrl ? `agentrl ${made.agentrl}${commit}, Python ${made.python}` : null],
    [
      "took",
      made.seconds
        ? `${seconds(made.seconds)}${made.sittings > 1 ? ` in ${made.sittings} sittings` : ""}`
        : null,
    ],
    ["ended", made.ended ? String(made.ended).slice(0, 16).replace("T", " ") : null],
  ];
}

function inWords(method) {
  const rest = Object.entries(method).filter(
    ([key, value]) => key !== "type" && value !== null && typeof value !== "object",
  );
  return `${method.type}${rest.length ? ` (${rest.map(([key, value]) => `${words(key)} ${value}`).join(", ")})` : ""}`;
}

// A value with its interval on an axis from `low` to `high`.
function whisker(estimate, [low, high]) {
  const width = 220;
  const x = (value) => 6 + ((value - low) / (high - low || 1)) * (width - 12);
  const picture = svg(
    "svg",
    { className: "whisker", width, height: 18, viewBox: `0 0 ${width} 18` },
    svg("path", { d: `M6,9H${width - 6}`, className: "grid" }),
  );
  if (
    estimate.low !== null &&
    estimate.low !== undefined &&
    estimate.high !== null &&
    estimate.high !== undefined
  )
    picture.append(svg("path", { d: `M${x(estimate.low)},9H${x(estimate.high)}`, className: "interval" }));
  if (estimate.value !== null)
    picture.append(svg("circle", { cx: x(estimate.value), cy: 9, r: 4, className: "value" }));
  return picture;
}

function resultsTable(source) {
  const { results } = source;
  if (!results || !Array.isArray(results.suites)) return null;
  return results.suites.map((suite) => {
    const rows = Object.entries(suite.estimates || {});
    const lost = Object.entries(suite.failures || {}).filter(([, n]) => n);
    // What lies between 0 and 1 is a share; what does not (searches, turns) has an axis of its own.
    const known = (one) =>
      [one.value, one.low, one.high].filter((value) => value !== null && value !== undefined);
    const isShare = (one) => known(one).every((value) => value >= 0 && value <= 1);
    const axisOf = (one) =>
      isShare(one) ? [0, 1] : [Math.min(0, ...known(one)), Math.max(0, ...known(one)) * 1.15];
    const shown = (value, share) =>
      value === null || value === undefined ? "–" : share ? `${num(100 * value)} %` : num(value);
    return el(
      "section",
      { className: "card" },
      el(
        "h3",
        {},
        suite.title || suite.suite,
        suite.title && suite.title !== suite.suite
          ? el("span", { className: "faint" }, ` ${suite.suite}`)
          : null,
      ),
      el(
        "p",
        { className: "faint" },
        `${num(suite.scored)} of ${num(suite.planned)} samples scored, ${count(suite.tasks, "task")}, ${num(suite.samples_per_task)} for each`,
        suite.cost ? ` · cost ${num(suite.cost)}` : null,
        suite.missing ? el("b", {}, ` · ${num(suite.missing)} missing`) : null,
        lost.length
          ? el(
              "b",
              { className: "warn" },
              ` · lost: ${lost.map(([kind, n]) => `${n} ${words(kind)}`).join(", ")}`,
            )
          : null,
        lost.length && suite.if_failures_were_wrong !== null
          ? ` · ${shown(suite.if_failures_were_wrong, true)} if those were wrong`
          : null,
      ),
      el(
        "table",
        { className: "estimates" },
        rows.map(([name, one]) =>
          el(
            "tr",
            { className: name === suite.score ? "main" : "" },
            el("th", {}, words(name)),
            el("td", { className: "number" }, shown(one.value, isShare(one))),
            el("td", {}, whisker(one, axisOf(one))),
            el(
              "td",
              { className: "number faint" },
              one.low === null || one.low === undefined
                ? ""
                : `${shown(one.low, isShare(one))} to ${shown(one.high, isShare(one))}`,
            ),
            el("td", { className: "faint" }, words(one.method || "")),
          ),
        ),
      ),
      amounts(suite),
    );
  });
}

function amounts(suite) {
  const rows = Object.entries(suite.amounts || {});
  if (!rows.length) return null;
  return el(
    "details",
    {},
    el("summary", {}, "tokens, turns, seconds"),
    el(
      "table",
      { className: "parts" },
      el(
        "tr",
        {},
        ["", "mean", "median", "95th percentile", "total"].map((name) => el("th", {}, name)),
      ),
      rows.map(([name, one]) =>
        el(
          "tr",
          {},
          el("th", {}, words(name)),
          [one.mean, one.median, one.p95, one.total].map((value) =>
            el("td", { className: "number" }, num(value)),
          ),
        ),
      ),
    ),
  );
}

function reached(source) {
  const { results } = source;
  if (!results || !results.before || !results.after) return null;
  const percent = (one) => `${num(100 * one)} %`;
  const interval = ([value, low, high]) =>
    el(
      "span",
      {},
      el("b", {}, percent(value)),
      el("span", { className: "faint" }, ` ${num(100 * low)} to ${num(100 * high)}`),
    );
  return el(
    "div",
    { className: "reached" },
    el(
      "div",
      {},
      el("span", { className: "faint" }, `${words(source.score[""] || "score")} before`),
      interval(results.before),
    ),
    el("div", {}, el("span", { className: "faint" }, "after"), interval(results.after)),
    results.gain
      ? el(
          "div",
          {},
          el("span", { className: "faint" }, "gain"),
          el(
            "span",
            {},
            el("b", {}, `${signed(100 * results.gain[0], 3)} points`),
            el(
              "span",
              { className: "faint" },
              ` ${num(100 * results.gain[1])} to ${num(100 * results.gain[2])}`,
            ),
          ),
        )
      : null,
    el(
      "div",
      {},
      el("span", { className: "faint" }, "took"),
      el("span", {}, el("b", {}, seconds(results.seconds))),
    ),
  );
}

function partsTable(source) {
  const { rows, groups, parts, outcome } = source;
  if (!parts.length) return el("p", { className: "empty" }, "No trees are stored here yet.");
  const found = parts.map(() => ({
    groups: 0,
    rows: 0,
    right: 0,
    scored: 0,
    lost: 0,
    total: 0,
    returns: 0,
    turns: 0,
    branches: 0,
  }));
  groups.part.forEach((part, group) => {
    found[part].groups += 1;
    found[part].branches += groups.branches[group];
  });
  rows.group.forEach((group, row) => {
    const one = found[groups.part[group]];
    one.rows += 1;
    one.turns += rows.turns[row];
    one.lost += outcome[row] === LOST;
    if (rows.score[row] !== null) {
      one.scored += 1;
      one.right += rows.score[row];
    }
    if (rows.return[row] !== null) {
      one.total += rows.return[row];
      one.returns += 1;
    }
  });
  const largest = Math.max(1e-9, ...found.map((one) => (one.scored ? one.right / one.scored : 0)));
  const branches = found.some((one) => one.branches);
  const lost = found.some((one) => one.lost);
  return el(
    "table",
    { className: "parts" },
    el(
      "tr",
      {},
      [
        "",
        "groups",
        "trajectories",
        branches ? "branches" : null,
        "score",
        "",
        "return",
        "turns",
        lost ? "lost" : null,
      ]
        .filter((one) => one !== null)
        .map((name) => el("th", {}, name)),
    ),
    parts.map((part, at) => {
      const one = found[at];
      const score = one.scored ? one.right / one.scored : null;
      const cell = (value, digits) => el("td", { className: "number" }, num(value, digits));
      return el(
        "tr",
        {
          className: "link",
          onclick: () =>
            go({ room: "trajectories", s: source.number, part: at, g: "", r: "" }, { push: true }),
        },
        el(
          "th",
          {},
          part.label,
          part.kind === "eval" && source.kind === "run" ? el("span", { className: "faint" }, "") : null,
        ),
        cell(one.groups),
        cell(one.rows),
        branches ? cell(one.branches) : null,
        cell(score),
        el(
          "td",
          {},
          el(
            "span",
            { className: "meter" },
            el("i", { style: { width: `${(100 * (score || 0)) / Math.max(1, largest)}%` } }),
          ),
        ),
        cell(one.returns ? one.total / one.returns : null),
        cell(one.rows ? one.turns / one.rows : null),
        lost ? cell(one.lost) : null,
      );
    }),
  );
}

const HEADLINES = [
  "rollout/reward_mean",
  "policy/entropy_mean",
  "rollout/turns_mean",
  "credit/signal_fraction",
  "rollout/branches",
  "train/gradient_norm",
];

async function headlines() {
  const tables = await Promise.all(sources.map((source) => source.metricsData()));
  const named = (name) => tables.some((table) => table && table.values[name]);
  const evals = [...new Set(tables.flatMap((table) => Object.keys((table && table.values) || {})))].filter(
    (name) => /^eval\/.*_mean$/.test(name) && name !== "eval/turns_mean",
  );
  const names = [...evals, ...HEADLINES.filter(named)].slice(0, 6);
  return names.map((name) => {
    const stem = name.slice(0, -5);
    const lines = tables.flatMap((table, number) =>
      table && table.values[name]
        ? [
            {
              x: table.iteration,
              y: table.values[name],
              low: table.values[`${stem}_low`],
              high: table.values[`${stem}_high`],
              colour: COLOURS_OF[number],
              name: sources[number].name,
            },
          ]
        : [],
    );
    return el(
      "figure",
      {},
      el("figcaption", {}, name),
      plot(lines, { title: name, onclick: () => go({ room: "metrics", big: name }, { push: true }) }).node,
    );
  });
}

function settingsText(value, indent = "") {
  if (value === null || typeof value !== "object") return String(value === null ? "–" : value);
  return Object.entries(value)
    .map(([key, one]) =>
      one !== null && typeof one === "object" && Object.keys(one).length
        ? `${indent}${key}:\n${settingsText(one, `${indent}  `)}`
        : `${indent}${key}: ${one !== null && typeof one === "object" ? (Array.isArray(one) ? "[]" : "{}") : settingsText(one)}`,
    )
    .join("\n");
}

function letter(source) {
  return sources.length > 1
    ? el("i", { className: "letter", style: { background: COLOURS_OF[source.number] } }, source.letter)
    : null;
}

async function drawOverview(room) {
  const plots = await headlines();
  const heads = plots.length ? el("div", { className: "room heads" }, plots) : null;
  const parts = (source) => [
    el("h1", {}, letter(source), source.name, el("span", { className: "kind" }, source.kind)),
    notesOf(source),
    reached(source),
    resultsTable(source),
    sources.length > 1 ? null : heads,
    partsTable(source),
    factsOf(source),
    Object.keys(source.settings).length
      ? el(
          "details",
          { className: "settings" },
          el("summary", {}, source.kind === "run" ? "recipe.yaml" : "plan.json"),
          prose(settingsText(source.settings), { className: "text code" }),
        )
      : null,
  ];
  const columns = sources.map((source) => el("section", { className: "source" }, parts(source)));
  fill(
    room,
    el(
      "div",
      { className: `page overview${sources.length > 1 ? " two" : ""}` },
      el("div", { className: "columns" }, columns),
      sources.length > 1 ? heads : null,
    ),
  );
}
