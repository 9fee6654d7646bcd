// Socket.IO on Node.js, as its page on performance advises: bufferutil beside ws, the first request not kept.
"use strict";
const { Server } = require("socket.io");
const { createAdapter, setupPrimary } = require("@socket.io/cluster-adapter");
const cluster = require("node:cluster");
const { HOUR, many, serve } = require("./serving.cjs");

const start = (httpServer) => {
  const io = new Server(httpServer, {
    transports: ["websocket"],
    perMessageDeflate: false,
    httpCompression: false,
    serveClient: false,
    pingInterval: HOUR,
    pingTimeout: HOUR,
  });
  if (many) io.adapter(createAdapter());
  io.engine.on("connection", (rawSocket) => {
    rawSocket.request = null;
  });
  io.on("connection", (socket) => {
    socket.on("echo", (data, acknowledge) => acknowledge(data));
    socket.on("where", (_, acknowledge) => acknowledge(`process${process.pid}`));
    socket.on("join", (room, acknowledge) => {
      socket.join(room);
      acknowledge();
    });
    socket.on("say", (room, data) => io.to(room).emit("said", data));
  });
};

serve(start, () => {
  setupPrimary();
  cluster.setupPrimary({ serialization: "advanced" });
});
