// SocketCluster on Node.js.
"use strict";
const socketClusterServer = require("socketcluster-server");
const { HOUR, serve } = require("./serving.cjs");

serve((httpServer) => {
  const server = socketClusterServer.attach(httpServer, {
    path: "/socketcluster/",
    pingInterval: HOUR,
    pingTimeout: HOUR,
    socketChannelLimit: 1_000_000,
    wsEngineServerOptions: { perMessageDeflate: false },
  });
  const answer = async (socket, name, data) => {
    for await (const request of socket.procedure(name)) request.end(data === undefined ? request.data : data);
  };
  (async () => {
    for await (const { socket } of server.listener("connection")) {
      answer(socket, "echo");
      answer(socket, "where", `process${process.pid}`);
    }
  })();
});
