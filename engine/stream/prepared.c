#include "engine/stream/prepared.h"

static void prepared_free(PreparedTxn *prepared)
{
    spool_free(prepared->spool);
    ids_fini(&prepared->ids);
    free(prepared->gid);
    free(prepared);
}

void prepared_fini(PreparedList *list)
{
    while (list->first)
        prepared_drop(list, list->first);
}

PreparedTxn *prepared_find(const PreparedList *list, uint32_t xid)
{
    PreparedTxn *at = list->first;

    while (at && (at->xid != xid || !position_is_none(at->settled)))
        at = at->next;
    return at;
}

void prepared_add(PreparedList *list, const PreparedTxn *prepared, Span gid)
{
    PreparedTxn *added = malloc(sizeof(*added));

    if (!added)
        abort();
    *added = *prepared;
    added->gid = strndup((const char *)gid.at, gid.len);
    if (!added->gid)
        abort();
    added->next = list->first;
    list->first = added;
}

void prepared_drop(PreparedList *list, PreparedTxn *prepared)
{
    PreparedTxn **at = &list->first;

    while (*at != prepared)
        at = &(*at)->next;
    *at = prepared->next;
    prepared_free(prepared);
}

Position prepared_hold(PreparedList *list, Position durable)
{
    PreparedTxn **at = &list->first;
    Position hold = durable;

    while (*at) {
        PreparedTxn *prepared = *at;

        if (!position_is_none(prepared->settled) &&
            position_compare(prepared->settled, durable) <= 0) {
            *at = prepared->next;
            prepared_free(prepared);
            continue;
        }
        if (position_compare(prepared->at, hold) < 0)
            hold = prepared->at;
        at = &prepared->next;
    }
    return hold;
}

size_t prepared_open(const PreparedList *list)
{
    size_t count = 0;

    for (const PreparedTxn *at = list->first; at; at = at->next)
        count += position_is_none(at->settled);
    return count;
}
