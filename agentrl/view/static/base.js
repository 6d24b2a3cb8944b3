// Elements, numbers, colours, and text of unknown origin made safe to look at.
// Nothing in this program turns text into markup: elements are made one by one, text is text.

const SVG = "http://www.w3.org/2000/svg";

function put(node, properties, children) {
  for (const [name, value] of Object.entries(properties || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(node.style, value);
    else if (name === "css") for (const [key, one] of Object.entries(value)) node.style.setProperty(key, one);
    else if (name in node && !(node instanceof SVGElement)) node[name] = value;
    else node.setAttribute(name === "className" ? "class" : name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((one) => one !== null && one !== undefined && one !== false));
  return node;
}

function el(tag, properties, ...children) {
  return put(document.createElement(tag), properties, children);
}

function svg(tag, properties, ...children) {
  return put(document.createElementNS(SVG, tag), properties, children);
}

// New children for a node; those that are null or false are left out.
function fill(node, ...children) {
  node.replaceChildren();
  return put(node, null, children);
}

const byId = (id) => document.getElementById(id);

// -- numbers ------------------------------------------------------------------------------------

const MINUS = "\u2212";

function num(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  let text;
  if (size === 0) text = "0";
  else if (size >= 1e6 || size < 1e-4)
    text = size.toExponential(2).replace("e+", "e").replace("e-", `e${MINUS}`);
  else if (Number.isInteger(value)) text = size.toLocaleString("en-US");
  else if (size >= 1000) text = Math.round(size).toLocaleString("en-US");
  else text = String(Number(size.toPrecision(digits)));
  return (value < 0 ? MINUS : "") + text;
}

const signed = (value, digits = 2) =>
  value === null || value === undefined
    ? "–"
    : (value > 0 ? "+" : "") + num(Number(value.toPrecision(digits)), digits);

const count = (n, one, many = `${one}s`) => `${num(n)} ${n === 1 ? one : many}`;

const branched = (n) => count(n, "branch", "branches");

function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 120) return `${num(value / 60)} min`;
  if (value >= 1) return `${num(value)} s`;
  return value === 0 ? "0 s" : `${num(value * 1000)} ms`;
}

const words = (name) => name.replaceAll("_", " ");

// -- colours: mixed by the browser from the theme's, so that a change of theme needs no redraw ----

// A value between -1 and 1, from negative over nothing to positive.
function diverging(value) {
  if (value === null || value === undefined) return "transparent";
  const part = Math.round(100 * Math.sqrt(Math.min(1, Math.abs(value))));
  return `color-mix(in oklab, var(--${value < 0 ? "negative" : "positive"}) ${part}%, var(--zero))`;
}

// A value between 0 and 1, from nothing to much.
const growing = (value, hue = "much") =>
  `color-mix(in oklab, var(--${hue}) ${Math.round(100 * Math.max(0, Math.min(1, value)))}%, transparent)`;

const VERSIONS = 6;
const ofVersion = (version) =>
  `color-mix(in oklab, var(--version-${((version % VERSIONS) + VERSIONS) % VERSIONS}) 38%, transparent)`;

// -- text of unknown origin -----------------------------------------------------------------------

const ODD = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}\u115f\u1160\u2800\u3164\ufe00-\ufe0e\uffa0]/gu;
const NAMES = {
  0x00ad: "SHY",
  0x061c: "ALM",
  0x200b: "ZWSP",
  0x200c: "ZWNJ",
  0x200d: "ZWJ",
  0x200e: "LRM",
  0x200f: "RLM",
  0x2028: "LS",
  0x2029: "PS",
  0x202a: "LRE",
  0x202b: "RLE",
  0x202c: "PDF",
  0x202d: "LRO",
  0x202e: "RLO",
  0x2060: "WJ",
  0x2066: "LRI",
  0x2067: "RLI",
  0x2068: "FSI",
  0x2069: "PDI",
  0xfeff: "BOM",
  0x1b: "ESC",
  0x00: "NUL",
};

function odd(char) {
  const code = char.codePointAt(0);
  const hex = code.toString(16).toUpperCase().padStart(4, "0");
  return el("span", { className: "odd", title: `U+${hex}` }, NAMES[code] || hex);
}

// Joins that belong to a picture of a person or a flag are left alone.
const joins = (text, at) =>
  text[at] === "\u200d" &&
  at > 0 &&
  /\p{Extended_Pictographic}|\ufe0f/u.test(text.slice(Math.max(0, at - 2), at));

