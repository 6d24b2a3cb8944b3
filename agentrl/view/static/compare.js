// Two sources, task by task.

function partOf(source, chosen) {
  if (chosen !== "" && source.parts[Number(chosen)]) return Number(chosen);
  const last = source.parts.findLastIndex((part) => part.kind === "eval");
  return source.kind === "evaluation" ? -1 : last < 0 ? source.parts.length - 1 : last;
}

// Score of each task in a part (-1: in all of them): mean, samples and groups.
function taskScores(source, part) {
  const found = new Map();
  source.groups.part.forEach((own, group) => {
    if (part >= 0 && own !== part) return;
    const suite = source.parts[own].suite;
    const task = source.tasks[source.groups.task[group]];
    const key = suite ? `${suite} ${task}` : task;
    const mean = meanOf(source, "score", group);
    const one = found.get(key) || { key, suite, task, groups: [], total: 0, known: 0 };
    one.groups.push(group);
    if (mean !== null) {
      one.total += mean;
      one.known += 1;
    }
    found.set(key, one);
  });
  for (const one of found.values()) one.score = one.known ? one.total / one.known : null;
  return found;
}

function matched() {
  const [a, b] = sources;
  const left = taskScores(a, partOf(a, state.pa));
  const right = taskScores(b, partOf(b, state.pb));
  const keys = [...new Set([...left.keys(), ...right.keys()])];
  return keys.map((key) => {
    const [one, two] = [left.get(key), right.get(key)];
    const difference = one && two && one.score !== null && two.score !== null ? two.score - one.score : null;
    return {
      key,
      a: one,
      b: two,
      difference,
      title:
        oneLine((one || two) === one ? a.groups.preview[one.groups[0]] : b.groups.preview[two.groups[0]]) ||
        key,
    };
  });
}

class Comparison {
  constructor(room) {
    this.room = room;
    this.space = el("div", { className: "space" });
    this.scroller = el("div", { className: "scroller", onscroll: () => this.drawRows() }, this.space);
    this.summary = el("div", { className: "summary" });
    this.bar = el("div", { className: "filters" });
    this.detail = el("div", { className: "detail pair" });
    fill(
      room,
      el(
        "div",
        { className: "split compare" },
        el("aside", { className: "list" }, this.bar, this.summary, this.scroller),
        this.detail,
      ),
    );
    new ResizeObserver(() => this.drawRows()).observe(this.scroller);
    this.drawBar();
  }

  drawBar() {
    const part = (source, name) =>
      source.parts.length > 1
        ? select(
            [
              ...(source.kind === "evaluation" ? [["", "all suites"]] : []),
              ...source.parts.map((one, at) => [at, `${source.letter} · ${one.label}`]),
            ],
            partOf(source, state[name]),
            (value) => go({ [name]: value }),
            `part of ${source.name}`,
          )
        : null;
    this.search = el("input", {
      type: "search",
      placeholder: "Search tasks",
      value: state.q,
      "aria-label": "Search",
      oninput: (event) => go({ q: event.target.value }),
    });
    fill(
      this.bar,
      el("div", { className: "search" }, this.search, el("kbd", {}, "/")),
      el("div", { className: "line two" }, part(sources[0], "pa"), part(sources[1], "pb")),
      el(
        "div",
        { className: "line" },
        segments(
          [
            ["", "all tasks"],
            ["1", "only where they differ"],
          ],
          state.differ,
          (differ) => go({ differ }),
          "which tasks",
        ),
        select(
          [
            ["difference", "B above A first"],
            ["behind", "A above B first"],
            ["task", "by task"],
          ],
          state.csort,
          (csort) => go({ csort }),
          "order",
        ),
      ),
    );
  }

