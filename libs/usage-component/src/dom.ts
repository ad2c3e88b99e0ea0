/** Making of elements. Text is always text: nothing here, and nothing else in this package, reads HTML. */

export type Child = Node | string | null;

/** Make an element with attributes (false and null: absent) and children. */
export function h<K extends keyof HTMLElementTagNameMap>(
  name: K,
  attributes: Readonly<Record<string, string | number | boolean | null>> = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) element.setAttribute(key, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** A name from the server, whose direction of writing must not turn what stands around it. */
export function named(name: string, attributes: Readonly<Record<string, string>> = {}): HTMLElement {
  return h("bdi", attributes, name);
}

/** A button that does something. */
export function button(label: string, part: string, act: () => void): HTMLButtonElement {
  const made = h("button", { type: "button", part }, label);
  made.addEventListener("click", act);
  return made;
}
