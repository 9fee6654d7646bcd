// Drives npm's socket.io-client against a cluster; prints one JSON object of what it saw.
//   node socketio.mjs URL polling|websocket|upgrade
import { io } from "socket.io-client";

const [url, how] = process.argv.slice(2);
const transports = how === "upgrade" ? ["polling", "websocket"] : [how];
const options = { transports, forceNew: true, reconnectionDelay: 100 };
const seen = { how };
const inbox = (socket, event) => {
  const waiting = [];
  let wake = () => {};
  socket.on(event, (...args) => { waiting.push(args); wake(); });
  return {
    async next() {
      while (!waiting.length) await new Promise((resolve) => { wake = resolve; });
      return waiting.shift();
    },
    get size() { return waiting.length; },
  };
};
const connected = (socket) => new Promise((resolve, reject) => {
  socket.once("connect", resolve);
  socket.once("connect_error", reject);
});

const one = io(url, options);
const other = io(url, options);
const greeting = inbox(one, "greet").next();
await Promise.all([connected(one), connected(other)]);
seen.greeting = await greeting;
if (how === "upgrade") {
  while (one.io.engine.transport.name !== "websocket") {
    await new Promise((resolve) => one.io.engine.once("upgrade", resolve));
  }
}
seen.transport = one.io.engine.transport.name;

// Acknowledgements, both ways, with time-outs.
seen.echo = await one.emitWithAck("echo", { text: "ünïcode ✓", list: [1, 2.5, null, true] });
seen.several = await new Promise((resolve) => one.emit("several", 1, 2, (...args) => resolve(args)));
seen.failed = await one.emitWithAck("fail");
seen.refused = await one.emitWithAck("refuse");
seen.nobody = await one.timeout(200).emitWithAck("there is no such handler").catch((error) => error.message);
seen.authenticated = await one.emitWithAck("authenticate", { token: 1 });
seen.placeholder = await one.emitWithAck("echo", { _placeholder: true, num: 7 });
seen.reserved = await one.emitWithAck("emit reserved", "disconnect");
one.on("question", (question, answer) => answer(`${question}? yes`));
seen.answer = await one.emitWithAck("ask me", "really");
seen.timeout = await one.timeout(50).emitWithAck("slow").catch((error) => error.message);

// Binary, in events and acknowledgements.
const bytes = Buffer.from([0, 1, 2, 253, 254, 255]);
const back = await one.emitWithAck("echo", { a: bytes, list: [bytes, "text"], n: 1 });
seen.binary = [[...back.a], [...back.list[0]], back.list[1], back.n];
one.send(bytes);
seen.message = [...(await inbox(one, "message").next())[0]];

// Rooms, broadcasts, over both workers.
const room = [inbox(one, "room"), inbox(other, "room")];
const everybody = [inbox(one, "everybody"), inbox(other, "everybody")];
await one.emitWithAck("join", "lobby");
await other.emitWithAck("join", "lobby");
seen.rooms = await one.emitWithAck("rooms");
await one.emitWithAck("to room", "lobby", { hello: "all", bytes });
const heard = await Promise.all(room.map((box) => box.next()));
seen.room = heard.map(([data]) => [data.hello, [...data.bytes]]);
await one.emitWithAck("to others in room", "lobby", "others");
seen.others = await room[1].next();
await one.emitWithAck("to everybody else", "else");
seen.everybody = await everybody[1].next();
await other.emitWithAck("leave", "lobby");
await one.emitWithAck("to everybody but room", "lobby", "not in the lobby");
seen.excepted = await everybody[1].next();
await one.emitWithAck("to room", "lobby", "only one");
seen.onlyOne = await room[0].next();
seen.unwanted = [room[1].size, everybody[0].size];
seen.last = [await one.emitWithAck("several", 3, 4), await one.emitWithAck("last")];
const maybe = inbox(one, "maybe");
await one.emitWithAck("volatile", "now");
seen.volatile = how === "polling" ? ["now"] : await maybe.next();

// Namespaces, with middleware.
const stranger = io(`${url}/admin`, { ...options, auth: { password: "wrong" } });
seen.stranger = await connected(stranger).catch((error) => [error.message, error.data]);
stranger.disconnect();
const admin = io(`${url}/admin`, { ...options, auth: { password: "open sesame" } });
const welcome = inbox(admin, "welcome").next();
await connected(admin);
seen.welcome = await welcome;
const shouted = inbox(admin, "heard").next();
admin.emit("shout", "loud");
seen.shouted = await shouted;
const nowhere = io(`${url}/there-is-no-such-namespace`, options);
seen.nowhere = await connected(nowhere).catch((error) => error.message);
nowhere.disconnect();

// Ends.
const ended = new Promise((resolve) => one.once("disconnect", resolve));
one.emit("disconnect me", 4321);
seen.ended = await ended;
seen.active = one.active;
one.connect();
await connected(one);
seen.again = (await one.emitWithAck("echo", "again"));
for (const socket of [one, other, admin]) socket.disconnect();
console.log(JSON.stringify(seen));
