"use strict";
// The page. Texts of others become text nodes, never markup.

const $ = id => document.getElementById(id);
const plots = new Plots($("plots")), replay = new Replay();
let socket = null, you = "", armed = "", state = null, cameras = [], view = 0, pressedAt = -Infinity, heardAt = 0, hushed = 0;

const token = location.hash.slice(1) || sessionStorage.getItem("token") || "";
if (location.hash) { sessionStorage.setItem("token", token); history.replaceState(null, "", "/"); }

// Connection

const SILENT = 3;   // s without a word, of ten states a second, and the connection counts as lost

function connect() {
  socket = new WebSocket(`ws://${location.host}/ws?token=${encodeURIComponent(token)}`);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => { heardAt = seconds(); look(); linked("connected", "good"); };
  socket.onmessage = event => {
    heardAt = seconds();
    if (typeof event.data === "string") take(JSON.parse(event.data)); else takeImage(event.data);
  };
  socket.onclose = event => lost(event.reason);
}

function lost(reason) {
  linked(reason || "no connection: what is shown is old", "bad");
  armed = ""; state = null;
  showArming();
  setTimeout(connect, 1000);
}

// A network that was cut says nothing: without this the page would look connected for minutes.
setInterval(() => {
  if (document.hidden || socket.readyState !== WebSocket.OPEN || seconds() - heardAt < SILENT) return;
  socket.onmessage = socket.onclose = null;
  socket.close();
  lost("");
}, 500);

function linked(words, how) {
  document.body.classList.toggle("away", how !== "good");
  set($("link"), words, `pill ${how}`);
}

function send(message) {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ ...message, seen: state?.at }));
  else answer({ good: false, text: "no connection: nothing was sent; use the robot's own emergency stop" });
}

const seconds = () => performance.now() / 1000;   // a clock that nobody sets
const look = () => send({ do: "look", hidden: document.hidden, view });
document.addEventListener("visibilitychange", () => { heardAt = seconds(); if (socket.readyState === WebSocket.OPEN) look(); });

const takers = {
  hello: items => greet(items.at(-1)),
  state: items => { state = items.at(-1); show(); },
  sample: items => items.forEach(item => plots.add(item)),
  chunk: items => items.forEach(item => plots.addChunk(item)),
  fate: items => items.forEach(item => plots.setFate(item)),
  checks: items => showChecks(items.at(-1)),
  answer: items => items.forEach(answer),
  replay: items => replay.open(items.at(-1)),
};
const take = message => takers[message.kind]?.(message.items);

// Small helpers: the page is written to only where something has changed

function set(node, text, kind) {
  if (node.textContent !== text) node.textContent = text;
  if (kind !== undefined && node.className !== kind) node.className = kind;
}

function make(name, text = "", kind = "") {
  const node = document.createElement(name);
  node.textContent = text;
  if (kind) node.className = kind;
  return node;
}

const shown = new WeakMap();
function list(node, items, row) {
  const key = JSON.stringify(items);
  if (shown.get(node) === key) return;
  shown.set(node, key);
  node.replaceChildren(...items.map(row));
}

const ms = seconds => seconds === null || seconds === undefined ? "–" : `${(seconds * 1e3).toFixed(seconds < 0.1 ? 1 : 0)} ms`;
const clock = seconds => new Date(seconds * 1e3).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });

function answer({ good, text }) {
  set($("answer"), text, good ? "" : "bad");
  clearTimeout(hushed);
  hushed = setTimeout(() => set($("answer"), ""), good ? 4000 : 12000);
}

// What the robot is

function greet(hello) {
  you = hello.you;
  set($("robot"), hello.robot);
  document.title = `${hello.robot} · console`;
  plots.setJoints(hello.joints);
  hello.samples.forEach(sample => plots.add(sample));
  hello.chunks.forEach(chunk => plots.addChunk(chunk));
  $("views").hidden = !hello.policy_view;
  cameras = hello.cameras.map(camera => {
    const figure = make("figure"), canvas = document.createElement("canvas"), caption = make("figcaption");
    const name = make("span", camera.name), age = make("span", "no image yet");
    name.title = camera.topic;
    caption.append(name, age);
    figure.append(canvas, caption);
    return { figure, canvas, age, name: camera.name, at: null, busy: false };
  });
  $("images").replaceChildren(...cameras.map(camera => camera.figure));
}

