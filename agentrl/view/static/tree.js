// The trees of one group: turns from left to right, one line for each leaf.

const COLOURS = [
  ["credit", "credit"],
  ["return", "return below"],
  ["entropy", "entropy"],
  ["version", "version"],
  ["seconds", "seconds"],
];

const TOP = 42;

class Forest {
  // `view`: { source, group, trees }, `choose(row, node)` is called on a click.
  constructor(view, choose) {
    Object.assign(this, view);
    this.choose = choose;
    this.zoom = 1;
    this.layout = layout(this.trees);
    this.rows = new Map(
      this.source
        .rowsOf(this.group)
        .map((row) => [`${this.source.rows.tree[row]}/${this.source.rows.leaf[row]}`, row]),
    );
    this.scroll = el("div", { className: "forest-scroll" });
    this.node = el(
      "section",
      { className: "forest" },
      this.narrow && this.layout.lines < 2 ? null : this.bar(),
      this.scroll,
    );
    this.draw();
    this.scroll.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey && !event.metaKey) return;
        event.preventDefault();
        this.scale(this.zoom * Math.exp(-event.deltaY / 300), event);
      },
      { passive: false },
    );
    this.drag();
  }

  bar() {
    const { source } = this;
    const colours = COLOURS.filter(([key]) => this.offers(key));
    const colour = this.colour();
    const button = (label, title, act) =>
      el("button", { type: "button", className: "quiet icon", title, onclick: act }, label);
    return el(
      "div",
      { className: "bar" },
      el("span", { className: "label" }, "colour"),
      segments(colours, colour, (key) => go({ colour: key }), "colour of turns"),
      this.legend(colour),
      el("span", { className: "push" }),
      button("−", "smaller", () => this.scale(this.zoom / 1.25)),
      button("+", "larger", () => this.scale(this.zoom * 1.25)),
      button("fit", "all of it", () => this.fit()),
      button("⤢", "more room for the tree (f)", () => this.node.closest(".detail")?.classList.toggle("tall")),
    );
  }

  offers(colour) {
    if (colour === "credit") return this.trees.some((tree) => tree.weight);
    if (colour === "entropy") return this.trees.some((tree) => tree.H.some((one) => one !== null));
    return COLOURS.some(([key]) => key === colour);
  }

  colour() {
    return [state.colour, "credit", "return"].find((one) => this.offers(one));
  }

  legend(colour) {
    const { source } = this;
    if (colour === "version") return null;
    if (colour === "credit" || colour === "return") {
      const scale = colour === "credit" ? source.creditScale : this.returnScale();
      if (scale <= 1e-6) return el("span", { className: "legend" }, "all the same");
      const where =
        colour === "credit"
          ? { stored: "as trained", recipe: "computed from recipe.yaml" }[source.creditFrom]
          : "beside the group's mean";
      return el(
        "span",
        { className: "legend" },
        `${MINUS}${num(scale, 2)}`,
        el("i", { className: "ramp diverging" }),
        `+${num(scale, 2)}`,
        el("em", {}, where),
      );
    }
    return el(
      "span",
      { className: "legend" },
      "0",
      el("i", { className: "ramp growing" }),
      num(this.largest(colour), 2),
      el("em", {}, colour === "entropy" ? `nats, first ${source.probe} tokens` : "s"),
    );
  }

  largest(colour) {
    const values = this.trees.flatMap((tree) =>
      colour === "entropy" ? tree.H : tree.generate.map((one, at) => (one || 0) + (tree.env[at] || 0)),
    );
    return Math.max(1e-6, ...values.map((one) => one || 0));
  }

  meanReturn() {
    const roots = this.layout.placed.map((one) => one.root);
    const known = roots.reduce((sum, one) => sum + one.known, 0);
    return known ? roots.reduce((sum, one) => sum + one.total, 0) / known : 0;
  }

  returnScale() {
    const mean = this.meanReturn();
    return Math.max(
      1e-6,
      ...this.layout.nodes
        .filter((node) => node.known)
        .map((node) => Math.abs(node.total / node.known - mean)),
    );
  }

  paint(node, colour) {
    const tree = this.trees[node.tree];
    if (colour === "credit") {
      const value = worth(tree, node.at);
      return value === null ? "none" : diverging(value / this.source.creditScale);
    }
    if (colour === "return")
      return node.known
        ? diverging((node.total / node.known - this.meanReturn()) / this.returnScale())
        : "none";
    if (colour === "version") return ofVersion(tree.version[node.at]);
    const value =
      colour === "entropy" ? tree.H[node.at] : (tree.generate[node.at] || 0) + (tree.env[node.at] || 0);
    return value === null
      ? "none"
      : `color-mix(in oklab, var(--much) ${Math.round((100 * value) / this.largest(colour))}%, var(--zero))`;
  }

  tableWidth() {
    return this.offers("credit") ? 300 : 210;
  }

  draw() {
    const { placed, nodes, lines, depth } = this.layout;
    const step = lines > 40 ? 15 : lines > 20 ? 18 : 22;
    const column = this.narrow
      ? Math.max(58, Math.min(110, 250 / (depth + 1)))
      : Math.max(84, Math.min(150, 620 / (depth + 1)));
    const left = 22;
    const start = 78;
    const x = (node) => start + node.depth * column;
    const y = (node) => TOP + node.y * step;
    const table = start + (depth + 1) * column + 4;
    const width = table + this.tableWidth();
    const height = TOP + lines * step + 10;
    Object.assign(this, { width, height });
    const colour = this.colour();
    // As long as it has tokens; where none were counted, as it has characters.
    const size = (tree, at) => tree.n[at] || (tree.action[at] || "").length / 4;
    const longest = this.trees.reduce(
      (most, tree) => tree.n.reduce((own, _, at) => Math.max(own, size(tree, at)), most),
      1,
    );
    const long = (node) =>
      12 + Math.min(column - 40, 44) * Math.sqrt(size(this.trees[node.tree], node.at) / longest);
    const edges = svg("g", { className: "edges" });
    const marks = svg("g", { className: "nodes" });
    const labels = svg("g", { className: "labels" });
    const headings = svg("g", { className: "headings" });
    const heading = (at, text, anchor = "start") =>
      headings.append(svg("text", { x: at, y: 14, "text-anchor": anchor }, text));
    heading(left - 8, "prompt");
    for (let at = 0; at <= depth; at += 1) heading(start + at * column, `${unitOf(this.trees)} ${at + 1}`);
    heading(table + 62, "return", "end");
    const credited = this.offers("credit");
    if (credited) heading(table + 110, "credit", "middle");
    heading(table + (credited ? 160 : 84), "ended");
    const middle = TOP + ((lines - 1) / 2) * step;
    this.drawn = new Map();
    const curve = (fromX, fromY, toX, toY) =>
      `M${fromX},${fromY}C${(fromX + toX) / 2},${fromY} ${(fromX + toX) / 2},${toY} ${toX},${toY}`;
    for (const { root, own } of placed) {
      const tree = this.trees[root.tree];
      if (!own.length) {
        edges.append(svg("path", { d: curve(left, middle, start, y(root)), className: "edge lost" }));
        marks.append(svg("text", { x: start + 4, y: y(root) + 4, className: "cross" }, "✕"));
        labels.append(
          svg("text", { x: start + 20, y: y(root) + 3.5, className: "ended" }, "lost before its first turn"),
        );
      }
      for (const node of own) {
        const from = node.above.at < 0 ? [left, middle] : [x(node.above) + long(node.above), y(node.above)];
        const edge = svg("path", {
          d: curve(from[0], from[1], x(node), y(node)),
          className: `edge${node.above.at < 0 ? " first" : ""}`,
          "stroke-width": (0.9 + 0.75 * Math.log2(node.leaves || 1)).toFixed(2),
        });
        edges.append(edge);
        const paint = this.paint(node, colour);
        const box = svg("rect", {
          x: x(node),
          y: y(node) - 5,
          width: long(node),
          height: 10,
          rx: 3,
          className: `turn${paint === "none" ? " untrained" : ""}`,
          style: { fill: paint },
          "data-node": `${node.tree}/${node.at}`,
          tabindex: -1,
          onclick: () => this.pick(node),
          onmousemove: (event) => tip.show(event, this.about(node)),
          onmouseleave: tip.hide,
        });
        marks.append(box);
        if (tree.reward[node.at])
          marks.append(
            svg("circle", { cx: x(node) + long(node) - 4.5, cy: y(node), r: 1.8, className: "paid" }),
          );
        this.drawn.set(node, { edge, box });
        if (node.children.length > 1) this.fork(labels, node, x(node) + long(node), y(node));
        if (!node.children.length) this.leaf(labels, node, { from: x(node) + long(node), y: y(node), table });
      }
      if (root.children.length > 1) this.fork(labels, root, left + 3, middle);
      this.lostStubs(labels, tree, root, own, {
        x: (node) => (node.at < 0 ? left : x(node) + long(node)),
        y: (node) => (node.at < 0 ? middle : y(node)),
      });
    }
    marks.append(
      svg("rect", {
        x: left - 7,
        y: middle - 7,
        width: 14,
        height: 14,
        rx: 3,
        className: "prompt",
        onclick: () => this.choose(null, "prompt"),
      }),
    );
    if (this.trees.length > 1)
      headings.append(svg("text", { x: left - 8, y: 27, className: "count" }, `${this.trees.length} trees`));
    this.picture = svg(
      "svg",
      {
        className: "tree",
        viewBox: `0 0 ${width} ${height}`,
        role: "img",
        "aria-label": `${count(lines, "leaf", "leaves")}`,
      },
      headings,
      edges,
      marks,
      labels,
    );
    fill(this.scroll, this.picture);
    this.scale(this.zoom);
  }

  fork(labels, node, x, y) {
    const tree = this.trees[node.tree];
    const cause = branchCause(
      this.source,
      tree,
      node.children.map((child) => child.at),
    );
    if (!cause) return;
    const about = causeText(this.source, cause).map((line) => el("div", {}, line));
    const tall = cause.entropy === null ? 0 : Math.min(1, cause.entropy / this.largest("entropy"));
    labels.append(
      svg("circle", {
        cx: x + 6,
        cy: y,
        r: 4,
        className: "fork",
        style: { fill: `color-mix(in oklab, var(--much) ${20 + Math.round(80 * tall)}%, var(--panel))` },
        onmousemove: (event) => tip.show(event, el("b", {}, "branch point"), about),
        onmouseleave: tip.hide,
        "data-fork": `${node.tree}/${node.at}`,
      }),
    );
    if (cause.entropy !== null)
      labels.append(
        svg(
          "text",
          { x: x + 6, y: y - 8, className: "why", "text-anchor": "middle" },
          `H ${num(cause.entropy, 2)}`,
        ),
      );
  }

  lostStubs(labels, tree, root, own, place) {
    const seen = new Map();
    for (const [parent, reason, message] of tree.lost) {
      const node = parent < 0 ? root : own[parent];
      if (!node) continue;
      const before = seen.get(node) || 0;
      seen.set(node, before + 1);
      labels.append(
        svg(
          "text",
          {
            x: place.x(node) + 4 + 9 * before,
            y: place.y(node) + 15,
            className: "cross",
            onmousemove: (event) =>
              tip.show(
                event,
                el("b", {}, `lost and played again: ${words(reason)}`),
                el("div", {}, oneLine(message).slice(0, 400)),
              ),
            onmouseleave: tip.hide,
          },
          "✕",
        ),
      );
    }
  }

  leaf(labels, node, { from, y, table }) {
    const tree = this.trees[node.tree];
    const row = this.rows.get(`${node.tree}/${node.at}`);
    const value = worth(tree, node.at);
    const line = svg("g", {
      className: "leaf",
      "data-leaf": `${node.tree}/${node.at}`,
      onclick: () => this.pick(node),
      onmousemove: (event) => tip.show(event, this.about(node)),
      onmouseleave: tip.hide,
    });
    line.append(
      svg("rect", { x: table - 2, y: y - 8, width: this.tableWidth(), height: 16, className: "hit" }),
      svg("path", { d: `M${from + 4},${y}H${table + 6}`, className: "leader" }),
    );
    const outcome = row === undefined ? UNSCORED : this.source.outcome[row];
    if (outcome === LOST)
      line.append(svg("text", { x: table + 14, y: y + 4, className: "cross", "text-anchor": "middle" }, "✕"));
    else
      line.append(
        svg("circle", {
          cx: table + 14,
          cy: y,
          r: 4,
          className: `outcome ${["none", "right", "wrong"][outcome]}`,
        }),
      );
    line.append(
      svg(
        "text",
        { x: table + 62, y: y + 3.5, "text-anchor": "end", className: "return" },
        node.lost ? "–" : num(node.return, 3),
      ),
    );
    if (this.offers("credit")) {
      line.append(svg("path", { d: `M${table + 110},${y - 6}V${y + 6}`, className: "axis" }));
      if (value !== null) {
        const size = Math.max(0.8, 34 * Math.min(1, Math.abs(value) / this.source.creditScale));
        line.append(
          svg("rect", {
            x: table + 110 - (value < 0 ? size : 0),
            y: y - 4,
            width: size,
            height: 8,
            rx: 1.5,
            style: { fill: diverging(value / this.source.creditScale) },
          }),
        );
      } else line.append(svg("text", { x: table + 116, y: y + 3.5, className: "ended" }, "–"));
    }
    const depth = node.depth + 1;
    line.append(
      svg(
        "text",
        {
          x: table + (this.offers("credit") ? 160 : 84),
          y: y + 3.5,
          className: `ended${node.stop === "terminated" ? "" : " unusual"}`,
        },
        `${node.stop ? words(node.stop) : "unfinished"} · ${depth}`,
      ),
    );
    labels.append(line);
    this.drawn.get(node).line = line;
  }

  about(node) {
    const tree = this.trees[node.tree];
    const { at } = node;
    const value = worth(tree, at);
    const text = oneLine((tree.action[at] || "").slice(0, 300));
    return [
      el(
        "b",
        {},
        `${unitOf(this.trees)} ${node.depth + 1}`,
        node.leaves > 1
          ? el("span", { className: "faint" }, ` · shared by ${node.leaves} trajectories`)
          : null,
      ),
      text ? el("div", { className: "quote" }, text) : null,
      pairs([
        tree.weight ? ["credit", value === null ? "not trained" : `${signed(value, 3)}`] : null,
        tree.weight && node.leaves > 1 && value !== null
          ? [
              "kept apart",
              `${signed(tree.positive[at])} and ${signed(tree.negative[at])}, weight ${num(tree.weight[at])}`,
            ]
          : null,
        node.leaves > 1 && node.known ? ["return below", `${num(node.total / node.known)} on average`] : null,
        tree.reward[at] ? ["reward", num(tree.reward[at])] : null,
        ["entropy", tree.H[at] === null ? null : `${num(tree.H[at])} nats at its start`],
        ["tokens", tree.n[at] ? `${num(tree.n[at])} written, ${num(tree.o[at])} seen` : null],
        [
          "tools",
          tree.calls[at].length
            ? tree.calls[at].map(([name, , ok]) => name + (ok ? "" : " ✕")).join(", ")
            : null,
        ],
        ["version", num(tree.version[at])],
        ["ended", node.stop ? words(node.stop) : null],
      ]),
    ].filter(Boolean);
  }

  // A turn stands for the trajectory through its first leaf.
  pick(node) {
    const turn = node.depth;
    let leaf = node;
    while (leaf.children.length) [leaf] = leaf.children;
    const current = this.selected;
    if (current && current.path.has(node)) leaf = current.leaf;
    const row = this.rows.get(`${leaf.tree}/${leaf.at}`);
    this.choose(row, turn);
  }

  select(row) {
    const { rows } = this.source;
    for (const { edge, box, line } of this.drawn.values()) {
      edge.classList.remove("on");
      box.classList.remove("on");
      line?.classList.remove("on");
    }
    const own = this.layout.placed[rows.tree[row]]?.own;
    const leaf = own?.[rows.leaf[row]];
    this.selected = null;
    if (!leaf) return;
    const path = new Set();
    for (let node = leaf; node.at >= 0; node = node.above) path.add(node);
    this.selected = { leaf, path };
    for (const node of path) {
      const { edge, box } = this.drawn.get(node);
      edge.classList.add("on");
      box.classList.add("on");
      edge.parentNode.append(edge);
    }
    this.drawn.get(leaf).line?.classList.add("on");
    const at = (TOP + leaf.y * ((this.height - TOP - 10) / Math.max(1, this.layout.lines))) * this.zoom;
    if (at < this.scroll.scrollTop + 20 || at > this.scroll.scrollTop + this.scroll.clientHeight - 20)
      this.scroll.scrollTop = at - this.scroll.clientHeight / 2;
  }

  scale(zoom, event) {
    const before = this.zoom;
    this.zoom = Math.max(0.25, Math.min(4, zoom));
    this.picture.style.width = `${this.width * this.zoom}px`;
    this.picture.style.height = `${this.height * this.zoom}px`;
    if (!event) return;
    const box = this.scroll.getBoundingClientRect();
    const [atX, atY] = [event.clientX - box.left, event.clientY - box.top];
    this.scroll.scrollLeft = ((this.scroll.scrollLeft + atX) * this.zoom) / before - atX;
    this.scroll.scrollTop = ((this.scroll.scrollTop + atY) * this.zoom) / before - atY;
  }

  fit() {
    this.scale(Math.min(this.scroll.clientWidth / this.width, this.scroll.clientHeight / this.height));
  }

  drag() {
    let from = null;
    this.scroll.addEventListener("pointerdown", (event) => {
      if (event.target.closest(".turn, .leaf, .fork, .prompt") || event.button) return;
      from = [event.clientX + this.scroll.scrollLeft, event.clientY + this.scroll.scrollTop];
      this.scroll.setPointerCapture(event.pointerId);
    });
    this.scroll.addEventListener("pointermove", (event) => {
      if (!from) return;
      this.scroll.scrollLeft = from[0] - event.clientX;
      this.scroll.scrollTop = from[1] - event.clientY;
    });
    for (const name of ["pointerup", "pointercancel"])
      this.scroll.addEventListener(name, () => {
        from = null;
      });
  }
}
