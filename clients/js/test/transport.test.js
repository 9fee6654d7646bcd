"use strict";
// Engine.IO: payloads, heartbeat, the upgrade and what becomes of it when it fails.

const assert = require("node:assert/strict");
const { once } = require("node:events");
const { test, describe } = require("node:test");
const support = require("./support.js");

const { POLLING, WEBSOCKET, TRANSPORTS, startServer, connect, connected, next, until, upgraded } = support;

const turn = () => new Promise((resolve) => setImmediate(resolve));
const upTo = (n) => [...Array(n).keys()];

/** Both sides send numbers, one a turn of the loop, until `enough()`; gives how many each sent and what arrived. */
async function talk(server, socket, connection, enough) {
  const arrived = { atClient: [], atServer: connection.received };
  socket.on("n", (n) => arrived.atClient.push(n));
  let sent = 0;
  for (; !enough(sent); sent++) {
    socket.emit("n", sent);
    connection.emit("n", sent);
    await turn();
  }
  connection.emit("last");
  await next(socket, "last");
  await socket.call("echo");
  const numbers = arrived.atServer.filter(({ event }) => event === "n").map(({ data }) => data);
  return { sent, atClient: arrived.atClient, atServer: numbers };
}

/** A client that waits for the answer to its probe, with a GET in flight. */
async function probing(server) {
  const { made, WebSocket } = support.watchedWebSocket();
  server.faults = { ignoreProbe: true };
  const probe = server.next("probe");
  const { socket, connection } = await connected(server, { WebSocket });
  await probe;
  await until(server.events, "get", () => connection.hasGet);
  server.faults = {};
  return { socket, connection, webSocket: made[0] };
}

async function answerProbe(connection, webSocket) {
  const arrived = once(webSocket, "message");
  connection.answerProbe();
  await arrived;
}

describe("polling", () => {
  test("what is emitted in one go is posted at once, in order", async (t) => {
    const server = await startServer(t);
    const { socket } = await connected(server, POLLING);
    const before = server.posts.length;
    for (const n of upTo(3)) socket.emit("n", n);
    await socket.call("echo");
    const packets = server.posts[before].split("\x1e").map((packet) => JSON.parse(packet.slice(1)));
    assert.equal(server.posts.length, before + 1);
    assert.deepEqual(packets.map(({ event }) => event), ["n", "n", "n", "echo"]);
  });

  test("a payload never exceeds maxPayload bytes", async (t) => {
    const server = await startServer(t, { maxPayload: 300 });
    const { socket, connection } = await connected(server, POLLING);
    for (const n of upTo(50)) socket.emit("n", `${n} ${"€".repeat(30)}`); // in characters three would fit, in bytes two
    await socket.call("echo");
    assert.equal(connection.received.length, 51);
    assert.ok(server.posts.some((body) => body.includes("\x1e")));
  });

  test("a message over maxPayload is refused here, exactly at the limit", async (t) => {
    const server = await startServer(t, { maxPayload: 300 });
    const { socket, connection } = await connected(server, POLLING);
    const overhead = '4{"event":"n","data":""}'.length;
    socket.emit("n", "x".repeat(300 - overhead));
    const error = next(socket, "error");
    socket.emit("n", "x".repeat(301 - overhead));
    assert.equal((await error).name, "MessageTooLargeError");
    await assert.rejects(socket.call("echo", "€".repeat(100)), { name: "MessageTooLargeError" });
    await socket.call("echo");
    assert.deepEqual(connection.received.map(({ event }) => event), ["n", "echo"]);
  });
});

for (const [name, transports] of Object.entries(TRANSPORTS)) {
  test(`pings are answered over ${name}`, async (t) => {
    const server = await startServer(t);
    const { socket, connection } = await connected(server, transports);
    if (name === "both") await upgraded(socket);
    for (let n = 0; n < 3; n++) {
      const pong = server.next("pong");
      connection.packet("2");
      await pong;
    }
    connection.send("");
    await server.next("heartbeat");
  });
}

