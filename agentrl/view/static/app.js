// Puts the rooms together, and answers the keyboard.

const ROOMS = { overview: "Overview", trajectories: "Trajectories", metrics: "Metrics", compare: "Compare" };
const HELP = [
  ["j k", "next, previous in the list"],
  ["h l", "previous, next trajectory of the group"],
  ["n p", "next, previous turn"],
  ["Enter", "to the trajectory"],
  ["Esc", "back"],
  ["/", "search"],
  ["t", "text or tokens"],
  ["c", "colour of the turns"],
  ["f", "more room for the tree"],
  ["1 – 4", "rooms"],
  ["?", "this"],
];

const here = { list: null, forest: null, trajectory: null, comparison: null, turn: 0 };

function rooms() {
  return Object.keys(ROOMS).filter(
    (name) =>
      (name !== "compare" || sources.length > 1) &&
      (name !== "metrics" || sources.some((one) => one.metrics)),
  );
}

function drawTop() {
  fill(
    byId("top"),
    el("span", { className: "brand" }, "agentrl"),
    el(
      "span",
      { className: "names" },
      sources.map((source, at) =>
        el(
          "span",
          {},
          at ? el("span", { className: "faint" }, " and ") : null,
          sources.length > 1 ? el("i", { className: "dot", style: { background: COLOURS_OF[at] } }) : null,
          source.name,
        ),
      ),
    ),
    el(
      "nav",
      {},
      rooms().map((name) =>
        el(
          "button",
          {
            type: "button",
            className: state.room === name ? "on" : "",
            "aria-current": state.room === name ? "page" : null,
            onclick: () => go({ room: name }, { push: true }),
          },
          ROOMS[name],
        ),
      ),
    ),
    el("span", { className: "push" }),
    el("button", { type: "button", className: "quiet", title: "light or dark", onclick: turnTheme }, "◐"),
    el("button", { type: "button", className: "quiet", title: "keys", onclick: help }, "?"),
  );
}

function theme() {
  try {
    return localStorage.getItem("agentrl-theme");
  } catch {
    return null;
  }
}

function turnTheme() {
  const dark = getComputedStyle(ROOT).colorScheme.includes("dark");
  ROOT.dataset.theme = dark ? "light" : "dark";
  try {
    localStorage.setItem("agentrl-theme", ROOT.dataset.theme);
  } catch {
    // A page without storage forgets the choice, and that is all.
  }
}

function help() {
  const open = document.querySelector("dialog");
  if (open) {
    open.remove();
    return;
  }
  const box = el(
    "dialog",
    { className: "help" },
    el("h3", {}, "Keys"),
    pairs(HELP.map(([key, what]) => [el("kbd", {}, key), what])),
    el("button", { type: "button", className: "quiet", onclick: () => box.remove() }, "close"),
  );
  document.body.append(box);
  box.addEventListener("close", () => box.remove());
  box.showModal();
}

function failed(room, error) {
  fill(
    room,
    el(
      "div",
      { className: "page" },
      el(
        "div",
        { className: "notes" },
        el("b", {}, "This could not be shown"),
        el("p", {}, String(error.message || error)),
        el(
          "p",
          { className: "faint" },
          SERVED
            ? "If the server has ended, start `agentrl view` again and reload."
            : "The file may be cut; write it again with `agentrl view DIR --out FILE`.",
        ),
      ),
    ),
  );
}

async function drawRoom() {
  const room = byId("room");
  tip.hide();
  room.className = state.room;
  room.redraw = null;
  Object.assign(here, { forest: null, trajectory: null, comparison: null });
  drawTop();
  try {
    if (!rooms().includes(state.room)) state.room = "overview";
    if (state.room === "trajectories") await drawTrajectories(room);
    else if (state.room === "metrics") await drawMetrics(room);
    else if (state.room === "compare") {
      here.comparison = new Comparison(room);
      await here.comparison.refresh();
    } else await drawOverview(room);
  } catch (error) {
    failed(room, error);
    throw error;
  }
}

async function drawTrajectories(room) {
  here.list = new List();
  here.detail = el("div", { className: "detail" });
  fill(room, el("div", { className: "split" }, here.list.node, here.detail));
  here.list.drawFilters();
  await here.list.refresh();
  if (state.g === "" && here.list.items.length) here.list.choose(0);
  else here.list.scroller.scrollTop = Math.max(0, here.list.current * ROW - 120);
  await drawDetail();
}

let drawing = 0;

async function drawDetail() {
  const { detail, list } = here;
  const { source } = list;
  const mine = (drawing += 1);
  const group = Number(state.g);
  if (state.g === "" || !(group < source.groups.part.length)) {
    fill(
      detail,
      el(
        "p",
        { className: "empty" },
        source.count ? "Choose a trajectory on the left." : "Nothing was played here yet.",
      ),
    );
    return;
  }
  const known = Number(state.r);
  const row =
    known >= source.starts[group] && known < source.starts[group + 1] && state.r !== ""
      ? known
      : source.starts[group];
  let trees;
  try {
    trees = await source.trees(group);
  } catch (error) {
    failed(detail, error);
    return;
  }
  if (mine !== drawing) return;
  const same =
    here.forest &&
    here.forest.group === group &&
    here.forest.source === source &&
    detail.contains(here.forest.node);
  if (!same) {
    here.forest = new Forest({ source, group, trees }, (chosen, turn) =>
      go({ r: chosen ?? state.r, n: turn }),
    );
    here.place = el("div");
    fill(detail, heading(source, group), here.forest.node, here.place);
    detail.scrollTop = 0;
  }
  here.forest.select(row);
  const view = `${group}/${row}/${source.number}/${state.view}/${state.tokens}/${state.q}`;
  if (here.trajectory?.view !== view || !same) {
    const one = new Trajectory({ source, group, trees, row });
    one.view = view;
    await one.draw();
    if (mine !== drawing) return;
    here.trajectory = one;
    fill(here.place, one.node);
    one.show();
  } else here.trajectory.show();
}

