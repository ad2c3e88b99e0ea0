/** Tokens by which a user's browser reads the user's own usage. */

export interface UsageTokenOptions {
  /** PKCS#8 in PEM, of P-256 or Ed25519; line breaks may be written `\n`. */
  readonly privateKey: string | undefined;
  /** The key's name in the usage API's `USAGE_TOKEN_KEYS`. */
  readonly kid: string | undefined;
  /** Whose usage the bearer may read: a user whom the host has authenticated. */
  readonly userId: string;
  /** An account whose totals they may read, too. The host decides who may. */
  readonly account?: string | undefined;
  /** 15 minutes at most; 10 by default. */
  readonly lifetimeSeconds?: number;
}

const AUDIENCE = "nexus-usage";
const MAX_LIFETIME_SECONDS = 15 * 60; // the usage API takes no longer lifetime: a token can't be withdrawn
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

// P-256 first: to try Ed25519 makes Node 20 warn that this is experimental.
const ALGORITHMS = [
  { alg: "ES256", parameters: { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } },
  { alg: "EdDSA", parameters: { name: "Ed25519" } },
] as const;

/**
 * Return a token for a user whom the host has authenticated.
 *
 * It rejects with a `TypeError` that names the option that can't be used, and repeats none of them.
 */
export async function signUsageToken(options: UsageTokenOptions): Promise<string> {
  const { privateKey, kid, userId, account, lifetimeSeconds = 600 } = options;
  if (!(lifetimeSeconds >= 1 && lifetimeSeconds <= MAX_LIFETIME_SECONDS)) {
    throw new TypeError("lifetimeSeconds: from 1 to 900");
  }
  if (!kid) throw new TypeError("kid: the name of the key is missing");
  const { alg, parameters, key } = await readKey(privateKey ?? "");
  const now = Math.floor(Date.now() / 1000);
  const claims = {
    aud: AUDIENCE,
    sub: uuid("userId", userId),
    iat: now,
    exp: now + Math.floor(lifetimeSeconds),
    ...(account !== undefined && { account: uuid("account", account) }),
  };
  const signed = [{ alg, kid, typ: "JWT" }, claims].map((part) => base64url(encoded(JSON.stringify(part)))).join(".");
  const signature = await crypto.subtle.sign(parameters, key, encoded(signed));
  return `${signed}.${base64url(new Uint8Array(signature))}`;
}

async function readKey(pem: string): Promise<(typeof ALGORITHMS)[number] & { readonly key: CryptoKey }> {
  const base64 = /-----BEGIN PRIVATE KEY-----(.*?)-----END PRIVATE KEY-----/s.exec(pem)?.[1];
  if (base64 === undefined) throw new TypeError("privateKey: no PEM of PKCS#8 without a password");
  for (const algorithm of ALGORITHMS) {
    try {
      const der = Uint8Array.from(atob(base64.replace(/\\n|\s/g, "")), (letter) => letter.charCodeAt(0));
      const key = await crypto.subtle.importKey("pkcs8", der, algorithm.parameters, false, ["sign"]);
      return { ...algorithm, key };
    } catch {
      // a key of another kind, or a runtime without it
    }
  }
  throw new TypeError("privateKey: neither P-256 nor Ed25519, or this runtime has not that kind");
}

function uuid(name: string, value: string): string {
  if (!UUID.test(value)) throw new TypeError(`${name}: no UUID`);
  return value.toLowerCase();
}

function encoded(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(new TextEncoder().encode(text));
}

function base64url(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}
