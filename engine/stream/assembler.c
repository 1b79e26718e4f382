#include "engine/stream/assembler.h"

#include "decoders/pgoutput/pgoutput.h"
#include "engine/base/mono.h"
#include "engine/stream/big.h"
#include "engine/stream/prepared.h"

/* What a change costs in memory beside its message: itself and its values. An estimate that can be
 * made without decoding, and is the same whether the source streams the transaction or not: whether
 * a transaction is big must not depend on that, or a batch could not be formed again. */
#define CHANGE_COST     160
#define XID_BYTES       4
#define LARGEST_SCRATCH MIB(4)

/* A transaction that the source streams before it commits. */
typedef struct Streamed {
    struct Streamed *next;
    uint32_t xid;
    Spool *spool;
    Ids xids; /* its subtransactions and itself: changes, cost in memory, marked when rolled back */
    Spool *described; /* its Relation messages again: our decoder must know them after the commit */
} Streamed;

struct Assembler {
    AssemblerConf conf;
    SpoolDir *dir;
    Decoder *decoder;
    Sink sink;
    Arena scratch; /* for messages that nothing keeps */
    Batch *building;
    Batch **full; /* complete, in order */
    size_t full_count;
    size_t full_room;
    Position seen;
    Position heard; /* the same, but only by messages of this connection */
    Position done;  /* commit of the last transaction that was added, or that the target has */
    int64_t newest_us;
    /* the open transaction */
    bool in_txn;
    bool skip; /* the target has it, or it is before the start */
    Txn open;
    uint64_t cost;
    Spool *spool; /* set once it is too big */
    Ids written;  /* relation id -> value: the serial last written to it */
    /* streamed ones */
    Streamed *streams;
    Streamed *stream;    /* whose block is open */
    Streamed *replaying; /* whose records are decoded into memory */
    PreparedList prepared;
    /* a half-applied batch that is formed again */
    bool remaking;
    bool remade_any;
};

static Position later(Position a, Position b)
{
    return position_compare(a, b) > 0 ? a : b;
}

static void saw(Assembler *a, Position at)
{
    a->seen = later(a->seen, at);
    a->heard = later(a->heard, at);
}

/* Batches */

static Batch *building(Assembler *a)
{
    if (!a->building)
        a->building = batch_new();
    return a->building;
}

static void push_full(Assembler *a, Batch *batch)
{
    if (a->full_count == a->full_room) {
        a->full_room = a->full_room ? a->full_room * 2 : 4;
        a->full = realloc(a->full, a->full_room * sizeof(Batch *));
        if (!a->full)
            abort();
    }
    a->full[a->full_count++] = batch;
}

static void close_building(Assembler *a)
{
    if (a->building && a->building->txn_count) {
        push_full(a, a->building);
        a->building = NULL;
    }
}

/* The place of the transaction in the stream, and in the batch that is formed again. */
static bool admit(Assembler *a, Position commit, Err *err)
{
    const ApplyProgress *p = &a->conf.progress;
    char at[POSITION_TEXT], first[POSITION_TEXT], last[POSITION_TEXT], done[POSITION_TEXT];

    if (position_compare(commit, a->done) <= 0)
        return err_fail(err, ERR_PROTOCOL, "the source sends the commit at %s after the one at %s",
                        position_text(commit, at), position_text(a->done, done));
    if (a->remaking && position_compare(commit, a->remade_any ? p->last : p->first) != 0 &&
        (!a->remade_any || position_compare(commit, p->last) > 0)) {
        err_fail(
            err, ERR_FAITHFUL,
            "the half-applied batch from %s to %s can't be formed again: the source sends the commit at %s",
            position_text(p->first, first), position_text(p->last, last),
            position_text(commit, at));
        return err_hint(
            err, "the slot or the publication isn't what it was when the target was written; "
                 "the copy must be made again");
    }
    a->done = commit;
    a->remade_any = true;
    return true;
}

static bool is_wanted(const Assembler *a, Position commit)
{
    return position_compare(commit, a->conf.progress.applied) > 0 &&
           position_compare(commit, a->conf.start) >= 0;
}

