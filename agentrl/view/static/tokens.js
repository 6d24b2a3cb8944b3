// Every token of a trajectory with its mask, log-probability, entropy, credit and version.

const TOKEN_COLOURS = [
  ["mask", "mask"],
  ["logprob", "log-probability"],
  ["entropy", "entropy"],
  ["advantage", "credit"],
  ["version", "version"],
];
const TOKENS_SHOWN = 4000;
const READABLE = 0.65; // The strongest background that text is still read on, light or dark.

// Bytes of a character may lie in several tokens; the last of them shows it.
function tokenTexts(ids, pieces) {
  const decoder = new TextDecoder();
  return ids.map((id, at) => {
    const piece = pieces ? pieces[id] : undefined;
    if (typeof piece === "string") return piece;
    if (!piece) return null;
    const next = ids[at + 1];
    const more = next !== undefined && Array.isArray(pieces[next]);
    return decoder.decode(Uint8Array.from(piece), { stream: more });
  });
}

async function drawTokens(trajectory) {
  const { source, group, row, tree } = trajectory;
  const [stored, pieces] = await Promise.all([source.tokens(group), source.pieces()]);
  const own = stored && stored.trees[source.rows.tree[row]];
  const any = own && (own.action.some((ids) => ids.length) || stored.prompts[own.prompt].length);
  if (!any) {
    trajectory.drawText();
    trajectory.body.prepend(
      el("p", { className: "notice" }, "This policy speaks text: it has no tokens of its own to show."),
    );
    return;
  }
  const asked = TOKEN_COLOURS.some(([key]) => key === state.tokens) ? state.tokens : "advantage";
  const colour = asked === "advantage" && !tree.weight ? "entropy" : asked;
  const all = trajectory.path.flatMap((node) => own.entropy[node]).filter((one) => one !== null);
  const highest = Math.max(0.1, ...all);
  const scale = { highest, lowest: -4 };
  const block = (ids, facts, about) =>
    tokenBlock(ids, tokenTexts(ids, pieces), facts, about, { colour, scale, source });
  const parts = [
    el(
      "div",
      { className: "bar tokens-bar" },
      el("span", { className: "label" }, "background"),
      segments(TOKEN_COLOURS, colour, (tokens) => go({ tokens })),
      tokenLegend(colour, scale, source),
      pieces ? null : el("span", { className: "notice" }, "no tokenizer at hand: ids in place of text"),
    ),
    el(
      "article",
      { className: "turn prompt", "data-turn": "prompt" },
      el("div", { className: "side" }, el("b", {}, "prompt")),
      el("div", { className: "said" }, block(stored.prompts[own.prompt], null, { part: "prompt" })),
    ),
  ];
  trajectory.path.forEach((node, at) => {
    const value = worth(tree, node);
    const facts = {
      logprob: own.logprob[node],
      entropy: own.entropy[node],
      version: own.version[node],
    };
    const about = {
      part: "action",
      trained: tree.weight ? value !== null : null,
      value,
      version: tree.version[node],
      turn: at + 1,
    };
    parts.push(
      el(
        "article",
        {
          className: "turn",
          "data-turn": at,
          css: { "--worth": diverging(value === null ? null : value / source.creditScale) },
        },
        el(
          "div",
          { className: "side" },
          el("b", {}, `${unitOf(trajectory.trees)} ${at + 1}`),
          tree.weight
            ? el("span", { className: "worth" }, value === null ? "not trained" : signed(value))
            : null,
          el("span", {}, count(own.action[node].length, "token")),
        ),
        el(
          "div",
          { className: "said" },
          block(own.action[node], facts, about),
          own.observation[node].length
            ? block(own.observation[node], null, { part: "observation", turn: at + 1 })
            : null,
        ),
      ),
    );
  });
  fill(trajectory.body, ...parts);
}

