"use strict";
// A process that has used clients, disconnected them, and ends if nothing of theirs keeps it.

const WebSocket = require("ws");
const { connect } = require("../socketcluster.js");

const [url, transports] = process.argv.slice(2);
const far = { reconnectionDelay: 1e6, reconnectionDelayMax: 1e6 };

// one whose reconnection waits, for nobody listens on port 9
const refused = connect({ url: "http://127.0.0.1:9", ...far });
refused.on("reconnecting", () => {
  console.log("refused");
  refused.call("never", 1, { timeout: 1e6 }).catch(() => {});
  refused.disconnect();

  // one that was connected, with things under way
  const socket = connect({ url, WebSocket, ...JSON.parse(transports) });
  socket.on("connect", () => {
    console.log("connected");
    socket.call("never", 1, { timeout: 1e6 }).catch(() => {});
    socket.subscribe("c").catch(() => {});
    socket.disconnect();
  });
});
