"use strict";
// What a client does when its connection ends, and what it leaves behind.

const assert = require("node:assert/strict");
const { spawn } = require("node:child_process");
const { once } = require("node:events");
const path = require("node:path");
const { test, describe } = require("node:test");
const { NOTHING, TestServer } = require("./server.js");
const { POLLING, WEBSOCKET, TRANSPORTS, startServer, connect, connected, next, until } = require("./support.js");

const NEVER = { reconnectionDelay: 1e6, reconnectionDelayMax: 1e6 };
const LEAVING = path.join(__dirname, "leaving.js");
const upTo = (n) => [...Array(n).keys()];

function record(socket) {
  const log = [];
  for (const event of ["connect", "disconnect", "reconnecting", "error"]) socket.on(event, () => log.push(event));
  return log;
}

for (const [name, transports] of Object.entries(TRANSPORTS)) {
  describe(`over ${name}`, () => {
    test("a lost connection is made again", async (t) => {
      const server = await startServer(t);
      const { socket, connection } = await connected(server, transports);
      const log = record(socket);
      const lost = next(socket, "disconnect");
      connection.drop();
      const { code, willReconnect } = await lost;
      assert.deepEqual([code, willReconnect, socket.state, socket.id], [1006, true, "connecting", null]);
      await next(socket, "connect");
      assert.equal(socket.id, "socket-s2");
      assert.deepEqual(log, ["disconnect", "reconnecting", "connect"]);
    });

    test("silence counts as loss", async (t) => {
      const server = await startServer(t, { pingInterval: 900, pingTimeout: 100 });
      const { socket } = await connected(server, transports);
      const { reason } = await next(socket, "disconnect");
      assert.match(reason, /nothing heard for 1000 ms/);
      await next(socket, "connect");
    });

    test("emits and calls wait for the connection, in order; what was sent is not repeated", async (t) => {
      const server = await startServer(t);
      const { socket, connection } = await connected(server, transports);
      const sent = socket.call("never");
      await until(server.events, "message", () => connection.received.length === 1);
      const again = server.next("connection");
      connection.drop();
      await assert.rejects(sent, { name: "SocketClosedError" });
      for (const n of upTo(20)) socket.emit("n", n);
      assert.equal(await socket.call("echo", "queued"), "queued");
      const second = await again;
      assert.deepEqual(second.received.map(({ data }) => data), [...upTo(20), "queued"]);
    });

    test("disconnect() sends what was emitted, tells the server and stays closed", async (t) => {
      const server = await startServer(t);
      const { socket, connection } = await connected(server, transports);
      const log = record(socket);
      const told = next(socket, "disconnect");
      const ended = server.next("end");
      const call = socket.call("never");
      socket.emit("bye");
      socket.disconnect();
      assert.deepEqual(await told, { code: 1000, reason: "disconnect() was called", willReconnect: false });
      await assert.rejects(call, { name: "SocketClosedError" });
      assert.equal(await ended, connection);
      assert.deepEqual(connection.received.map(({ event }) => event), ["never", "bye"]);
      assert.deepEqual([socket.state, socket.id, socket.transport, log], ["closed", null, null, ["disconnect"]]);
      assert.equal(socket.disconnect(), socket);
      await next(socket.connect(), "connect");
      assert.equal(socket.id, "socket-s2");
    });

    test("a process ends when its clients are disconnected", { timeout: 20000 }, async (t) => {
      const server = await startServer(t);
      const child = spawn(process.execPath, [LEAVING, server.url, JSON.stringify(transports)]);
      t.after(() => child.kill());
      const output = (await child.stdout.toArray()).join("");
      assert.equal(output, "refused\nconnected\n");
      assert.equal(child.exitCode ?? (await once(child, "exit"))[0], 0);
    });
  });
}

