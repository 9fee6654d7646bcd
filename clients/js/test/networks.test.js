"use strict";
// What bad networks do to a connection, and what must not come of it.

const assert = require("node:assert/strict");
const { test, describe } = require("node:test");
const support = require("./support.js");

const { POLLING, WEBSOCKET, WebSocket, startServer, connect, connected, next, until, upgraded, loadInPage, withTimes } = support;

const NEVER = { reconnectionDelay: 1e6, reconnectionDelayMax: 1e6 };
const upTo = (n) => [...Array(n).keys()];
const dataOf = (connection, name = "n") => connection.received.filter(({ event }) => event === name).map(({ data }) => data);

describe("numbered polling", () => {
  for (const [fault, method] of [["resetPost", "POST"], ["resetGet", "GET"]]) {
    test(`a ${method} whose answer is lost is sent again, and nothing runs or arrives twice`, async (t) => {
      const server = await startServer(t, { numbered: true });
      const { socket, connection } = await connected(server, POLLING);
      socket.on("disconnect", () => assert.fail("disconnect"));
      const seen = [];
      socket.on("m", (m) => seen.push(m));
      for (const n of upTo(10)) {
        server.faults = { [fault]: n % 3 };
        connection.emit("m", n);
        socket.emit("n", n);
        assert.equal(await socket.call("echo", n), n);
      }
      assert.deepEqual([seen, dataOf(connection), dataOf(connection, "echo")], [upTo(10), upTo(10), upTo(10)]);
      assert.ok(server.repeated.includes(method));
    });
  }

  for (const [fault, status] of [["portalPost", 200], ["portalGet", 200], ["portalPost", 504], ["portalGet", 503]]) {
    test(`${fault}: somebody else's ${status} is no answer`, async (t) => {
      const server = await startServer(t, { numbered: true });
      const { socket, connection } = await connected(server, POLLING);
      socket.on("disconnect", () => assert.fail("disconnect"));
      await until(server.events, "get", () => connection.hasGet);
      server.faults = { [fault]: 2, portalStatus: status };
      connection.emit("m"); // answers the poll that waits: the next one meets the portal
      assert.equal(await socket.call("echo", 1), 1);
      assert.deepEqual(dataOf(connection, "echo"), [1]);
      assert.equal(server.faults[fault], 0);
    });
  }

  test("a refusal is final", async (t) => {
    const server = await startServer(t, { numbered: true });
    const { socket, connection } = await connected(server, POLLING);
    server.sessions.delete(connection.sid);
    socket.emit("n");
    assert.match((await next(socket, "disconnect")).reason, /400.*"code":1/);
  });

  test("what does not get better ends the connection, and what may not have arrived is told", async (t) => {
    const server = await startServer(t, { numbered: true });
    const { socket } = await connected(server, { ...POLLING, ...NEVER, client: withTimes({ RETRY_TIME: 50 }) });
    server.faults = { portalPost: 1e6 };
    const told = next(socket, "error");
    socket.emit("n", 1);
    const call = socket.call("echo");
    assert.match((await next(socket, "disconnect")).reason, /POST was answered 200: <html>/);
    await assert.rejects(call, { name: "SocketClosedError" });
    const { name, message, event } = await told;
    assert.deepEqual([name, message, event], ["SocketClosedError", '"n" may not have arrived', "n"]);
  });

  test("requests have no numbers where the server does not ask for them, and are not sent again", async (t) => {
    const server = await startServer(t);
    const { socket, connection } = await connected(server, POLLING);
    server.faults = { resetPost: 1 };
    socket.emit("n", 1);
    await next(socket, "disconnect");
    await next(socket, "connect");
    assert.deepEqual(dataOf(connection), [1]);
    assert.match(server.requests[0], /seq=0/);
  });
});

