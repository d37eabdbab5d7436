// The API for people: /openapi.json, operation by operation, each with a command to copy.
import { hasKey } from "/ask.js";
import { get, make, table } from "/dom.js";

const METHODS = ["get", "put", "post", "delete", "options", "head", "patch"];
const code = (text) => make("code", {}, text);
const json = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));
const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;

let api;

// What "#/components/…" points at; anything else is itself.
function resolve(value) {
  if (typeof value?.$ref !== "string") return value ?? {};
  const steps = value.$ref.replace(/^#\//, "").split("/");
  return resolve(steps.reduce((at, step) => at?.[step.replaceAll("~1", "/").replaceAll("~0", "~")], api));
}

const inline = (text = "") => text.split(/`([^`]+)`/).map((piece, index) => (index % 2 ? code(piece) : piece));

// Descriptions are CommonMark; paragraphs and `code` are what ours use.
function prose(text = "") {
  return text.split(/\n\s*\n/).filter((part) => part.trim()).map((part) => make("p", {}, inline(part)));
}

const block = (...content) => make("pre", { tabIndex: 0 }, ...content);

// Schemas, written like the JSON that they describe

function shape(schema, indent = "") {
  if (schema?.$ref) {
    const name = schema.$ref.split("/").pop();
    return [make("a", { href: `#schema-${name}` }, name)];
  }
  if (schema === false) return ["nothing"];
  if (schema === undefined || schema === true) return ["any"];
  const choices = schema.oneOf ?? schema.anyOf;
  if (choices) return choices.flatMap((choice, index) => [index ? " | " : "", ...shape(choice, indent)]);
  if (schema.allOf) return schema.allOf.flatMap((part, index) => [index ? " & " : "", ...shape(part, indent)]);
  if (schema.enum) return [schema.enum.map((value) => JSON.stringify(value)).join(" | ")];
  if ("const" in schema) return [JSON.stringify(schema.const)];
  if (schema.prefixItems) {
    return ["[", ...schema.prefixItems.flatMap((item, index) => [index ? ", " : "", ...shape(item, indent)]), "]"];
  }
  if (schema.type === "array") {
    const { oneOf, anyOf, enum: values, type } = schema.items ?? {};
    const item = shape(schema.items, indent);
    return oneOf || anyOf || values || Array.isArray(type) ? ["(", ...item, ")[]"] : [...item, "[]"];
  }
  const inner = `${indent}  `;
  const fields = Object.entries(schema.properties ?? {}).flatMap(([name, field]) => [
    `${inner}${name}${schema.required?.includes(name) ? "" : "?"}: `, ...shape(field, inner), ...remark(field), "\n"]);
  if (schema.additionalProperties) {
    fields.push(`${inner}[name]: `, ...shape(schema.additionalProperties, inner), "\n");
  }
  if (fields.length) return ["{\n", ...fields, `${indent}}`];
  const types = [schema.type ?? "any"].flat().join(" | ");
  const form = schema.format ?? schema.contentEncoding;
  return [form ? `${types} (${form})` : types];
}

function remark(field) {
  const text = resolve(field).description?.replace(/\s+/g, " ");
  return text && !field.$ref ? [make("span", { className: "soft" }, `  // ${text}`)] : [];
}

const limits = ({ minimum, exclusiveMinimum, maximum, default: start }) => [
  minimum !== undefined && `at least ${minimum}`, exclusiveMinimum !== undefined && `above ${exclusiveMinimum}`,
  maximum !== undefined && `at most ${maximum}`,
  start !== undefined && `default ${json(start)}`].filter(Boolean).join(", ");

// [what it shows, value] of each example.
function examples({ example, examples: named, schema }) {
  if (example !== undefined) return [["Example", example]];
  if (named) return Object.values(named).map(resolve).map(({ summary, value }) => [summary ?? "Example", value]);
  const { example: one, examples: some = [one] } = resolve(schema);
  return some.filter((value) => value !== undefined).map((value) => ["Example", value]);
}

// What each media type holds: in the same line, if that is enough.
const content = (types) => Object.entries(types ?? {}).map(([type, media]) => {
  const parts = shape(media.schema);
  const long = parts.some((part) => typeof part === "string" && part.includes("\n"));
  return [make("p", {}, make("span", { className: "note" }, code(type), " "),
    long ? "" : make("code", {}, ...parts), " ", inline(media.schema?.description)),
  long ? block(...parts) : "",
  examples(media).map(([title, value]) => make("details", {}, make("summary", {}, title), block(json(value))))];
});

// Commands

function command(method, path, operation, parameters) {
  const sample = (parameter) => String(examples(parameter)[0]?.[1] ?? resolve(parameter.schema).default
    ?? parameter.name.toUpperCase());
  const wanted = (place) => parameters.filter((parameter) => parameter.in === place
    && (parameter.required || place === "path"));
  const filled = wanted("path").reduce((text, parameter) => text.replace(
    `{${parameter.name}}`, encodeURIComponent(sample(parameter))), path);
  const query = wanted("query").map((parameter) => `${parameter.name}=${encodeURIComponent(sample(parameter))}`);
  const types = resolve(operation.requestBody).content ?? {};
  const [type, media] = Object.entries(types).find(([, each]) => examples(each).length)
    ?? Object.entries(types).find(([name]) => !/json|multipart/.test(name)) ?? Object.entries(types)[0] ?? [];
  const body = [];
  if (type?.includes("json")) {
    body.push(`-H 'Content-Type: ${type}'`, `-d ${shell(JSON.stringify(examples(media)[0]?.[1] ?? {}))}`);
  } else if (type?.startsWith("multipart")) {
    body.push("-F file=@image.jpg");
  } else if (type) {
    body.push("--data-binary @image.jpg");
  }
  const ways = operation.security ?? api.security ?? []; // one of {} means: also without a key
  const secured = ways.length && (hasKey() || ways.every((way) => Object.keys(way).length));
  return ["curl", method === "get" || (method === "post" && body.length) ? "" : `-X ${method.toUpperCase()}`,
    secured ? "-H \"Authorization: Bearer $KEY\"" : "", ...body,
    shell(location.origin + filled + (query.length ? `?${query.join("&")}` : ""))].filter(Boolean).join(" ");
}

