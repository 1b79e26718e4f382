/* compact.h - what a run of changes does to one table in the end: one net effect per row.
 *
 * Changes are added in commit order and must not contain key updates or tables without a key (those
 * are added as steps, in order). Contradictions (a row inserted twice, an update of a row that was
 * deleted) make it `confused`: only the exact replay can say what is wrong then. Memory comes from
 * one arena, which also must keep the changes' values alive.
 */
#ifndef COMPACT_H
#define COMPACT_H

#include "appliers/applier.h"
#include "engine/stream/bag.h"

typedef struct Compact {
    TableRows rows; /* what compact_finish fills */
    Arena *arena;
    Row **all; /* in order of first appearance */
    size_t count, room;
    uint32_t *slots;   /* open addressing: index into all, plus one */
    size_t slot_count; /* a power of two */
    size_t step_room;
    bool inserts_only;
    Bag *bag; /* instead of slots, for a table without a key */
    bool confused;
} Compact;

void compact_init(Compact *c, Table *table, Arena *arena, size_t expected);
/* Instead, for a table of which the batch has nothing but inserts, to be added with compact_insert:
 * no two can be one row, since the source has the key too. Should they be all the same, the
 * target's key refuses them. */
void compact_init_inserts(Compact *c, Table *table, Arena *arena, size_t expected);
void compact_insert(Compact *c, const Change *change, const Txn *txn);
/* The hash of the key's values: routing and compaction both use it. False: a key column isn't
 * known. */
bool key_hash(const Table *table, const Value *key, uint64_t *hash);
/* True when an update's key differs before and after. */
bool key_is_moved(const Table *table, const Change *change);
void compact_add(Compact *c, const Change *change, const Txn *txn, uint64_t hash);
void compact_step(Compact *c, const Change *change, const Txn *txn);
/* Sorts the net effects into deletes, updates and inserts; nothing may be added afterwards. */
void compact_finish(Compact *c);

#endif