describe("what was not sent", () => {
  test("by a connection that ended is sent by the next, in order and once; what may have been is told", async (t) => {
    const server = await startServer(t);
    const { socket, connection } = await connected(server, POLLING);
    server.faults = { holdPost: new Promise(() => {}) };
    const lost = [];
    socket.on("error", (error) => lost.push(error.event));
    const posted = server.next("body");
    socket.emit("in flight", 0);
    await posted;
    for (const n of upTo(5)) socket.emit("n", n);
    const call = socket.call("echo", "waits");
    const expired = socket.call("n", "expired", { timeout: 1 });
    await assert.rejects(expired, { name: "TimeoutError" });
    const waiting = socket.subscribe("c");
    server.faults = {};
    const again = server.next("connection");
    connection.drop();
    await next(socket, "disconnect");
    socket.emit("n", 5);
    const second = await again;
    assert.equal(await call, "waits");
    await waiting;
    assert.deepEqual(dataOf(second), upTo(6));
    assert.deepEqual(second.received.filter(({ event }) => event === "#subscribe").length, 1);
    assert.deepEqual([lost, dataOf(connection)], [["in flight"], []]);
  });

  test("from a WebSocket's buffer is told", async (t) => {
    const server = await startServer(t);
    let held = 0; // bytes
    class Slow extends WebSocket {
      get bufferedAmount() {
        return held;
      }
    }
    const { socket, connection } = await connected(server, { ...WEBSOCKET, WebSocket: Slow });
    const lost = [];
    socket.on("error", ({ event, name }) => lost.push(`${event} ${name}`));
    socket.emit("sent");
    await socket.call("echo");
    held = '4{"event":"two"}4{"event":"three"}'.length;
    for (const event of ["one", "two", "three"]) socket.emit(event);
    connection.drop();
    await next(socket, "disconnect");
    assert.deepEqual(lost, ["two SocketClosedError", "three SocketClosedError"]);
  });

  test("is told when the connection ends for good; nobody has to listen", async (t) => {
    const server = await startServer(t);
    server.handlers["#handshake"] = () => {
      throw Object.assign(new Error("banned"), { statusCode: 4500 });
    };
    const socket = connect(server);
    const told = [];
    socket.on("error", ({ name, event }) => told.push([name, event]));
    socket.emit("n");
    while (told.length < 2) await next(socket, "error");
    assert.deepEqual(told, [["ConnectError", undefined], ["SocketClosedError", "n"]]);
    const quiet = connect(server);
    quiet.emit("n");
    quiet.disconnect();
  });

  test("by disconnect() is told once", async (t) => {
    const server = await startServer(t);
    const { socket } = await connected(server, POLLING);
    const lost = [];
    socket.on("error", ({ event }) => lost.push(event));
    server.faults = { holdPost: new Promise(() => {}) };
    const posted = server.next("body");
    socket.emit("one");
    await posted;
    socket.emit("two");
    socket.disconnect();
    server.cut();
    while (lost.length < 2) await next(socket, "error");
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(lost, ["one", "two"]);
  });

  test("has an error of its own each", async (t) => {
    const server = await startServer(t);
    server.faults.refuse = 503;
    const socket = connect(server, NEVER);
    const all = Promise.allSettled([socket.subscribe("a"), socket.subscribe("b"), socket.call("c")]);
    socket.disconnect();
    assert.deepEqual((await all).map(({ reason }) => reason.channel), ["a", "b", undefined]);
  });
});

test("unsubscribe() is done where the server has no subscription", async (t) => {
  const server = await startServer(t);
  const { socket } = await connected(server);
  const channel = await socket.subscribe("c");
  const refuse = (name) => {
    server.handlers["#unsubscribe"] = () => {
      throw Object.assign(new Error("not so"), { name });
    };
  };
  refuse("BrokerError");
  await channel.unsubscribe();
  refuse("Other");
  await socket.subscribe("c");
  await assert.rejects(socket.unsubscribe("c"), { name: "Other" });
});

describe("listeners", () => {
  for (const how of ["disconnect()", "the server"]) {
    test(`that connect again when ${how} has ended the connection keep what they send`, async (t) => {
      const server = await startServer(t);
      const { socket, connection } = await connected(server, POLLING);
      socket.on("error", assert.fail);
      const call = new Promise((resolve, reject) => {
        socket.once("disconnect", () => {
          socket.connect();
          socket.emit("n", 1);
          socket.call("echo", 2).then(resolve, reject);
        });
      });
      if (how === "disconnect()") socket.disconnect();
      else connection.disconnect(4500, "for a moment");
      assert.equal(await call, 2);
      assert.deepEqual(dataOf(server.connections[1]), [1]);
    });
  }

  test("that emit what was not sent do so to a full queue, too", async (t) => {
    const server = await startServer(t);
    server.faults.refuse = 503;
    const socket = connect(server, NEVER);
    const names = [];
    socket.on("error", ({ name }) => names.push(name) && socket.emit("oops", name));
    await next(socket, "reconnecting");
    for (const n of upTo(1005)) socket.emit("n", n);
    // what it emits within the telling is dropped itself, so that nothing of the others' goes untold
    assert.deepEqual(names, ["ConnectError", ...upTo(6).map(() => "QueueFullError")]);
  });
});