describe("the upgrade", () => {
  test("loses, doubles and reorders nothing, both ways busy", async (t) => {
    const server = await startServer(t);
    const { socket, connection } = await probing(server);
    let after = 0;
    const { sent, ...arrived } = await talk(server, socket, connection, (count) => {
      if (count === 100) connection.answerProbe();
      return socket.transport === "websocket" && ++after > 200;
    });
    assert.equal(socket.transport, "websocket");
    assert.equal(connection.transport, "websocket");
    assert.deepEqual(arrived, { atClient: upTo(sent), atServer: upTo(sent) });
  });

  test("waits for the GET and the POST that are in flight", async (t) => {
    const server = await startServer(t);
    const { socket, connection, webSocket } = await probing(server);
    let release;
    server.faults = { holdGet: true, holdPost: new Promise((resolve) => (release = resolve)) };
    for (const n of upTo(5)) connection.emit("n", n); // answers the GET that is held
    socket.emit("n", 0); // the POST that is held
    await until(server.events, "body", () => server.posts.at(-1).includes('"n"'));
    const seen = [];
    socket.on("n", (n) => seen.push(n));
    await answerProbe(connection, webSocket);
    for (const n of [1, 2, 3]) socket.emit("n", n); // wait for the upgrade
    await turn();
    assert.equal(socket.transport, "polling");
    server.faults = {};
    connection.release();
    await turn();
    assert.equal(socket.transport, "polling");
    release();
    assert.equal(await next(socket, "upgrade"), "websocket");
    await socket.call("echo");
    assert.deepEqual(seen, upTo(5));
    assert.deepEqual(connection.received.map(({ data }) => data), [0, 1, 2, 3, undefined]);
    assert.equal(server.posts.filter((body) => body.includes('"n"')).length, 1);
  });

  for (const fault of ["refuseWebSocket", "wrongProbe", "ignoreProbe"]) {
    test(`polling goes on after ${fault}`, async (t) => {
      const server = await startServer(t);
      server.faults[fault] = true;
      const { made, WebSocket } = support.watchedWebSocket();
      const connectTimeout = fault === "ignoreProbe" ? 1000 : 10000;
      const { socket, connection } = await connected(server, { WebSocket, connectTimeout });
      socket.on("upgrade", () => assert.fail("upgraded"));
      socket.on("disconnect", () => assert.fail("disconnected"));
      let after = 0;
      const over = () => made.length && made[0].readyState === WebSocket.CLOSED && ++after > 50;
      const { sent, ...arrived } = await talk(server, socket, connection, over);
      assert.equal(socket.transport, "polling");
      assert.equal(made.length, 1);
      assert.deepEqual(arrived, { atClient: upTo(sent), atServer: upTo(sent) });
    });
  }

  test("a probe that dies while polling is paused loses nothing", async (t) => {
    const server = await startServer(t);
    const { socket, connection, webSocket } = await probing(server);
    server.faults = { holdGet: true };
    await answerProbe(connection, webSocket);
    socket.emit("n", 1);
    const died = once(webSocket, "close");
    connection.dropProbe();
    await died;
    connection.emit("n", 2);
    const got = next(socket, "n");
    server.faults = {};
    connection.release();
    assert.equal(await got, 2);
    assert.equal(await socket.call("echo", 3), 3);
    assert.deepEqual(connection.received.map(({ data }) => data), [1, 3]);
    assert.equal(socket.transport, "polling");
  });

  test("isn't tried when the server does not offer it, or there is no WebSocket", async (t) => {
    const server = await startServer(t, { upgrades: [] });
    const other = await startServer(t);
    await connected(server);
    await connected(other, { WebSocket: null });
    assert.ok(![...server.requests, ...other.requests].some((request) => request.startsWith("UPGRADE")));
  });

  test("isn't fatal when the page may not open WebSockets", async (t) => {
    const server = await startServer(t);
    class Forbidden {
      constructor() {
        throw new Error("SecurityError");
      }
    }
    const { socket } = await connected(server, { WebSocket: Forbidden });
    assert.equal(await socket.call("echo", 1), 1);
  });

  test("disconnect() while it is under way is clean", async (t) => {
    const server = await startServer(t);
    server.faults.ignoreProbe = true;
    const probing = server.next("probe");
    const { socket } = await connected(server);
    const connection = await probing;
    const ended = server.next("end");
    socket.emit("bye");
    socket.disconnect();
    await ended;
    assert.deepEqual(connection.received.map(({ event }) => event), ["bye"]);
  });
});

describe("WebSocket first", () => {
  test("alone, nothing is polled", async (t) => {
    const server = await startServer(t);
    const { socket } = await connected(server, WEBSOCKET);
    assert.equal(socket.transport, "websocket");
    assert.equal(server.requests.length, 1);
  });

  test("before polling: polling serves when no WebSocket opens", async (t) => {
    const server = await startServer(t);
    server.faults.refuseWebSocket = true;
    const { socket } = await connected(server, { transports: ["websocket", "polling"] });
    assert.equal(socket.transport, "polling");
    assert.match(server.requests[0], /^UPGRADE/);
  });
});

test("a server that does not speak Engine.IO is an error that shows what it said", async (t) => {
  const server = await startServer(t);
  const socket = connect(server, { path: "/elsewhere/", reconnection: false });
  const error = await next(socket, "error");
  assert.deepEqual([error.name, /404/.test(error.message)], ["ConnectError", true]);
  assert.equal(socket.state, "closed");
  const page = connect(server, { ...POLLING, fetch: async () => new Response("<html>"), reconnection: false });
  assert.match((await next(page, "error")).message, /^GET was answered 200: <html>/);
  const empty = connect(server, { ...POLLING, fetch: async () => new Response(""), reconnection: false });
  assert.equal((await next(empty, "error")).message, "GET was answered 200: ");
  for (const open of ["0", "0null", "0{}", '0{"sid":"x"}', "1"]) {
    const odd = connect(server, { ...POLLING, fetch: async () => new Response(open), reconnection: false });
    assert.equal((await next(odd, "error")).message, `not Engine.IO: ${open.replace(/^0/, "")}`);
  }
});