function heading(source, group) {
  const { groups } = source;
  const total = source.starts[group + 1] - source.starts[group];
  const mean = meanOf(source, "score", group);
  return el(
    "div",
    { className: "heading" },
    el("h2", { dir: "auto" }, oneLine(groups.preview[group]) || source.tasks[groups.task[group]]),
    el(
      "div",
      { className: "meta" },
      [
        source.tasks[groups.task[group]],
        source.parts[groups.part[group]].label,
        count(total, "trajectory", "trajectories"),
        groups.trees[group] > 1 ? count(groups.trees[group], "tree") : null,
        groups.branches[group] ? branched(groups.branches[group]) : null,
        mean === null ? null : `mean score ${num(mean)}`,
        groups.lost[group] ? `${groups.lost[group]} lost and played again` : null,
      ]
        .filter(Boolean)
        .map(oneLine)
        .join(" · "),
    ),
  );
}

// What of the page has to follow a change of the state.
listeners.push((changed) => {
  const any = (...names) => names.some((name) => changed.has(name));
  if (any("room")) return void drawRoom();
  if (state.room === "trajectories") {
    if (
      any("s") ||
      any("part", "outcome", "cls", "stop", "failure", "tool", "credit", "unit", "sort", "down")
    )
      here.list.drawFilters();
    if (any(...FILTERS, "s", "unit", "sort", "down"))
      void here.list.refresh().then(() => (any("s") && state.g === "" ? here.list.choose(0) : null));
    if (any("colour") && here.forest) {
      const { forest } = here;
      forest.node.firstChild.replaceWith(forest.bar());
      forest.draw();
      forest.select(Number(state.r));
    }
    if (any("g", "r", "n", "view", "tokens", "q")) {
      here.list.draw();
      void drawDetail();
    }
  } else if (state.room === "metrics") byId("room").redraw?.();
  else if (state.room === "compare") {
    if (any("pa", "pb", "differ", "csort")) here.comparison.drawBar();
    if (any("pa", "pb", "differ", "csort", "q")) void here.comparison.refresh();
    else if (any("task", "view", "tokens")) {
      here.comparison.drawRows();
      void here.comparison.open();
    }
  }
});

function cycle(choices, current) {
  const keys = choices.map(([key]) => key);
  return keys[(keys.indexOf(current) + 1) % keys.length];
}

function sibling(by) {
  const { list } = here;
  const { source } = list;
  const group = Number(state.g);
  if (state.g === "") return;
  const row = Math.max(source.starts[group], Math.min(source.starts[group + 1] - 1, Number(state.r) + by));
  go({ r: row, n: "" });
}

function turn(by) {
  const { trajectory } = here;
  if (!trajectory) return;
  const at = state.n === "" || state.n === "prompt" ? -1 : Number(state.n);
  go({ n: Math.max(0, Math.min(trajectory.path.length - 1, at + by)) });
}

const KEYS = {
  j: () => (here.comparison || here.list)?.move(1),
  k: () => (here.comparison || here.list)?.move(-1),
  l: () => sibling(1),
  h: () => sibling(-1),
  n: () => turn(1),
  p: () => turn(-1),
  t: () => go({ view: state.view === "tokens" ? "text" : "tokens" }),
  c: () =>
    state.view === "tokens"
      ? go({ tokens: cycle(TOKEN_COLOURS, state.tokens) })
      : go({
          colour: cycle(
            COLOURS.filter(([key]) => here.forest?.offers(key)),
            here.forest?.colour(),
          ),
        }),
  f: () => here.detail?.classList.toggle("tall"),
  "?": help,
  Enter: () => here.trajectory?.node.scrollIntoView({ block: "start" }),
};
const IN_LISTS = new Set(["h", "l", "n", "p", "t", "c", "f", "Enter"]);

window.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest?.("input, textarea, select");
  if (event.key === "Escape") {
    if (typing) typing.blur();
    else if (state.big) go({ big: "" });
    else if (here.detail?.classList.contains("tall")) here.detail.classList.remove("tall");
    else if (state.n !== "") go({ n: "" });
    else if (state.room !== "overview") go({ room: "overview" }, { push: true });
    return;
  }
  if (typing) return;
  if (event.key === "/") {
    const search = document.querySelector("#room input[type=search]");
    if (search) {
      event.preventDefault();
      search.focus();
      search.select();
    }
    return;
  }
  const number = Number(event.key);
  if (number >= 1 && number <= rooms().length) return void go({ room: rooms()[number - 1] }, { push: true });
  const act = KEYS[event.key];
  if (!act || (IN_LISTS.has(event.key) && state.room !== "trajectories")) return;
  if (event.key === "Enter" && event.target.closest?.("button, summary, a")) return;
  event.preventDefault();
  act();
});

async function start() {
  const saved = theme();
  if (saved === "dark" || saved === "light") ROOT.dataset.theme = saved;
  readAddress();
  try {
    await Promise.all(sources.map((source) => source.open()));
  } catch (error) {
    drawTop();
    failed(byId("room"), error);
    throw error;
  }
  await drawRoom();
  ROOT.dataset.ready = "1";
  performance.mark("ready");
}

void start();