describe("the upgrade", () => {
  test("to a WebSocket that brings nothing is given up, and not tried again", async (t) => {
    const server = await startServer(t, { numbered: true });
    server.faults.ignoreProbe = true;
    const probe = server.next("probe");
    const { socket, connection } = await connected(server, { client: withTimes({ PROOF_TIME: 50 }) });
    await probe;
    server.faults.mute = true;
    connection.answerProbe();
    await upgraded(socket);
    assert.equal((await next(socket, "disconnect")).reason, "the WebSocket brings nothing");
    server.faults = {};
    await next(socket, "connect");
    assert.equal(await socket.call("echo", 1), 1);
    assert.equal(socket.transport, "polling");
        assert.equal(server.requests.filter((request) => request.startsWith("UPGRADE")).length, 1);
  });

  test("is tried again after one cut, and not after two in a row", async (t) => {
    const server = await startServer(t, { numbered: true });
    server.faults.mute = true;
    server.events.on("upgrade", (connection) => setImmediate(() => connection.drop()));
    const socket = connect(server, {});
    const upgrades = () => server.requests.filter((request) => request.startsWith("UPGRADE")).length;
    while (socket.transport !== "polling" || upgrades() < 2 || socket.state !== "open") await next(socket, "connect");
    assert.equal(await socket.call("echo", 1), 1);
    assert.deepEqual([upgrades(), socket.transport], [2, "polling"]);
  });

  test("holds where the WebSocket brings something", async (t) => {
    const server = await startServer(t, { numbered: true });
    const { socket } = await connected(server, { client: withTimes({ PROOF_TIME: 50 }) });
    await upgraded(socket);
    socket.on("disconnect", () => assert.fail("disconnect"));
    for (let n = 0; n < 10; n++) {
      await new Promise((resolve) => setTimeout(resolve, 10));
      assert.equal(await socket.call("echo", n), n);
    }
  });
});

describe("connecting", () => {
  test("falls back where the WebSocket's constructor throws", async (t) => {
    const server = await startServer(t);
    class Forbidden {
      constructor() {
        throw new Error("by the page's policy");
      }
    }
    const socket = connect(server, { transports: ["websocket", "polling"], WebSocket: Forbidden });
    const error = next(socket, "error");
    await next(socket, "connect");
    assert.deepEqual([(await error).message, socket.transport], ["by the page's policy", "polling"]);
  });

  test("goes by the other transport where polling is blocked, and by polling only once that has worked", async (t) => {
    const server = await startServer(t);
    let isBlocked = true;
    const blocked = (...given) => (isBlocked ? Promise.reject(new TypeError("Failed to fetch")) : fetch(...given));
    const socket = connect(server, { fetch: blocked });
    const error = next(socket, "error");
    await next(socket, "connect");
    assert.deepEqual([(await error).message, socket.transport], ["Failed to fetch", "websocket"]);
    isBlocked = false;
    const other = connect(server);
    await upgraded(other);
    const before = server.requests.length;
    server.faults.refuse = 503;
    for (const connection of server.connections) connection.drop();
    socket.disconnect();
    for (let n = 0; n < 4; n++) await next(other, "reconnecting");
    const asked = server.requests.slice(before);
    assert.ok(asked.length >= 3 && asked.every((request) => request.startsWith("GET")));
  });

  for (const reason of [undefined, null, "no", new TypeError("Failed to fetch")]) {
    test(`a fetch that is rejected with ${reason} is an error`, async (t) => {
      const server = await startServer(t);
      const socket = connect(server, { ...POLLING, fetch: () => Promise.reject(reason), reconnection: false });
      const { name, message } = await next(socket, "error");
      assert.deepEqual([name, message], ["ConnectError", reason?.message ?? String(reason)]);
    });
  }

  test("may take long as long as it gets on", async (t) => {
    const server = await startServer(t);
    const handshake = server.handlers["#handshake"];
    const wait = () => new Promise((resolve) => setTimeout(resolve, 350));
    server.handlers["#handshake"] = async (...given) => {
      await wait();
      return handshake(...given);
    };
    const slow = async (...given) => {
      if (!given[0].includes("sid=")) await wait();
      return fetch(...given);
    };
    const socket = connect(server, { ...POLLING, ...NEVER, fetch: slow, connectTimeout: 600 });
    socket.on("error", assert.fail);
    await next(socket, "connect");
  });

  for (const [name, transports] of Object.entries({ POLLING, WEBSOCKET })) {
    test(`a refusal keeps its name and data, and says whether trying again has a point, over ${name}`, async (t) => {
      const server = await startServer(t);
      for (const [statusCode, willReconnect] of [[4008, true], [4500, false]]) {
        server.handlers["#handshake"] = () => {
          throw Object.assign(new Error("not for you"), { name: "Gate", data: { hint: "say please" }, statusCode });
        };
        const socket = connect(server, { ...NEVER, ...transports });
        const error = await next(socket, "error");
        const told = [error.name, error.message, error.code, error.willReconnect];
        assert.deepEqual(told, ["ConnectError", "not for you", statusCode, willReconnect]);
        const { cause } = error;
        assert.ok(cause instanceof Error);
        assert.deepEqual([cause.name, cause.message, cause.data], ["Gate", "not for you", { hint: "say please" }]);
        assert.equal(socket.state, willReconnect ? "connecting" : "closed");
      }
    });
  }
});

