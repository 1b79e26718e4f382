/* clang-format off */
/* PostgreSQL documentation, "Logical Replication Message Formats"
 * (protocol-logicalrep-message-formats). All integers are big-endian; [xid] is there inside a
 * stream block only (protocol 2 and above); str ends with a NUL.
 *
 *   B  Begin              u64 final LSN, i64 commit time, u32 xid
 *   C  Commit             u8 flags = 0, u64 commit LSN, u64 end LSN, i64 commit time
 *   O  Origin             u64 LSN at the origin, str name; right behind Begin, Begin Prepare, Stream Start
 *   R  Relation           [xid] u32 oid, str schema ("" is pg_catalog), str name, u8 identity, u16 columns,
 *                         each: u8 flags (1: in the identity), str name, u32 type oid, i32 type modifier
 *   Y  Type               [xid] u32 oid, str schema, str name
 *   I  Insert             [xid] u32 relation, 'N' row
 *   U  Update             [xid] u32 relation, none or 'K' row or 'O' row, 'N' row
 *   D  Delete             [xid] u32 relation, 'K' row or 'O' row
 *   T  Truncate           [xid] u32 relations, u8 options (1: cascade, 2: restart identity), each: u32 relation
 *   M  Message            [xid] u8 flags (1: transactional), u64 LSN, str prefix, u32 len, bytes
 *   S  Stream Start       u32 xid, u8 first (1: of this transaction)
 *   E  Stream Stop
 *   c  Stream Commit      u32 xid, u8 flags = 0, u64 commit LSN, u64 end LSN, i64 commit time
 *   A  Stream Abort       u32 xid, u32 subxid; with protocol 4 and streaming 'parallel' also u64 abort LSN, i64 time
 *   b  Begin Prepare      u64 prepare LSN, u64 end LSN, i64 prepare time, u32 xid, str gid
 *   P  Prepare            u8 flags = 0, u64 prepare LSN, u64 end LSN, i64 prepare time, u32 xid, str gid
 *   p  Stream Prepare     as Prepare
 *   K  Commit Prepared    u8 flags = 0, u64 commit LSN, u64 end LSN, i64 commit time, u32 xid, str gid
 *   r  Rollback Prepared  u8 flags = 0, u64 end LSN of the prepare, u64 end LSN of the rollback, i64 prepare time,
 *                         i64 rollback time, u32 xid, str gid
 *
 *   row                   u16 columns, each: 'n' null | 'u' unchanged TOAST | 't' text or 'b' binary, u32 len, bytes
 *
 * Times are microseconds since 2000-01-01 and handed out since 1970. In a 'K' row the columns
 * outside the identity are sent as 'n', which means unknown there and not NULL: they become
 * VALUE_ABSENT.
 */
/* clang-format on */
#include "decoders/pgoutput/pgoutput.h"

#include <stdatomic.h>
#include <xxhash.h>

#define HASH_FUNCTION(key, len, hash) ((hash) = (unsigned)XXH3_64bits((key), (len)))
#include <uthash.h>

#include "engine/base/reader.h"

#define EPOCH_2000_US INT64_C(946684800000000)

typedef enum Place { OUTSIDE = 1, IN_TXN = 2, IN_STREAM = 4, IN_PREPARE = 8 } Place;
#define IN_ANY (IN_TXN | IN_STREAM | IN_PREPARE)

/* The newest description of one table. */
typedef struct Known {
    UT_hash_handle hh;
    uint32_t id;
    const Relation *rel;
} Known;

typedef struct PgOutput {
    Decoder base;
    unsigned protocol;
    Place place;
    bool changed;         /* the transaction or block has gone beyond its Origin */
    Position commit;      /* what Begin or Begin Prepare announced */
    Arena arena;          /* relations, as long as the decoder */
    Known *known;         /* by id */
    const Relation *last; /* most changes are of the table of the one before */
} PgOutput;

