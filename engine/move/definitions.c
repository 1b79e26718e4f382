#include "engine/move/definitions.h"

#include "engine/check/drift.h"
#include "engine/move/phases.h"

#define LOGGED_MOST 20

bool definitions_mark(Move *move, const MoveDb *db, Pg *source, Err *err)
{
    const char *writes;

    return drift_large_objects(source, &move->arena, &writes, err) &&
           move_put(move, db->name, "large_objects_before", writes, err);
}

/* What a large object holds can't be compared (only a superuser may read them all): whether any was
 * written since the snapshot can. */
static bool look_at_large_objects(Move *move, const MoveDb *db, Pg *source, Drift *drift, Err *err)
{
    const char *before, *now;
    DriftItem *item;

    if (!move_get(move, db->name, "large_objects_before", &before, err) ||
        !drift_large_objects(source, &move->arena, &now, err))
        return false;
    if (!before || strcmp(before, now) == 0)
        return true;
    item = arena_array(&move->arena, DriftItem, drift->count + 1);
    if (drift->count)
        memcpy(item, drift->items, drift->count * sizeof(*item));
    item[drift->count] = (DriftItem){"large objects", "written since the copy", now, before};
    *drift = (Drift){item, drift->count + 1, drift->count + 1};
    return true;
}

/* Replaces what an earlier look has found. */
static bool keep(Move *move, const char *scope, const Drift *drift, Err *err)
{
    for (size_t i = 0;; i++) {
        const char *key = arena_printf(&move->arena, "definition.%03zu", i);
        const char *before;

        if (i < drift->count) {
            if (!move_put(move, scope, key, drift_text(&drift->items[i], &move->arena), err))
                return false;
            continue;
        }
        if (!move_get(move, scope, key, &before, err))
            return false;
        if (!before)
            return true;
        if (!journal_forget(move->journal, scope, key, err))
            return false;
    }
}

static void tell(Move *move, const char *database, const Drift *drift)
{
    for (size_t i = 0; i < drift->count && i < LOGGED_MOST; i++)
        log_warn("not the same on both sides", F_STR("database", database),
                 F_STR("what", drift_text(&drift->items[i], &move->arena)));
    if (drift->count > LOGGED_MOST)
        log_warn("and more, see the receipt", F_STR("database", database),
                 F_U64("count", drift->count - LOGGED_MOST));
}

/* The publication of the stream itself, when it isn't of our making, is on the source alone. */
static void leave_out_publication(const char *publication, Drift *drift)
{
    size_t len = strlen(publication), kept = 0;

    for (size_t i = 0; i < drift->count; i++) {
        const DriftItem *item = &drift->items[i];
        const char *name = item->name + (item->name[0] == '"');

        if (strcmp(item->kind, "publication") != 0 || strncmp(name, publication, len) != 0 ||
            (name[len] != '\0' && name[len] != '"'))
            drift->items[kept++] = *item;
    }
    drift->count = kept;
}

static bool look_at_database(Move *move, const MoveDb *db, bool server, size_t *count, Err *err)
{
    AUTO_PG source = {0};
    AUTO_PG target = {0};
    Drift drift = {0};
    Drift whole = {0};

    if (!move_source(move, db, &source, err) || !move_target(move, db, &target, err) ||
        !drift_database(&source, &target, &move->arena, &drift, err))
        return err_context(err, "definitions of %s", db->name);
    leave_out_publication(move->publication, &drift);
    if (!look_at_large_objects(move, db, &source, &drift, err) ||
        !keep(move, db->name, &drift, err))
        return err_context(err, "definitions of %s", db->name);
    if (server && (!drift_server(&source, &target, &move->arena, &whole, err) ||
                   !keep(move, "", &whole, err)))
        return err_context(err, "definitions of the server");
    tell(move, db->name, &drift);
    tell(move, "", &whole);
    *count += drift.count + whole.count;
    return true;
}

bool definitions_look(Move *move, size_t *count, Err *err)
{
    *count = 0;
    for (size_t i = 0; i < move->db_count; i++)
        if (!look_at_database(move, &move->dbs[i], i == 0, count, err))
            return false;
    return audit_add(move->audit, err, "definitions compared", F_U64("different", *count));
}

bool definitions_check(Move *move, Err *err)
{
    size_t count;

    if (!definitions_look(move, &count, err))
        return false;
    if (count == 0 || move->conf->accept_drift)
        return true;
    err_fail(err, ERR_DIFFERENT, "%zu things that rows don't show are not the same on both sides",
             count);
    return err_hint(err, "the log names them: make them equal on the target, or go on with "
                         "--accept-drift if they may differ");
}

/* Nothing is refused while there is time to mend it. */
bool phase_definitions(Move *move, Err *err)
{
    size_t count;

    if (!definitions_look(move, &count, err))
        return false;
    log_info("definitions compared", F_U64("different", count));
    return true;
}