describe("a page", () => {
  const openPage = async (server, more) => {
    const page = loadInPage(server.url, more);
    const socket = page.socketCluster.connect({ reconnectionDelay: 1e6, reconnectionDelayMax: 1e6 });
    server.clients.push(socket);
    await next(socket, "connect");
    return { page, socket };
  };

  test("that is offline has no connection, and makes one as soon as it is online", async (t) => {
    const server = await startServer(t);
    const { page, socket } = await openPage(server);
    const told = next(socket, "disconnect");
    page.happen("offline");
    const { code, reason, willReconnect } = await told;
    assert.deepEqual([code, reason, willReconnect], [1006, "the browser is offline", true]);
    page.happen("online");
    await next(socket, "connect");
    assert.equal(socket.id, "socket-s2");
  });

  test("does not trust, once it is online, in an attempt that was begun before", async (t) => {
    const server = await startServer(t);
    let isDead = false;
    const dead = (...given) => (isDead ? new Promise(() => {}) : fetch(...given));
    const { page, socket } = await openPage(server, { fetch: dead });
    page.happen("offline");
    isDead = true;
    socket.connect(); // the attempt that never ends
    isDead = false;
    page.happen("online");
    await next(socket, "connect");
    page.happen("online"); // changes nothing
    assert.equal(await socket.call("echo", 1), 1);
    assert.equal(server.handshakes.length, 2);
  });

  test("that is left tells the server, and connects when it is shown again", async (t) => {
    const server = await startServer(t);
    const { page, socket } = await openPage(server);
    const [connection] = server.connections;
    const ended = server.next("end");
    const told = next(socket, "disconnect");
    page.happen("pagehide", { persisted: true });
    assert.deepEqual(await told.then(({ code, willReconnect }) => [code, willReconnect]), [1001, true]);
    assert.equal(await ended, connection);
    page.happen("pageshow", { persisted: true });
    await next(socket, "connect");
    socket.on("disconnect", () => assert.fail("disconnect"));
    const last = server.next("end");
    page.happen("pagehide", { persisted: false });
    await last;
  });

  test("whose machine slept knows that its connection is gone", async (t) => {
    const server = await startServer(t);
    let slept = 0;
    class Clock extends Date {
      static now() {
        return Date.now() + slept;
      }
    }
    const { page, socket } = await openPage(server, { Date: Clock });
    page.happen("visibilitychange");
    assert.equal(socket.state, "open");
    const told = next(socket, "disconnect");
    slept = 46000; // longer than its server waits
    page.happen("visibilitychange");
    assert.equal((await told).reason, "nothing heard for 45000 ms");
  });
});
