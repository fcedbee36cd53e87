"use strict";
const by = (id) => document.getElementById(id);
const film = by("film"), drop = by("drop"), status = by("status"), result = by("result");
let asked = 0;

function cell(row, text, kind) {
  const made = document.createElement(kind || "td");
  if (kind) made.scope = "row"; else if (typeof text === "number") made.className = "number";
  made.textContent = typeof text === "number" ? String(+text.toPrecision(3)) : text;
  row.append(made);
}

function picture(source, words) {
  const figure = document.createElement("figure"), image = document.createElement("img");
  const caption = document.createElement("figcaption");
  image.src = source;
  image.alt = words;
  caption.textContent = words;
  figure.append(image, caption);
  by("pictures").append(figure);
}

function show(found) {
  by("rows").replaceChildren();
  by("flags").replaceChildren();
  by("pictures").replaceChildren();
  picture(found.picture, "The film");
  for (const row of found.rows) {
    const line = document.createElement("tr");
    cell(line, row.label, "th");
    cell(line, row.y_score);
    cell(line, row.threshold ?? "none");
    cell(line, row.decision == null ? "none" : row.decision ? "above the threshold" : "below it");
    by("rows").append(line);
    if (row.heat) picture(row.heat, "Where features raise the score: " + row.label);
  }
  for (const words of found.flags.length ? found.flags : ["Nothing unlike them was found."]) {
    const item = document.createElement("li");
    item.textContent = words.replaceAll("_", " ");
    by("flags").append(item);
  }
  result.hidden = false;
}

async function look(file) {
  const mine = ++asked;
  status.textContent = "Looking at " + file.name + " ...";
  result.hidden = true;
  try {
    const answer = await fetch("/look", { method: "POST", body: file, headers: { "X-Medtl": "1" } });
    const found = await answer.json();
    if (mine !== asked) return;
    if (!answer.ok) throw new Error(found.error);
    show(found);
    status.textContent = file.name + ": done.";
  } catch (error) {
    if (mine === asked) status.textContent = file.name + ": " + error.message;
  }
}

film.addEventListener("change", () => film.files.length && look(film.files[0]));
for (const name of ["dragover", "dragleave", "drop"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files.length) look(event.dataTransfer.files[0]);
  });
}
