"use strict";
// What the tests share: a server and clients that end with the test, and promises of a client's events.

const assert = require("node:assert/strict");
const WebSocket = require("ws");
const socketCluster = require("../socketcluster.js");
const { TestServer } = require("./server.js");

const POLLING = { transports: ["polling"] };
const WEBSOCKET = { transports: ["websocket"] };
const TRANSPORTS = { polling: POLLING, websocket: WEBSOCKET, both: {} };

/** Start a server that ends with the test, which fails when the client broke the protocol. */
async function startServer(t, options) {
  const server = await TestServer.start(options);
  t.after(async () => {
    await server.stop();
    assert.deepEqual(server.violations, []);
  });
  return server;
}

/** Connect a client that ends with the test; retries are quick. */
function connect(t, server, options = {}) {
  const given = { url: server.url, WebSocket, reconnectionDelay: 5, reconnectionDelayMax: 20, ...options };
  const socket = socketCluster.connect(given);
  t.after(() => socket.off().disconnect());
  return socket;
}

/** The next event of a client. */
function next(socket, event) {
  return new Promise((resolve) => socket.once(event, resolve));
}

async function connected(t, server, options) {
  const opened = server.next("connection");
  const socket = connect(t, server, options);
  const [connection] = await Promise.all([opened, next(socket, "connect")]);
  return { socket, connection };
}

/** Resolves when `done()` holds, looked at after every event of that kind. */
async function until(emitter, kind, done) {
  while (!done()) await new Promise((resolve) => emitter.once(kind, resolve));
}

module.exports = { POLLING, WEBSOCKET, TRANSPORTS, startServer, connect, connected, next, until, WebSocket };
