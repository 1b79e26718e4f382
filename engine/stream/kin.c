#include "engine/stream/kin.h"

#include "engine/stream/compact.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

/* A key, or a value of a unique index. */
typedef struct Node {
    uint64_t hash;
    uint32_t parent; /* itself: the first of its family */
    uint32_t keys;   /* in the family; counts at its first */
} Node;

struct Kin {
    const Table *table;
    Arena *arena;
    Node *nodes;
    size_t count, room;
    uint32_t *slots; /* by hash, open addressing: index into nodes, plus one */
    size_t slot_count;
    uint32_t *of; /* node of the n-th change */
    size_t changes;
};

Kin *kin_new(const Table *table, Arena *arena, size_t changes)
{
    Kin *kin = arena_new(arena, Kin);

    *kin = (Kin){.table = table, .arena = arena, .room = changes + 16, .slot_count = 64};
    while (kin->slot_count < changes * 3)
        kin->slot_count *= 2;
    kin->nodes = arena_alloc(arena, kin->room * sizeof(*kin->nodes));
    kin->slots = arena_array(arena, uint32_t, kin->slot_count);
    kin->of = arena_alloc(arena, (changes + 1) * sizeof(*kin->of));
    return kin;
}

static void slots_grow(Kin *kin)
{
    kin->slot_count *= 2;
    kin->slots = arena_array(kin->arena, uint32_t, kin->slot_count);
    for (size_t i = 0; i < kin->count; i++) {
        size_t at = kin->nodes[i].hash & (kin->slot_count - 1);

        while (kin->slots[at])
            at = (at + 1) & (kin->slot_count - 1);
        kin->slots[at] = (uint32_t)i + 1;
    }
}

static uint32_t node_of(Kin *kin, uint64_t hash, bool is_key)
{
    size_t at;

    if (kin->count * 2 >= kin->slot_count)
        slots_grow(kin);
    for (at = hash & (kin->slot_count - 1); kin->slots[at]; at = (at + 1) & (kin->slot_count - 1))
        if (kin->nodes[kin->slots[at] - 1].hash == hash)
            return kin->slots[at] - 1;
    if (kin->count == kin->room) {
        Node *more = arena_alloc(kin->arena, 2 * kin->room * sizeof(*more));

        memcpy(more, kin->nodes, kin->count * sizeof(*more));
        kin->nodes = more;
        kin->room *= 2;
    }
    kin->nodes[kin->count] = (Node){hash, (uint32_t)kin->count, is_key};
    kin->slots[at] = (uint32_t)++kin->count;
    return (uint32_t)kin->count - 1;
}

static uint32_t first_of(Kin *kin, uint32_t node)
{
    while (kin->nodes[node].parent != node) {
        kin->nodes[node].parent = kin->nodes[kin->nodes[node].parent].parent;
        node = kin->nodes[node].parent;
    }
    return node;
}

/* The older one stays first, so that what a family is called depends on the changes alone. */
static void join(Kin *kin, uint32_t a, uint32_t b)
{
    a = first_of(kin, a);
    b = first_of(kin, b);
    if (a == b)
        return;
    if (a > b) {
        uint32_t swap = a;

        a = b;
        b = swap;
    }
    kin->nodes[b].parent = a;
    kin->nodes[a].keys += kin->nodes[b].keys;
}

/* A column after a change: an unchanged value out of line is in the old row, if anywhere. */
static Value side_value(const Value *row, const Value *before, unsigned column)
{
    return value_is_known(row[column]) || !before ? row[column] : before[column];
}

/* False: there is no value that could meet another's. */
static bool unique_hash(const Unique *u, unsigned number, const Value *row, const Value *before,
                        uint64_t *hash)
{
    uint64_t h = (number + 1) * UINT64_C(0x9E3779B97F4A7C15);

    for (unsigned i = 0; i < u->count; i++) {
        Value v = side_value(row, before, u->columns[i]);

        if (!value_is_known(v) || (v.kind == VALUE_NULL && !u->nulls_equal))
            return false;
        h = XXH3_64bits_withSeed(v.at ? v.at : (const uint8_t *)"", v.at ? v.len : 0, h ^ v.kind);
    }
    *hash = h;
    return true;
}

static void join_uniques(Kin *kin, uint32_t node, const Value *row, const Value *before)
{
    uint64_t hash;

    for (unsigned i = 0; i < kin->table->unique_count; i++)
        if (unique_hash(&kin->table->uniques[i], i, row, before, &hash))
            join(kin, node, node_of(kin, hash, false));
}

static bool join_new_key(Kin *kin, uint32_t node, const Change *change)
{
    unsigned columns = change->rel->column_count;
    Value *after = arena_alloc(kin->arena, columns * sizeof(*after));
    uint64_t hash;

    for (unsigned i = 0; i < columns; i++)
        after[i] = side_value(change->new, change->old, i);
    if (!key_hash(kin->table, after, &hash))
        return false;
    join(kin, node, node_of(kin, hash, true));
    return true;
}

bool kin_add(Kin *kin, const Change *change)
{
    uint64_t hash;
    uint32_t node;

    if (!key_hash(kin->table, change_key(change), &hash))
        return false;
    node = node_of(kin, hash, true);
    kin->of[kin->changes++] = node;
    if (key_is_moved(kin->table, change) && !join_new_key(kin, node, change))
        return false;
    if (change->old)
        join_uniques(kin, node, change->old, NULL);
    if (change->new)
        join_uniques(kin, node, change->new, change->old);
    return true;
}

uint64_t kin_family(Kin *kin, size_t n)
{
    return kin->nodes[first_of(kin, kin->of[n])].hash;
}

bool kin_is_tied(Kin *kin, size_t n)
{
    return kin->nodes[first_of(kin, kin->of[n])].keys > 1;
}
