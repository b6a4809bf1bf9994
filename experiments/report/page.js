"use strict";

// Sorting: numbers by what they begin with, words by the alphabet, what has no number last.

function valueOf(row, column) {
  const text = row.cells[column].textContent.trim();
  const number = parseFloat(text);
  return { text, number };
}

function compare(one, other, asNumbers, sign) {
  if (!asNumbers) return sign * one.text.localeCompare(other.text);
  if (isNaN(one.number) || isNaN(other.number)) return isNaN(one.number) - isNaN(other.number);
  return sign * (one.number - other.number);
}

function sortBy(heading) {
  const body = heading.closest("table").tBodies[0];
  const headings = [...heading.parentElement.cells];
  const column = headings.indexOf(heading);
  const rows = [...body.rows].map((row) => ({ row, value: valueOf(row, column) }));
  const asNumbers = heading.classList.contains("number") && rows.some(({ value }) => !isNaN(value.number));
  // The best come first: numbers begin with the greatest.
  const next = { none: asNumbers ? "descending" : "ascending", ascending: "descending", descending: "ascending" };
  const order = next[heading.getAttribute("aria-sort")];
  headings.forEach((one) => one.setAttribute("aria-sort", one === heading ? order : "none"));
  const sign = order === "ascending" ? 1 : -1;
  rows.sort((one, other) => compare(one.value, other.value, asNumbers, sign));
  body.append(...rows.map(({ row }) => row));
}

document.querySelectorAll(".sortable thead button").forEach((button) => {
  button.addEventListener("click", () => sortBy(button.closest("th")));
});

// Filters: whatever names a task or a method is shown where both are chosen.

const filters = document.getElementById("filters");

function chosen(name) {
  return new Set([...filters.querySelectorAll(`input[name=${name}]:checked`)].map((box) => box.value));
}

function filter() {
  const tasks = chosen("task");
  const methods = chosen("method");
  document.querySelectorAll("[data-task], [data-method]").forEach((one) => {
    const { task, method } = one.dataset;
    const isHidden = (task !== undefined && !tasks.has(task)) || (method !== undefined && !methods.has(method));
    one.toggleAttribute("hidden", isHidden);
  });
  const runs = [...document.querySelectorAll("#runs tbody tr")];
  filters.querySelector("output").textContent = `${runs.filter((row) => !row.hidden).length} of ${runs.length} runs`;
}

filters.addEventListener("change", filter);
filters.addEventListener("reset", () => setTimeout(filter));
filters.addEventListener("submit", (event) => event.preventDefault());
filter();

// A run in a window.

const dialog = document.getElementById("run");

function open(run) {
  const close = document.createElement("button");
  close.type = "button";
  close.className = "close";
  close.textContent = "close";
  close.addEventListener("click", () => dialog.close());
  dialog.replaceChildren(close, document.getElementById(run).content.cloneNode(true));
  dialog.querySelectorAll("[data-film-of]").forEach((place) => {
    const films = [...document.querySelectorAll("video[data-film]")];
    const film = films.find((one) => one.dataset.film === place.dataset.filmOf).cloneNode();
    delete film.dataset.film;
    place.append(film);
  });
  dialog.querySelectorAll("a").forEach((link) => link.addEventListener("click", () => dialog.close()));
  dialog.showModal();
  dialog.scrollTop = 0;
}

document.querySelectorAll("[data-run]").forEach((button) => {
  button.addEventListener("click", () => open(button.dataset.run));
});
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});

// Films side by side.

const play = document.getElementById("play");
if (play) {
  play.addEventListener("click", () => {
    document.querySelectorAll("video[data-film]").forEach((film) => {
      film.currentTime = 0;
      film.play();
    });
  });
}
