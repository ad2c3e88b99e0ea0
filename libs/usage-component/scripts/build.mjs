// Writes nexus-usage.js, one module with everything in it, and the demo page, into dist/ or the folder
// that is named. With --tests, writes the tests for Node into build/.
import { cp, readFile, readdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const folder = new URL("../", import.meta.url);
const path = (relative) => fileURLToPath(new URL(relative, folder));
const shared = { bundle: true, format: "esm", target: "es2022", loader: { ".css": "text" }, logLevel: "warning" };
const argument = process.argv[2];

if (argument === "--tests") {
  const tests = (await readdir(path("tests"))).filter((name) => name.endsWith(".test.ts"));
  await build({
    ...shared,
    entryPoints: tests.map((name) => path(`tests/${name}`)),
    outdir: path("build"),
    platform: "node",
  });
} else {
  const dist = argument ?? path("dist");
  // The licence of the code in the bundle asks that its notice goes with each copy.
  const licence = await readFile(path("node_modules/uplot/LICENSE"), "utf8");
  await build({
    ...shared,
    entryPoints: [path("src/index.ts")],
    outfile: `${dist}/nexus-usage.js`,
    minify: true,
    banner: { js: `/*! This file contains uPlot.\n${licence.trim()}\n*/` },
  });
  await cp(path("demo"), `${dist}/demo`, { recursive: true });
}
