#include "engine/stream/relay_track.h"

#include "engine/base/reader.h"

struct RelayOpen {
    RelayOpen *next;
    uint32_t xid;
    uint64_t segment;
    bool prepared;
    Buf relations; /* of a streamed one: they count once it has committed */
};

struct RelayTable {
    uint32_t id;
    Buf raw; /* the Relation message, without a transaction id */
};

static Position later(Position a, Position b)
{
    return position_compare(a, b) > 0 ? a : b;
}

/* Open transactions */

static RelayOpen *open_find(const RelayTrack *t, uint32_t xid)
{
    RelayOpen *o = t->open;

    while (o && o->xid != xid)
        o = o->next;
    return o;
}

static RelayOpen *open_add(RelayTrack *t, uint32_t xid, uint64_t segment)
{
    RelayOpen *o = open_find(t, xid);

    if (o)
        return o;
    o = calloc(1, sizeof(*o));
    if (!o)
        abort();
    o->xid = xid;
    o->segment = segment;
    buf_init(&o->relations, SIZE_MAX / 4);
    o->next = t->open;
    t->open = o;
    return o;
}

static void open_free(RelayTrack *t, RelayOpen *o)
{
    RelayOpen **at = &t->open;

    while (*at != o)
        at = &(*at)->next;
    *at = o->next;
    if (t->txn == o)
        t->txn = NULL;
    if (t->stream == o)
        t->stream = NULL;
    buf_fini(&o->relations);
    free(o);
}

/* Tables */

static void put_relation(Buf *out, Span raw)
{
    buf_put_u32le(out, (uint32_t)raw.len);
    buf_put_span(out, raw);
}

static void table_set(RelayTrack *t, Span raw)
{
    Reader r = reader_of(span_of(raw.at + 1, raw.len - 1));
    uint32_t id = reader_u32be(&r, "relation");
    size_t at = 0;

    while (at < t->table_count && t->tables[at].id != id)
        at++;
    if (at == t->table_room) {
        t->table_room = t->table_room ? t->table_room * 2 : 16;
        t->tables = realloc(t->tables, t->table_room * sizeof(*t->tables));
        if (!t->tables)
            abort();
    }
    if (at == t->table_count) {
        t->tables[t->table_count++].id = id;
        buf_init(&t->tables[at].raw, SIZE_MAX / 4);
    }
    buf_clear(&t->tables[at].raw);
    buf_put_span(&t->tables[at].raw, raw);
}

static void tables_learn(RelayTrack *t, const RelayOpen *o)
{
    Reader r = reader_of(buf_span(&o->relations));

    while (reader_left(&r)) {
        uint32_t len = reader_u32le(&r, "length");

        table_set(t, reader_span(&r, len, "relation"));
    }
}

static void on_relation(RelayTrack *t, Span message)
{
    if (!t->stream) {
        table_set(t, message);
        return;
    }
    /* type, transaction, the rest */
    buf_put_u32le(&t->stream->relations, (uint32_t)message.len - 4);
    buf_put_u8(&t->stream->relations, message.at[0]);
    buf_put_span(&t->stream->relations, span_of(message.at + 5, message.len - 5));
}

/* Ends */

/* Behind an unresolved PREPARE nothing is complete: only its content makes COMMIT PREPARED mean
 * anything. */
static void advance(RelayTrack *t, Position end)
{
    for (const RelayOpen *o = t->open; o; o = o->next)
        if (o->prepared)
            return;
    t->end = later(t->end, end);
}

static void on_end(RelayTrack *t, RelayOpen *o, Position end, bool committed, RelayEnded *ended)
{
    if (o) {
        *ended = (RelayEnded){o->segment, committed ? end : POSITION_NONE};
        if (committed)
            tables_learn(t, o);
        open_free(t, o);
    }
    advance(t, end);
}

static void on_prepare(RelayTrack *t, uint32_t xid, uint64_t segment)
{
    open_add(t, xid, segment)->prepared = true;
    t->txn = NULL;
}

