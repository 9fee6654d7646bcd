// Drives npm's socketcluster-client of version 14, which speaks version 1 of the protocol; prints what it saw.
import socketCluster from "socketcluster-client-v1";

const { hostname, port } = new URL(process.argv[2]);
const options = { hostname, port: Number(port), ackTimeout: 30000, multiplex: false, autoReconnectOptions: { initialDelay: 10, randomness: 10 } };
const seen = {};
const told = (error) => ({ name: error.name, message: error.message, isBadToken: error.isBadToken });
const once = (emitter, event) => new Promise((resolve) => emitter.once(event, (...args) => resolve(args)));
const call = (socket, event, data) => new Promise((resolve, reject) => {
  socket.emit(event, data, (error, result) => (error ? reject(error) : resolve(result)));
});

const one = socketCluster.create(options);
one.on("error", () => {});
const greeted = once(one, "greet");
const [status] = await once(one, "connect");
seen.connected = [Boolean(status.id), status.isAuthenticated, one.state];
seen.greeting = (await greeted)[0];
seen.echo = await call(one, "echo", { text: "ünïcode ✓", list: [1, 2.5, null, true] });
seen.refused = await call(one, "refuse").catch(told);
seen.failed = (await call(one, "fail").catch(told)).name;

// The server asks.
one.on("question", (data, respond) => respond(null, `${data}? yes`));
seen.answer = await call(one, "ask me", "really");

// Channels.
const news = one.subscribe("news");
await once(news, "subscribe");
const heard = new Promise((resolve) => news.watch(resolve));
await new Promise((resolve, reject) => news.publish("it works", (error) => (error ? reject(error) : resolve())));
seen.heard = await heard;
const kicked = once(news, "kickOut");
await call(one, "kick me out", ["news", "you are noisy"]);
seen.kicked = (await kicked)[0];
seen.afterKick = news.state;
const forbidden = one.subscribe("forbidden");
seen.forbidden = told((await once(forbidden, "subscribeFail"))[0]);
const batched = ["a", "b"].map((name) => once(one.subscribe(name, { batch: true }), "subscribe"));
await Promise.all(batched);
seen.batched = one.subscriptions();

// Authentication.
const authenticated = once(one, "authenticate");
await call(one, "login", { name: "Ann" });
await authenticated;
seen.authenticated = [one.authState, one.getAuthToken().name];
const disconnected = once(one, "disconnect");
await new Promise((resolve) => { one.emit("disconnect me", 4321); resolve(); });
seen.disconnected = await disconnected;
const [again] = await once(one, "connect");
seen.again = [again.isAuthenticated, (await call(one, "who am I")).name];
const removed = once(one, "removeAuthToken");
await call(one, "log me out");
await removed;
seen.loggedOut = one.authState;
const stale = await call(one, "make token", [{ name: "Old" }, -5]);
seen.stale = await new Promise((resolve) => one.authenticate(stale, (error) => resolve(told(error))));
const good = await call(one, "make token", [{ name: "Bob" }, 60]);
seen.authenticate = await new Promise((resolve, reject) => {
  one.authenticate(good, (error, result) => (error ? reject(error) : resolve(result.isAuthenticated)));
});

// The server's pings reach it: without them it would give up after pingTimeout.
const pings = [];
await new Promise((resolve) => one.on("message", (text) => { if (text === "#1" && pings.push(text) === 3) resolve(); }));
seen.alive = await call(one, "echo", "after three pings");

one.disconnect(1000, "done");
console.log(JSON.stringify(seen));
