/* A run of pgoutput messages. First byte: protocol 2 (1), from a spool (2), with transaction ids
 * (4), two protocols higher: 3 or 4 (8). Then messages, each behind a big-endian 16-bit length, of
 * which the last may be short: state between messages is fuzzed too. */
#include "decoders/pgoutput/pgoutput.h"

#include "engine/base/reader.h"
#include "tests/fuzz/fuzz.h"

enum { PROTOCOL_2 = 1, SPOOLED = 2, WITH_XID = 4, PROTOCOL_3 = 8 };

typedef struct Seen {
    unsigned sum; /* of every byte handed out, so that all are read */
    bool open;
    bool stream;
    bool spooled;
    uint64_t events;
} Seen;

static void look(Seen *seen, Span bytes)
{
    for (size_t i = 0; i < bytes.len; i++)
        seen->sum += bytes.at[i];
}

static void look_row(Seen *seen, const Relation *rel, const Value *row)
{
    for (uint16_t i = 0; row && i < rel->column_count; i++) {
        FUZZ_CLAIM(row[i].kind <= VALUE_UNCHANGED);
        look(seen, span_of(row[i].at, row[i].len));
    }
}

static bool on_begin(void *self, uint32_t xid, Position commit, int64_t time_us, Err *err)
{
    Seen *seen = self;

    (void)xid, (void)time_us, (void)err;
    FUZZ_CLAIM(!seen->open && !seen->stream && commit.at != 0);
    seen->open = true;
    seen->events++;
    return true;
}

static bool on_commit(void *self, Position commit, Position end, int64_t time_us, Err *err)
{
    Seen *seen = self;

    (void)time_us, (void)err;
    FUZZ_CLAIM(seen->open && position_compare(commit, end) < 0);
    seen->open = false;
    seen->events++;
    return true;
}

static void look_update(const Change *change)
{
    for (uint16_t i = 0; change->old && i < change->rel->column_count; i++) {
        FUZZ_CLAIM(change->old[i].kind != VALUE_UNCHANGED);
        FUZZ_CLAIM(change->old_is_key || change->old[i].kind != VALUE_ABSENT);
        FUZZ_CLAIM(!change->rel->columns[i].in_identity || change->old[i].kind != VALUE_ABSENT);
        FUZZ_CLAIM(change->new[i].kind != VALUE_UNCHANGED || !value_is_known(change->old[i]));
    }
}

static bool on_change(void *self, Change *change, Err *err)
{
    Seen *seen = self;

    (void)err;
    FUZZ_CLAIM(seen->spooled || seen->open || seen->stream);
    FUZZ_CLAIM(seen->spooled || seen->stream || change->xid == 0);
    look(seen, change->raw);
    look(seen, change->prefix);
    look(seen, change->content);
    if (change->rel) {
        look_row(seen, change->rel, change->old);
        look_row(seen, change->rel, change->new);
    }
    if (change->kind == CHANGE_UPDATE)
        look_update(change);
    for (uint32_t i = 0; i < change->truncated_count; i++)
        look(seen, span_str(change->truncated[i]->name));
    FUZZ_CLAIM((change->new != NULL) ==
               (change->kind == CHANGE_INSERT || change->kind == CHANGE_UPDATE));
    FUZZ_CLAIM(change->kind != CHANGE_DELETE || change->old);
    seen->events++;
    return true;
}

static bool on_relation(void *self, const Relation *relation, Err *err)
{
    Seen *seen = self;

    (void)err;
    look(seen, relation->raw);
    look(seen, span_str(relation->schema));
    look(seen, span_str(relation->name));
    for (uint16_t i = 0; i < relation->column_count; i++)
        look(seen, span_str(relation->columns[i].name));
    FUZZ_CLAIM(relation->serial > 0);
    seen->events++;
    return true;
}

static bool on_message(void *self, Position at, Span prefix, Span content, Err *err)
{
    Seen *seen = self;

    (void)at, (void)err;
    look(seen, prefix);
    look(seen, content);
    seen->events++;
    return true;
}

static bool on_origin(void *self, Span name, Err *err)
{
    Seen *seen = self;

    (void)err;
    look(seen, name);
    seen->events++;
    return true;
}

static bool on_stream_start(void *self, uint32_t xid, bool first, Err *err)
{
    Seen *seen = self;

    (void)xid, (void)first, (void)err;
    FUZZ_CLAIM(!seen->open && !seen->stream);
    seen->stream = true;
    seen->events++;
    return true;
}

static bool on_stream_stop(void *self, Err *err)
{
    Seen *seen = self;

    (void)err;
    FUZZ_CLAIM(seen->stream);
    seen->stream = false;
    seen->events++;
    return true;
}

