// A listening test: one clip after the other, its versions in an order of this listener's own.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const WORDS = ["bad", "poor", "fair", "good", "excellent"];
const box = (id) => document.getElementById(id);
let listener = "";
let order = []; // trials in this listener's order
let done = []; // the answers so far
let trial = null; // what is on the screen: player, order of the versions, scores, plays

// --- chance that is the same each time: FNV-1a of a text starts a xorshift generator

function shuffled(count, text) {
  let state = 2166136261;
  for (const byte of new TextEncoder().encode(text)) state = Math.imul(state ^ byte, 16777619) >>> 0;
  state ||= 1;
  const next = () => {
    state = (state ^ (state << 13)) >>> 0;
    state = (state ^ (state >>> 17)) >>> 0;
    state = (state ^ (state << 5)) >>> 0;
    return state / 4294967296;
  };
  for (let i = 0; i < 16; i++) next(); // names that are alike drift apart
  const places = Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(next() * (i + 1));
    [places[i], places[j]] = [places[j], places[i]];
  }
  return places;
}

// --- progress outlives the page where the browser keeps it for files

const shelf = () => `listening/${data.test}/${listener}`;

function keep() {
  try {
    localStorage.setItem(shelf(), JSON.stringify(done));
  } catch {
    // the test works without
  }
}

function savedAnswers() {
  try {
    return JSON.parse(localStorage.getItem(shelf())) ?? [];
  } catch {
    return [];
  }
}

// --- one trial

function attempt(action) {
  Promise.resolve(action).catch((error) => {
    box("trouble").textContent = `This browser cannot play this sound: ${error.message}`;
  });
}

function show(section) {
  for (const id of ["start", "trial", "end"]) box(id).hidden = id !== section;
  scrollTo(0, 0);
}

function begin() {
  const place = order[done.length];
  const { reference, sounds } = data.trials[place];
  const versions = shuffled(sounds.length, `${data.seed}/${listener}/versions of ${place}`);
  const player = new Player([sounds[reference], ...versions.map((i) => sounds[i])], refresh);
  player.loop = true;
  trial = { place, versions, player, scores: versions.map(() => null), plays: [0, ...versions.map(() => 0)], part: null };
  box("rows").replaceChildren(...versions.map((_, i) => row(i + 1)));
  box("progress").textContent = `Clip ${done.length + 1} of ${order.length}`;
  box("next").textContent = done.length + 1 === order.length ? "Finish" : "Next";
  box("trouble").textContent = "";
  box("loop").checked = true;
  show("trial");
  box("progress").focus();
  refresh();
}

function row(number) {
  const made = document.createElement("div");
  made.className = "row";
  const choose = document.createElement("button");
  choose.type = "button";
  choose.className = "choose";
  choose.dataset.choice = number;
  const key = document.createElement("kbd");
  key.textContent = number;
  choose.append(key, ` Version ${number}`);
  choose.addEventListener("click", () => pick(number, true));
  const slider = document.createElement("input");
  Object.assign(slider, { type: "range", min: 0, max: 100, step: 1, value: 0, className: "untouched" });
  slider.setAttribute("aria-label", `Version ${number}, from 0, bad, to 100, excellent`);
  const shown = document.createElement("output");
  shown.textContent = "–";
  const rate = () => {
    trial.scores[number - 1] = Number(slider.value);
    slider.className = "";
    shown.textContent = slider.value;
    slider.setAttribute("aria-valuetext", `${slider.value}, ${WORDS[Math.min(4, Math.floor(slider.value / 20))]}`);
  };
  slider.addEventListener("input", rate);
  slider.addEventListener("change", rate);
  slider.addEventListener("pointerup", rate);
  slider.addEventListener("keyup", (event) => {
    if (/^(Arrow|Page|Home|End)/.test(event.key)) rate(); // 0 is an answer, too
  });
  slider.addEventListener("focus", () => pick(number, false));
  made.append(choose, slider, shown);
  return made;
}

function pick(number, start) {
  const { player, plays } = trial;
  if (player.active !== number || (start && !player.sounding)) {
    if (player.sounding) plays[number] += 1;
    player.choose(number);
  }
  if (start && !player.sounding) go();
}

function go() {
  trial.plays[trial.player.active] += 1;
  attempt(trial.player.play());
}

function toggle() {
  if (trial.player.sounding) trial.player.pause();
  else go();
}

