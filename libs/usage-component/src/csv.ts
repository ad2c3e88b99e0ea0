/** Comma-separated values (RFC 4180) that a spreadsheet opens as text and numbers, never as formulas. */

import type { Usage } from "./wire.js";

const BYTE_ORDER_MARK = "\ufeff"; // by which a spreadsheet knows UTF-8
const FORMULA = /^[=+\-@\t\r]/; // https://owasp.org/www-community/attacks/CSV_Injection

type Cell = string | number;

export function runsAsCsv({ recorded }: Usage): string {
  const rows = recorded.map((run) => [timeOf(run.start), run.server, run.tool, run.runs, run.tokens]);
  return csv(["start", "server_id", "tool_name", "runs", "tokens"], rows);
}

/** Each reason that occurs has a column of its own, and so has what was reported in another way. */
export function amountsAsCsv(usage: Usage): string {
  const amounts = usage.amounts ?? [];
  const reasons = [...new Set(amounts.flatMap(({ why }) => [...why.keys()]))].sort();
  const shadows = amounts.some(({ shadow }) => shadow > 0);
  const rows = amounts.map(({ start, meter, accepted, waiting, shadow, why }) => [
    timeOf(start),
    meter,
    accepted,
    waiting,
    ...(shadows ? [shadow] : []),
    ...reasons.map((reason) => why.get(reason) ?? 0),
  ]);
  return csv(["start", "meter", "accepted", "waiting", ...(shadows ? ["shadow"] : []), ...reasons], rows);
}

function csv(header: readonly Cell[], rows: readonly (readonly Cell[])[]): string {
  return BYTE_ORDER_MARK + [header, ...rows].map((row) => `${row.map(quoted).join(",")}\r\n`).join("");
}

function quoted(cell: Cell): string {
  if (typeof cell === "number") return String(cell);
  const safe = FORMULA.test(cell) ? `'${cell}` : cell;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function timeOf(milliseconds: number): string {
  return new Date(milliseconds).toISOString();
}
