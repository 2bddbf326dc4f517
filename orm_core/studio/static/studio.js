// What a keyboard and a pointer can do beyond links and forms. Every page works without it.
"use strict";

const one = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const typing = () => document.activeElement?.matches("input:not([type=checkbox]), textarea, select");

// -- moving in a table of rows ------------------------------------------------------------

const rows = () => all("[data-row]");
let place = { row: -1, cell: 0 };

function cells(row) {
  return all(":scope > :not(.pick)", row);
}

function show() {
  all(".current").forEach((each) => each.classList.remove("current"));
  const row = rows()[place.row];
  if (!row) return;
  const found = cells(row);
  place.cell = Math.max(0, Math.min(place.cell, found.length - 1));
  row.classList.add("current");
  const cell = found[place.cell];
  cell.classList.add("current");
  cell.scrollIntoView({ block: "nearest", inline: "nearest" });
  one("[data-open]", row)?.focus({ preventScroll: true });
}

function move(down, right) {
  const last = rows().length - 1;
  if (last < 0) return;
  place.row = Math.max(0, Math.min(place.row + down, last));
  place.cell += right;
  show();
}

document.addEventListener("focusin", (event) => {
  const row = event.target.closest("[data-row]");
  if (!row || event.target.matches("[data-open]") === false) return;
  const number = rows().indexOf(row);
  if (number !== place.row) {
    place.row = number;
    show();
  }
});

// -- editing one cell -----------------------------------------------------------------------

async function fetched(address, options = {}) {
  const headers = { "X-Fragment": "1" };
  const answer = await fetch(address, { ...options, headers, credentials: "same-origin" });
  return { ok: answer.ok, status: answer.status, text: await answer.text() };
}

async function edit(cell) {
  if (!cell?.dataset.cell || one(".in-cell", cell)) return;
  one(".in-cell [data-cancel]")?.click();
  const before = cell.innerHTML;
  const back = (html) => {
    cell.innerHTML = html;
    show();
  };
  const answer = await fetched(cell.dataset.cell);
  if (!answer.ok) return;
  cell.innerHTML = answer.text;
  const form = one("form", cell);
  const input = one("[data-input]", form);
  watchNull(form);
  input.focus();
  input.select?.();
  one("[data-cancel]", form).addEventListener("click", () => back(before));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const saved = await fetched(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)) });
    if (saved.ok) {
      back(saved.text);
      refreshUndo();
      return;
    }
    const problem = one(".problem", form);
    problem.hidden = false;
    problem.textContent = saved.text;
    if (saved.status === 409) {
      const link = document.createElement("a");
      link.href = location.href;
      link.textContent = " Load the page again";
      problem.append(link);
    }
  });
}

async function refreshUndo() {
  const answer = await fetched(location.href);
  const fresh = one(".undo", new DOMParser().parseFromString(answer.text, "text/html"));
  one(".undo")?.remove();
  if (fresh) one(".mode").before(fresh);
}

document.addEventListener("dblclick", (event) => {
  const cell = event.target.closest("[data-cell]");
  if (cell && !one(".in-cell", cell)) {
    event.preventDefault();
    edit(cell);
  }
});

// -- forms ------------------------------------------------------------------------------------

function watchNull(within) {
  all("[data-input]", within).forEach((input) => {
    const box = one(`[name="null.${CSS.escape(input.name.slice(6))}"]`, within);
    if (!box) return;
    input.addEventListener("input", () => (box.checked = false));
    input.addEventListener("keydown", (event) => {
      if (event.key === "Backspace" && event.altKey) box.checked = true;
    });
  });
}
watchNull(document);

const columns = one("[data-column]");
if (columns) {
  const operators = one("[data-operator]");
  const value = one("[data-value]");
  const fit = () => {
    const { operators: known, choices } = columns.selectedOptions[0].dataset;
    const fitting = known.split(" ");
    [...operators.options].forEach((option) => {
      option.hidden = option.disabled = !fitting.includes(option.value);
    });
    if (!fitting.includes(operators.value)) operators.value = fitting[0];
    one("#choices").replaceChildren(...choices.split(" ").filter(Boolean).map((text) => new Option(text, text)));
    bare();
  };
  const bare = () => {
    value.closest("[data-of-value]").hidden = ["null", "notnull", "empty"].includes(operators.value);
  };
  columns.addEventListener("change", fit);
  operators.addEventListener("change", bare);
  operators.value = columns.selectedOptions[0].dataset.operators.split(" ")[0];
  fit();
}

