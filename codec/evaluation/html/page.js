// Interactive parts of the report page: paired differences, sorted tables, players.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);

function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function number(value, digits, sign = false) {
  if (value === null) return "–";
  const text = Math.abs(value).toFixed(digits);
  const minus = value < 0 && Number(text) !== 0;
  return (minus ? "−" : sign ? "+" : "") + text;
}

// --- paired differences

function difference(system, against) {
  const there = data.differences[`${system},${against}`];
  if (there) return there;
  const turned = { better: "worse", worse: "better", undecided: "undecided" };
  const back = data.differences[`${against},${system}`];
  const minus = (value) => (value === null ? null : -value);
  return back?.map(([mean, low, high, n, groups, word]) => [minus(mean), minus(high), minus(low), n, groups, turned[word]]);
}

function showDifferences() {
  const against = Number(document.getElementById("against").value);
  const baselines = document.getElementById("with-baselines")?.checked ?? true;
  const rows = data.systems.map((system, i) => {
    const row = element("tr");
    row.className = system.baseline ? "baseline" : "";
    const name = element("th", system.name, "name");
    name.scope = "row";
    row.append(name);
    difference(i, against)?.forEach(([mean, low, high, n, groups, word], m) => {
      const { digits } = data.metrics[m];
      const cell = element("td", "", word);
      if (n) {
        cell.dataset.value = mean;
        const range = `[${number(low, digits, true)}, ${number(high, digits, true)}]`;
        const mark = { better: " ✓", worse: " ✗" }[word] ?? "";
        cell.append(element("span", number(mean, digits, true), "mean"));
        if (low !== null) cell.append(element("span", range, "range"));
        cell.append(element("span", `${word}${mark}`, "word"));
        if (n < data.fewest) cell.append(element("span", `too few clips (n = ${n})`, "range"));
        else if (groups < data.fewest_groups) cell.append(element("span", `too few speakers (${groups})`, "range"));
        else if (n < data.clips.length) cell.append(element("span", `n = ${n}`, "range"));
      } else cell.append("no clip in common");
      row.append(cell);
    });
    return i === against || (system.baseline && !baselines) ? null : row;
  });
  document.querySelector("#difference-table tbody").replaceChildren(...rows.filter(Boolean));
}

// --- tables that sort by a click on a head

function cellValue(row, column) {
  const cell = row.cells[column];
  const value = cell.dataset.value;
  if (value === undefined) return cell.textContent;
  return value === "" ? null : Number(value);
}

function sortBy(table, column, ascending) {
  const rows = [...table.tBodies[0].rows];
  const order = (a, b) => {
    const [x, y] = [cellValue(a, column), cellValue(b, column)];
    if (x === null || y === null) return (x === null) - (y === null); // without a number: last, either way
    const sign = typeof x === "number" ? x - y : x.localeCompare(y, "en", { numeric: true });
    return ascending ? sign : -sign;
  };
  table.tBodies[0].replaceChildren(...rows.sort(order));
  [...table.tHead.rows[0].cells].forEach((head, i) => {
    head.setAttribute("aria-sort", i !== column ? "none" : ascending ? "ascending" : "descending");
  });
}

function makeSortable(table) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = element("button", head.textContent, "sort");
    button.type = "button";
    button.addEventListener("click", () => sortBy(table, column, head.getAttribute("aria-sort") !== "ascending"));
    head.replaceChildren(button);
    head.setAttribute("aria-sort", "none");
  });
}

function sortedAsBefore(table) {
  const heads = [...table.tHead.rows[0].cells];
  const column = heads.findIndex((head) => head.getAttribute("aria-sort") !== "none");
  if (column >= 0) sortBy(table, column, heads[column].getAttribute("aria-sort") === "ascending");
}

// --- every clip

function showClips() {
  const table = document.getElementById("clip-table");
  const system = Number(document.getElementById("system").value);
  const wanted = document.getElementById("filter").value.trim().toLowerCase();
  const rows = data.clips.flatMap(([clip, speaker, seconds], i) => {
    if (!`${clip} ${speaker}`.toLowerCase().includes(wanted)) return [];
    const row = element("tr");
    const name = element("th", "", "name");
    name.scope = "row";
    if (clip in data.sound) {
      const link = element("a", clip);
      link.href = `#clip-${data.sound[clip]}`;
      link.addEventListener("click", (event) => {
        event.preventDefault();
        goTo(document.getElementById(`clip-${data.sound[clip]}`));
      });
      name.append(link);
    } else name.textContent = clip;
    const length = element("td", number(seconds, 1));
    length.dataset.value = seconds;
    row.append(name, element("td", speaker, "text"), length);
    data.scores[system][i].forEach((value, m) => {
      const cell = element("td", number(value, data.metrics[m].score_digits));
      cell.dataset.value = value ?? "";
      row.append(cell);
    });
    return [row];
  });
  table.tBodies[0].replaceChildren(...rows);
  document.getElementById("shown").textContent = `${rows.length} of ${data.clips.length} clips`;
  sortedAsBefore(table);
}

