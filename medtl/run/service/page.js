"use strict";
const by = (id) => document.getElementById(id);
const film = by("film"), drop = by("drop"), status = by("status"), result = by("result");
const columns = [...document.querySelectorAll("[data-column]")].map((head) => head.dataset.column);
let asked = 0;

// As few digits as tell a score from its threshold, but three.
function written(value, other) {
  for (let digits = 3; digits < 17; digits += 1) {
    const text = String(+value.toPrecision(digits));
    if (value === other || +text !== +(other ?? NaN).toPrecision(digits)) return text;
  }
  return String(value);
}

function cells(row) {
  const score = row.y_score, threshold = row.threshold;
  return {
    size: row.size,
    y_score: score == null ? "none" : written(score, threshold),
    probability: row.probability == null ? "none" : written(row.probability),
    threshold: threshold == null ? "none" : written(threshold, score),
    decision: row.decision == null ? "none" : row.decision ? "above the threshold" : "below it",
  };
}

function line(row) {
  const made = document.createElement("tr"), head = document.createElement("th");
  head.scope = "row";
  head.textContent = row.label.replaceAll("_", " ");
  made.append(head);
  made.classList.toggle("above", Boolean(row.decision));
  const texts = cells(row);
  for (const name of columns) made.insertCell().textContent = texts[name];
  by("rows").append(made);
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
  for (const id of ["rows", "flags", "pictures"]) by(id).replaceChildren();
  picture(found.picture, "The film");
  for (const row of found.rows) {
    line(row);
    if (row.heat) picture(row.heat, by("pictures").dataset.words + ": " + row.label.replaceAll("_", " "));
  }
  for (const words of found.flags.length ? found.flags : ["Nothing unlike them was found."]) {
    const item = document.createElement("li");
    item.textContent = words.replaceAll("_", " ");
    by("flags").append(item);
  }
  by("flags").classList.toggle("warn", found.flags.length > 0);
  result.hidden = false;
}

function say(words, isFault) {
  status.textContent = words;
  status.classList.toggle("warn", Boolean(isFault));
}

async function look(files) {
  const mine = ++asked, file = files[0];
  const name = files.length > 1 ? file.name + " (the first of " + files.length + ")" : file.name;
  say("Looking at " + name + " ...");
  result.hidden = true;
  try {
    const answer = await fetch("/look", { method: "POST", body: file, headers: { "X-Medtl": "1" } });
    const found = await answer.json();
    if (mine !== asked) return;
    if (!answer.ok) throw new Error(found.error);
    show(found);
    say(name + ": done.");
  } catch (error) {
    const gone = error instanceof TypeError;
    const words = gone ? "no answer. Is the file readable, and does medtl serve still run?" : error.message;
    if (mine === asked) say(name + ": " + words, true);
  }
}

film.addEventListener("click", () => { film.value = ""; }); // the same file may be chosen again
film.addEventListener("change", () => film.files.length && look(film.files));
// A film dropped beside the field must not replace the page.
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragover");
    if (name !== "drop" || !event.dataTransfer.files.length) return;
    film.value = ""; // the field would go on naming another film
    look(event.dataTransfer.files);
  });
}