async function takeImage(data) {
  const head = new DataView(data), index = head.getUint8(0), camera = cameras[index];
  if (index >= 128) replay.take(index - 128, head.getUint16(1, true), head.getFloat32(3, true), data.slice(7));
  if (!camera) return;
  camera.at = performance.now() / 1000 - head.getFloat32(2, true);
  camera.rate = head.getFloat32(6, true);
  if (camera.busy) return;
  camera.busy = true;
  try {
    const image = await createImageBitmap(new Blob([new Uint8Array(data, 10)], { type: "image/jpeg" }));
    if (camera.canvas.width !== image.width || camera.canvas.height !== image.height) {
      camera.canvas.width = image.width;
      camera.canvas.height = image.height;
      camera.canvas.style.aspectRatio = `${image.width} / ${image.height}`;
    }
    camera.canvas.getContext("2d").drawImage(image, 0, 0);
    image.close();
  } finally { camera.busy = false; }
}

setInterval(() => {
  for (const camera of cameras) {
    if (camera.at === null) continue;
    const age = performance.now() / 1000 - camera.at, late = age > 0.5;
    const trouble = state?.cameras[camera.name]?.trouble;
    const rate = Number.isFinite(camera.rate) ? ` · ${camera.rate.toFixed(0)} Hz` : "";
    set(camera.age, trouble || `${age < 10 ? `${(age * 1e3).toFixed(0)} ms` : `${age.toFixed(0)} s`}${rate}`, late ? "late" : "");
  }
}, 200);

// What always shows

const tones = {
  good: ["executing", "approaching", "running", "taken over"], bad: ["stopped", "e stopped", "failed", "unconfigured", "not heard"],
};
const tone = name => tones.good.includes(name) ? "good" : tones.bad.includes(name) ? "bad" : "warn";

function show() {
  showArming();
  showNode($("executor"), state.executor, "executor_node");
  showNode($("policy"), state.policy, "policy_node");
  showControl();
  const stopped = state.executor?.state === "e stopped";
  $("latched").hidden = !stopped;
  set($("latched-why"), stopped ? state.executor.message : "");
  $("estop").classList.toggle("sent", state.pressing);
  set($("estop"), state.pressing ? "E-STOP sent…" : stopped ? "E-STOPPED" : "E-STOP");
  showRun();
  showTiming();
  showRecording();
}

function showArming() {
  armed = state?.armed ?? "";
  const mine = armed !== "" && armed === you, pages = state?.pages.length ?? 0;
  set($("armed"), !armed ? "nobody is armed: watching" : mine ? "this page is armed" : `${armed} is armed`,
    `pill ${mine ? "warn" : armed ? "bad" : ""}`);
  set($("arm"), mine ? "Disarm" : armed ? "Arm here instead" : "Arm this page", mine ? "held" : "");
  set($("pages"), pages > 1 ? `${pages} pages open` : "");
  for (const id of ["text", "limit", "start", "pause", "stop", "reset", "reset-why", "record", "note"]) $(id).disabled = !mine;
  for (const button of document.querySelectorAll("[data-outcome], .node button, #history button, #episodes button")) button.disabled = !mine;
}

function showNode(card, now, node) {
  const [pill, says, ends, buttons] = [".pill", ".says", ".ends", ".buttons"].map(part => card.querySelector(part));
  const name = now?.state ?? "not heard";
  set(pill, now?.cause ? `${name}: ${now.cause}` : name, `pill ${tone(name)}`);
  set(says, now ? now.message || now.what : "");
  const extras = now?.dry_run ? "Dry run: it commands nothing. " : "";
  set(ends, now ? extras + (now.ends ? `Ends with: ${now.ends}.` : now.mode ? `Mode ${now.mode}.` : now.policy || "") : "start it: vla-ros run, or vla.launch.py");
  const steps = { unconfigured: ["configure"], inactive: ["activate"] }[name] ?? (now ? ["deactivate"] : []);
  list(buttons, steps, step => {
    const button = make("button", step);
    button.type = "button";
    button.disabled = armed !== you;
    button.addEventListener("click", () => send({ do: "change", node, transition: step }));
    return button;
  });
}

