#include "engine/stream/compact.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

void compact_init(Compact *c, Table *table, Arena *arena, size_t expected)
{
    size_t slots = 16;

    while (slots < expected * 2)
        slots *= 2;
    *c = (Compact){.rows.table = table, .arena = arena};
    if (table->bag)
        c->bag = bag_new(table, arena, expected);
    if (table->key_count == 0 || expected == 0)
        return;
    c->slot_count = slots;
    c->slots = arena_array(arena, uint32_t, slots);
}

void compact_init_inserts(Compact *c, Table *table, Arena *arena, size_t expected)
{
    *c = (Compact){.rows.table = table, .arena = arena, .inserts_only = true};
    c->room = size_max(expected, 16);
    c->all = arena_alloc(arena, c->room * sizeof(Row *));
}

bool key_hash(const Table *table, const Value *key, uint64_t *hash)
{
    uint64_t h = 0;

    for (unsigned i = 0; i < table->key_count; i++) {
        Value v = key[table->key[i]];

        if (!value_is_known(v))
            return false;
        h = XXH3_64bits_withSeed(v.at ? v.at : (const uint8_t *)"", v.at ? v.len : 0, h ^ v.kind);
    }
    *hash = h;
    return true;
}

bool key_is_moved(const Table *table, const Change *change)
{
    if (change->kind != CHANGE_UPDATE || !change->old)
        return false;
    for (unsigned i = 0; i < table->key_count; i++) {
        Value after = change->new[table->key[i]];

        /* An unchanged TOASTed key column isn't sent again: the old row has it. */
        if (value_is_known(after) && !value_equal(after, change->old[table->key[i]]))
            return true;
    }
    return false;
}

static bool key_equal(const Table *table, const Value *a, const Value *b)
{
    for (unsigned i = 0; i < table->key_count; i++)
        if (!value_equal(a[table->key[i]], b[table->key[i]]))
            return false;
    return true;
}

/* Up to eight first bytes: integers in binary of one width sort by value then, and texts by their
 * start. */
static uint64_t key_order(const Table *table, const Value *key)
{
    uint64_t order = 0;
    unsigned filled = 0;

    for (unsigned i = 0; i < table->key_count && filled < 8; i++) {
        Value v = key[table->key[i]];

        for (uint32_t b = 0; b < v.len && filled < 8; b++, filled++)
            order |= (uint64_t)v.at[b] << (56 - 8 * filled);
    }
    return order;
}

static void *grown(Arena *arena, const void *old, size_t count, size_t *room, size_t each)
{
    size_t more = *room ? *room * 2 : 16;
    void *new = arena_alloc(arena, more * each);

    if (count)
        memcpy(new, old, count * each);
    *room = more;
    return new;
}

static void slots_grow(Compact *c)
{
    c->slot_count = c->slot_count ? c->slot_count * 2 : 16;
    c->slots = arena_array(c->arena, uint32_t, c->slot_count);
    for (size_t i = 0; i < c->count; i++) {
        size_t at = c->all[i]->hash & (c->slot_count - 1);

        while (c->slots[at])
            at = (at + 1) & (c->slot_count - 1);
        c->slots[at] = (uint32_t)i + 1;
    }
}

static void keep(Compact *c, Row *row)
{
    if (c->count == c->room)
        c->all = grown(c->arena, c->all, c->count, &c->room, sizeof(*c->all));
    c->all[c->count++] = row;
}

static Row *find_or_add(Compact *c, const Value *key, uint64_t hash, bool *found)
{
    size_t at;
    Row *row;

    if (c->count * 2 >= c->slot_count)
        slots_grow(c);
    for (at = hash & (c->slot_count - 1); c->slots[at]; at = (at + 1) & (c->slot_count - 1)) {
        row = c->all[c->slots[at] - 1];
        if (row->hash == hash && key_equal(c->rows.table, row->key, key)) {
            *found = true;
            return row;
        }
    }
    *found = false;
    row = arena_new(c->arena, Row);
    row->hash = hash;
    row->key = key;
    row->order = key_order(c->rows.table, key);
    keep(c, row);
    c->slots[at] = (uint32_t)c->count;
    return row;
}

/* An update says "unchanged" for TOASTed values that it left alone: what was known before stays
 * known. */
static void merge(Compact *c, Row *row, const Value *new)
{
    unsigned count = c->rows.table->rel->column_count;
    Value *image;

    if (!row->own) {
        image = arena_alloc(c->arena, count * sizeof(*image));
        memcpy(image, row->image, count * sizeof(*image));
        row->image = image;
        row->own = true;
    } else {
        image = (Value *)(uintptr_t)row->image;
    }
    for (unsigned i = 0; i < count; i++)
        if (value_is_known(new[i]))
            image[i] = new[i];
}

