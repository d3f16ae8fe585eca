"use strict";

// The page can be read without any of this: it sorts, filters, folds, enlarges and changes the theme.
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const THEMES = ["auto", "light", "dark"];
const KEY = "landscape-report-theme";
const NEAREST = 40; // times that a picture can be enlarged

function theme() {
  const button = document.getElementById("theme");
  const set = (name) => {
    if (name === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    button.textContent = `Theme: ${name}`;
  };
  let current = "auto";
  try { current = localStorage.getItem(KEY) ?? current; } catch { /* not allowed to remember */ }
  set(THEMES.includes(current) ? current : "auto");
  button.addEventListener("click", () => {
    const now = document.documentElement.dataset.theme ?? "auto";
    const next = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
    set(next);
    try { localStorage.setItem(KEY, next); } catch { /* not allowed to remember */ }
  });
}

function sorting() {
  const table = document.getElementById("summary");
  const body = table.tBodies[0];
  const heads = all("thead tr:last-child th", table);
  const key = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.v === undefined) return cell.classList.contains("none") ? null : cell.textContent;
    return Number(cell.dataset.v);
  };
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const sign = head.ariaSort === "ascending" ? -1 : 1;
    for (const other of heads) other.ariaSort = "none";
    head.ariaSort = sign > 0 ? "ascending" : "descending";
    const rows = [...body.rows].map((row) => [key(row, column), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null); // what is missing is last
      return sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(b));
    });
    body.append(...rows.map(([, row]) => row));
  }));
}

function filtering() {
  const box = document.getElementById("filter");
  const matches = document.getElementById("matches");
  const rows = all("#summary tbody tr"), runs = all(".run"), groups = all(".checkpoint");
  box.addEventListener("input", () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (element) => words.every((word) => element.dataset.words.includes(word));
    for (const element of [...rows, ...runs]) element.hidden = !fits(element);
    for (const group of groups) group.hidden = all(".run", group).every((run) => run.hidden);
    const shown = (elements) => `${elements.filter((element) => !element.hidden).length} of ${elements.length}`;
    matches.textContent = words.length ? `${shown(rows)} checkpoints, ${shown(runs)} runs` : "";
  });
}

function folding() {
  for (const button of all("[data-fold]")) {
    button.addEventListener("click", () => {
      for (const run of all(".run:not([hidden])")) run.open = button.dataset.fold === "open";
    });
  }
}

// A link to a run opens it, also when the filter hides it.
function opening() {
  const go = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    if (target.closest("[hidden]")) {
      const box = document.getElementById("filter");
      box.value = "";
      box.dispatchEvent(new Event("input"));
    }
    if (target instanceof HTMLDetailsElement) target.open = true;
    target.scrollIntoView();
  };
  addEventListener("hashchange", go);
  go();
}

// Paper has no folds: everything that is not filtered out is printed.
function printing() {
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = all("details:not([open])");
    for (const one of closed) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of closed) one.open = false;
  });
}

// The picture itself moves into the viewer and back, since what it refers to is named once. It is enlarged by
// its viewBox, so that it stays sharp.
class Viewer {
  constructor(dialog) {
    this.dialog = dialog;
    this.stage = dialog.querySelector(".canvas");
    dialog.addEventListener("close", () => this.close());
    dialog.addEventListener("keydown", (event) => this.key(event));
    this.stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.stage.addEventListener("pointerdown", (event) => this.stage.setPointerCapture(event.pointerId));
    this.stage.addEventListener("pointermove", (event) => this.drag(event));
    for (const button of all("[data-do]", dialog)) {
      button.addEventListener("click", () => this.act(button.dataset.do));
    }
  }

  open(svg) {
    this.svg = svg;
    this.home = svg.parentElement;
    this.home.style.minHeight = `${this.home.offsetHeight}px`;
    this.whole = svg.getAttribute("viewBox").split(/\s+/).map(Number);
    this.box = [...this.whole];
    this.stage.append(svg);
    this.dialog.showModal();
  }

  close() {
    this.svg.setAttribute("viewBox", this.whole.join(" "));
    this.home.append(this.svg);
    this.home.style.minHeight = "";
  }

  show() { this.svg.setAttribute("viewBox", this.box.join(" ")); }

  act(what) {
    if (what === "close") this.dialog.close();
    else if (what === "in") this.zoom(1.25);
    else if (what === "out") this.zoom(0.8);
    else this.reset();
  }

  reset() {
    this.box = [...this.whole];
    this.show();
  }

  zoom(factor, at = [this.box[0] + this.box[2] / 2, this.box[1] + this.box[3] / 2]) {
    const [left, top, width, height] = this.box;
    const size = Math.min(this.whole[2], Math.max(this.whole[2] / NEAREST, width / factor));
    const by = size / width;
    this.box = [at[0] - (at[0] - left) * by, at[1] - (at[1] - top) * by, size, height * by];
    this.move(0, 0);
  }

  // Shares of what is seen; the picture's edges stay outside.
  move(right, down) {
    for (const [i, share] of [right, down].entries()) {
      const room = this.whole[i + 2] - this.box[i + 2];
      const place = this.box[i] + share * this.box[i + 2] - this.whole[i];
      this.box[i] = this.whole[i] + Math.min(Math.max(place, 0), room);
    }
    this.show();
  }

  key(event) {
    const moves = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };
    if (event.key === "+" || event.key === "=") this.zoom(1.25);
    else if (event.key === "-") this.zoom(0.8);
    else if (event.key === "0") this.reset();
    else if (event.key in moves) this.move(...moves[event.key]);
    else return;
    event.preventDefault();
  }

  wheel(event) {
    event.preventDefault();
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(this.svg.getScreenCTM().inverse());
    this.zoom(Math.exp(-event.deltaY / 400), [at.x, at.y]);
  }

  drag(event) {
    if (!event.buttons) return;
    const scale = this.svg.getScreenCTM().a;
    this.move(-event.movementX / scale / this.box[2], -event.movementY / scale / this.box[3]);
  }
}

function viewing() {
  const viewer = new Viewer(document.getElementById("viewer"));
  document.addEventListener("click", (event) => {
    const figure = event.target.closest("figure");
    if (figure && event.target.closest("svg, .enlarge")) viewer.open(figure.querySelector("svg"));
  });
}

document.documentElement.classList.add("js");
addEventListener("DOMContentLoaded", () => {
  for (const start of [theme, sorting, filtering, folding, opening, printing, viewing]) start();
});