function mark(side) {
  const { player } = trial;
  const [from, to] = player.part ?? [0, player.duration];
  const at = player.position;
  const part = side === "from" ? [at, to > at + 0.1 ? to : player.duration] : [from < at - 0.1 ? from : 0, at];
  if (part[1] - part[0] >= 0.1) attempt(player.repeat(true, part));
}

function refresh() {
  if (!trial) return;
  const { player } = trial;
  const word = player.sounding ? "Pause" : "Play";
  if (box("play").textContent !== word) box("play").textContent = word;
  document.querySelectorAll("[data-choice]").forEach((button) => {
    button.setAttribute("aria-pressed", String(Number(button.dataset.choice) === player.active));
  });
  box("loop").checked = player.loop;
  box("clock").textContent = `${player.position.toFixed(1)} s`;
  const line = document.querySelector(".line");
  const [from, to] = player.loop && player.part ? player.part : [0, player.duration];
  line.style.setProperty("--at", player.duration ? player.position / player.duration : 0);
  line.style.setProperty("--from", player.duration ? from / player.duration : 0);
  line.style.setProperty("--to", player.duration ? to / player.duration : 1);
}

function next() {
  const { scores, plays, player, versions, place } = trial;
  const open = scores.flatMap((score, i) => (score === null ? [i + 1] : []));
  const unheard = scores.flatMap((_, i) => (plays[i + 1] === 0 ? [i + 1] : []));
  const missing = [];
  if (open.length) missing.push(`Not rated yet: ${open.join(", ")}.`);
  if (unheard.length) missing.push(`Not heard yet: ${unheard.join(", ")}.`);
  box("trouble").textContent = missing.join(" ");
  if (missing.length) return;
  player.pause();
  done.push({ place, scores, plays, versions });
  keep();
  if (done.length < order.length) begin();
  else finish();
}

// --- the end

function results() {
  const bytes = Uint8Array.from(atob(data.key), (c) => c.charCodeAt(0));
  const key = JSON.parse(new TextDecoder().decode(bytes)); // [clip, the systems of its sounds, speaker], per trial
  const trials = done.map(({ place, scores, plays, versions }, position) => ({
    clip: key[place][0],
    speaker: key[place][2],
    position: position + 1,
    reference_plays: plays[0],
    conditions: versions.map((version, i) => ({
      system: key[place][1][version],
      score: scores[i],
      position: i + 1,
      plays: plays[i + 1],
    })),
  }));
  const { format, test, title, seed } = data;
  return { format, test, title, seed, listener, trials };
}

function finish() {
  trial = null;
  box("results").value = JSON.stringify(results(), null, 2);
  show("end");
  box("thanks").focus();
}

// --- start

document.querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  listener = box("listener").value.trim();
  if (!listener) return;
  order = shuffled(data.trials.length, `${data.seed}/${listener}/clips`);
  done = savedAnswers();
  if (done.length < order.length) begin();
  else finish();
});
box("play").addEventListener("click", toggle);
box("next").addEventListener("click", next);
box("from").addEventListener("click", () => mark("from"));
box("to").addEventListener("click", () => mark("to"));
box("loop").addEventListener("change", () => attempt(trial.player.repeat(box("loop").checked, null)));
document.querySelector('[data-choice="0"]').addEventListener("click", () => pick(0, true));
box("save").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([box("results").value], { type: "application/json" }));
  link.download = `listening_${listener.replace(/[^A-Za-z0-9._-]+/g, "_")}.json`;
  link.click();
  URL.revokeObjectURL(link.href);
});
document.addEventListener("keydown", (event) => {
  if (!trial || event.ctrlKey || event.metaKey || event.altKey) return;
  const button = event.target.tagName === "BUTTON" || event.target.type === "checkbox";
  if (button && (event.key === " " || event.key === "Enter")) return; // the button's own keys
  const keys = {
    " ": toggle,
    Enter: next,
    "[": () => mark("from"),
    "]": () => mark("to"),
    l: () => attempt(trial.player.repeat(!trial.player.loop, null)),
  };
  const digit = /^[0-9]$/.test(event.key) ? Number(event.key) : null;
  if (digit !== null && digit <= trial.versions.length) {
    event.preventDefault();
    const slider = document.querySelectorAll("#rows input")[digit - 1];
    if (slider) slider.focus();
    else document.querySelector('[data-choice="0"]').focus();
    pick(digit, false);
    return;
  }
  const action = keys[event.key] ?? keys[event.key.toLowerCase()];
  if (action) {
    event.preventDefault();
    action();
  }
});
