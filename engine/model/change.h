/* change.h - one thing that a transaction did. Everything it points at lives in the batch's arena,
 * but for relations, which live in the decoder. */
#ifndef CHANGE_H
#define CHANGE_H

#include "engine/model/relation.h"
#include "engine/model/value.h"

typedef enum ChangeKind {
    CHANGE_INSERT,
    CHANGE_UPDATE,
    CHANGE_DELETE,
    CHANGE_TRUNCATE,
    CHANGE_MESSAGE, /* pg_logical_emit_message(true, …): transactional */
} ChangeKind;

typedef struct Change Change;
struct Change {
    Change *next; /* in its transaction, in order */
    ChangeKind kind;
    uint32_t xid;        /* the (sub)transaction in a streamed one, else 0 */
    const Relation *rel; /* insert, update, delete */
    /* rel->column_count values each, or NULL.
     * old: the row before. UPDATE has it when the key changed (K) or identity is FULL (O); DELETE
     * always. */
    const Value *old;
    const Value *new;
    bool old_is_key; /* only identity columns are known in old; the others are VALUE_ABSENT */
    /* truncate */
    const Relation *const *truncated;
    uint32_t truncated_count;
    bool cascade;
    bool restart_identity;
    /* message */
    Span prefix;
    Span content;
    Span raw; /* the whole message, for the spool */
};

#endif
