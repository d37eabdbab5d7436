// The page: every image goes to /predict unchanged, one request each, and its answer becomes a card.
import { answer } from "/answer.js";
import { Failure, ask, hasKey, setKey } from "/ask.js";
import { openCamera } from "/camera.js";
import { get, make } from "/dom.js";
import { figures, lead } from "/figures.js";
import { overall } from "/verdict.js";

const AT_ONCE = 4; // requests under way for one drop
const locked = new Set(); // what to do again when there is an API key
let models = [];

// The key and the model

function askForKey() {
  get("key-note").textContent = hasKey()
    ? "The server does not accept this key."
    : "This server answers only with a key. It stays in this tab and is forgotten with it.";
  get("key-note").className = hasKey() ? "bad" : "note";
  get("key-form").hidden = false;
}

async function useKey(event) {
  event.preventDefault();
  setKey(get("key").value.trim());
  await loadModels();
  if (!get("key-form").hidden) return;
  get("key").value = "";
  get("pick").focus();
  const waiting = [...locked];
  locked.clear();
  await Promise.all(waiting.map((again) => again()));
}

async function loadModels() {
  const chosen = get("model").value;
  try {
    const [body] = await ask("/models");
    models = body.models;
    get("key-form").hidden = true;
    get("lead").textContent = "No model is served.";
  } catch (failure) {
    if (!(failure instanceof Failure)) throw failure;
    models = [];
    get("lead").textContent = failure.message;
    if (failure.status === 401) askForKey();
    else get("lead").append(` ${failure.details}`);
  }
  get("model").replaceChildren(...models.map(({ name }) => make("option", { value: name }, name)));
  if (models.some(({ name }) => name === chosen)) get("model").value = chosen;
  get("chooser").hidden = models.length < 2;
  showModel();
}

function showModel() {
  const model = models.find(({ name }) => name === get("model").value);
  get("about").hidden = !model;
  get("badge").hidden = !model || !Object.keys(model.document.parity).length;
  if (!model) return;
  const verdict = overall(model.document.verdict);
  get("verdict").hidden = !verdict;
  get("verdict").className = `badge model ${verdict}`;
  get("verdict").textContent = `model: ${verdict}`;
  document.title = `${model.name} · Lockstep`;
  get("name").textContent = model.name;
  get("lead").textContent = lead(model);
  get("figures").replaceChildren(...figures(model));
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
    preview.onerror = () => {
      URL.revokeObjectURL(preview.src);
      preview.replaceWith(make("div", { className: "preview none" }, "no preview"));
    };
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
      const [body, headers] = await ask(`/predict${query}`, { method: "POST", body: this.file,
        // The browser's guess is made from the name; the server looks at the bytes.
        headers: { "Content-Type": "application/octet-stream" } });
      this.answered(body, performance.now() - started, headers.get("Server-Timing") ?? "");
    } catch (failure) {
      if (!(failure instanceof Failure)) throw failure;
      this.refused(failure);
    }
  }

  answered({ model, version, results: [result] }, milliseconds, timing) {
    const parts = [...timing.matchAll(/(\w+);dur=([\d.]+)/g)].map(([, name, time]) => `${name} ${Number(time).toFixed(1)}`);
    const times = `${milliseconds.toFixed(0)} ms round trip`
      + (parts.length ? ` (${parts.join(", ")} ms)` : "");
    const { unsure, text, head, bars, note } = answer(result);
    this.summary = `${this.file.name}: ${text}.`;
    this.item.classList.toggle("unsure", unsure);
    this.show([head], bars, note ?? "", make("p", { className: "note" }, `${model}, version ${version} · ${times}`));
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
    if (failure.status === 401) {
      askForKey();
      locked.add(again.onclick);
    }
    this.show([], make("p", { className: "bad" }, failure.message),
      failure.details ? make("p", { className: "note" }, failure.details) : "",
      failure.mayPass ? make("p", {}, again) : "");
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
get("camera").addEventListener("click", () => openCamera(classify, say));

await loadModels();