// --- players

function goTo(clip) {
  if (!clip) return;
  clip.open = true;
  const box = clip.querySelector(".player");
  box.focus({ preventScroll: true });
  clip.scrollIntoView({ block: "start" });
}

function makePlayer(box) {
  const sounds = [...box.querySelectorAll("audio")].map((audio) => audio.getAttribute("src"));
  const choices = [...box.querySelectorAll(".choose")];
  const play = box.querySelector(".play");
  const loop = box.querySelector(".loop");
  const clock = box.querySelector(".clock");
  const trouble = box.querySelector(".trouble");
  const clip = box.closest(".clip");
  const player = new Player(sounds, () => {
    const word = player.sounding ? "Pause" : "Play";
    if (play.textContent !== word) play.textContent = word;
    choices.forEach((choice, i) => choice.setAttribute("aria-pressed", String(i === player.active)));
    loop.checked = player.loop;
    const position = player.position;
    clock.textContent = `${position.toFixed(1)} s`;
    box.style.setProperty("--at", player.duration ? position / player.duration : 0);
  });
  const attempt = (action) =>
    Promise.resolve(action).catch((error) => {
      trouble.textContent = `This browser cannot play this sound: ${error.message}`;
    });
  play.addEventListener("click", () => attempt(player.toggle()));
  loop.addEventListener("change", () => attempt(player.repeat(loop.checked)));
  choices.forEach((choice, i) => {
    choice.addEventListener("click", () => {
      if (player.active === i) attempt(player.toggle());
      else {
        player.choose(i);
        if (!player.sounding) attempt(player.play());
      }
    });
  });
  box.querySelectorAll(".picture").forEach((picture, i) => {
    picture.addEventListener("click", (event) => {
      const { left, width } = picture.getBoundingClientRect();
      player.choose(i);
      attempt(player.load().then(() => player.seek(((event.clientX - left) / width) * player.duration)));
    });
  });
  const near = (step) => (player.active + step + sounds.length) % sounds.length;
  const keys = {
    " ": () => attempt(player.toggle()),
    ArrowLeft: () => attempt(player.seek(player.position - 0.5)),
    ArrowRight: () => attempt(player.seek(player.position + 0.5)),
    ArrowUp: () => player.choose(near(-1)),
    ArrowDown: () => player.choose(near(1)),
    Home: () => attempt(player.seek(0)),
    l: () => attempt(player.repeat(!player.loop)),
    n: () => goTo(clip.nextElementSibling?.closest(".clip")),
    p: () => goTo(clip.previousElementSibling?.closest(".clip")),
  };
  box.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " " && event.target !== box) return; // a button's or a box's own key
    const digit = /^[0-9]$/.test(event.key) ? Number(event.key) : null;
    const action = digit !== null && digit < sounds.length ? () => player.choose(digit) : (keys[event.key] ?? keys[event.key.toLowerCase()]);
    if (!action) return;
    event.preventDefault();
    action();
  });
}

// --- start

document.querySelectorAll("table.sortable").forEach(makeSortable);
if (document.getElementById("against")) {
  document.getElementById("against").addEventListener("change", showDifferences);
  document.getElementById("with-baselines")?.addEventListener("change", showDifferences);
  showDifferences();
}
document.getElementById("system").addEventListener("change", showClips);
document.getElementById("filter").addEventListener("input", showClips);
showClips();
if (data.metrics.length) {
  sortBy(document.getElementById("clip-table"), 3 + data.key, data.metrics[data.key].higher !== false);
}
document.querySelectorAll(".player").forEach(makePlayer);
document.querySelectorAll(".copy").forEach((button) => {
  button.addEventListener("click", () => {
    const code = button.parentElement.querySelector("code");
    const select = () => {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    };
    if (!navigator.clipboard) return select(); // some browsers give none to a file
    navigator.clipboard.writeText(code.textContent).then(() => (button.textContent = "Copied"), select);
  });
});
addEventListener("beforeprint", () => document.querySelectorAll("details:not(.clip)").forEach((box) => (box.open = true)));
const target = location.hash && document.querySelector(`details[id="${CSS.escape(location.hash.slice(1))}"]`);
if (target) target.open = true;
addEventListener("hashchange", () => {
  const box = document.getElementById(location.hash.slice(1));
  if (box?.tagName === "DETAILS") box.open = true;
});
