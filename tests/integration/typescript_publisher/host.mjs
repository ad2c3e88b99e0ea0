// A host that publishes a tool run every few milliseconds until its input ends.
// Each line of its output is the state of its publisher; the last one has the ids, too.
import { createPublisher } from "@nexus-metering/publisher";

const lost = [];
const publisher = createPublisher({
  url: process.env.METERING_URL,
  key: process.env.METERING_KEY,
  source: "host",
  onLost: (events) => lost.push(...events),
  longestRetryMs: 500,
});

const ids = [];
const running = setInterval(() => {
  const { id } = publisher.toolExecuted({
    user_id: "018f3a52-7c1e-7d3a-9f00-5a2b6c7d8e9f",
    server_id: "weather",
    tool_name: "forecast",
    origin: "hub",
    status: "succeeded",
  });
  ids.push(id);
}, 5);
const telling = setInterval(() => console.log(JSON.stringify(publisher.status())), 50);

process.stdin.resume().once("end", async () => {
  clearInterval(running);
  clearInterval(telling);
  await publisher.close(20_000);
  console.log(JSON.stringify({ ...publisher.status(), ids }));
});