/* One message on its way through. */
typedef struct Step {
    Reader r;
    const char *name;
    Span raw;
    uint32_t xid;
    bool spooled; /* what is around it is not known, and nothing of it may stay */
    Arena *arena;
    const Sink *sink;
    Err *err;
} Step;

typedef bool MessageFn(PgOutput *self, Step *step);

static bool finish(Step *step)
{
    return reader_finish(&step->r, step->name, step->err);
}

/* The parts of a row, as errors name them. */
typedef struct RowNames {
    const char *row;
    const char *count;
    const char *kind;
    const char *len;
    const char *value;
} RowNames;

#define ROW_NAMES(row)                                                                           \
    {                                                                                            \
        row, "column count of the " row, "column kind of the " row, "column length of the " row, \
            "column value of the " row                                                           \
    }
static const RowNames new_row = ROW_NAMES("new row");
static const RowNames old_row = ROW_NAMES("old row");

/* Fields */

static int64_t read_time(Reader *r)
{
    int64_t since_1970 = 0;

    if (__builtin_add_overflow((int64_t)reader_u64be(r, "commit time"), EPOCH_2000_US, &since_1970))
        reader_break(r, "commit time", "out of range");
    return since_1970;
}

static Position read_lsn(Reader *r, const char *field)
{
    uint64_t lsn = reader_u64be(r, field);

    if (lsn == 0)
        reader_break(r, field, "is 0/0");
    return position_of_lsn(lsn);
}

/* What ends a transaction, streamed or not. */
typedef struct Commit {
    Position at;
    Position end;
    int64_t time_us;
} Commit;

static Commit read_commit(Reader *r)
{
    Commit commit;

    if (reader_u8(r, "flags") != 0)
        reader_break(r, "flags", "has bits that nobody knows");
    commit.at = read_lsn(r, "commit LSN");
    commit.end = read_lsn(r, "end LSN");
    if (position_compare(commit.end, commit.at) <= 0)
        reader_break(r, "end LSN", "is not behind the commit LSN");
    commit.time_us = read_time(r);
    return commit;
}

/* Relations */

/* NOLINTBEGIN(readability-function-cognitive-complexity,readability-function-size): uthash's macros
 */

static Known *known_find(PgOutput *self, uint32_t id)
{
    Known *known;

    HASH_FIND(hh, self->known, &id, sizeof(id), known);
    return known;
}

static Known *known_add(PgOutput *self, uint32_t id)
{
    Known *known = arena_new(&self->arena, Known);

    known->id = id;
    HASH_ADD(hh, self->known, id, sizeof(known->id), known);
    return known;
}

/* NOLINTEND(readability-function-cognitive-complexity,readability-function-size) */

static const Relation *relation_find(PgOutput *self, uint32_t id)
{
    const Known *known;

    if (LIKELY(self->last && self->last->id == id))
        return self->last;
    known = known_find(self, id);
    if (!known)
        return NULL;
    self->last = known->rel;
    return known->rel;
}

static const Relation *read_relation_id(PgOutput *self, Step *step)
{
    uint32_t id = reader_u32be(&step->r, "relation id");
    const Relation *rel;

    if (step->r.broken) {
        (void)finish(step);
        return NULL;
    }
    rel = relation_find(self, id);
    if (!rel)
        err_fail(step->err, ERR_PROTOCOL, "%s: relation id %u was never described", step->name, id);
    return rel;
}

static void read_column(Reader *r, Arena *arena, Column *column)
{
    uint8_t flags = reader_u8(r, "column flags");
    Span name = reader_str(r, "column name");

    if (flags > 1)
        reader_break(r, "column flags", "has bits that nobody knows");
    column->in_identity = flags & 1;
    column->type_oid = reader_u32be(r, "column type");
    column->type_mod = (int32_t)reader_u32be(r, "column type modifier");
    if (arena)
        column->name = arena_str_of(arena, name);
}

#define LEAST_COLUMN_BYTES 10 /* flags, NUL, type, modifier */

/* Twice over the same bytes: first to see that all of it is sound, then, with an arena, to keep it.
 */
