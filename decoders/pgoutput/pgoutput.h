/* pgoutput.h - PostgreSQL's logical replication messages, protocol versions 1 to 4.
 *
 * Source of every layout: PostgreSQL documentation, "Logical Replication Message Formats"
 * (protocol-logicalrep-message-formats).
 */
#ifndef PGOUTPUT_H
#define PGOUTPUT_H

#include "decoders/decoder.h"

/* 1 to 4; 4 with streaming 'parallel', or without streaming. A repeated Relation message that says
 * nothing new keeps the Relation and its serial and isn't handed out; any other is a new Relation.
 */
MUST_USE Decoder *pgoutput_new(unsigned protocol_version);
/* For a new connection: forgets the place in the stream and what tables look like (the source
 * describes them again); Relations handed out stay alive. */
void pgoutput_restart(Decoder *decoder);

/* For messages read back from a spool, where the stream blocks around them are gone: they do (or
 * don't) carry a transaction id behind their type byte, whatever the decoder saw last. Relation.raw
 * never does. The decoder's place in the stream is neither asked nor moved; what begins or ends a
 * transaction is an error here. */
MUST_USE bool pgoutput_decode_spooled(Decoder *decoder, Span message, bool with_xid, Arena *arena,
                                      const Sink *sink, Err *err);

/* What the assembler must know before it decides whether a message goes to a spool: its type byte,
 * and inside a stream block its (sub)transaction id. False: too short, ERR_PROTOCOL. */
typedef struct PgOutputPeek {
    char type;
    uint32_t xid; /* 0 outside stream blocks */
} PgOutputPeek;
MUST_USE bool pgoutput_peek(const Decoder *decoder, Span message, PgOutputPeek *peek, Err *err);
/* Between Stream Start and Stream Stop. */
bool pgoutput_in_stream(const Decoder *decoder);

#endif
