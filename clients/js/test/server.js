"use strict";
// A small Engine.IO v4 and SocketCluster v2 server that misbehaves when told to, and notes what a client does wrong.

const http = require("node:http");
const { EventEmitter, once } = require("node:events");
const { WebSocketServer } = require("ws");

const SEPARATOR = "\x1e";

/** Resolves when `done()` holds, looked at after every event of that kind. */
async function until(emitter, kind, done) {
  while (!done()) await new Promise((resolve) => emitter.once(kind, resolve));
}

/** One Engine.IO session. */
class Connection {
  transport;
  sid;
  received = []; // the messages, without handshake and responses
  channels = new Set();
  #server;
  #outbox = [];
  #get = null;
  #posting = false;
  #webSocket = null;
  #probe = null;
  #calls = new Map();
  #lastCid = 0;
  #closed = false;
  #numbers = { GET: 0, POST: 0 };
  #payload = null; // of the last poll, once it is answered

  constructor(server, sid, transport) {
    this.#server = server;
    this.sid = sid;
    this.transport = transport;
  }

  get hasGet() {
    return this.#get !== null;
  }

  emit(event, data) {
    this.send({ event, data });
  }

  call(event, data) {
    const cid = ++this.#lastCid;
    this.send({ event, data, cid });
    return new Promise((resolve, reject) => this.#calls.set(cid, { resolve, reject }));
  }

  send(message) {
    this.packet("4" + (typeof message === "string" ? message : JSON.stringify(message)));
  }

  packet(text) {
    if (this.#webSocket) return this.#webSocket.send(text);
    this.#outbox.push(text);
    this.#answerGet();
  }

  /** Break the transport without a word. */
  drop() {
    if (this.#webSocket) this.#webSocket.terminate();
    if (this.#probe) this.#probe.terminate();
    if (this.#get) this.#get.destroy();
    this.forget();
  }

  /** Announce and close, as the cluster does. */
  async disconnect(code, reason) {
    const announcement = { event: "#disconnect", data: { code, reason } };
    if (!this.#webSocket && !this.#get) await until(this.#server.events, "get", () => this.#get);
    this.send(announcement);
    if (this.#webSocket) return this.#webSocket.close(code, reason);
    if (!this.#get) await until(this.#server.events, "get", () => this.#get);
    this.packet("1");
    return this.forget();
  }

  /** The session ends here; whoever asks for it is told that it's unknown. */
  forget() {
    this.#closed = true;
    this.#server.sessions.delete(this.sid);
    this.#server.events.emit("end", this);
  }

  #answerGet() {
    const { faults } = this.#server;
    if (!this.#get || faults.holdGet) return;
    if (!this.#outbox.length && !(this.#probe && this.#probe.answered)) return;
    this.#payload = this.#outbox.splice(0).join(SEPARATOR) || "6";
    const get = this.#get;
    this.#get = null;
    this.#server.answer("Get", get, this.#payload);
  }

  /** Is it a request that has been taken? Then it is answered as before, and not handled. */
  isRepeated(method, number, response) {
    if (number === this.#numbers[method] + 1) {
      this.#numbers[method] = number;
      if (method === "GET") this.#payload = null;
      return false;
    }
    if (number !== this.#numbers[method]) this.#server.violations.push(`${method} ${number} after ${this.#numbers[method]}`);
    this.#server.repeated.push(method);
    if (method === "POST") response.end("ok");
    else if (this.#payload !== null) response.end(this.#payload);
    else return false;
    return true;
  }

  release() {
    this.#answerGet();
  }

  onGet(response) {
    if (this.#get) this.#server.violations.push("two GETs in flight");
    if (this.#webSocket) this.#server.violations.push("GET after the upgrade");
    this.#get = response;
    response.on("close", () => {
      if (this.#get === response) this.#get = null;
    });
    this.#server.events.emit("get", this);
    this.#answerGet();
  }

  async onPost(request, response) {
    if (this.#posting) this.#server.violations.push("two POSTs in flight");
    if (this.#webSocket) this.#server.violations.push("POST after the upgrade");
    this.#posting = true;
    const chunks = await request.toArray();
    const body = Buffer.concat(chunks);
    this.#server.posts.push(body.toString());
    this.#server.events.emit("body", this);
    if (body.length > this.#server.maxPayload) {
      this.#server.violations.push("POST over maxPayload");
      this.#posting = false;
      return response.writeHead(413).end();
    }
    if (this.#server.faults.holdPost) await this.#server.faults.holdPost;
    for (const packet of body.toString().split(SEPARATOR)) this.#onPacket(packet);
    this.#posting = false;
    this.#server.answer("Post", response, "ok");
  }

  onWebSocket(webSocket) {
    webSocket.on("message", (data) => {
      const text = data.toString();
      if (this.#webSocket === webSocket) return this.#onPacket(text);
      if (text === "2probe") return this.#onProbe(webSocket);
      if (text === "5" && this.#probe === webSocket) return this.#onUpgrade(webSocket);
      return this.#server.violations.push(`${text} over a WebSocket that's not in use`);
    });
    webSocket.on("close", () => {
      if (this.#webSocket === webSocket && !this.#closed) this.forget();
      if (this.#probe === webSocket) this.#probe = null;
    });
  }

  /** A WebSocket from the beginning. */
  adopt(webSocket) {
    this.onWebSocket(webSocket);
    this.#webSocket = webSocket;
  }

  #onProbe(webSocket) {
    const { faults } = this.#server;
    this.#probe = webSocket;
    this.#server.events.emit("probe", this);
    if (!faults.ignoreProbe) this.answerProbe();
  }

  answerProbe() {
    const { faults } = this.#server;
    const webSocket = this.#probe;
    webSocket.send(faults.wrongProbe ? "3what" : "3probe");
    webSocket.answered = true;
    this.#answerGet();
  }

  dropProbe() {
    this.#probe.terminate();
  }

  #onUpgrade(webSocket) {
    if (this.#get || this.#posting) this.#server.violations.push("upgraded with a request in flight");
    this.#probe = null;
    this.#webSocket = webSocket;
    this.transport = "websocket";
    if (this.#server.faults.mute) webSocket.send = () => {};
    if (this.#server.numbered) webSocket.send("6");
    for (const packet of this.#outbox.splice(0)) webSocket.send(packet);
    this.#server.events.emit("upgrade", this);
  }

  #onPacket(packet) {
    if (packet === "1") {
      this.forget();
      if (this.#get) this.#get.end("6");
    } else if (packet[0] === "3") {
      this.#server.events.emit("pong", this);
    } else if (packet[0] === "4") {
      this.#onMessage(packet.slice(1));
    } else {
      this.#server.violations.push(`packet ${packet}`);
    }
  }

  #onMessage(text) {
    if (text === "") return this.#server.events.emit("heartbeat", this);
    const message = JSON.parse(text);
    if (message.rid !== undefined) {
      const { resolve, reject } = this.#calls.get(message.rid);
      this.#calls.delete(message.rid);
      return message.error ? reject(message.error) : resolve(message.data);
    }
    const { event, data, cid } = message;
    if (event !== "#handshake") {
      this.received.push(message);
      this.#server.events.emit("message", this, message);
    }
    const handler = this.#server.handlers[event];
    if (!handler) return undefined;
    return (async () => handler(data, this))().then(
      (result) => cid !== undefined && result !== NOTHING && this.send({ rid: cid, data: result }),
      ({ name, message: text, data: more, statusCode }) =>
        this.send({ rid: cid, error: { name, message: text, data: more, statusCode } }),
    );
  }
}

/** What a handler returns to leave a call without an answer. */
const NOTHING = Symbol("nothing");

class TestServer {
  violations = [];
  posts = [];
  requests = []; // method and URL of all
  handshakes = [];
  connections = [];
  sessions = new Map();
  events = new EventEmitter();
  repeated = []; // the methods of requests that came again
  // holdGet, holdPost (a promise), refuseWebSocket, ignoreProbe, wrongProbe, refuse (a status), mute (the WebSocket, once
  // it has taken over); numbers of times: resetGet, resetPost (once it was handled), portalGet, portalPost
  faults = {};
  numbered = false; // does it know requests by their numbers?
  maxPayload;
  url;
  handlers = {
    "#handshake": (data, connection) => {
      this.handshakes.push(data);
      this.connections.push(connection);
      queueMicrotask(() => this.events.emit("connection", connection));
      return { id: `socket-${connection.sid}`, pingTimeout: 20000, isAuthenticated: false };
    },
    "#subscribe": ({ channel }, connection) => void connection.channels.add(channel),
    "#unsubscribe": (channel, connection) => void connection.channels.delete(channel),
    "#publish": ({ channel, data }) => this.publish(channel, data),
    echo: (data) => data,
    never: () => NOTHING,
  };
  #options;
  #http;
  #sockets = new Set();
  #lastSid = 0;

  static async start(options = {}) {
    const server = new TestServer();
    server.#options = { upgrades: ["websocket"], pingInterval: 25000, pingTimeout: 20000, port: 0, ...options };
    server.maxPayload = options.maxPayload ?? 1e6;
    server.numbered = options.numbered ?? false;
    server.#http = http.createServer((request, response) => server.#onRequest(request, response));
    const webSockets = new WebSocketServer({ noServer: true });
    server.#http.on("upgrade", (request, socket, head) => {
      server.requests.push(`UPGRADE ${request.url}`);
      if (server.faults.refuseWebSocket || server.faults.refuse) return socket.end("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
      return webSockets.handleUpgrade(request, socket, head, (webSocket) => server.#onWebSocket(request, webSocket));
    });
    server.#http.on("connection", (socket) => {
      server.#sockets.add(socket);
      socket.on("close", () => server.#sockets.delete(socket));
    });
    server.#http.listen(server.#options.port, "127.0.0.1");
    await once(server.#http, "listening");
    server.url = `http://127.0.0.1:${server.#http.address().port}`;
    return server;
  }

  /** Break every connection. */
  cut() {
    for (const socket of this.#sockets) socket.destroy();
  }

  async stop() {
    this.cut();
    this.#http.close();
    await once(this.#http, "close");
  }

  /** The next event of a kind: connection, end, get, probe, upgrade, pong, message. */
  async next(kind) {
    const [first] = await once(this.events, kind);
    return first;
  }

  publish(channel, data) {
    for (const connection of this.sessions.values()) {
      if (connection.channels.has(channel)) connection.emit("#publish", { channel, data });
    }
  }

  #open(transport) {
    const sid = `s${++this.#lastSid}`;
    const connection = new Connection(this, sid, transport);
    this.sessions.set(sid, connection);
    const { pingInterval, pingTimeout, upgrades } = this.#options;
    const open = { sid, upgrades: transport === "polling" ? upgrades : [], pingInterval, pingTimeout };
    const numbered = this.numbered && transport === "polling" ? true : undefined;
    return [connection, "0" + JSON.stringify({ ...open, maxPayload: this.maxPayload, numbered })];
  }

  /** Answer, or let the network take the answer. */
  answer(method, response, text) {
    if (this.faults[`reset${method}`] > 0) {
      this.faults[`reset${method}`]--;
      response.socket.resetAndDestroy();
    } else {
      response.end(text);
    }
  }

  #onRequest(request, response) {
    this.requests.push(`${request.method} ${request.url}`);
    const { pathname, searchParams: query } = new URL(request.url, this.url);
    if (this.faults.refuse) return response.writeHead(this.faults.refuse).end("refused");
    if (pathname !== "/socketcluster/engine/") return response.writeHead(404).end();
    if (query.get("EIO") !== "4" || query.get("transport") !== "polling") this.violations.push(request.url);
    if (!query.has("sid")) return response.end(this.#open("polling")[1]);
    const connection = this.sessions.get(query.get("sid"));
    const method = request.method === "GET" ? "Get" : "Post";
    if (this.faults[`portal${method}`] > 0) {
      this.faults[`portal${method}`]--;
      return response.writeHead(this.faults.portalStatus ?? 200).end("<html>Log in, please</html>");
    }
    if (!connection) return response.writeHead(400).end('{"code":1,"message":"Session ID unknown"}');
    if (this.numbered) {
      if (connection.isRepeated(request.method, Number(query.get("seq")), response)) return undefined;
    } else if (query.has("seq")) {
      this.violations.push(`a number that was not asked for: ${request.url}`);
    }
    return request.method === "GET" ? connection.onGet(response) : connection.onPost(request, response);
  }

  #onWebSocket(request, webSocket) {
    const { searchParams: query } = new URL(request.url, this.url);
    if (query.get("EIO") !== "4" || query.get("transport") !== "websocket") this.violations.push(request.url);
    if (query.has("sid")) {
      const connection = this.sessions.get(query.get("sid"));
      return connection ? connection.onWebSocket(webSocket) : webSocket.terminate();
    }
    const [connection, open] = this.#open("websocket");
    connection.adopt(webSocket);
    return webSocket.send(open);
  }
}

module.exports = { TestServer, NOTHING, until };
