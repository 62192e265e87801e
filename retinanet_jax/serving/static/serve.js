// The page: a picture goes to the server, which answers with detections at every IoU of NMS.
// The sliders and classes choose among them here, without another question.

import { css, drawBoxes, objectAt } from "./drawing.js";

const LINE = 2; // width of a box's outline in pixels of the screen
const at = (id) => document.getElementById(id);
const hidden = new Set(); // labels, also those of pictures before
let model = null;
let found = null; // the server's answer, with `name` of the file and the count of `others`
let active = null; // index of the detection that is pointed at
let asked = false; // whether a picture was ever given
let question = new AbortController();

// What is chosen of the detections, by falling score.

// Scores are float32, and so is the threshold that they are compared with.
const above = (index) => found.scores[index] > Math.fround(at("score").value);
const kept = () => found.kept[at("iou").value].filter(above);

function shown() {
  return kept()
    .filter((index) => !hidden.has(found.labels[index]))
    .map((index) => ({
      ...model.classes[found.labels[index]], // name, id, color
      index,
      box: found.boxes[index],
      score: found.scores[index],
    }));
}

// Asking the server.

async function start() {
  const answer = await fetch("model").catch(() => null);
  if (!answer?.ok) {
    if (!asked) tell("The server does not answer; start it again.");
    return setTimeout(start, 2000);
  }
  const first = model === null;
  model = await answer.json();
  if (first) setUp();
  if (!model.ready) {
    const text = "Compiling the network: seconds to minutes, once. A picture may come already.";
    if (!asked) tell(text, true);
    return setTimeout(start, 1000);
  }
  if (!asked) tell("Ready.");
}

function setUp() {
  document.title = `Try ${model.name}`;
  const count = model.classes.length;
  at("about").textContent =
    `${model.name}, ${count} class${count === 1 ? "" : "es"}, on ${model.device}. ` +
    "Pictures go to this server and no further; nothing is kept.";
  at("kinds").textContent = `JPEG, PNG, WebP, TIFF and others, up to ${model.max_bytes / 2 ** 20} MiB`;
  at("score").min = Math.floor(100 * model.score_threshold) / 100; // a whole number of steps
  at("score").value = model.shown_score;
  at("iou").max = model.ious.length - 1;
  at("iou").value = model.ious.indexOf(model.nms_iou);
}

async function detect([file, ...others]) {
  question.abort();
  question = new AbortController();
  complain("");
  if (file.size > model.max_bytes) {
    return complain(`${file.name} is larger than ${model.max_bytes / 2 ** 20} MiB.`);
  }
  asked = true;
  tell(model.ready ? `Detecting in ${file.name}.` : "Compiling the network, then detecting.", true);
  const { signal } = question;
  try {
    await show({ ...(await ask(file, signal)), name: file.name, others: others.length });
  } catch (error) {
    if (signal.aborted) return; // another picture came after it
    tell(found ? measured() : "");
    if (!(error instanceof Told)) console.error(error);
    complain(error instanceof Told ? error.message : `${file.name}: this page cannot show it.`);
  }
}

class Told extends Error {} // with a sentence for the person

async function ask(file, signal) {
  // Before it is sent: what cannot be read would look like a server that does not answer.
  const body = await file.arrayBuffer().catch(() => {
    throw new Told(`${file.name}: cannot be read; it is a folder, or has changed since it was chosen.`);
  });
  const options = { method: "POST", body, signal };
  const answer = await fetch(`detect?name=${encodeURIComponent(file.name)}`, options).catch(() => {
    throw new Told("The server does not answer; start it again, then give the picture again.");
  });
  const content = await answer.json().catch(() => ({ error: "its answer is no JSON" }));
  if (answer.ok && !content.error) return content;
  if (answer.status < 500 || answer.status === 503) throw new Told(content.error);
  throw new Told(`${file.name}: the server failed (${content.error}); its console says more.`);
}

// Showing what it answers.

