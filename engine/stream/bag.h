/* bag.h - what a run of changes does to a table without a key, whose rows are known by all of their
 * values (identity FULL).
 *
 * Such a table is a multiset: equal rows are interchangeable. Each change takes out one row that is
 * like its old one, first of those that changes before it left behind, else of those that the
 * target has, and leaves one like its new one. In the end there are rows that were there before
 * (Row.key) and are another one now (Row.image) or gone, and new ones. Memory is the arena's.
 */
#ifndef BAG_H
#define BAG_H

#include "appliers/applier.h"

typedef struct Bag Bag;

Bag *bag_new(const Table *table, Arena *arena, size_t expected);
/* *fresh: a row that wasn't known before, else NULL. False: a value isn't known. */
MUST_USE bool bag_add(Bag *bag, const Change *change, const Txn *txn, Row **fresh);

#endif
