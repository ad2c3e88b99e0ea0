// Prints every finding of AsyncAPI's own parser in a document, and fails if there is any.
import { readFile } from "node:fs/promises";

import { Parser } from "@asyncapi/parser";

// A newer version of AsyncAPI is no fault of a document.
const NO_FAULTS = new Set(["asyncapi-latest-version"]);

const text = await readFile(process.argv[2], "utf8");
const { document, diagnostics } = await new Parser().parse(text);
const faults = diagnostics.filter(({ code }) => !NO_FAULTS.has(code));
for (const { code, path, message } of faults) console.log(`${code} ${path.join("/")}: ${message}`);
if (!document || faults.length > 0) process.exit(1);
for (const channel of document.channels().all()) console.log(channel.id());
