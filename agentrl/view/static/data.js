// What the page shows comes from here: blocks in the file, or a server, one piece at a time.

const ROOT = document.documentElement;
const SERVED = ROOT.dataset.served === "1";
const whole = new Promise((done) => {
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", done, { once: true });
  else done();
});

function bytes(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const text = atob(base64);
  const found = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at += 1) found[at] = text.charCodeAt(at);
  return found;
}

async function raw(name) {
  if (SERVED) {
    const answer = await fetch(`data/${name}`);
    if (answer.status === 404) return null;
    if (!answer.ok) throw new Error(`${name}: the server answered ${answer.status}`);
    return answer.blob();
  }
  let block = byId(name);
  if (!block) {
    await whole;
    block = byId(name);
  }
  if (!block) return null;
  const stream = new Blob([bytes(block.textContent)])
    .stream()
    .pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).blob();
}

async function load(name) {
  const found = await raw(name);
  return found === null ? null : JSON.parse(await found.text());
}

// One run or evaluation.
class Source {
  constructor(number) {
    this.number = number;
    this.letter = "AB"[number];
    this.kept = new Map();
    this.images = new Map();
    this.search = null;
    this.listeners = new Set();
  }

  async open() {
    Object.assign(this, await load(`${this.number}/index`));
    const { groups, rows } = this;
    this.count = rows.group.length;
    this.starts = new Int32Array(groups.part.length + 1);
    for (const group of rows.group) this.starts[group + 1] += 1;
    for (let at = 1; at < this.starts.length; at += 1) this.starts[at] += this.starts[at - 1];
    this.outcome = Uint8Array.from(rows.score, (score, row) => {
      if (rows.failure[row]) return LOST;
      return score === null ? UNSCORED : score >= 1 - 1e-9 ? RIGHT : WRONG;
    });
    this.classes = Uint8Array.from(groups.part, (_, group) => this.classOf(group));
    this.several = this.count > groups.part.length;
    const credits = rows.credit.filter((one) => one !== null);
    this.creditScale = Math.max(1e-6, ...quantiles(credits.map(Math.abs), [0.98]));
    return this;
  }

  // Whether a group's trajectories are all right, all wrong, or both.
  classOf(group) {
    let right = 0;
    let wrong = 0;
    for (let row = this.starts[group]; row < this.starts[group + 1]; row += 1) {
      right += this.outcome[row] === RIGHT;
      wrong += this.outcome[row] === WRONG;
    }
    return right && wrong ? MIXED : right ? RIGHT : wrong ? WRONG : LOST;
  }

  rowsOf(group) {
    return Array.from(
      { length: this.starts[group + 1] - this.starts[group] },
      (_, at) => this.starts[group] + at,
    );
  }

  keep(name) {
    if (!this.kept.has(name)) this.kept.set(name, load(`${this.number}/${name}`));
    const found = this.kept.get(name);
    this.kept.delete(name);
    this.kept.set(name, found);
    while (this.kept.size > 24) this.kept.delete(this.kept.keys().next().value);
    return found;
  }

  // The trees of a group, turns as columns.
  async trees(group) {
    const chunk = await this.keep(`turns/${this.groups.chunk[group]}`);
    if (!chunk) throw new Error("the file that holds this group has gone");
    return chunk.groups[this.groups.at[group]];
  }

  async tokens(group) {
    const chunk = await this.keep(`tokens/${this.groups.chunk[group]}`);
    return chunk && chunk.groups[this.groups.at[group]];
  }

  pieces() {
    return this.keep("pieces");
  }

  metricsData() {
    this.metricsLoaded = this.metricsLoaded || load(`${this.number}/metrics`);
    return this.metricsLoaded;
  }

  async image(hash) {
    if (!this.images.has(hash)) this.images.set(hash, raw(`${this.number}/image/${hash}`));
    const blob = await this.images.get(hash);
    return blob && blob.size ? URL.createObjectURL(blob) : null;
  }

  // Lower-case text of every turn, made when something is first searched for; `progress` is told how far it is.
  searchable(progress) {
    this.listeners.add(progress);
    this.search =
      this.search ||
      this.readAll().catch((error) => {
        this.search = null;
        throw error;
      });
    return this.search.finally(() => this.listeners.delete(progress));
  }

  async readAll() {
    const { groups } = this;
    const found = new Array(groups.part.length);
    let next = this.chunks ? load(`${this.number}/turns/0`) : null;
    for (let chunk = 0, group = 0; chunk < this.chunks; chunk += 1) {
      const data = await next;
      next = chunk + 1 < this.chunks ? load(`${this.number}/turns/${chunk + 1}`) : null;
      for (; group < groups.part.length && groups.chunk[group] === chunk; group += 1) {
        const trees = (data && data.groups[groups.at[group]]) || [];
        found[group] = trees.map((tree) => ({
          prompt: (tree.prompt || "").toLowerCase(),
          parents: tree.parents,
          turns: tree.action.map((action, node) =>
            `${action || ""}\n${tree.observation[node] || ""}\n${callText(tree.calls[node])}`.toLowerCase(),
          ),
          answer: tree.sample ? tree.sample.answers.concat(tree.sample.error).join("\n").toLowerCase() : "",
        }));
      }
      for (const tell of this.listeners) tell((chunk + 1) / this.chunks);
    }
    return found;
  }

  // A mark for each trajectory whose prompt, turns, answers or task hold `needle`.
  async matching(needle, progress) {
    const text = await this.searchable(progress);
    const tasks = this.tasks.map((task) => task.toLowerCase().includes(needle));
    const { rows, groups } = this;
    const marks = new Uint8Array(this.count);
    for (let group = 0; group < groups.part.length; group += 1) {
      const whole = tasks[groups.task[group]];
      const hits = whole
        ? []
        : text[group].map((tree) => {
            if (tree.prompt.includes(needle) || tree.answer.includes(needle)) return true;
            const along = new Uint8Array(tree.turns.length);
            for (let node = 0; node < along.length; node += 1) {
              along[node] =
                (tree.parents[node] >= 0 && along[tree.parents[node]]) || tree.turns[node].includes(needle)
                  ? 1
                  : 0;
            }
            return along;
          });
      for (let row = this.starts[group]; row < this.starts[group + 1]; row += 1) {
        const hit = whole || hits[rows.tree[row]];
        marks[row] = hit === true || (hit && rows.leaf[row] >= 0 && hit[rows.leaf[row]]) ? 1 : 0;
      }
    }
    return marks;
  }
}

const UNSCORED = 0;
const RIGHT = 1;
const WRONG = 2;
const LOST = 3;
const MIXED = 4;
const OUTCOMES = ["not graded", "right", "wrong", "lost", "mixed"];

const callText = (calls) => calls.map(([name, args]) => `${name} ${JSON.stringify(args)}`).join("\n");

function quantiles(values, parts) {
  const sorted = Float64Array.from(values).sort();
  return parts.map((part) =>
    sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] : 0,
  );
}

const sources = Array.from({ length: Number(ROOT.dataset.sources) }, (_, number) => new Source(number));
