#include "engine/stream/walsender.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>

#include "engine/base/mono.h"
#include "engine/base/reader.h"

#define STATUS_MS     10000 /* as PostgreSQL's own receiver */
#define SILENCE_MS    60000 /* without a sign of life, where wal_sender_timeout is off */
#define SILENCE_LEAST 5000
#define EPOCH_2000_US INT64_C(946684800000000)
#define GULP_BYTES    MIB(1)
#define NAP_US        1000
/* Of a source on this host: */
#define NEAR_WINDOW   KIB(64)
#define NEAR_REFILLED KIB(16)
#define NEAR_GULP     KIB(512) /* so much at least should gather in a nap */
#define NEAR_LEAST_US 2000
#define NEAR_MOST_US  20000

struct WalSender {
    Pg pg;
    unsigned protocol;
    bool near;       /* the source is on this host */
    unsigned nap_us; /* grows while little gathers */
    char *row;       /* the message at hand, libpq's */
};

static void put_lsn_option(Buf *sql, Position at)
{
    buf_printf(sql, "%X/%X", LSN_ARGS(at.at));
}

/* A list of identifiers inside a string literal: both kinds of quotes. */
static void put_publication(Buf *sql, const char *name)
{
    AUTO_BUF quoted;

    buf_init(&quoted, 1024);
    pg_put_name(&quoted, name);
    pg_put_literal(sql, buf_span(&quoted));
}

static unsigned best_protocol(int version)
{
    return version >= 160000 ? 4 : version >= 150000 ? 3 : version >= 140000 ? 2 : 1;
}

static bool put_command(Buf *sql, const WalSender *sender, const WalSenderConf *conf, Err *err)
{
    bool is_14 = sender->pg.version >= 140000;

    buf_puts(sql, "START_REPLICATION SLOT ");
    pg_put_name(sql, conf->slot);
    buf_puts(sql, " LOGICAL ");
    put_lsn_option(sql, conf->start);
    buf_printf(sql, " (proto_version '%u', publication_names ", sender->protocol);
    put_publication(sql, conf->publication);
    if (is_14)
        buf_printf(sql, ", messages 'true', streaming '%s'",
                   sender->protocol >= 4 ? "parallel" : "on");
    if (sender->pg.version >= 160000) /* what the source got from elsewhere has to move, too */
        buf_puts(sql, ", origin 'any'");
    if (is_14 && conf->binary)
        buf_puts(sql, ", binary 'true'");
    buf_putc(sql, ')');
    return buf_ok(sql, "the replication command", err);
}

/* A peer that vanished without a word is noticed by the kernel within half a minute, whatever the
 * walsender does. */
static void watch_peer(int fd)
{
    int on = 1, idle_s = 10, every_s = 5, count = 4;
    unsigned lost_ms = 30000;

    /* On a Unix socket these fail, and nothing is lost. */
    if (setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)) == 0 &&
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s)) == 0 &&
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every_s, sizeof(every_s)) == 0 &&
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count)) == 0)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &lost_ms, sizeof(lost_ms));
}

static bool same_address(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
    const struct sockaddr_in *a4 = (const void *)a, *b4 = (const void *)b;
    const struct sockaddr_in6 *a6 = (const void *)a, *b6 = (const void *)b;

    if (a->ss_family != b->ss_family)
        return false;
    if (a->ss_family == AF_INET)
        return a4->sin_addr.s_addr == b4->sin_addr.s_addr;
    return a->ss_family == AF_INET6 &&
           memcmp(&a6->sin6_addr, &b6->sin6_addr, sizeof(a6->sin6_addr)) == 0;
}

/* The walsender sends each message by itself, and what costs it most is that each becomes a segment
 * of its own. While our window is closed the kernel packs them together in its send queue instead,
 * at less than half the cost: so on one host, where a refill is there at once, the window is small
 * and we sleep over most of the backlog. Over a network a small window would cost throughput. */
static bool close_window(int fd)
{
    struct sockaddr_storage here = {0}, there = {0};
    socklen_t here_len = sizeof(here), there_len = sizeof(there);
    int bytes = NEAR_WINDOW;

    return getsockname(fd, (struct sockaddr *)&here, &here_len) == 0 &&
           getpeername(fd, (struct sockaddr *)&there, &there_len) == 0 &&
           same_address(&here, &there) &&
           setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes)) == 0;
}

