"use strict";
(() => {
  const KEPT = 1000; // messages that this page remembers
  const SHOWN = 200; // rows of them in the document
  const SILENCE = 8000; // milliseconds without a word, after which the connection is taken for lost
  const AGAIN = 2000;

  const of = (id) => document.getElementById(id);
  const make = (tag, classes, text) => {
    const made = document.createElement(tag);
    if (classes) made.className = classes;
    if (text !== undefined) made.textContent = text; // never HTML: messages come from anyone
    return made;
  };
  const drawn = (tag, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };
  const say = (element, text) => { if (element.textContent !== text) element.textContent = text; };
  const number = (value) => (value === null || value === undefined ? "-" : value.toLocaleString("en"));
  const plural = (count, what) => `${number(count)} ${what}${count === 1 ? "" : "s"}`;
  const lasting = (seconds) => {
    if (seconds === null || seconds === undefined) return "-";
    const parts = [];
    for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]]) {
      if (seconds >= size) parts.push(`${Math.floor(seconds / size)} ${unit}`);
      seconds %= size;
    }
    return parts.slice(0, 2).join(" ") || "0 s";
  };
  const ago = (time) => (time ? `${lasting(Math.max(0, (Date.now() - Date.parse(time)) / 1000))} ago` : "");
  const clock = (time) => {
    const at = new Date(time);
    return `${at.toLocaleTimeString("en-GB")}.${String(at.getMilliseconds()).padStart(3, "0")}`;
  };

  // The connection
  let run = null;
  let csrf = "";
  let heard = Date.now();
  let source = null;
  let away = null; // what is said of the broker
  const link = (state, text) => {
    of("link").dataset.state = state;
    say(of("link"), text);
    of("link").title = text;
  };
  const lost = () => link("lost", "connection lost, trying again");
  const connect = () => {
    source?.close();
    heard = Date.now();
    const opened = source = new EventSource("events");
    opened.addEventListener("all", (event) => hear(JSON.parse(event.data), true));
    opened.addEventListener("news", (event) => hear(JSON.parse(event.data), false));
    opened.addEventListener("error", async () => {
      if (opened !== source) return;
      lost();
      if (opened.readyState !== EventSource.CLOSED) return; // it tries again by itself
      try {
        const answer = await fetch("./", { redirect: "manual" });
        if (answer.type === "opaqueredirect") location.assign("sign-in");
      } catch { /* it is away */ }
    });
  };
  setInterval(() => {
    if (Date.now() - heard < SILENCE && source.readyState !== EventSource.CLOSED) return;
    lost();
    connect();
  }, AGAIN);

  const hear = (told, all) => {
    heard = Date.now();
    if (all) {
      if (run !== null && run !== told.run) { location.reload(); return; } // another server: its page is another one
      run = told.run;
      csrf = told.csrf;
    }
    if ("broker" in told) away = told.broker;
    if (away) link("lost", `the broker is away: ${away}`);
    else link("live", "live");
    if (told.missed) missed = all ? told.missed : missed + told.missed;
    if (told.streams) streams(told);
    if (told.groups) groups(told.groups);
    come(told.rows);
  };

  // Numbers
  const spark = (values) => {
    const known = values.map((value) => value ?? 0);
    const top = Math.max(1, ...known);
    const step = known.length > 1 ? 100 / (known.length - 1) : 100;
    return known.map((value, at) => `${(at * step).toFixed(1)},${(19 - (value / top) * 18).toFixed(1)}`).join(" ");
  };
  const line = () => {
    const svg = drawn("svg", { class: "spark", viewBox: "0 0 100 20", preserveAspectRatio: "none", "aria-hidden": "true" });
    svg.append(drawn("polyline", { points: "" }));
    return svg;
  };
  const boxes = (anchor) => [...document.querySelectorAll(`#map a[href="#${CSS.escape(anchor)}"]`)];
  const badge = (anchor, text, dead) => {
    for (const box of boxes(anchor)) {
      const shape = box.querySelector(".shape rect");
      if (!shape) continue;
      const [x, y, width, height] = ["x", "y", "width", "height"].map((name) => Number(shape.getAttribute(name)));
      let shown = box.querySelector(".live");
      if (!shown) {
        shown = drawn("text", { class: "live", x: x + width / 2, y: y + height - 7 });
        box.append(shown);
      }
      say(shown, text);
      let mark = box.querySelector(".badge");
      if (!mark && dead) {
        mark = drawn("g", { class: "badge" });
        mark.append(drawn("rect", { height: 20, rx: 10, y: y - 10 }), drawn("text", { y: y + 4 }));
        box.append(mark);
      }
      if (!mark) continue;
      const label = number(dead);
      const size = 14 + 7 * label.length;
      mark.firstChild.setAttribute("x", x + width - size + 8);
      mark.firstChild.setAttribute("width", size);
      mark.lastChild.setAttribute("x", x + width - size / 2 + 8);
      say(mark.lastChild, label);
      mark.setAttribute("visibility", dead ? "visible" : "hidden");
    }
  };

  const streamRows = new Map();
  const options = (select, values) => {
    const there = new Set([...select.options].map((option) => option.value));
    for (const value of new Set(values)) if (value && !there.has(value)) select.add(new Option(value, value));
  };
  const streamRow = (stream) => {
    const row = make("tr");
    const head = make("th");
    head.scope = "row";
    const button = make("button", "plain", stream.type || "(no type)");
    button.type = "button";
    button.addEventListener("click", () => only(stream.address, stream.type));
    head.append(button);
    const past = make("td");
    past.append(line());
    row.append(head, make("td", "", stream.address), make("td", "number"), past, make("td", "number"));
    of("stream-rows").append(row);
    for (const box of stream.anchor ? boxes(stream.anchor) : []) {
      box.addEventListener("click", (event) => {
        event.preventDefault();
        only(stream.address, stream.type);
      });
    }
    return row;
  };
  const streams = (told) => {
    let sum = 0;
    for (const stream of told.streams) {
      sum += stream.rate;
      const name = `${stream.address} ${stream.type}`;
      if (!streamRows.has(name)) streamRows.set(name, streamRow(stream));
      const row = streamRows.get(name);
      say(row.cells[2], stream.rate.toFixed(1));
      row.cells[3].firstChild.firstChild.setAttribute("points", spark(stream.past));
      say(row.cells[4], number(stream.total));
      if (!stream.anchor) continue;
      badge(stream.anchor, `${stream.rate.toFixed(1)} /s`, 0);
      for (const box of boxes(stream.anchor)) box.classList.toggle("flowing", stream.rate > 0);
    }
    say(of("tile-rate"), sum.toFixed(1));
    options(of("by-address"), told.addresses.map((one) => one.address));
    options(of("by-type"), told.streams.map((one) => one.type));
    const problems = told.addresses.filter((one) => one.problem).map((one) => `${one.address}: ${one.problem}`);
    say(of("problems"), problems.join("; "));
    of("problems").hidden = !problems.length;
  };
  const go = (id) => {
    of(id).scrollIntoView();
    of(id).focus({ preventScroll: true });
  };
  const only = (address, type) => {
    of("by-address").value = address;
    of("by-type").value = type;
    of("by-text").value = "";
    redraw();
    go("live");
  };

  const groupRows = new Map();
  let known = [];
  const total = (name) => {
    const values = known.map((group) => group[name]).filter((value) => value !== null && value !== undefined);
    return values.length ? values.reduce((sum, value) => sum + value, 0) : null;
  };
  const groupRow = (group) => {
    const row = make("tr");
    if (!of(`service-${group.service}`)) row.id = `service-${group.service}`;
    row.tabIndex = -1;
    const head = make("th", "", group.name);
    head.scope = "row";
    const past = make("td");
    past.append(line());
    const letters = make("td", "number");
    const button = make("button", "plain");
    button.type = "button";
    button.addEventListener("click", () => { choose(group.name); go("letters"); });
    letters.append(button);
    row.append(head, make("td", "number"), past, make("td", "number"), make("td", "number"), letters, make("td", "number"), make("td"));
    of("group-rows").append(row);
    return row;
  };
  const groups = (told) => {
    known = told;
    const services = new Map();
    for (const group of told) {
      if (!groupRows.has(group.name)) groupRows.set(group.name, groupRow(group));
      const row = groupRows.get(group.name);
      say(row.cells[1], number(group.ready));
      row.cells[2].firstChild.firstChild.setAttribute("points", spark(group.past ?? []));
      say(row.cells[3], number(group.in_flight));
      say(row.cells[4], number(group.delayed));
      row.cells[4].classList.toggle("busy", group.delayed > 0);
      const letters = row.cells[5].firstChild;
      say(letters, number(group.dead) + (group.failing > 0 ? ` (+${number(group.failing)} in a minute)` : ""));
      letters.classList.toggle("bad", group.dead > 0);
      letters.setAttribute("aria-label", `${letters.textContent} dead letters of ${group.name}`);
      const parts = (group.sources ?? []).map((one) => `${one.address}: ${number(one.ready)} ready, ${number(one.in_flight)} in flight`);
      row.cells[1].title = parts.join("\n");
      say(row.cells[6], number(group.consumers));
      row.cells[6].classList.toggle("busy", group.consumers === 0);
      say(row.cells[7], group.problem || lasting(group.oldest));
      row.cells[7].classList.toggle("problem", Boolean(group.problem));
      const sum = services.get(group.service) ?? { ready: null, dead: 0 };
      if (group.ready !== null && group.ready !== undefined) sum.ready = (sum.ready ?? 0) + group.ready;
      sum.dead += group.dead ?? 0;
      services.set(group.service, sum);
    }
    for (const [name, sum] of services) badge(`service-${name}`, sum.ready === null ? "" : `${number(sum.ready)} ready`, sum.dead);
    for (const name of ["ready", "in_flight", "delayed", "dead"]) {
      const value = total(name);
      say(of(`tile-${name}`), number(value));
      const tile = of(`tile-${name}`).parentElement;
      tile.classList.toggle("bad", name === "dead" && value > 0);
      tile.classList.toggle("busy", name === "delayed" && value > 0);
    }
    const dead = total("dead") ?? 0;
    say(of("dead-count"), number(dead));
    of("dead-count").hidden = !dead;
    letterGroups();
  };

  // The live tail
  let rows = []; // oldest first
  let waiting = []; // came while it was paused
  let last = 0;
  let missed = 0;
  let paused = false;
  const rowOf = new WeakMap(); // by item of the list
  const takes = (row) => {
    const [address, type, text] = [of("by-address").value, of("by-type").value, of("by-text").value.toLowerCase()];
    if (address && row.address !== address) return false;
    if (type && row.type !== type) return false;
    if (!text) return true;
    row.words ??= [row.type, row.key, row.id, row.source, row.correlation, row.body].join("\n").toLowerCase();
    return text.split(/\s+/).filter(Boolean).every((word) => row.words.includes(word));
  };
  const fields = (pairs) => {
    const list = make("dl");
    for (const [name, value] of pairs) {
      if (value === null || value === undefined || value === "") continue;
      list.append(make("dt", "", name), make("dd", "", String(value)));
    }
    return list;
  };
  const block = (title, text) => {
    const pre = make("pre", "", text);
    pre.tabIndex = 0;
    return [make("h3", "", title), pre];
  };
  const headers = (given) => {
    const more = make("details");
    more.append(make("summary", "", plural(Object.keys(given).length, "header")), fields(Object.entries(given)));
    return more;
  };
  const inside = (row) => {
    const made = make("div", "inside");
    made.append(
      fields([["id", row.id], ["key", row.key], ["from", row.source], ["correlation id", row.correlation], ["published", row.published]]),
      ...block("Payload", row.body ?? "(no body: a tombstone)"),
      headers(row.headers),
    );
    return made;
  };
  const entry = (row) => {
    const item = make("li", row.address.startsWith("inbox:") ? "inbox" : "");
    rowOf.set(item, row);
    const details = make("details");
    const head = make("summary");
    const time = make("time", "", clock(row.at));
    time.dateTime = row.at;
    head.append(time, make("span", "type", row.type || "(no type)"), make("span", "soft", row.address), make("span", "soft key", row.key ?? ""), make("span", "brief", row.brief));
    details.append(head);
    details.addEventListener("toggle", () => { if (details.open && details.children.length < 2) details.append(inside(row)); });
    item.append(details);
    return item;
  };
  const trim = () => {
    const list = of("rows");
    let extra = list.children.length - SHOWN;
    for (let at = list.lastElementChild; at && extra > 0;) {
      const before = at.previousElementSibling;
      if (!at.firstChild.open || extra > SHOWN) { at.remove(); extra -= 1; } // what somebody reads stays
      at = before;
    }
  };
  const tell = () => {
    const filtered = of("by-address").value || of("by-type").value || of("by-text").value;
    const matching = filtered ? rows.filter(takes).length : rows.length;
    let text = filtered ? `${number(matching)} of ${plural(rows.length, "message")}` : plural(rows.length, "message");
    if (missed) text += `; ${number(missed)} more went by too fast to show`;
    if (paused) text += `; paused, ${number(waiting.length)} wait`;
    say(of("shown"), rows.length || paused ? text : "nothing has come yet");
    of("nothing").hidden = of("rows").children.length > 0;
  };
  const come = (fresh) => {
    for (const row of fresh) {
      if (row.n <= last) continue;
      last = row.n;
      waiting.push(row);
    }
    if (waiting.length > KEPT) waiting.splice(0, waiting.length - KEPT);
    if (!paused) show();
    else if (fresh.length) tell();
  };
  const show = () => {
    if (!waiting.length) return;
    const list = of("rows");
    for (const row of waiting) if (takes(row)) list.prepend(entry(row));
    rows.push(...waiting);
    waiting = [];
    if (rows.length > KEPT) rows.splice(0, rows.length - KEPT);
    trim();
    tell();
  };
  const arrange = (list, items) => {
    // one that is moved loses its focus and how far it is scrolled: those that stay are not moved
    const stay = new Set(items);
    for (const item of [...list.children]) if (!stay.has(item)) item.remove();
    let next = list.firstElementChild;
    for (const item of items) {
      if (item === next) next = next.nextElementSibling;
      else list.insertBefore(item, next);
    }
  };
  const redraw = () => {
    const shown = rows.filter(takes).slice(-SHOWN).reverse();
    const there = new Map([...of("rows").children].map((item) => [rowOf.get(item), item])); // what somebody reads stays open
    arrange(of("rows"), shown.map((row) => there.get(row) ?? entry(row)));
    tell();
  };
  of("by-address").addEventListener("change", redraw);
  of("by-type").addEventListener("change", redraw);
  of("by-text").addEventListener("input", redraw);
  of("by-text").addEventListener("keydown", (event) => {
    if (event.key === "Escape") { event.target.value = ""; redraw(); }
  });
  of("pause").addEventListener("click", () => {
    paused = !paused;
    of("pause").setAttribute("aria-pressed", String(paused));
    if (!paused) show();
    tell();
  });
  of("clear").addEventListener("click", () => {
    rows = [];
    missed = 0;
    redraw();
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target instanceof HTMLElement && event.target.matches("input, textarea, select");
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey || of("ask").open) return;
    event.preventDefault();
    of("by-text").focus();
  });

  // Dead letters
  let group = null;
  let letters = [];
  let more = false;
  let counted; // what the broker said when they were looked at
  let asked = 0;
  const selected = new Set();
  const letterRows = new Map();
  const chosen = () => ({ type: of("letter-type").value, reason: of("letter-reason").value });
  const letterGroups = () => {
    const chips = of("letter-groups");
    for (const one of known) {
      let chip = [...chips.children].find((found) => found.dataset.group === one.name);
      if (!chip) {
        chip = make("button");
        chip.type = "button";
        chip.dataset.group = one.name;
        chip.append(make("span", "", `${one.name} `), make("span", "count"));
        chip.addEventListener("click", () => choose(one.name));
        chips.append(chip);
      }
      say(chip.lastChild, number(one.dead));
      chip.lastChild.hidden = !one.dead;
      chip.setAttribute("aria-pressed", String(one.name === group));
    }
    if (group === null && known.some((one) => one.dead !== undefined)) {
      choose((known.find((one) => one.dead > 0) ?? known[0]).name);
      return;
    }
    const now = known.find((one) => one.name === group);
    if (now && now.dead !== undefined && now.dead !== counted && !of("ask").open) load();
  };
  const choose = (name) => {
    if (group !== name) {
      group = name;
      letters = [];
      selected.clear();
      letterRows.clear();
      of("letter-rows").replaceChildren();
      of("letter-type").replaceChildren(new Option("all", ""));
      of("letter-reason").value = "";
      counted = known.find((one) => one.name === group)?.dead;
      letterGroups();
    }
    load();
  };
  const load = async () => {
    if (group === null) return;
    const turn = ++asked;
    counted = known.find((one) => one.name === group)?.dead;
    try {
      const answer = await fetch(`letters?${new URLSearchParams({ group, ...chosen() })}`);
      const told = await answer.json();
      if (turn !== asked) return;
      if (answer.ok) ({ letters, more } = told);
      else {
        [letters, more] = [[], false];
        if (answer.status !== 404) speak(told.error, true);
      }
    } catch {
      if (turn === asked) speak("eventkit ui does not answer", true);
      return;
    }
    list();
  };
  const list = () => {
    const there = new Set(letters.map((letter) => letter.id));
    for (const id of [...selected]) if (!there.has(id)) selected.delete(id);
    for (const id of [...letterRows.keys()]) if (!there.has(id)) letterRows.delete(id);
    const shown = new Set();
    for (const letter of letters) {
      const old = letterRows.get(letter.id);
      if (!old || old.last !== letter.last_failure) letterRows.set(letter.id, { last: letter.last_failure, item: letterEntry(letter) });
      shown.add(letterRows.get(letter.id).item);
    }
    const now = [...of("letter-rows").children];
    if (now.length !== shown.size || [...shown].some((item, at) => item !== now[at])) of("letter-rows").replaceChildren(...shown);
    options(of("letter-type"), letters.map((letter) => letter.type));
    say(of("letters-shown"), letters.length ? `${more ? "the oldest " : ""}${plural(letters.length, "letter")} of ${group}` : "");
    of("no-letters").hidden = letters.length > 0;
    say(of("no-letters"), chosen().type || chosen().reason ? `No such dead letter of ${group}.` : `${group} has not given up on anything.`);
    deeds();
  };
  const deeds = () => {
    const narrowed = chosen().type || chosen().reason;
    for (const button of document.querySelectorAll(".deeds button")) {
      const word = button.dataset.verb === "retry" ? "Retry" : "Discard";
      if (button.dataset.which === "selected") {
        button.disabled = selected.size === 0;
        say(button, selected.size ? `${word} ${number(selected.size)} selected` : `${word} selected`);
      } else {
        button.disabled = letters.length === 0;
        say(button, narrowed ? `${word} all that match` : group ? `${word} all of ${group}` : `${word} all`);
      }
    }
    of("select-all").checked = letters.length > 0 && selected.size === letterRows.size;
    of("select-all").indeterminate = selected.size > 0 && selected.size < letterRows.size;
    for (const [id, { item }] of letterRows) item.firstChild.checked = selected.has(id);
  };
  const reasons = (letter) => [letter.error_type, letter.error_message].filter(Boolean).join(": ");
  const letterEntry = (letter) => {
    const item = make("li");
    item.dataset.id = letter.id;
    const check = make("input");
    check.type = "checkbox";
    check.setAttribute("aria-label", `select ${letter.type} ${letter.id}`);
    check.addEventListener("change", () => {
      if (check.checked) selected.add(letter.id); else selected.delete(letter.id);
      deeds();
    });
    const details = make("details");
    const head = make("summary");
    const when = make("span", "soft where", ago(letter.last_failure));
    when.title = letter.last_failure ?? "";
    head.append(make("span", "type", letter.type || "(no type)"), make("span", "soft key", letter.key ?? ""), make("span", "reason", letter.reason || "-"), when, make("span", "brief error", reasons(letter)));
    details.append(head);
    details.addEventListener("toggle", async () => {
      if (!details.open || details.children.length > 1) return;
      const made = make("div", "inside");
      made.append(make("p", "", "loading"));
      details.append(made);
      try {
        const answer = await fetch(`letter?${new URLSearchParams({ group: letter.group, id: letter.id })}`);
        const told = await answer.json();
        made.replaceChildren(...(answer.ok ? wholeLetter(told) : [make("p", "error", told.error)]));
      } catch {
        made.replaceChildren(make("p", "error", "eventkit ui does not answer"));
      }
    });
    const own = make("div", "own");
    for (const [verb, word] of [["retry", "Retry"], ["discard", "Discard"]]) {
      const button = make("button", verb === "discard" ? "danger" : "", word);
      button.type = "button";
      button.setAttribute("aria-label", `${word} ${letter.type} ${letter.id}`);
      button.addEventListener("click", () => ask(verb, { ids: [letter.id] }, `${letter.type} ${letter.id}`));
      own.append(button);
    }
    item.append(check, details, own);
    return item;
  };
  const wholeLetter = (letter) => [
    fields([
      ["id", letter.id], ["key", letter.key], ["first at", letter.origin], ["reason", letter.reason],
      ["attempts", letter.attempts], ["retried", letter.redriven ? plural(letter.redriven, "time") : "never"],
      ["failed first", letter.first_failure], ["failed last", letter.last_failure], ["error", reasons(letter)],
    ]),
    ...(letter.error_stack ? block("Stack", letter.error_stack) : []),
    ...block("Payload", letter.body ?? "(no body: a tombstone)"),
    headers(letter.headers),
  ];
  const speak = (text, bad) => {
    of("said").classList.toggle("bad", Boolean(bad));
    of("said").textContent = text;
  };
  let answered = null; // what is done if the answer is yes
  const ask = (verb, which, what) => {
    const discard = verb === "discard";
    const whose = group;
    of("ask-title").textContent = `${discard ? "Discard" : "Retry"} ${what}?`;
    of("ask-text").textContent = discard
      ? `Deleted for good from the dead letters of ${whose}.`
      : `${whose} tries it again from attempt 1; no other group gets it.`;
    of("ask-yes").textContent = discard ? "Discard" : "Retry";
    of("ask-yes").className = discard ? "danger" : "";
    of("ask-force").hidden = discard;
    of("force").checked = false;
    of("ask").returnValue = "";
    answered = () => act(verb, { group: whose, ...which, ...(discard ? {} : { force: of("force").checked }) });
    of("ask").showModal();
    of("ask-no").focus();
  };
  of("ask").addEventListener("close", () => {
    if (of("ask").open) return; // a browser tells of it later: the next question stands there already
    if (of("ask").returnValue === "yes") answered?.();
    answered = null;
  });
  const act = async (verb, deed) => {
    const done = verb === "retry" ? "retried" : "discarded";
    try {
      const answer = await fetch(`letters/${verb}`, {
        method: "POST",
        headers: { "content-type": "application/json", "x-eventkit-csrf": csrf },
        body: JSON.stringify(deed),
      });
      const told = await answer.json();
      if (answer.ok) {
        const lines = [`${plural(told.done, "dead letter")} of ${deed.group} ${done}`];
        if (told.left) lines.push(`${number(told.left)} left:`, ...told.failures.map((failure) => `${failure.id}: ${failure.error}`));
        speak(lines.join("\n"), told.left > 0);
      } else speak(told.error, true);
    } catch {
      speak("eventkit ui does not answer: look again before you try it once more", true);
    }
    load();
  };
  for (const button of document.querySelectorAll(".deeds button")) {
    button.addEventListener("click", () => {
      const { verb, which } = button.dataset;
      if (which === "selected") {
        ask(verb, { ids: [...selected] }, plural(selected.size, "dead letter"));
        return;
      }
      const narrow = Object.fromEntries(Object.entries(chosen()).filter(([, value]) => value));
      const narrowed = Object.keys(narrow).length > 0;
      const count = more || narrowed ? "" : ` ${number(letters.length)}`;
      const match = narrowed ? ` that match ${Object.values(narrow).join(" and ")}` : "";
      ask(verb, narrowed ? narrow : { all: true }, `all${count} dead letters of ${group}${match}`);
    });
  }
  of("select-all").addEventListener("change", (event) => {
    selected.clear();
    if (event.target.checked) for (const id of letterRows.keys()) selected.add(id);
    deeds();
  });
  of("letter-type").addEventListener("change", load);
  of("letter-reason").addEventListener("change", load);
  of("reload").addEventListener("click", load);

  addEventListener("hashchange", () => {
    const to = location.hash && of(decodeURIComponent(location.hash.slice(1)));
    to?.focus({ preventScroll: true });
  });
  addEventListener("pagehide", () => source?.close());
  addEventListener("pageshow", (event) => { if (event.persisted) connect(); });
  connect();
})();
