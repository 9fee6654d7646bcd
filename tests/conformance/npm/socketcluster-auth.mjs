// Drives npm's socketcluster-client through authentication, kicking out, batches and refusals; prints what it saw.
import socketClusterClient from "socketcluster-client";

const { hostname, port } = new URL(process.argv[2]);
const options = { hostname, port, ackTimeout: 30000 };
const seen = {};
const first = async (stream) => { for await (const value of stream) return value; };
const told = (error) => ({ name: error.name, message: error.message, isBadToken: error.isBadToken, data: error.data });

const one = socketClusterClient.create(options);
const connected = await one.listener("connect").once();
seen.fresh = [connected.isAuthenticated, connected.authError ?? null, one.authState];

// A channel that waits for authentication is subscribed to once there is some.
const members = one.subscribe("members", { waitForAuth: true, data: { ticket: 7 } });
await one.invoke("echo", 1);
seen.waiting = members.state;
const subscribed = members.listener("subscribe").once();
const authenticated = one.listener("authenticate").once();
seen.login = await one.invoke("login", { name: "Ann" });
await Promise.all([authenticated, subscribed]);
seen.authenticated = [one.authState, one.authToken.name, one.authToken.exp - one.authToken.iat, members.state];
seen.whoAmI = (await one.invoke("who am I")).name;

// Reconnecting brings the token along.
one.disconnect();
one.connect();
const again = await one.listener("connect").once();
seen.again = [again.isAuthenticated, one.authState, (await one.invoke("who am I")).name];
await members.listener("subscribe").once(5000).catch(() => null);

// Kicking out.
const kicked = members.listener("kickOut").once();
await one.invoke("kick me out", ["members", "you are noisy"]);
seen.kicked = (await kicked).message;
seen.afterKick = members.state;

// The server takes the token away, and a client does.
const removed = one.listener("removeAuthToken").once();
await one.invoke("log me out");
await removed;
seen.loggedOut = [one.authState, (await one.invoke("who am I")) ?? null];
const token = await one.invoke("make token", [{ name: "Bob" }, 60]);
seen.authenticate = await one.authenticate(token);
seen.bob = (await one.invoke("who am I")).name;
await one.deauthenticate();
seen.deauthenticated = [one.authState, (await one.invoke("who am I")) ?? null];
seen.heard = await one.invoke("auth events");

// Tokens that are not accepted.
const stale = await one.invoke("make token", [{ name: "Old" }, -5]);
seen.stale = await one.authenticate(stale).catch(told);
seen.garbage = await one.authenticate("a.b.c").catch(told);
seen.refused = await one.authenticate(await one.invoke("make token", [{ name: "Eve" }, 60]));
seen.refused.authError = told(seen.refused.authError);
const two = socketClusterClient.create({ ...options, autoConnect: false });
await two.auth.saveToken(two.options.authTokenName, stale);
const gone = two.listener("removeAuthToken").once();
two.connect();
const expired = await two.listener("connect").once();
await gone;
seen.expired = [expired.isAuthenticated, expired.authError.name, expired.authError.isBadToken, two.authState];
seen.dropped = await two.auth.loadToken(two.options.authTokenName);

// A token that runs out while its client is connected.
await two.invoke("login", { name: "Cid", exp: Date.now() / 1000 + 2 });
seen.shortLived = two.authState;
const out = two.listener("deauthenticate").once();
const asking = setInterval(() => two.transmit("who am I"), 50);
await out;
clearInterval(asking);
seen.ranOut = [two.authState, (await two.invoke("who am I")) ?? null];

// Batches, and what the middleware refuses.
two.startBatch();
const answers = [1, 2, 3].map((n) => two.invoke("echo", n));
const channels = ["a", "b"].map((name) => two.subscribe(name).listener("subscribe").once());
two.flushBatch();
seen.batch = await Promise.all(answers);
await Promise.all(channels);
seen.batched = two.subscriptions();
const fail = two.subscribe("forbidden").listener("subscribeFail").once();
seen.forbidden = told((await fail).error);
seen.unpublished = await two.invokePublish("forbidden", 1).catch(told);
const heard = first(two.channel("a"));
two.transmitPublish("a", "filtered");
two.transmitPublish("a", "plain");
seen.published = await heard;

const three = socketClusterClient.create({ ...options, query: { refuse: "yes" }, autoReconnect: false });
const error = three.listener("error").once();
const abort = await three.listener("connectAbort").once();
seen.handshake = [abort.code, (await error).error.name];
const four = socketClusterClient.create({ ...options, query: { ban: "yes" }, autoReconnect: false });
const banned = four.listener("error").once();
seen.banned = [(await four.listener("connectAbort").once()).code, (await banned).error.name];

// A token that the handshake's middleware gives: both sides agree at last, and after a reconnection too.
const five = socketClusterClient.create({ ...options, query: { login: "Dan" }, authTokenName: "Dan's" });
const given = five.listener("authenticate").once();
await five.listener("connect").once();
await given;
seen.given = [five.authState, five.authToken.name, (await five.invoke("who am I")).name];
five.disconnect();
five.connect();
seen.givenAgain = (await five.listener("connect").once()).isAuthenticated;
await five.listener("authenticate").once();
seen.givenAgain = [seen.givenAgain, five.authState, five.authToken.name, (await five.invoke("who am I")).name];
seen.nulls = [await five.invoke("null"), typeof (await five.invoke("nothing"))];

// A publication without data, and JSON in a binary message.
const empty = first(two.channel("b"));
two.transmitPublish("b");
seen.empty = typeof (await empty);
const text = JSON.stringify({ event: "#publish", data: { channel: "b", data: "binary" } });
const binary = first(two.channel("b"));
five.transport.socket.send(new TextEncoder().encode(text));
seen.binary = await binary;
five.disconnect();

one.disconnect();
two.disconnect();
console.log(JSON.stringify(seen));