static bool begin_stream(WalSender *sender, const WalSenderConf *conf, Err *err)
{
    AUTO_BUF sql;

    buf_init(&sql, 8192);
    if (!put_command(&sql, sender, conf, err))
        return false;
    AUTO_RESULT res = PQexec(sender->pg.conn, buf_str(&sql));

    if (PQresultStatus(res) != PGRES_COPY_BOTH)
        return pg_fail(&sender->pg, res, err, "starting the stream");
    if (PQsetnonblocking(sender->pg.conn, 1) != 0)
        return pg_fail(&sender->pg, NULL, err, "starting the stream");
    watch_peer(walsender_fd(sender));
    sender->near = close_window(walsender_fd(sender));
    sender->nap_us = sender->near ? NEAR_LEAST_US : NAP_US;
    return true;
}

WalSender *walsender_start(const WalSenderConf *conf, Err *err)
{
    PgOptions options = {.application = "keybridge", .replication = true, .stop = conf->stop};
    WalSender *sender = calloc(1, sizeof(*sender));

    if (!sender)
        abort();
    if (!pg_open(&sender->pg, conf->dsn, ERR_SOURCE, &options, err)) {
        free(sender);
        return NULL;
    }
    sender->protocol = best_protocol(sender->pg.version);
    /* As for ordinary sessions, because text values are made by the walsender (traps 61, 64, 66);
     * the encoding is the target's, so that bytes go over as they come. */
    if (!pg_pin_settings(&sender->pg, conf->encoding, err) || !begin_stream(sender, conf, err)) {
        walsender_free(sender);
        return NULL;
    }
    return sender;
}

void walsender_free(WalSender *sender)
{
    if (!sender)
        return;
    PQfreemem(sender->row);
    pg_close(&sender->pg);
    free(sender);
}

unsigned walsender_protocol(const WalSender *sender)
{
    return sender->protocol;
}

int walsender_pid(const WalSender *sender)
{
    return PQbackendPID(sender->pg.conn);
}

int walsender_fd(const WalSender *sender)
{
    return PQsocket(sender->pg.conn);
}

/* Reading */

static bool lost(WalSender *sender, Err *err)
{
    return pg_fail(&sender->pg, NULL, err, "reading the stream");
}

short walsender_events(const WalSender *sender, bool want_input)
{
    short events = want_input ? POLLIN : 0;

    /* PQflush has said that there is more to send when it returned 1; asking again is cheap. */
    if (PQflush(sender->pg.conn) == 1)
        events |= POLLOUT;
    return events;
}

static size_t waiting_bytes(int fd)
{
    int waiting = 0;

    return ioctl(fd, FIONREAD, &waiting) == 0 && waiting > 0 ? (size_t)waiting : 0;
}

static void nap(unsigned us)
{
    struct timespec time = {.tv_nsec = (long)us * 1000};

    nanosleep(&time, NULL);
}

/* The longer the nap, the larger the part of the backlog that gathers while the window is closed.
 * Where next to nothing gathers there is no backlog, only a machine that is late: sleeping longer
 * would keep us late. */
static void adapt_nap(WalSender *sender, bool behind, size_t got)
{
    if (!sender->near)
        return;
    if (!behind)
        sender->nap_us = NEAR_LEAST_US;
    else if (got >= NEAR_REFILLED && got < NEAR_GULP)
        sender->nap_us = (unsigned)size_min(sender->nap_us * 5 / 4, NEAR_MOST_US);
    else
        sender->nap_us = (unsigned)size_max(sender->nap_us * 4 / 5, NEAR_LEAST_US);
}

/* libpq reads what fits into its buffer, which grows when a call finds it nearly full: several
 * calls make a gulp. It ends when what has come meanwhile isn't worth a call: then the sender is no
 * longer ahead. */
bool walsender_read(WalSender *sender, bool behind, size_t *got, Err *err)
{
    int fd = walsender_fd(sender);
    size_t worth = sender->near ? NEAR_REFILLED : 1, waiting;

    *got = 0;
    if (behind)
        nap(sender->nap_us);
    waiting = waiting_bytes(fd);
    do {
        if (!PQconsumeInput(sender->pg.conn))
            return lost(sender, err);
        *got += waiting;
        waiting = waiting_bytes(fd);
    } while (behind && waiting >= worth && *got < GULP_BYTES);
    adapt_nap(sender, behind, *got);
    return true;
}

static int64_t read_time(Reader *r, const char *field)
{
    return (int64_t)reader_u64be(r, field) + EPOCH_2000_US;
}

static bool parse(Span row, WalMessage *message, Err *err)
{
    Reader r = reader_of(row);

    switch (reader_u8(&r, "type")) {
    case 'w':
        message->kind = WAL_DATA;
        (void)reader_u64be(&r, "start of the data");
        (void)reader_u64be(&r, "end of WAL");
        message->sent_us = read_time(&r, "time");
        message->data = reader_span(&r, reader_left(&r), "data");
        return reader_finish(&r, "XLogData", err);
    case 'k':
        message->kind = WAL_KEEPALIVE;
        message->at = position_of_lsn(reader_u64be(&r, "end of WAL"));
        message->sent_us = read_time(&r, "time");
        message->reply_wanted = reader_u8(&r, "reply wanted") != 0;
        return reader_finish(&r, "keepalive", err);
    default:
        return err_fail(err, ERR_PROTOCOL,
                        "the source sends a replication message of an unknown type");
    }
}