static bool all_known(const Compact *c, const Value *image)
{
    for (unsigned i = 0; i < c->rows.table->rel->column_count; i++)
        if (!value_is_known(image[i]))
            return false;
    return true;
}

static void on_insert(Compact *c, Row *row, bool found, const Change *change)
{
    if (found && row->is) {
        c->confused = true;
        return;
    }
    if (found && row->was)
        row->reborn = true;
    row->image = change->new;
    row->own = false;
    row->is = true;
}

static void on_update(Compact *c, Row *row, bool found, const Change *change)
{
    if (!found) {
        row->was = true;
        row->image = change->new;
    } else if (!row->is) {
        c->confused = true;
        return;
    } else if (all_known(c, change->new)) {
        row->image = change->new;
        row->own = false;
    } else {
        merge(c, row, change->new);
    }
    row->is = true;
}

static void on_delete(Compact *c, Row *row, bool found)
{
    if (!found)
        row->was = true;
    else if (!row->is)
        c->confused = true;
    row->is = false;
    row->image = NULL;
}

static void compact_bag(Compact *c, const Change *change, const Txn *txn)
{
    Row *fresh;

    if (!bag_add(c->bag, change, txn, &fresh))
        c->confused = true;
    else if (fresh)
        keep(c, fresh);
}

void compact_add(Compact *c, const Change *change, const Txn *txn, uint64_t hash)
{
    bool found;
    Row *row;

    if (c->bag) {
        compact_bag(c, change, txn);
        return;
    }
    row = find_or_add(c, change_key(change), hash, &found);

    row->txn = txn;
    if (change->kind == CHANGE_INSERT)
        on_insert(c, row, found, change);
    else if (change->kind == CHANGE_UPDATE)
        on_update(c, row, found, change);
    else
        on_delete(c, row, found);
}

void compact_insert(Compact *c, const Change *change, const Txn *txn)
{
    Row *row = arena_alloc(c->arena, sizeof(*row));

    *row = (Row){.key = change->new, .image = change->new, .txn = txn, .is = true};
    if (c->count == c->room)
        c->all = grown(c->arena, c->all, c->count, &c->room, sizeof(Row *));
    c->all[c->count++] = row;
}

void compact_step(Compact *c, const Change *change, const Txn *txn)
{
    if (c->rows.step_count == c->step_room)
        c->rows.steps = grown(c->arena, c->rows.steps, c->rows.step_count, &c->step_room,
                              sizeof(*c->rows.steps));
    c->rows.steps[c->rows.step_count++] = (Step){change, txn};
}

static uint32_t unknown_of(const Compact *c, const Value *image)
{
    uint32_t h = 0;

    for (unsigned i = 0; i < c->rows.table->rel->column_count; i++)
        if (!value_is_known(image[i]))
            h = (h ^ (i + 1)) * 2654435761u + 1;
    return h;
}

static int row_compare(const void *left, const void *right)
{
    const Row *a = *(Row *const *)left, *b = *(Row *const *)right;

    if (a->unknown != b->unknown)
        return a->unknown < b->unknown ? -1 : 1;
    return (a->order > b->order) - (a->order < b->order);
}

/* Hot rows come sorted already when a batch touches few of them; qsort needn't be asked then. */
static void rows_sort(Row **rows, size_t count)
{
    for (size_t i = 1; i < count; i++)
        if (row_compare(&rows[i - 1], &rows[i]) > 0) {
            qsort(rows, count, sizeof(*rows), row_compare);
            return;
        }
}

void compact_finish(Compact *c)
{
    TableRows *out = &c->rows;

    if (c->count == 0)
        return;
    if (c->inserts_only) {
        out->inserts = c->all;
        out->insert_count = c->count;
        return;
    }
    out->deletes = arena_array(c->arena, Row *, c->count);
    out->updates = arena_array(c->arena, Row *, c->count);
    out->inserts = arena_array(c->arena, Row *, c->count);
    for (size_t i = 0; i < c->count; i++) {
        Row *row = c->all[i];

        if (row->was && row->is && !row->reborn) {
            row->unknown = unknown_of(c, row->image);
            out->updates[out->update_count++] = row;
            continue;
        }
        if (row->was)
            out->deletes[out->delete_count++] = row;
        if (row->is)
            out->inserts[out->insert_count++] = row;
    }
    rows_sort(out->deletes, out->delete_count);
    rows_sort(out->updates, out->update_count);
}
