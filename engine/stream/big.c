#include "engine/stream/big.h"

#include "decoders/pgoutput/pgoutput.h"

typedef struct Big {
    ChangeReader base;
    Spool *spool;
    Ids ids;
    Decoder *decoder;
    Sink sink;
    Change *got;
} Big;

static bool on_change(void *self, Change *change, Err *err)
{
    Big *big = self;

    (void)err;
    big->got = change;
    return true;
}

static bool on_relation(void *self, const Relation *relation, Err *err)
{
    (void)self, (void)relation, (void)err;
    return true;
}

static bool on_message(void *self, Position at, Span prefix, Span content, Err *err)
{
    (void)self, (void)at, (void)prefix, (void)content, (void)err;
    return true;
}

static bool on_origin(void *self, Span name, Err *err)
{
    (void)self, (void)name, (void)err;
    return true;
}

/* The decoder refuses what begins or ends a transaction when it comes from a spool: no other
 * callback is reached. */
static const SinkOps sink_ops = {
    .change = on_change, .relation = on_relation, .message = on_message, .origin = on_origin};

static bool big_rewind(ChangeReader *self, Err *err)
{
    return spool_rewind(((Big *)self)->spool, err);
}

static bool was_rolled_back(const Big *big, uint32_t xid)
{
    const Id *id = xid ? ids_find(&big->ids, xid) : NULL;

    return id && id->marked;
}

static bool big_next(ChangeReader *self, Arena *arena, Change **change, Err *err)
{
    Big *big = (Big *)self;

    *change = big->got = NULL;
    while (!big->got) {
        uint32_t xid;
        Span record;

        if (!spool_next(big->spool, &xid, &record, err))
            return false;
        if (!record.at)
            return true;
        if (was_rolled_back(big, xid))
            continue;
        if (!pgoutput_decode_spooled(big->decoder, arena_dup(arena, record), xid != 0, arena,
                                     &big->sink, err))
            return false;
    }
    *change = big->got;
    return true;
}

static void big_free(ChangeReader *self)
{
    Big *big = (Big *)self;

    decoder_free(big->decoder);
    spool_free(big->spool);
    ids_fini(&big->ids);
    free(big);
}

ChangeReader *big_new(Spool *spool, Ids *ids, unsigned protocol)
{
    static const ChangeReaderOps ops = {.rewind = big_rewind, .next = big_next, .free = big_free};
    Big *big = calloc(1, sizeof(*big));

    if (!big)
        abort();
    big->base.ops = &ops;
    big->spool = spool;
    big->ids = *ids;
    *ids = (Ids){0};
    big->decoder = pgoutput_new(protocol);
    big->sink = (Sink){&sink_ops, big};
    return &big->base;
}