static void read_relation(Reader *r, Arena *arena, Relation *rel)
{
    Column scratch;
    Column *columns = NULL;
    Span schema, name;

    rel->id = reader_u32be(r, "relation id");
    schema = reader_str(r, "schema");
    name = reader_str(r, "name");
    rel->identity = (char)reader_u8(r, "replica identity");
    if (!r->broken && !strchr("dnfi", rel->identity ? rel->identity : '?'))
        reader_break(r, "replica identity", "is none of d, n, f, i");
    rel->column_count = (uint16_t)reader_count(r, reader_u16be(r, "column count"),
                                               LEAST_COLUMN_BYTES, "column count");
    if (arena) {
        columns = arena_array(arena, Column, rel->column_count);
        rel->schema = schema.len ? arena_str_of(arena, schema) : "pg_catalog";
        rel->name = arena_str_of(arena, name);
        rel->columns = columns;
    }
    for (uint16_t i = 0; i < rel->column_count; i++)
        read_column(r, arena, columns ? &columns[i] : &scratch);
}

/* The message as it would be outside a stream block, so that whoever stores it need not store how
 * it came. */
static Span relation_raw(Arena *arena, Span body)
{
    uint8_t *raw = arena_alloc(arena, body.len + 1);

    raw[0] = 'R';
    memcpy(raw + 1, body.at, body.len);
    return span_of(raw, body.len + 1);
}

static const Relation *relation_make(PgOutput *self, Span body)
{
    static atomic_uint_fast64_t serial;
    Relation *rel = arena_new(&self->arena, Relation);
    Reader again;

    rel->raw = relation_raw(&self->arena, body);
    again = reader_of(span_of(rel->raw.at + 1, body.len));
    read_relation(&again, &self->arena, rel);
    rel->serial = atomic_fetch_add(&serial, 1) + 1;
    return rel;
}

static bool on_relation(PgOutput *self, Step *step)
{
    Span body = span_of(step->r.at, reader_left(&step->r));
    Relation seen = {0};
    Known *known;

    read_relation(&step->r, NULL, &seen);
    if (!finish(step))
        return false;
    known = known_find(self, seen.id);
    /* The source repeats itself with every streamed transaction and every invalidation. A
     * description that says nothing new must neither cost memory for ever nor make caches forget.
     */
    if (known && span_equal(span_of(known->rel->raw.at + 1, known->rel->raw.len - 1), body))
        return true;
    if (!known)
        known = known_add(self, seen.id);
    known->rel = relation_make(self, body);
    self->last = known->rel;
    return step->sink->ops->relation(step->sink->self, known->rel, step->err);
}

static bool on_type(PgOutput *self, Step *step)
{
    (void)self;
    (void)reader_u32be(&step->r, "type id");
    (void)reader_str(&step->r, "schema");
    (void)reader_str(&step->r, "name");
    return finish(step); /* the appliers ask their own catalog, by name */
}

/* Rows */

static inline Value read_value(Reader *r, const RowNames *names)
{
    uint8_t kind = reader_u8(r, names->kind);
    Span bytes;

    switch (kind) {
    case 't':
    case 'b':
        bytes = reader_span(r, reader_u32be(r, names->len), names->value);
        return (Value){bytes.at, (uint32_t)bytes.len, kind == 't' ? VALUE_TEXT : VALUE_BINARY};
    case 'n':
        return (Value){NULL, 0, VALUE_NULL};
    case 'u':
        return (Value){NULL, 0, VALUE_UNCHANGED};
    default:
        reader_break(r, names->kind, "is none of n, u, t, b");
        return (Value){NULL, 0, VALUE_ABSENT};
    }
}

/* Only an UPDATE's new row can leave a value alone. Anywhere else the value is lost, and so would
 * the row be. */
static bool fail_unchanged(Step *step, const Relation *rel, const Value *row, const RowNames *names)
{
    uint16_t i = 0;

    while (row[i].kind != VALUE_UNCHANGED)
        i++;
    return err_fail(step->err, ERR_PROTOCOL, "%s: column %s of the %s of %s.%s is marked unchanged",
                    step->name, rel->columns[i].name, names->row, rel->schema, rel->name);
}