static bool is_full(const Assembler *a, const Batch *batch)
{
    return batch->change_count >= a->conf.batch_changes ||
           batch_bytes(batch) >= a->conf.batch_bytes;
}

static void txn_into(Batch *batch, const Txn *open)
{
    Txn *txn = batch_add(batch);

    *txn = *open;
    txn->next = NULL;
    batch->change_count += txn->change_count;
    batch->read_us = mono_us();
}

/* After the transaction at `commit` was added to `batch`. */
static void end_remaking(Assembler *a, Batch *batch, Position commit)
{
    if (a->remaking && position_compare(commit, a->conf.progress.last) == 0) {
        batch->lanes_before = a->conf.progress.lanes;
        a->remaking = false;
    }
}

static void add_small(Assembler *a)
{
    Batch *batch = building(a);
    bool remaking = a->remaking;

    txn_into(batch, &a->open);
    end_remaking(a, batch, a->open.commit);
    if (remaking ? !a->remaking : is_full(a, batch))
        close_building(a);
}

/* Alone in its batch, so that the limits of batches stay true. */
static bool add_big(Assembler *a, Spool *spool, Ids *ids, uint64_t changes, Err *err)
{
    Batch *batch;

    if (!spool_seal(spool, err)) {
        spool_free(spool);
        return false;
    }
    close_building(a);
    a->open.first = a->open.last = NULL;
    a->open.change_count = (size_t)changes;
    a->open.big = big_new(spool, ids, a->conf.protocol);
    batch = batch_new();
    txn_into(batch, &a->open);
    end_remaking(a, batch, a->open.commit);
    push_full(a, batch);
    return true;
}

/* Only a batch of its own can be big; one that is formed again with others was small. */
static bool may_be_big(const Assembler *a)
{
    return !a->remaking || position_compare(a->conf.progress.first, a->conf.progress.last) == 0;
}

/* The open transaction outgrows memory */

static bool spool_relation(Assembler *a, const Relation *rel, Err *err)
{
    Id *id;

    if (!rel)
        return true;
    id = ids_put(&a->written, rel->id);
    if (id->value == rel->serial)
        return true;
    id->value = rel->serial;
    return spool_append(a->spool, 0, rel->raw, err);
}

static bool spool_change(Assembler *a, const Change *change, Err *err)
{
    if (!spool_relation(a, change->rel, err))
        return false;
    for (uint32_t i = 0; i < change->truncated_count; i++)
        if (!spool_relation(a, change->truncated[i], err))
            return false;
    return spool_append(a->spool, 0, change->raw, err);
}

static bool spill(Assembler *a, Err *err)
{
    a->spool = spool_new(a->dir);
    for (const Change *change = a->open.first; change; change = change->next)
        if (!spool_change(a, change, err))
            return false;
    a->open.first = a->open.last = NULL;
    if (a->building->txn_count) {
        close_building(a);
    } else { /* nothing else is in its arena */
        batch_free(a->building);
        a->building = NULL;
    }
    return true;
}

static bool on_change(void *self, Change *change, Err *err)
{
    Assembler *a = self;

    if (a->skip)
        return true;
    if (a->spool) {
        a->open.change_count++;
        return spool_change(a, change, err);
    }
    txn_add(&a->open, change);
    if (a->replaying)
        return true;
    a->cost += change->raw.len + CHANGE_COST;
    return a->cost <= a->conf.txn_memory || !may_be_big(a) || spill(a, err);
}

/* Transactions */

static bool on_begin(void *self, uint32_t xid, Position commit, int64_t commit_time_us, Err *err)
{
    Assembler *a = self;

    (void)err;
    saw(a, commit);
    a->newest_us = commit_time_us;
    a->in_txn = true;
    a->skip = !is_wanted(a, commit);
    a->open = (Txn){.xid = xid, .commit = commit, .commit_time_us = commit_time_us};
    a->cost = 0;
    return true;
}

