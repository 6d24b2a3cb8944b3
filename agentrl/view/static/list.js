// The list of trajectories or groups: filters, order, and rows drawn only where they are seen.

const ROW = 46;
const SORTS = {
  order: ["as stored", null],
  score: ["score", "score"],
  return: ["return", "return"],
  credit: ["credit", "credit"],
  turns: ["turns", "turns"],
  tokens: ["tokens", "tokens"],
  calls: ["tool calls", "calls"],
  seconds: ["seconds", "seconds"],
  branches: ["branches", null],
};
const FILTERS = [
  "q",
  "part",
  "outcome",
  "cls",
  "stop",
  "failure",
  "tool",
  "credit",
  "smin",
  "smax",
  "rmin",
  "rmax",
  "tmin",
  "tmax",
  "bmin",
];

const bound = (text, otherwise) => (text === "" || Number.isNaN(Number(text)) ? otherwise : Number(text));

// Trajectories that pass all filters, in order; `marks` are those that hold the searched text.
function passing(source, marks) {
  const { rows, groups, starts, outcome, classes, toolsets, parts } = source;
  const limits = {
    smin: bound(state.smin, null),
    smax: bound(state.smax, null),
    rmin: bound(state.rmin, null),
    rmax: bound(state.rmax, null),
  };
  const turnsFrom = bound(state.tmin, -Infinity);
  const turnsTo = bound(state.tmax, Infinity);
  const branches = bound(state.bmin, 0);
  const stop = state.stop === "" ? -1 : source.stops.indexOf(state.stop);
  const failure = state.failure === "" ? -1 : source.failures.indexOf(state.failure);
  const tool = state.tool === "" ? -1 : source.tools.indexOf(state.tool);
  const withTool = toolsets.map((set) => tool < 0 || set.includes(tool));
  const wanted = state.outcome === "" ? -1 : Number(state.outcome);
  const cls = state.cls === "" ? -1 : Number(state.cls);
  const partOk = parts.map(
    (part, at) => state.part === "" || state.part === String(at) || state.part === part.kind,
  );
  const within = (value, low, high) =>
    (low === null && high === null) ||
    (value !== null && value >= (low ?? -Infinity) && value <= (high ?? Infinity));
  const found = [];
  for (let group = 0; group < groups.part.length; group += 1) {
    if (
      !partOk[groups.part[group]] ||
      (cls >= 0 && classes[group] !== cls) ||
      groups.branches[group] < branches
    )
      continue;
    for (let row = starts[group]; row < starts[group + 1]; row += 1) {
      if (marks && !marks[row]) continue;
      if (wanted >= 0 && outcome[row] !== wanted) continue;
      if (stop >= 0 && rows.stop[row] !== stop) continue;
      if (failure >= 0 && rows.failure[row] !== failure) continue;
      if (!withTool[rows.tools[row]]) continue;
      if (rows.turns[row] < turnsFrom || rows.turns[row] > turnsTo) continue;
      if (
        !within(rows.score[row], limits.smin, limits.smax) ||
        !within(rows.return[row], limits.rmin, limits.rmax)
      )
        continue;
      if (state.credit === "trained" && rows.credit[row] === null) continue;
      if (state.credit === "untrained" && rows.credit[row] !== null) continue;
      found.push(row);
    }
  }
  return found;
}

const inGroups = (source) => (state.unit ? state.unit === "groups" : source.several);

function meanOf(source, column, group) {
  let total = 0;
  let known = 0;
  for (let row = source.starts[group]; row < source.starts[group + 1]; row += 1) {
    const value = source.rows[column][row];
    if (value !== null) {
      total += value;
      known += 1;
    }
  }
  return known ? total / known : null;
}

// `items`: group numbers or row numbers, sorted; absent values stand last.
function ordered(source, items, byGroup) {
  if (state.sort === "order" || !Object.hasOwn(SORTS, state.sort))
    return state.down ? items.reverse() : items;
  const [, column] = SORTS[state.sort];
  const spread = state.sort === "credit" && byGroup;
  const key = items.map((item) => {
    if (state.sort === "branches") return source.groups.branches[byGroup ? item : source.rows.group[item]];
    if (spread) return Math.max(...source.rowsOf(item).map((row) => Math.abs(source.rows.credit[row] ?? 0)));
    return byGroup ? meanOf(source, column, item) : source.rows[column][item];
  });
  const order = items.map((_, at) => at);
  const way = state.down ? -1 : 1;
  order.sort((a, b) => {
    if (key[a] === null || key[b] === null) return (key[a] === null) - (key[b] === null) || a - b;
    return way * (key[a] - key[b]) || a - b;
  });
  return order.map((at) => items[at]);
}

class List {
  constructor(open) {
    this.open = open;
    this.items = [];
    this.marks = null;
    this.needle = "";
    this.node = el("aside", { className: "list" });
    this.filters = el("div", { className: "filters" });
    this.counts = el("div", { className: "counts" });
    this.space = el("div", { className: "space" });
    this.scroller = el(
      "div",
      { className: "scroller", tabIndex: 0, "aria-label": "Trajectories", onscroll: () => this.draw() },
      this.space,
    );
    this.node.append(this.filters, this.counts, this.scroller);
    new ResizeObserver(() => this.draw()).observe(this.scroller);
  }

