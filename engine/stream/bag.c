#include "engine/stream/bag.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

/* A row of the table as it is after the changes so far. */
typedef struct Item {
    Row row;
    struct Item *below; /* another one that is like it now */
} Item;

/* All that are alike. */
typedef struct Kind {
    uint64_t hash;
    const Value *image;
    Item *top; /* NULL: none any more */
} Kind;

struct Bag {
    const Table *table;
    Arena *arena;
    Kind *slots; /* open addressing; image NULL: free */
    size_t slot_count, kinds;
};

Bag *bag_new(const Table *table, Arena *arena, size_t expected)
{
    Bag *bag = arena_new(arena, Bag);

    *bag = (Bag){.table = table, .arena = arena, .slot_count = 16};
    while (bag->slot_count < expected * 2)
        bag->slot_count *= 2;
    bag->slots = arena_array(arena, Kind, bag->slot_count);
    return bag;
}

static bool image_hash(const Bag *bag, const Value *image, uint64_t *hash)
{
    uint64_t h = 1;

    for (unsigned i = 0; i < bag->table->rel->column_count; i++) {
        Value v = image[i];

        if (!value_is_known(v))
            return false;
        h = XXH3_64bits_withSeed(v.at ? v.at : (const uint8_t *)"", v.at ? v.len : 0, h ^ v.kind);
    }
    *hash = h;
    return true;
}

static bool image_equal(const Bag *bag, const Value *a, const Value *b)
{
    for (unsigned i = 0; i < bag->table->rel->column_count; i++)
        if (!value_equal(a[i], b[i]))
            return false;
    return true;
}

static Kind *slot_for(Bag *bag, const Value *image, uint64_t hash)
{
    size_t at = hash & (bag->slot_count - 1);

    while (bag->slots[at].image &&
           (bag->slots[at].hash != hash || !image_equal(bag, bag->slots[at].image, image)))
        at = (at + 1) & (bag->slot_count - 1);
    return &bag->slots[at];
}

static void slots_grow(Bag *bag)
{
    Kind *old = bag->slots;
    size_t count = bag->slot_count;

    bag->slot_count *= 2;
    bag->slots = arena_array(bag->arena, Kind, bag->slot_count);
    for (size_t i = 0; i < count; i++)
        if (old[i].image)
            *slot_for(bag, old[i].image, old[i].hash) = old[i];
}

static void put(Bag *bag, Item *item, const Value *image, uint64_t hash)
{
    Kind *kind;

    if (bag->kinds * 2 >= bag->slot_count)
        slots_grow(bag);
    kind = slot_for(bag, image, hash);
    if (!kind->image) {
        *kind = (Kind){.hash = hash, .image = image};
        bag->kinds++;
    }
    item->below = kind->top;
    kind->top = item;
    item->row.image = image;
    item->row.is = true;
}

/* One that is like this: known already, else the target's. */
static Item *take(Bag *bag, const Value *image, uint64_t hash, Row **fresh)
{
    Kind *kind = slot_for(bag, image, hash);
    Item *item = kind->image ? kind->top : NULL;

    if (item) {
        kind->top = item->below;
    } else {
        item = arena_new(bag->arena, Item);
        item->row.key = image;
        item->row.was = true;
        *fresh = &item->row;
    }
    item->row.image = NULL;
    item->row.is = false;
    return item;
}

/* An unchanged value out of line is in the old row, which has all of them. */
static const Value *after(Bag *bag, const Change *change)
{
    unsigned count = bag->table->rel->column_count;
    Value *image = NULL;

    for (unsigned i = 0; change->old && i < count; i++)
        if (!value_is_known(change->new[i])) {
            if (!image) {
                image = arena_alloc(bag->arena, count * sizeof(*image));
                memcpy(image, change->new, count * sizeof(*image));
            }
            image[i] = change->old[i];
        }
    return image ? image : change->new;
}

bool bag_add(Bag *bag, const Change *change, const Txn *txn, Row **fresh)
{
    const Value *old = change->kind == CHANGE_INSERT ? NULL : change->old;
    const Value *new = change->kind == CHANGE_DELETE ? NULL : after(bag, change);
    uint64_t old_hash = 0, new_hash = 0;
    Item *item;

    *fresh = NULL;
    if ((change->kind != CHANGE_INSERT && (!old || change->old_is_key)) ||
        (old && !image_hash(bag, old, &old_hash)) || (new && !image_hash(bag, new, &new_hash)))
        return false;
    if (old) {
        item = take(bag, old, old_hash, fresh);
    } else {
        item = arena_new(bag->arena, Item);
        *fresh = &item->row;
    }
    item->row.txn = txn;
    if (new)
        put(bag, item, new, new_hash);
    return true;
}
