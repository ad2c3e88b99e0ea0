/** The style sheets of every element of this page, made once. They need no exception in its CSP. */

import uPlotSheet from "uplot/dist/uPlot.min.css";

import usageSheet from "./usage.css";

let made: CSSStyleSheet[] | null = null;

export function styleSheets(): CSSStyleSheet[] {
  made ??= [uPlotSheet, usageSheet].map((text) => {
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(text);
    return sheet;
  });
  return made;
}
