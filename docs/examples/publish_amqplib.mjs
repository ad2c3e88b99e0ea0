// Publishes user.created, then tool.executed, with amqplib 2 on Node 20 or later:
//   AMQP_URL=amqp://publisher:…@localhost/metering USER_ID=<a UUID> node publish_amqplib.mjs
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import amqp from "amqplib";

const ATTEMPT_MS = 5_000; // a broker in alarm neither confirms nor refuses
const LIMIT_MS = 1_000 * Number(process.env.LIMIT_SECONDS ?? 30);
// No repetition helps: the type, the password, the size or the vhost is wrong.
const REFUSED = /ACCESS_REFUSED|PRECONDITION_FAILED|ConnectionOpenOk/;

export class Publisher {
  #turn = Promise.resolve(""); // one event at a time: a refusal closes the channel for all
  #connection; #channel; #fault;
  #link = new AbortController();

  constructor(url) {
    this.url = url;
  }

  // Resolves to "confirmed", or to why not: then keep the event, and publish it later with its id.
  publish(event) {
    let body;
    try {
      body = Buffer.from(JSON.stringify(event)); // each time the same bytes with the same id
    } catch (error) {
      return Promise.resolve(`refused: ${error.message}`);
    }
    return (this.#turn = this.#turn.then(() => this.#untilConfirmed(event, body)));
  }

  async #untilConfirmed(event, body) {
    const end = Date.now() + LIMIT_MS;
    for (let pause = 250; ; pause = Math.min(2 * pause, 8_000)) {
      const timer = setTimeout(() => this.#drop(new Error("no answer in time")), ATTEMPT_MS);
      try {
        await this.#attempt(event, body);
        return "confirmed";
      } catch (error) {
        this.#drop(error);
      } finally {
        clearTimeout(timer);
      }
      const why = this.#fault.message || this.#fault.code;
      if (REFUSED.test(why)) return `refused: ${why}`;
      if (Date.now() + pause > end) return `not confirmed in ${LIMIT_MS / 1_000} s: ${why}`;
      console.error(`${event.type} ${event.id}: ${why}; again in ${pause} ms`);
      await sleep(pause * (0.5 + Math.random() / 2));
    }
  }

  async #attempt({ id, type }, body) {
    const channel = (this.#channel ??= await this.#connect());
    const properties = { contentType: "application/cloudevents+json", messageId: id, type };
    await new Promise((resolve, reject) => {
      const options = { ...properties, persistent: true, mandatory: true };
      channel.publish("events", type, body, options, (error) => {
        if (error || this.#channel !== channel) reject(error ?? this.#fault);
        else resolve(); // a returned event is acknowledged, too
      });
    });
  }

  async #connect() {
    this.#fault = undefined;
    this.#link = new AbortController();
    const drop = (error) => this.#drop(error); // an "error" without a listener ends the process
    const options = { timeout: ATTEMPT_MS, signal: this.#link.signal };
    this.#connection = (await amqp.connect(this.url, options)).on("error", drop);
    const channel = (await this.#connection.createConfirmChannel()).on("error", drop);
    channel.on("return", () => drop(new Error("no queue takes this type")));
    return channel.on("close", () => drop(new Error("the channel was closed")));
  }

  #drop(fault) {
    this.#fault ??= fault;
    this.#channel = undefined;
    this.#link.abort(); // ends the connection, and with it what waits for it
  }

  async close() {
    const closed = this.#connection?.close().catch(() => {});
    await Promise.race([closed, sleep(1_000, undefined, { ref: false })]);
    this.#drop();
  }
}

// Make the event when the run ends, and keep it until it is confirmed.
export const event = (type, data) => ({
  specversion: "1.0", id: randomUUID(), source: "mcp-route", type, time: new Date(), data,
});

if (import.meta.filename === process.argv[1]) {
  const user = { user_id: process.env.USER_ID };
  const run = { server_id: "weather", tool_name: "forecast", origin: "direct", status: "succeeded" };
  const publisher = new Publisher(process.env.AMQP_URL);
  for (const each of [
    event("user.created.v1", { ...user, email: "ada@example.com", name: "Ada Lovelace" }),
    event("tool.executed.v1", { ...user, ...run }),
  ]) {
    const outcome = await publisher.publish(each);
    console.log(`${each.type} ${each.id}: ${outcome}`);
    if (outcome !== "confirmed") process.exitCode = 1;
  }
  await publisher.close();
}