function copyable(text) {
  const pre = block(text);
  const button = make("button", { type: "button", className: "small", ariaLabel: "Copy the command" }, "Copy");
  button.onclick = async () => {
    try {
      await navigator.clipboard.writeText(text);
      get("copied").textContent = "The command is in the clipboard.";
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    } catch { // a page over plain http may not write to it
      getSelection().selectAllChildren(pre);
      get("copied").textContent = "The command is selected.";
    }
  };
  return make("div", { className: "command" }, pre, button);
}

// Operations

function operations() {
  return Object.entries(api.paths ?? {}).flatMap(([path, item]) => METHODS.filter((method) => item[method])
    .map((method) => ({ method, path, operation: item[method],
      parameters: [...item.parameters ?? [], ...item[method].parameters ?? []].map(resolve),
      id: `${method}${path}`.replace(/\W+/g, "-") })));
}

const heading = ({ method, path }) => [make("span", { className: `method ${method}` }, method.toUpperCase()), " ", code(path)];

function article(one) {
  const { method, path, operation, parameters, id } = one;
  const body = resolve(operation.requestBody);
  return make("article", { className: "card operation", id, ariaLabel: `${method.toUpperCase()} ${path}` },
    make("h3", {}, ...heading(one)),
    make("p", {}, make("b", {}, operation.summary ?? "")), prose(operation.description),
    copyable(command(method, path, operation, parameters)),
    parameters.length ? [make("h4", {}, "Parameters"),
      table(`Parameters of ${method.toUpperCase()} ${path}`, ["name", "in", "type", "meaning"], parameters.map((parameter) => [
        make("span", {}, code(parameter.name), parameter.required ? " (required)" : ""), parameter.in,
        make("span", {}, ...shape(parameter.schema)),
        make("div", {}, prose(parameter.description), limits(resolve(parameter.schema)))]))] : null,
    body.content ? [make("h4", {}, "Request body"), prose(body.description), content(body.content)] : null,
    make("h4", {}, "Responses"), responses(Object.entries(operation.responses ?? {})));
}

// Errors are much the same everywhere, so they are folded away.
function responses(all) {
  const [good, bad] = [all.filter(([status]) => status < "4"), all.filter(([status]) => status >= "4")];
  const list = (some, body) => make("ul", { className: "responses" }, some.map(([status, given]) => {
    const { description, content: types, headers } = resolve(given);
    return make("li", {}, make("p", {}, make("b", { className: status < "4" ? "good" : "bad" }, status), " ",
      inline(description)), body(types), Object.entries(headers ?? {}).map(([name, header]) =>
      make("p", { className: "note" }, code(name), " ", inline(resolve(header).description))));
  }));
  const short = (types) => Object.values(types ?? {}).map(({ schema }) => make("code", {}, ...shape(schema)));
  return [list(good, content), bad.length ? make("details", {},
    make("summary", {}, `Errors: ${bad.map(([status]) => status).join(", ")}`), list(bad, short)) : null];
}

function render() {
  const all = operations();
  const tags = new Set([...(api.tags ?? []).map(({ name }) => name), ...all.map(({ operation }) => operation.tags?.[0] ?? "Other")]);
  get("title").textContent = api.info.title;
  get("lead").textContent = `version ${api.info.version} · ${all.length} operations`;
  document.title = `${api.info.title} · Lockstep`;
  const schemes = Object.entries(api.components?.securitySchemes ?? {});
  get("about").replaceChildren(...prose(api.info.description), ...schemes.map(([name, scheme]) =>
    make("p", {}, make("b", {}, `${name} `), ...inline(scheme.description ?? `${scheme.type} ${scheme.scheme ?? scheme.name ?? ""}`))));
  for (const tag of tags) {
    const members = all.filter(({ operation }) => (operation.tags?.[0] ?? "Other") === tag);
    if (!members.length) continue;
    get("contents").append(make("h2", {}, tag), make("ul", {}, members.map((one) =>
      make("li", {}, make("a", { href: `#${one.id}` }, ...heading(one)), ` ${one.operation.summary ?? ""}`))));
    const about = (api.tags ?? []).find(({ name }) => name === tag)?.description;
    get("operations").append(make("h2", {}, tag), ...prose(about), ...members.map(article));
  }
  get("contents").hidden = !all.length;
  const schemas = Object.entries(api.components?.schemas ?? {});
  if (schemas.length) {
    get("schemas").append(make("h2", {}, "Schemas"), ...schemas.map(([name, schema]) =>
      make("article", { className: "card operation", id: `schema-${name}`, ariaLabel: `Schema ${name}` },
        make("h3", {}, code(name)), prose(schema.description), block(...shape(schema)))));
  }
  if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

try {
  const response = await fetch("/openapi.json");
  if (!response.ok) throw new Error(`HTTP status ${response.status}`);
  api = await response.json();
  render();
} catch (error) {
  get("lead").textContent = `The description cannot be shown: ${error.message}`;
  get("lead").className = "bad";
  throw error;
}
