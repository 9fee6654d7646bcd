// What socket.io-client's own test suite sees of a server, beside what socketio.mjs shows; prints what it saw.
import { io } from "socket.io-client";

const url = process.argv[2];
const options = { forceNew: true, reconnectionDelay: 10 };
const seen = {};
const connected = (socket) => new Promise((resolve, reject) => socket.once("connect", resolve).once("connect_error", reject));

// Acknowledgements that do not come: each kind of time-out decides, and the connection goes on.
const one = io(url, options);
await connected(one);
seen.callback = await new Promise((resolve) => one.timeout(50).emit("unknown", (error) => resolve(error?.message)));
seen.promise = await one.timeout(50).emitWithAck("unknown").catch((error) => error.message);
const impatient = io(url, { ...options, ackTimeout: 50 });
await connected(impatient);
seen.default = await new Promise((resolve) => impatient.emit("unknown", (error) => resolve(error?.message)));
const stubborn = io(url, { ...options, ackTimeout: 50, retries: 2 });
await connected(stubborn);
seen.retried = await new Promise((resolve) => stubborn.emit("count", "not acknowledged", (error) => resolve(error?.message)));
seen.counted = await one.emitWithAck("counted", stubborn.id);
// A client that tries again, without a time-out, takes the first value of an acknowledgement for an error.
const plain = io(url, { ...options, retries: 2 });
const sent = [];
plain.io.engine.on("packetCreate", ({ data }) => data?.includes("echo") && sent.push(data));
plain.once("connect", () => plain.emit("echo all", null));
await connected(plain);
await plain.timeout(30000).emitWithAck("echo", "behind it");
seen.sent = sent.map((packet) => packet.replace(/^2\d+/, ""));
seen.inTime = await one.timeout(30000).emitWithAck("echo", 42);

// Two at a time are answered each on its own, and in order where the handlers are plain.
const order = [];
await Promise.all(["first", "second", "third"].map(async (text) => order.push(await one.emitWithAck("echo", text))));
seen.order = order;

// Query and auth reach the handshake, in other namespaces too.
const asked = io(`${url}/admin?b=c&d=e%26f`, { ...options, auth: (cb) => cb({ password: "open sesame", é: 1 }) });
await connected(asked);
seen.handshake = await asked.emitWithAck("handshake");
const root = io(url, { ...options, query: { "&a": "&=?a" } });
await connected(root);
seen.query = (await root.emitWithAck("handshake")).query["&a"];

// Namespaces come and go on one connection, which lives as long as one of them does.
const admin = one.io.socket("/admin", { auth: { password: "open sesame" } });
admin.connect();
await connected(admin);
seen.oneConnection = admin.io.engine.id === one.io.engine.id;
admin.disconnect();
admin.connect();
await connected(admin);
one.disconnect();
seen.alive = await admin.emitWithAck("handshake").then(({ auth }) => auth.password);
one.connect();
await connected(one);
seen.ids = [one.id === one.io.engine.id, one.id === (await one.emitWithAck("who")).socket];

// Values that are falsy, and texts of many bytes.
seen.values = await one.emitWithAck("echo", [false, 0, "", null, "てすと", "utf8 — string"]);
const before = one.id;
const closed = new Promise((resolve) => one.once("disconnect", resolve));
one.io.engine.close();
seen.reason = await closed;
await connected(one);
seen.newId = one.id !== before;
for (const socket of [one, impatient, stubborn, plain, asked, root, admin]) socket.disconnect();
console.log(JSON.stringify(seen));