  async refresh() {
    const all = matched();
    const both = all.filter((one) => one.difference !== null);
    const needle = state.q.toLowerCase();
    this.items = all.filter(
      (one) =>
        (!state.differ || (one.difference !== null && Math.abs(one.difference) > 1e-9)) &&
        (!needle || one.key.toLowerCase().includes(needle) || one.title.toLowerCase().includes(needle)),
    );
    const way = state.csort === "behind" ? -1 : 1;
    if (state.csort === "task") this.items.sort((x, y) => x.key.localeCompare(y.key));
    else
      this.items.sort(
        (x, y) =>
          (x.difference === null) - (y.difference === null) ||
          way * (y.difference - x.difference) ||
          x.key.localeCompare(y.key),
      );
    const mean = (side) =>
      both.length ? both.reduce((sum, one) => sum + one[side].score, 0) / both.length : null;
    const better = both.filter((one) => one.difference > 1e-9).length;
    const worse = both.filter((one) => one.difference < -1e-9).length;
    fill(
      this.summary,
      el(
        "p",
        {},
        `${count(both.length, "task")} in both · mean score `,
        el("b", {}, num(mean("a"))),
        " and ",
        el("b", {}, num(mean("b"))),
      ),
      el(
        "p",
        { id: "counts" },
        `B above A on ${num(better)}, below on ${num(worse)}, equal on ${num(both.length - better - worse)}${this.items.length === all.length ? "" : ` · ${num(this.items.length)} shown`}`,
      ),
    );
    this.space.style.height = `${this.items.length * ROW}px`;
    if (!state.task && this.items.length) go({ task: this.items[0].key });
    this.drawRows();
    await this.open();
  }

  drawRows() {
    if (!this.items) return;
    const from = Math.max(0, Math.floor(this.scroller.scrollTop / ROW) - 6);
    const to = Math.min(
      this.items.length,
      Math.ceil((this.scroller.scrollTop + this.scroller.clientHeight) / ROW) + 6,
    );
    const nodes = [];
    for (let at = from; at < to; at += 1) {
      const one = this.items[at];
      const bar =
        one.difference === null
          ? null
          : el(
              "span",
              { className: "credit-bar" },
              el("i", {
                style: {
                  width: `${50 * Math.min(1, Math.abs(one.difference))}%`,
                  [one.difference < 0 ? "right" : "left"]: "50%",
                  background: one.difference < 0 ? COLOURS_OF[0] : COLOURS_OF[1],
                },
              }),
            );
      nodes.push(
        el(
          "div",
          {
            className: `item${state.task === one.key ? " current" : ""}`,
            style: { top: `${at * ROW}px` },
            onclick: () => go({ task: one.key }),
          },
          el(
            "div",
            { className: "what" },
            el("div", { className: "title", dir: "auto" }, one.title),
            el("div", { className: "meta" }, oneLine(one.key)),
          ),
          el(
            "div",
            { className: "value" },
            el("b", {}, `${one.a ? num(one.a.score, 2) : "–"} → ${one.b ? num(one.b.score, 2) : "–"}`),
            bar,
          ),
        ),
      );
    }
    if (!this.items.length)
      nodes.push(
        el("p", { className: "empty" }, state.differ ? "They differ nowhere." : "No task has this name."),
      );
    fill(this.space, ...nodes);
  }

  move(by) {
    const at = this.items.findIndex((one) => one.key === state.task);
    const next = this.items[at < 0 ? 0 : Math.max(0, Math.min(this.items.length - 1, at + by))];
    if (next) go({ task: next.key });
  }

  async open() {
    const chosen = state.task && matched().find((one) => one.key === state.task);
    if (!chosen) {
      fill(this.detail, el("p", { className: "empty" }, "Choose a task to see both sides of it."));
      return;
    }
    const sides = await Promise.all(
      [chosen.a, chosen.b].map(async (one, number) => {
        const source = sources[number];
        const host = el(
          "section",
          { className: "side-of" },
          el(
            "h3",
            {},
            el("i", { className: "letter", style: { background: COLOURS_OF[number] } }, source.letter),
            source.name,
            el("span", { className: "push" }),
            one
              ? el(
                  "button",
                  {
                    type: "button",
                    className: "quiet",
                    onclick: () =>
                      go(
                        {
                          room: "trajectories",
                          s: number,
                          g: one.groups[0],
                          r: source.starts[one.groups[0]],
                          task: "",
                          q: "",
                        },
                        { push: true },
                      ),
                  },
                  "open",
                )
              : null,
          ),
        );
        if (!one) host.append(el("p", { className: "empty" }, "This task was not played here."));
        else await drawGroup(host, source, one.groups[0], source.starts[one.groups[0]]);
        return host;
      }),
    );
    if (state.task === chosen.key) fill(this.detail, ...sides);
  }
}

// A group on its own: its tree, and the trajectory that is picked in it.
async function drawGroup(host, source, group, row) {
  const trees = await source.trees(group);
  const place = el("div");
  const show = async (chosen) => {
    if (chosen === null || chosen === undefined) return;
    const one = await new Trajectory({ source, group, trees, row: chosen }).draw();
    fill(place, one.node);
    forest.select(chosen);
  };
  const forest = new Forest({ source, group, trees, narrow: true }, show);
  host.append(forest.node, place);
  await show(row);
}
