"use strict";
// How the client is loaded, what its options are, and what it makes of a browser.

const assert = require("node:assert/strict");
const { spawn, spawnSync } = require("node:child_process");
const { readFileSync } = require("node:fs");
const { once } = require("node:events");
const path = require("node:path");
const { test, describe } = require("node:test");
const vm = require("node:vm");
const { gzipSync } = require("node:zlib");
const { SOURCE, WebSocket, loadInPage, startServer, connect, next } = require("./support.js");
const socketCluster = require("../socketcluster.js");

describe("a script tag", () => {
  test("sets the global, and the page's origin is the default url", async (t) => {
    const server = await startServer(t);
    const page = loadInPage(`${server.url}/app/index.html?x=1#y`);
    const socket = page.socketCluster.connect();
    server.clients.push(socket);
    assert.deepEqual(await next(socket, "connect").then(({ id }) => id), "socket-s1");
    assert.equal(await socket.call("echo", 1), 1);
  });

  test("fetch is called as browsers want it, with cookies of its own origin or as it is told", async (t) => {
    const server = await startServer(t);
    const calls = [];
    function strictFetch(url, options) {
      assert.equal(this, undefined); // a browser would throw "Illegal invocation"
      calls.push(options);
      return fetch(url, options);
    }
    const page = loadInPage(server.url, { fetch: strictFetch });
    for (const credentials of [undefined, "include"]) {
      const socket = page.socketCluster.connect({ credentials });
      server.clients.push(socket);
      await next(socket, "connect");
      assert.ok(calls.length > 1 && calls.every((one) => one.credentials === (credentials ?? "same-origin")));
      socket.disconnect();
      calls.length = 0;
    }
  });

  test("the browser's online event ends the wait for a reconnection", async (t) => {
    const server = await startServer(t);
    server.faults.refuse = 503;
    const page = loadInPage(server.url);
    const socket = page.socketCluster.connect({ reconnectionDelay: 1e6, reconnectionDelayMax: 1e6 });
    server.clients.push(socket);
    await next(socket, "reconnecting");
    server.faults = {};
    page.happen("online");
    await next(socket, "connect");
    assert.deepEqual(page.listened, ["online", "offline", "pagehide", "pageshow", "visibilitychange"]);
    socket.disconnect();
    assert.deepEqual(page.listened, []);
  });

  test("a page without an origin needs a url", () => {
    const page = loadInPage("file:///home/me/page.html");
    assert.throws(() => page.socketCluster.connect(), { name: "TypeError", message: /url is needed/ });
  });

  test("as a module of a browser it exports what the script sets", async () => {
    // a browser runs both files as modules: the script finds no `module`, and has no exports
    const page = loadInPage("http://127.0.0.1/");
    const wrapper = readFileSync(path.join(__dirname, "../socketcluster.mjs"), "utf8");
    assert.match(wrapper, /^import \* as loaded from "\.\/socketcluster\.js";$/m);
    const body = wrapper.replace(/^import .*$/m, "const loaded = {};").replace(/export (default|const)/g, (all, kind) =>
      kind === "default" ? "this.byDefault =" : "var");
    vm.runInContext(body, page);
    assert.equal(page.connect, page.socketCluster.connect);
    assert.equal(page.byDefault, page.socketCluster);
  });
});

test("the script takes no more than 12 KB on its way", () => {
  assert.ok(gzipSync(readFileSync(SOURCE)).length <= 12 * 1024);
});

test("Node imports and requires the same thing, and sets no global", async () => {
  const module = await import("../socketcluster.mjs");
  assert.equal(module.default, socketCluster);
  assert.equal(module.connect, socketCluster.connect);
  assert.equal(globalThis.socketCluster, undefined);
});

test("the package's name resolves both ways", () => {
  const script = `
    const { connect } = require("socketcluster-browser");
    import("socketcluster-browser").then((module) => console.log(module.connect === connect));`;
  const { stdout, stderr } = spawnSync(process.execPath, ["-e", script], { cwd: path.join(__dirname, ".."), encoding: "utf8" });
  assert.equal(stdout, "true\n", stderr);
});

