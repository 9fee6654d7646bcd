// Cuts the connection of npm's socket.io-client, and prints what it recovers: one JSON object.
//   node socketio-recovery.mjs URL
import { io } from "socket.io-client";

const url = process.argv[2];
const options = { transports: ["websocket"], forceNew: true, reconnectionDelay: 300, randomizationFactor: 0 };
const seen = {};
const connected = (socket) => new Promise((resolve) => socket.once("connect", resolve));

const one = io(url, options);
const other = io(url, options);
const got = [];
one.on("room", (data) => got.push(data));
one.on("everybody", (data) => got.push(data));
one.on("told", (data) => got.push(data));
await Promise.all([connected(one), connected(other)]);
seen.fresh = one.recovered;
const before = await one.emitWithAck("who");
const { id } = one;
await one.emitWithAck("join", "lobby");
await one.emitWithAck("remember", "this");

const until = async (condition) => { while (!condition()) await new Promise((resolve) => setTimeout(resolve, 10)); };
await other.emitWithAck("to room", "lobby", "before");
await until(() => got.length === 1);

const again = connected(one);
one.io.engine.close(); // as if the network had gone
await other.emitWithAck("to room", "lobby", "missed 1");
await other.emitWithAck("to room", "another room", "not mine");
await other.emitWithAck("to everybody else", "missed 2");
await again;
seen.recovered = one.recovered;
seen.sameId = one.id === id;
await other.emitWithAck("to room", "lobby", "after");
await until(() => got.includes("after"));
seen.got = got;
seen.rooms = await one.emitWithAck("rooms");
seen.remembered = await one.emitWithAck("remembered");
seen.sameSession = (await one.emitWithAck("who")).session === before.session;

// A client that was sent away, or whose ticket is unknown, begins anew.
const pid = one._pid;
one.emit("disconnect me", 4321);
await new Promise((resolve) => one.once("disconnect", resolve));
one._pid = pid;
one.connect();
await connected(one);
seen.afterDisconnect = one.recovered;
one.disconnect();
other.disconnect();
console.log(JSON.stringify(seen));
