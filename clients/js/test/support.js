"use strict";
// What the tests share: a server and clients that end with the test, and promises of a client's events.

const assert = require("node:assert/strict");
const { readFileSync } = require("node:fs");
const path = require("node:path");
const vm = require("node:vm");
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

/** Connect a client that ends with the test; retries are quick. `client` is another loading of the script. */
function connect(server, { client = socketCluster, ...options } = {}) {
  const given = { url: server.url, WebSocket, reconnectionDelay: 5, reconnectionDelayMax: 20, ...options };
  const socket = client.connect(given);
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

const SOURCE = path.join(__dirname, "../socketcluster.js");

/** Load the client with other times (names of its constants): a test does not wait for those of users. */
function withTimes(times) {
  let source = readFileSync(SOURCE, "utf8");
  for (const [name, value] of Object.entries(times)) {
    const line = new RegExp(`const ${name} = \\d+;`);
    assert.match(source, line);
    source = source.replace(line, `const ${name} = ${value};`);
  }
  const module = { exports: {} };
  vm.runInThisContext(`(function (module) {${source}})`, { filename: SOURCE })(module);
  return module.exports;
}

/** Run the script as a script tag does, in a page at that address. */
function loadInPage(href, more = {}) {
  const page = vm.createContext({
    location: new URL(href),
    ...{ fetch, WebSocket, URL, AbortController, TextEncoder, performance, queueMicrotask, setTimeout, clearTimeout },
    ...more,
  });
  const events = new EventTarget();
  page.listened = [];
  page.addEventListener = (type, listener) => {
    page.listened.push(type);
    events.addEventListener(type, listener);
  };
  page.removeEventListener = (type, listener) => {
    page.listened.splice(page.listened.indexOf(type), 1);
    events.removeEventListener(type, listener);
  };
  page.happen = (type, properties) => events.dispatchEvent(Object.assign(new Event(type), properties));
  vm.runInContext(readFileSync(SOURCE, "utf8"), page, { filename: SOURCE });
  return page;
}

/** Resolves when the client has moved to the WebSocket. */
async function upgraded(socket) {
  if (socket.transport !== "websocket") await next(socket, "upgrade");
}

module.exports = {
  ...{ POLLING, WEBSOCKET, TRANSPORTS, SOURCE, WebSocket, startServer, connect, connected, next, until, upgraded },
  ...{ loadInPage, watchedWebSocket, withTimes },
};
