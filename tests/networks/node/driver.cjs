// Runs the recorder in Node: evaluates each line of its input, a JSON string, and prints what that gives as JSON.
const [, , client, recorder] = process.argv;
require(recorder);
globalThis.platform = { connect: require(client).connect, fetch, WebSocket: require("ws") };
process.on("unhandledRejection", (reason) => globalThis.recorder.uncaught.push(String(reason)));
process.on("uncaughtException", (error) => globalThis.recorder.uncaught.push(error.message));
require("node:readline")
  .createInterface({ input: process.stdin })
  .on("line", async (line) => {
    const value = await (0, eval)(JSON.parse(line));
    process.stdout.write(`${JSON.stringify(value ?? null)}\n`);
  })
  .on("close", () => process.exit(0));
