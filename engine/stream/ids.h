/* ids.h - a hash table from 32-bit ids (transactions, relations) to two numbers and a mark.
 *
 * A transaction can have as many subtransactions as it has rows (a loop with an exception block),
 * so a list won't do. Belongs to one thread; only find is safe from several.
 */
#ifndef IDS_H
#define IDS_H

#include "engine/base/base.h"

typedef struct Id {
    uint32_t id; /* 0: the slot is free */
    bool marked;
    uint64_t count;
    uint64_t value;
} Id;

typedef struct Ids {
    Id *slots;
    size_t room; /* a power of two, or 0 */
    size_t count;
} Ids;

void ids_fini(Ids *ids); /* a zeroed one is empty */

/* id isn't 0. find: NULL when it never was put; put: the entry, zeroed when new, valid until the
 * next put. */
Id *ids_find(const Ids *ids, uint32_t id);
Id *ids_put(Ids *ids, uint32_t id);

#endif
