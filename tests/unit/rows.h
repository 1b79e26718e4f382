/* rows.h - batches built by hand, for tests and benchmarks of the writing half. */
#ifndef ROWS_H
#define ROWS_H

#include "engine/model/txn.h"

typedef struct Made { /* a relation that owns its columns */
    Relation rel;
    Column columns[16];
} Made;

/* "id*:23 name:25": name, * when part of the identity, type. */
static inline void made_init(Made *made, uint64_t serial, const char *name, char identity,
                             const char *columns)
{
    static char names[4096];
    static size_t used;
    const char *at = columns;

    *made = (Made){.rel = {.serial = serial,
                           .id = (uint32_t)serial,
                           .schema = "public",
                           .name = name,
                           .identity = identity}};
    while (*at) {
        Column *c = &made->columns[made->rel.column_count++];
        size_t len = strcspn(at, "*: ");

        if (used + len + 1 > sizeof(names))
            abort();
        memcpy(names + used, at, len);
        names[used + len] = '\0';
        c->name = names + used;
        used += len + 1;
        at += len;
        if (*at == '*') {
            c->in_identity = true;
            at++;
        }
        if (*at == ':')
            c->type_oid = (uint32_t)strtoul(at + 1, (char **)(uintptr_t)&at, 10);
        at += strspn(at, " ");
        c->type_mod = -1;
    }
    made->rel.columns = made->columns;
}

static inline Txn *rows_txn(Batch *batch, uint64_t at)
{
    Txn *txn = batch_add(batch);

    txn->xid = (uint32_t)at;
    txn->commit = position_of_lsn(at * 100);
    txn->end = position_of_lsn(at * 100 + 50);
    txn->commit_time_us = 1700000000000000 + (int64_t)at;
    return txn;
}

/* Text values; NULL is SQL NULL, "\1" absent, "\2" unchanged. */
static inline Value *rows_text(Batch *batch, unsigned count, const char *const *texts)
{
    Value *values = arena_array(&batch->arena, Value, count);

    for (unsigned i = 0; i < count; i++) {
        if (!texts[i]) {
            values[i].kind = VALUE_NULL;
        } else if (texts[i][0] == '\1') {
            values[i].kind = VALUE_ABSENT;
        } else if (texts[i][0] == '\2') {
            values[i].kind = VALUE_UNCHANGED;
        } else {
            Span copy = arena_dup(&batch->arena, span_str(texts[i]));

            values[i] = (Value){copy.at, (uint32_t)copy.len, VALUE_TEXT};
        }
    }
    return values;
}

static inline Value rows_int4(Batch *batch, int32_t n)
{
    uint8_t *at = arena_alloc(&batch->arena, 4);

    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)((uint32_t)n >> (24 - 8 * i));
    return (Value){at, 4, VALUE_BINARY};
}

static inline Value rows_bytes(Batch *batch, const char *text)
{
    Span copy = arena_dup(&batch->arena, span_str(text));

    return (Value){copy.at, (uint32_t)copy.len, VALUE_BINARY};
}

static inline Change *rows_change(Batch *batch, Txn *txn, ChangeKind kind, const Made *made,
                                  const Value *old, const Value *new)
{
    Change *change = arena_new(&batch->arena, Change);

    change->kind = kind;
    change->rel = &made->rel;
    change->old = old;
    change->new = new;
    change->old_is_key = old && made->rel.identity != 'f';
    txn_add(txn, change);
    batch->change_count++;
    return change;
}

#define ROW(batch, ...)                                                                    \
    rows_text((batch), (unsigned)(sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *)), \
              (const char *[]){__VA_ARGS__})
#define INSERT(batch, txn, made, ...) \
    rows_change((batch), (txn), CHANGE_INSERT, (made), NULL, ROW((batch), __VA_ARGS__))
#define UPDATE(batch, txn, made, old, ...) \
    rows_change((batch), (txn), CHANGE_UPDATE, (made), (old), ROW((batch), __VA_ARGS__))
#define DELETE(batch, txn, made, ...) \
    rows_change((batch), (txn), CHANGE_DELETE, (made), ROW((batch), __VA_ARGS__), NULL)

#endif