static bool on_stream_commit(void *self, uint32_t xid, Position commit, Position end,
                             int64_t time_us, Err *err)
{
    Seen *seen = self;

    (void)xid, (void)time_us, (void)err;
    FUZZ_CLAIM(!seen->open && !seen->stream && position_compare(commit, end) < 0);
    seen->events++;
    return true;
}

static bool on_stream_abort(void *self, uint32_t xid, uint32_t subxid, Err *err)
{
    Seen *seen = self;

    (void)xid, (void)subxid, (void)err;
    FUZZ_CLAIM(!seen->open && !seen->stream);
    seen->events++;
    return true;
}

static void look_prepared(Seen *seen, const Prepared *p)
{
    look(seen, p->gid);
    FUZZ_CLAIM(!seen->stream && p->xid != 0 && p->gid.len && position_compare(p->at, p->end) < 0);
    seen->events++;
}

static bool on_begin_prepare(void *self, const Prepared *p, Err *err)
{
    Seen *seen = self;

    (void)err;
    FUZZ_CLAIM(!seen->open);
    seen->open = true;
    look_prepared(seen, p);
    return true;
}

static bool on_prepare(void *self, const Prepared *p, Err *err)
{
    Seen *seen = self;

    (void)err;
    FUZZ_CLAIM(seen->open);
    seen->open = false;
    look_prepared(seen, p);
    return true;
}

/* What becomes of one, or one that was streamed. */
static bool on_resolved(void *self, const Prepared *p, Err *err)
{
    Seen *seen = self;

    (void)err;
    FUZZ_CLAIM(!seen->open);
    look_prepared(seen, p);
    return true;
}

static const SinkOps ops = {
    .begin = on_begin,
    .commit = on_commit,
    .change = on_change,
    .relation = on_relation,
    .message = on_message,
    .origin = on_origin,
    .stream_start = on_stream_start,
    .stream_stop = on_stream_stop,
    .stream_commit = on_stream_commit,
    .stream_abort = on_stream_abort,
    .begin_prepare = on_begin_prepare,
    .prepare = on_prepare,
    .stream_prepare = on_resolved,
    .commit_prepared = on_resolved,
    .rollback_prepared = on_resolved,
};

typedef struct Fuzz {
    Decoder *decoder;
    Arena arena;
    Seen seen;
    bool with_xid;
} Fuzz;

static bool decode(Fuzz *fuzz, Span message, Err *err)
{
    Sink sink = {&ops, &fuzz->seen};
    bool ok;

    if (fuzz->seen.spooled)
        ok = pgoutput_decode_spooled(fuzz->decoder, message, fuzz->with_xid, &fuzz->arena, &sink,
                                     err);
    else
        ok = decoder_decode(fuzz->decoder, message, &fuzz->arena, &sink, err);
    arena_reset(&fuzz->arena);
    return ok;
}

static void fuzz_one(Fuzz *fuzz, Span message)
{
    uint64_t events = fuzz->seen.events;
    bool in_stream = pgoutput_in_stream(fuzz->decoder);
    uint8_t *block = fuzz_exact(message);
    Span exact = span_of(block ? block : (const uint8_t *)"", message.len);
    Err err = ERR_INIT, again = ERR_INIT;
    PgOutputPeek peek;
    bool peeked = pgoutput_peek(fuzz->decoder, exact, &peek, &err);

    FUZZ_CLAIM(pgoutput_in_stream(fuzz->decoder) == in_stream);
    if (decode(fuzz, exact, &err)) {
        FUZZ_CLAIM(fuzz->seen.events <= events + 1);
        FUZZ_CLAIM(peeked || (fuzz->seen.spooled && !fuzz->with_xid));
    } else { /* nothing happened, so it fails again in the same way */
        FUZZ_CLAIM(err.kind == ERR_PROTOCOL && fuzz->seen.events == events);
        FUZZ_CLAIM(pgoutput_in_stream(fuzz->decoder) == in_stream);
        FUZZ_CLAIM(!decode(fuzz, exact, &again));
        FUZZ_CLAIM(strcmp(err.text, again.text) == 0);
    }
    free(block);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Reader r = reader_of(span_of(data, size));
    uint8_t flags = reader_u8(&r, "flags");
    unsigned protocol = (flags & PROTOCOL_2 ? 2u : 1u) + (flags & PROTOCOL_3 ? 2u : 0u);
    Fuzz fuzz = {.decoder = pgoutput_new(protocol), .with_xid = flags & WITH_XID};

    fuzz.seen.spooled = flags & SPOOLED;
    arena_init(&fuzz.arena, 4096);
    while (reader_left(&r) >= 2) {
        size_t len = reader_u16be(&r, "length");

        fuzz_one(&fuzz, reader_span(&r, size_min(len, reader_left(&r)), "message"));
    }
    arena_fini(&fuzz.arena);
    decoder_free(fuzz.decoder);
    return 0;
}
