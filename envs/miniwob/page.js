// What the environment puts into each MiniWoB++ page before the page's own scripts run: a clock that
// only the environment moves, references to elements, and the end of the episode as it first came.
(() => {
  'use strict';
  const START = Date.UTC(2026, 0, 1, 12);
  const FRAME_MS = 16;
  const MAX_CALLBACKS = 200000;
  const RealDate = Date;
  const realFrame = window.requestAnimationFrame.bind(window);

  // ---- the clock -------------------------------------------------------------------------------
  let elapsed = 0;
  let nextTimer = 1;
  const timers = new Map();

  function add(callback, delay, every, args) {
    const wait = Math.max(1, Number(delay) || 0);
    timers.set(nextTimer, {at: elapsed + wait, every: every ? wait : 0, callback, args});
    return nextTimer++;
  }
  window.setTimeout = (callback, delay, ...args) => add(callback, delay, false, args);
  window.setInterval = (callback, delay, ...args) => add(callback, delay, true, args);
  window.clearTimeout = window.clearInterval = id => { timers.delete(id); };
  window.requestAnimationFrame = callback =>
    add(() => callback(elapsed), FRAME_MS - elapsed % FRAME_MS, false, []);
  window.cancelAnimationFrame = window.clearTimeout;
  performance.now = () => elapsed;
  window.Date = new Proxy(RealDate, {
    construct: (target, args) => args.length ? new target(...args) : new target(START + elapsed),
    apply: () => new RealDate(START + elapsed).toString(),
    get: (target, name) => name === 'now' ? () => START + elapsed : target[name],
  });

  function advance(milliseconds) {
    const until = elapsed + milliseconds;
    for (let called = 0; called < MAX_CALLBACKS; called++) {
      let first = null;
      for (const [id, timer] of timers) {
        if (timer.at <= until && (first === null || timer.at < timers.get(first).at)) first = id;
      }
      if (first === null) break;
      const timer = timers.get(first);
      elapsed = Math.max(elapsed, timer.at);
      if (timer.every) timer.at = elapsed + timer.every; else timers.delete(first);
      // A page whose callback throws goes on in a real browser, too.
      if (typeof timer.callback === 'function') {
        try { timer.callback.apply(window, timer.args); } catch (error) { console.warn(error); }
      }
    }
    elapsed = until;
  }

  // ---- what a browser shows outside of the page is kept shut ----------------------------------
  const dropsDown = element =>
    element instanceof HTMLSelectElement && !element.multiple && element.size <= 1;
  window.addEventListener('mousedown', event => {
    if (!dropsDown(event.target)) return;
    event.preventDefault();
    event.target.focus();
  }, true);
  window.addEventListener('dragstart', event => event.preventDefault(), true);
  window.open = () => null;
  window.print = () => {};

  // ---- the episode -----------------------------------------------------------------------------
  const STYLE = `
    #reward-display, #click-canvas, #sync-task-cover { visibility: hidden !important;
      pointer-events: none !important; }
    * { caret-color: transparent !important; transition: none !important;
      animation: none !important; scroll-behavior: auto !important; }
    ::-webkit-calendar-picker-indicator { display: none !important; }`;
  const HIDDEN_QUERY = '#query { visibility: hidden !important; }';
  let refs = new WeakMap();
  let elements = [];
  let ending = null;

  function graphics() {
    return [...document.querySelectorAll('#query *')].filter(
      one => !one.textContent.trim() && visible(one));
  }

  function start(seed) {
    Math.seedrandom(seed);
    core.startEpisodeReal();
    // The end is written down when it first comes; the cover that would start anew stays away.
    const end = core.endEpisode;
    core.startEpisode = () => {};
    core.endEpisode = (reward, proportional, reason) => {
      end(reward, proportional, reason);
      if (WOB_DONE_GLOBAL && ending === null) {
        ending = {raw: WOB_RAW_REWARD_GLOBAL, scaled: WOB_REWARD_GLOBAL,
                  reason: WOB_REWARD_REASON == null ? '' : String(WOB_REWARD_REASON)};
      }
    };
    const style = document.createElement('style');
    style.textContent = STYLE + (graphics().length ? '' : HIDDEN_QUERY);
    document.head.append(style);
    // From here on nothing that a policy types can become a script, whatever a page does with it.
    const policy = document.createElement('meta');
    policy.httpEquiv = 'Content-Security-Policy';
    policy.content = "script-src 'none'; object-src 'none'; frame-src 'none'; " +
      "connect-src 'none'; form-action 'none'; base-uri 'none'";
    document.head.append(policy);
    refs = new WeakMap();
    elements = [];
    const said = core.getUtterance();
    return typeof said === 'string' ? said : said.utterance;
  }

  // ---- what is on the page ---------------------------------------------------------------------
  const LEFT_OUT = new Set(['reward-display', 'sync-task-cover', 'click-canvas', 'query']);
  const NO_CONTENT = new Set(['script', 'style', 'br', 'hr', 'option', 'optgroup', 'defs']);
  const ACTED_ON = new Set(['a', 'button', 'input', 'textarea', 'select', 'label', 'th', 'td',
                            'li', 'img', 'canvas']);
  const GEOMETRY = ['fill', 'stroke', 'cx', 'cy', 'r', 'rx', 'ry', 'x', 'y', 'width', 'height',
                    'x1', 'y1', 'x2', 'y2', 'points', 'transform', 'font-size'];
  // Of jQuery UI's many classes those that say what an element is or does.
  const MUTE = /^(ui-(?!icon-|menu-item$|tabs-active|state-(active|disabled)|accordion-header(-active|-collapsed)?$|slider-handle|spinner-(up|down)|datepicker-|dialog-titlebar-close|selected|selectee).*|secondary-action|hasDatepicker)$/;

  function visible(element) {
    const box = element.getBoundingClientRect();
    if (!(element instanceof SVGElement) && (box.width === 0 || box.height === 0)) return false;
    if (box.width === 0 && box.height === 0) return false;
    const style = getComputedStyle(element);
    return style.visibility !== 'hidden' && style.display !== 'none';
  }

  function refOf(element) {
    let ref = refs.get(element);
    if (ref === undefined) {
      elements.push(element);
      ref = elements.length;
      refs.set(element, ref);
    }
    return ref;
  }

  const squeezed = text => text.replace(/\s+/g, ' ').trim();

  function classesOf(element) {
    const list = element.getAttribute('class');
    return list ? list.split(/\s+/).filter(one => one && !MUTE.test(one)) : [];
  }

  const rounded = text => text.replace(/-?\d+\.\d+/g, number => String(Math.round(number * 10) / 10));

  function looks(element, tag) {
    const found = {};
    if (element instanceof SVGElement && tag !== 'svg') {
      for (const name of GEOMETRY) {
        if (element.hasAttribute(name)) found[name] = rounded(element.getAttribute(name));
      }
    } else if (element.style) {
      const colour = element.style.backgroundColor;
      if (colour) found.background = colour;
      if (element.style.color) found.color = element.style.color;
    }
    if (element.title) found.title = element.title;
    if (tag === 'input' || tag === 'textarea') {
      if (element.placeholder) found.placeholder = element.placeholder;
    }
    return found;
  }

  function flagsOf(element, tag) {
    const flags = [];
    if (element === document.activeElement && element !== document.body) flags.push('focused');
    if (tag === 'input' && element.checked) flags.push('checked');
    if (element.disabled) flags.push('disabled');
    if (element.readOnly) flags.push('readonly');
    return flags;
  }

  function described(element, tag, depth) {
    const box = element.getBoundingClientRect();
    const node = {ref: 0, depth, tag, id: /^ui-id-/.test(element.id) ? '' : element.id, classes: classesOf(element),
                  looks: looks(element, tag), flags: flagsOf(element, tag),
                  box: [box.left, box.top, box.width, box.height].map(Math.round)};
    if (tag === 'input') {
      node.tag = element.type === 'text' ? 'input' : 'input-' + element.type;
      if (!['checkbox', 'radio'].includes(element.type)) node.value = element.value;
    } else if (tag === 'textarea') {
      node.value = element.value;
    } else if (tag === 'select') {
      const options = [...element.options];
      node.options = options.map(one => squeezed(one.text));
      node.value = options.filter(one => one.selected).map(one => squeezed(one.text)).join(' | ');
    }
    return node;
  }

  function tells(element, tag, node) {
    if (ACTED_ON.has(tag) || node.text || node.flags.length) return true;
    if (Object.keys(node.looks).length || node.classes.length) return true;
    if (node.id && !['wrap', 'area'].includes(node.id)) return true;
    return element.childElementCount === 0;
  }

  function walk(element, depth, found) {
    const tag = element.tagName.toLowerCase();
    if (LEFT_OUT.has(element.id) || NO_CONTENT.has(tag)) return;
    if (element.classList.contains('ui-resizable-handle') && !element.id) return;
    const shown = visible(element);
    if (!shown && element.childElementCount === 0) return;
    let inner = depth;
    const texts = [...element.childNodes].filter(
      one => one instanceof Text && squeezed(one.data) && tag !== 'textarea');
    const mixed = texts.length > 0 && [...element.children].some(
      one => !NO_CONTENT.has(one.tagName.toLowerCase()));
    if (shown && element !== document.body) {
      const node = described(element, tag, depth);
      node.text = mixed ? '' : squeezed(texts.map(one => one.data).join(' '));
      if (tells(element, tag, node) || mixed) {
        node.ref = refOf(element);
        found.push(node);
        inner = depth + 1;
      }
    }
    for (const child of element.childNodes) {
      if (child instanceof Element) walk(child, inner, found);
      else if (mixed && shown && child instanceof Text && squeezed(child.data)) {
        found.push({depth: inner, tag: '', text: squeezed(child.data)});
      }
    }
  }

  function nodes() {
    const found = [];
    for (const one of graphics()) {
      const node = described(one, one.tagName.toLowerCase(), 0);
      const colour = getComputedStyle(one).backgroundColor;
      if (!node.looks.background && colour !== 'rgba(0, 0, 0, 0)') node.looks.background = colour;
      found.push({...node, ref: refOf(one), text: '', tag: 'query-' + node.tag});
    }
    walk(document.body, 0, found);
    return found;
  }

  // ---- where to act ----------------------------------------------------------------------------
  const FRACTIONS = [0.5, 0.25, 0.75, 0.1, 0.9];

  function named(element) {
    if (!element || element === document.body || element === document.documentElement) return '';
    const ref = refs.get(element);
    return ref === undefined ? `<${element.tagName.toLowerCase()}>` : `[${ref}]`;
  }

  function point(ref, drop) {
    const element = elements[ref - 1];
    if (element === undefined) return {problem: 'unknown'};
    if (!element.isConnected) return {problem: 'gone'};
    if (!visible(element)) return {problem: 'hidden'};
    const outer = element.getBoundingClientRect();
    const hits = (x, y) => {
      const hit = document.elementFromPoint(x, y);
      return hit !== null && (drop || hit === element || element.contains(hit));
    };
    const spot = () => {
      const boxes = [...element.getClientRects()].filter(box => box.width > 0 || box.height > 0);
      // At the right end of a number's field stand its arrows.
      const order = element.type === 'number' ? [0.25, ...FRACTIONS] : FRACTIONS;
      for (const box of boxes) {
        for (const down of FRACTIONS) {
          for (const across of order) {
            const x = box.left + box.width * across, y = box.top + box.height * down;
            if (hits(x, y)) return {x, y, tag: element.tagName.toLowerCase(), type: element.type};
          }
        }
      }
      return null;
    };
    let found = spot();
    if (found === null) {
      element.scrollIntoView({block: 'center', inline: 'nearest'});
      found = spot();
    }
    if (found !== null) return found;
    const box = element.getBoundingClientRect();
    const x = box.left + box.width / 2, y = box.top + box.height / 2;
    const over = document.elementFromPoint(x, y);
    if (over === null) return {problem: 'outside'};
    // A group or a line has no point of its own; what stands around it takes the event as well.
    if (over.contains(element)) return {x, y, tag: element.tagName.toLowerCase()};
    return {problem: 'covered', by: named(over)};
  }

  function options(ref) {
    const element = elements[ref - 1];
    if (!(element instanceof HTMLSelectElement) || !element.isConnected || element.disabled) {
      return null;
    }
    return {many: element.multiple, options: [...element.options].map(one => squeezed(one.text))};
  }

  const selection = () => {
    const active = document.activeElement;
    if (active && typeof active.selectionStart === 'number') {
      return active.value.slice(active.selectionStart, active.selectionEnd);
    }
    return String(window.getSelection());
  };

  // Styles ask for their pictures when the layout is computed, and the sizes hang on them.
  async function layout() {
    void document.body.offsetHeight;
    await null;
  }
  const look = () => ({nodes: ending === null ? nodes() : [], ending, elapsed});
  const frames = () => new Promise(done => realFrame(() => realFrame(() => done())));

  Object.defineProperty(window, '__episode', {
    value: Object.freeze({
      start, point, options, selection, layout, look, frames,
      element: ref => elements[ref - 1],
      advance: milliseconds => { advance(milliseconds); return ending !== null; },
      ready: () => typeof WOB_TASK_READY === 'undefined' || WOB_TASK_READY,
    }),
  });
})();
