// Numbers as people read them.

export const percent = (share, digits = 2) => `${(100 * share).toFixed(digits)} %`;

// A share that was measured on so many images, with the digits that they know (serve/rounding.py).
export function rounded(share, examples) {
  const places = Math.max(1, Math.ceil(Math.log10(Math.max(examples || 1, 1)) / 2)) - 1;
  return percent(share, places);
}

export function probability(value) { // never "100.0 %" of what is not certain
  if (value < 1 && value >= 0.9995) return ">99.9 %";
  return value > 0 && value < 0.0005 ? "<0.1 %" : percent(value, 1);
}

// Any value of JSON as text; the fields of an object in lines.
export function plain(value) {
  if (typeof value === "number") {
    if (Number.isInteger(value)) return value.toLocaleString("en");
    return Math.abs(value) < 1e-4 ? value.toExponential(1) : String(Number(value.toPrecision(4)));
  }
  if (Array.isArray(value)) return value.map(plain).join(", ");
  if (value === null || typeof value !== "object") return String(value ?? "none");
  return Object.entries(value).map(([name, inner]) => `${name} ${plain(inner)}`).join("\n");
}
