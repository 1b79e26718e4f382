/* definitions.h - before the cut-over: what logical replication doesn't carry, compared on both
 * sides (engine/check/drift.h), logged, and kept for the receipt. */
#ifndef DEFINITIONS_H
#define DEFINITIONS_H

#include "engine/move/move.h"

/* Before the snapshot: what definitions_look has to compare with later. */
MUST_USE bool definitions_mark(Move *move, const MoveDb *db, Pg *source, Err *err);
/* *count: differences found. */
MUST_USE bool definitions_look(Move *move, size_t *count, Err *err);
/* Fails as ERR_DIFFERENT, unless the operator accepts differences. */
MUST_USE bool definitions_check(Move *move, Err *err);

#endif