  get source() {
    return sources[Number(state.s)] || sources[0];
  }

  drawFilters() {
    const { source } = this;
    const set = (name) => (value) => go({ [name]: value });
    this.search = el("input", {
      type: "search",
      placeholder: "Search all text",
      title: "prompts, actions, tool calls, observations, answers, tasks",
      value: state.q,
      "aria-label": "Search",
      spellcheck: false,
      onfocus: () => source.searchable(() => {}).catch(() => {}),
      oninput: (event) => {
        clearTimeout(this.timer);
        this.timer = setTimeout(() => go({ q: event.target.value.trim() }), 120);
      },
    });
    const tally = new Array(5).fill(0);
    source.outcome.forEach((one) => {
      tally[one] += 1;
    });
    const outcomes = [
      ["", "all"],
      ...[RIGHT, WRONG, LOST, UNSCORED]
        .filter((one) => tally[one])
        .map((one) => [String(one), OUTCOMES[one], num(tally[one])]),
    ];
    const classes = [
      ["", "any group"],
      [String(RIGHT), "all right"],
      [String(MIXED), "mixed"],
      [String(WRONG), "all wrong"],
    ];
    const parts = [["", "everything"]];
    if (new Set(source.parts.map((part) => part.kind)).size > 1)
      parts.push(["train", "training"], ["eval", "evaluations"]);
    source.parts.forEach((part, at) => parts.push([String(at), part.label]));
    const used = (column, names, all) => [
      ["", all],
      ...[...new Set(source.rows[column])]
        .filter((one) => names[one])
        .map((one) => [names[one], words(names[one])]),
    ];
    const stops = used("stop", source.stops, "any end");
    const failures = used("failure", source.failures, "any failure");
    const range = (low, high, label) =>
      el(
        "label",
        { className: "range" },
        el("span", {}, label),
        el("input", {
          value: state[low],
          placeholder: "min",
          inputMode: "decimal",
          "aria-label": `least ${label}`,
          oninput: (event) => go({ [low]: event.target.value }),
        }),
        high
          ? el("input", {
              value: state[high],
              placeholder: "max",
              inputMode: "decimal",
              "aria-label": `most ${label}`,
              oninput: (event) => go({ [high]: event.target.value }),
            })
          : null,
      );
    const more = el(
      "details",
      {
        className: "more-filters",
        open: this.unfolded,
        ontoggle: (event) => {
          this.unfolded = event.target.open;
        },
      },
      el("summary", {}, "More filters"),
      el(
        "div",
        { className: "grid" },
        stops.length > 2 ? select(stops, state.stop, set("stop"), "how it ended") : null,
        failures.length > 1 ? select(failures, state.failure, set("failure"), "failure") : null,
        source.tools.length
          ? select(
              [["", "any tool"], ...source.tools.map((name) => [name, name])],
              state.tool,
              set("tool"),
              "tool used",
            )
          : null,
        source.creditFrom
          ? select(
              [
                ["", "trained or not"],
                ["trained", "trained"],
                ["untrained", "not trained"],
              ],
              state.credit,
              set("credit"),
              "training",
            )
          : null,
        range("smin", "smax", "score"),
        range("rmin", "rmax", "return"),
        range("tmin", "tmax", "turns"),
        range("bmin", null, "branches"),
      ),
    );
    fill(this.filters, [
      sources.length > 1
        ? segments(
            sources.map((one) => [one.number, `${one.letter} · ${one.name}`]),
            source.number,
            (s) => go({ s, g: "", r: "", n: "", part: "" }),
            "run",
          )
        : null,
      el("div", { className: "search" }, this.search, el("kbd", {}, "/")),
      el("div", { className: "line" }, segments(outcomes, state.outcome, set("outcome"), "outcome")),
      el(
        "div",
        { className: "line two" },
        parts.length > 2 ? select(parts, state.part, set("part"), "part") : null,
        source.several ? select(classes, state.cls, set("cls"), "groups") : null,
      ),
      more,
    ]);
  }

  drawCounts(rows, groups) {
    const { source } = this;
    const all = source.count;
    const filtered = FILTERS.some((name) => state[name] !== "");
    const byGroup = inGroups(source);
    const text =
      rows === all
        ? `${count(all, "trajectory", "trajectories")}`
        : `${num(rows)} of ${count(all, "trajectory", "trajectories")}`;
    fill(
      this.counts,
      el(
        "span",
        { className: "number", id: "counts" },
        source.several ? `${text} · ${count(groups, "group")}` : text,
      ),
      filtered
        ? el(
            "button",
            {
              type: "button",
              className: "quiet",
              onclick: () => go(Object.fromEntries(FILTERS.map((name) => [name, ""]))),
            },
            "clear",
          )
        : null,
      el("span", { className: "push" }),
      source.several
        ? segments(
            [
              ["groups", "groups"],
              ["rows", "single"],
            ],
            byGroup ? "groups" : "rows",
            (unit) => go({ unit }),
            "list",
          )
        : null,
      select(
        Object.entries(SORTS).map(([key, [label]]) => [key, label]),
        state.sort,
        (sort) => go({ sort, down: sort === "order" ? "" : "1" }),
        "order",
      ),
      el(
        "button",
        {
          type: "button",
          className: "quiet",
          title: "turn the order round",
          onclick: () => go({ down: state.down ? "" : "1" }),
        },
        state.down ? "↓" : "↑",
      ),
    );
  }

