/* kin.h - which rows of one table can depend on each other within one batch.
 *
 * Rows are related when a change moves the key of one to that of the other, or when both have, had
 * or will have the same value in a unique index, as far as the source's messages say. All rows that
 * are related form a family: it goes to one lane, and when it is more than one row, its changes are
 * written in their order. Rows of different families can be written in any order and in any lane.
 *
 * What isn't seen: a value that a row had before the batch, when the source doesn't send old rows
 * (identity default), so somebody else's later use of it can still be refused; then the batch is
 * replayed exactly. Two different values with one hash only make families larger. A pure function
 * of the changes in their order. Memory is the arena's.
 */
#ifndef KIN_H
#define KIN_H

#include "appliers/applier.h"

typedef struct Kin Kin;

Kin *kin_new(const Table *table, Arena *arena, size_t changes);
/* In commit order, at most as many as were announced. False: a key column isn't known. */
MUST_USE bool kin_add(Kin *kin, const Change *change);
/* Of the n-th change added (from 0), once all are: the same number for all of its family; a family
 * of one row has the hash of its key. */
uint64_t kin_family(Kin *kin, size_t n);
/* Its family is more than one row. */
bool kin_is_tied(Kin *kin, size_t n);

#endif