#define HAS_UNCHANGED (1u << VALUE_UNCHANGED)

/* NULL: err is filled. *kinds: a bit for each ValueKind in it. */
static Value *read_row(Step *step, const Relation *rel, const RowNames *names, unsigned *kinds)
{
    Reader r = step->r; /* a local copy stays in registers */
    size_t count = reader_count(&r, reader_u16be(&r, names->count), 1, names->count);
    unsigned seen = 0;
    Value *row;

    if (UNLIKELY(!r.broken && count != rel->column_count)) {
        err_fail(step->err, ERR_PROTOCOL, "%s: the %s has %zu columns, relation %s.%s has %u",
                 step->name, names->row, count, rel->schema, rel->name, rel->column_count);
        return NULL;
    }
    row = arena_alloc(step->arena, count * sizeof(*row));
    for (size_t i = 0; i < count; i++) {
        Value value = read_value(&r, names);

        seen |= 1u << value.kind;
        row[i] = value;
    }
    *kinds = seen;
    step->r = r;
    if (LIKELY(!r.broken))
        return row;
    (void)finish(step);
    return NULL;
}

/* A row in which every value must be there. */
static Value *read_whole_row(Step *step, const Relation *rel, const RowNames *names)
{
    unsigned kinds;
    Value *row = read_row(step, rel, names, &kinds);

    if (UNLIKELY(row && (kinds & HAS_UNCHANGED))) {
        (void)fail_unchanged(step, rel, row, names);
        return NULL;
    }
    return row;
}

static bool fail_marker(Step *step, const char *why)
{
    reader_break(&step->r, "row marker", why);
    return finish(step);
}

/* The row before; marker is what was read: K or O. */
static bool read_old(Step *step, Change *change, uint8_t marker)
{
    const Relation *rel = change->rel;
    Value *old = read_whole_row(step, rel, &old_row);

    if (!old)
        return false;
    change->old = old;
    change->old_is_key = marker == 'K';
    if (change->old_is_key)
        for (uint16_t i = 0; i < rel->column_count; i++)
            if (!rel->columns[i].in_identity)
                old[i] = (Value){NULL, 0, VALUE_ABSENT};
    return true;
}

/* What the new row leaves alone and the old row tells is known. */
static void fill_unchanged(const Relation *rel, Value *new, const Value *old)
{
    for (uint16_t i = 0; i < rel->column_count; i++)
        if (new[i].kind == VALUE_UNCHANGED && value_is_known(old[i]))
            new[i] = old[i];
}

static Change *change_begin(Step *step, ChangeKind kind, const Relation *rel)
{
    Change *change = arena_alloc(step->arena, sizeof(*change));

    *change = (Change){.kind = kind, .xid = step->xid, .rel = rel, .raw = step->raw};
    return change;
}

static bool change_end(PgOutput *self, Step *step, Change *change)
{
    if (!finish(step))
        return false;
    self->changed = true;
    return step->sink->ops->change(step->sink->self, change, step->err);
}

static bool on_insert(PgOutput *self, Step *step)
{
    const Relation *rel = read_relation_id(self, step);
    Change *change;
    Value *new;

    if (!rel)
        return false;
    if (reader_u8(&step->r, "row marker") != 'N')
        return fail_marker(step, "is not N");
    new = read_whole_row(step, rel, &new_row);
    if (!new)
        return false;
    change = change_begin(step, CHANGE_INSERT, rel);
    change->new = new;
    return change_end(self, step, change);
}

static bool on_update(PgOutput *self, Step *step)
{
    const Relation *rel = read_relation_id(self, step);
    Change *change;
    Value *new;
    unsigned kinds;
    uint8_t marker;

    if (!rel)
        return false;
    change = change_begin(step, CHANGE_UPDATE, rel);
    marker = reader_u8(&step->r, "row marker");
    if (marker == 'K' || marker == 'O') {
        if (!read_old(step, change, marker))
            return false;
        marker = reader_u8(&step->r, "row marker");
    }
    if (marker != 'N')
        return fail_marker(step, change->old ? "is not N" : "is none of K, O, N");
    new = read_row(step, rel, &new_row, &kinds);
    if (!new)
        return false;
    if (change->old && (kinds & HAS_UNCHANGED))
        fill_unchanged(rel, new, change->old);
    change->new = new;
    return change_end(self, step, change);
}

