// A host that publishes an event of each type, and then a tool run every few milliseconds until its
// input ends. Each line of its output is the status of its publisher; the last one also has the type
// of each event by id.
import { createPublisher } from "@nexus-metering/publisher";

const lost = [];
const publisher = createPublisher({
  url: process.env.METERING_URL,
  key: process.env.METERING_KEY,
  source: "host",
  onLost: (events) => lost.push(...events),
  longestRetryMs: 500,
});

const user_id = "018f3a52-7c1e-7d3a-9f00-5a2b6c7d8e9f";
const run = { user_id, server_id: "weather", tool_name: "forecast", origin: "hub", status: "succeeded" };
const details = { model: "small", input_tokens: 10, output_tokens: 2, cached_tokens: 0 };

const types = Object.fromEntries([
  [publisher.userCreated({ user_id, email: "ada@example.com" }).id, "user.created.v1"],
  [publisher.userCreated({ user_id, stripe_customer_id: "cus_1" }).id, "user.created.v2"],
  [publisher.userUpdated({ user_id, name: "Ada" }).id, "user.updated.v1"],
  [publisher.toolExecuted({ ...run, ...details }).id, "tool.executed.v2"],
]);
const publishing = setInterval(() => {
  types[publisher.toolExecuted(run).id] = "tool.executed.v1";
}, 20);
const printing = setInterval(() => console.log(JSON.stringify(publisher.status())), 50);

process.stdin.resume().once("end", async () => {
  clearInterval(publishing);
  clearInterval(printing);
  await publisher.close(20_000);
  console.log(JSON.stringify({ ...publisher.status(), types }));
});
