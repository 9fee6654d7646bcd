/** The browser client of SocketCluster for Python. All times are milliseconds. */

export as namespace socketCluster;

export type Transport = "polling" | "websocket";

export interface Options {
  /** Where the cluster is: http(s) or ws(s). Default: the origin of the page. */
  url?: string | URL;
  /** Path of the endpoint. Default: `/socketcluster/engine/`. */
  path?: string;
  /**
   * What may carry the connection; the first opens it. Default: `["polling", "websocket"]`, which starts with polling
   * and moves to a WebSocket where one can be opened.
   */
  transports?: Transport[];
  /** Connect again when the connection is lost. Default: true. */
  reconnection?: boolean;
  /** Wait before the first reconnection; doubled for each further one. Default: 500. */
  reconnectionDelay?: number;
  /** The longest wait. Default: 10000. */
  reconnectionDelayMax?: number;
  /** By how much of itself a wait varies at random, from 0 to 1. Default: 0.5. */
  randomizationFactor?: number;
  /** How long calls and subscriptions wait for their acknowledgement. Default: 10000. */
  ackTimeout?: number;
  /**
   * How long a connection may take until the server has said its first word, and again as long until it is open; and how
   * long the move to a WebSocket may. Default: 20000.
   */
  connectTimeout?: number;
  /**
   * Whether polling sends cookies, as fetch has it. Default: `same-origin`. `include` where the server is of another
   * origin and its option `origins` names this page's host: only then the session's cookie travels.
   */
  credentials?: "omit" | "same-origin" | "include";
  /** Parameters for the query of every request. */
  query?: Record<string, string>;
  /** Fields for the data of the handshake. */
  auth?: Record<string, unknown> | null;
  /** Where the auth token is kept: `localStorage`, say, for all tabs and visits. Default: null, in memory only. */
  tokenStorage?: Pick<Storage, "getItem" | "setItem" | "removeItem"> | null;
  /** Its key there. Default: `socketcluster.authToken`. */
  tokenName?: string;
  /** The WebSocket class, where there is none of the platform's own. */
  WebSocket?: (new (url: string) => any) | null;
  /** The fetch function, where there is none of the platform's own. */
  fetch?: typeof fetch;
}

/** Events of the client's own; servers cannot send events of these names. */
export interface BuiltInEvents {
  /** The connection is open, for the first time or again. */
  connect: { id: string };
  /** The connection has ended; `code` is a WebSocket close code or one of the server's own. */
  disconnect: { code: number; reason: string; willReconnect: boolean };
  /** The connection is tried again after `delay`. */
  reconnecting: { attempt: number; delay: number };
  /**
   * A connection that could not be made ({@link ConnectError}); an emit that was not sent, or may not have arrived
   * ({@link EmitError}); a channel that cannot be subscribed to after a reconnection, for the moment or, where the error is
   * the server's refusal, for good ({@link ChannelError}); a message that was not understood (`ProtocolError`), an auth
   * token that was not accepted, or what a listener threw.
   */
  error: Error & Partial<Omit<ConnectError, "name"> & EmitError & ChannelError>;
  /** The connection has moved; it may do so before `connect`. */
  upgrade: Transport;
  /** The server has ended a subscription. */
  kickOut: { channel: string; message?: string };
  /**
   * Messages of a channel are gone: those from the first to the last number of `missing`, or, where it is null, an unknown
   * number, because the server began to count anew.
   */
  gap: { channel: string; missing: [number, number] | null };
  /** The server gave an auth token, or took it away (null). */
  authTokenChange: { token: string | null; claims: Record<string, unknown> | null };
}

/** Why a connection could not be made. */
export interface ConnectError extends Error {
  name: "ConnectError";
  /** A WebSocket close code, or the one that the server refused the handshake with; 1006 where nothing was heard. */
  code: number;
  /** Does trying again have a point, so that the client does? */
  willReconnect: boolean;
  /** The error with which the server refused the handshake: its name, message and data. */
  cause?: Error & { data?: unknown };
}

