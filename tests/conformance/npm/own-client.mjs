// Drives this project's own browser client through authentication; prints what it saw.
import { createRequire } from "node:module";

const [, , url, how, client] = process.argv;
const require = createRequire(import.meta.url);
const { connect } = require(client);
const WebSocket = require("ws");
const items = new Map();
const tokenStorage = {
  getItem: (name) => items.get(name) ?? null,
  setItem: (name, value) => items.set(name, value),
  removeItem: (name) => items.delete(name),
};
const options = { url, WebSocket, tokenStorage, transports: how === "both" ? ["polling", "websocket"] : [how] };
const seen = {};
const next = (socket, event) => new Promise((resolve) => socket.once(event, resolve));
const name = async (socket) => ((await socket.call("who am I")) ?? {}).name ?? null;

const one = connect(options);
await next(one, "connect");
seen.fresh = [one.authToken, await name(one)];
await one.call("login", { name: "Ann" }); // answered once the client has confirmed that it has the token
seen.login = [one.authClaims.name, items.size, await name(one)];
one.disconnect();
one.connect();
await next(one, "connect");
seen.again = await name(one);
const removed = next(one, "authTokenChange");
await one.call("log me out");
seen.loggedOut = [(await removed).token, one.authToken, items.size, await name(one)];
await one.call("login", { name: "Bob" });
await one.deauthenticate();
seen.deauthenticated = [one.authToken, await name(one)];

const stale = await one.call("make token", [{ name: "Old" }, -5]);
const two = connect({ ...options, tokenStorage: null, auth: { authToken: stale } });
seen.stale = (await next(two, "error")).name;

const three = connect({ ...options, query: { login: "Dan" } });
await next(three, "authTokenChange");
seen.given = [three.authClaims.name, await name(three)];

const four = connect({ ...options, query: { ban: "yes" } });
seen.banned = [(await next(four, "error")).message, four.state];
seen.empty = await new Promise((resolve) => {
  three.subscribe("b").then((channel) => channel.on((data) => resolve(typeof data)).publish());
});
for (const socket of [one, two, three]) socket.disconnect();
console.log(JSON.stringify(seen));
