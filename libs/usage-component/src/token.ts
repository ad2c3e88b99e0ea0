/** What the page's token says of itself. The usage API verifies it; here it only names the user. */

/** Return the `sub` of a JWT, or null if this is not one. */
export function subjectOf(token: string): string | null {
  try {
    const payload = token.split(".")[1] ?? "";
    const claims: unknown = JSON.parse(atob(payload.replaceAll("-", "+").replaceAll("_", "/")));
    const { sub } = claims as { sub?: unknown };
    return typeof sub === "string" && sub !== "" ? sub : null;
  } catch {
    return null;
  }
}
