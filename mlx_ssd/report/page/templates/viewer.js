// The token viewer. Every text comes into the page as text (textContent), never as markup.
(() => {
  const root = document.getElementById("viewer");
  if (!root) return;
  const data = JSON.parse(document.getElementById("samples-data").textContent);
  const at = (name) => document.getElementById(`v-${name}`);
  const analysed = data.arms.length > 0;
  const FULL = 65535, TOP = 10;
  const WIDTH = Object.fromEntries(data.columns.map((name) => [name, name.includes(".top_") ? TOP : 1]));
  const special = new Set(data.special);
  const STEPS = { mass: [0.005, 0.02, 0.05, 0.15, 0.4], nats: [0.01, 0.05, 0.2, 0.5, 1] };

  const make = (tag, name, text) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const numbers = (text) => {
    const raw = atob(text), bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i += 1) bytes[i] = raw.charCodeAt(i);
    const view = new DataView(bytes.buffer), found = new Uint16Array(bytes.length / 2);
    for (let i = 0; i < found.length; i += 1) found[i] = view.getUint16(2 * i, true);
    return found;
  };
  const columnsOf = (sample, arm) => {
    if (!sample.of[arm]) return null;
    const all = numbers(sample.of[arm]), found = {};
    let start = 0;
    for (const name of data.columns) found[name] = all.subarray(start, start += WIDTH[name] * sample.n);
    return found;
  };
  const per = (share) => (share === 0 ? "0 %" : share < 0.001 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`);
  const level = (size, steps) => steps.filter((step) => size >= step).length;
  const shown = (text) => text.replace(/ /g, "·").replace(/\t/g, "⇥").replace(/\n/g, "⏎");

  let list = [], place = 0, sample = null, tokens = [], ids = null, columns = null, current = -1, pinned = -1;

  const MEASURES = {
    label: {},
    // The kept mass is all but the tail.
    tail: {
      value: (i) => (columns["student.kept_mass"][i] - columns["base.kept_mass"][i]) / FULL,
      steps: STEPS.mass, more: "more", less: "less", words: ["tail mass fell", "tail mass grew"],
    },
    probability: {
      value: (i) => (columns["student.probability"][i] - columns["base.probability"][i]) / FULL,
      steps: STEPS.mass, more: "more", less: "less", words: ["more probable", "less probable"],
    },
    divergence: { value: (i) => columns.divergence[i] / 1000, steps: STEPS.nats, more: "moved", less: "moved", nats: true },
  };
  const measure = () => (analysed ? at("measure").value : "");
  const mark = (i) => {
    const of = MEASURES[measure()];
    if (!of || !of.value) return "";
    const value = of.value(i), size = level(Math.abs(value), of.steps);
    return size ? ` ${value > 0 ? of.more : of.less}${size}` : "";
  };
  const classes = (i) => {
    let name = special.has(ids[i]) ? "t special" : "t";
    if (columns) {
      const label = data.labels[columns.label[i]];
      if (label !== "between") name += ` ${label}`;
      name += mark(i);
    }
    if (i === current) name += " near";
    if (i === pinned) name += " pinned";
    return name;
  };

  const fillToken = (element, text) => {
    for (const part of text.split(/([ \t\n])/)) {
      if (part === " " || part === "\t") element.append(make("span", "unseen-char", shown(part)));
      else if (part === "\n") element.append(make("span", "unseen-char", "⏎"), "\n");
      else if (part) element.append(part);
    }
  };
  const paint = () => tokens.forEach((element, i) => { element.className = classes(i); });

  const legend = () => {
    const box = at("legend"), of = MEASURES[measure()];
    box.replaceChildren();
    if (!of) return;
    const entry = (name, text) => {
      const line = make("span");
      line.append(make("span", `t ${name}`, "abc"), text);
      box.append(line);
    };
    entry("lock", "lock: the base was nearly certain");
    entry("fork", "fork: the base had a choice");
    if (of.nats) {
      of.steps.forEach((step, i) => entry(`moved${i + 1}`, `≥ ${step} nats`));
    } else if (of.value) {
      for (const i of [1, 3, 5]) entry(`more${i}`, `${of.words[0]}, ≥ ${100 * of.steps[i - 1]} points`);
      for (const i of [1, 3, 5]) entry(`less${i}`, `${of.words[1]}, ≥ ${100 * of.steps[i - 1]} points`);
    }
  };

  const row = (name, ...cells) => {
    const line = make("tr", name);
    cells.forEach((cell, i) => {
      const box = i === 0 ? make("th") : make("td");
      if (i === 0) box.scope = "row";
      box.append(cell);
      line.append(box);
    });
    return line;
  };
  const table = (name, header, rows) => {
    const found = make("table", name), body = make("tbody");
    if (header) {
      const head = make("thead"), line = make("tr");
      for (const text of header) {
        const cell = make("th", "", text);
        cell.scope = "col";
        line.append(cell);
      }
      head.append(line);
      found.append(head);
    }
    body.append(...rows);
    found.append(body);
    return found;
  };
  const bar = (name, share) => {
    const box = make("div", `bar ${name}`);
    if (share === null) {
      box.append(make("span"), make("span", "", "below"));
      return box;
    }
    const track = make("div"), filled = make("i");
    filled.style.width = `${100 * share}%`;
    track.append(filled);
    box.append(track, make("span", "", per(share)));
    return box;
  };

  // The ten likeliest of both: the base's in their order, then those that only the student has.
  const candidates = (i) => {
    const ten = (side, name) => columns[`${side}.top_${name}`].subarray(TOP * i, TOP * (i + 1));
    const before = [...ten("base", "ids")], after = [...ten("student", "ids")];
    const of = (where, side, id) => (where.includes(id) ? ten(side, "probabilities")[where.indexOf(id)] / FULL : null);
    const all = [...new Set([...before, ...after, ids[i]])];
    return all.map((id) => {
      const taken = id === ids[i];
      return {
        id, taken, inBase: before.includes(id),
        before: taken ? columns["base.probability"][i] / FULL : of(before, "base", id),
        after: taken ? columns["student.probability"][i] / FULL : of(after, "student", id),
      };
    });
  };
  const name = (i) => shown(data.pieces[ids[i]]) || "(empty)";

  const detail = (i) => {
    const box = at("detail");
    if (!box) return;
    box.replaceChildren();
    box.classList.toggle("filled", i >= 0);
    if (i < 0 || !columns) {
      box.append(make("p", "note", columns || i < 0
        ? "Point at a token, tap it, or move to it with the arrow keys: the ten likeliest tokens before and after stand here."
        : "This text was not analysed for this student."));
      return;
    }
    const c = columns, value = (column) => c[column][i] / FULL, support = c.support[i];
    const title = make("h3");
    title.append(make("bdi", "", name(i)));
    box.append(title, make("p", "what", `token ${i + 1} of ${sample.n} · ${data.labels[c.label[i]]}${i === pinned ? " · pinned" : ""}`));
    const close = make("button", "close", "Close");
    close.type = "button";
    close.addEventListener("click", letGo);
    box.append(close);
    const facts = [
      ["mass in S_s", per(value("base.kept_mass")), per(value("student.kept_mass"))],
      ["this token", per(value("base.probability")), per(value("student.probability"))],
      ["its rank", `${c["base.rank"][i] + 1}`, `${c["student.rank"][i] + 1}`],
      ["entropy, nats", (c["base.entropy"][i] / 1000).toFixed(2), (c["student.entropy"][i] / 1000).toFixed(2)],
    ];
    box.append(table("facts", ["", "before", "after"], facts.map((cells) => row("", ...cells))));
    const rows = [], tens = candidates(i);
    tens.forEach((one, n) => {
      const label = make("bdi", "", `${one.taken ? "▸ " : ""}${shown(data.pieces[one.id]) || "(empty)"}`);
      const line = row(one.taken ? "taken" : "", label, bar("before", one.before), bar("after", one.after));
      if (one.taken) line.title = "the token of the text";
      rows.push(line);
      if (n + 1 === support && one.inBase) {
        const cut = make("tr", "cut"), cell = make("td", "", `the kept set S_s ends here: ${support} token${support === 1 ? "" : "s"}`);
        cell.colSpan = 3;
        cut.append(cell);
        rows.push(cut);
      }
    });
    box.append(table("ten", ["likeliest tokens", "before", "after"], rows));
    if (support > TOP) box.append(make("p", "note", `The kept set S_s holds ${support >= FULL ? `at least ${FULL}` : support} tokens, more than are listed.`));
    const below = tens.some((one) => one.before === null || one.after === null);
    box.append(make("p", "note", `▸ the token of the text${below ? "; below: not among that side's ten likeliest" : ""}`));
  };

  const say = (i) => {
    if (i < 0 || !columns) return;
    const c = columns, value = (column) => c[column][i] / FULL;
    at("status").textContent = `${name(i)}, token ${i + 1} of ${sample.n}, ${data.labels[c.label[i]]}. `
      + `Probability ${per(value("base.probability"))} before, ${per(value("student.probability"))} after. `
      + `Kept mass ${per(value("base.kept_mass"))} before, ${per(value("student.kept_mass"))} after.`;
  };
  const look = (i, focus) => {
    const before = current;
    current = i;
    for (const n of [before, i]) if (n >= 0 && tokens[n]) tokens[n].className = classes(n);
    if (focus && tokens[i]) {
      tokens.forEach((element) => { element.tabIndex = -1; });
      tokens[i].tabIndex = 0;
      tokens[i].focus({ preventScroll: false });
      say(i);
    }
    if (pinned < 0) detail(i);
  };
  const pin = (i) => {
    const before = pinned;
    pinned = i === pinned ? -1 : i;
    for (const n of [before, i]) if (n >= 0 && tokens[n]) {
      tokens[n].className = classes(n);
      tokens[n].setAttribute("aria-selected", String(n === pinned));
    }
    detail(pinned < 0 ? current : pinned);
  };
  const letGo = () => {
    if (pinned >= 0) pin(pinned);
    look(-1, false);
    detail(-1);
  };
  const line = (i, step) => {
    const top = tokens[i].offsetTop, left = tokens[i].offsetLeft;
    let n = i + step;
    while (tokens[n] && tokens[n].offsetTop === top) n += step;
    if (!tokens[n]) return i;
    const row = tokens[n].offsetTop;
    let best = n;
    for (; tokens[n] && tokens[n].offsetTop === row; n += step) {
      if (Math.abs(tokens[n].offsetLeft - left) < Math.abs(tokens[best].offsetLeft - left)) best = n;
    }
    return best;
  };

  const draw = () => {
    const box = at("tokens");
    box.replaceChildren();
    tokens = []; current = -1; pinned = -1;
    sample = list.length ? data.samples[list[place]] : null;
    at("place").textContent = list.length ? `${place + 1} of ${list.length}` : "none";
    at("previous").disabled = place <= 0;
    at("next").disabled = place >= list.length - 1;
    at("about").replaceChildren();
    box.classList.toggle("tint", measure() === "label");
    if (!sample) {
      box.append(make("p", "note", "No sample is left by these filters."));
      columns = null;
      for (const name of ["prompt", "tests"]) at(name).querySelector("pre").textContent = "";
      detail(-1);
      return;
    }
    const problem = data.problems[sample.problem];
    const verdict = sample.verdict || "no verdict";
    const entry = (name, text) => {
      const part = make("span");
      if (name) part.append(`${name} `);
      part.append(text);
      at("about").append(part);
    };
    entry("problem", make("bdi", "", problem.id));
    entry("", make("bdi", verdict === "pass" ? "pass" : sample.verdict ? "fail" : "", verdict));
    if (sample.difficulty) entry("", make("bdi", "", sample.difficulty));
    entry("answer", `${sample.i + 1} of ${sample.arm}`);
    if (sample.finish) entry("ended by", make("bdi", "", sample.finish));
    entry("", sample.cut ? `the first ${sample.n} of ${sample.cut} tokens` : `${sample.n} tokens`);
    if (sample.change !== undefined) entry("", `moved ${sample.change.toFixed(3)} nats a token`);
    if (sample.detail) entry("", make("bdi", "", sample.detail));
    at("prompt").querySelector("pre").textContent = problem.prompt || "The problem's text is not in this run.";
    at("tests").querySelector("pre").textContent = (problem.tests || []).join("\n") || "no tests";
    ids = numbers(sample.t);
    columns = analysed ? columnsOf(sample, Number(at("arm").value || 0)) : null;
    const live = columns !== null;
    if (live) {
      box.setAttribute("role", "listbox");
      box.setAttribute("aria-labelledby", "v-answer");
      box.setAttribute("aria-orientation", "horizontal");
      box.removeAttribute("tabindex");
    } else {
      box.setAttribute("role", "group");
      box.setAttribute("aria-labelledby", "v-answer");
      box.removeAttribute("aria-orientation");
      box.tabIndex = 0;
    }
    const all = document.createDocumentFragment();
    ids.forEach((id, i) => {
      const element = make("bdi", "");
      fillToken(element, data.pieces[id]);
      if (live) {
        element.setAttribute("role", "option");
        element.setAttribute("aria-selected", "false");
        element.tabIndex = i === 0 ? 0 : -1;
      }
      element.dataset.i = i;
      tokens.push(element);
      all.append(element);
    });
    box.append(all);
    box.scrollTop = 0;
    paint();
    legend();
    detail(-1);
  };

  const choose = () => {
    const verdict = at("verdict").value, difficulty = at("difficulty").value;
    list = data.samples.map((_, n) => n).filter((n) => {
      const one = data.samples[n];
      return (!verdict || (one.verdict || "no verdict") === verdict) && (!difficulty || one.difficulty === difficulty);
    });
    if (at("order").value === "change") {
      list.sort((a, b) => (data.samples[b].change || 0) - (data.samples[a].change || 0));
    }
    place = 0;
    draw();
  };
  const step = (by) => {
    const to = place + by;
    if (to < 0 || to >= list.length) return;
    place = to;
    draw();
  };
  const options = (select, values) => {
    for (const value of [...new Set(values)].sort()) {
      const option = make("option", "", value);
      option.value = value;
      select.append(option);
    }
    if (select.options.length < 3) select.parentElement.hidden = true;
  };

  const box = at("tokens");
  const index = (event) => {
    const token = event.target.closest(".t");
    return token && token.dataset.i ? Number(token.dataset.i) : -1;
  };
  if (analysed) {
    box.addEventListener("pointerover", (event) => {
      if (event.pointerType !== "touch" && index(event) >= 0) look(index(event), false);
    });
    box.addEventListener("click", (event) => {
      const i = index(event);
      if (i < 0) return;
      look(i, true);
      pin(i);
    });
    box.addEventListener("focusin", (event) => {
      const i = index(event);
      if (i >= 0 && i !== current) look(i, false);
    });
    box.addEventListener("keydown", (event) => {
      const i = index(event);
      if (i < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
      const last = tokens.length - 1;
      const moves = {
        ArrowLeft: () => Math.max(0, i - 1), ArrowRight: () => Math.min(last, i + 1), ArrowUp: () => line(i, -1),
        ArrowDown: () => line(i, 1), Home: () => 0, End: () => last,
      };
      if (moves[event.key]) look(moves[event.key](), true);
      else if (event.key === "Enter" || event.key === " ") pin(i);
      else if (event.key === "Escape") letGo();
      else if (event.key === "PageDown" || event.key === "PageUp") {
        step(event.key === "PageDown" ? 1 : -1);
        if (tokens[0]) look(0, true);
      } else return;
      event.preventDefault();
    });
    at("measure").addEventListener("change", () => {
      box.classList.toggle("tint", measure() === "label");
      paint();
      legend();
    });
    data.arms.forEach((arm, i) => {
      const option = make("option", "", arm);
      option.value = String(i);
      at("arm").append(option);
    });
    at("arm-label").hidden = data.arms.length < 2;
    at("arm").addEventListener("change", draw);
  }
  options(at("verdict"), data.samples.map((one) => one.verdict || "no verdict"));
  options(at("difficulty"), data.samples.map((one) => one.difficulty).filter(Boolean));
  for (const name of ["verdict", "difficulty", "order"]) at(name).addEventListener("change", choose);
  if (at("order").options.length < 2) at("order").parentElement.hidden = true;
  at("previous").addEventListener("click", () => step(-1));
  at("next").addEventListener("click", () => step(1));
  root.hidden = false;
  choose();
})();
