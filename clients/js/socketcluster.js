/*!
 * The browser client of SocketCluster for Python: SocketCluster messages on Engine.IO revision 4. A classic script that
 * sets `globalThis.socketCluster`, and a CommonJS module; socketcluster.d.ts describes what is public.
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
    connectTimeout: 20000,
    credentials: "same-origin",
    query: {},
    auth: null,
    tokenStorage: null,
    tokenName: "socketcluster.authToken",
    WebSocket: root.WebSocket,
    fetch: root.fetch,
  };
  const BUILT_IN = new Set(["connect", "disconnect", "reconnecting", "error", "upgrade", "kickOut", "gap", "authTokenChange"]);
  const TIMER_LIMIT = 0x7fffffff; // ms
  const QUEUE_LIMIT = 1000; // messages that wait for a connection
  const RETRY_TIME = 8000; // ms for which a request is sent again; the server waits for 10 s
  const STEADY_TIME = 5000; // ms after which a connection's end begins a new series of attempts
  const HEDGE_TIME = 3000; // ms after which an opening is asked for by another connection, too
  const PROOF_TIME = 10000; // ms in which a WebSocket that took over must bring something
  const BLOCKED_TIME = 300000; // ms without an upgrade after one that brought nothing
  const WATCH_TIME = 10000; // ms between looks at the clock: timers may sleep
  const SEPARATOR = "\x1e"; // between the packets of one polling payload
  const HANDSHAKE_CID = 1; // calls are numbered from the next on
  const PACKET = { OPEN: "0", CLOSE: "1", PING: "2", PONG: "3", MESSAGE: "4", UPGRADE: "5", NOOP: "6" };
  const OPEN = 1; // a WebSocket's readyState
  /** Errors of what a server cannot do now; any other is a refusal. */
  const TEMPORARY = /^(Timeout|StoreUnavailable|PartitionUnavailable|ResultLost|Broker|InternalServer)Error$/;
  const CODE = { NORMAL: 1000, GOING_AWAY: 1001, NO_STATUS: 1005, ABNORMAL: 1006, RESTART: 1012, PERMANENT: 4500 };

  function makeError(name, message, more) {
    return Object.assign(new Error(message), { name }, more);
  }

  /** Make an Error of what the server sent. */
  function remoteError(error) {
    const { name = "Error", message = String(error), data } = Object(error);
    return makeError(name, message, data === undefined ? {} : { data });
  }

  function byteLength(text) {
    return new TextEncoder().encode(text).length;
  }

  function tooLarge(text, limit) {
    const size = 1 + (text.length * 3 < limit ? text.length : byteLength(text));
    return size <= limit ? null : makeError("MessageTooLargeError", `${size} bytes; the server takes ${limit}`);
  }

  function checkOptions(given) {
    const unknown = Object.keys(given).find((name) => !Object.hasOwn(DEFAULTS, name));
    if (unknown) throw new TypeError(`unknown option "${unknown}"; there are ${Object.keys(DEFAULTS).join(", ")}`);
    const set = Object.entries(given).filter(([, value]) => value !== undefined);
    const options = { ...DEFAULTS, ...Object.fromEntries(set) };
    for (const [name, value] of Object.entries(options)) {
      if (typeof DEFAULTS[name] === "number") checkNumber(name, value);
    }
    const { transports } = options;
    if (!/^(omit|same-origin|include)$/.test(options.credentials)) {
      throw new TypeError("credentials must be omit, same-origin or include");
    }
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
    const most = name === "randomizationFactor" ? 1 : TIMER_LIMIT;
    if (typeof value === "number" && value >= 0 && value <= most) return;
    throw new TypeError(`${name} must be a number from 0 to ${most}`);
  }

  function checkData(data, more) {
    if (!more.length && typeof data !== "function") return;
    throw new TypeError("an event has one value (put several into a list) and no callback (use call)");
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

  async function attempt(fn, data) {
    return fn(data);
  }

  function throwLater(error) {
    queueMicrotask(() => {
      throw error;
    });
  }

  function numberOf(offset) {
    return Number(offset.split("-")[1]);
  }

  /** @returns {number} NaN: the offsets are of two epochs (0 is any) */
  function steps(seen, offset) {
    const [epoch, itsEpoch] = [seen, offset].map((one) => one.split("-")[0]);
    return epoch === itsEpoch || epoch === "0" ? numberOf(offset) - numberOf(seen) : NaN;
  }

  function claimsOf(token) {
    try {
      const payload = atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/"));
      return JSON.parse(new TextDecoder().decode(Uint8Array.from(payload, (character) => character.charCodeAt(0))));
    } catch {
      return null;
    }
  }

  function itemsOf(entries) {
    return entries.map(({ item }) => item).filter(Boolean);
  }

  function ignore() {}

  /** One Engine.IO connection, from its opening to its end, whatever carries it meanwhile. */
  class Engine {
    transport;
    maxPayload = Infinity;
    isHeard = false;
    #options;
    #report; // open(), message(text), upgrade(transport), lost(items), close(code, reason, left): the owner's
    #upgrades; // may it move to a WebSocket?
    #hedge; // may the browser have kept dead connections?
    #sid = null;
    #closed = false;
    #outbox = []; // [{ packet, item }] not yet given to a transport; items are the owner's
    #getting = false;
    #posting = []; // what the POST in flight carries
    #paused = false; // for the upgrade nothing new is sent or asked for
    #numbered = false; // does the server know requests by numbers, so that they may be repeated?
    #numbers = { GET: 0, POST: 0 };
    #webSocket = null;
    #handed = []; // [{ end, item }] that the WebSocket may still hold; end: in bytes since its beginning
    #bytes = 0; // that the WebSocket was given
    #probe = null; // { webSocket, timer } of the upgrade under way
    #stops = new Set(); // of requests and pauses
    #aborted = false;
    #leaving = false;
    #silence = 0; // ms without a packet after which the server counts as lost
    #heard = { now: 0, date: 0 }; // when, by a clock that nobody sets, and one that never sleeps
    #proven = true; // has the WebSocket that took over brought anything?
    #timer;
    #proofTimer;

    constructor(options, { transport, upgrades, hedge }, report) {
      this.#options = options;
      this.#report = report;
      this.#upgrades = upgrades;
      this.#hedge = hedge;
      this.transport = transport;
      if (transport === "polling") this.#poll();
      else this.#start();
    }

    /** The end is reported with the items that were not sent, or perhaps not. */
    send(text, item) {
      this.#outbox.push({ packet: PACKET.MESSAGE + text, item });
      this.#flush();
    }

    /** Send what waits, tell the server, and end without a report. */
    close(leaving = false) {
      if (this.#closed) return;
      this.#stop();
      this.#leaving = leaving;
      if (this.#webSocket) {
        if (this.#sid) this.#webSocket.send(PACKET.CLOSE);
        this.#webSocket.close(CODE.NORMAL);
      } else if (this.#sid) {
        this.#timer = setTimeout(() => this.#abort(), this.#options.connectTimeout);
        this.#outbox.push({ packet: PACKET.CLOSE });
        this.#post();
      } else {
        this.#abort();
      }
    }

    lose(reason, doubt = 0) {
      this.#end(CODE.ABNORMAL, reason, { hedge: true, doubt });
    }

    /** Look whether the server has been silent for too long. */
    check() {
      if (this.#closed || !this.#sid) return;
      clearTimeout(this.#timer);
      const { now, date } = this.#heard;
      const left = this.#silence - Math.max(performance.now() - now, Date.now() - date);
      if (left <= 0) this.lose(`nothing heard for ${this.#silence} ms`, 2);
      else this.#timer = setTimeout(() => this.check(), Math.min(left, WATCH_TIME));
    }

    #end(code, reason, { hedge = false, doubt = 1 } = {}) {
      if (this.#closed) return;
      const { bufferedAmount = 0 } = this.#webSocket || {};
      const buffered = this.#handed.filter(({ end }) => end > this.#bytes - bufferedAmount);
      this.#stop();
      this.#abort();
      if (this.#webSocket) this.#webSocket.close();
      const left = {
        unsent: itemsOf(this.#outbox.splice(0)),
        doubtful: itemsOf([...this.#posting.splice(0), ...buffered]),
        doubt: this.#proven ? 0 : doubt,
        hedge,
      };
      this.#report.close(code, reason, left);
    }

    #stop() {
      this.#closed = true;
      clearTimeout(this.#timer);
      clearTimeout(this.#proofTimer);
      this.#giveUpgradeUp();
    }

    #receive(packet) {
      if (this.#closed) return;
      this.#heard = { now: performance.now(), date: Date.now() };
      if (!this.#proven && this.#webSocket) {
        this.#proven = true;
        clearTimeout(this.#proofTimer);
      }
      const data = packet.slice(1);
      if ((packet[0] === PACKET.OPEN) === Boolean(this.#sid)) return this.#refuse(packet);
      switch (packet[0]) {
        case PACKET.OPEN:
          return this.#opened(data);
        case PACKET.CLOSE:
          return this.#end(CODE.NO_STATUS, "the server closed the connection");
        case PACKET.PING:
          this.#outbox.push({ packet: PACKET.PONG + data });
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
      const { sid, upgrades = [], pingInterval, pingTimeout, maxPayload = Infinity, numbered } = Object(open);
      this.#silence = pingInterval + pingTimeout;
      if (!sid || !(this.#silence > 0)) return this.#refuse(text);
      this.#sid = sid;
      this.isHeard = true;
      this.#numbered = numbered === true;
      this.maxPayload = maxPayload;
      this.check();
      this.#report.open();
      const wanted = this.transport === "polling" && this.#upgrades && this.#options.WebSocket;
      if (wanted && upgrades.includes("websocket") && !this.#closed) this.#upgrade();
    }

    #flush() {
      if (this.#closed || this.#paused || !this.#sid) return;
      if (this.transport === "polling") this.#post();
      else for (const entry of this.#outbox.splice(0)) this.#hand(entry);
    }

    #url(transport, number) {
      const url = new URL(this.#options.url);
      url.protocol = url.protocol.replace(/^(http|ws)/, transport === "websocket" ? "ws" : "http");
      const query = { ...this.#options.query, EIO: "4", transport };
      if (this.#sid) query.sid = this.#sid;
      if (number !== undefined) query.seq = number;
      for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
      return url.href;
    }

    // -- polling

    async #poll() {
      if (this.#getting) return;
      this.#getting = true;
      try {
        do {
          const payload = await (this.#sid ? this.#request("GET") : this.#ask());
          for (const packet of payload.split(SEPARATOR)) this.#receive(packet);
        } while (!this.#closed && !this.#paused);
      } catch (error) {
        this.#fail(error);
      }
      this.#getting = false;
      this.#switchWhenQuiet();
    }

    async #post() {
      if (this.#posting.length) return;
      this.#posting = [{}];
      try {
        await null; // what is emitted in one go travels together
        while (this.#outbox.length && !this.#paused) {
          this.#posting = this.#takePayload();
          await this.#request("POST", this.#posting.map(({ packet }) => packet).join(SEPARATOR));
        }
      } catch (error) {
        if (this.#closed) this.#report.lost(itemsOf([...this.#posting, ...this.#outbox.splice(0)]));
        this.#fail(error);
      }
      this.#posting = [];
      if (!this.#closed) return this.#switchWhenQuiet();
      clearTimeout(this.#timer);
      this.#abort();
    }

    #fail(error) {
      const { message = error, cause } = Object(error);
      this.#end(CODE.ABNORMAL, String(Object(cause).message || message)); // Node has the reason there
    }

    #takePayload() {
      const sizeOf = ({ packet }) => byteLength(packet);
      let size = 0;
      let count = 0;
      do size += sizeOf(this.#outbox[count++]) + SEPARATOR.length;
      while (count < this.#outbox.length && size + sizeOf(this.#outbox[count]) <= this.maxPayload);
      return this.#outbox.splice(0, count);
    }

    /** Beside a request without an answer others take further connections. */
    async #ask() {
      const asked = [];
      do {
        asked.push(this.#fetch("GET", undefined, 0));
        const more = this.#hedge && asked.length < 4 ? [this.#pause(HEDGE_TIME)] : [];
        const text = await Promise.race([...asked, ...more]);
        if (!text) continue;
        for (const stop of this.#stops) stop();
        return text;
      } while (!this.#aborted);
      throw new Error("the connection has ended");
    }

    /** Send a request; where it has a number again and again, until there is an answer. */
    async #request(method, body) {
      const number = this.#numbered ? ++this.#numbers[method] : undefined;
      let failing; // since when
      for (let pause = 100; ; pause = Math.min(2 * pause, 2000)) {
        const begun = performance.now();
        try {
          return await this.#fetch(method, body, number);
        } catch (error) {
          const now = performance.now();
          if (failing === undefined || now - begun > RETRY_TIME) failing = now; // what waited for long had worked
          const { isFinal = false } = Object(error);
          if (!this.#numbered || this.#aborted || isFinal || now - failing > RETRY_TIME) throw error;
        }
        await this.#pause(pause * (0.5 + Math.random()));
        if (this.#aborted) throw new Error("the connection has ended");
      }
    }

    #pause(time) {
      return new Promise((resolve) => {
        const stop = () => {
          clearTimeout(timer);
          this.#stops.delete(stop);
          resolve();
        };
        const timer = setTimeout(stop, time);
        this.#stops.add(stop);
      });
    }

    async #fetch(method, body, number) {
      const { fetch, credentials } = this.#options; // no browser lets it be a method of another object
      const aborter = new AbortController();
      const stop = () => aborter.abort();
      this.#stops.add(stop);
      try {
        const how = { method, body, credentials, signal: aborter.signal, cache: "no-store", keepalive: this.#leaving };
        const response = await fetch(this.#url("polling", number), how);
        const { ok, status } = response;
        const text = await response.text();
        if (ok && (method === "GET" ? /^[0-6]/.test(text) : text === "ok")) return text; // else somebody on the way answers
        const isFinal = status >= 400 && status < 500 && status !== 408 && status !== 429;
        throw Object.assign(new Error(`${method} was answered ${status}: ${text.slice(0, 200)}`), { isFinal });
      } finally {
        this.#stops.delete(stop);
      }
    }

    #abort() {
      this.#aborted = true;
      for (const stop of this.#stops) stop();
      this.#stops.clear();
    }

    // -- WebSocket

    #start() {
      try {
        this.#adopt(this.#openWebSocket());
      } catch (error) {
        queueMicrotask(() => this.#fail(error));
      }
    }

    #openWebSocket() {
      const webSocket = new this.#options.WebSocket(this.#url("websocket"));
      webSocket.onerror = ignore; // a close event with the code follows
      return webSocket;
    }

    #adopt(webSocket) {
      this.#webSocket = webSocket;
      webSocket.onmessage = ({ data }) => this.#receive(String(data));
      webSocket.onclose = ({ code, reason }) => this.#end(code || CODE.ABNORMAL, reason || "the WebSocket was closed");
    }

    #hand({ packet, item }) {
      const sent = this.#bytes - (this.#webSocket.bufferedAmount || 0); // not every class has it
      while (this.#handed.length && this.#handed[0].end <= sent) this.#handed.shift();
      this.#bytes += byteLength(packet);
      this.#handed.push({ end: this.#bytes, item });
      this.#webSocket.send(packet);
    }

    /** Polling goes on until a WebSocket has answered. */
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

    /** Nothing is on its way over polling: the WebSocket can take over. */
    #switchWhenQuiet() {
      if (!this.#paused || this.#getting || this.#posting.length || this.#closed) return;
      if (this.#probe.webSocket.readyState !== OPEN) return this.#giveUpgradeUp();
      const webSocket = this.#endProbe();
      this.transport = "websocket";
      this.#adopt(webSocket);
      webSocket.send(PACKET.UPGRADE);
      if (this.#numbered) this.#prove();
      this.#flush();
      this.#report.upgrade(this.transport);
    }

    /** Some proxies let no more through than the opening. */
    #prove() {
      this.#proven = false;
      this.#proofTimer = setTimeout(() => this.lose("the WebSocket brings nothing", 2), PROOF_TIME);
    }
  }

  /** What subscribe() gives: the messages of one channel. */
  class Channel {
    name;
    #socket;
    #listeners = new Set();
    #held = []; // what came before the first listener did

    #watch;

    constructor(socket, name, watch, expose) {
      this.name = name;
      this.#socket = socket;
      this.#watch = watch;
      expose((data) => this.#deliver(data));
    }

    on(fn) {
      checkFunction(fn);
      this.#listeners.add(fn);
      const held = this.#held || [];
      this.#held = null;
      this.#watch(held.map((data) => attempt(fn, data)));
      return this;
    }

    off(fn) {
      if (fn === undefined) this.#listeners.clear();
      else this.#listeners.delete(fn);
      return this;
    }

    publish(data, ...more) {
      return this.#socket.publish(this.name, data, ...more);
    }

    unsubscribe() {
      return this.#socket.unsubscribe(this.name);
    }

    #deliver(data) {
      if (this.#held && this.#held.push(data) > QUEUE_LIMIT) this.#held.shift();
      this.#watch([...this.#listeners].map((fn) => attempt(fn, data)));
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
    #queue = []; // [{ text, event, cid, bound }] that wait for a connection; cid only for a call
    #calls = new Map(); // cid: { resolve, reject, promise, answered, timer, sent }
    #lastCid = HANDSHAKE_CID;
    #subscriptions = new Map(); // channel name: see subscribe()
    #announced = null; // { code, reason } of the server's #disconnect
    #attempt = 0;
    #openedAt;
    #dropping = false;
    #failures = 0; // connections in a row
    #polls = false; // has a connection by polling been answered?
    #doubt = 0; // that WebSockets get through
    #blockedAt = -Infinity; // when it was too much
    #hedge = false; // was the last connection lost in silence?
    #connectTimer;
    #retryTimer;
    #pageListeners;

    constructor(options) {
      this.#options = options;
      this.#pageListeners = {
        online: () => this.#online(),
        offline: () => this.#engine && this.#engine.lose("the browser is offline"),
        pagehide: ({ persisted }) => this.#pageHidden(persisted),
        pageshow: ({ persisted }) => persisted && this.#online(),
        visibilitychange: () => this.#engine && this.#engine.check(),
      };
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

    emit(event, data, ...more) {
      checkData(data, more);
      this.#enqueue({ text: JSON.stringify({ event: checkName(event), data }), event });
      return this;
    }

    call(event, data, options = {}, ...more) {
      const { timeout = this.#options.ackTimeout } = Object(options);
      return this.#call(event, data, { timeout, more: typeof options === "object" ? more : [options] });
    }

    /** `answered` hears of the answer before any later message; what is `bound` goes by this connection only. */
    #call(event, data, { timeout = this.#options.ackTimeout, answered = ignore, bound = false, more = [] } = {}) {
      let call;
      const promise = new Promise((resolve, reject) => {
        checkNumber("timeout", timeout);
        checkData(data, more);
        const cid = ++this.#lastCid;
        const text = JSON.stringify({ event: checkName(event), data, cid });
        const late = () => this.#settle(cid, makeError("TimeoutError", `no answer to "${event}" in ${timeout} ms`));
        call = { resolve, reject, answered, timer: setTimeout(late, timeout), sent: false, item: { text, event, cid, bound } };
      });
      if (call) {
        call.promise = promise;
        this.#calls.set(call.item.cid, call);
        this.#enqueue(call.item);
      }
      return promise;
    }

    publish(channel, data, ...more) {
      return this.#call("#publish", { channel, data }, { more: typeof data === "function" ? [data] : more });
    }

    subscribe(name) {
      if (!this.#subscriptions.has(name)) {
        const subscription = {
          active: false, // has it been made once?
          offset: null, // "epoch-number" of the last message
          skips: false, // does the server leave out what is too much, on purpose?
          held: [], // behind a gap, while the server is asked
          asking: false,
          askedAt: null, // the offset behind which a gap was asked for last
          failures: 0, // in a row
        };
        subscription.channel = new Channel(this, name, (results) => this.#watch(results), (fn) => (subscription.deliver = fn));
        subscription.ready = new Promise((resolve, reject) => {
          const { ackTimeout } = this.#options;
          const late = () => {
            subscription.settle(makeError("TimeoutError", `not subscribed to "${name}" in ${ackTimeout} ms`));
            this.unsubscribe(name).catch(ignore);
          };
          const timer = setTimeout(late, ackTimeout);
          subscription.settle = (error) => {
            clearTimeout(timer);
            if (!error) return resolve(subscription.channel);
            if (error.name === "SocketClosedError") subscription.ready.catch(ignore);
            return reject(Object.assign(error, { channel: name }));
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
      if (this.#state !== "open") return;
      await this.#request("#unsubscribe", name).catch((error) => {
        if (error.name !== "BrokerError") throw error; // the server had no subscription
      });
    }

    async deauthenticate() {
      this.#keepToken(null);
      if (this.#state === "open") await this.#request("#removeAuthToken");
    }

    /** Ask for what the connection's end brings about, too. */
    async #request(event, data) {
      const engine = this.#engine;
      await this.#call(event, data, { bound: true }).catch((error) => {
        if (this.#engine === engine) throw error;
      });
    }

    connect() {
      if (this.#state === "closed") {
        this.#state = "connecting";
        this.#attempt = this.#failures = 0;
        this.#watchPage("addEventListener");
        this.#open();
      } else if (this.#retryTimer) {
        this.#open();
      }
      return this;
    }

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

    #fire(event, data) {
      return this.#heard(event).map((listener) => {
        if (listener.once) this.#listeners.set(event, this.#heard(event).filter((one) => one !== listener));
        return attempt(listener.fn, data);
      });
    }

    /** What a listener threw is an error event, else an uncaught error. */
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

    // -- the page

    #watchPage(how) {
      for (const [event, listener] of Object.entries(this.#pageListeners)) if (root[how]) root[how](event, listener);
    }

    /** Neither wait, nor trust what was begun before. */
    #online() {
      if (this.#state !== "connecting") {
        if (this.#engine) this.#engine.check();
      } else if (this.#retryTimer) {
        this.#open();
      } else if (this.#engine && !this.#engine.isHeard) {
        this.#engine.close();
        this.#open();
      }
    }

    /** A connection would keep browsers from holding the page. */
    #pageHidden(persisted) {
      if (!this.#engine) return;
      this.#engine.close(true);
      if (persisted) this.#leave(CODE.GOING_AWAY, "the page was left", { wanted: true });
    }

    // -- connection

    #open() {
      clearTimeout(this.#retryTimer);
      clearTimeout(this.#connectTimer);
      this.#retryTimer = undefined;
      const { transports, connectTimeout, auth } = this.#options;
      const isBlocked = performance.now() - this.#blockedAt < BLOCKED_TIME;
      const isSure = isBlocked || (this.#polls && transports[0] === "polling");
      const usable = isSure && transports[1] ? ["polling"] : transports;
      const transport = usable[this.#failures % usable.length];
      const how = { transport, upgrades: transports.includes("websocket") && !isBlocked, hedge: this.#hedge };
      const authToken = this.#loadToken() || Object(auth).authToken || null;
      const handshake = { event: "#handshake", data: { ...auth, authToken }, cid: HANDSHAKE_CID };
      const watch = () => {
        const doubt = transport === "websocket" && engine.isHeard ? 2 : 0; // it opens, and brings no more
        const late = () => this.#leave(CODE.ABNORMAL, `no connection in ${connectTimeout} ms`, { wanted: true, doubt });
        clearTimeout(this.#connectTimer);
        this.#connectTimer = setTimeout(late, connectTimeout);
      };
      const engine = new Engine(this.#options, how, {
        open: () => {
          this.#polls ||= transport === "polling";
          watch(); // the rest may take as long again
          engine.send(JSON.stringify(handshake));
        },
        message: (text) => this.#receive(engine, text),
        upgrade: (name) => this.#tell("upgrade", name),
        lost: (items) => this.#tellLost(items, "may not have arrived"),
        close: (code, reason, left) => this.#leave(code, reason, { wanted: true, ...left }),
      });
      this.#engine = engine;
      watch();
    }

    #opened(data) {
      clearTimeout(this.#connectTimer);
      this.#state = "open";
      this.#failures = 0;
      this.#openedAt = performance.now();
      this.#id = data.id;
      this.#recovered = data.recovered === true;
      const waiting = this.#queue.splice(0);
      for (const subscription of this.#subscriptions.values()) this.#requestSubscription(subscription);
      this.#queue = waiting;
      while (this.#queue.length && this.#state === "open") this.#transmit(this.#queue.shift());
      if (this.#state === "open") this.#tell("connect", { id: this.#id });
      if (data.authError) this.#tell("error", remoteError(data.authError));
    }

    /** The connection ends; `wanted`: not by disconnect(). */
    #leave(code, reason, { wanted = false, cause, unsent = [], doubtful = [], doubt = 0, hedge = false } = {}) {
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
      const isSteady = code === CODE.ABNORMAL || performance.now() - this.#openedAt > STEADY_TIME;
      if (wasOpen && isSteady) this.#attempt = 0; // else a server ends whatever it opens
      this.#doubt = doubt && this.#doubt + doubt;
      if (this.#doubt > 1) this.#blockedAt = performance.now();
      this.#hedge = hedge;
      this.#takeBack(unsent);
      this.#rejectWaiting(() => makeError("SocketClosedError", `the connection ended: ${reason}`), willReconnect);
      const waiting = willReconnect ? [] : this.#queue.splice(0);
      if (!willReconnect) this.#watchPage("removeEventListener");

      if (wasOpen) this.#tell("disconnect", { code, reason, willReconnect });
      else if (wanted) this.#tell("error", makeError("ConnectError", reason, { code, willReconnect, cause }));
      this.#tellLost(doubtful, "may not have arrived");
      this.#tellLost(waiting, "was not sent");
      const untouched = this.#state === "connecting" && !this.#engine && !this.#retryTimer;
      if (untouched) this.#retry(!this.#attempt && wasOpen && (code === CODE.GOING_AWAY || code === CODE.RESTART));
    }

    #takeBack(items) {
      const kept = items.filter(({ cid, bound }) => !bound && (!cid || this.#calls.has(cid)));
      for (const { cid } of kept) if (cid) this.#calls.get(cid).sent = false;
      this.#queue = [...kept, ...this.#queue];
      this.#trim();
    }

    /** Calls are rejected, emits told. */
    #tellLost(items, what) {
      for (const { event, cid } of items) {
        if (!cid) this.#tell("error", makeError("SocketClosedError", `"${event}" ${what}`, { event }));
      }
    }

    #retry(soon) {
      const { reconnectionDelay, reconnectionDelayMax, randomizationFactor: spread } = this.#options;
      const base = Math.min(reconnectionDelay * 2 ** this.#attempt, reconnectionDelayMax / (1 + spread));
      const delay = Math.round(soon ? 200 * Math.random() : base * (1 + spread * (2 * Math.random() - 1)));
      this.#attempt += 1;
      this.#retryTimer = setTimeout(() => this.#open(), delay);
      this.#tell("reconnecting", { attempt: this.#attempt, delay });
    }

    /** What was sent may have been handled, and is not repeated. */
    #rejectWaiting(makeOne, onlySent) {
      for (const [cid, { sent, item }] of this.#calls) if (sent || item.bound || !onlySent) this.#settle(cid, makeOne());
      for (const [name, subscription] of this.#subscriptions) {
        subscription.asking = false;
        clearTimeout(subscription.retryTimer);
        if (!onlySent && !subscription.active) this.#forget(name, makeOne());
      }
    }

    // -- messages

    #enqueue(item) {
      if (this.#state === "open" && !this.#queue.length) return this.#transmit(item);
      this.#queue.push(item);
      return this.#trim();
    }

    #trim() {
      while (this.#queue.length > QUEUE_LIMIT) {
        const item = this.#dropping ? this.#queue.pop() : this.#queue.shift();
        this.#drop(item, makeError("QueueFullError", `more than ${QUEUE_LIMIT} messages wait`));
      }
    }

    #transmit(item) {
      const error = tooLarge(item.text, this.#engine.maxPayload);
      if (error) return this.#drop(item, error);
      if (item.cid) this.#calls.get(item.cid).sent = true;
      this.#engine.send(item.text, item);
    }

    #drop({ cid, event }, error) {
      if (cid) return this.#settle(cid, error);
      if (this.#dropping) return; // by an error listener that emits
      this.#dropping = true;
      this.#tell("error", Object.assign(error, { event }));
      this.#dropping = false;
    }

    #settle(cid, error, data) {
      const call = this.#calls.get(cid);
      if (!call) return; // the answer came late
      this.#calls.delete(cid);
      clearTimeout(call.timer);
      if (!call.sent) this.#queue = this.#queue.filter((item) => item.cid !== cid);
      if (error) {
        if (error.name === "SocketClosedError") call.promise.catch(ignore); // perhaps nobody asked
        call.reject(error);
      } else {
        call.resolve(data);
        call.answered(Object(data));
      }
    }

    #receive(engine, text) {
      if (text === "") return engine.send("");
      let messages;
      try {
        messages = JSON.parse(text);
      } catch (error) {
        return this.#tell("error", makeError("ProtocolError", error.message));
      }
      for (const message of Array.isArray(messages) ? messages : [messages]) {
        if (this.#engine !== engine) return undefined;
        try {
          this.#dispatch(engine, Object(message));
        } catch (error) {
          this.#tell("error", makeError("ProtocolError", error.message));
        }
      }
    }

    #dispatch(engine, { event, data, cid, rid, error }) {
      if (rid === HANDSHAKE_CID && this.#state === "connecting") {
        if (error) this.#refused(remoteError(error), error.statusCode);
        else this.#opened(Object(data));
      } else if (rid !== undefined) {
        this.#settle(rid, error && remoteError(error), data);
      } else if (event === "#publish") {
        const subscription = this.#subscriptions.get(data.channel);
        if (subscription) this.#publication(subscription, data);
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
        return this.#token;
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

    /** Answer a call with what the last listener gives. */
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

    #refused(cause, code = CODE.ABNORMAL) {
      this.#leave(code, cause.message, { wanted: true, cause });
    }

    // -- subscriptions

    /** What came after the last message comes first. */
    #requestSubscription(subscription) {
      const { name } = subscription.channel;
      const engine = this.#engine;
      subscription.asking = true;
      subscription.held = [];
      const answered = (answer) => this.#subscribed(subscription, answer);
      this.#call("#subscribe", { channel: name, since: subscription.offset }, { answered, bound: true }).then(
        () => {
          subscription.active = true;
          subscription.settle();
        },
        (error) => {
          const isCurrent = this.#engine === engine && this.#subscriptions.get(name) === subscription;
          if (!isCurrent) return;
          const isRefused = !TEMPORARY.test(error.name);
          const isNews = isRefused || !subscription.failures++;
          if (isRefused) this.#forget(name, error);
          else this.#retrySubscription(subscription);
          if (subscription.active && isNews) this.#tell("error", Object.assign(error, { channel: name }));
        },
      );
    }

    #retrySubscription(subscription) {
      const { reconnectionDelay, reconnectionDelayMax } = this.#options;
      const delay = Math.min(reconnectionDelay * 2 ** subscription.failures, reconnectionDelayMax);
      subscription.retryTimer = setTimeout(() => this.#requestSubscription(subscription), delay * (0.5 + Math.random() / 2));
    }

    #subscribed(subscription, { offset = null, missing = null, reset = false, skips = false }) {
      const { held, offset: seen } = subscription;
      Object.assign(subscription, { held: [], asking: false, failures: 0, skips });
      if (!missing && !reset && seen) return; // all of it comes
      subscription.offset = offset;
      if (reset) this.#tellGap(subscription, null);
      let [next, last] = missing || [Infinity, 0];
      for (const one of held) {
        const number = numberOf(one.offset);
        if (!(steps(one.offset, offset) >= 0)) continue; // it comes again
        if (number > next) this.#tellGap(subscription, [next, number - 1]);
        next = number + 1;
        subscription.deliver(one.data);
      }
      if (next <= last) this.#tellGap(subscription, [next, last]);
    }

    #tellGap({ channel }, missing) {
      this.#tell("gap", { channel: channel.name, missing });
    }

    /** Deliver a message; what lies in a gap before it is asked for first, once. */
    #publication(subscription, { data, offset }) {
      const { offset: seen, skips, asking, askedAt, held } = subscription;
      const step = seen && offset ? steps(seen, offset) : 1;
      if (step <= 0) return; // it was delivered
      if (step !== 1 && !(skips && step > 1)) {
        if (asking && held.push({ data, offset }) > QUEUE_LIMIT) held.shift();
        if (asking) return;
        if (askedAt !== seen) {
          subscription.askedAt = seen;
          this.#requestSubscription(subscription);
          subscription.held.push({ data, offset });
          return;
        }
        const last = numberOf(offset) - 1;
        this.#tellGap(subscription, step > 1 ? [last - step + 2, last] : null);
      }
      if (offset) subscription.offset = offset;
      subscription.deliver(data);
    }

    #forget(name, error) {
      const subscription = this.#subscriptions.get(name);
      if (!subscription) return;
      this.#subscriptions.delete(name);
      clearTimeout(subscription.retryTimer);
      subscription.settle(error);
    }
  }

  function connect(url, options) {
    const isAddress = typeof url === "string" || "href" in Object(url);
    return new Socket(checkOptions(isAddress ? { ...options, url } : { ...url })).connect();
  }

  const api = { connect };
  api.default = api; // for who imports it from CommonJS
  if (typeof module === "object" && module.exports) module.exports = api;
  else root.socketCluster = api;
})(typeof globalThis === "undefined" ? self : globalThis);
