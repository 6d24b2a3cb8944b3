// One trajectory, turn by turn: what was said, called, seen and earned.

class Trajectory {
  // `view`: { source, group, trees, row }
  constructor(view) {
    Object.assign(this, view);
    const { rows } = this.source;
    this.tree = this.trees[rows.tree[this.row]];
    this.path = [];
    for (let node = rows.leaf[this.row]; node >= 0; node = this.tree.parents[node]) this.path.unshift(node);
    this.body = el("div", { className: "turns" });
    this.node = el("section", { className: "trajectory" }, this.head(), this.body);
  }

  // Leaves below each node, to tell what is shared.
  sharing() {
    const found = new Int32Array(this.tree.parents.length);
    for (const leaf of Object.keys(this.tree.leaves))
      for (let node = Number(leaf); node >= 0; node = this.tree.parents[node]) found[node] += 1;
    return found;
  }

  childrenOf(node) {
    return this.tree.parents.flatMap((parent, at) => (parent === node ? [at] : []));
  }

  head() {
    const { source, row, tree } = this;
    const { rows, groups } = source;
    const place = source.rowsOf(this.group).indexOf(row);
    const total = source.starts[this.group + 1] - source.starts[this.group];
    const failure = source.failures[rows.failure[row]];
    const stop = source.stops[rows.stop[row]];
    const facts = [
      el(
        "span",
        {},
        outcomeMark(source, row),
        failure ? `lost: ${words(failure)}` : OUTCOMES[source.outcome[row]],
      ),
      el("span", {}, words(stop)),
      el("span", {}, "return ", el("b", {}, num(rows.return[row]))),
      source.creditFrom && source.parts[groups.part[this.group]].kind === "train"
        ? el(
            "span",
            {},
            "credit ",
            el("b", {}, rows.credit[row] === null ? "not trained" : signed(rows.credit[row])),
          )
        : null,
      el("span", {}, count(rows.turns[row], "turn")),
      rows.tokens[row] ? el("span", {}, count(rows.tokens[row], "token")) : null,
      el("span", {}, seconds(rows.seconds[row])),
      total > 1 ? el("span", { className: "faint" }, `${place + 1} of ${total}`) : null,
    ];
    const asTokens = state.view === "tokens";
    return el(
      "div",
      { className: "bar sticky" },
      el("span", { className: "facts" }, facts),
      el("span", { className: "push" }),
      segments(
        [
          ["text", "text"],
          ["tokens", "tokens", "mask, log-probability, entropy, credit and version of every token (t)"],
        ],
        asTokens ? "tokens" : "text",
        (view) => go({ view }),
      ),
      copyButton(() => this.plain(), "copy text"),
      copyButton(() => location.href, "copy link"),
    );
  }

  plain() {
    const { tree } = this;
    let text = tree.prompt || "";
    this.path.forEach((node, at) => {
      const goesOn = at > 0 && tree.goesOn && tree.goesOn[this.path[at - 1]];
      text += (goesOn ? "" : "\n") + (tree.action[node] || "");
      if (!tree.goesOn || !tree.goesOn[node]) text += `\n${tree.observation[node] || ""}`;
    });
    return text;
  }

  async draw() {
    if (state.view === "tokens") await drawTokens(this);
    else this.drawText();
    this.show();
    return this;
  }

  drawText() {
    const { tree, source } = this;
    const needle = state.q.toLowerCase();
    const options = { special: source.special, needle };
    const shared = this.sharing();
    const parts = [];
    parts.push(
      el(
        "article",
        { className: "turn prompt", "data-turn": "prompt" },
        el(
          "div",
          { className: "side" },
          el("b", {}, "prompt"),
          tree.promptTokens ? el("span", {}, count(tree.promptTokens, "token")) : null,
        ),
        el(
          "div",
          { className: "said" },
          tree.prompt === null ? this.withoutText(tree.promptTokens) : prose(tree.prompt, options),
        ),
      ),
    );
    this.path.forEach((node, at) => parts.push(this.turn(node, at, { options, shared })));
    parts.push(...this.rest(options));
    fill(this.body, ...parts);
  }

  withoutText(tokens) {
    return el(
      "div",
      { className: "text empty" },
      tokens ? `${count(tokens, "token")}, whose text needs the policy's tokenizer` : "no text was kept",
    );
  }

