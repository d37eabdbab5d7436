// What a card says of one result of /predict: one label of several, or every label that an image has.
import { make } from "/dom.js";
import { percent, probability } from "/numbers.js";

const width = (share) => percent(share).replace(" ", "");

function bar({ label, probability: share, threshold }, given) {
  const filled = make("div", { className: "bar" });
  filled.style.width = width(share);
  const track = make("div", { className: "track", ariaHidden: "true" }, filled);
  if (threshold !== undefined) {
    const mark = make("div", { className: "mark", title: `threshold ${percent(threshold)}` });
    mark.style.left = width(threshold);
    track.append(mark);
  }
  return make("li", { className: given ? "given" : "" }, make("span", {}, label), track,
    make("span", {}, probability(share)));
}

function oneLabel({ label, probability: share, top, uncertain }) {
  return {
    unsure: Boolean(uncertain),
    text: `${label}, ${probability(share)}${uncertain ? ", uncertain" : ""}`,
    head: make("p", { className: "label" }, label,
      make("span", { className: "share" }, probability(share)),
      uncertain ? make("span", { className: "badge warn" }, "uncertain") : null),
    bars: make("ul", { className: "bars" }, top.map((guess) => bar(guess, false))),
    note: null,
  };
}

// Labels that the image has may be more than were asked for as the most probable ones, and a label
// with a low threshold may be less probable than one that the image lacks.
function severalLabels({ labels, top }) {
  const names = new Set(labels.map(({ label }) => label));
  const shown = [...labels, ...top.filter(({ label }) => !names.has(label))]
    .sort((one, other) => other.probability - one.probability);
  return {
    unsure: false,
    text: labels.map(({ label, probability: share }) => `${label} ${probability(share)}`).join(", ") || "no label",
    head: labels.length
      ? make("ul", { className: "labels", ariaLabel: "Labels" }, labels.map(({ label, probability: share }) =>
        make("li", {}, label, " ", make("span", { className: "share" }, probability(share)))))
      : make("p", { className: "label" }, "no label"),
    bars: make("ul", { className: "bars several-labels" }, shown.map((guess) => bar(guess, names.has(guess.label)))),
    note: make("p", { className: "note" }, labels.length ? "" : "No probability reaches its threshold. ",
      "The line across a bar is the label's threshold."),
  };
}

// `head`, `bars` and `note` are elements, `text` is the answer in words.
export const answer = (result) => (result.labels ? severalLabels(result) : oneLabel(result));