static bool on_commit(void *self, Position commit, Position end, int64_t commit_time_us, Err *err)
{
    Assembler *a = self;
    Spool *spool = a->spool;
    Ids none = {0};

    saw(a, end);
    a->in_txn = false;
    if (a->skip)
        return true;
    a->open.end = end;
    a->open.commit_time_us = commit_time_us;
    if (!admit(a, commit, err))
        return false;
    if (!spool) {
        add_small(a);
        return true;
    }
    a->spool = NULL;
    ids_fini(&a->written);
    return add_big(a, spool, &none, a->open.change_count, err);
}

/* Streamed ones */

static Streamed *stream_find(Assembler *a, uint32_t xid)
{
    Streamed *s = a->streams;

    while (s && s->xid != xid)
        s = s->next;
    return s;
}

static void stream_free(Assembler *a, Streamed *s)
{
    Streamed **at = &a->streams;

    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    spool_free(s->spool);
    spool_free(s->described);
    ids_fini(&s->xids);
    free(s);
}

static bool on_stream_start(void *self, uint32_t xid, bool first, Err *err)
{
    Assembler *a = self;
    Streamed *s = stream_find(a, xid);

    if (xid == 0 || first == (s != NULL))
        return err_fail(err, ERR_PROTOCOL, "the source %s the streamed transaction %u",
                        first ? "begins for the second time" : "goes on with an unknown part of",
                        xid);
    if (!s) {
        s = calloc(1, sizeof(*s));
        if (!s)
            abort();
        s->xid = xid;
        s->spool = spool_new(a->dir);
        s->next = a->streams;
        a->streams = s;
    }
    a->stream = s;
    return true;
}

static bool on_stream_stop(void *self, Err *err)
{
    Assembler *a = self;

    (void)err;
    a->stream = NULL;
    return true;
}

/* Relation messages are kept under the transaction itself, which isn't rolled back in part: the
 * source repeats what a rolled back subtransaction had changed, and believes that we know all else
 * that it ever sent. */
static bool keep_relation(Assembler *a, Streamed *s, Span message, Err *err)
{
    if (!s->described)
        s->described = spool_new(a->dir);
    return spool_append(s->described, s->xid, message, err) &&
           spool_append(s->spool, s->xid, message, err);
}

static bool in_stream(Assembler *a, const PgOutputPeek *peek, Span message, Err *err)
{
    Streamed *s = a->stream;
    Id *id;

    switch (peek->type) {
    case 'R':
        return keep_relation(a, s, message, err);
    case 'Y': /* a type's name: the appliers ask their own catalog */
        return true;
    default:
        break;
    }
    if (peek->xid == 0)
        return err_fail(err, ERR_PROTOCOL, "message '%c' in a stream block names transaction 0",
                        peek->type);
    id = ids_put(&s->xids, peek->xid);
    id->count++;
    id->value += message.len - XID_BYTES + CHANGE_COST;
    return spool_append(s->spool, peek->xid, message, err);
}

static bool on_stream_abort(void *self, uint32_t xid, uint32_t subxid, Err *err)
{
    Assembler *a = self;
    Streamed *s = stream_find(a, xid);
    Id *id;

    (void)err;
    if (!s) /* some servers send it for transactions that they never streamed (trap 172) */
        return true;
    if (xid == subxid) {
        stream_free(a, s);
        return true;
    }
    id = ids_find(&s->xids, subxid);
    if (id)
        id->marked = true;
    return true;
}

static uint64_t stream_sum(const Streamed *s, uint64_t *changes)
{
    uint64_t cost = 0;

    *changes = 0;
    for (size_t i = 0; i < s->xids.room; i++)
        if (s->xids.slots[i].id && !s->xids.slots[i].marked) {
            *changes += s->xids.slots[i].count;
            cost += s->xids.slots[i].value;
        }
    return cost;
}

/* Decodes the records of a sealed spool into arena; scratch may be reset when it is that. */
static bool replay(Assembler *a, const Streamed *s, Spool *spool, Arena *arena, Err *err)
{
    for (;;) {
        uint32_t xid;
        Span record;
        const Id *id;

        if (!spool_next(spool, &xid, &record, err))
            return false;
        if (!record.at)
            return true;
        id = ids_find(&s->xids, xid);
        if (id && id->marked && record.at[0] != 'R')
            continue;
        if (!pgoutput_decode_spooled(a->decoder, arena_dup(arena, record), true, arena, &a->sink,
                                     err))
            return false;
    }
}