  async refresh() {
    const { source } = this;
    const needle = state.q.toLowerCase();
    if (needle !== this.needle || this.searched !== source) {
      this.needle = needle;
      this.searched = source;
      this.marks = null;
      if (needle) {
        const said = (text) => fill(this.counts, el("span", { className: "number", id: "counts" }, text));
        let marks;
        try {
          marks = await source.matching(
            needle,
            (part) => part < 1 && said(`reading ${Math.round(100 * part)} % …`),
          );
        } catch (error) {
          this.needle = "";
          said(`The text could not be read: ${error.message}`);
          return;
        }
        if (this.needle !== needle || this.source !== source) return;
        this.marks = marks;
      }
    }
    const rows = passing(source, this.marks);
    const groups = [];
    for (const row of rows) if (groups.at(-1) !== source.rows.group[row]) groups.push(source.rows.group[row]);
    const byGroup = inGroups(source);
    this.byGroup = byGroup;
    this.passed = byGroup ? new Set(rows) : null;
    this.items = ordered(source, byGroup ? groups : rows, byGroup);
    this.drawCounts(rows.length, groups.length);
    this.space.style.height = `${this.items.length * ROW}px`;
    this.drawn = "";
    this.draw();
  }

  get current() {
    const wanted = Number(this.byGroup ? state.g : state.r);
    return state.g === "" ? -1 : this.items.indexOf(wanted);
  }

  // Only what can be seen is in the document.
  draw() {
    const { scroller, items } = this;
    const from = Math.max(0, Math.floor(scroller.scrollTop / ROW) - 6);
    const to = Math.min(items.length, Math.ceil((scroller.scrollTop + scroller.clientHeight) / ROW) + 6);
    const current = this.current;
    const key = `${from} ${to} ${current} ${items.length}`;
    if (key === this.drawn) return;
    this.drawn = key;
    const nodes = [];
    for (let at = from; at < to; at += 1) nodes.push(this.item(at, at === current));
    if (!items.length)
      nodes.push(
        el(
          "p",
          { className: "empty" },
          this.source.count ? "Nothing passes these filters." : "There are no trajectories here.",
        ),
      );
    fill(this.space, ...nodes);
  }

  item(at, current) {
    const { source, byGroup } = this;
    const { rows, groups } = source;
    const group = byGroup ? this.items[at] : rows.group[this.items[at]];
    const row = byGroup ? source.starts[group] : this.items[at];
    const title = oneLine(groups.preview[group]) || source.tasks[groups.task[group]];
    const meta = [
      source.parts.length > 1 ? source.parts[groups.part[group]].label : null,
      source.tasks[groups.task[group]],
    ];
    if (!byGroup)
      meta.unshift(
        `${rows.turns[row]} ${rows.turns[row] === 1 ? "turn" : "turns"}`,
        source.stops[rows.stop[row]] === "terminated" ? null : words(source.stops[rows.stop[row]]),
      );
    if (byGroup && groups.branches[group]) meta.unshift(branched(groups.branches[group]));
    const mean = byGroup ? meanOf(source, "score", group) : rows.score[row];
    return el(
      "div",
      {
        className: `item${current ? " current" : ""}`,
        style: { top: `${at * ROW}px` },
        onclick: () => this.choose(at),
      },
      byGroup ? null : outcomeMark(source, row),
      el(
        "div",
        { className: "what" },
        el("div", { className: "title", dir: "auto" }, title),
        el(
          "div",
          { className: "meta" },
          byGroup ? dots(source, group, this.passed) : null,
          meta.filter(Boolean).map(oneLine).join(" · "),
        ),
      ),
      el(
        "div",
        { className: "value" },
        el("b", {}, num(mean, 2)),
        byGroup ? null : creditBar(source, rows.credit[row]),
      ),
    );
  }

  choose(at) {
    if (at < 0 || at >= this.items.length) return;
    const { source } = this;
    const group = this.byGroup ? this.items[at] : source.rows.group[this.items[at]];
    const row = this.byGroup ? this.best(group) : this.items[at];
    go({ g: group, r: row, n: "" });
    const top = at * ROW;
    if (top < this.scroller.scrollTop) this.scroller.scrollTop = top;
    if (top + ROW > this.scroller.scrollTop + this.scroller.clientHeight)
      this.scroller.scrollTop = top + ROW - this.scroller.clientHeight;
  }

  // The trajectory of a group to open first: one that passed the filters.
  best(group) {
    return this.source.rowsOf(group).find((row) => this.passed.has(row)) ?? this.source.starts[group];
  }

  move(by) {
    const at = this.current;
    this.choose(at < 0 ? 0 : Math.max(0, Math.min(this.items.length - 1, at + by)));
  }
}