typedef struct Fields {
    uint32_t xid;
    uint32_t subxid;
    Position end;
} Fields;

/* What of a message matters here. */
static Fields read_fields(Reader *r, uint8_t type)
{
    Fields f = {0};

    if (type == 'S' || type == 'c' || type == 'A')
        f.xid = reader_u32be(r, "transaction");
    if (type == 'A')
        f.subxid = reader_u32be(r, "subtransaction");
    if (strchr("CcPpKr", type)) /* flags, start or prepare's end, end, time */
        (void)reader_span(r, 9, "start");
    if (strchr("Bb", type))
        (void)reader_span(r, type == 'B' ? 16 : 24, "positions");
    if (strchr("CcPpKr", type)) {
        f.end = position_of_lsn(reader_u64be(r, "end"));
        (void)reader_span(r, type == 'r' ? 16 : 8, "time");
    }
    if (strchr("BbPpKr", type))
        f.xid = reader_u32be(r, "transaction");
    return f;
}

bool relay_track_message(RelayTrack *t, Span message, uint64_t segment, RelayEnded *ended, Err *err)
{
    Reader r = reader_of(message);
    uint8_t type = reader_u8(&r, "type");
    Fields f;

    *ended = (RelayEnded){0};
    if (r.broken || type == 0 || strchr("IUDTMOY", type))
        return !r.broken && type ? true
                                 : err_fail(err, ERR_PROTOCOL, "the source sends an empty message");
    f = read_fields(&r, type);
    if (r.broken || (type == 'R' && message.len < (t->stream ? 9 : 5)))
        return err_fail(err, ERR_PROTOCOL, "message '%c' of %zu bytes is too short", type,
                        message.len);
    switch (type) {
    case 'B':
    case 'b':
        t->txn = open_add(t, f.xid, segment);
        break;
    case 'S':
        t->stream = open_add(t, f.xid, segment);
        break;
    case 'E':
        t->stream = NULL;
        break;
    case 'R':
        on_relation(t, message);
        break;
    case 'C':
        on_end(t, t->txn, f.end, true, ended);
        t->txn = NULL;
        break;
    case 'c':
    case 'K':
        on_end(t, open_find(t, f.xid), f.end, true, ended);
        break;
    case 'r':
        on_end(t, open_find(t, f.xid), f.end, false, ended);
        break;
    case 'A':
        if (f.xid == f.subxid && open_find(t, f.xid))
            open_free(t, open_find(t, f.xid));
        break;
    case 'P':
    case 'p':
        on_prepare(t, f.xid, segment);
        break;
    default: /* the decoder says what it doesn't understand */
        break;
    }
    return true;
}

void relay_track_quiet(RelayTrack *t, Position at)
{
    if (!t->txn)
        advance(t, at);
}

void relay_track_connected(RelayTrack *t)
{
    while (t->open)
        open_free(t, t->open);
    for (size_t i = 0; i < t->table_count; i++)
        buf_fini(&t->tables[i].raw);
    t->table_count = 0;
    t->txn = t->stream = NULL;
}

bool relay_track_is_between(const RelayTrack *t)
{
    return !t->txn && !t->stream;
}

uint64_t relay_track_oldest(const RelayTrack *t)
{
    uint64_t oldest = UINT64_MAX;

    for (const RelayOpen *o = t->open; o; o = o->next)
        if (o->segment < oldest)
            oldest = o->segment;
    return oldest;
}

void relay_track_put_open(const RelayTrack *t, Buf *out)
{
    for (const RelayOpen *o = t->open; o; o = o->next)
        buf_put_u32le(out, o->xid);
}

void relay_track_put_relations(const RelayTrack *t, Buf *out)
{
    for (size_t i = 0; i < t->table_count; i++)
        put_relation(out, buf_span(&t->tables[i].raw));
}

void relay_track_fini(RelayTrack *t)
{
    relay_track_connected(t);
    free(t->tables);
    *t = (RelayTrack){0};
}