static bool on_delete(PgOutput *self, Step *step)
{
    const Relation *rel = read_relation_id(self, step);
    Change *change;
    uint8_t marker;

    if (!rel)
        return false;
    change = change_begin(step, CHANGE_DELETE, rel);
    marker = reader_u8(&step->r, "row marker");
    if (marker != 'K' && marker != 'O')
        return fail_marker(step, "is none of K, O");
    return read_old(step, change, marker) && change_end(self, step, change);
}

enum { TRUNCATE_CASCADE = 1, TRUNCATE_RESTART_IDENTITY = 2 };

static bool on_truncate(PgOutput *self, Step *step)
{
    Reader *r = &step->r;
    size_t claimed = reader_u32be(r, "relation count");
    uint8_t options = reader_u8(r, "options");
    size_t count = reader_count(r, claimed, sizeof(uint32_t), "relation count");
    const Relation **rels;
    Change *change;

    if (count == 0)
        reader_break(r, "relation count", "is 0");
    if (options & ~(TRUNCATE_CASCADE | TRUNCATE_RESTART_IDENTITY))
        reader_break(r, "options", "has bits that nobody knows");
    rels = arena_array(step->arena, const Relation *, count);
    for (size_t i = 0; i < count; i++)
        if (!(rels[i] = read_relation_id(self, step)))
            return false;
    change = change_begin(step, CHANGE_TRUNCATE, NULL);
    change->truncated = rels;
    change->truncated_count = (uint32_t)count;
    change->cascade = options & TRUNCATE_CASCADE;
    change->restart_identity = options & TRUNCATE_RESTART_IDENTITY;
    return change_end(self, step, change);
}

static bool on_message(PgOutput *self, Step *step)
{
    Reader *r = &step->r;
    uint8_t flags = reader_u8(r, "flags");
    Position at = position_of_lsn(reader_u64be(r, "LSN"));
    Span prefix = reader_str(r, "prefix");
    Span content = reader_span(r, reader_u32be(r, "content length"), "content");
    Change *change;

    if (flags > 1)
        reader_break(r, "flags", "has bits that nobody knows");
    if (!finish(step))
        return false;
    if (flags == 0)
        return step->sink->ops->message(step->sink->self, at, prefix, content, step->err);
    if (self->place == OUTSIDE && !step->spooled)
        return err_fail(step->err, ERR_PROTOCOL,
                        "%s: a transactional one can't come outside a transaction", step->name);
    change = change_begin(step, CHANGE_MESSAGE, NULL);
    change->prefix = prefix;
    change->content = content;
    return change_end(self, step, change);
}

/* Transactions */

static bool on_begin(PgOutput *self, Step *step)
{
    Position commit = read_lsn(&step->r, "final LSN");
    int64_t time_us = read_time(&step->r);
    uint32_t xid = reader_u32be(&step->r, "transaction id");

    if (!finish(step))
        return false;
    self->place = IN_TXN;
    self->commit = commit;
    self->changed = false;
    return step->sink->ops->begin(step->sink->self, xid, commit, time_us, step->err);
}

static bool on_commit(PgOutput *self, Step *step)
{
    Commit commit = read_commit(&step->r);

    if (!finish(step))
        return false;
    if (position_compare(commit.at, self->commit) != 0)
        return err_fail(step->err, ERR_PROTOCOL,
                        "%s: the commit LSN is %X/%X, its BEGIN said %X/%X", step->name,
                        LSN_ARGS(commit.at.at), LSN_ARGS(self->commit.at));
    self->place = OUTSIDE;
    return step->sink->ops->commit(step->sink->self, commit.at, commit.end, commit.time_us,
                                   step->err);
}

