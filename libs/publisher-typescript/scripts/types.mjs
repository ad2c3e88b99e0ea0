// Writes src/events.ts from the contracts' JSON Schemas; with --check, fails if it is out of date.
import { readFile, readdir, writeFile } from "node:fs/promises";
import { compile } from "json-schema-to-typescript";

const schemas = new URL("../../contracts/schemas/", import.meta.url);
const target = new URL("../src/events.ts", import.meta.url);
const publishers = /^(tool|user)\..+\.json$/; // the other events are those of the services themselves

/** Return a schema without titles of properties: each would become a type of its own. */
function untitled({ properties, ...schema }) {
  const entries = Object.entries(properties).map(([name, { title, ...each }]) => [name, each]);
  return { ...schema, properties: Object.fromEntries(entries) };
}

const definitions = {};
for (const name of (await readdir(schemas)).filter((each) => publishers.test(each)).sort()) {
  const { $defs, $schema, ...event } = JSON.parse(await readFile(new URL(name, schemas), "utf8"));
  const data = event.properties.data.$ref.split("/").at(-1);
  Object.assign(definitions, $defs, { [data]: untitled($defs[data]) });
  definitions[`${data}Event`] = { ...untitled(event), title: `${data}Event` };
}
// A list of types would give an object of unknown values.
definitions.JsonValue = {
  tsType: "string | number | boolean | null | JsonValue[] | { [key: string]: JsonValue }",
};

// A schema permits properties that it does not name; for a compiler such a name is a mistake.
const text = await compile({ $defs: definitions, type: "object" }, "Unused", {
  additionalProperties: false,
  bannerComment: "// Generated from libs/contracts/schemas by `npm run types`.",
  unreachableDefinitions: true,
});
const written = text
  .replace("export interface Unused {}\n", "")
  .replace(/\/\*\*\n \* This (?:interface|type) was referenced by .*\n.*\n \*\/\n/g, "")
  .replace(/ \*\n \* This (?:interface|type) was referenced by .*\n.*\n/g, "");

if (!process.argv.includes("--check")) {
  await writeFile(target, written);
} else if ((await readFile(target, "utf8").catch(() => "")) !== written) {
  console.error("libs/publisher-typescript/src/events.ts: out of date; run `make docs`");
  process.exitCode = 1;
}