async function show(answer) {
  at("picture").src = answer.picture;
  await at("picture").decode();
  [found, active] = [answer, null];
  const [height, width] = found.size;
  at("stage").style.aspectRatio = `${width} / ${height}`;
  // As high as the window leaves room for.
  at("stage").style.maxWidth = `calc(max(20rem, 100vh - 14rem) * ${width / height})`;
  at("picture").alt = found.name;
  at("result").hidden = false;
  at("drop").classList.add("slim");
  at("note").textContent = notes().join(" ");
  at("note").hidden = !at("note").textContent;
  tell(measured());
  update();
}

function measured() {
  const [height, width] = found.size;
  return `${found.name}: ${width} x ${height} pixels, ${(1000 * found.seconds).toFixed(0)} ms.`;
}

// What a person would otherwise not notice.
function notes() {
  const { naturalWidth, naturalHeight } = at("picture");
  const said = [];
  if (found.others) said.push(`One picture at a time: of ${found.others + 1}, this is the first.`);
  if (found.rotated) {
    said.push("EXIF tells viewers to turn this picture; the detector takes it as it is stored.");
    said.push("Save it upright to have it seen upright.");
  }
  if (naturalWidth !== found.size[1]) {
    said.push(`It is shown and downloaded with ${naturalWidth} x ${naturalHeight} pixels.`);
    said.push("Boxes in the JSON are in those of the file.");
  }
  return said;
}

// All that depends on sliders and classes.
function update() {
  const iou = model.ious[at("iou").value];
  at("score_value").textContent = Number(at("score").value).toFixed(2);
  at("iou_value").textContent = iou === 1 ? "1 (off)" : Number(iou.toFixed(3));
  at("iou").ariaValueText = at("iou_value").textContent;
  if (!found) return;
  const objects = shown();
  if (!objects.some(({ index }) => index === active)) point(null);
  listClasses();
  listObjects(objects);
  const limit = model.max_detections;
  const more = kept().length === limit ? `; of the best ${limit}, all that the model gives` : "";
  at("count").textContent = `${objects.length} object${objects.length === 1 ? "" : "s"}${more}`;
  at("nothing").textContent = objects.length ? "" : whyNothing();
  draw();
}

function whyNothing() {
  if (!found.scores.length) return "The detector finds nothing in this picture.";
  if (kept().length) return "All classes that are in it are hidden.";
  const best = Math.max(...found.scores);
  return `The best score is ${best.toFixed(3)}: move the slider below it.`;
}

function draw() {
  if (!found) return;
  const canvas = at("boxes");
  const ratio = window.devicePixelRatio;
  canvas.width = Math.round(canvas.clientWidth * ratio);
  canvas.height = Math.round(canvas.clientHeight * ratio);
  drawBoxes(canvas.getContext("2d"), shown(), active, canvas.width / found.size[1], LINE * ratio);
}

function listClasses() {
  const counts = new Map();
  for (const index of kept()) {
    counts.set(found.labels[index], (counts.get(found.labels[index]) ?? 0) + 1);
  }
  // Those of the picture at any setting, so that none comes and goes under the pointer.
  const labels = [...new Set(found.labels)].sort((one, other) => one - other);
  at("all").textContent = labels.some((label) => hidden.has(label)) ? "show all" : "hide all";
  at("all").hidden = !labels.length;
  const boxes = labels.map((label) => {
    const { name, color } = model.classes[label];
    const box = element("input", { type: "checkbox", checked: !hidden.has(label), value: label });
    const text = element("span", { textContent: `${name} (${counts.get(label) ?? 0})` });
    return element("label", {}, box, dot(color), text);
  });
  replace("classes", boxes, (box) => box.value);
}

function listObjects(objects) {
  const lines = objects.map(({ index, name, score, color }) => {
    const text = element("span", { className: "name", textContent: name });
    const number = element("span", { textContent: score.toFixed(3) });
    const className = index === active ? "active" : "";
    const button = element("button", { type: "button", value: index, className }, dot(color), text, number);
    return element("li", {}, button);
  });
  replace("objects", lines, (button) => button.value);
}

// New content with the focus where it was.
function replace(id, content, key) {
  const focused = at(id).contains(document.activeElement) ? key(document.activeElement) : null;
  at(id).replaceChildren(...content);
  if (focused !== null) at(id).querySelector(`[value="${focused}"]`)?.focus();
}

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function dot(color) {
  const made = element("i", { className: "dot" });
  made.style.background = css(color);
  return made;
}