static bool on_origin(PgOutput *self, Step *step)
{
    Span name;

    (void)reader_u64be(&step->r, "origin LSN");
    name = reader_str(&step->r, "origin name");
    if (!finish(step))
        return false;
    if (self->changed && !step->spooled)
        return err_fail(step->err, ERR_PROTOCOL, "%s: can't come behind a change", step->name);
    return step->sink->ops->origin(step->sink->self, name, step->err);
}

static bool on_stream_start(PgOutput *self, Step *step)
{
    uint32_t xid = reader_u32be(&step->r, "transaction id");
    uint8_t first = reader_u8(&step->r, "first segment");

    if (first > 1)
        reader_break(&step->r, "first segment", "is neither 0 nor 1");
    if (!finish(step))
        return false;
    self->place = IN_STREAM;
    self->changed = false;
    return step->sink->ops->stream_start(step->sink->self, xid, first == 1, step->err);
}

static bool on_stream_stop(PgOutput *self, Step *step)
{
    if (!finish(step))
        return false;
    self->place = OUTSIDE;
    return step->sink->ops->stream_stop(step->sink->self, step->err);
}

static bool on_stream_commit(PgOutput *self, Step *step)
{
    uint32_t xid = reader_u32be(&step->r, "transaction id");
    Commit commit = read_commit(&step->r);

    (void)self;
    return finish(step) && step->sink->ops->stream_commit(step->sink->self, xid, commit.at,
                                                          commit.end, commit.time_us, step->err);
}

static bool on_stream_abort(PgOutput *self, Step *step)
{
    uint32_t xid = reader_u32be(&step->r, "transaction id");
    uint32_t subxid = reader_u32be(&step->r, "subtransaction id");

    if (self->protocol >= 4) {
        (void)read_lsn(&step->r, "abort LSN"); /* nothing depends on when it was aborted */
        (void)read_time(&step->r);
    }
    return finish(step) && step->sink->ops->stream_abort(step->sink->self, xid, subxid, step->err);
}

/* Prepared transactions */

static void read_prepared(Reader *r, const char *lsn_field, Prepared *prepared)
{
    prepared->at = read_lsn(r, lsn_field);
    prepared->end = read_lsn(r, "end LSN");
    if (position_compare(prepared->end, prepared->at) <= 0)
        reader_break(r, "end LSN", "is not behind the other LSN");
    prepared->time_us = read_time(r);
}

static void read_name(Reader *r, Prepared *prepared)
{
    prepared->xid = reader_u32be(r, "transaction id");
    prepared->gid = reader_str(r, "gid");
    if (!r->broken && (prepared->xid == 0 || prepared->gid.len == 0))
        reader_break(r, prepared->xid ? "gid" : "transaction id",
                     prepared->xid ? "is empty" : "is 0");
}

static void read_no_flags(Reader *r)
{
    if (reader_u8(r, "flags") != 0)
        reader_break(r, "flags", "has bits that nobody knows");
}

static bool on_begin_prepare(PgOutput *self, Step *step)
{
    Prepared prepared;

    read_prepared(&step->r, "prepare LSN", &prepared);
    read_name(&step->r, &prepared);
    if (!finish(step))
        return false;
    self->place = IN_PREPARE;
    self->commit = prepared.at;
    self->changed = false;
    return step->sink->ops->begin_prepare(step->sink->self, &prepared, step->err);
}

static bool on_prepare(PgOutput *self, Step *step)
{
    Prepared prepared;

    read_no_flags(&step->r);
    read_prepared(&step->r, "prepare LSN", &prepared);
    read_name(&step->r, &prepared);
    if (!finish(step))
        return false;
    if (position_compare(prepared.at, self->commit) != 0)
        return err_fail(step->err, ERR_PROTOCOL,
                        "%s: the prepare LSN is %X/%X, its BEGIN PREPARE said %X/%X", step->name,
                        LSN_ARGS(prepared.at.at), LSN_ARGS(self->commit.at));
    self->place = OUTSIDE;
    return step->sink->ops->prepare(step->sink->self, &prepared, step->err);
}

