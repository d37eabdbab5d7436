// Whether the model is any good: its findings in the words of its document, and all of them in one.
import { make } from "/dom.js";

const ORDER = ["bad", "unknown", "good"];

export function overall(findings) {
  return ORDER.find((status) => findings.some((finding) => finding.status === status));
}

export function verdictCard(findings) {
  return findings.length > 0 && make("section", { className: "card verdict", ariaLabel: "Verdict on the model" },
    make("h3", {}, "Verdict on the model"),
    make("ul", {}, findings.map(({ name, status, text }) => make("li", {},
      make("b", { className: status }, status), make("span", {}, make("strong", {}, name), `: ${text}`)))));
}
