// ws on Node.js, with no protocol but JSON: an acknowledged event, and rooms in a Map.
"use strict";
const { WebSocketServer } = require("ws");
const { serve } = require("./serving.cjs");

const rooms = new Map();

const handle = (socket, text) => {
  const { event, data, cid, room } = JSON.parse(text);
  if (event === "say") {
    const message = Buffer.from(JSON.stringify({ event: "said", data })); // a text is converted once a member
    for (const member of rooms.get(room) ?? []) member.send(message, { binary: false });
    return;
  }
  if (event === "join") {
    if (!rooms.has(data)) rooms.set(data, new Set());
    rooms.get(data).add(socket);
    socket.on("close", () => rooms.get(data).delete(socket));
  }
  socket.send(JSON.stringify({ rid: cid, data: event === "where" ? `process${process.pid}` : data }));
};

serve((server) => {
  const sockets = new WebSocketServer({ server, perMessageDeflate: false });
  sockets.on("connection", (socket) => {
    socket.on("error", () => {});
    socket.on("message", (text) => handle(socket, text));
  });
});
