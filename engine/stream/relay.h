/* relay.h - the relay log: what the source has sent, on disk, so that the source may forget it
 * though the target doesn't take it yet.
 *
 * A folder of segment files 00000001.kbr … (relay_block.h), mode 0600 in a folder of 0700: they
 * hold rows. Appended by one thread, which never waits for the disk: a thread of the log's own
 * compresses, writes and syncs. Read by one RelayReader at a time, in the order of appending, from
 * the oldest segment on. Segments whose transactions are all durable on the target are removed.
 *
 * When the disk or the limit is full the log doesn't grow until there is room: relay_has_room says
 * so, nothing is lost. A failed write or sync is final (relay_error).
 */
#ifndef RELAY_H
#define RELAY_H

#include "engine/stream/relay_block.h"

typedef struct Relay Relay;
typedef struct RelayReader RelayReader;

typedef struct RelayConf {
    const char *dir;
    const char *system; /* of the source: whose log it is */
    const char *slot;
    const char *database;
    uint64_t most; /* bytes on disk; 0: as long as the disk has room */
} RelayConf;

typedef struct RelayFormat {
    const char *encoding;
    unsigned protocol;
    bool binary;
} RelayFormat;

/* A log that begins at `begin`. The folder is made when it is missing. */
MUST_USE Relay *relay_create(const RelayConf *conf, const RelayFormat *format, Position begin,
                             Err *err);
/* The log in the folder, or *relay NULL: there is none. Reads all of it. A torn tail is cut off;
 * segments before a damaged or missing one are no part of it (relay_broken). ERR_FAITHFUL: it is
 * another source's. */
MUST_USE bool relay_load(const RelayConf *conf, Relay **relay, Err *err);
/* Stops as relay_stop with `finish`; the files stay. NULL is fine. */
void relay_close(Relay *relay);
/* Removes the folder's log, if there is one. */
MUST_USE bool relay_remove(const char *dir, Err *err);

RelayFormat relay_format(const Relay *relay);
/* What committed before `begin` isn't in it, or only in part; what committed before `end` is, all.
 * `end` is of what was appended, for the appending thread. */
Position relay_begin(Relay *relay);
Position relay_end(const Relay *relay);
/* Why `begin` isn't where the log once began; "" when nothing is wrong. */
const char *relay_broken(const Relay *relay);

/* After relay_load, once it is sure that nothing before `begin` is needed: such segments go. */
MUST_USE bool relay_tidy(const Relay *relay, Err *err);

/* Appending. Once, before the first: starts the thread. */
MUST_USE bool relay_start(Relay *relay, Err *err);
bool relay_has_room(Relay *relay);
/* Each takes the record whether there is room or not. */
MUST_USE bool relay_message(Relay *relay, Span message, Err *err);
/* Everything that committed before `at` was received. */
void relay_quiet(Relay *relay, Position at);
/* A connection begins that sends what commits at or behind relay_end. */
void relay_connected(Relay *relay);
/* To be called now and then: what was appended is written and, with `sync`, synced soon. */
void relay_flush(Relay *relay, bool sync);
/* Any thread: everything that committed before is on disk. */
Position relay_synced_end(Relay *relay);
/* False, and why: it can't be written any more. */
bool relay_works(Relay *relay, Err *err);
/* No more appending; what isn't written when `finish` is false (or can't be for want of room) is
 * left to the reader in memory. relay_is_stopped: relay_stop won't wait. */
void relay_stop_soon(Relay *relay, bool finish);
bool relay_is_stopped(Relay *relay);
void relay_stop(Relay *relay, bool finish);

/* Any thread. */
typedef struct RelayStatus {
    uint64_t bytes;
    uint64_t segments;
    Position oldest;
    bool full;
} RelayStatus;
RelayStatus relay_status(Relay *relay);

/* Reading. What the target has up to `applied` (a commit) may be missing in parts; ERR_FAITHFUL
 * when something else is. */
MUST_USE RelayReader *relay_reader_new(Relay *relay, Position applied);
void relay_reader_free(RelayReader *reader); /* NULL is fine */
/* Borrowed until the next call. RELAY_NONE: nothing more is there now. */
MUST_USE bool relay_reader_next(RelayReader *reader, RelayRecord *record, Err *err);
/* After relay_stop: everything was read. */
bool relay_reader_is_done(RelayReader *reader);

/* What is durable on the target up to here isn't needed any more. */
void relay_forget(Relay *relay, Position durable);

#endif
