// Where the reader is, kept in the address after '#', so that a link leads back to it.

const DEFAULTS = {
  room: "overview",
  s: "0",
  unit: "",
  q: "",
  part: "",
  outcome: "",
  cls: "",
  stop: "",
  failure: "",
  tool: "",
  credit: "",
  smin: "",
  smax: "",
  rmin: "",
  rmax: "",
  tmin: "",
  tmax: "",
  bmin: "",
  sort: "order",
  down: "",
  g: "",
  r: "",
  n: "",
  view: "text",
  colour: "credit",
  tokens: "advantage",
  smooth: "0",
  log: "",
  x: "iteration",
  mq: "",
  big: "",
  pa: "",
  pb: "",
  differ: "",
  csort: "difference",
  task: "",
};
const state = { ...DEFAULTS };
const listeners = [];

function readAddress() {
  const [room, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  Object.assign(state, DEFAULTS, room ? { room } : {});
  for (const [name, value] of new URLSearchParams(query)) {
    if (Object.hasOwn(DEFAULTS, name) && name !== "room") state[name] = value;
  }
}

function address() {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) {
    if (name !== "room" && String(value) !== DEFAULTS[name]) query.set(name, value);
  }
  const text = query.toString();
  return `#/${state.room}${text ? `?${text}` : ""}`;
}

// Change the state; `listeners` are told which names changed.
function go(changes, { push = false } = {}) {
  const changed = Object.keys(changes).filter((name) => state[name] !== String(changes[name] ?? ""));
  if (!changed.length) return;
  for (const name of changed) state[name] = String(changes[name] ?? "");
  const next = address();
  try {
    if (push) history.pushState(null, "", next);
    else history.replaceState(null, "", next);
  } catch {
    // Too many changes a second for this browser: the address follows with the next one.
  }
  for (const listener of listeners) listener(new Set(changed));
}

window.addEventListener("popstate", () => {
  const before = { ...state };
  readAddress();
  const changed = new Set(Object.keys(state).filter((name) => state[name] !== before[name]));
  for (const listener of listeners) listener(changed);
});
