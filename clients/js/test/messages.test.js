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
      const socket = connect(server, { ...transports, auth: { token: "t" }, query: { room: "a b" } });
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
      const { socket, connection } = await connected(server, transports);
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
      const { socket, connection } = await connected(server, transports);
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
      const { socket } = await connected(server, transports);
      const error = await socket.call("login").catch((reason) => reason);
      assert.ok(error instanceof Error);
      assert.deepEqual([error.name, error.message, error.data], ["AuthError", "wrong password", { left: 2 }]);
    });

    test("channels: subscribe, publish, unsubscribe", async (t) => {
      const server = await startServer(t);
      const { socket, connection } = await connected(server, transports);
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

describe("calls", () => {
  test("a call without an answer is rejected after its time", async (t) => {
    const server = await startServer(t);
    const { socket } = await connected(server);
    await assert.rejects(socket.call("never", 1, { timeout: 5 }), { name: "TimeoutError", message: /"never" in 5 ms/ });
    assert.equal(await socket.call("echo", "still here"), "still here");
  });

  test("ackTimeout is the default time", async (t) => {
    const server = await startServer(t);
    const { socket } = await connected(server, { ackTimeout: 5 });
    await assert.rejects(socket.call("never"), { name: "TimeoutError" });
  });

  test("an answer that comes too late changes nothing", async (t) => {
    const server = await startServer(t);
    let answer;
    server.handlers.slow = () => new Promise((resolve) => (answer = resolve));
    const { socket } = await connected(server);
    await assert.rejects(socket.call("slow", 1, { timeout: 5 }), { name: "TimeoutError" });
    answer("late");
    assert.equal(await socket.call("echo", "on time"), "on time");
  });

  test("the server is told that a handler failed, or that there is none", async (t) => {
    const server = await startServer(t);
    const { socket, connection } = await connected(server);
    socket.on("fail", () => {
      throw new RangeError("too far");
    });
    socket.on("reject", async () => {
      throw "no error";
    });
    socket.on("circular", () => {
      const value = {};
      return (value.value = value);
    });
    await assert.rejects(connection.call("fail"), { name: "RangeError", message: "too far" });
    await assert.rejects(connection.call("reject"), { name: "Error", message: "no error" });
    await assert.rejects(connection.call("circular"), { name: "TypeError" });
    socket.on("large", () => "x".repeat(2e6));
    await assert.rejects(connection.call("large"), { name: "MessageTooLargeError" });
    await assert.rejects(connection.call("nothing"), { name: "NoHandlerError", message: /"nothing"/ });
  });

  test("wrong arguments are refused", async (t) => {
    const server = await startServer(t);
    const { socket } = await connected(server);
    assert.throws(() => socket.on("x"), TypeError);
    assert.throws(() => socket.emit("connect"), { name: "TypeError", message: /"connect"/ });
    assert.throws(() => socket.emit(""), TypeError);
    assert.throws(() => socket.emit("big", 1n), TypeError);
    const callback = () => assert.fail("called");
    for (const args of [[callback], [1, callback], [1, 2], [1, undefined]]) {
      assert.throws(() => socket.emit("x", ...args), { name: "TypeError", message: /one value/ });
      if (args[1] !== undefined) await assert.rejects(socket.call("x", ...args), { message: /one value/ });
    }
    await assert.rejects(socket.call("x", 1, {}, callback), { message: /one value/ });
    await assert.rejects(socket.publish("c", callback), { message: /one value/ });
    await assert.rejects(socket.publish("c", 1, callback), { message: /one value/ });
    await assert.rejects((await socket.subscribe("c")).publish(1, callback), { message: /one value/ });
    await assert.rejects(socket.call("echo", 1, { timeout: -1 }), TypeError);
    await assert.rejects(socket.call("echo", 1n), TypeError);
  });
});

describe("listeners", () => {
  test("once, off", async (t) => {
    const server = await startServer(t);
    const { socket, connection } = await connected(server);
    const seen = [];
    const removed = () => seen.push("removed");
    socket.on("x", removed).once("x", (n) => seen.push(`once ${n}`)).on("x", (n) => seen.push(n)).off("x", removed);
    socket.on("y", removed).off("y");
    for (const n of [1, 2]) connection.emit("x", n);
    connection.emit("y");
    connection.emit("done");
    await next(socket, "done");
    assert.deepEqual(seen, ["once 1", 1, 2]);
  });

  test("what a listener throws is an error event, and the others are called", async (t) => {
    const server = await startServer(t);
    const { socket, connection } = await connected(server);
    const boom = new Error("boom");
    socket.on("x", () => {
      throw boom;
    });
    const other = next(socket, "x");
    const error = next(socket, "error");
    connection.emit("x", 1);
    assert.equal(await other, 1);
    assert.equal(await error, boom);
  });

  test("what a channel's listener throws is an error event, at a message that waited for it, too", async (t) => {
    const server = await startServer(t);
    const { socket } = await connected(server);
    const channel = await socket.subscribe("c");
    await channel.publish(1);
    const thrown = [];
    socket.on("error", (error) => thrown.push(error));
    channel.on((data) => {
      throw data;
    });
    await channel.publish(2);
    await socket.call("echo");
    assert.deepEqual(thrown, [1, 2]);
  });

  test("odd messages are error events, and the connection goes on", async (t) => {
    const server = await startServer(t);
    const { socket, connection } = await connected(server);
    for (const text of ["{", "null", '{"event":7}', '{"event":"connect"}', '{"event":"#publish"}', '[{"rid":99}, 3]']) {
      const error = next(socket, "error");
      connection.send(text);
      assert.equal((await error).name, "ProtocolError", text);
    }
    assert.equal(await socket.call("echo", 1), 1);
  });

  test("an odd message takes nothing of its batch along", async (t) => {
    const server = await startServer(t);
    const { socket, connection } = await connected(server);
    const seen = [];
    socket.on("n", (n) => seen.push(n));
    const errors = [];
    socket.on("error", ({ name }) => errors.push(name));
    connection.send([{ event: "n", data: 1 }, { event: "error", data: 2 }, null, { event: "n", data: 3 }]);
    await socket.call("echo");
    assert.deepEqual([seen, errors], [[1, 3], ["ProtocolError", "ProtocolError"]]);
  });

  test("several messages may come as an array", async (t) => {
    const server = await startServer(t);
    const { socket, connection } = await connected(server);
    const seen = [];
    socket.on("n", (n) => seen.push(n));
    connection.send([{ event: "n", data: 1 }, { event: "n", data: 2 }]);
    connection.emit("done");
    await next(socket, "done");
    assert.deepEqual(seen, [1, 2]);
  });
});

describe("channels", () => {
  test("nothing is lost between subscribe() and on()", async (t) => {
    const server = await startServer(t);
    const { socket, connection } = await connected(server, POLLING);
    server.handlers["#subscribe"] = ({ channel }) => {
      // the answer and both messages travel in one payload
      queueMicrotask(() => ["a", "b"].forEach((data) => connection.emit("#publish", { channel, data })));
    };
    const channel = await (async () => socket.subscribe("news"))();
    const seen = [];
    await new Promise((resolve) => channel.on((data) => seen.push(data) === 2 && resolve()));
    assert.deepEqual(seen, ["a", "b"]);
  });

  test("one subscription a channel, a refusal is an error, and listeners can go", async (t) => {
    const server = await startServer(t);
    const { socket, connection } = await connected(server);
    const [one, two] = await Promise.all([socket.subscribe("c"), socket.subscribe("c")]);
    assert.equal(one, two);
    assert.equal(connection.received.length, 1);
    const seen = [];
    const gone = () => seen.push("gone");
    one.on(gone).on((data) => seen.push(data)).off(gone);
    await socket.publish("c", 1);
    assert.deepEqual(seen, [1]);
    server.handlers["#subscribe"] = () => {
      throw new Error("not you");
    };
    await assert.rejects(socket.subscribe("secret"), { message: "not you" });
    server.handlers["#subscribe"] = () => NOTHING;
    const late = connect(server, { ackTimeout: 20 });
    await next(late, "connect");
    await assert.rejects(late.subscribe("slow"), { name: "TimeoutError", message: /"slow"/ });
  });

  test("a kick-out ends the subscription", async (t) => {
    const server = await startServer(t);
    const { socket, connection } = await connected(server);
    const channel = await socket.subscribe("c");
    channel.on(() => assert.fail("kicked out"));
    const told = next(socket, "kickOut");
    connection.emit("#kickOut", { channel: "c", message: "banned" });
    assert.deepEqual(await told, { channel: "c", message: "banned" });
    await channel.publish("unheard");
    await channel.unsubscribe();
    assert.deepEqual(connection.received.map(({ event }) => event), ["#subscribe", "#publish"]);
  });

  test("subscriptions are made again after a reconnect, ended ones aren't", async (t) => {
    const server = await startServer(t);
    const { socket, connection } = await connected(server);
    const channel = await socket.subscribe("kept");
    const ended = await socket.subscribe("ended");
    await ended.unsubscribe();
    const again = server.next("connection");
    connection.drop();
    await next(socket, "disconnect");
    socket.emit("queued");
    const waiting = socket.subscribe("asked for meanwhile");
    const second = await again;
    await waiting;
    await socket.call("echo");
    const events = second.received.map(({ event }) => event);
    assert.deepEqual(events, ["#subscribe", "#subscribe", "queued", "echo"]);
    assert.deepEqual([...second.channels], ["kept", "asked for meanwhile"]);
    const got = new Promise((resolve) => channel.on(resolve));
    server.publish("kept", "hello again");
    assert.equal(await got, "hello again");
  });

  test("a channel with offsets goes on after its last message, in order and once", async (t) => {
    const server = await startServer(t);
    const { socket, connection } = await connected(server);
    let answer = { offset: "7-2" };
    server.handlers["#subscribe"] = () => answer;
    const channel = await socket.subscribe("c");
    const seen = [];
    channel.on((data) => seen.push(data));
    const publish = (to, offset, data) => to.emit("#publish", { channel: "c", data, offset });
    for (const offset of ["7-2", "7-3", "7-3", "7-4"]) publish(connection, offset, offset);
    const told = [];
    socket.on("gap", (gap) => told.push(gap));
    await socket.call("echo");
    const connections = [connection];
    for (const [next_, messages] of [
      [{ offset: "7-4" }, ["7-4", "7-5"]],
      [{ offset: "7-8", missing: [6, 8] }, ["7-8", "7-9", "7-10"]],
      [{ offset: "8-0", reset: true }, ["8-1"]],
      [undefined, [undefined]],
    ]) {
      answer = next_;
      const again = server.next("connection");
      connections.at(-1).drop();
      connections.push(await again);
      await next(socket, "connect");
      await socket.call("echo"); // by then it is subscribed
      for (const offset of messages) publish(connections.at(-1), offset, offset);
      await socket.call("echo");
    }
    const asked = connections.map(({ received }) => received.find(({ event }) => event === "#subscribe").data.since);
    assert.deepEqual(asked, [null, "7-4", "7-5", "7-10", "8-1"]);
    assert.deepEqual(seen, ["7-3", "7-4", "7-5", "7-9", "7-10", "8-1", undefined]);
    assert.deepEqual(told, [{ channel: "c", missing: [6, 8] }, { channel: "c", missing: null }]);
  });

  /** A channel whose server answers with what `answer` is at the moment. */
  async function followed(t, first) {
    const server = await startServer(t);
    const { socket, connection } = await connected(server);
    const follow = { socket, connection, server, seen: [], told: [], answer: first };
    server.handlers["#subscribe"] = () => follow.answer;
    const channel = await socket.subscribe("c");
    channel.on((data) => follow.seen.push(data));
    socket.on("gap", (gap) => follow.told.push(gap.missing));
    follow.publish = (...offsets) => {
      for (const offset of offsets) connection.emit("#publish", { channel: "c", data: offset, offset });
    };
    follow.asked = () => connection.received.filter(({ event }) => event === "#subscribe").map(({ data }) => data.since);
    return follow;
  }

  test("an offset that jumps is a gap, which is fetched", async (t) => {
    const follow = await followed(t, { offset: "7-2" });
    follow.server.handlers["#subscribe"] = () => {
      queueMicrotask(() => follow.publish("7-4", "7-5", "7-6", "7-7")); // what comes after the answer
      return { offset: "7-3" };
    };
    follow.publish("7-3", "7-5", "7-6"); // the last two came while it was asked
    await until(follow.server.events, "message", () => follow.asked().length === 2);
    await follow.socket.call("echo");
    assert.deepEqual(follow.seen, ["7-3", "7-4", "7-5", "7-6", "7-7"]);
    assert.deepEqual([follow.asked(), follow.told], [[null, "7-3"], []]);
  });

  for (const [what, answer, seen, told] of [
    ["all", { offset: "7-9", missing: [4, 9] }, ["7-6", "7-7", "7-9"], [[4, 5], [8, 8]]],
    ["some", { offset: "7-5", missing: [4, 5] }, ["7-6"], [[4, 5]]],
    ["the end", { offset: "7-12", missing: [4, 12] }, ["7-6", "7-7", "7-9"], [[4, 5], [8, 8], [10, 12]]],
    ["another epoch", { offset: "8-1", reset: true }, [], [null]],
  ]) {
    test(`of a gap, ${what}, what came meanwhile is not lost, the rest is told`, async (t) => {
      const follow = await followed(t, { offset: "7-3" });
      follow.answer = answer;
      follow.publish("7-6", "7-7", "7-9");
      await until(follow.server.events, "message", () => follow.asked().length === 2);
      const [epoch, number] = answer.offset.split("-").map(Number);
      const after = [1, 2].map((n) => `${epoch}-${number + n}`);
      follow.publish(...after);
      await follow.socket.call("echo");
      const expected = what === "some" ? after : [...seen, ...after];
      assert.deepEqual([follow.seen, follow.told], [expected, told]);
    });
  }

  test("another epoch is asked about, and what came of it meanwhile is not lost", async (t) => {
    const follow = await followed(t, { offset: "7-3" });
    follow.answer = { offset: "8-2", reset: true };
    follow.publish("8-1", "8-2");
    await until(follow.server.events, "message", () => follow.asked().length === 2);
    follow.publish("8-3");
    await follow.socket.call("echo");
    assert.deepEqual([follow.seen, follow.told, follow.asked()], [["8-1", "8-2", "8-3"], [null], [null, "7-3"]]);
  });

  test("the first message of a channel without any is no gap", async (t) => {
    const follow = await followed(t, { offset: "0-0" });
    follow.publish("5-1", "5-2");
    await follow.socket.call("echo");
    assert.deepEqual([follow.seen, follow.told, follow.asked()], [["5-1", "5-2"], [], [null]]);
  });

  test("a gap is asked for once: a server that does not know of it is believed, and the gap is told", async (t) => {
    const follow = await followed(t, { offset: "7-3" });
    follow.publish("7-5");
    await until(follow.server.events, "message", () => follow.asked().length === 2);
    follow.publish("7-6", "7-7", "9-1", "9-2");
    await until(follow.server.events, "message", () => follow.asked().length === 3);
    follow.publish("9-2", "9-3");
    await follow.socket.call("echo");
    assert.deepEqual([follow.seen, follow.told], [["7-6", "7-7", "9-2", "9-3"], [[4, 5], null]]);
  });

  test("where messages are left out on purpose, jumps are no gaps", async (t) => {
    const follow = await followed(t, { offset: "7-3", skips: true });
    follow.publish("7-5", "7-9", "7-8", "7-10");
    await follow.socket.call("echo");
    assert.deepEqual([follow.seen, follow.told, follow.asked()], [["7-5", "7-9", "7-10"], [], [null]]);
  });

  test("a subscription that cannot be made for the moment is tried again, told once, and goes on where it was", async (t) => {
    const follow = await followed(t, { offset: "7-3" });
    const { socket, server } = follow;
    let failures = 0;
    server.handlers["#subscribe"] = () => {
      if (++failures > 3) return { offset: "7-4" };
      throw Object.assign(new Error("not now"), { name: "StoreUnavailableError" });
    };
    const errors = [];
    socket.on("error", ({ name, channel }) => errors.push(`${name} ${channel}`));
    const again = server.next("connection");
    follow.connection.drop();
    const second = await again;
    await until(server.events, "message", () => failures === 4);
    second.emit("#publish", { channel: "c", data: "again", offset: "7-4" });
    await socket.call("echo");
    assert.deepEqual([follow.seen, errors], [["again"], ["StoreUnavailableError c"]]);
    assert.ok(second.received.every(({ event, data }) => event !== "#subscribe" || data.since === "7-3"));
  });

  test("one that cannot be made at first is tried for as long as its caller waits", async (t) => {
    const server = await startServer(t);
    let tries = 0;
    server.handlers["#subscribe"] = () => {
      if (++tries > 2) return {};
      throw Object.assign(new Error("not now"), { name: "PartitionUnavailableError" });
    };
    const { socket } = await connected(server);
    assert.equal((await socket.subscribe("c")).name, "c");
    server.handlers["#subscribe"] = () => {
      throw Object.assign(new Error("never"), { name: "Refused", data: 1 });
    };
    await assert.rejects(socket.subscribe("d"), { name: "Refused", message: "never", data: 1, channel: "d" });
  });

  test("a subscription that is refused after a reconnect is an error event", async (t) => {
    const server = await startServer(t);
    const { socket, connection } = await connected(server);
    await socket.subscribe("c");
    server.handlers["#subscribe"] = () => {
      throw Object.assign(new Error("no more"), { name: "Refused" });
    };
    const error = next(socket, "error");
    connection.drop();
    const { name, channel } = await error;
    assert.deepEqual([name, channel], ["Refused", "c"]);
  });
});