function tell(text, working = false) {
  at("status").textContent = text;
  at("status").classList.toggle("working", working);
}

function complain(text) {
  at("error").textContent = text;
  at("error").hidden = !text;
}

// Pointing at a detection, with the pointer or by its line in the list.

function point(index, event) {
  at("tip").hidden = !event || index === null;
  if (!at("tip").hidden) {
    const { name } = model.classes[found.labels[index]];
    const { left, top, width } = at("stage").getBoundingClientRect();
    at("tip").textContent = `${name} ${found.scores[index].toFixed(3)}`;
    const x = Math.min(event.clientX - left + 14, width - at("tip").offsetWidth);
    at("tip").style.transform = `translate(${Math.max(0, x)}px, ${event.clientY - top + 14}px)`;
  }
  if (index === active) return;
  active = index;
  for (const button of at("objects").querySelectorAll("button")) {
    const isActive = Number(button.value) === active;
    button.classList.toggle("active", isActive);
    if (isActive && event) bringIntoView(button, at("objects"));
  }
  draw();
}

// Scrolls the list alone: the page stays where it is under the pointer.
function bringIntoView(line, list) {
  const { top, bottom } = line.getBoundingClientRect();
  const around = list.getBoundingClientRect();
  list.scrollTop += Math.min(0, top - around.top) + Math.max(0, bottom - around.bottom);
}

function pointed(event) {
  const { left, top, width } = at("boxes").getBoundingClientRect();
  const scale = found.size[1] / width;
  const object = objectAt(shown(), (event.clientX - left) * scale, (event.clientY - top) * scale);
  point(object?.index ?? null, event);
}

// Downloads.

const stem = () => found.name.replace(/\.[^.]*$/, "");

// COCO's results format. COCO calls its files by the image's id; any other picture is number 1.
function results() {
  const image_id = /^\d+$/.test(stem()) ? Number(stem()) : 1;
  return shown().map(({ id, box: [x1, y1, x2, y2], score }) => ({
    image_id,
    category_id: id,
    bbox: [x1, y1, x2 - x1, y2 - y1],
    score,
  }));
}

function drawnPicture() {
  const picture = at("picture");
  const canvas = element("canvas", { width: picture.naturalWidth, height: picture.naturalHeight });
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0);
  const unit = Math.max(LINE, Math.max(canvas.width, canvas.height) / 640);
  drawBoxes(context, shown(), null, canvas.width / found.size[1], unit);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

function save(blob, name) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// What a person does.

function take(files) {
  if (!model) return complain("The server does not answer yet; try again.");
  if (!files?.length) return complain("That was no file; drop a picture.");
  detect([...files]);
}

at("file").addEventListener("change", (event) => {
  if (event.target.files.length) take([...event.target.files]);
  event.target.value = ""; // so that the same file can be chosen again
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging"); // it has left the window
});
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  take(event.dataTransfer.files);
});
addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) take(event.clipboardData.files);
});
at("score").addEventListener("input", update);
at("iou").addEventListener("input", update);
at("classes").addEventListener("change", ({ target }) => {
  if (target.checked) hidden.delete(Number(target.value));
  else hidden.add(Number(target.value));
  update();
});
at("all").addEventListener("click", () => {
  const labels = new Set(found.labels);
  const some = [...labels].some((label) => hidden.has(label));
  for (const label of labels) some ? hidden.delete(label) : hidden.add(label);
  update();
});
for (const kind of ["pointermove", "pointerdown"]) at("boxes").addEventListener(kind, pointed);
at("boxes").addEventListener("pointerleave", () => point(null));
for (const kind of ["focusin", "pointerover"]) {
  at("objects").addEventListener(kind, ({ target }) => {
    const button = target.closest("button");
    if (button) point(Number(button.value));
  });
}
for (const kind of ["focusout", "pointerleave"]) at("objects").addEventListener(kind, () => point(null));
at("save_json").addEventListener("click", () => {
  save(new Blob([JSON.stringify(results())], { type: "application/json" }), `${stem()}.json`);
});
at("save_picture").addEventListener("click", async () => {
  save(await drawnPicture(), `${stem()}.detections.png`);
});
new ResizeObserver(draw).observe(at("boxes"));

start();
