/* The floor: floor PORT. WebSocket on epoll in one thread, with nothing else: an event comes back as it is, a member of a
 * room gets what is said in it as it is. Texts are told apart by the letter after {"event":". */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define CLIENTS 1048576 /* by descriptor */
#define ROOMS 64
#define PIECE 262144
#define EVENTS 512

struct client {
  unsigned char *in, *out; /* what is there of a message; what waits to be written */
  size_t has, waits, written;
  int open;
};
struct room {
  char name[64];
  int *members;
  size_t count, size;
};

static struct client *clients[CLIENTS];
static struct room rooms[ROOMS];
static size_t rooms_used;
static unsigned char piece[PIECE];
static int poller;

static void *keep(void *memory, size_t size) {
  void *kept = realloc(memory, size);
  if (!kept && size) abort();
  return kept;
}

static uint32_t turn(uint32_t value, int bits) { return value << bits | value >> (32 - bits); }

static void sha1(const unsigned char *text, size_t size, unsigned char *digest) {
  uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0}, w[80];
  unsigned char block[256] = {0};
  size_t whole = (size + 9 + 63) / 64 * 64;
  memcpy(block, text, size);
  block[size] = 0x80;
  for (int i = 0; i < 8; i++) block[whole - 1 - i] = (unsigned char)((uint64_t)size * 8 >> 8 * i);
  for (size_t at = 0; at < whole; at += 64) {
    for (int i = 0; i < 16; i++)
      w[i] = (uint32_t)block[at + 4 * i] << 24 | block[at + 4 * i + 1] << 16 | block[at + 4 * i + 2] << 8 | block[at + 4 * i + 3];
    for (int i = 16; i < 80; i++) w[i] = turn(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    uint32_t a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
    for (int i = 0; i < 80; i++) {
      uint32_t f = i < 20 ? (b & c) | (~b & d) : i < 40 ? b ^ c ^ d : i < 60 ? (b & c) | (b & d) | (c & d) : b ^ c ^ d;
      uint32_t k = i < 20 ? 0x5A827999 : i < 40 ? 0x6ED9EBA1 : i < 60 ? 0x8F1BBCDC : 0xCA62C1D6;
      uint32_t next = turn(a, 5) + f + e + k + w[i];
      e = d, d = c, c = turn(b, 30), b = a, a = next;
    }
    h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
  }
  for (int i = 0; i < 20; i++) digest[i] = (unsigned char)(h[i / 4] >> (24 - 8 * (i % 4)));
}

static void base64(const unsigned char *bytes, char *text) { /* of 20 bytes */
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  unsigned char padded[21] = {0};
  memcpy(padded, bytes, 20);
  for (int i = 0; i < 7; i++) {
    uint32_t three = (uint32_t)padded[3 * i] << 16 | padded[3 * i + 1] << 8 | padded[3 * i + 2];
    for (int j = 0; j < 4; j++) text[4 * i + j] = digits[three >> (18 - 6 * j) & 63];
  }
  text[27] = '=';
  text[28] = 0;
}

static void leave(int fd) {
  struct client *client = clients[fd];
  for (size_t i = 0; i < rooms_used; i++)
    for (size_t j = 0; j < rooms[i].count; j++)
      if (rooms[i].members[j] == fd) rooms[i].members[j--] = rooms[i].members[--rooms[i].count];
  free(client->in);
  free(client->out);
  free(client);
  clients[fd] = NULL;
  close(fd);
}

static void watch(int fd, int change, uint32_t what) {
  struct epoll_event event = {.events = what, .data.fd = fd};
  epoll_ctl(poller, change, fd, &event);
}

static void put(int fd, const unsigned char *bytes, size_t size) {
  struct client *client = clients[fd];
  size_t done = 0;
  if (!client->waits) {
    ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) return; /* its end is read soon */
    done = sent < 0 ? 0 : (size_t)sent;
    if (done == size) return;
    watch(fd, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
  }
  client->out = keep(client->out, client->waits + size - done);
  memcpy(client->out + client->waits, bytes + done, size - done);
  client->waits += size - done;
}

static void flush(int fd) {
  struct client *client = clients[fd];
  ssize_t sent = send(fd, client->out + client->written, client->waits - client->written, MSG_NOSIGNAL);
  if (sent > 0) client->written += (size_t)sent;
  if (client->written < client->waits) return;
  free(client->out);
  client->out = NULL;
  client->waits = client->written = 0;
  watch(fd, EPOLL_CTL_MOD, EPOLLIN);
}

static struct room *room_named(const unsigned char *at, const unsigned char *end) {
  const unsigned char *quote = memchr(at, '"', (size_t)(end - at));
  size_t size = quote ? (size_t)(quote - at) : 0;
  if (!size || size >= sizeof rooms[0].name) return NULL;
  for (size_t i = 0; i < rooms_used; i++)
    if (!rooms[i].name[size] && !memcmp(rooms[i].name, at, size)) return &rooms[i];
  if (rooms_used == ROOMS) return NULL;
  memcpy(rooms[rooms_used].name, at, size);
  return &rooms[rooms_used++];
}

