/* relaying.h - when a stream goes through its relay log, and what must hold for a log that was
 * found.
 *
 * Internal to engine/stream; the stream's own thread. Between two sessions the receiver goes on:
 * the target may be away as long as it likes.
 */
#ifndef RELAYING_H
#define RELAYING_H

#include "engine/stream/session.h"

/* Learns whose log it would be, loads one from an earlier run, and begins to receive into it when
 * that is safe whatever the target has. */
MUST_USE bool relaying_find(Stream *stream, Pg *source, const SourceFacts *facts, Err *err);
/* The log, if any, against the position from which the target needs changes: true when it is there
 * and covers that (stream->relay stays), or isn't needed (and is gone). ERR_FAITHFUL: something is
 * in neither of source, log and target. */
MUST_USE bool relaying_accept(Stream *stream, const SourceFacts *facts, Position start, Err *err);

/* A new log that begins at `from`: durable on the target, and not before what was confirmed to the
 * source. */
MUST_USE bool relaying_begin(Stream *stream, Position from, Err *err);
/* Whether the target has been away so long that it is worth a new log, between two sessions. */
bool relaying_is_due(const Stream *stream, const Err *why);
/* Stops receiving; the log stays on disk unless everything in it is durable on the target. */
void relaying_close(Stream *stream, Position durable);
/* Everything in the log is durable on the target. */
MUST_USE bool relaying_remove(Stream *stream, Err *err);

#endif
