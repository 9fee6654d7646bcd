"use strict";
// What the tests share: a server and clients that end with the test, and promises of a client's events.

const assert = require("node:assert/strict");
const WebSocket = require("ws");
const socketCluster = require("../socketcluster.js");
const { TestServer, until } = require("./server.js");

const POLLING = { transports: ["polling"] };
const WEBSOCKET = { transports: ["websocket"] };
const TRANSPORTS = { polling: POLLING, websocket: WEBSOCKET, both: {} };

/** Start a server that ends with the test, which fails when the client broke the protocol. */
async function startServer(t, options) {
  const server = await TestServer.start(options);
  server.clients = [];
  t.after(async () => {
    for (const socket of server.clients) socket.off().disconnect();
    await server.stop();
    assert.deepEqual(server.violations, []);
  });
  return server;
}

/** Connect a client that ends with the test; retries are quick. */
function connect(server, options = {}) {
  const given = { url: server.url, WebSocket, reconnectionDelay: 5, reconnectionDelayMax: 20, ...options };
  const socket = socketCluster.connect(given);
  server.clients.push(socket);
  return socket;
}

/** The next event of a client. */
function next(socket, event) {
  return new Promise((resolve) => socket.once(event, resolve));
}

async function connected(server, options) {
  const opened = server.next("connection");
  const socket = connect(server, options);
  const [connection] = await Promise.all([opened, next(socket, "connect")]);
  return { socket, connection };
}

/** A WebSocket class, and the list of those that the client made of it. */
function watchedWebSocket() {
  const made = [];
  class Watched extends WebSocket {
    constructor(url) {
      super(url);
      made.push(this);
    }
  }
  return { made, WebSocket: Watched };
}

/** Resolves when the client has moved to the WebSocket. */
async function upgraded(socket) {
  if (socket.transport !== "websocket") await next(socket, "upgrade");
}

module.exports = { POLLING, WEBSOCKET, TRANSPORTS, startServer, connect, connected, next, until, upgraded, watchedWebSocket, WebSocket };
