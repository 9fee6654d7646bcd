// What the servers on Node.js share: node FILE PORT PROCESSES [CERT KEY]; prints "ready" when all processes listen.
"use strict";
const cluster = require("node:cluster");
const fs = require("node:fs");
const http = require("node:http");
const https = require("node:https");

const [, , port, processes, cert, key] = process.argv;

exports.HOUR = 3_600_000;
exports.many = Number(processes) > 1;

// `start(httpServer)` is called in each process that serves; `primary()` in the one that starts these, if they are many.
exports.serve = (start, primary = () => {}) => {
  if (exports.many && cluster.isPrimary) {
    primary();
    let listening = 0;
    cluster.on("listening", () => {
      listening += 1;
      if (listening === Number(processes)) console.log("ready");
    });
    for (let number = 0; number < Number(processes); number += 1) cluster.fork();
    return;
  }
  const server = cert ? https.createServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key) }) : http.createServer();
  start(server);
  server.listen({ port: Number(port), host: "127.0.0.1", backlog: 4096 }, () => {
    if (!exports.many) console.log("ready");
  });
};
