// What a bundle says of itself, as tiles, the table of its proof, and a list of all the rest.
import { make, table } from "/dom.js";
import { percent, plain, rounded } from "/numbers.js";
import { verdictCard } from "/verdict.js";

const spaced = (name) => name.replaceAll("_", " ");
const share = (value, examples) => (Number.isFinite(value) ? rounded(value, examples) : null);

function tile(figure, ...lines) {
  return figure && make("div", { className: "card tile" },
    make("b", {}, figure), lines.map((line) => line && make("span", {}, line)));
}

function proofTable(parity) {
  const columns = [...new Set(Object.values(parity).flatMap(Object.keys))];
  const cell = (name, value, examples) =>
    (/accuracy$|agreement$/.test(name) && share(value, examples)) || plain(value ?? "");
  return table("The proof", ["proof", ...columns.map(spaced)], Object.entries(parity).map(
    ([path, figures]) => [path, ...columns.map((name) => cell(name, figures[name], figures.examples))]));
}

const size = (image) => `${image.height}×${image.width}`;
const colours = (image) => `pixels, ${image.channels === 1 ? "grey" : "RGB"}`;

// One line: what it is.
export function lead({ version, document: { class_names: names, image, precision, task } }) {
  const kind = task === "multi-label" ? "labels, any number at once" : "classes";
  return `version ${version} · ${names.length} ${kind} · ${size(image)} ${colours(image)} · ${precision}`;
}

function quality({ task, metrics, temperature }) {
  const images = metrics.examples && `${plain(metrics.examples)} test images`;
  if (task === "multi-label") {
    const f1 = share(metrics.f1_macro, metrics.examples);
    return [tile(share(metrics.average_precision_macro, metrics.examples), "mean average precision", f1 && `macro F1 ${f1}`),
      tile(share(metrics.accuracy, metrics.examples), "images with exactly the right labels", images)];
  }
  return [tile(share(metrics.accuracy, metrics.examples), "test accuracy", images),
    tile(share(metrics.ece, metrics.examples), "calibration error", `temperature ${plain(temperature)}`)];
}

function labels({ class_names: names, task, thresholds }) {
  if (task !== "multi-label") return [`The ${names.length} classes`, make("p", {}, names.join(", "))];
  return [`The ${names.length} labels and their thresholds`,
    table("Thresholds", ["label", "from"], names.map((name, index) => [name, percent(thresholds[index])]))];
}

export function figures({ document }) {
  const { class_names, image, precision, parity, metrics, created, rejection, temperature, thresholds,
    verdict, ...rest } = document;
  const [summary, list] = labels(document);
  const proven = Object.keys(parity).length > 0;
  const worst = Math.max(...Object.values(parity).map((path) => path.max_difference ?? 0));
  const facts = { ...rest, created, temperature, metrics, image, rejection };
  return [
    make("div", { className: "tiles" }, [
      ...quality(document),
      tile(proven && plain(worst), "largest difference of", "a probability from Keras"),
      tile(size(image), colours(image), `resize ${image.resize}, ${image.resample}`),
      tile(precision, "precision", created && `made ${created.slice(0, 10)}`),
    ].filter(Boolean)),
    verdictCard(verdict),
    rejection && make("p", { className: "card" }, `An answer below ${percent(rejection.threshold)} is `
      + `called uncertain. The other ${percent(rejection.coverage)} of the test images are answered `
      + `with an accuracy of ${percent(rejection.accuracy)}.`),
    make("div", { className: "card" },
      proven ? proofTable(parity) : make("p", {}, "No proof came with this model."),
      make("details", {}, make("summary", {}, summary), list),
      make("details", {}, make("summary", {}, "All that the file says of itself"),
        make("dl", {}, Object.entries(facts).map(([name, value]) => [spaced(name), plain(value)])
          .filter(([, text]) => text)
          .map(([name, text]) => [make("dt", {}, name), make("dd", {}, text)])))),
  ].filter(Boolean);
}