describe("back-off", () => {
  test("doubles up to its maximum, without jitter exactly", async (t) => {
    const server = await startServer(t);
    server.faults.refuse = 503;
    const options = { reconnectionDelay: 2, reconnectionDelayMax: 20, randomizationFactor: 0 };
    const socket = connect(server, options);
    const seen = [];
    await new Promise((resolve) => {
      socket.on("reconnecting", (one) => seen.push(one) === 6 && resolve());
    });
    assert.deepEqual(seen.map(({ attempt }) => attempt), [1, 2, 3, 4, 5, 6]);
    assert.deepEqual(seen.map(({ delay }) => delay), [2, 4, 8, 16, 20, 20]);
    server.faults = {};
    const connection = server.next("connection");
    await next(socket, "connect");
    (await connection).drop();
    assert.deepEqual(await next(socket, "reconnecting"), { attempt: 1, delay: 2 });
  });

  test("is spread by the randomization factor, and never over the maximum", async (t) => {
    const server = await startServer(t);
    server.faults.refuse = 503;
    const options = { ...NEVER, reconnectionDelay: 1000, reconnectionDelayMax: 3000, randomizationFactor: 0.5 };
    const delays = { 1: [], 2: [], 3: [] };
    for (let client = 0; client < 20; client++) {
      const socket = connect(server, options);
      for (const attempt of [1, 2, 3]) {
        delays[attempt].push((await next(socket, "reconnecting")).delay);
        socket.connect(); // does not wait for it
      }
    }
    for (const [attempt, low, high] of [[1, 500, 1500], [2, 1000, 3000], [3, 1000, 3000]]) {
      assert.ok(delays[attempt].every((delay) => delay >= low && delay <= high), String(delays[attempt]));
      assert.ok(new Set(delays[attempt]).size > 1);
    }
  });

  for (const code of [1001, 4003]) {
    test(`grows while a server ends with ${code} what it has just opened`, async (t) => {
      const server = await startServer(t);
      const socket = connect(server, { ...WEBSOCKET, reconnectionDelay: 2, reconnectionDelayMax: 16, randomizationFactor: 0 });
      server.events.on("connection", (connection) => setImmediate(() => connection.disconnect(code, "no room")));
      const delays = [];
      await new Promise((resolve) => {
        socket.on("reconnecting", ({ delay }) => delays.push(delay) === 5 && resolve());
      });
      socket.disconnect();
      assert.deepEqual(delays.slice(1), [4, 8, 16, 16]);
    });
  }

  for (const code of [1001, 1012]) {
    test(`is short when the server closes with ${code}`, async (t) => {
      const server = await startServer(t);
      const { socket, connection } = await connected(server, NEVER);
      const told = next(socket, "disconnect");
      const retry = next(socket, "reconnecting");
      connection.disconnect(code, "moving");
      assert.deepEqual(await told, { code, reason: "moving", willReconnect: true });
      assert.ok((await retry).delay <= 200);
      await next(socket, "connect");
    });
  }

  test("is the usual one with another code", async (t) => {
    const server = await startServer(t);
    const { socket, connection } = await connected(server, NEVER);
    connection.disconnect(4008, "too slow");
    assert.ok((await next(socket, "reconnecting")).delay >= 3e5);
    await next(socket.connect(), "connect");
  });
});

test("back-off is the usual one, too, when the server goes away before the connection is open", async (t) => {
  const server = await startServer(t);
  server.handlers["#handshake"] = (data, connection) => {
    connection.disconnect(1012, "moving");
    return NOTHING;
  };
  const socket = connect(server, { ...NEVER, ...WEBSOCKET });
  assert.ok((await next(socket, "reconnecting")).delay >= 3e5);
});

describe("no reconnection", () => {
  for (const code of [1000, 4500]) {
    for (const [name, transports] of Object.entries({ POLLING, WEBSOCKET })) {
      test(`after the server's close code ${code} over ${name}`, async (t) => {
        const server = await startServer(t);
        const { socket, connection } = await connected(server, transports);
        const told = next(socket, "disconnect");
        connection.disconnect(code, "done");
        assert.deepEqual(await told, { code, reason: "done", willReconnect: false });
        assert.equal(socket.state, "closed");
      });
    }
  }

  test("with reconnection: false; what waits is rejected", async (t) => {
    const server = await startServer(t);
    server.faults.refuse = 503;
    const socket = connect(server, { reconnection: false });
    const call = socket.call("echo");
    const channel = socket.subscribe("c");
    const failed = next(socket, "error");
    await assert.rejects(call, { name: "SocketClosedError" });
    await assert.rejects(channel, { name: "SocketClosedError" });
    assert.match((await failed).message, /503: refused/);
    assert.equal(socket.state, "closed");
  });

  test("when a disconnect listener says so", async (t) => {
    const server = await startServer(t);
    const { socket, connection } = await connected(server);
    socket.on("disconnect", () => socket.disconnect());
    socket.on("reconnecting", () => assert.fail("reconnecting"));
    const lost = next(socket, "disconnect");
    connection.drop();
    await lost;
    assert.equal(socket.state, "closed");
  });
});

