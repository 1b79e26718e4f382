/* recorder.h - a sink that writes down what it is told, one line each. */
#ifndef RECORDER_H
#define RECORDER_H

#include "decoders/decoder.h"
#include "engine/base/buf.h"

typedef struct Recorder {
    Buf text;
    bool brief; /* without what differs between two runs of the same work: positions, ids, times */
    const char *refuse; /* the event at which the sink fails */
    uint64_t events;
    const Relation *last_relation;
    const Change *last_change;
} Recorder;

static inline void recorder_init(Recorder *rec)
{
    *rec = (Recorder){0};
    buf_init(&rec->text, MIB(64));
}

static inline void recorder_fini(Recorder *rec)
{
    buf_fini(&rec->text);
}

static inline bool recorder_end(Recorder *rec, const char *event, Err *err)
{
    rec->events++;
    buf_putc(&rec->text, '\n');
    return !rec->refuse || strcmp(rec->refuse, event) != 0 ||
           err_fail(err, ERR_BUG, "the sink refused %s", event);
}

static inline bool rec_begin(void *self, uint32_t xid, Position commit, int64_t time_us, Err *err)
{
    Recorder *rec = self;

    buf_puts(&rec->text, "begin");
    if (!rec->brief)
        buf_printf(&rec->text, " xid=%u commit=%X/%X time=%" PRId64, xid, LSN_ARGS(commit.at),
                   time_us);
    return recorder_end(rec, "begin", err);
}

static inline bool rec_commit(void *self, Position commit, Position end, int64_t time_us, Err *err)
{
    Recorder *rec = self;

    buf_puts(&rec->text, "commit");
    if (!rec->brief)
        buf_printf(&rec->text, " at=%X/%X end=%X/%X time=%" PRId64, LSN_ARGS(commit.at),
                   LSN_ARGS(end.at), time_us);
    return recorder_end(rec, "commit", err);
}

static inline void rec_put_bytes(Buf *out, Span bytes)
{
    size_t same = 1;

    while (bytes.len > 40 && same < bytes.len && bytes.at[same] == bytes.at[same % 10])
        same++;
    if (bytes.len > 40 && same == bytes.len) {
        buf_printf(out, "%.10s...%zu", (const char *)bytes.at, bytes.len);
        return;
    }
    for (size_t i = 0; i < bytes.len; i++)
        buf_printf(out, bytes.at[i] >= ' ' && bytes.at[i] < 0x7F ? "%c" : "\\%02x", bytes.at[i]);
}

static inline void rec_put_row(Buf *out, const char *what, const Relation *rel, const Value *row)
{
    static const char *const kinds[] = {[VALUE_ABSENT] = "absent",
                                        [VALUE_NULL] = "null",
                                        [VALUE_TEXT] = "",
                                        [VALUE_BINARY] = "bin:",
                                        [VALUE_UNCHANGED] = "unchanged"};

    if (!row)
        return;
    buf_printf(out, " %s=(", what);
    for (uint16_t i = 0; i < rel->column_count; i++) {
        buf_printf(out, "%s%s", i ? "," : "", kinds[row[i].kind]);
        if (row[i].kind == VALUE_TEXT || row[i].kind == VALUE_BINARY) {
            buf_putc(out, '\'');
            rec_put_bytes(out, span_of(row[i].at, row[i].len));
            buf_putc(out, '\'');
        }
    }
    buf_putc(out, ')');
}

static inline void rec_put_truncate(Buf *out, const Change *change)
{
    for (uint32_t i = 0; i < change->truncated_count; i++)
        buf_printf(out, " %s.%s", change->truncated[i]->schema, change->truncated[i]->name);
    buf_puts(out, change->cascade ? " cascade" : "");
    buf_puts(out, change->restart_identity ? " restart" : "");
}

static inline bool rec_change(void *self, Change *change, Err *err)
{
    static const char *const kinds[] = {"insert", "update", "delete", "truncate", "message"};
    Recorder *rec = self;
    Buf *out = &rec->text;

    rec->last_change = change;
    buf_puts(out, kinds[change->kind]);
    if (change->xid)
        rec->brief ? buf_puts(out, " in stream") : buf_printf(out, " in=%u", change->xid);
    if (change->rel) {
        buf_printf(out, " %s.%s", change->rel->schema, change->rel->name);
        rec_put_row(out, change->old_is_key ? "key" : "old", change->rel, change->old);
        rec_put_row(out, "new", change->rel, change->new);
    }
    if (change->kind == CHANGE_TRUNCATE)
        rec_put_truncate(out, change);
    if (change->kind == CHANGE_MESSAGE)
        buf_printf(out, " '%.*s' '%.*s'", SPAN_FMT(change->prefix), SPAN_FMT(change->content));
    return recorder_end(rec, "change", err);
}