const everything = one("[data-all]");
if (everything) {
  const boxes = () => all('input[name="key"]');
  const picked = one("[data-picked]");
  const bulk = one(".bulk");
  bulk?.classList.add("floating");
  const tell = () => {
    const count = boxes().filter((box) => box.checked).length;
    if (picked) picked.textContent = count === 1 ? "1 row selected:" : `${count} rows selected:`;
    if (bulk) bulk.hidden = count === 0;
    everything.checked = count > 0 && count === boxes().length;
    everything.indeterminate = count > 0 && count < boxes().length;
  };
  everything.hidden = false;
  everything.addEventListener("change", () => {
    boxes().forEach((box) => (box.checked = everything.checked));
    tell();
  });
  document.addEventListener("change", (event) => event.target.matches('input[name="key"]') && tell());
  tell();
}

// -- panels close when somebody goes elsewhere -------------------------------------------------

document.addEventListener("click", (event) => {
  all("details.drop[open]").forEach((each) => {
    if (!each.contains(event.target)) each.open = false;
  });
});

// -- keys ---------------------------------------------------------------------------------------

const help = one("#help");
const helper = one("[data-help]");
if (helper) {
  helper.hidden = false;
  helper.addEventListener("click", () => help.showModal());
}

const keys = {
  j: () => move(1, 0),
  k: () => move(-1, 0),
  h: () => move(0, -1),
  l: () => move(0, 1),
  "/": () => one("[data-search], [data-sql]")?.focus(),
  "[": () => one('[rel="prev"]')?.click(),
  "]": () => one('[rel="next"]')?.click(),
  "?": () => help.showModal(),
  e: () => {
    const row = rows()[place.row];
    if (row) edit(cells(row)[place.cell]);
    else one("[data-edit]")?.click();
  },
  x: () => one('input[name="key"]', rows()[place.row] ?? document.createElement("i"))?.click(),
};

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    const open = one("details.drop[open]");
    const form = one(".in-cell [data-cancel]");
    if (form) form.click();
    else if (open) {
      open.open = false;
      one("summary", open).focus();
    } else if (typing()) document.activeElement.blur();
    else if (location.hash === "#menu") location.hash = "main";
    else one("[data-form] [data-cancel]")?.click();
    return;
  }
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    const form = document.activeElement?.closest("form");
    if (form && typing()) form.requestSubmit();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || typing() || help.open) return;
  const act = keys[event.key];
  if (act) {
    event.preventDefault();
    act();
  }
});

// -- the dashboard is live ------------------------------------------------------------------------

if (one("[data-live]")) {
  setInterval(async () => {
    if (document.hidden) return;
    const answer = await fetched(location.href).catch(() => null);
    if (!answer?.ok) return;
    const fresh = new DOMParser().parseFromString(answer.text, "text/html");
    one("[data-live]").replaceWith(one("[data-live]", fresh));
  }, 5000);
}

// -- the diagram shows what belongs to a table -----------------------------------------------------

all("[data-box]").forEach((box) => {
  const light = (on) => {
    const name = box.dataset.box;
    const lines = all("[data-line]");
    const near = new Set([name]);
    lines.forEach((line) => {
      const ends = line.dataset.line.split(" ");
      const mine = ends.includes(name);
      if (mine) ends.forEach((end) => near.add(end));
      line.classList.toggle("lit", on && mine);
      line.classList.toggle("dim", on && !mine);
    });
    all("[data-box]").forEach((other) => other.classList.toggle("dim", on && !near.has(other.dataset.box)));
  };
  ["mouseenter", "focus"].forEach((event) => box.addEventListener(event, () => light(true)));
  ["mouseleave", "blur"].forEach((event) => box.addEventListener(event, () => light(false)));
});
