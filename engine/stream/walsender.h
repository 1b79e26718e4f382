/* walsender.h - one logical replication connection: starts the stream, reads it in gulps, answers.
 *
 * PostgreSQL documentation, "Streaming Replication Protocol". Never blocks once the stream has
 * started: poll walsender_fd for walsender_events, then call walsender_read and walsender_next
 * until it gives nothing. Belongs to one thread.
 */
#ifndef WALSENDER_H
#define WALSENDER_H

#include "appliers/postgres/pg.h"
#include "engine/model/position.h"

typedef struct WalSenderConf {
    const char *dsn; /* secret */
    const char *slot;
    const char *publication;
    const char *encoding; /* in which texts are sent: the target database's */
    Position start;
    bool binary;
    const Stop *stop;
} WalSenderConf;

typedef struct WalMessage {
    enum {
        WAL_NONE, /* nothing whole is here: read */
        WAL_DATA,
        WAL_KEEPALIVE,
        WAL_END, /* the source has ended the stream */
    } kind;
    Span data;         /* DATA: one pgoutput message, valid until the next call */
    Position at;       /* KEEPALIVE: everything that committed before was sent */
    bool reply_wanted; /* KEEPALIVE */
    int64_t sent_us;   /* source's clock, microseconds since 1970 */
} WalMessage;

typedef struct WalSender WalSender;

MUST_USE WalSender *walsender_start(const WalSenderConf *conf, Err *err);
void walsender_free(WalSender *sender);               /* closes; NULL is fine */
unsigned walsender_protocol(const WalSender *sender); /* of pgoutput: the best of the source */

int walsender_pid(const WalSender *sender); /* of its process on the source */

int walsender_fd(const WalSender *sender);
short walsender_events(const WalSender *sender, bool want_input);
/* Reads what is there. behind: waits some milliseconds first and then reads what has gathered,
 * which saves the source's CPU (it is woken for whole buffers and not for each message). *got:
 * bytes, about. */
MUST_USE bool walsender_read(WalSender *sender, bool behind, size_t *got, Err *err);
MUST_USE bool walsender_next(WalSender *sender, WalMessage *message, Err *err);

/* What keeps a connection alive, by the source's wal_sender_timeout in ms (0: off). */
#define WALSENDER_ACK_MS 100                       /* between two confirmations, at least */
unsigned walsender_status_ms(unsigned timeout_ms); /* and at most */
/* Fails, as transient, when nothing was heard for too long. */
MUST_USE bool walsender_is_alive(unsigned timeout_ms, uint64_t silent_ms, Err *err);

/* Standby Status Update. Positions are what was received, what is flushed on the target (and may be
 * forgotten), what is committed there. */
MUST_USE bool walsender_reply(WalSender *sender, Position received, Position durable,
                              Position applied, bool want_answer, Err *err);
/* Ends the stream and waits at most timeout_ms for the source to agree, so that the slot is free
 * afterwards. */
void walsender_end(WalSender *sender, unsigned timeout_ms);

#endif