describe("options", () => {
  const url = "http://127.0.0.1:9";
  const cases = [
    [{ url, reconection: false }, /unknown option "reconection"; there are url, path, .* reconnection, .* WebSocket, fetch$/],
    [{ url, toString: 1 }, /unknown option "toString"/],
    [{ url, ackTimeout: "1" }, /ackTimeout must be a number/],
    [{ url, reconnectionDelay: -1 }, /reconnectionDelay must be a number/],
    [{ url, connectTimeout: Infinity }, /connectTimeout must be a number/],
    [{ url, randomizationFactor: 1.1 }, /randomizationFactor must be a number from 0 to 1$/],
    [{ url, credentials: true }, /credentials must be omit, same-origin or include/],
    [{ url, transports: [] }, /transports/],
    [{ url, transports: ["carrier pigeon"] }, /transports/],
    [{ url, transports: ["websocket"], WebSocket: null }, /no WebSocket here/],
    [{ url, fetch: null }, /no fetch here/],
    [{ url: "ftp://127.0.0.1" }, /url must begin with http or ws/],
    [{ url: "nonsense" }, /Invalid URL/],
    [{}, /url is needed/],
  ];
  for (const [options, message] of cases) {
    test(`${message} is what ${JSON.stringify(options)} gives`, () => {
      assert.throws(() => socketCluster.connect(options), { name: "TypeError", message });
    });
  }

  test("an address may come first", async (t) => {
    const server = await startServer(t);
    for (const address of [server.url, new URL(server.url)]) {
      const socket = socketCluster.connect(address, { WebSocket });
      server.clients.push(socket);
      await next(socket, "connect");
    }
    assert.throws(() => socketCluster.connect("nowhere"), { name: "TypeError", message: /Invalid URL/ });
  });

  test("ws: means http: for polling, and undefined means the default", async (t) => {
    const server = await startServer(t);
    const socket = connect(server, { url: server.url.replace("http", "ws"), ackTimeout: undefined, auth: undefined });
    await next(socket, "connect");
    assert.match(server.requests[0], /^GET \/socketcluster\/engine\//);
  });
});

test("an error that nobody listens for is an uncaught one, as anywhere else", async (t) => {
  const server = await startServer(t);
  const script = `
    const socket = require(${JSON.stringify(SOURCE)}).connect({ url: ${JSON.stringify(server.url)} });
    process.on("uncaughtException", (error) => { console.log(error.message); socket.disconnect(); });
    socket.on("connect", () => { throw new Error("a listener's fault"); });`;
  const child = spawn(process.execPath, ["-e", script]);
  t.after(() => child.kill());
  const output = (await child.stdout.toArray()).join("");
  assert.equal(output, "a listener's fault\n");
  assert.equal(child.exitCode ?? (await once(child, "exit"))[0], 0);
});

test("what nobody asked for the answer of is no unhandled rejection when the connection ends", async (t) => {
  const server = await startServer(t);
  const script = `
    const socket = require(${JSON.stringify(SOURCE)}).connect(${JSON.stringify(server.url)}, { transports: ["polling"] });
    socket.once("connect", async () => {
      for (const channel of ["a", "b"]) (await socket.subscribe(channel)).publish(1);
      socket.call("never");
      socket.publish("a", 2);
      socket.subscribe("c");
      socket.unsubscribe("a");
      socket.deauthenticate();
      socket.disconnect();
      const asked = socket.call("never");
      socket.connect().once("connect", async () => {
        setTimeout(() => socket.disconnect(), 50);
        try { await asked; } catch ({ name }) { console.log(name); }
      });
    });
    process.on("unhandledRejection", (error) => console.log("unhandled", error));`;
  const child = spawn(process.execPath, ["-e", script]);
  t.after(() => child.kill());
  const output = (await child.stdout.toArray()).join("");
  assert.equal(output, "SocketClosedError\n");
});
