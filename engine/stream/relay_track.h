/* relay_track.h - follows what is appended to a relay log, message by message: up to where it is
 * complete, which transactions are open and where they began, what tables look like.
 *
 * PostgreSQL documentation, "Logical Replication Message Formats". Belongs to one thread.
 */
#ifndef RELAY_TRACK_H
#define RELAY_TRACK_H

#include "engine/base/buf.h"
#include "engine/model/position.h"

typedef struct RelayOpen RelayOpen;
typedef struct RelayTable RelayTable;

typedef struct RelayTrack {
    Position end; /* everything that committed before is there: what may be confirmed once it is
                     synced */
    RelayOpen *open;
    RelayOpen *txn;    /* between BEGIN and COMMIT */
    RelayOpen *stream; /* between STREAM START and STREAM STOP */
    RelayTable *tables;
    size_t table_count;
    size_t table_room;
} RelayTrack;

/* A transaction that began in `segment` has ended: that segment is needed until `end` is durable on
 * the target. NONE: nothing has ended. */
typedef struct RelayEnded {
    uint64_t segment;
    Position end;
} RelayEnded;

void relay_track_fini(RelayTrack *track); /* a zeroed one is empty */

MUST_USE bool relay_track_message(RelayTrack *track, Span message, uint64_t segment,
                                  RelayEnded *ended, Err *err);
/* Everything that committed before `at` was received. */
void relay_track_quiet(RelayTrack *track, Position at);
/* A new connection: it sends again what is open, and describes the tables again. */
void relay_track_connected(RelayTrack *track);
/* Between transactions and stream blocks. */
bool relay_track_is_between(const RelayTrack *track);
/* The segment where the oldest open transaction began; UINT64_MAX: none is open. */
uint64_t relay_track_oldest(const RelayTrack *track);

/* As RelayHead has them. */
void relay_track_put_open(const RelayTrack *track, Buf *out);
void relay_track_put_relations(const RelayTrack *track, Buf *out);

#endif