  turn(node, at, { options, shared }) {
    const { tree, source } = this;
    const value = worth(tree, node);
    const rewards = [
      ...Object.entries(tree.rewards[node] || {}),
      ...Object.entries(tree.measured[node] || {}).map(([name, one]) => [name, one, true]),
    ];
    if (!tree.rewards[node] && tree.reward[node]) rewards.unshift(["reward", tree.reward[node]]);
    const said = el("div", { className: "said" });
    if (tree.action[node] === null) said.append(this.withoutText(tree.n[node]));
    else
      said.append(
        tree.action[node] === ""
          ? el("div", { className: "text empty" }, "nothing was said")
          : prose(tree.action[node], { ...options, className: "text action" }),
      );
    for (const [name, args, ok, took] of tree.calls[node])
      said.append(this.call(name, args, ok, took, options));
    if (tree.malformed[node])
      said.append(el("div", { className: "call bad" }, `${count(tree.malformed[node], "malformed call")}`));
    if (tree.observation[node])
      said.append(
        prose(tree.observation[node], { ...options, className: "text observation" }),
        this.pictures(tree.observation[node]),
      );
    else if (tree.observation[node] === null && tree.o[node]) said.append(this.withoutText(tree.o[node]));
    if (rewards.length)
      said.append(
        el(
          "div",
          { className: "rewards" },
          rewards.map(([name, one, measured]) =>
            el(
              "span",
              {
                className: `reward${measured ? " measured" : ""}`,
                title: measured ? "measured, not trained on" : "reward",
              },
              `${words(name)} `,
              el("b", {}, num(one)),
            ),
          ),
        ),
      );
    return el(
      "article",
      {
        className: "turn",
        "data-turn": at,
        css: { "--worth": diverging(value === null ? null : value / source.creditScale) },
      },
      el(
        "div",
        { className: "side" },
        el(
          "b",
          { onmousemove: (event) => tip.show(event, this.about(node)), onmouseleave: tip.hide },
          `${unitOf(this.trees)} ${at + 1}`,
        ),
        tree.weight
          ? el(
              "span",
              {
                className: "worth",
                title:
                  value === null
                    ? "no gradient went through this turn"
                    : `positive ${signed(tree.positive[node])}, negative ${signed(tree.negative[node])}, weight ${num(tree.weight[node])}`,
              },
              value === null ? "not trained" : signed(value),
            )
          : null,
        shared[node] > 1
          ? el(
              "span",
              { title: "this turn stands in several trajectories of the tree" },
              `shared by ${shared[node]}`,
            )
          : null,
        this.branch(node),
        tree.n[node]
          ? el(
              "span",
              { title: "tokens written, then seen" },
              `${num(tree.n[node])} + ${num(tree.o[node])} tokens`,
            )
          : null,
        tree.H[node] === null
          ? null
          : el(
              "span",
              { title: `mean entropy of the first ${source.probe} tokens, in nats` },
              `H ${num(tree.H[node], 2)}`,
            ),
        el(
          "span",
          { title: "sampling, then the environment" },
          `${seconds(tree.generate[node])} + ${seconds(tree.env[node])}`,
        ),
      ),
      said,
    );
  }

  // What is too much for the side of a turn.
  about(node) {
    const { tree } = this;
    const known = (values) => (values[node] === null ? null : `${num(values[node])} nats`);
    return pairs([
      ["version", num(tree.version[node])],
      ["mean entropy", known(tree.Hmean)],
      ["mean log-probability", tree.n[node] ? known(tree.logprob) : null],
      ["prefilled", tree.prefilled[node] ? count(tree.prefilled[node], "token") : null],
      ["state", tree.state && tree.state[node] ? oneLine(tree.state[node]).slice(0, 200) : null],
      ["node", `${node} of tree ${this.source.rows.tree[this.row] + 1}`],
    ]);
  }

  // The turn is one of several from the same place.
  branch(node) {
    const ways = this.childrenOf(this.tree.parents[node]);
    const cause = branchCause(this.source, this.tree, ways);
    if (!cause) return null;
    return el(
      "span",
      {
        className: "branched",
        onmousemove: (event) =>
          tip.show(
            event,
            causeText(this.source, cause).map((line) => el("div", {}, line)),
          ),
        onmouseleave: tip.hide,
      },
      `way ${ways.indexOf(node) + 1} of ${ways.length}`,
    );
  }

  call(name, args, ok, took, options) {
    const written = Object.entries(args)
      .map(([key, value]) => `${key}=${JSON.stringify(value)}`)
      .join(", ");
    const line = prose(`${name}(${written})`, { needle: options.needle, className: "signature" });
    return el(
      "div",
      { className: `call${ok ? "" : " bad"}` },
      line,
      el("span", { className: "outcome" }, ok ? "ok" : "failed", " · ", seconds(took)),
    );
  }

  pictures(text) {
    const hashes = [...new Set(text.match(/[0-9a-f]{64}/g) || [])];
    const box = el("div", { className: "pictures" });
    for (const hash of hashes) {
      this.source.image(hash).then((address) => {
        if (address)
          box.append(el("img", { src: address, alt: `image ${hash.slice(0, 12)}`, loading: "lazy" }));
      });
    }
    return box;
  }

  // What a sample of an evaluation has beside its turns.
  rest(options) {
    const { sample } = this.tree;
    if (!sample) return [];
    const found = [];
    for (const [action, observation] of sample.texts)
      found.push(
        el(
          "article",
          { className: "turn" },
          el("div", { className: "side" }),
          el(
            "div",
            { className: "said" },
            prose(action, { ...options, className: "text action" }),
            observation ? prose(observation, { ...options, className: "text observation" }) : null,
          ),
        ),
      );
    const answer = sample.answers.filter((one) => one !== null).at(-1);
    const facts = pairs([
      ["answer", answer === undefined ? null : prose(answer, { needle: options.needle })],
      [
        "scores",
        Object.keys(sample.scores).length
          ? el(
              "div",
              { className: "rewards" },
              Object.entries(sample.scores).map(([name, one]) =>
                el("span", { className: "reward" }, `${words(name)} `, el("b", {}, num(one))),
              ),
            )
          : null,
      ],
      ["lost", sample.failure ? words(sample.failure) : null],
      ["because", sample.error ? prose(sample.error, { needle: options.needle }) : null],
      ["retries", sample.retries || null],
      [
        "tokens",
        sample.promptTokens + sample.generatedTokens
          ? `${num(sample.promptTokens)} prompt, ${num(sample.generatedTokens)} generated`
          : null,
      ],
      ["seed", String(this.tree.seed)],
    ]);
    found.push(
      el(
        "article",
        { className: "turn result" },
        el("div", { className: "side" }, el("b", {}, "result")),
        el("div", { className: "said" }, facts),
      ),
    );
    return found;
  }

  // Scroll to the turn that the address names.
  show() {
    if (state.n === "") return;
    const turn = this.body.querySelector(`[data-turn="${CSS.escape(state.n)}"]`);
    this.body.querySelector(".aimed")?.classList.remove("aimed");
    if (!turn) return;
    turn.classList.add("aimed");
    turn.scrollIntoView({ block: "nearest" });
  }
}
