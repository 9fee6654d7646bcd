/*!
 * The browser client of SocketCluster for Python: Engine.IO revision 4 (long-polling, WebSocket, upgrade) carrying
 * SocketCluster messages. A classic script that sets `globalThis.socketCluster`, a CommonJS module, and, through
 * socketcluster.mjs, an ES module. Types are in socketcluster.d.ts.
 */
(function (root) {
  "use strict";

  const DEFAULTS = {
    url: undefined,
    path: "/socketcluster/engine/",
    transports: ["polling", "websocket"],
    reconnection: true,
    reconnectionDelay: 500,
    reconnectionDelayMax: 10000,
    randomizationFactor: 0.5,
    ackTimeout: 10000,
    connectTimeout: 10000,
    query: {},
    auth: null,
    tokenStorage: null,
    tokenName: "socketcluster.authToken",
    WebSocket: root.WebSocket,
    fetch: root.fetch,
  };
  const BUILT_IN = new Set(["connect", "disconnect", "reconnecting", "error", "upgrade", "kickOut", "gap", "authTokenChange"]);
  const QUEUE_LIMIT = 1000; // messages that wait for a connection
  const SEPARATOR = "\x1e"; // between the packets of one polling payload
  const HANDSHAKE_CID = 1; // calls are numbered from the next on
  const PACKET = { OPEN: "0", CLOSE: "1", PING: "2", PONG: "3", MESSAGE: "4", UPGRADE: "5", NOOP: "6" };
  const OPEN = 1; // a WebSocket's readyState
  const CODE = { NORMAL: 1000, GOING_AWAY: 1001, NO_STATUS: 1005, ABNORMAL: 1006, RESTART: 1012, PERMANENT: 4500 };

  /** @returns {Error} an error with a name and, when the server sent some, data */
  function makeError(name, message, data) {
    const error = Object.assign(new Error(message), { name });
    return data === undefined ? error : Object.assign(error, { data });
  }

  /** @returns {Error} the error that a server's `{"name", "message", "data"}` describes */
  function remoteError(error) {
    const { name = "Error", message = String(error), data } = Object(error);
    return makeError(name, message, data);
  }

  /** @returns {number} the bytes that `text` takes as UTF-8 */
  function byteLength(text) {
    return new TextEncoder().encode(text).length;
  }

  /** @returns {Error | null} why a message of that text cannot be a packet of at most `limit` bytes */
  function tooLarge(text, limit) {
    const size = 1 + (text.length * 3 < limit ? text.length : byteLength(text)); // exact only where it matters
    return size <= limit ? null : makeError("MessageTooLargeError", `${size} bytes; the server takes ${limit}`);
  }

  /** @returns {number} the edits that make one word of the other */
  function distance(a, b) {
    let row = Array.from({ length: b.length + 1 }, (_, j) => j);
    for (let i = 1; i <= a.length; i++) {
      const next = [i];
      for (let j = 1; j <= b.length; j++) {
        next.push(Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1)));
      }
      row = next;
    }
    return row[b.length];
  }

  function checkOptions(given) {
    const known = Object.keys(DEFAULTS);
    for (const name of Object.keys(given)) {
      if (known.includes(name)) continue;
      const far = (other) => distance(name.toLowerCase(), other.toLowerCase());
      const nearest = known.reduce((best, other) => (far(other) < far(best) ? other : best));
      throw new TypeError(`unknown option "${name}"; did you mean "${nearest}"?`);
    }
    const set = Object.entries(given).filter(([, value]) => value !== undefined);
    const options = { ...DEFAULTS, ...Object.fromEntries(set) };
    for (const [name, value] of Object.entries(options)) {
      if (typeof DEFAULTS[name] === "number") checkNumber(name, value);
    }
    const { transports } = options;
    if (!Array.isArray(transports) || !transports.length || transports.some((t) => !DEFAULTS.transports.includes(t))) {
      throw new TypeError('transports must list "polling", "websocket" or both');
    }
    if (transports.includes("polling") && !options.fetch) throw new TypeError("there is no fetch here: pass one");
    if (!transports.includes("polling") && !options.WebSocket) {
      throw new TypeError("there is no WebSocket here: pass one");
    }
    const page = root.location && root.location.origin !== "null" ? root.location.href : undefined;
    if (!options.url && !page) throw new TypeError("url is needed outside a page");
    const url = new URL(options.path, new URL(options.url || "/", page));
    if (!/^(http|ws)s?:$/.test(url.protocol)) throw new TypeError(`url must begin with http or ws: ${url}`);
    return { ...options, url };
  }

  function checkNumber(name, value) {
    const right = typeof value === "number" && value >= 0 && value <= 0x7fffffff; // the most that timers take
    if (!right) throw new TypeError(`${name} must be a number from 0 to ${0x7fffffff}`);
  }

  function checkFunction(fn) {
    if (typeof fn !== "function") throw new TypeError("a listener must be a function");
    return fn;
  }

  function checkName(event) {
    if (typeof event !== "string" || !event) throw new TypeError("an event's name must be a string");
    if (BUILT_IN.has(event)) throw new TypeError(`"${event}" is an event of the client's own`);
    return event;
  }

  /** @returns {Promise} what a listener gives or throws */
  async function attempt(fn, data) {
    return fn(data);
  }

  function throwLater(error) {
    queueMicrotask(() => {
      throw error;
    });
  }

  /** @returns {boolean} whether a message of that offset is new to who has seen the other; without offsets any is */
  function follows(seen, offset) {
    if (!seen || !offset) return true;
    const [epoch, number] = seen.split("-");
    const [itsEpoch, itsNumber] = offset.split("-");
    return epoch !== itsEpoch || Number(itsNumber) > Number(number);
  }

  /** @returns {object | null} what an auth token says, if it is a JSON Web Token */
  function claimsOf(token) {
    try {
      const payload = atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/"));
      return JSON.parse(new TextDecoder().decode(Uint8Array.from(payload, (character) => character.charCodeAt(0))));
    } catch {
      return null;
    }
  }

  function ignore() {}

  /** One Engine.IO connection, from its opening to its end, whatever carries it meanwhile. */
  class Engine {
    transport;
    maxPayload = Infinity;
    #options;
    #report; // open(), message(text), upgrade(transport), close(code, reason): what the owner is told
    #sid = null;
    #closed = false;
    #outbox = []; // packets in order, not yet given to a transport
    #getting = false;
    #posting = false;
    #paused = false; // polling stops for the upgrade: nothing new is sent or asked for
    #webSocket = null;
    #probe = null; // { webSocket, timer } of the upgrade under way
    #aborters = new Set(); // of the requests in flight; one each, as Node's fetch keeps a signal's listeners too long
    #silence = 0; // ms without a packet after which the server counts as lost
    #heardAt = 0;
    #timer;

    constructor(options, transport, report) {
      this.#options = options;
      this.#report = report;
      this.transport = transport;
      if (transport === "polling") this.#poll();
      else this.#adopt(this.#openWebSocket());
    }

    /** Send a message packet. */
    send(text) {
      this.#outbox.push(PACKET.MESSAGE + text);
      this.#flush();
    }

    /** Send what waits, tell the server, and end; nothing is reported any more. */
    close() {
      if (this.#closed) return;
      this.#stop();
      if (this.#webSocket) {
        if (this.#sid) this.#webSocket.send(PACKET.CLOSE);
        this.#webSocket.close(CODE.NORMAL);
      } else if (this.#sid) {
        this.#timer = setTimeout(() => this.#abort(), this.#options.connectTimeout);
        this.#outbox.push(PACKET.CLOSE);
        this.#post();
      } else {
        this.#abort();
      }
    }

    /** The connection is lost, or the server ended it. */
    #end(code, reason) {
      if (this.#closed) return;
      this.#stop();
      this.#abort();
      if (this.#webSocket) this.#webSocket.close();
      this.#report.close(code, reason);
    }

    #stop() {
      this.#closed = true;
      clearTimeout(this.#timer);
      this.#giveUpgradeUp();
    }

    #receive(packet) {
      if (this.#closed) return;
      this.#heardAt = performance.now();
      const data = packet.slice(1);
      if ((packet[0] === PACKET.OPEN) === Boolean(this.#sid)) return this.#refuse(packet);
      switch (packet[0]) {
        case PACKET.OPEN:
          return this.#opened(data);
        case PACKET.CLOSE:
          return this.#end(CODE.NO_STATUS, "the server closed the connection");
        case PACKET.PING:
          this.#outbox.push(PACKET.PONG + data);
          return this.#flush();
        case PACKET.MESSAGE:
          return this.#report.message(data);
        case PACKET.NOOP:
          return undefined;
        default:
          return this.#refuse(packet);
      }
    }

    #refuse(packet) {
      this.#end(CODE.ABNORMAL, `not Engine.IO: ${packet.slice(0, 60)}`);
    }

    #opened(text) {
      let open = null;
      try {
        open = JSON.parse(text);
      } catch {
        // refused below
      }
      const { sid, upgrades = [], pingInterval, pingTimeout, maxPayload = Infinity } = Object(open);
      this.#silence = pingInterval + pingTimeout;
      if (!sid || !(this.#silence > 0)) return this.#refuse(text);
      this.#sid = sid;
      this.maxPayload = maxPayload;
      this.#watchSilence();
      this.#report.open();
      const { transports, WebSocket } = this.#options;
      const wanted = this.transport === "polling" && transports.includes("websocket") && WebSocket;
      if (wanted && upgrades.includes("websocket") && !this.#closed) this.#upgrade();
    }

    #watchSilence() {
      const left = this.#heardAt + this.#silence - performance.now();
      if (left <= 0) this.#end(CODE.ABNORMAL, `nothing heard for ${this.#silence} ms`);
      else this.#timer = setTimeout(() => this.#watchSilence(), left);
    }

    #flush() {
      if (this.#closed || this.#paused || !this.#sid) return;
      if (this.transport === "polling") this.#post();
      else for (const packet of this.#outbox.splice(0)) this.#webSocket.send(packet);
    }

    #url(transport) {
      const url = new URL(this.#options.url);
      url.protocol = url.protocol.replace(/^(http|ws)/, transport === "websocket" ? "ws" : "http");
      const query = { ...this.#options.query, EIO: "4", transport };
      for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
      if (this.#sid) url.searchParams.set("sid", this.#sid);
      return url.href;
    }

    // -- polling

    async #poll() {
      if (this.#getting) return;
      this.#getting = true;
      try {
        do {
          const payload = await this.#request("GET");
          for (const packet of payload.split(SEPARATOR)) this.#receive(packet);
        } while (!this.#closed && !this.#paused);
      } catch (error) {
        this.#end(CODE.ABNORMAL, (error.cause || error).message); // Node tells the reason in the cause
      }
      this.#getting = false;
      this.#switchWhenQuiet();
    }

    async #post() {
      if (this.#posting) return;
      this.#posting = true;
      try {
        await null; // what is emitted in one go travels in one request
        while (this.#outbox.length && !this.#paused) await this.#request("POST", this.#takePayload());
      } catch (error) {
        this.#end(CODE.ABNORMAL, (error.cause || error).message); // Node tells the reason in the cause
      }
      this.#posting = false;
      if (!this.#closed) return this.#switchWhenQuiet();
      clearTimeout(this.#timer);
      this.#abort();
    }

    #takePayload() {
      let size = 0;
      let count = 0;
      do size += byteLength(this.#outbox[count++]) + SEPARATOR.length;
      while (count < this.#outbox.length && size + byteLength(this.#outbox[count]) <= this.maxPayload);
      return this.#outbox.splice(0, count).join(SEPARATOR);
    }

    async #request(method, body) {
      const { fetch } = this.#options; // a browser's fetch must not be called as a method of another object
      const aborter = new AbortController();
      const { signal } = aborter;
      this.#aborters.add(aborter);
      try {
        const how = { method, body, signal, credentials: "include", cache: "no-store" };
        const response = await fetch(this.#url("polling"), how);
        const text = await response.text();
        if (!response.ok) throw new Error(`${method} was answered ${response.status}: ${text.slice(0, 200)}`);
        return text;
      } finally {
        this.#aborters.delete(aborter);
      }
    }

    #abort() {
      for (const aborter of this.#aborters) aborter.abort();
    }

    // -- WebSocket

    #openWebSocket() {
      const webSocket = new this.#options.WebSocket(this.#url("websocket"));
      webSocket.onerror = ignore; // a close event with the code follows
      return webSocket;
    }

    #adopt(webSocket) {
      this.#webSocket = webSocket;
      webSocket.onmessage = ({ data }) => this.#receive(String(data));
      webSocket.onclose = ({ code, reason }) => this.#end(code, reason || "the WebSocket was closed");
    }

    /** Try a WebSocket beside the polling; polling goes on until it has answered. */
    #upgrade() {
      let webSocket;
      try {
        webSocket = this.#openWebSocket();
      } catch {
        return; // the page's security policy forbids it
      }
      const timer = setTimeout(() => this.#giveUpgradeUp(), this.#options.connectTimeout);
      this.#probe = { webSocket, timer };
      webSocket.onopen = () => webSocket.send(PACKET.PING + "probe");
      webSocket.onclose = () => this.#giveUpgradeUp();
      webSocket.onmessage = ({ data }) => {
        if (data !== PACKET.PONG + "probe") return this.#giveUpgradeUp();
        this.#paused = true;
        return this.#switchWhenQuiet();
      };
    }

    #endProbe() {
      const { webSocket, timer } = this.#probe;
      clearTimeout(timer);
      this.#probe = null;
      this.#paused = false;
      webSocket.onopen = webSocket.onmessage = webSocket.onclose = null;
      return webSocket;
    }

    #giveUpgradeUp() {
      if (!this.#probe) return;
      this.#endProbe().close();
      if (this.#closed) return;
      this.#poll();
      this.#flush();
    }

    /** Both requests are back: nothing is on its way over polling, so the WebSocket can take over where it ended. */
    #switchWhenQuiet() {
      if (!this.#paused || this.#getting || this.#posting || this.#closed) return;
      if (this.#probe.webSocket.readyState !== OPEN) return this.#giveUpgradeUp();
      const webSocket = this.#endProbe();
      this.transport = "websocket";
      this.#adopt(webSocket);
      webSocket.send(PACKET.UPGRADE);
      this.#flush();
      this.#report.upgrade(this.transport);
    }
  }

  /** What subscribe() gives: the messages of one channel. */
  class Channel {
    name;
    #socket;
    #listeners = new Set();
    #held = []; // what came before the first listener did

    constructor(socket, name, expose) {
      this.name = name;
      this.#socket = socket;
      expose((data) => this.#deliver(data));
    }

    on(fn) {
      checkFunction(fn);
      this.#listeners.add(fn);
      const held = this.#held || [];
      this.#held = null;
      for (const data of held) attempt(fn, data).catch(throwLater);
      return this;
    }

    off(fn) {
      if (fn === undefined) this.#listeners.clear();
      else this.#listeners.delete(fn);
      return this;
    }

    publish(data) {
      return this.#socket.publish(this.name, data);
    }

    unsubscribe() {
      return this.#socket.unsubscribe(this.name);
    }

    #deliver(data) {
      if (this.#held && this.#held.push(data) > QUEUE_LIMIT) this.#held.shift();
      return [...this.#listeners].map((fn) => attempt(fn, data));
    }
  }

  /** A connection to the cluster that makes itself again. */
  class Socket {
    #options;
    #listeners = new Map(); // event: [{ fn, once }]
    #state = "closed";
    #engine = null;
    #id = null;
    #recovered = false;
    #token = null; // the auth token, where no storage keeps it
    #queue = []; // [{ text, cid }] that wait for a connection; cid only for a call
    #calls = new Map(); // cid: { resolve, reject, timer, sent }
    #lastCid = HANDSHAKE_CID;
    #subscriptions = new Map(); // channel name: { channel, deliver, ready, settle, active }
    #announced = null; // { code, reason } of the #disconnect that precedes the server's closing
    #attempt = 0; // how often a reconnection was tried
    #failures = 0; // connections in a row that never opened
    #connectTimer;
    #retryTimer;
    #tryNow = () => this.#retryTimer && this.#open();

    constructor(options) {
      this.#options = options;
    }

    get id() { return this.#id; }
    get state() { return this.#state; }
    get transport() { return this.#engine ? this.#engine.transport : null; }
    get recovered() { return this.#recovered; }
    get authToken() { return this.#loadToken(); }
    get authClaims() { return claimsOf(this.#loadToken()); }

    on(event, fn) {
      return this.#listen(event, { fn: checkFunction(fn), once: false });
    }

    once(event, fn) {
      return this.#listen(event, { fn: checkFunction(fn), once: true });
    }

    off(event, fn) {
      if (event === undefined) this.#listeners.clear();
      else this.#listeners.set(event, this.#heard(event).filter((one) => fn !== undefined && one.fn !== fn));
      return this;
    }

    /** Send an event; while there is no connection it waits for one. */
    emit(event, data) {
      this.#enqueue({ text: JSON.stringify({ event: checkName(event), data }) });
      return this;
    }

    /** Send an event and wait for its acknowledgement. */
    call(event, data, { timeout = this.#options.ackTimeout } = {}) {
      return this.#call(event, data, timeout);
    }

    /** Call; `answered` hears of the answer before any message that comes after it. */
    #call(event, data, timeout, answered = ignore) {
      return new Promise((resolve, reject) => {
        checkNumber("timeout", timeout);
        const cid = ++this.#lastCid;
        const text = JSON.stringify({ event: checkName(event), data, cid });
        const late = () => this.#settle(cid, makeError("TimeoutError", `no answer to "${event}" in ${timeout} ms`));
        this.#calls.set(cid, { resolve, reject, answered, timer: setTimeout(late, timeout), sent: false });
        this.#enqueue({ text, cid });
      });
    }

    publish(channel, data) {
      return this.call("#publish", { channel, data });
    }

    /** Receive a channel's messages from now on, after reconnections too. */
    subscribe(name) {
      if (!this.#subscriptions.has(name)) {
        const subscription = { active: false, offset: null }; // offset: "epoch-number" of the last message
        subscription.channel = new Channel(this, name, (deliver) => (subscription.deliver = deliver));
        subscription.ready = new Promise((resolve, reject) => {
          const { ackTimeout } = this.#options;
          const late = () => {
            subscription.settle(makeError("TimeoutError", `not subscribed to "${name}" in ${ackTimeout} ms`));
            this.unsubscribe(name).catch(ignore);
          };
          const timer = setTimeout(late, ackTimeout);
          subscription.settle = (error) => {
            clearTimeout(timer);
            if (error) reject(error);
            else resolve(subscription.channel);
          };
        });
        this.#subscriptions.set(name, subscription);
        if (this.#state === "open") this.#requestSubscription(subscription);
      }
      return this.#subscriptions.get(name).ready;
    }

    async unsubscribe(name) {
      if (!this.#subscriptions.has(name)) return;
      this.#forget(name, makeError("SocketClosedError", `unsubscribed from "${name}"`));
      const engine = this.#engine;
      if (this.#state !== "open") return;
      await this.call("#unsubscribe", name).catch((error) => {
        if (this.#engine === engine) throw error; // else the connection's end has ended the subscription, too
      });
    }

    /** Throw the auth token away, here and, while there is a connection, at the server. */
    async deauthenticate() {
      this.#keepToken(null);
      if (this.#state === "open") await this.call("#removeAuthToken");
    }

    /** Connect after disconnect(); while a reconnection waits for its time, try at once. */
    connect() {
      if (this.#state === "closed") {
        this.#state = "connecting";
        this.#attempt = this.#failures = 0;
        if (root.addEventListener) root.addEventListener("online", this.#tryNow);
        this.#open();
      } else {
        this.#tryNow();
      }
      return this;
    }

    /** Close, and stay closed until connect(). */
    disconnect() {
      if (this.#state !== "closed") this.#leave(CODE.NORMAL, "disconnect() was called");
      return this;
    }

    // -- listeners

    #heard(event) {
      return this.#listeners.get(event) || [];
    }

    #listen(event, listener) {
      this.#listeners.set(event, [...this.#heard(event), listener]);
      return this;
    }

    /** Call the listeners in order; the result is a promise of each one's result. */
    #fire(event, data) {
      return this.#heard(event).map((listener) => {
        if (listener.once) this.#listeners.set(event, this.#heard(event).filter((one) => one !== listener));
        return attempt(listener.fn, data);
      });
    }

    /** Make sure that what a listener threw is seen: by the error listeners, else as an uncaught error. */
    #watch(results) {
      for (const result of results) {
        result.catch((error) => {
          if (this.#heard("error").length) this.#tell("error", error);
          else throwLater(error);
        });
      }
    }

    #tell(event, data) {
      const results = this.#fire(event, data);
      if (event === "error") for (const result of results) result.catch(throwLater);
      else this.#watch(results);
    }

    // -- connection

    #open() {
      clearTimeout(this.#retryTimer);
      this.#retryTimer = undefined;
      const { transports, connectTimeout, auth } = this.#options;
      const transport = transports[0] === "polling" ? "polling" : transports[this.#failures % transports.length];
      const authToken = this.#loadToken() || Object(auth).authToken || null; // what the server gave goes first
      const handshake = { event: "#handshake", data: { ...auth, authToken }, cid: HANDSHAKE_CID };
      const engine = new Engine(this.#options, transport, {
        open: () => engine.send(JSON.stringify(handshake)),
        message: (text) => this.#receive(engine, text),
        upgrade: (name) => this.#tell("upgrade", name),
        close: (code, reason) => this.#leave(code, reason, true),
      });
      this.#engine = engine;
      const late = () => this.#leave(CODE.ABNORMAL, `no connection in ${connectTimeout} ms`, true);
      this.#connectTimer = setTimeout(late, connectTimeout);
    }

    #opened(data) {
      clearTimeout(this.#connectTimer);
      this.#state = "open";
      this.#attempt = this.#failures = 0;
      this.#id = data.id;
      this.#recovered = data.recovered === true;
      const waiting = this.#queue.splice(0);
      for (const subscription of this.#subscriptions.values()) this.#requestSubscription(subscription);
      this.#queue = waiting;
      while (this.#queue.length && this.#state === "open") this.#transmit(this.#queue.shift());
      if (this.#state === "open") this.#tell("connect", { id: this.#id });
      if (data.authError) this.#tell("error", remoteError(data.authError));
    }

    /** The connection ends, or could not be made. */
    #leave(code, reason, wanted = false) {
      const wasOpen = this.#state === "open";
      if (wanted && this.#announced) ({ code, reason } = this.#announced);
      const willReconnect = wanted && this.#options.reconnection && code !== CODE.NORMAL && code < CODE.PERMANENT;
      if (this.#engine) this.#engine.close();
      this.#engine = this.#id = this.#announced = null;
      this.#state = willReconnect ? "connecting" : "closed";
      clearTimeout(this.#connectTimer);
      clearTimeout(this.#retryTimer);
      this.#retryTimer = undefined;
      this.#failures += wasOpen ? 0 : 1;
      this.#rejectWaiting(makeError("SocketClosedError", `the connection ended: ${reason}`), willReconnect);
      if (!willReconnect && root.removeEventListener) root.removeEventListener("online", this.#tryNow);

      if (wasOpen) this.#tell("disconnect", { code, reason, willReconnect });
      else if (wanted) this.#tell("error", makeError("ConnectError", reason));
      const untouched = this.#state === "connecting" && !this.#engine && !this.#retryTimer;
      if (untouched) this.#retry(wasOpen && (code === CODE.GOING_AWAY || code === CODE.RESTART));
    }

    #retry(soon) {
      const { reconnectionDelay, reconnectionDelayMax, randomizationFactor: spread } = this.#options;
      const base = Math.min(reconnectionDelay * 2 ** this.#attempt, reconnectionDelayMax / (1 + spread));
      const delay = Math.round(soon ? 200 * Math.random() : base * (1 + spread * (2 * Math.random() - 1)));
      this.#attempt += 1;
      this.#retryTimer = setTimeout(() => this.#open(), delay);
      this.#tell("reconnecting", { attempt: this.#attempt, delay });
    }

    /** What was sent may have been handled, so it is not repeated; what was not sent waits, if there is anything to wait for. */
    #rejectWaiting(error, onlySent) {
      for (const [cid, { sent }] of this.#calls) if (sent || !onlySent) this.#settle(cid, error);
      if (onlySent) return;
      for (const [name, { active }] of this.#subscriptions) if (!active) this.#forget(name, error);
    }

    // -- messages

    #enqueue(item) {
      if (this.#state === "open" && !this.#queue.length) return this.#transmit(item);
      if (this.#queue.push(item) > QUEUE_LIMIT) {
        this.#drop(this.#queue.shift(), makeError("QueueFullError", `more than ${QUEUE_LIMIT} messages wait`));
      }
    }

    #transmit(item) {
      const error = tooLarge(item.text, this.#engine.maxPayload);
      if (error) return this.#drop(item, error);
      if (item.cid) this.#calls.get(item.cid).sent = true;
      this.#engine.send(item.text);
    }

    #drop(item, error) {
      if (item.cid) this.#settle(item.cid, error);
      this.#tell("error", error);
    }

    #settle(cid, error, data) {
      const call = this.#calls.get(cid);
      if (!call) return; // the answer came after the time-out
      this.#calls.delete(cid);
      clearTimeout(call.timer);
      if (!call.sent) this.#queue = this.#queue.filter((item) => item.cid !== cid);
      if (error) call.reject(error);
      else {
        call.answered(Object(data));
        call.resolve(data);
      }
    }

    #receive(engine, text) {
      if (text === "") return engine.send(""); // SocketCluster's own heartbeat
      try {
        const messages = JSON.parse(text);
        for (const message of Array.isArray(messages) ? messages : [messages]) {
          if (this.#engine === engine) this.#dispatch(engine, Object(message));
        }
      } catch (error) {
        this.#tell("error", makeError("ProtocolError", error.message));
      }
    }

    #dispatch(engine, { event, data, cid, rid, error }) {
      if (rid === HANDSHAKE_CID && this.#state === "connecting") {
        if (error) this.#leave(error.statusCode || CODE.ABNORMAL, remoteError(error).message, true);
        else this.#opened(Object(data));
      } else if (rid !== undefined) {
        this.#settle(rid, error && remoteError(error), data);
      } else if (event === "#publish") {
        const subscription = this.#subscriptions.get(data.channel);
        if (subscription && follows(subscription.offset, data.offset)) {
          if (data.offset) subscription.offset = data.offset;
          this.#watch(subscription.deliver(data.data));
        }
      } else if (event === "#kickOut") {
        this.#forget(data.channel, makeError("KickedOutError", data.message));
        this.#tell("kickOut", data);
      } else if (event === "#setAuthToken" || event === "#removeAuthToken") {
        this.#keepToken(event === "#setAuthToken" ? String(data.token) : null);
        if (cid !== undefined) engine.send(JSON.stringify({ rid: cid }));
      } else if (event === "#disconnect") {
        if (Number.isInteger(data.code)) this.#announced = { code: data.code, reason: data.reason || "" };
      } else if (typeof event !== "string" || BUILT_IN.has(event)) {
        throw new Error(`the server sent ${JSON.stringify(event)} as an event`);
      } else {
        const results = this.#fire(event, data);
        if (cid === undefined) this.#watch(results);
        else this.#answer(engine, cid, event, results);
      }
    }

    // -- the auth token

    #loadToken() {
      const { tokenStorage, tokenName } = this.#options;
      try {
        return tokenStorage ? tokenStorage.getItem(tokenName) : this.#token;
      } catch {
        return this.#token; // the page may not use the storage
      }
    }

    #keepToken(token) {
      const { tokenStorage, tokenName } = this.#options;
      const before = this.#loadToken();
      this.#token = token;
      try {
        if (tokenStorage && token === null) tokenStorage.removeItem(tokenName);
        else if (tokenStorage) tokenStorage.setItem(tokenName, token);
      } catch (error) {
        this.#tell("error", error);
      }
      if (token !== before) this.#tell("authTokenChange", { token, claims: claimsOf(token) });
    }

    /** Answer a call of the server's with what the last listener gives. */
    async #answer(engine, rid, event, results) {
      const last = results.pop() || Promise.reject(makeError("NoHandlerError", `nobody handles "${event}" here`));
      this.#watch(results);
      const text = await last
        .then((data) => {
          const answer = JSON.stringify({ rid, data });
          const error = tooLarge(answer, engine.maxPayload);
          if (error) throw error;
          return answer;
        })
        .catch((error) => {
          const { name, message } = remoteError(error);
          return JSON.stringify({ rid, error: { name, message } });
        });
      if (this.#engine === engine) engine.send(text);
    }

    // -- subscriptions

    /** Subscribe; what came after the last message comes first, and what of it is gone, the answer tells. */
    #requestSubscription(subscription) {
      const { name } = subscription.channel;
      const engine = this.#engine;
      const { ackTimeout } = this.#options;
      const told = ({ offset = null, missing = null, reset = false }) => {
        if (missing || reset || !subscription.offset) subscription.offset = offset;
        if (missing || reset) this.#tell("gap", { channel: name, missing });
      };
      const current = () => this.#engine === engine && this.#subscriptions.get(name) === subscription;
      this.#call("#subscribe", { channel: name, since: subscription.offset }, ackTimeout, told).then(
        () => {
          subscription.active = true;
          subscription.settle();
        },
        (error) => {
          if (!current()) return; // it's made again with the next connection, or nobody wants it any more
          if (subscription.active) this.#tell("error", error);
          this.#forget(name, error);
        },
      );
    }

    #forget(name, error) {
      const subscription = this.#subscriptions.get(name);
      this.#subscriptions.delete(name);
      if (subscription) subscription.settle(error);
    }
  }

  const api = { connect: (options = {}) => new Socket(checkOptions(options)).connect() };
  if (typeof module === "object" && module.exports) module.exports = api;
  else root.socketCluster = api;
})(typeof globalThis === "undefined" ? self : globalThis);