static bool commit_small(Assembler *a, Streamed *s, Err *err)
{
    bool done;

    a->replaying = s;
    done = spool_seal(s->spool, err) && replay(a, s, s->spool, &building(a)->arena, err);
    a->replaying = NULL;
    if (done)
        add_small(a);
    return done;
}

static bool commit_big(Assembler *a, Streamed *s, uint64_t changes, Err *err)
{
    Spool *spool = s->spool;

    s->spool = NULL;
    return add_big(a, spool, &s->xids, changes, err);
}

/* What the source told in it of tables it won't tell again (it has sent it, after all). */
static bool learn_relations(Assembler *a, Streamed *s, Err *err)
{
    return !s->described ||
           (spool_seal(s->described, err) && replay(a, s, s->described, &a->scratch, err));
}

static bool on_stream_commit(void *self, uint32_t xid, Position commit, Position end,
                             int64_t commit_time_us, Err *err)
{
    Assembler *a = self;
    Streamed *s = stream_find(a, xid);
    uint64_t changes, cost;
    bool done = true;

    if (!s)
        return err_fail(err, ERR_PROTOCOL,
                        "the source commits transaction %u, which it never streamed", xid);
    saw(a, end);
    a->newest_us = commit_time_us;
    a->skip = !is_wanted(a, commit);
    a->open = (Txn){.xid = xid, .commit = commit, .end = end, .commit_time_us = commit_time_us};
    cost = stream_sum(s, &changes);
    if (a->skip || (cost > a->conf.txn_memory && may_be_big(a)))
        done = learn_relations(a, s, err);
    if (done && !a->skip)
        done = admit(a, commit, err) &&
               (cost > a->conf.txn_memory && may_be_big(a) ? commit_big(a, s, changes, err)
                                                           : commit_small(a, s, err));
    stream_free(a, s);
    return done || err_context(err, "streamed transaction %u", xid);
}

/* Prepared ones: always from the spool and alone in their batch, since what they hold was decoded
 * long before their commit. */

static bool may_prepare(const Assembler *a, const Prepared *p, Err *err)
{
    return !prepared_find(&a->prepared, p->xid) ||
           err_fail(err, ERR_PROTOCOL, "the source prepares transaction %u for the second time",
                    p->xid);
}

static bool on_begin_prepare(void *self, const Prepared *p, Err *err)
{
    Assembler *a = self;

    if (!may_prepare(a, p, err))
        return false;
    a->newest_us = p->time_us;
    a->in_txn = true;
    a->skip = false;
    a->open = (Txn){.xid = p->xid};
    a->spool = spool_new(a->dir);
    return true;
}

static bool on_prepare(void *self, const Prepared *p, Err *err)
{
    Assembler *a = self;
    PreparedTxn txn = {
        .xid = p->xid, .at = p->at, .spool = a->spool, .changes = a->open.change_count};

    (void)err;
    saw(a, p->end);
    a->in_txn = false;
    a->spool = NULL;
    ids_fini(&a->written);
    prepared_add(&a->prepared, &txn, p->gid);
    return true;
}

static bool on_stream_prepare(void *self, const Prepared *p, Err *err)
{
    Assembler *a = self;
    Streamed *s = stream_find(a, p->xid);
    PreparedTxn txn = {.xid = p->xid, .at = p->at};

    if (!s)
        return err_fail(err, ERR_PROTOCOL,
                        "the source prepares transaction %u, which it never streamed", p->xid);
    if (!may_prepare(a, p, err) || !learn_relations(a, s, err))
        return err_context(err, "prepared transaction %u", p->xid);
    saw(a, p->end);
    a->newest_us = p->time_us;
    (void)stream_sum(s, &txn.changes);
    txn.spool = s->spool;
    txn.ids = s->xids;
    s->spool = NULL;
    s->xids = (Ids){0};
    stream_free(a, s);
    prepared_add(&a->prepared, &txn, p->gid);
    return true;
}

