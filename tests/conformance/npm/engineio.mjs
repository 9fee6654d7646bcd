// Drives npm's engine.io-client against a cluster; prints one JSON object of what it saw.
//   node engineio.mjs URL polling|websocket|upgrade
import { Socket } from "engine.io-client";

const [url, how] = process.argv.slice(2);
const transports = how === "upgrade" ? ["polling", "websocket"] : [how];
const socket = new Socket(url, { path: "/engine.io/", transports });
socket.binaryType = "arraybuffer";
const seen = { how, got: [] };

const once = (name) => new Promise((resolve) => socket.once(name, (...args) => resolve(args)));
const messages = [];
let wake = () => {};
socket.on("message", (data) => { messages.push(data); wake(); });
const message = async () => {
  while (!messages.length) await new Promise((resolve) => { wake = resolve; });
  return messages.shift();
};

const upgraded = once("upgrade");
await once("open");
seen.opened = socket.transport.name;
for (let number = 0; number < 50; number += 1) socket.send(`${number} ünïcode ✓`);
if (how === "upgrade") await upgraded;
seen.transport = socket.transport.name;
for (let number = 50; number < 100; number += 1) socket.send(`${number} ünïcode ✓`);
for (let number = 0; number < 100; number += 1) seen.got.push(await message());

socket.send(new Uint8Array([0, 1, 2, 253, 254, 255]).buffer);
const binary = await message();
seen.binary = [...new Uint8Array(binary)];
seen.isBinary = binary instanceof ArrayBuffer;
socket.send("x".repeat(200_000));
seen.large = (await message()).length;

const closed = once("close");
socket.close();
seen.closed = (await closed)[0];
console.log(JSON.stringify(seen));
