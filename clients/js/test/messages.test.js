"use strict";
// Events, calls and channels, over each transport.

const assert = require("node:assert/strict");
const { test, describe } = require("node:test");
const { NOTHING } = require("./server.js");
const { POLLING, TRANSPORTS, startServer, connect, connected, next, until } = require("./support.js");

for (const [name, transports] of Object.entries(TRANSPORTS)) {
  describe(`over ${name}`, () => {
    test("the handshake gives an id and carries auth and query", async (t) => {
      const server = await startServer(t);
      const socket = connect(t, server, { ...transports, auth: { token: "t" }, query: { room: "a b" } });
      assert.equal(socket.state, "connecting");
      assert.equal(socket.id, null);
      assert.deepEqual(await next(socket, "connect"), { id: "socket-s1" });
      assert.equal(socket.id, "socket-s1");
      assert.equal(socket.state, "open");
      assert.equal(socket.recovered, false);
      assert.deepEqual(server.handshakes, [{ authToken: null, token: "t" }]);
      assert.ok(server.requests.every((request) => request.includes("room=a+b")));
    });

    test("events travel both ways, in order", async (t) => {
      const server = await startServer(t);
      const { socket, connection } = await connected(t, server, transports);
      const seen = [];
      const all = new Promise((resolve) => {
        socket.on("number", (n) => seen.push(n) === 100 && resolve());
      });
      for (let n = 0; n < 100; n++) {
        socket.emit("number", n);
        connection.emit("number", n);
      }
      await all;
      await until(server.events, "message", () => connection.received.length === 100);
      assert.deepEqual(seen, [...Array(100).keys()]);
      assert.deepEqual(connection.received.map(({ data }) => data), [...Array(100).keys()]);
    });

    test("calls are answered", async (t) => {
      const server = await startServer(t);
      const { socket, connection } = await connected(t, server, transports);
      socket.on("double", (n) => "not this one");
      socket.on("double", async (n) => 2 * n);
      assert.deepEqual(await socket.call("echo", { ä: ["\u2028", null] }), { ä: ["\u2028", null] });
      assert.equal(await connection.call("double", 21), 42);
    });

    test("a server's error is an Error", async (t) => {
      const server = await startServer(t);
      server.handlers.login = () => {
        throw Object.assign(new Error("wrong password"), { name: "AuthError", data: { left: 2 } });
      };
      const { socket } = await connected(t, server, transports);
      const error = await socket.call("login").catch((reason) => reason);
      assert.ok(error instanceof Error);
      assert.deepEqual([error.name, error.message, error.data], ["AuthError", "wrong password", { left: 2 }]);
    });

    test("channels: subscribe, publish, unsubscribe", async (t) => {
      const server = await startServer(t);
      const { socket, connection } = await connected(t, server, transports);
      const channel = await socket.subscribe("news");
      assert.equal(channel.name, "news");
      const got = new Promise((resolve) => channel.on(resolve));
      await channel.publish({ n: 1 });
      assert.deepEqual(await got, { n: 1 });
      await channel.unsubscribe();
      assert.deepEqual([...connection.channels], []);
    });
  });
}
