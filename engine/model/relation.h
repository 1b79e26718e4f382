/* relation.h - a table as the source's stream describes it.
 *
 * Immutable once handed out, owned by the decoder, alive until the decoder is freed. A changed
 * table is a new Relation with a new serial; changes keep pointing at the one that they were
 * decoded with.
 */
#ifndef RELATION_H
#define RELATION_H

#include "engine/base/span.h"

typedef struct Column {
    const char *name;
    uint32_t type_oid; /* the source's pg_type.oid */
    int32_t type_mod;
    bool in_identity; /* part of the replica identity; under FULL every column */
} Column;

typedef struct Relation {
    uint64_t serial; /* unique in this process: what caches are keyed by */
    uint32_t id;     /* the source's pg_class.oid */
    const char *schema;
    const char *name;
    char identity; /* pg_class.relreplident: d default, n nothing, f full, i index */
    uint16_t column_count;
    const Column *columns;
    Span raw; /* the message it came from, without a transaction id, so that a spool can carry it */
} Relation;

#endif