function visible(text, needle) {
  const nodes = [];
  let from = 0;
  const plainText = (end) => {
    if (end > from) nodes.push(...marked(text.slice(from, end), needle));
  };
  for (const found of text.matchAll(ODD)) {
    if (found[0] === "\n" || found[0] === "\t" || joins(text, found.index)) continue;
    plainText(found.index);
    nodes.push(odd(found[0]));
    from = found.index + found[0].length;
  }
  plainText(text.length);
  return nodes;
}

function marked(text, needle) {
  if (!needle) return [text];
  const nodes = [];
  const low = text.toLowerCase();
  let from = 0;
  if (low.length !== text.length) return [text];
  for (let at = low.indexOf(needle); at >= 0 && nodes.length < 400; at = low.indexOf(needle, from)) {
    if (at > from) nodes.push(text.slice(from, at));
    nodes.push(el("mark", {}, text.slice(at, at + needle.length)));
    from = at + needle.length;
  }
  if (from < text.length) nodes.push(text.slice(from));
  return nodes;
}

// One line without odd characters, for lists.
const oneLine = (text) => text.replace(ODD, "\u00b7").replace(/\s+/g, " ").trim();

const FIRST = 3000;
const MORE = 60000;

// Text as a block: special tokens as quiet pills, long text clipped until asked for.
function prose(text, { special = [], needle = "", className = "text" } = {}) {
  const block = el("div", { className, dir: "auto" });
  const pattern = special.length
    ? new RegExp(`(${special.map((one) => one.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|")})`)
    : null;
  const show = (from, to) => {
    const pieces = pattern ? text.slice(from, to).split(pattern) : [text.slice(from, to)];
    pieces.forEach((piece, at) => {
      if (at % 2) block.append(el("span", { className: "special" }, piece));
      else block.append(...visible(piece, needle));
    });
  };
  let shown = Math.min(text.length, FIRST);
  if (text.length - shown < 400) shown = text.length;
  show(0, shown);
  const next = () => {
    if (shown >= text.length) return;
    const rest = text.length - shown;
    const button = el(
      "button",
      {
        className: "more",
        type: "button",
        onclick: () => {
          button.remove();
          const to = Math.min(text.length, shown + MORE);
          show(shown, to);
          shown = to;
          next();
        },
      },
      `show ${num(Math.min(rest, MORE))} more of ${num(rest)} characters`,
    );
    block.append(button);
  };
  next();
  return block;
}

// -- small things -----------------------------------------------------------------------------------

function copyButton(get, label = "copy") {
  const button = el(
    "button",
    {
      type: "button",
      className: "quiet",
      onclick: async () => {
        const text = get();
        try {
          await navigator.clipboard.writeText(text);
        } catch {
          const area = el("textarea", { value: text });
          document.body.append(area);
          area.select();
          document.execCommand("copy");
          area.remove();
        }
        button.textContent = "copied";
        setTimeout(() => {
          button.textContent = label;
        }, 900);
      },
    },
    label,
  );
  return button;
}

// `choices`: pairs of value and label.
function segments(choices, value, change, label) {
  return el(
    "div",
    { className: "segments", role: "group", "aria-label": label },
    choices.map(([key, text, title]) =>
      el(
        "button",
        {
          type: "button",
          title,
          className: String(key) === String(value) ? "on" : "",
          onclick: () => change(key),
        },
        text,
      ),
    ),
  );
}

function select(choices, value, change, label) {
  return el(
    "select",
    { "aria-label": label, title: label, onchange: (event) => change(event.target.value) },
    choices.map(([key, text]) => el("option", { value: key, selected: String(key) === String(value) }, text)),
  );
}

const tip = {
  show(event, ...content) {
    const box = byId("tip");
    fill(box, content);
    box.hidden = false;
    const { innerWidth: width, innerHeight: height } = window;
    const size = box.getBoundingClientRect();
    box.style.left = `${Math.max(8, Math.min(event.clientX + 14, width - size.width - 8))}px`;
    const below = event.clientY + 16;
    box.style.top = `${below + size.height > height - 8 ? Math.max(8, event.clientY - size.height - 12) : below}px`;
  },
  hide() {
    byId("tip").hidden = true;
  },
};

const pairs = (list) =>
  el(
    "dl",
    { className: "pairs" },
    list
      .filter((one) => one && one[1] !== null && one[1] !== undefined)
      .map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]),
  );

function say(text) {
  const box = byId("said");
  box.textContent = text;
  box.hidden = !text;
}