static bool on_stream_prepare(PgOutput *self, Step *step)
{
    Prepared prepared;

    (void)self;
    read_no_flags(&step->r);
    read_prepared(&step->r, "prepare LSN", &prepared);
    read_name(&step->r, &prepared);
    return finish(step) && step->sink->ops->stream_prepare(step->sink->self, &prepared, step->err);
}

static bool on_commit_prepared(PgOutput *self, Step *step)
{
    Prepared prepared;

    (void)self;
    read_no_flags(&step->r);
    read_prepared(&step->r, "commit LSN", &prepared);
    read_name(&step->r, &prepared);
    return finish(step) && step->sink->ops->commit_prepared(step->sink->self, &prepared, step->err);
}

static bool on_rollback_prepared(PgOutput *self, Step *step)
{
    Prepared prepared;

    (void)self;
    read_no_flags(&step->r);
    read_prepared(&step->r, "prepare end LSN", &prepared);
    prepared.time_us = read_time(&step->r); /* the one before was the prepare's */
    read_name(&step->r, &prepared);
    return finish(step) &&
           step->sink->ops->rollback_prepared(step->sink->self, &prepared, step->err);
}

/* Dispatch */

static const struct {
    const char *name;
    MessageFn *fn;
    uint8_t places;   /* where it is legal */
    uint8_t protocol; /* the first that has it; a Stream Abort comes from some servers in any (trap
                         172) */
    bool takes_xid;   /* inside a stream block */
} messages[256] = {
    ['B'] = {"BEGIN", on_begin, OUTSIDE, 1, false},
    ['C'] = {"COMMIT", on_commit, IN_TXN, 1, false},
    ['O'] = {"ORIGIN", on_origin, IN_ANY, 1, false},
    ['R'] = {"RELATION", on_relation, IN_ANY, 1, true},
    ['Y'] = {"TYPE", on_type, IN_ANY, 1, true},
    ['I'] = {"INSERT", on_insert, IN_ANY, 1, true},
    ['U'] = {"UPDATE", on_update, IN_ANY, 1, true},
    ['D'] = {"DELETE", on_delete, IN_ANY, 1, true},
    ['T'] = {"TRUNCATE", on_truncate, IN_ANY, 1, true},
    ['M'] = {"MESSAGE", on_message, OUTSIDE | IN_ANY, 1, true},
    ['S'] = {"STREAM START", on_stream_start, OUTSIDE, 2, false},
    ['E'] = {"STREAM STOP", on_stream_stop, IN_STREAM, 2, false},
    ['c'] = {"STREAM COMMIT", on_stream_commit, OUTSIDE, 2, false},
    ['A'] = {"STREAM ABORT", on_stream_abort, OUTSIDE, 1, false},
    ['b'] = {"BEGIN PREPARE", on_begin_prepare, OUTSIDE, 3, false},
    ['P'] = {"PREPARE", on_prepare, IN_PREPARE, 3, false},
    ['K'] = {"COMMIT PREPARED", on_commit_prepared, OUTSIDE, 3, false},
    ['r'] = {"ROLLBACK PREPARED", on_rollback_prepared, OUTSIDE, 3, false},
    ['p'] = {"STREAM PREPARE", on_stream_prepare, OUTSIDE, 3, false},
};

static bool type_is_known(const PgOutput *self, uint8_t type, Err *err)
{
    char shown = '?';

    if (LIKELY(messages[type].fn && messages[type].protocol <= self->protocol))
        return true;
    if (messages[type].name)
        return err_fail(err, ERR_PROTOCOL, "%s: belongs to protocol %u, %u is spoken here",
                        messages[type].name, messages[type].protocol, self->protocol);
    if (type > ' ' && type < 0x7F)
        shown = (char)type;
    return err_fail(err, ERR_PROTOCOL, "message type '%c' (0x%02X) is unknown", shown, type);
}

