// Where the turns of a group stand, what they are worth, and why the sampler branched.

// Place of every node of all trees of a group. Leaves get lines in depth-first order, a parent
// stands in the middle of its children; lost attempts are drawn as stubs without a line.
function layout(trees) {
  const nodes = [];
  let line = 0;
  const placed = trees.map((tree, number) => {
    const own = tree.parents.map((parent, at) => ({
      tree: number,
      at,
      parent,
      depth: 0,
      children: [],
      leaves: 0,
      total: 0,
      known: 0,
      y: 0,
    }));
    const root = { tree: number, at: -1, depth: -1, children: [], leaves: 0, total: 0, known: 0, y: 0 };
    own.forEach((node) => {
      const above = node.parent < 0 ? root : own[node.parent];
      node.above = above;
      node.depth = above.depth + 1;
      above.children.push(node);
    });
    // Depth first without recursion: a trajectory may have thousands of turns.
    const order = [];
    const stack = [root];
    while (stack.length) {
      const node = stack.pop();
      order.push(node);
      for (let at = node.children.length - 1; at >= 0; at -= 1) stack.push(node.children[at]);
    }
    for (const node of order) {
      if (node.children.length || (node.at < 0 && own.length)) continue;
      node.y = line;
      line += 1;
      node.leaves = 1;
      const stop = node.at < 0 ? null : tree.leaves[node.at];
      node.stop = stop || "";
      if (node.at >= 0) {
        node.return = 0;
        for (let one = node; one.at >= 0; one = one.above) node.return += tree.reward[one.at] ?? 0;
        const lost =
          ["env_error", "engine_error", "cancelled"].includes(stop) || (tree.sample && tree.sample.failure);
        node.lost = Boolean(lost);
        if (!lost) {
          node.total = node.return;
          node.known = 1;
        }
      } else node.lost = true;
    }
    for (let at = order.length - 1; at > 0; at -= 1) {
      const { above } = order[at];
      above.leaves += order[at].leaves;
      above.total += order[at].total;
      above.known += order[at].known;
    }
    for (let at = order.length - 1; at >= 0; at -= 1) {
      const { children } = order[at];
      if (children.length) order[at].y = (children[0].y + children.at(-1).y) / 2;
    }
    line += trees.length > 1 && number < trees.length - 1 && own.length > 1 ? 0.35 : 0;
    nodes.push(...own);
    return { root, own };
  });
  return { placed, nodes, lines: line, depth: Math.max(0, ...nodes.map((node) => node.depth)) };
}

// What the nodes of `trees` are called: where actions were sampled in segments, each is one.
const unitOf = (trees) => (trees.some((tree) => tree.goesOn) ? "segment" : "turn");

const worth = (tree, at) =>
  tree.weight && tree.weight[at] > 0 ? (tree.positive[at] + tree.negative[at]) / tree.weight[at] : null;

// What made the sampler branch at a node: the entropy of the first child's first tokens beside that of the tree's first action.
function branchCause(source, tree, children) {
  if (children.length < 2) return null;
  const first = children[0];
  const entropy = tree.H[first];
  const initial = tree.parents[first] < 0 ? null : tree.H[0];
  const cause = { entropy, initial, ways: children.length, delta: null, probability: null };
  // From the prompt nothing went before that an entropy could be compared with.
  if (entropy === null || initial === null) return cause;
  cause.delta = entropy - initial;
  const { sampler } = source;
  if (sampler && sampler.type === "arpo" && source.vocabulary > 1) {
    cause.probability = sampler.alpha + (sampler.beta * cause.delta) / Math.log(source.vocabulary);
  }
  return cause;
}

function causeText(source, cause) {
  const kind = source.sampler ? source.sampler.type : "";
  const said = [`${cause.ways} ways from here`];
  if (cause.entropy !== null)
    said.push(`entropy of the first ${source.probe} tokens ${num(cause.entropy)} nats`);
  if (cause.delta !== null)
    said.push(`${num(cause.initial)} at the tree's first turn: ${signed(cause.delta)}`);
  if (kind === "arpo" && cause.probability !== null) {
    const { decision = "threshold", threshold } = source.sampler;
    said.push(
      decision === "threshold"
        ? `P = ${num(cause.probability, 4)}, threshold ${num(threshold)}`
        : `branched with P = ${num(cause.probability, 4)}`,
    );
  } else if (kind === "tree") said.push("drawn at random by the tree sampler");
  return said;
}