describe("a connection", () => {
  test("with an sid that the server does not know is made again", async (t) => {
    const server = await startServer(t);
    const { socket, connection } = await connected(server, POLLING);
    server.sessions.delete(connection.sid);
    socket.emit("x");
    assert.match((await next(socket, "disconnect")).reason, /400.*"code":1/);
    await next(socket, "connect");
    assert.equal(socket.id, "socket-s2");
  });

  test("whose handshake is not answered is given up", async (t) => {
    const server = await startServer(t);
    const handshake = server.handlers["#handshake"];
    server.handlers["#handshake"] = () => NOTHING;
    const socket = connect(server, { ...POLLING, connectTimeout: 100 });
    assert.match((await next(socket, "error")).message, /no connection in 100 ms/);
    assert.equal(socket.state, "connecting");
    server.handlers["#handshake"] = handshake;
    await next(socket, "connect");
  });

  test("whose handshake is refused is an error", async (t) => {
    const server = await startServer(t);
    server.handlers["#handshake"] = () => {
      throw new Error("who are you?");
    };
    const socket = connect(server, NEVER);
    const error = await next(socket, "error");
    assert.deepEqual([error.name, error.message], ["ConnectError", "who are you?"]);
  });

  test("that is still being made can be given up", async (t) => {
    const server = await startServer(t);
    const socket = connect(server);
    socket.on("error", assert.fail).on("disconnect", assert.fail);
    const call = socket.call("echo");
    socket.disconnect();
    await assert.rejects(call, { name: "SocketClosedError" });
    assert.equal(socket.state, "closed");
  });
});

describe("the queue", () => {
  test("is bounded; an error tells that the oldest was dropped", async (t) => {
    const server = await startServer(t);
    const socket = connect(server, POLLING);
    const errors = [];
    socket.on("error", ({ name }) => errors.push(name));
    const first = socket.call("echo", "dropped");
    first.catch(() => {});
    for (const n of upTo(1001)) socket.emit("n", n);
    await assert.rejects(first, { name: "QueueFullError" });
    assert.deepEqual(errors, ["QueueFullError"]); // of the emit
    await next(socket, "connect");
    const [connection] = server.connections;
    assert.equal(await socket.call("echo", "last"), "last");
    assert.deepEqual(connection.received.map(({ data }) => data), [...upTo(1001).slice(1), "last"]);
  });

  test("a call whose time runs out while it waits is never sent", async (t) => {
    const server = await startServer(t);
    const { socket, connection } = await connected(server, { ...NEVER, ackTimeout: 100 });
    const again = server.next("connection");
    connection.drop();
    await next(socket, "disconnect");
    await assert.rejects(socket.call("late", 1, { timeout: 5 }), { name: "TimeoutError" });
    await assert.rejects(socket.subscribe("c"), { name: "TimeoutError" });
    socket.connect();
    await socket.call("echo", 1, { timeout: 10000 });
    assert.deepEqual((await again).received.map(({ event }) => event), ["echo"]);
  });

  test("an answer to a call of a lost connection is not sent over the next", async (t) => {
    const server = await startServer(t);
    const { socket, connection } = await connected(server);
    let answer;
    const asked = new Promise((resolve) => {
      socket.on("ask", () => {
        resolve();
        return new Promise((settle) => (answer = settle));
      });
    });
    connection.call("ask");
    await asked;
    const again = server.next("connection");
    connection.drop();
    const second = await again;
    answer("too late"); // the server would not know what this answers, and fail
    await socket.call("echo");
    assert.deepEqual(second.received.map(({ event }) => event), ["echo"]);
  });
});

test("a server that comes back at the same address is found", async (t) => {
  const server = await TestServer.start();
  const { socket } = await connected(Object.assign(server, { clients: [] }));
  t.after(() => socket.off().disconnect());
  const tried = next(socket, "error");
  await server.stop();
  await tried;
  const again = await startServer(t, { port: Number(new URL(server.url).port) });
  await next(socket, "connect");
  assert.equal(again.handshakes.length, 1);
});
