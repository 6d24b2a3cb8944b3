// How one trajectory stands in a list: right, wrong or lost, and what it was worth.

function outcomeMark(source, row) {
  const outcome = source.outcome[row];
  const why = source.failures[source.rows.failure[row]];
  return el("i", {
    className: `mark ${["none", "right", "wrong", "lost"][outcome]}`,
    title: outcome === LOST ? `lost: ${words(why)}` : OUTCOMES[outcome],
  });
}

function dots(source, group, passed) {
  const rows = source.rowsOf(group);
  const shown = rows.slice(0, 24);
  return el(
    "span",
    { className: "dots" },
    shown.map((row) => {
      const mark = outcomeMark(source, row);
      if (passed && !passed.has(row)) mark.classList.add("faint");
      return mark;
    }),
    rows.length > 24 ? ` +${rows.length - 24}` : null,
  );
}

// A bar from the middle: to the left below zero, to the right above.
function creditBar(source, value) {
  if (!source.creditFrom) return null;
  const part = value === null ? 0 : Math.min(1, Math.abs(value) / source.creditScale);
  return el(
    "span",
    { className: "credit-bar", title: value === null ? "not trained" : `credit ${signed(value)}` },
    el("i", {
      style: {
        background: value === null ? "" : diverging(value / source.creditScale),
        width: `${50 * part}%`,
        [value < 0 ? "right" : "left"]: "50%",
      },
    }),
  );
}
