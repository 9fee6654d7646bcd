// Drives npm's socketcluster-client against a cluster; prints one JSON object of what it saw.
import socketClusterClient from "socketcluster-client";

const { hostname, port } = new URL(process.argv[2]);
const options = { hostname, port, ackTimeout: 30000 };
const seen = {};
const one = socketClusterClient.create(options);
const other = socketClusterClient.create(options);

const first = async (stream) => { for await (const value of stream) return value; };

const greeting = first(one.receiver("greet"));
await Promise.all([one.listener("connect").once(), other.listener("connect").once()]);
seen.state = one.state;
seen.greeting = await greeting;

seen.echo = await one.invoke("echo", { text: "ünïcode ✓", list: [1, 2.5, null, true] });
seen.who = await one.invoke("who");
seen.refused = await one.invoke("refuse").catch((error) => ({ name: error.name, message: error.message }));
seen.failed = await one.invoke("fail").catch((error) => ({ name: error.name, message: error.message }));
seen.nobody = await one.invoke("there is no such procedure").catch((error) => error.name);

one.transmit("tell session", "transmitted");
seen.told = await first(one.receiver("told"));

(async () => {
  for await (const request of one.procedure("question")) request.end(`${request.data}? yes`);
})();
seen.answer = await one.invoke("ask me", "really");

const channel = one.subscribe("news");
const elsewhere = other.subscribe("news");
await Promise.all([channel.listener("subscribe").once(), elsewhere.listener("subscribe").once()]);
seen.subscriptions = one.subscriptions();
const heard = Promise.all([first(channel), first(elsewhere)]);
await one.invokePublish("news", { headline: "it works" });
seen.heard = await heard;
const transmitted = first(elsewhere);
await one.transmitPublish("news", "without an answer");
seen.transmitted = await transmitted;

const left = channel.listener("unsubscribe").once();
one.unsubscribe("news");
await left;
seen.afterUnsubscribe = one.subscriptions();

const closed = one.listener("disconnect").once();
await one.transmit("disconnect me", 4321);
seen.closed = await closed;
const again = await one.listener("connect").once();
seen.reconnected = Boolean(again.id);

one.disconnect();
other.disconnect();
console.log(JSON.stringify(seen));