static inline bool rec_relation(void *self, const Relation *rel, Err *err)
{
    Recorder *rec = self;
    Buf *out = &rec->text;

    rec->last_relation = rel;
    buf_puts(out, "relation ");
    if (!rec->brief)
        buf_printf(out, "%u ", rel->id);
    buf_printf(out, "%s.%s %c (", rel->schema, rel->name, rel->identity);
    for (uint16_t i = 0; i < rel->column_count; i++) {
        const Column *column = &rel->columns[i];

        buf_printf(out, "%s%s%s", i ? ", " : "", column->name, column->in_identity ? "!" : "");
        if (!rec->brief || column->type_oid < 16384)
            buf_printf(out, " %u", column->type_oid);
        if (column->type_mod != -1)
            buf_printf(out, " %d", column->type_mod);
    }
    buf_putc(out, ')');
    return recorder_end(rec, "relation", err);
}

static inline bool rec_message(void *self, Position at, Span prefix, Span content, Err *err)
{
    Recorder *rec = self;

    buf_puts(&rec->text, "outside message");
    if (!rec->brief)
        buf_printf(&rec->text, " at=%X/%X", LSN_ARGS(at.at));
    buf_printf(&rec->text, " '%.*s' '%.*s'", SPAN_FMT(prefix), SPAN_FMT(content));
    return recorder_end(rec, "message", err);
}

static inline bool rec_origin(void *self, Span name, Err *err)
{
    Recorder *rec = self;

    buf_printf(&rec->text, "origin '%.*s'", SPAN_FMT(name));
    return recorder_end(rec, "origin", err);
}

static inline bool rec_stream_start(void *self, uint32_t xid, bool first, Err *err)
{
    Recorder *rec = self;

    buf_puts(&rec->text, "stream start");
    if (!rec->brief)
        buf_printf(&rec->text, " xid=%u", xid);
    buf_puts(&rec->text, first ? " first" : "");
    return recorder_end(rec, "stream_start", err);
}

static inline bool rec_stream_stop(void *self, Err *err)
{
    Recorder *rec = self;

    buf_puts(&rec->text, "stream stop");
    return recorder_end(rec, "stream_stop", err);
}

static inline bool rec_stream_commit(void *self, uint32_t xid, Position commit, Position end,
                                     int64_t time_us, Err *err)
{
    Recorder *rec = self;

    buf_puts(&rec->text, "stream commit");
    if (!rec->brief)
        buf_printf(&rec->text, " xid=%u at=%X/%X end=%X/%X time=%" PRId64, xid, LSN_ARGS(commit.at),
                   LSN_ARGS(end.at), time_us);
    return recorder_end(rec, "stream_commit", err);
}

static inline bool rec_stream_abort(void *self, uint32_t xid, uint32_t subxid, Err *err)
{
    Recorder *rec = self;

    buf_puts(&rec->text, "stream abort");
    if (!rec->brief)
        buf_printf(&rec->text, " xid=%u subxid=%u", xid, subxid);
    else
        buf_puts(&rec->text, xid == subxid ? " whole" : " part");
    return recorder_end(rec, "stream_abort", err);
}

static inline bool rec_prepared(void *self, const char *what, const char *event, const Prepared *p,
                                Err *err)
{
    Recorder *rec = self;

    buf_printf(&rec->text, "%s '%.*s'", what, SPAN_FMT(p->gid));
    if (!rec->brief)
        buf_printf(&rec->text, " xid=%u at=%X/%X end=%X/%X time=%" PRId64, p->xid,
                   LSN_ARGS(p->at.at), LSN_ARGS(p->end.at), p->time_us);
    return recorder_end(rec, event, err);
}

static inline bool rec_begin_prepare(void *self, const Prepared *p, Err *err)
{
    return rec_prepared(self, "begin prepare", "begin_prepare", p, err);
}

static inline bool rec_prepare(void *self, const Prepared *p, Err *err)
{
    return rec_prepared(self, "prepare", "prepare", p, err);
}

static inline bool rec_stream_prepare(void *self, const Prepared *p, Err *err)
{
    return rec_prepared(self, "stream prepare", "stream_prepare", p, err);
}

static inline bool rec_commit_prepared(void *self, const Prepared *p, Err *err)
{
    return rec_prepared(self, "commit prepared", "commit_prepared", p, err);
}

static inline bool rec_rollback_prepared(void *self, const Prepared *p, Err *err)
{
    return rec_prepared(self, "rollback prepared", "rollback_prepared", p, err);
}

static inline Sink recorder_sink(Recorder *rec)
{
    static const SinkOps ops = {
        .begin = rec_begin,
        .commit = rec_commit,
        .change = rec_change,
        .relation = rec_relation,
        .message = rec_message,
        .origin = rec_origin,
        .stream_start = rec_stream_start,
        .stream_stop = rec_stream_stop,
        .stream_commit = rec_stream_commit,
        .stream_abort = rec_stream_abort,
        .begin_prepare = rec_begin_prepare,
        .prepare = rec_prepare,
        .stream_prepare = rec_stream_prepare,
        .commit_prepared = rec_commit_prepared,
        .rollback_prepared = rec_rollback_prepared,
    };

    return (Sink){&ops, rec};
}

#endif