// Who commands: the policy, or the source of a takeover.
function showControl() {
  const card = $("control"), now = state.executor, source = state.source;
  const led = now?.taken_over_by ?? "", followed = now?.state === "taken over", silent = source && !source.there;
  const who = led ? `${led} has taken over${followed ? "" : ", not followed"}` : "";
  set($("led"), who, followed ? "pill warn" : "pill bad");
  const active = now && !["unconfigured", "inactive"].includes(now.state);
  set(card.querySelector(".pill"), who || (active ? "the policy commands" : "nobody commands"), `pill ${led ? followed ? "warn" : "bad" : ""}`);
  const words = !source ? "" : silent ? `No source to take over: nobody publishes ${source.topic} (vla-ros takeover --keyboard, or a leader arm).` : `Source: ${source.topic}.`;
  set(card.querySelector(".ends"), led ? "" : words);
  const acts = [...(followed || !active ? [] : [[led ? "take over again" : "take over", true]]), ...(led ? [["give back to the policy", false]] : [])];
  list(card.querySelector(".buttons"), acts, ([text, take]) => {
    const button = make("button", text);
    button.type = "button";
    button.disabled = armed !== you;
    button.addEventListener("click", () => send({ do: "take_over", take }));
    return button;
  });
  for (const button of card.querySelectorAll("button")) button.disabled = armed === "" || armed !== you || (!led && !!silent);
}

function showRun() {
  const current = state.executor?.instruction ?? "";
  set($("start"), current ? "Change" : "Start");
  set($("pause"), state.paused ? "Resume" : "Pause");
  if (armed === you && armed) { $("pause").disabled = !current && !state.paused; $("stop").disabled = !current && !state.paused; }
  const task = state.task, since = task?.elapsed === undefined ? "" : ` · ${task.elapsed.toFixed(0)} s`;
  set($("current"), current ? `Now: ${current}${since}` : state.paused ? `Paused: ${state.paused}` : "");
  list($("history"), state.history, entry => {
    const item = make("li"), again = make("button", "again");
    again.type = "button";
    again.disabled = armed !== you;
    again.addEventListener("click", () => { $("text").value = entry.text; $("text").focus(); });
    item.append(again, entry.text);
    if (entry.word) {
      const how = entry.code === 0 ? "good" : ["paused", "preempted", "canceled"].includes(entry.word) ? "warn" : "bad";
      item.append(" ", make("span", entry.word, `pill ${how}`));
    }
    const words = [`${clock(entry.at)}, ${entry.by}`];
    if (entry.elapsed !== undefined) words.push(`${entry.elapsed} s`);
    if (entry.result) words.push(entry.result);
    item.append(make("small", words.join(" · ")));
    return item;
  });
}

function showTiming() {
  const way = state.latency, now = state.executor;
  const whole = way ? way.parts.reduce((sum, part) => sum + part[1], 0) : 0, most = way ? Math.max(way.budget, whole) : 1;
  list($("split"), way ? way.parts.map(part => part[1]) : [], (seconds, index) => {
    const piece = make("span", "", `tone${index % 7}`);
    piece.style.flexBasis = `${100 * seconds / most}%`;
    return piece;
  });
  list($("parts"), way ? way.parts : [], ([name, seconds], index) => {
    const item = make("li");
    item.append(make("i", "", `tone${index % 7}`), `${name} ${ms(seconds)}`);
    return item;
  });
  const refusals = now?.refusals.map(([reason, count]) => `${count} ${reason}`).join(", ");
  const rows = [
    ["camera to command", way ? `${ms(whole)} of the ${ms(way.budget)} that a chunk reaches` : "–"],
    ["chunks", now ? `${now.accepted} taken, ${now.refused} refused, ${now.live} live, ${state.policy?.rate?.toFixed(1) ?? "–"} Hz` : "–"],
    ["refused", refusals || "none"],
    ["control loop", now ? `${now.rate?.toFixed(1) ?? "–"} Hz, late by ${ms(now.lateness)}, ${now.overruns} overruns` : "–"],
  ];
  if (now?.refused) rows.push(["last refusal", now.last_refusal]);
  list($("figures"), rows.flat(), (text, index) => make(index % 2 ? "dd" : "dt", text));
  list($("joints").tBodies[0], Object.entries(now?.joints ?? {}), ([name, [difference, reversals, share, at]]) => {
    const row = make("tr");
    row.append(make("td", name), make("td", difference?.toFixed(3) ?? "–"), make("td", `${reversals?.toFixed(1) ?? "–"}/s`),
      make("td", share === null ? "–" : `${(share * 100).toFixed(0)} %`, at ? "at" : ""));
    return row;
  });
}

function showChecks(checks) {
  const worst = ["red", "yellow", "green"].find(level => checks.some(check => check.level === level));
  const count = checks.filter(check => check.level === worst).length;
  set($("verdict"), worst === "green" ? "all green" : `${count} ${worst}`, `pill ${{ red: "bad", yellow: "warn", green: "good" }[worst]}`);
  const order = { red: 0, yellow: 1, green: 2 };
  list($("checks"), checks.slice().sort((a, b) => order[a.level] - order[b.level]), check => {
    const item = make("li", "", check.level), words = make("span");
    words.append(make("strong", `${check.title}: `), check.words);
    if (check.mend) words.append(make("small", `→ ${check.mend}`));
    item.append(words);
    return item;
  });
}

