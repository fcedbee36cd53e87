"use strict";
// The threshold slider, the prevalence box and the Grad-CAM switches. Only counts that are stored in
// the page are divided here; no interval is computed. Without this script the page is complete.

const SLIDERS = JSON.parse(document.getElementById("slider-data").textContent);

function of100(part, whole) {
  if (!whole) return "–";
  const share = part / whole;
  const rounded = Math.floor(100 * share + 0.5);
  if (rounded === 0 && share > 0) return "<1";
  if (rounded === 100 && share < 1) return ">99";
  return String(rounded);
}

function percent(part, whole) {
  if (!whole) return "–";
  const share = part / whole;
  if (share > 0 && share < 0.0995) return Number((100 * share).toPrecision(2)) + "%";
  return of100(part, whole) + "%";
}

function thresholdText(value, infinite) {
  if (value === "inf") return infinite;
  return value >= 0.001 ? value.toFixed(3) : value.toExponential(1);
}

// Sensitivity and specificity applied to 1000 patients, in whole patients that sum to 1000.
function perThousand(point, prevalence) {
  const [, tp, fp, fn, tn] = point;
  if (!(tp + fn) || !(fp + tn)) return null;
  const withIt = Math.floor(1000 * prevalence + 0.5);
  const found = Math.floor((withIt * tp) / (tp + fn) + 0.5);
  const cleared = Math.floor(((1000 - withIt) * tn) / (fp + tn) + 0.5);
  return { tp: found, fn: withIt - found, fp: 1000 - withIt - cleared, tn: cleared };
}

// Predictive values at a prevalence (Bayes): parts and wholes for `percent`.
function predictive(point, prevalence) {
  const [, tp, fp, fn, tn] = point;
  const se = tp / (tp + fn), sp = tn / (fp + tn), p = prevalence;
  return {
    ppv: [se * p, se * p + (1 - sp) * (1 - p)],
    npv: [sp * (1 - p), sp * (1 - p) + (1 - se) * p],
  };
}

function shares(point, prevalence) {
  const [, tp, fp, fn, tn] = point;
  const values = {
    sensitivity: percent(tp, tp + fn),
    specificity: percent(tn, fp + tn),
    ppv: percent(tp, tp + fp),
    npv: percent(tn, fn + tn),
    ppv_at_prevalence: "–",
    npv_at_prevalence: "–",
  };
  if (prevalence !== null && tp + fn && fp + tn) {
    const { ppv, npv } = predictive(point, prevalence);
    values.ppv_at_prevalence = percent(...ppv);
    values.npv_at_prevalence = percent(...npv);
  }
  return values;
}

// Moves the ring on the ROC and precision-recall curves and the line on the histogram.
function moveMarks(section, point, exploring) {
  const [threshold, tp, fp, fn, tn] = point;
  const places = {
    roc: [fp / (fp + tn), tp / (tp + fn)],
    pr: [tp / (tp + fn), tp / (tp + fp)],
    hist: [threshold === "inf" ? NaN : threshold, 0],
  };
  for (const [name, [x, y]] of Object.entries(places)) {
    const figure = section.querySelector(`svg[data-figure="${name}"]`);
    const mark = figure && figure.querySelector("[data-moving]");
    if (!mark) continue;
    const shown = exploring && Number.isFinite(x) && Number.isFinite(y);
    mark.toggleAttribute("hidden", !shown);
    if (!shown) continue;
    const { left, bottom, plotWidth, plotHeight } = figure.dataset;
    const placeX = Number(left) + Math.min(Math.max(x, 0), 1) * Number(plotWidth);
    const placeY = Number(bottom) - y * Number(plotHeight);
    if (name === "hist") {
      mark.setAttribute("d", `M${placeX} ${Number(bottom) - Number(plotHeight)}V${bottom}`);
    } else {
      mark.setAttribute("cx", placeX);
      mark.setAttribute("cy", placeY);
    }
  }
}

function startSlider(panel) {
  const { points, frozen } = SLIDERS[panel.dataset.finding];
  const section = panel.closest("section");
  const slider = panel.querySelector('input[type="range"]');
  const prevalenceBox = panel.querySelector('input[type="number"]');
  const stated = prevalenceBox.value;
  const infinite = panel.dataset.infinite;

  const out = (name, text) => {
    for (const element of panel.querySelectorAll(`[data-out="${name}"]`)) element.textContent = text;
  };
  const show = (selector, visible) => {
    for (const element of panel.querySelectorAll(selector)) element.hidden = !visible;
  };

  function readPrevalence(text) {
    const value = Number(text) / 100;
    return text !== "" && value > 0 && value < 1 ? value : null;
  }

  function showThousand(point) {
    const prevalence = readPrevalence(prevalenceBox.value);
    const numbers = prevalence === null ? null : perThousand(point, prevalence);
    show("[data-thousand]", numbers !== null);
    show("[data-thousand-ask]", numbers === null);
    if (numbers === null) return;
    for (const [name, value] of Object.entries(numbers)) out("n-" + name, String(value));
    const { ppv, npv } = predictive(point, prevalence);
    out("n-ppv", percent(...ppv));
    out("n-npv", percent(...npv));
  }

  function update() {
    const index = Number(slider.value);
    const point = points[index];
    const [threshold, tp, fp, fn, tn] = point;
    const exploring = index !== frozen;
    for (const [name, value] of Object.entries({ tp, fp, fn, tn })) out(name, String(value));
    const words = {
      threshold: thresholdText(threshold, infinite),
      found: of100(tp, tp + fn),
      missed: of100(fn, tp + fn),
      false: of100(fp, fp + tn),
    };
    for (const [name, value] of Object.entries(words)) out(name, value);
    slider.setAttribute("aria-valuetext", slider.dataset.valuetext.replace(
      /\{(\w+)\}/g, (_, name) => words[name]));
    show('[data-status="exploratory"]', exploring);
    show('[data-status="frozen"]', !exploring);
    show("[data-measured]", !exploring);
    const values = shares(point, readPrevalence(stated));
    for (const cell of panel.querySelectorAll("[data-explored]")) {
      cell.hidden = !exploring;
      cell.textContent = values[cell.dataset.explored];
    }
    moveMarks(section, point, exploring);
    showThousand(point);
  }

  const share = points.length > 1 ? frozen / (points.length - 1) : 0;
  panel.querySelector("[data-tick]").style.left = `calc(11px + ${share} * (100% - 22px))`;
  slider.value = String(frozen);
  slider.addEventListener("input", update);
  prevalenceBox.addEventListener("input", update);
  panel.querySelector("[data-reset]").addEventListener("click", () => {
    slider.value = String(frozen);
    update();
    slider.focus();
  });
  update();
}

for (const panel of document.querySelectorAll("[data-finding]")) {
  if (SLIDERS[panel.dataset.finding]) startSlider(panel);
}

function setCam(item, on) {
  item.classList.toggle("show-cam", on);
  item.querySelector("[data-cam]").setAttribute("aria-pressed", String(on));
}

const camCases = [...document.querySelectorAll(".case")].filter((c) => c.querySelector("[data-cam]"));
for (const item of camCases) {
  item.querySelector("[data-cam]").addEventListener("click", () => {
    setCam(item, !item.classList.contains("show-cam"));
  });
}
const camAll = document.getElementById("cam-all");
if (camAll) camAll.addEventListener("change", () => camCases.forEach((c) => setCam(c, camAll.checked)));

for (const button of document.querySelectorAll("[data-enlarge]")) {
  button.addEventListener("click", () => {
    const on = button.closest(".case").classList.toggle("large");
    button.setAttribute("aria-pressed", String(on));
  });
}
