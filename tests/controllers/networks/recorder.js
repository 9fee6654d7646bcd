/**
 * A client that calls, emits and listens all the time, and records what it sees; in a page and in Node.
 * What it has seen at the end is judged by tests/networks/judge.py.
 */
(function (root) {
  "use strict";

  const EMIT = /"emit (\d+)"/g;
  const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

  class Recorder {
    messages = []; // of the channel
    gaps = [];
    calls = {}; // number: what became of it, a list: ["answered", data] or ["rejected", error's name, its message]
    events = []; // in order: ["emit", number], ["told", error's name, number of the emit], ["connect"], ["disconnect", code, reason] ...
    handed = []; // numbers of the emits that were given to fetch or to a WebSocket, each time
    uncaught = []; // exceptions and rejections that nobody handled
    subscribed = false;
    #run;
    #client;
    #channel;
    #number = 0;
    #timer;

    /**
     * @param {object} how - run, client, channel: names; options: of the client, transports among them.
     * @param {object} platform - connect, fetch and WebSocket, if there is one.
     */
    constructor({ run, client, channel, options }, { connect, fetch, WebSocket }) {
      this.#run = run;
      this.#client = client;
      this.#channel = channel;
      const hand = (data) => {
        for (const [, number] of String(data).matchAll(EMIT)) this.handed.push(Number(number));
      };
      class Watched extends WebSocket {
        send(data) {
          hand(data);
          super.send(data);
        }
      }
      const watched = (url, how = {}) => {
        if (how.body) hand(how.body);
        return fetch(url, how);
      };
      this.socket = connect({ ...options, fetch: watched, WebSocket: Watched });
      const heard = (name, describe) => this.socket.on(name, (data) => this.events.push([name, ...describe(Object(data))]));
      heard("connect", ({ id }) => [id]);
      heard("upgrade", (transport) => [String(transport)]);
      heard("disconnect", ({ code, reason }) => [code, reason]);
      heard("reconnecting", ({ attempt, delay }) => [attempt, delay]);
      this.socket.on("error", ({ name, message, event }) => {
        const [, number] = /^emit (\d+)$/.exec(event) || [];
        this.events.push(number ? ["told", name, Number(number), message] : ["error", name, event, message]);
      });
      this.socket.on("gap", (gap) => this.gaps.push(gap));
      this.#subscribe();
    }

    async #subscribe() {
      for (;;) {
        try {
          const channel = await this.socket.subscribe(this.#channel);
          channel.on((data) => this.messages.push(data));
          this.subscribed = true;
          return;
        } catch (error) {
          this.events.push(["not subscribed", error.name, error.message]);
          await wait(100);
        }
      }
    }

    /** Make a call and an emit each `interval` ms; each third call has the server publish. */
    work(interval) {
      this.#timer = setInterval(() => {
        this.emit();
        this.call();
      }, interval);
    }

    rest() {
      clearInterval(this.#timer);
    }

    emit() {
      const number = ++this.#number;
      this.events.push(["emit", number]);
      this.socket.emit(`emit ${number}`, { run: this.#run, client: this.#client });
    }

    async call() {
      const number = ++this.#number;
      const outcomes = (this.calls[number] = []);
      const channel = this.subscribed && number % 3 === 0 ? this.#channel : "";
      const data = { run: this.#run, client: this.#client, number, channel, seconds: (number % 5) * 0.02 };
      await this.socket.call("do", data).then(
        (answer) => outcomes.push(["answered", answer]),
        (error) => outcomes.push(["rejected", error.name, error.message]),
      );
      return outcomes[0][0] === "answered";
    }

    get state() {
      return this.socket.state;
    }

    get answered() {
      return Object.values(this.calls).filter((outcomes) => outcomes.some(([what]) => what === "answered")).length;
    }

    get unsettled() {
      return Object.values(this.calls).filter((outcomes) => !outcomes.length).length;
    }

    count(event) {
      return this.events.filter(([name]) => name === event).length;
    }

    get record() {
      const { messages, gaps, calls, events, handed, uncaught } = this;
      return { messages, gaps, calls, events, handed, uncaught };
    }
  }

  root.startRecorder = (how, platform) => {
    const recorder = new Recorder(how, platform);
    root.recorder = recorder;
    if (root.addEventListener) {
      root.addEventListener("unhandledrejection", ({ reason }) => recorder.uncaught.push(String(reason)));
      root.addEventListener("error", ({ message }) => recorder.uncaught.push(message));
      root.addEventListener("pageshow", ({ persisted }) => recorder.events.push([persisted ? "kept" : "shown"]));
    }
  };
})(globalThis);
