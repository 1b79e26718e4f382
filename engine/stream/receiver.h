/* receiver.h - reads the source into a relay log, whatever the target does.
 *
 * A thread of its own owns the replication connection: it appends what comes, answers keepalives,
 * and confirms what is durable on the target or synced in the log, whichever is further. It
 * connects again by itself, from the log's end. It never waits for the disk: while the log has no
 * room it doesn't read.
 */
#ifndef RECEIVER_H
#define RECEIVER_H

#include "engine/stream/relay.h"
#include "engine/stream/walsender.h"

typedef struct Receiver Receiver;

typedef struct ReceiverConf {
    WalSenderConf
        sender; /* but for start and stop; what it points at is borrowed until receiver_free */
    const char *name; /* for logs */
    unsigned retry_most_s;
    Position durable; /* on the target */
    int own_pid;      /* of a walsender of ours that may be left on the source; 0: none */
} ReceiverConf;

/* relay: started, nothing appended yet since; borrowed until receiver_free, and appended to by
 * nobody else. */
MUST_USE Receiver *receiver_start(const ReceiverConf *conf, Relay *relay, Err *err);
/* Ends the thread; what was received is synced if there is room, confirmed, and the connection
 * ended. */
void receiver_free(Receiver *receiver); /* NULL is fine */

/* Any thread */
void receiver_tell(Receiver *receiver, Position durable, Position committed);
MUST_USE bool receiver_check(Receiver *receiver, Err *err); /* false: it has ended, and why */
int receiver_pid(Receiver *receiver);                       /* of its walsender; 0: not connected */
Position receiver_received(Receiver *receiver);

/* To give the connection away: it stops reading, and goes on answering until the log's thread has
 * ended. */
void receiver_leave(Receiver *receiver);
bool receiver_has_left(Receiver *receiver);
/* Joins and frees it. NULL: the connection was lost. */
WalSender *receiver_take_sender(Receiver *receiver);

#endif
