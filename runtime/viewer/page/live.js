// The live page: takes the camera's frame and the labels as two layers and composes them here, so that every viewer has
// classes, opacity and split of its own. The next picture is asked for when the last has been drawn.
import { Minute, drawMinute } from "/plots.js";

const STALE_MS = 2000;
const FIGURES_MS = 200;
const RECONNECT_MS = [500, 1000, 2000, 4000];
const $ = (id) => document.getElementById(id);
const view = $("view");
const viewContext = view.getContext("2d");
const labelLayer = document.createElement("canvas");
const labelContext = labelLayer.getContext("2d", { willReadFrequently: true });

let about = null;
let socket = null;
let failures = 0;
let camera = null; // ImageBitmap
let labels = null; // Uint8Array, a label value per pixel of labelLayer
let minute = new Minute(60);
let lastAt = performance.now(); // when there were new labels
let paused = false;
let waiting = false; // for the picture that was asked for
const palette = new Uint32Array(256); // RGBA as canvases have it; 0 where nothing is painted
const shown = new Array(256).fill(true);
let opacity = 0.55;
let split = 1; // share of the width that has the overlay

function connect() {
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/layers`);
  socket.binaryType = "arraybuffer";
  socket.onmessage = ({ data }) => {
    if (typeof data === "string") {
      failures = 0;
      introduce(JSON.parse(data));
      ask();
    } else {
      take(data).catch((error) => {
        say("lost", `a picture was not readable: ${error.message}`);
        socket.close();
      });
    }
  };
  socket.onclose = () => {
    waiting = false;
    const waitMs = RECONNECT_MS[Math.min(failures++, RECONNECT_MS.length - 1)];
    say("lost", "connection lost: trying again");
    setTimeout(connect, waitMs);
  };
}

function ask() {
  if (!paused && !document.hidden && socket.readyState === WebSocket.OPEN) {
    waiting = true;
    socket.send("next");
  }
}
function askIfIdle() {
  if (!waiting) ask();
}

async function take(buffer) {
  if (paused) {
    waiting = false;
    return;
  }
  const lengths = new Uint32Array(buffer, 0, 3);
  let at = 12;
  const [text, frame, mask] = Array.from(lengths, (length) => new Uint8Array(buffer, (at += length) - length, length));
  const state = JSON.parse(new TextDecoder().decode(text));
  const exact = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const [newCamera, newLabels] = await Promise.all([
    createImageBitmap(new Blob([frame], { type: "image/jpeg" })),
    createImageBitmap(new Blob([mask], { type: "image/png" }), exact),
  ]);
  if (camera) camera.close();
  camera = newCamera;
  readLabels(newLabels);
  newLabels.close();
  lastAt = performance.now() - 1000 * state.without_labels_s;
  compose();
  report(state);
  waiting = false;
  ask();
}

// Label values are the red of a grey PNG.
function readLabels(bitmap) {
  if (labelLayer.width !== bitmap.width || labelLayer.height !== bitmap.height) {
    labelLayer.width = bitmap.width;
    labelLayer.height = bitmap.height;
    labels = new Uint8Array(bitmap.width * bitmap.height);
  }
  labelContext.globalCompositeOperation = "copy";
  labelContext.drawImage(bitmap, 0, 0);
  const rgba = labelContext.getImageData(0, 0, bitmap.width, bitmap.height).data;
  for (let pixel = 0; pixel < labels.length; pixel++) labels[pixel] = rgba[4 * pixel];
}

function compose() {
  if (!camera) return;
  if (view.width !== camera.width || view.height !== camera.height) {
    view.width = camera.width;
    view.height = camera.height;
  }
  const image = labelContext.createImageData(labelLayer.width, labelLayer.height);
  const pixels = new Uint32Array(image.data.buffer);
  const painted = palette.map((colour, value) => (shown[value] ? colour : 0));
  for (let pixel = 0; pixel < labels.length; pixel++) pixels[pixel] = painted[labels[pixel]];
  labelContext.putImageData(image, 0, 0);
  const edge = Math.round(split * view.width);
  viewContext.globalAlpha = 1;
  viewContext.drawImage(camera, 0, 0);
  viewContext.save();
  viewContext.beginPath();
  viewContext.rect(0, 0, edge, view.height);
  viewContext.clip();
  viewContext.globalAlpha = opacity;
  viewContext.imageSmoothingEnabled = false;
  viewContext.drawImage(labelLayer, 0, 0, view.width, view.height);
  viewContext.restore();
  placeDivider();
}

function introduce(told) {
  about = told;
  minute = new Minute(about.history_s);
  minute.add(about.points, about.now_s);
  $("source").textContent = `${about.source}, ${number(about.source_fps)} frames/s`;
  $("compensation").textContent = about.compensation === "none" ? "none" : `${about.compensation}, at the ${about.rate}'s rate`;
  $("fps-expected").textContent = `expected ${number(about.expected_fps)}`;
  $("fps-expected").hidden = about.expected_fps === null;
  $("expected-key").hidden = about.expected_ms === null;
  $("promised").textContent =
    about.expected_slamiou === null ? "nothing was picked" : `sLAmIoU ${about.expected_slamiou.toFixed(3)}, ${number(about.expected_ms)} ms a step`;
  fillLegend();
}

