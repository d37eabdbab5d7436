// Elements from values. Text becomes text nodes and never markup: class names, file names and the
// server's words come from outside.

export const get = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

// A table that a narrow screen scrolls within itself; `rows` hold texts or elements.
export function table(name, head, rows) {
  const cells = (row) => row.map((cell, index) => index
    ? make("td", {}, cell) : make("th", { scope: "row" }, cell));
  return make("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: name },
    make("table", {},
      make("thead", {}, make("tr", {}, head.map((text) => make("th", { scope: "col" }, text)))),
      make("tbody", {}, rows.map((row) => make("tr", {}, cells(row))))));
}
