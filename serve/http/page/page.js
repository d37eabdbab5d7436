// The page: every image goes to /predict unchanged, one request each, and its answer becomes a card.
import { make, table } from "/dom.js";

const AT_ONCE = 4; // requests under way for one drop
const KEY = "lockstep.key"; // of this tab only, and gone with it
const get = (id) => document.getElementById(id);

let key = stored() ?? "";
let models = [];
let shots = 0;
const locked = new Set(); // cards that wait for an API key: functions that send them again

// A browser that stores nothing throws here; then the key lives in memory alone.
function stored(value) {
  try {
    if (value !== undefined) sessionStorage.setItem(KEY, value);
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}

// Texts

const percent = (share, digits = 2) => `${(100 * share).toFixed(digits)} %`;

function probability(value) { // never "100.0 %" of what is not certain
  if (value < 1 && value >= 0.9995) return ">99.9 %";
  return value > 0 && value < 0.0005 ? "<0.1 %" : percent(value, 1);
}

function plain(value) {
  if (typeof value === "number") {
    if (Number.isInteger(value)) return value.toLocaleString("en");
    return Math.abs(value) < 1e-4 ? value.toExponential(1) : String(Number(value.toPrecision(4)));
  }
  if (Array.isArray(value)) return value.map(plain).join(", ");
  if (value === null || typeof value !== "object") return String(value ?? "none");
  return Object.entries(value).map(([name, inner]) => `${name} ${plain(inner)}`).join("\n");
}

const REASONS = {
  0: "The server cannot be reached. Is it running, and is the network up?",
  401: "The server wants an API key.",
  403: "The server does not answer pages from this address.",
  404: "This model is no longer served. Load the page again.",
  408: "The upload took too long.",
  413: "The image is larger than this server accepts.",
  415: "The server does not take files of this kind.",
  422: "This is no image that can be read.",
  429: "The server has more to do than it can take.",
  503: "The server takes no requests at the moment.",
  504: "There was no answer in time.",
};
const WORTH_AGAIN = [0, 401, 408, 429, 500, 502, 503, 504];

class Failure extends Error {
  constructor(status, details = "", seconds = null) {
    const known = REASONS[status] ?? (status < 500 ? "The server refused the request." : "The server failed.");
    super(seconds ? `${known} Try again in ${seconds} s.` : known);
    this.status = status;
    this.details = details;
  }
}

// The server

async function ask(path, options = {}) {
  const headers = { ...options.headers, ...key && { Authorization: `Bearer ${key}` } };
  let response, body;
  try {
    response = await fetch(path, { ...options, headers });
    body = await response.text();
  } catch {
    throw new Failure(0);
  }
  try {
    body = JSON.parse(body);
  } catch {
    if (response.ok) throw new Failure(500, "The answer is not JSON.");
    body = {};
  }
  if (response.ok) return [body, response.headers];
  if (response.status === 401) askForKey();
  const details = typeof body.error === "string" ? body.error : `HTTP status ${response.status}`;
  throw new Failure(response.status, details, response.headers.get("Retry-After"));
}

function askForKey() {
  get("key-note").textContent = key
    ? "The server does not accept this key."
    : "This server answers only with a key. It stays in this tab and is forgotten with it.";
  get("key-note").className = key ? "bad" : "note";
  get("key-form").hidden = false;
}

async function useKey(event) {
  event.preventDefault();
  key = get("key").value.trim();
  await loadModels();
  if (!models.length && !get("key-form").hidden) return;
  stored(key);
  get("key").value = "";
  get("pick").focus();
  const waiting = [...locked];
  locked.clear();
  await Promise.all(waiting.map((again) => again()));
}

// The model

async function loadModels() {
  const chosen = get("model").value;
  try {
    const [body] = await ask("/models");
    models = body.models;
    get("key-form").hidden = true;
    get("lead").textContent = "No model is served.";
  } catch (failure) {
    models = [];
    if (!(failure instanceof Failure)) throw failure;
    get("lead").textContent = failure.message + (failure.status === 401 ? "" : ` ${failure.details}`);
  }
  get("model").replaceChildren(...models.map(({ name }) => make("option", { value: name }, name)));
  if (models.some(({ name }) => name === chosen)) get("model").value = chosen;
  get("chooser").hidden = models.length < 2;
  showModel();
}

const currentModel = () => models.find(({ name }) => name === get("model").value);

function showModel() {
  const model = currentModel();
  get("about").hidden = !model;
  if (!model) return;
  const { class_names: names = [], image, precision, parity = {}, metrics = {}, created = "",
    rejection, temperature, ...rest } = model.document ?? {};
  const proofs = Object.entries(parity);
  const pixels = image && `${image.height}×${image.width}`;
  const colours = image && (image.channels === 1 ? "grey" : "RGB");
  document.title = `${model.name} · Lockstep`;
  get("name").textContent = model.name;
  get("badge").hidden = !proofs.length;
  get("lead").textContent = [`version ${model.version}`, `${names.length} classes`,
    image && `${pixels} pixels, ${colours}`, precision].filter(Boolean).join(" · ");
  const worst = Math.max(...proofs.map(([, path]) => path.max_difference ?? 0));
  const share = (value) => (Number.isFinite(value) ? percent(value) : null);
  const tile = (figure, ...lines) => figure && make("div", { className: "card tile" },
    make("b", {}, figure), lines.map((line) => line && make("span", {}, line)));
  const columns = [...new Set(proofs.flatMap(([, figures]) => Object.keys(figures)))];
  const written = (name, value) => (/accuracy$|agreement$/.test(name) && Number.isFinite(value)
    ? percent(value) : plain(value ?? ""));
  const facts = { ...rest, created, temperature, metrics, image, rejection };
  get("figures").replaceChildren(...[
    make("div", { className: "tiles" }, [
      tile(share(metrics.accuracy), "test accuracy",
        metrics.examples && `${plain(metrics.examples)} test images`),
      tile(share(metrics.ece), "calibration error",
        temperature && `temperature ${plain(temperature)}`),
      tile(proofs.length && plain(worst), "largest difference of", "a probability from Keras"),
      tile(pixels, `pixels, ${colours}`, image?.resize && `resize ${image.resize}, ${image.resample}`),
      tile(precision, "precision", created && `made ${created.slice(0, 10)}`),
    ].filter(Boolean)),
    rejection && make("p", { className: "card" }, `An answer below ${percent(rejection.threshold)} is `
      + `called uncertain. The other ${percent(rejection.coverage)} of the test images are answered `
      + `with an accuracy of ${percent(rejection.accuracy)}.`),
    make("div", { className: "card" },
      proofs.length
        ? table("The proof", ["proof", ...columns.map((name) => name.replaceAll("_", " "))],
          proofs.map(([path, figures]) => [path, ...columns.map((name) => written(name, figures[name]))]))
        : make("p", {}, "No proof came with this model."),
      make("details", {}, make("summary", {}, `The ${names.length} classes`),
        make("p", {}, names.join(", "))),
      make("details", {}, make("summary", {}, "All that the file says of itself"),
        make("dl", {}, Object.entries(facts)
          .map(([name, value]) => [name.replaceAll("_", " "), plain(value)])
          .filter(([, text]) => text)
          .map(([name, text]) => [make("dt", {}, name), make("dd", {}, text)])))),
  ].filter(Boolean));
}

// The answers

const say = (text, bad = false) => {
  get("status").textContent = text;
  get("status").className = bad ? "bad" : "note";
};

async function classify(files) {
  if (!files.length) return;
  const several = files.length > 1;
  const cards = [...files].map((file) => new Card(file, several));
  get("answers").prepend(...cards.map((card) => card.item));
  get("clear").hidden = false;
  say(several ? `Waiting for ${files.length} answers…` : `Waiting for the answer on ${files[0].name}…`);
  const queue = [...cards];
  await Promise.all(Array.from({ length: AT_ONCE }, async () => {
    while (queue.length) await queue.shift().send();
  }));
  const failed = cards.filter((card) => card.failed).length;
  if (several) {
    const answered = failed ? `${files.length - failed} answered, ${failed} not` : "all answered";
    say(`${files.length} images: ${answered}.`, failed);
  } else {
    say(cards[0].summary, failed);
  }
}

class Card {
  constructor(file, several) {
    this.file = file;
    this.body = make("div");
    const preview = make("img", { className: "preview", src: URL.createObjectURL(file), alt: `Preview of ${file.name}` });
    preview.onload = () => preview.classList.toggle("tiny", preview.naturalWidth < 100);
    preview.onerror = () => preview.replaceWith(make("div", { className: "preview none" }, "no preview"));
    this.item = make("li", { className: `card answer${several ? " several" : ""}` }, preview, this.body);
  }

  show(head, ...content) {
    this.body.replaceChildren(
      make("div", { className: "head" }, make("h3", { className: "note" }, this.file.name), head), ...content);
  }

  async send() {
    this.failed = false;
    this.show(make("p", {}, "Waiting for the answer…"));
    try {
      await this.file.slice(0, 1).arrayBuffer().catch(() => {
        throw new Failure(422, "The browser cannot read it: is it a folder, or has it gone?");
      });
      const query = models.length ? `?model=${encodeURIComponent(get("model").value)}` : "";
      const started = performance.now();
      const [answer, headers] = await ask(`/predict${query}`, { method: "POST", body: this.file,
        // The browser's guess is made from the name; the server looks at the bytes.
        headers: { "Content-Type": "application/octet-stream" } });
      this.answered(answer, performance.now() - started, headers.get("Server-Timing") ?? "");
    } catch (failure) {
      if (!(failure instanceof Failure)) throw failure;
      this.refused(failure);
    }
  }

  answered({ model, version, results: [result] }, milliseconds, timing) {
    const { label, top, uncertain } = result;
    const parts = [...timing.matchAll(/(\w+);dur=([\d.]+)/g)].map(([, name, time]) => `${name} ${Number(time).toFixed(1)}`);
    const times = `${milliseconds.toFixed(0)} ms round trip`
      + (parts.length ? ` (${parts.join(", ")} ms)` : "");
    const bars = make("ul", { className: "bars" }, top.map((guess) => {
      const bar = make("div", { className: "bar" });
      bar.style.width = percent(guess.probability).replace(" ", "");
      return make("li", {}, make("span", {}, guess.label),
        make("div", { className: "track", ariaHidden: "true" }, bar),
        make("span", {}, probability(guess.probability)));
    }));
    this.summary = `${this.file.name}: ${label}, ${probability(result.probability)}`
      + (uncertain ? ", uncertain." : ".");
    this.item.classList.toggle("unsure", Boolean(uncertain));
    this.show(
      [make("p", { className: "label" }, label,
        make("span", { className: "share" }, probability(result.probability)),
        uncertain ? make("span", { className: "badge warn" }, "uncertain") : null)],
      bars, make("p", { className: "note" }, `${model}, version ${version} · ${times}`));
    const shown = models.find(({ name }) => name === model);
    if (shown && shown.version !== version) loadModels(); // a newer one has been loaded
  }

  refused(failure) {
    this.failed = true;
    this.summary = `${this.file.name}: ${failure.message} ${failure.details}`;
    const again = make("button", { type: "button", className: "small" }, "Try again");
    again.onclick = async () => {
      again.disabled = true;
      await this.send();
      say(this.summary, this.failed);
    };
    if (failure.status === 401) locked.add(() => this.item.isConnected && again.onclick());
    this.show([], make("p", { className: "bad" }, failure.message),
      failure.details ? make("p", { className: "note" }, failure.details) : "",
      WORTH_AGAIN.includes(failure.status) ? make("p", {}, again) : "");
    this.item.classList.remove("unsure");
  }
}

function clear() {
  for (const image of get("answers").querySelectorAll("img")) URL.revokeObjectURL(image.src);
  get("answers").replaceChildren();
  get("clear").hidden = true;
  locked.clear();
  say("None yet.");
  get("pick").focus();
}

// The camera

const CAMERA_REASONS = {
  NotAllowedError: "The browser was not allowed to use the camera.",
  NotFoundError: "This device has no camera.",
  NotReadableError: "The camera is used by another program.",
};

async function openCamera() {
  if (!navigator.mediaDevices) {
    say("Browsers give the camera only to pages from localhost or over https.", true);
    return;
  }
  get("camera").disabled = true;
  try {
    get("video").srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    await get("video").play(); // from now on there is a picture to take
  } catch (error) {
    closeCamera();
    say(`The camera is not available. ${CAMERA_REASONS[error.name] ?? error.message}`, true);
  }
  get("camera").disabled = false;
  get("camera").focus(); // which it lost with being disabled; the dialog gives it back at its end
  if (get("video").srcObject) get("camera-dialog").showModal();
}

function closeCamera() { // by the button, by Escape or after a picture
  for (const track of get("video").srcObject?.getTracks() ?? []) track.stop();
  get("video").srcObject = null;
}

async function takePicture() {
  const video = get("video");
  const canvas = make("canvas", { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  get("camera-dialog").close();
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  shots += 1;
  await classify([new File([blob], `camera ${shots}.png`, { type: blob.type })]);
}

// What people do

const holdsFiles = (event) => event.dataTransfer.types.includes("Files");

addEventListener("dragover", (event) => {
  event.preventDefault(); // else the browser opens what is dropped, and the page is gone
  get("zone").classList.toggle("over", holdsFiles(event));
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) get("zone").classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  get("zone").classList.remove("over");
  if (event.dataTransfer.files.length) classify(event.dataTransfer.files);
  else say("What was dropped is no file. Save the image first, then drop it.", true);
});
addEventListener("paste", (event) => {
  if (event.target.closest?.("input")) return;
  if (event.clipboardData.files.length) classify(event.clipboardData.files);
  else say("The clipboard holds no image.", true);
});
get("pick").addEventListener("click", () => get("files").click());
get("files").addEventListener("change", (event) => {
  classify([...event.target.files]);
  event.target.value = ""; // the same file may be chosen again
});
get("clear").addEventListener("click", clear);
get("model").addEventListener("change", showModel);
get("key-form").addEventListener("submit", useKey);
get("camera").addEventListener("click", openCamera);
get("shoot").addEventListener("click", takePicture);
get("camera-close").addEventListener("click", () => get("camera-dialog").close());
get("camera-dialog").addEventListener("close", closeCamera);

await loadModels();
