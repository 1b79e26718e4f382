/* decoder.h - bytes of a source's stream in, changes out. No sockets, no clock, no client library.
 *
 * The same code serves the live stream, a spool, a captured file, a unit test and a fuzzer. One
 * decoder belongs to one thread.
 */
#ifndef DECODER_H
#define DECODER_H

#include "engine/base/arena.h"
#include "engine/base/err.h"
#include "engine/model/change.h"
#include "engine/model/position.h"

/* A prepared transaction, or what became of it. */
typedef struct Prepared {
    uint32_t xid;
    Span gid;
    /* Start and end of the PREPARE record, or of the COMMIT PREPARED record. Of a rollback: ends of
     * the PREPARE and of the ROLLBACK PREPARED record. */
    Position at;
    Position end;
    int64_t time_us; /* of prepare, commit or rollback; source's clock, microseconds since 1970 */
} Prepared;

/* Where decoded events go. Every callback is required, but those of prepared transactions only
 * where the protocol has them; false stops the decoding with err filled. */
typedef struct SinkOps {
    bool (*begin)(void *self, uint32_t xid, Position commit, int64_t commit_time_us, Err *err);
    bool (*commit)(void *self, Position commit, Position end, int64_t commit_time_us, Err *err);
    /* A change of the transaction that is open (or of change->xid's, inside a stream block). */
    bool (*change)(void *self, Change *change, Err *err);
    /* A new or changed table. */
    bool (*relation)(void *self, const Relation *relation, Err *err);
    /* A message outside any transaction: pg_logical_emit_message(false, …). */
    bool (*message)(void *self, Position at, Span prefix, Span content, Err *err);
    bool (*origin)(void *self, Span name, Err *err);
    bool (*stream_start)(void *self, uint32_t xid, bool first, Err *err);
    bool (*stream_stop)(void *self, Err *err);
    bool (*stream_commit)(void *self, uint32_t xid, Position commit, Position end,
                          int64_t commit_time_us, Err *err);
    /* xid == subxid: the whole transaction; else only what carries subxid. May name a
     * transaction that was never streamed (trap 172): not an error. */
    bool (*stream_abort)(void *self, uint32_t xid, uint32_t subxid, Err *err);
    /* As begin and commit, of a transaction that isn't committed yet. Its id and gid come again
     * with what becomes of it. */
    bool (*begin_prepare)(void *self, const Prepared *prepared, Err *err);
    bool (*prepare)(void *self, const Prepared *prepared, Err *err);
    bool (*stream_prepare)(void *self, const Prepared *prepared, Err *err);
    /* These may name a transaction whose prepare was before the start of the stream. */
    bool (*commit_prepared)(void *self, const Prepared *prepared, Err *err);
    bool (*rollback_prepared)(void *self, const Prepared *prepared, Err *err);
} SinkOps;

typedef struct Sink {
    const SinkOps *ops;
    void *self;
} Sink;

typedef struct Decoder Decoder;
typedef struct DecoderOps {
    const char *name;
    /* One whole message. It must live as long as what is handed out: spans point into it. Changes
     * and their value arrays are allocated from `arena`. */
    bool (*decode)(Decoder *self, Span message, Arena *arena, const Sink *sink, Err *err);
    void (*free)(Decoder *self);
} DecoderOps;

struct Decoder {
    const DecoderOps *ops;
};

MUST_USE static inline bool decoder_decode(Decoder *d, Span message, Arena *arena, const Sink *sink,
                                           Err *err)
{
    return d->ops->decode(d, message, arena, sink, err) ||
           err_context(err, "%s decoder", d->ops->name);
}

static inline void decoder_free(Decoder *d)
{
    if (d)
        d->ops->free(d);
}

#endif