function tokenBlock(ids, texts, facts, about, how) {
  const box = el("div", { className: `tokens ${about.part}` });
  const draw = (from) => {
    const to = Math.min(ids.length, from + TOKENS_SHOWN);
    for (let at = from; at < to; at += 1) box.append(token(ids[at], texts[at], facts, about, how, at));
    if (to < ids.length) {
      const button = el(
        "button",
        {
          className: "more",
          type: "button",
          onclick: () => {
            button.remove();
            draw(to);
          },
        },
        `show more of ${num(ids.length - to)} tokens`,
      );
      box.append(button);
    }
  };
  box.addEventListener("mousemove", (event) => {
    const span = event.target.closest(".token");
    if (span) tip.show(event, aboutToken(ids, texts, facts, about, Number(span.dataset.at)));
    else tip.hide();
  });
  box.addEventListener("mouseleave", tip.hide);
  draw(0);
  return box;
}

function token(id, text, facts, about, { colour, scale, source }, at) {
  const span = el("span", {
    className: `token${source.special.includes(text) ? " special" : ""}`,
    "data-at": at,
  });
  if (text === null) span.append(String(id));
  else if (text === "") span.append(el("span", { className: "odd" }, "…"));
  else span.append(...visible(text.replaceAll("\n", "↵\n")));
  const background = tokenColour(at, facts, about, colour, scale, source);
  if (background) span.style.background = background;
  return span;
}

function tokenColour(at, facts, about, colour, scale, source) {
  if (!facts) return "";
  if (colour === "mask") return about.trained === false ? "" : growing(0.32, "trained");
  if (colour === "logprob")
    return facts.logprob[at] === null
      ? ""
      : growing(READABLE * Math.min(1, facts.logprob[at] / scale.lowest));
  if (colour === "entropy")
    return facts.entropy[at] === undefined || facts.entropy[at] === null
      ? ""
      : growing(READABLE * Math.min(1, facts.entropy[at] / scale.highest));
  if (colour === "version") return ofVersion(versionOf(facts, about, at));
  if (about.value === null) return "";
  return `color-mix(in oklab, ${diverging(about.value / source.creditScale)} 62%, transparent)`;
}

// Version of the weights that sampled a token; its turn's where one version made the whole action.
function versionOf(facts, about, at) {
  return facts.version ? facts.version[at] : about.version;
}

function tokenLegend(colour, scale, source) {
  if (colour === "logprob")
    return el(
      "span",
      { className: "legend" },
      "certain",
      el("i", { className: "ramp growing soft" }),
      `${MINUS}${-scale.lowest} nats or less`,
    );
  if (colour === "entropy")
    return el(
      "span",
      { className: "legend" },
      "0",
      el("i", { className: "ramp growing soft" }),
      `${num(scale.highest)} nats`,
    );
  if (colour === "advantage")
    return source.creditFrom
      ? el(
          "span",
          { className: "legend" },
          `${MINUS}${num(source.creditScale, 2)}`,
          el("i", { className: "ramp diverging" }),
          `+${num(source.creditScale, 2)}`,
        )
      : el("span", { className: "legend" }, "nothing was trained here");
  if (colour === "mask")
    return el(
      "span",
      { className: "legend" },
      el("i", { className: "swatch trained" }),
      "sampled by the policy",
      el("i", { className: "swatch" }),
      "shown to it, or not trained",
    );
  return null;
}

function aboutToken(ids, texts, facts, about, at) {
  const text = texts[at];
  const logprob = facts ? facts.logprob[at] : null;
  const mask = !facts
    ? "not trained: " + (about.part === "prompt" ? "the prompt" : "an observation")
    : about.trained === null
      ? "sampled; nothing was trained here"
      : about.trained
        ? "trained"
        : "sampled, not trained: its turn has no weight";
  return [
    el(
      "b",
      { className: "mono" },
      text === null
        ? `token ${ids[at]}`
        : text === ""
          ? "part of a character"
          : visible(JSON.stringify(text).slice(0, 80)),
    ),
    pairs([
      ["id", String(ids[at])],
      ["mask", mask],
      [
        "log-probability",
        logprob === null || logprob === undefined
          ? null
          : `${num(logprob)} (${num(100 * Math.exp(logprob), 3)} %)`,
      ],
      [
        "entropy",
        facts && facts.entropy[at] !== undefined && facts.entropy[at] !== null
          ? `${num(facts.entropy[at])} nats`
          : null,
      ],
      ["credit", facts && about.trained ? signed(about.value, 3) : null],
      ["version", facts ? num(versionOf(facts, about, at)) : null],
      ["turn", about.turn ? String(about.turn) : null],
    ]),
  ];
}