/**
 * What became of an emit: `QueueFullError`, `MessageTooLargeError` (it was not sent), or `SocketClosedError`, whose message
 * says whether it was not sent, or may not have arrived.
 */
export interface EmitError extends Error {
  event: string;
}

/** Why a channel is not subscribed to. */
export interface ChannelError extends Error {
  channel: string;
  data?: unknown;
}

/**
 * What rejects a call: named as the server says, or `TimeoutError`; `SocketClosedError` when the connection ended before
 * the answer came, so that it may have been handled; `QueueFullError` or `MessageTooLargeError` when it was not sent.
 */
export interface CallError extends Error {
  data?: unknown;
}

export interface Channel<T = any> {
  readonly name: string;
  /** Listen to the messages; those that came before the first listener (at most 1000) are delivered to it. */
  on(listener: (data: T) => unknown): this;
  /** Remove a listener, or all. */
  off(listener?: (data: T) => unknown): this;
  /** Send a message to every subscriber; resolves when the server has taken it. */
  publish(data: T): Promise<unknown>;
  unsubscribe(): Promise<void>;
}

export interface Socket {
  /** Names the connection while it is open. */
  readonly id: string | null;
  /** `connecting` also while it waits for the next attempt. */
  readonly state: "connecting" | "open" | "closed";
  /** What carries the connection now, if there is one. */
  readonly transport: Transport | null;
  /** Whether the server went on with the state of an earlier connection. */
  readonly recovered: boolean;
  /** The auth token that the server gave; every handshake carries it. */
  readonly authToken: string | null;
  /** What it says. Whether it is true, only the server knows. */
  readonly authClaims: Record<string, unknown> | null;

  on<E extends keyof BuiltInEvents>(event: E, listener: (data: BuiltInEvents[E]) => unknown): this;
  /** Listen to an event of the server's. When it is a call, the last listener's result is the answer. */
  on(event: string, listener: (data: any) => unknown): this;
  once<E extends keyof BuiltInEvents>(event: E, listener: (data: BuiltInEvents[E]) => unknown): this;
  once(event: string, listener: (data: any) => unknown): this;
  /** Remove a listener, an event's listeners, or all. */
  off(event?: string, listener?: (data: any) => unknown): this;

  /**
   * Send an event, at most once: while there is no connection, up to 1000 emits and calls wait for one; what a connection
   * takes along that is lost is not repeated. What was certainly not sent is told by `error`.
   * @throws TypeError the name is the client's own, or there is more than one value, or a callback
   */
  emit(event: string, data?: unknown): this;
  /** Send an event; resolves with its acknowledgement, rejects with a {@link CallError}. */
  call<T = any>(event: string, data?: unknown, options?: { timeout?: number }): Promise<T>;

  /**
   * Subscribe to a channel. The subscription is made again after a reconnection, and tried again for as long as the server
   * cannot make it; only a refusal ends it. If the channel has a history, what was published meanwhile comes first, in
   * order and once. Rejects with a {@link ChannelError}.
   */
  subscribe<T = any>(channel: string): Promise<Channel<T>>;
  unsubscribe(channel: string): Promise<void>;
  publish(channel: string, data?: unknown): Promise<unknown>;

  /** Throw the auth token away, here and, while there is a connection, at the server. */
  deauthenticate(): Promise<void>;

  /** Connect after {@link disconnect}; while an attempt is waited for, make it at once. */
  connect(): this;
  /** Send what was emitted, close, and stay closed. What waits for an answer is rejected. */
  disconnect(): this;
}

/**
 * Connect to a cluster.
 * @throws TypeError an option is unknown, or its value not usable
 */
export function connect(options?: Options): Socket;
export function connect(url: string | URL, options?: Options): Socket;

declare const socketCluster: { connect: typeof connect };
export default socketCluster;