static void message(int fd, unsigned char *text, size_t size) { /* there are 10 writable bytes before it */
  unsigned char *frame = text - (size < 126 ? 2 : size < 65536 ? 4 : 10);
  frame[0] = 0x81;
  if (size < 126) frame[1] = (unsigned char)size;
  else {
    int bytes = size < 65536 ? 2 : 8;
    frame[1] = size < 65536 ? 126 : 127;
    for (int i = 0; i < bytes; i++) frame[2 + i] = (unsigned char)((uint64_t)size >> 8 * (bytes - 1 - i));
  }
  size_t whole = size + (size_t)(text - frame);
  unsigned char kind = size > 16 ? text[10] : 0; /* {"event":"join","data":"ROOM"... or {"event":"say","room":"ROOM"... */
  if (kind == 's') {
    struct room *room = room_named(text + 23, text + size);
    for (size_t i = 0; room && i < room->count; i++) put(room->members[i], frame, whole);
    return;
  }
  if (kind == 'j') {
    struct room *room = room_named(text + 24, text + size);
    if (room) {
      if (room->count == room->size) room->members = keep(room->members, (room->size += 1024) * sizeof(int));
      room->members[room->count++] = fd;
    }
  }
  put(fd, frame, whole);
}

static int greet(int fd, const char *head) { /* returns whether it was a handshake */
  const char *field = strcasestr(head, "\r\nsec-websocket-key:");
  if (!field) return 0;
  field += 20 + strspn(field + 20, " ");
  char text[128], accept[29], answer[256];
  unsigned char digest[20];
  int size = snprintf(text, sizeof text, "%.24s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", field);
  sha1((unsigned char *)text, (size_t)size, digest);
  base64(digest, accept);
  size = snprintf(answer, sizeof answer, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                  "Sec-WebSocket-Accept: %s\r\n\r\n", accept);
  put(fd, (unsigned char *)answer, (size_t)size);
  return 1;
}

static int take(int fd, unsigned char *bytes, size_t size, size_t *taken) { /* returns 0 when the client is to go */
  struct client *client = clients[fd];
  size_t at = 0;
  if (!client->open) {
    unsigned char *end = memmem(bytes, size, "\r\n\r\n", 4);
    *taken = 0;
    if (!end) return 1;
    end[2] = 0;
    if (!greet(fd, (char *)bytes)) return 0;
    client->open = 1;
    at = (size_t)(end - bytes) + 4;
  }
  while (size - at >= 6) {
    size_t length = bytes[at + 1] & 127, start = at + 2;
    if (length == 126) length = (size_t)bytes[at + 2] << 8 | bytes[at + 3], start = at + 4;
    else if (length == 127) {
      if (size - at < 14) break;
      length = 0, start = at + 10;
      for (int i = 0; i < 8; i++) length = length << 8 | bytes[at + 2 + i];
    }
    if (size < start + 4 + length) break;
    if ((bytes[at] & 15) == 8) return 0;
    unsigned char mask[4];
    memcpy(mask, bytes + start, 4);
    unsigned char *text = bytes + start + 4;
    for (size_t i = 0; i < length; i++) text[i] ^= mask[i & 3];
    message(fd, text, length); /* its header takes the room of the client's, which is longer */
    at = start + 4 + length;
  }
  *taken = at;
  return 1;
}

static int get(int fd) { /* returns 0 when the client is to go */
  struct client *client = clients[fd];
  unsigned char *bytes = piece;
  size_t size = 0, taken;
  if (client->has) memcpy(piece, client->in, client->has), size = client->has;
  ssize_t got = recv(fd, piece + size, PIECE - size, 0);
  if (got <= 0) return got < 0 && errno == EAGAIN;
  size += (size_t)got;
  if (!take(fd, bytes, size, &taken)) return 0;
  client->has = size - taken;
  if (client->has) {
    client->in = keep(client->in, client->has);
    memcpy(client->in, bytes + taken, client->has);
  } else if (client->in) {
    free(client->in);
    client->in = NULL;
  }
  return client->has < PIECE;
}

int main(int argc, char **argv) {
  int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)(argc > 1 ? atoi(argv[1]) : 0))};
  struct epoll_event events[EVENTS];
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) return perror("listen"), 1;
  poller = epoll_create1(0);
  watch(listener, EPOLL_CTL_ADD, EPOLLIN);
  puts("ready");
  fflush(stdout);
  for (;;) {
    int count = epoll_wait(poller, events, EVENTS, -1);
    for (int i = 0; i < count; i++) {
      int fd = events[i].data.fd;
      if (fd == listener) {
        while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
          setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
          clients[fd] = calloc(1, sizeof(struct client));
          if (!clients[fd]) abort();
          watch(fd, EPOLL_CTL_ADD, EPOLLIN);
        }
      } else if (clients[fd]) {
        if (events[i].events & EPOLLOUT) flush(fd);
        if (events[i].events & ~(uint32_t)EPOLLOUT && !get(fd)) leave(fd);
      }
    }
  }
}