function showRecording() {
  const now = state.recording;
  $("rec").hidden = !now;
  set($("rec"), now ? `recording ${Math.max(0, Date.now() / 1e3 - now.at).toFixed(0)} s` : "", "pill bad");
  $("no-recorder").hidden = state.recorder;
  $("computing").hidden = !state.replaying;
  set($("computing"), state.replaying ? `computing the replay of ${state.replaying}` : "");
  if (armed === you && armed) {
    $("record").disabled = !state.recorder || !!now;
    for (const button of document.querySelectorAll("[data-outcome]")) button.disabled = !now;
  }
  list($("episodes"), state.episodes, episode => {
    const item = make("li", episode.instruction || "(no instruction)");
    const how = { success: "good", failure: "bad", discard: "" }[episode.outcome] ?? "warn";
    item.append(" ", make("span", episode.outcome || "recording", `pill ${how}`));
    if (episode.outcome) {
      const again = make("button", "replay");
      again.type = "button";
      again.disabled = armed !== you;
      again.addEventListener("click", () => { send({ do: "replay", name: episode.name }); answer({ good: true, text: "computing what the policy would do…" }); });
      item.prepend(again);
    }
    const words = [clock(episode.at), episode.folder];
    if (episode.length !== undefined) words.splice(1, 0, `${episode.length} s`);
    if (episode.note) words.push(episode.note);
    item.append(make("small", words.join(" · ")));
    return item;
  });
}

// What the operator does

function press() {
  const now = seconds();
  if (now - pressedAt < 0.2) return;
  pressedAt = now;
  send({ do: "e_stop" });
}

$("estop").addEventListener("pointerdown", press);
$("estop").addEventListener("click", press);
$("arm").addEventListener("click", () => send(armed && armed === you ? { do: "disarm" } : { do: "arm", take: armed !== "" }));
$("say").addEventListener("submit", event => {
  event.preventDefault();
  send({ do: "start", text: $("text").value, limit: Number($("limit").value) || 0 });
});
$("pause").addEventListener("click", () => send(state.paused ? { do: "resume", limit: Number($("limit").value) || 0 } : { do: "pause" }));
$("stop").addEventListener("click", () => send({ do: "stop" }));
$("latched").addEventListener("submit", event => {
  event.preventDefault();
  send({ do: "reset", why: $("reset-why").value });
  $("reset-why").value = "";
});
$("record").addEventListener("click", () => send({ do: "record" }));
for (const button of document.querySelectorAll("[data-outcome]"))
  button.addEventListener("click", () => { send({ do: "outcome", outcome: button.dataset.outcome, note: $("note").value }); $("note").value = ""; });
for (const button of document.querySelectorAll("[data-view]"))
  button.addEventListener("click", () => { view = Number(button.dataset.view); showView(); look(); });
function showView() {
  for (const button of document.querySelectorAll("[data-view]")) button.setAttribute("aria-pressed", String(Number(button.dataset.view) === view));
}
$("hold").addEventListener("click", () => { plots.hold(plots.held === null); $("hold").setAttribute("aria-pressed", String(plots.held !== null)); });
$("nearer").addEventListener("click", () => plots.zoom(-1));
$("farther").addEventListener("click", () => plots.zoom(1));
$("whole").addEventListener("click", () => { plots.whole = !plots.whole; $("whole").setAttribute("aria-pressed", String(plots.whole)); });

document.addEventListener("keydown", event => {
  const typing = event.target.matches("input, textarea");
  if (event.key === "Escape" || (event.key === " " && !typing)) {
    event.preventDefault();   // no button may take the space for itself
    if (!event.repeat) press();
  } else if (!typing && !event.repeat && !event.ctrlKey && !event.metaKey && !event.altKey) {
    if (event.key === "ArrowLeft") plots.back(-0.5);
    else if (event.key === "ArrowRight") plots.back(0.5);
    const button = { r: $("record"), s: document.querySelector("[data-outcome=success]"), f: document.querySelector("[data-outcome=failure]"), d: document.querySelector("[data-outcome=discard]") }[event.key];
    if (button && !button.disabled) button.click();
  }
}, true);
document.addEventListener("keyup", event => { if (event.key === " " && !event.target.matches("input, textarea")) event.preventDefault(); }, true);

showView();
showArming();
connect();