static bool fail_unprepared(const Prepared *p, Err *err)
{
    err_fail(
        err, ERR_FAITHFUL,
        "the source commits prepared transaction '%.*s', whose PREPARE is before the start of the stream",
        SPAN_FMT(p->gid));
    return err_hint(
        err,
        "somebody else read from this slot, or moved it: what the transaction changed can't be "
        "had any more and the copy must be made again");
}

static bool on_commit_prepared(void *self, const Prepared *p, Err *err)
{
    Assembler *a = self;
    PreparedTxn *txn = prepared_find(&a->prepared, p->xid);
    Spool *spool;

    saw(a, p->end);
    a->newest_us = p->time_us;
    a->skip = !is_wanted(a, p->at);
    if (!txn)
        return a->skip || fail_unprepared(p, err);
    txn->settled = p->end;
    spool = txn->spool;
    txn->spool = NULL;
    if (a->skip) {
        spool_free(spool);
        return true;
    }
    a->open = (Txn){.xid = p->xid, .commit = p->at, .end = p->end, .commit_time_us = p->time_us};
    if (!admit(a, p->at, err)) {
        spool_free(spool);
        return false;
    }
    return add_big(a, spool, &txn->ids, txn->changes, err) ||
           err_context(err, "prepared transaction %u", p->xid);
}

/* One that isn't here was prepared before the start. */
static bool on_rollback_prepared(void *self, const Prepared *p, Err *err)
{
    Assembler *a = self;
    PreparedTxn *txn = prepared_find(&a->prepared, p->xid);

    (void)err;
    saw(a, p->end);
    a->newest_us = p->time_us;
    if (txn)
        prepared_drop(&a->prepared, txn);
    return true;
}

/* Other events */

static bool on_relation(void *self, const Relation *relation, Err *err)
{
    (void)self, (void)relation, (void)err;
    return true;
}

static bool on_message(void *self, Position at, Span prefix, Span content, Err *err)
{
    (void)self, (void)at, (void)prefix, (void)content, (void)err;
    return true; /* outside any transaction, so it isn't data */
}

static bool on_origin(void *self, Span name, Err *err)
{
    (void)self, (void)name, (void)err;
    return true; /* where the source got it from doesn't matter to the copy */
}

static const SinkOps sink_ops = {
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
    .stream_prepare = on_stream_prepare,
    .commit_prepared = on_commit_prepared,
    .rollback_prepared = on_rollback_prepared,
};

/* A message whose spans something keeps must be copied into the batch; any other is decoded where
 * it is. */
static bool is_kept(const Assembler *a, char type)
{
    return a->in_txn && !a->skip && !a->spool && strchr("IUDTM", type);
}

static Arena *scratch(Assembler *a)
{
    if (arena_bytes(&a->scratch) > LARGEST_SCRATCH)
        arena_fini(&a->scratch);
    else
        arena_reset(&a->scratch);
    return &a->scratch;
}

bool assembler_message(Assembler *a, Span message, Err *err)
{
    PgOutputPeek peek;

    if (!pgoutput_peek(a->decoder, message, &peek, err))
        return false;
    if (a->stream && strchr("RYIUDTM", peek.type))
        return in_stream(a, &peek, message, err);
    if (is_kept(a, peek.type)) {
        Arena *arena = &building(a)->arena;

        return decoder_decode(a->decoder, arena_dup(arena, message), arena, &a->sink, err);
    }
    return decoder_decode(a->decoder, message, scratch(a), &a->sink, err);
}

/* Life */

static void add_quiet(Assembler *a, Position upto)
{
    a->open = (Txn){.commit = {upto.file, upto.at - 1}, .end = upto};
    a->done = a->open.commit;
    close_building(a);
    txn_into(building(a), &a->open);
    end_remaking(a, a->building, a->open.commit);
    close_building(a);
}

/* Commit records begin at multiples of eight, so only assembler_quiet leaves such a position. The
 * source won't send it again. */
static void remake_quiet(Assembler *a)
{
    Position first = a->conf.progress.first;

    if (position_compare(first, a->conf.progress.last) == 0 && (first.at & 7) == 7)
        add_quiet(a, (Position){first.file, first.at + 1});
}