static bool is_in_place(const PgOutput *self, uint8_t type, Err *err)
{
    static const char *const names[] = {[OUTSIDE] = "outside a transaction",
                                        [IN_TXN] = "inside a transaction",
                                        [IN_STREAM] = "inside a stream block",
                                        [IN_PREPARE] = "inside a transaction to be prepared"};

    return LIKELY(messages[type].places & self->place) ||
           err_fail(err, ERR_PROTOCOL, "%s: can't come %s", messages[type].name,
                    names[self->place]);
}

/* The type byte, and the transaction id where there is one. */
static bool read_head(const PgOutput *self, Step *step, bool with_xid, uint8_t *type)
{
    *type = reader_u8(&step->r, "type");
    if (step->r.broken)
        return reader_finish(&step->r, "message", step->err);
    if (!type_is_known(self, *type, step->err))
        return false;
    step->name = messages[*type].name;
    if (with_xid && messages[*type].takes_xid)
        step->xid = reader_u32be(&step->r, "transaction id");
    return true;
}

static bool pgoutput_decode(Decoder *decoder, Span message, Arena *arena, const Sink *sink,
                            Err *err)
{
    PgOutput *self = (PgOutput *)decoder;
    Step step = {.r = reader_of(message), .raw = message, .arena = arena, .sink = sink, .err = err};
    uint8_t type;

    return read_head(self, &step, self->place == IN_STREAM, &type) &&
           is_in_place(self, type, err) && messages[type].fn(self, &step);
}

static bool decode_spooled(PgOutput *self, Step *step, bool with_xid)
{
    uint8_t type;

    if (!read_head(self, step, with_xid, &type))
        return false;
    if (!messages[type].takes_xid && type != 'O')
        return err_fail(step->err, ERR_PROTOCOL, "%s: can't come from a spool", step->name);
    return messages[type].fn(self, step);
}

bool pgoutput_decode_spooled(Decoder *decoder, Span message, bool with_xid, Arena *arena,
                             const Sink *sink, Err *err)
{
    PgOutput *self = (PgOutput *)decoder;
    Step step = {.r = reader_of(message),
                 .raw = message,
                 .spooled = true,
                 .arena = arena,
                 .sink = sink,
                 .err = err};
    bool changed = self->changed;
    bool done = decode_spooled(self, &step, with_xid);

    self->changed = changed;
    return done || err_context(err, "%s decoder: from the spool", decoder->ops->name);
}

bool pgoutput_peek(const Decoder *decoder, Span message, PgOutputPeek *peek, Err *err)
{
    const PgOutput *self = (const PgOutput *)decoder;
    Step step = {.r = reader_of(message), .err = err};
    uint8_t type;

    if (!read_head(self, &step, self->place == IN_STREAM, &type))
        return false;
    if (step.r.broken)
        return finish(&step);
    *peek = (PgOutputPeek){.type = (char)type, .xid = step.xid};
    return true;
}

bool pgoutput_in_stream(const Decoder *decoder)
{
    return ((const PgOutput *)decoder)->place == IN_STREAM;
}

void pgoutput_restart(Decoder *decoder)
{
    PgOutput *self = (PgOutput *)decoder;

    HASH_CLEAR(hh, self->known);
    self->last = NULL;
    self->place = OUTSIDE;
    self->changed = false;
}

static void pgoutput_free(Decoder *decoder)
{
    PgOutput *self = (PgOutput *)decoder;

    HASH_CLEAR(hh, self->known);
    arena_fini(&self->arena);
    free(self);
}

Decoder *pgoutput_new(unsigned protocol_version)
{
    static const DecoderOps ops = {"pgoutput", pgoutput_decode, pgoutput_free};
    PgOutput *self = calloc(1, sizeof(*self));

    assert(protocol_version >= 1 && protocol_version <= 4);
    if (!self)
        abort();
    self->base.ops = &ops;
    self->protocol = protocol_version;
    self->place = OUTSIDE;
    arena_init(&self->arena, 4096);
    return &self->base;
}
