#include "engine/stream/ids.h"

void ids_fini(Ids *ids)
{
    free(ids->slots);
    *ids = (Ids){0};
}

/* Fibonacci hashing: ids are nearly consecutive, the multiplication spreads them. */
static Id *slot_of(const Ids *ids, uint32_t id)
{
    size_t i = (size_t)((uint64_t)id * UINT64_C(0x9E3779B97F4A7C15) >> 32) & (ids->room - 1);

    while (ids->slots[i].id && ids->slots[i].id != id)
        i = (i + 1) & (ids->room - 1);
    return &ids->slots[i];
}

Id *ids_find(const Ids *ids, uint32_t id)
{
    Id *slot;

    if (ids->count == 0)
        return NULL;
    slot = slot_of(ids, id);
    return slot->id ? slot : NULL;
}

static void enlarge(Ids *ids)
{
    Ids bigger = {.room = ids->room ? ids->room * 2 : 8, .count = ids->count};

    bigger.slots = calloc(bigger.room, sizeof(*bigger.slots));
    if (!bigger.slots)
        abort();
    for (size_t i = 0; i < ids->room; i++)
        if (ids->slots[i].id)
            *slot_of(&bigger, ids->slots[i].id) = ids->slots[i];
    free(ids->slots);
    *ids = bigger;
}

Id *ids_put(Ids *ids, uint32_t id)
{
    Id *slot;

    assert(id != 0);
    if (ids->count * 4 >= ids->room * 3)
        enlarge(ids);
    slot = slot_of(ids, id);
    if (!slot->id) {
        slot->id = id;
        ids->count++;
    }
    return slot;
}
