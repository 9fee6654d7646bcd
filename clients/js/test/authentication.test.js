"use strict";
// The auth token that a server gives: kept, sent along, and thrown away.

const assert = require("node:assert/strict");
const { test, describe } = require("node:test");
const { TRANSPORTS, startServer, connect, connected, next } = require("./support.js");

const CLAIMS = { name: "Änn 😀", admin: true };
const TOKEN = `e30.${Buffer.from(JSON.stringify(CLAIMS)).toString("base64url")}.c2ln`;

/** What a browser's storage does. */
class Storage {
  #items = new Map();
  getItem(name) { return this.#items.get(name) ?? null; }
  setItem(name, value) { this.#items.set(name, value); }
  removeItem(name) { this.#items.delete(name); }
}

for (const [name, transports] of Object.entries(TRANSPORTS)) {
  describe(`over ${name}`, () => {
    test("a token is confirmed, kept, and sent with the next handshake", async (t) => {
      const server = await startServer(t);
      const { socket, connection } = await connected(server, { ...transports, auth: { room: 1 } });
      assert.deepEqual([socket.authToken, socket.authClaims], [null, null]);
      const changed = next(socket, "authTokenChange");
      assert.equal(await connection.call("#setAuthToken", { token: TOKEN }), undefined);
      assert.deepEqual(await changed, { token: TOKEN, claims: CLAIMS });
      assert.deepEqual([socket.authToken, socket.authClaims], [TOKEN, CLAIMS]);
      connection.drop();
      await next(socket, "connect");
      assert.deepEqual(server.handshakes, [{ room: 1, authToken: null }, { room: 1, authToken: TOKEN }]);
    });
  });
}

test("a token that comes as an event is kept too, and told only if it is another", async (t) => {
  const server = await startServer(t);
  const { socket, connection } = await connected(server);
  const told = [];
  socket.on("authTokenChange", ({ token }) => told.push(token));
  for (const token of [TOKEN, TOKEN, "no JWT"]) connection.emit("#setAuthToken", { token });
  connection.emit("last");
  await next(socket, "last");
  assert.deepEqual(told, [TOKEN, "no JWT"]);
  assert.equal(socket.authClaims, null);
});

test("the server takes a token away, before its handshake's answer too", async (t) => {
  const server = await startServer(t);
  const tokenStorage = new Storage();
  tokenStorage.setItem("socketcluster.authToken", TOKEN);
  const answer = server.handlers["#handshake"];
  server.handlers["#handshake"] = (data, connection) => {
    connection.emit("#removeAuthToken");
    const authError = { name: "AuthTokenExpiredError", message: "jwt expired", isBadToken: true };
    return { ...answer(data, connection), authError };
  };
  const socket = connect(server, { tokenStorage });
  const [error, change] = await Promise.all([next(socket, "error"), next(socket, "authTokenChange"), next(socket, "connect")]);
  assert.deepEqual([error.name, change], ["AuthTokenExpiredError", { token: null, claims: null }]);
  assert.deepEqual([server.handshakes[0].authToken, socket.authToken], [TOKEN, null]);
  await server.connections[0].call("#removeAuthToken");
  assert.equal(tokenStorage.getItem("socketcluster.authToken"), null);
});

test("a storage is shared with other tabs and later visits", async (t) => {
  const server = await startServer(t);
  const options = { tokenStorage: new Storage(), tokenName: "mine" };
  const { connection } = await connected(server, options);
  await connection.call("#setAuthToken", { token: TOKEN });
  assert.equal(options.tokenStorage.getItem("mine"), TOKEN);
  const { socket: other } = await connected(server, { ...options, auth: { authToken: "the page's own" } });
  assert.equal(server.handshakes[1].authToken, TOKEN);
  assert.deepEqual(other.authClaims, CLAIMS);
});

test("the page's own token is sent where the server gave none", async (t) => {
  const server = await startServer(t);
  await connected(server, { auth: { authToken: "the page's own" } });
  assert.deepEqual(server.handshakes, [{ authToken: "the page's own" }]);
});

test("a storage that may not be used is an error, and the token is kept in memory", async (t) => {
  const server = await startServer(t);
  const forbidden = () => {
    throw new Error("access is denied");
  };
  const { socket, connection } = await connected(server, { tokenStorage: { getItem: forbidden, setItem: forbidden } });
  const error = next(socket, "error");
  await connection.call("#setAuthToken", { token: TOKEN });
  assert.equal((await error).message, "access is denied");
  assert.equal(socket.authToken, TOKEN);
});

test("deauthenticate() throws the token away on both sides", async (t) => {
  const server = await startServer(t);
  const removed = [];
  server.handlers["#removeAuthToken"] = (data, connection) => void removed.push(connection);
  const { socket, connection } = await connected(server);
  await connection.call("#setAuthToken", { token: TOKEN });
  await socket.deauthenticate();
  assert.equal(socket.authToken, null);
  assert.deepEqual(removed, [connection]);
  socket.disconnect();
  await socket.deauthenticate(); // there is nobody to tell
});

test("a handshake that is refused for good is not tried again", async (t) => {
  const server = await startServer(t);
  server.handlers["#handshake"] = (data, connection) => {
    connection.send({ rid: 1, error: { name: "BannedError", message: "never you", statusCode: 4501 } });
    throw new Error("the second answer is of no interest");
  };
  const socket = connect(server);
  assert.equal((await next(socket, "error")).message, "never you");
  assert.equal(socket.state, "closed");
});
