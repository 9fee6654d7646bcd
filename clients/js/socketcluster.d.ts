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
  /** How long a connection, or the move to a WebSocket, may take. Default: 10000. */
  connectTimeout?: number;
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
   * A connection that could not be made (`ConnectError`), a message that was dropped (`QueueFullError`,
   * `MessageTooLargeError`) or not understood (`ProtocolError`), an auth token that was not accepted, or what a listener
   * threw.
   */
  error: Error;
  /** The connection has moved; it may do so before `connect`. */
  upgrade: Transport;
  /** The server has ended a subscription. */
  kickOut: { channel: string; message?: string };
  /**
   * After a reconnection, messages of a channel are gone: those from the first to the last number of `missing`, or, where
   * it is null, an unknown number, because the server began to count anew.
   */
  gap: { channel: string; missing: [number, number] | null };
  /** The server gave an auth token, or took it away (null). */
  authTokenChange: { token: string | null; claims: Record<string, unknown> | null };
}

/**
 * What rejects a call: named as the server says, or `TimeoutError`; `SocketClosedError` when the connection ended before
 * the answer came, so that it may have been handled; `QueueFullError` or `MessageTooLargeError` when it was not sent.
 */
export interface CallError extends Error {
  data?: unknown;
}

export class Channel<T = any> {
  private constructor();
  readonly name: string;
  /** Listen to the messages; those that came before the first listener (at most 1000) are delivered to it. */
  on(listener: (data: T) => unknown): this;
  /** Remove a listener, or all. */
  off(listener?: (data: T) => unknown): this;
  /** Send a message to every subscriber; resolves when the server has taken it. */
  publish(data: T): Promise<unknown>;
  unsubscribe(): Promise<void>;
}

export class Socket {
  private constructor();
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

  /** Send an event. While there is no connection, up to 1000 emits and calls wait for one. */
  emit(event: string, data?: unknown): this;
  /** Send an event; resolves with its acknowledgement, rejects with a {@link CallError}. */
  call<T = any>(event: string, data?: unknown, options?: { timeout?: number }): Promise<T>;

  /**
   * Subscribe to a channel; the subscription is made again after a reconnection. If the channel has a history, what was
   * published meanwhile comes first, in order and once.
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
 * @throws TypeError an option is unknown, and the message names the nearest known one; or its value is not usable
 */
export function connect(options?: Options): Socket;