function fillLegend() {
  palette.fill(0);
  const bytes = new Uint8Array(palette.buffer);
  const entries = about.classes.map(({ name, rgb }, value) => {
    bytes.set([...rgb, 255], 4 * value);
    const entry = document.createElement("label");
    const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: shown[value] });
    box.dataset.value = value;
    const swatch = document.createElement("i");
    swatch.style.background = `rgb(${rgb.join(" ")})`;
    const text = Object.assign(document.createElement("span"), { className: "name", textContent: name, title: name });
    const share = Object.assign(document.createElement("span"), { className: "share" });
    entry.append(box, swatch, text, share);
    return entry;
  });
  $("legend").replaceChildren(...entries);
}

let timer = null; // of the figures
let newest = null; // what they will show
function report(state) {
  minute.add(state.points, state.now_s);
  sayHowFresh();
  newest = state;
  // Figures that change faster cannot be read; the newest are always shown in the end.
  timer ??= setTimeout(figures, FIGURES_MS);
}

function figures() {
  const state = newest;
  timer = null;
  $("fps").textContent = number(state.fps);
  $("age").textContent = number(state.age_ms);
  $("step").textContent = number(state.step_ms);
  for (const [id, column] of [["step-spread", 1], ["age-spread", 2]]) {
    const found = minute.percentiles(column);
    $(id).textContent = found ? `p50 ${number(found.p50)}, p99 ${number(found.p99)}` : "";
  }
  const { frames_captured: captured, frames_dropped: dropped, frames_missed: missed } = state.counts;
  $("dropped").textContent = String(dropped + missed);
  $("dropped-share").textContent = captured ? `${((100 * (dropped + missed)) / (captured + missed)).toFixed(1)} % of ${captured + missed}` : "";
  $("configuration").textContent = state.configuration;
  $("frame-index").textContent = state.fallback ? `${state.frame_index}, not moved: ${state.fallback}` : String(state.frame_index);
  const counts = new Uint32Array(256);
  for (const value of labels) counts[value]++;
  for (const entry of $("legend").children) {
    const share = counts[Number(entry.firstChild.dataset.value)] / labels.length;
    entry.lastChild.textContent = share ? `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %` : "";
  }
  drawMinute($("plot"), minute, about.expected_ms);
}

function sayHowFresh() {
  const silentMs = performance.now() - lastAt;
  if (silentMs > STALE_MS) say("stale", `no new labels for ${(silentMs / 1000).toFixed(0)} s`);
  else say("live", "live");
}

function say(state, text) {
  $("link").dataset.state = state;
  $("link").textContent = text;
  $("notice").hidden = state === "live" || state === "paused";
  if (state !== "live") $("notice").textContent = text;
}

function number(value) {
  return value === null ? "–" : value >= 100 ? value.toFixed(0) : value.toFixed(1);
}

function placeDivider() {
  const box = view.getBoundingClientRect();
  const wide = Math.min(box.width, (box.height * view.width) / view.height); // object-fit: contain
  $("divider").style.left = `${(box.width - wide) / 2 + split * wide}px`;
  $("divider").setAttribute("aria-valuenow", Math.round(100 * split));
}

function moveSplit(clientX) {
  const box = view.getBoundingClientRect();
  const wide = Math.min(box.width, (box.height * view.width) / view.height);
  split = Math.min(1, Math.max(0, (clientX - box.left - (box.width - wide) / 2) / wide));
  compose();
}

$("opacity").oninput = () => {
  opacity = $("opacity").value / 100;
  $("opacity-value").textContent = `${$("opacity").value} %`;
  compose();
};
$("split").onclick = () => {
  const on = $("split").getAttribute("aria-pressed") !== "true";
  $("split").setAttribute("aria-pressed", on);
  for (const id of ["divider", "mark-overlay", "mark-camera"]) $(id).hidden = !on;
  split = on ? 0.5 : 1;
  compose();
};
$("divider").onpointerdown = (event) => {
  $("divider").setPointerCapture(event.pointerId);
  $("divider").onpointermove = (move) => moveSplit(move.clientX);
};
$("divider").onpointerup = () => ($("divider").onpointermove = null);
$("divider").onkeydown = (event) => {
  const step = { ArrowLeft: -0.02, ArrowRight: 0.02 }[event.key];
  if (!step) return;
  split = Math.min(1, Math.max(0, split + step));
  compose();
};
$("pause").onclick = () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", paused);
  if (paused) say("paused", "paused");
  else {
    lastAt = performance.now();
    askIfIdle();
  }
};
$("legend").onchange = ({ target }) => {
  shown[Number(target.dataset.value)] = target.checked;
  compose();
};
for (const [id, on] of [["all", true], ["none", false]]) {
  $(id).onclick = () => {
    shown.fill(on);
    for (const box of document.querySelectorAll("#legend input")) box.checked = on;
    compose();
  };
}
document.addEventListener("visibilitychange", () => {
  lastAt = performance.now();
  askIfIdle();
});
window.addEventListener("resize", compose);
setInterval(() => {
  if (!paused && !document.hidden && socket.readyState === WebSocket.OPEN && performance.now() - lastAt > STALE_MS) {
    sayHowFresh();
  }
}, 500);
connect();