/* After CopyDone from the other side comes the command's result: an error says why. */
/* Text that can't be converted to the target's encoding, or that has none (SQL_ASCII). The server's
 * context has the position. */
static bool no_encoding(const PGresult *res, Err *err)
{
    const char *context = PQresultErrorField(res, PG_DIAG_CONTEXT);
    const char *at = context ? strstr(context, "associated LSN ") : NULL;

    err->kind = ERR_FAITHFUL;
    if (at)
        err_context(err, "the change at %.*s", (int)strcspn(at + 15, "\n"), at + 15);
    return err_hint(err,
                    "the target's database can't hold this text in its encoding: make it with the "
                    "source's encoding, or correct the value on the source and make the copy "
                    "again");
}

static bool ended(WalSender *sender, WalMessage *message, Err *err)
{
    AUTO_RESULT res = PQgetResult(sender->pg.conn);

    message->kind = WAL_END;
    if (PQresultStatus(res) != PGRES_FATAL_ERROR)
        return true;
    pg_fail(&sender->pg, res, err, "reading the stream");
    if (strcmp(err->code, "22021") == 0 || strcmp(err->code, "22P05") == 0)
        return no_encoding(res, err);
    if (strcmp(err->code, "42704") == 0) /* it is looked up as of each change's own time */
        err_hint(err, "the slot begins before the publication was made: drop the slot, make it "
                      "after the publication, and make the copy after both");
    return false;
}

bool walsender_next(WalSender *sender, WalMessage *message, Err *err)
{
    int len;

    *message = (WalMessage){.kind = WAL_NONE};
    PQfreemem(sender->row);
    sender->row = NULL;
    len = PQgetCopyData(sender->pg.conn, &sender->row, 1);
    if (len == 0)
        return true;
    if (len == -1)
        return ended(sender, message, err);
    if (len < 0)
        return lost(sender, err);
    return parse(span_of(sender->row, (size_t)len), message, err);
}

/* Answering */

unsigned walsender_status_ms(unsigned timeout_ms)
{
    unsigned third = timeout_ms ? timeout_ms / 3 : STATUS_MS;

    return third < STATUS_MS ? third : STATUS_MS;
}

bool walsender_is_alive(unsigned timeout_ms, uint64_t silent_ms, Err *err)
{
    unsigned most = timeout_ms ? timeout_ms : SILENCE_MS;

    if (silent_ms <= most || silent_ms <= SILENCE_LEAST)
        return true;
    err_fail(err, ERR_SOURCE, "no sign of life from the source for %" PRIu64 " s",
             silent_ms / 1000);
    err_code(err, "08006");
    return err_transient(err);
}

bool walsender_reply(WalSender *sender, Position received, Position durable, Position applied,
                     bool want_answer, Err *err)
{
    AUTO_BUF out;

    buf_init(&out, 64);
    buf_put_u8(&out, 'r');
    buf_put_u64be(&out, received.at);
    buf_put_u64be(&out, durable.at);
    buf_put_u64be(&out, applied.at);
    buf_put_u64be(&out, (uint64_t)((int64_t)wall_us() - EPOCH_2000_US));
    buf_put_u8(&out, want_answer ? 1 : 0);
    if (PQputCopyData(sender->pg.conn, (const char *)out.at, (int)out.len) < 0 ||
        PQflush(sender->pg.conn) < 0)
        return pg_fail(&sender->pg, NULL, err, "confirming to the source");
    return true;
}

/* Everything until the result of the command, thrown away. True: the source has ended too. */
static bool drain(WalSender *sender)
{
    char *row = NULL;
    int len;

    while ((len = PQgetCopyData(sender->pg.conn, &row, 1)) > 0)
        PQfreemem(row);
    return len < 0;
}

void walsender_end(WalSender *sender, unsigned timeout_ms)
{
    uint64_t deadline = mono_ms() + timeout_ms;

    if (PQputCopyEnd(sender->pg.conn, NULL) < 0)
        return;
    while (mono_ms() < deadline && PQstatus(sender->pg.conn) == CONNECTION_OK) {
        struct pollfd fd = {.fd = walsender_fd(sender), .events = walsender_events(sender, true)};

        if (poll(&fd, 1, (int)(deadline - mono_ms())) <= 0 || !PQconsumeInput(sender->pg.conn) ||
            drain(sender))
            return;
    }
}