Assembler *assembler_new(const AssemblerConf *conf, SpoolDir *dir)
{
    Assembler *a = calloc(1, sizeof(*a));

    if (!a)
        abort();
    a->conf = *conf;
    a->dir = dir;
    a->decoder = pgoutput_new(conf->protocol);
    a->sink = (Sink){&sink_ops, a};
    arena_init(&a->scratch, KIB(64));
    a->done = conf->progress.applied;
    a->seen = later(conf->start, conf->progress.applied_end);
    a->remaking = conf->progress.partial;
    if (a->remaking)
        remake_quiet(a);
    return a;
}

static void forget_open(Assembler *a)
{
    assembler_drop_open(a);
    ids_fini(&a->written);
    while (a->streams)
        stream_free(a, a->streams);
    a->stream = NULL;
    prepared_fini(&a->prepared);
}

void assembler_retire(Assembler *a)
{
    forget_open(a);
    for (size_t i = 0; i < a->full_count; i++)
        batch_free(a->full[i]);
    free(a->full);
    a->full = NULL;
    a->full_count = a->full_room = 0;
    batch_free(a->building);
    a->building = NULL;
    arena_fini(&a->scratch);
}

void assembler_restart(Assembler *a)
{
    forget_open(a);
    pgoutput_restart(a->decoder);
    a->heard = POSITION_NONE;
    a->conf.progress.applied = later(a->conf.progress.applied, a->done);
}

bool assembler_relation(Assembler *a, Span message, Err *err)
{
    return pgoutput_decode_spooled(a->decoder, message, false, scratch(a), &a->sink, err);
}

void assembler_free(Assembler *a)
{
    if (!a)
        return;
    assembler_retire(a);
    decoder_free(a->decoder);
    free(a);
}

bool assembler_quiet(Assembler *a, Position upto)
{
    Position before = {upto.file, upto.at - 1};

    if (!assembler_is_empty(a) || a->remaking || upto.at == 0 ||
        position_compare(before, a->done) <= 0)
        return false;
    add_quiet(a, upto);
    saw(a, upto);
    return true;
}

void assembler_drop_open(Assembler *a)
{
    a->in_txn = false;
    a->open = (Txn){0};
    spool_free(a->spool);
    a->spool = NULL;
}

static bool building_can_go(const Assembler *a)
{
    return a->building && a->building->txn_count && !a->in_txn && !a->remaking;
}

Batch *assembler_take(Assembler *a, bool any)
{
    Batch *batch;

    if (a->full_count == 0 && any && building_can_go(a))
        close_building(a);
    if (a->full_count == 0)
        return NULL;
    batch = a->full[0];
    memmove(a->full, a->full + 1, --a->full_count * sizeof(Batch *));
    return batch;
}

bool assembler_has_full(const Assembler *a)
{
    return a->full_count > 0;
}

bool assembler_has_any(const Assembler *a)
{
    return a->full_count > 0 || building_can_go(a);
}

bool assembler_is_empty(const Assembler *a)
{
    return a->full_count == 0 && !a->in_txn && !(a->building && a->building->txn_count);
}

Position assembler_seen(const Assembler *a)
{
    return a->seen;
}

int64_t assembler_oldest_us(const Assembler *a)
{
    if (a->full_count)
        return a->full[0]->first->commit_time_us;
    if (a->building && a->building->txn_count)
        return a->building->first->commit_time_us;
    return a->in_txn && !a->skip ? a->open.commit_time_us : 0;
}

int64_t assembler_newest_us(const Assembler *a)
{
    return a->newest_us;
}

size_t assembler_streams(const Assembler *a)
{
    size_t count = 0;

    for (const Streamed *s = a->streams; s; s = s->next)
        count++;
    return count;
}

size_t assembler_prepared(const Assembler *a)
{
    return prepared_open(&a->prepared);
}

Position assembler_confirmable(Assembler *a, Position durable, Position quiet)
{
    Position heard = later(a->heard, quiet);

    if (a->conf.two_phase && position_compare(heard, durable) < 0)
        durable = heard;
    return prepared_hold(&a->prepared, durable);
}
