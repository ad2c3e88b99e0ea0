// A host that publishes runs in the background with an example's Publisher.
import { setTimeout as sleep } from "node:timers/promises";

const { Publisher, event } = await import(process.argv[2]);
const publisher = new Publisher(process.env.AMQP_URL);
const data = {
  user_id: process.env.USER_ID,
  server_id: "weather",
  tool_name: "forecast",
  origin: "hub",
  status: "succeeded",
};

const published = [];
for (let number = 0; number < 61; number++) {
  const unwritable = number === 0 ? { metadata: 1n } : {};
  const run = event("tool.executed.v1", { ...data, ...unwritable });
  published.push(publisher.publish(run).then((outcome) => console.log(run.id, outcome)));
  await sleep(50);
}
await Promise.all(published);
await publisher.close();
