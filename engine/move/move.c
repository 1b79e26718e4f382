#include "engine/move/move.h"

#include <sys/random.h>

#include "aws/kms.h"
#include "aws/sts.h"
#include "engine/model/position.h"
#include "engine/move/dsn.h"

const char *move_random(Arena *arena, size_t bytes)
{
    static const char digits[] = "0123456789abcdef";
    uint8_t raw[32];
    char text[65];

    if (bytes > sizeof(raw) || getrandom(raw, bytes, 0) != (ssize_t)bytes)
        abort();
    for (size_t i = 0; i < bytes; i++) {
        text[2 * i] = digits[raw[i] >> 4];
        text[2 * i + 1] = digits[raw[i] & 15];
    }
    text[2 * bytes] = '\0';
    return arena_strdup(arena, text);
}

bool move_get(Move *move, const char *scope, const char *key, const char **value, Err *err)
{
    return journal_get(move->journal, scope, key, &move->arena, value, err);
}

bool move_put(Move *move, const char *scope, const char *key, const char *value, Err *err)
{
    return journal_put(move->journal, scope, key, value, err);
}

bool move_put_lsn(Move *move, const char *scope, const char *key, uint64_t lsn, Err *err)
{
    char text[LSN_TEXT];

    return move_put(move, scope, key, lsn_text(lsn, text), err);
}

bool move_put_u64(Move *move, const char *scope, const char *key, uint64_t value, Err *err)
{
    char text[24];

    snprintf(text, sizeof(text), "%" PRIu64, value);
    return move_put(move, scope, key, text, err);
}

bool move_get_lsn(Move *move, const char *scope, const char *key, uint64_t *lsn, Err *err)
{
    const char *text;

    *lsn = 0;
    return move_get(move, scope, key, &text, err) && (!text || lsn_parse(span_str(text), lsn, err));
}

bool move_get_u64(Move *move, const char *scope, const char *key, uint64_t *value, Err *err)
{
    const char *text;

    *value = 0;
    if (!move_get(move, scope, key, &text, err))
        return false;
    if (text)
        *value = strtoull(text, NULL, 10);
    return true;
}

bool move_act(Move *move, const char *what, MoveAct *act, void *self, Err *err)
{
    int64_t call;
    Err ignored = ERR_INIT;

    if (!journal_intend(move->journal, move->phase, what, &call, err))
        return false;
    if (act(move, self, err))
        return journal_outcome(move->journal, call, "done", err);
    /* The failure itself is what matters; a journal that fails too changes nothing about it. */
    if (!journal_outcome(move->journal, call, err->text, &ignored))
        log_err(LOG_LEVEL_WARN, "the journal can't be written", &ignored);
    return false;
}

bool move_intend(Move *move, const char *scope, const char *key, bool *before, Err *err)
{
    const char *marked;

    if (!move_get(move, scope, key, &marked, err))
        return false;
    *before = marked != NULL;
    return *before || move_put(move, scope, key, "intended", err);
}

static bool check_what(Move *move, const char *what, Err *err)
{
    const char *before;

    if (!move_get(move, "", "what", &before, err))
        return false;
    if (before && strcmp(before, what) != 0) {
        err_fail(err, ERR_STATE, "state directory %s belongs to another migration: %s",
                 move->conf->state_dir, before);
        return err_hint(err, "use another --state-dir, or the options of that migration");
    }
    return before || move_put(move, "", "what", what, err);
}

static bool check_id(Move *move, Err *err)
{
    if (!move_get(move, "", "id", &move->id, err))
        return false;
    if (move->id)
        return true;
    move->id = move_random(&move->arena, 4);
    return move_put(move, "", "id", move->id, err);
}

bool move_open(Move *move, const Conf *conf, const Stop *stop, const char *what, Err *err)
{
    *move = (Move){.conf = conf, .stop = stop, .publication = conf->publication, .phase = "open"};
    arena_init(&move->arena, 65536);
    move->journal = journal_open(conf->state_dir, err);
    if (!move->journal || !check_what(move, what, err) || !check_id(move, err))
        return false;
    move->audit = audit_open(conf->state_dir, err);
    return move->audit != NULL;
}

void move_close(Move *move)
{
    follow_stop(move->follow);
    switch_free(move->mover);
    aws_free(move->aws);
    audit_close(move->audit);
    journal_close(move->journal);
    arena_fini(&move->arena);
    *move = (Move){0};
}

bool move_save_databases(Move *move, const char *const *names, size_t count, Err *err)
{
    char key[32];

    for (size_t i = 0; i < count; i++) {
        snprintf(key, sizeof(key), "database.%05zu", i);
        if (!move_put(move, "", key, names[i], err))
            return false;
    }
    return move_put_u64(move, "", "databases", count, err);
}

/* Host and credentials of a side, for each database. */
static const char *side_dsn(Move *move, const char *base, const RdsInstance *instance,
                            const char *database, Err *err)
{
    const Conf *conf = move->conf;

    if (base)
        return dsn_with_database(&move->arena, base, database, err);
    return dsn_of_parts(&move->arena, instance->host, (unsigned)instance->port,
                        conf->db_user ? conf->db_user : instance->master_user, conf->db_password,
                        database);
}

static bool set_dsns(Move *move, MoveDb *db, Err *err)
{
    db->source_dsn = side_dsn(move, move->conf->source, move->source, db->name, err);
    if (!db->source_dsn)
        return false;
    if (!move->conf->target && !(move->target && move->target->host))
        return true;
    db->target_dsn = side_dsn(move, move->conf->target, move->target, db->name, err);
    return db->target_dsn != NULL;
}

static bool load_database(Move *move, MoveDb *db, Err *err)
{
    return move_get(move, db->name, "slot", &db->slot, err) &&
           move_get_lsn(move, db->name, "consistent_point", &db->consistent_point, err) &&
           move_get_lsn(move, db->name, "start", &db->start, err) && set_dsns(move, db, err);
}

bool move_load_databases(Move *move, Err *err)
{
    uint64_t count;
    char key[32];

    if (!move_get_u64(move, "", "databases", &count, err))
        return false;
    if (count > move->db_count)
        move->dbs = arena_array(&move->arena, MoveDb, count);
    move->db_count = count;
    for (size_t i = 0; i < count; i++) {
        snprintf(key, sizeof(key), "database.%05zu", i);
        if (!move_get(move, "", key, &move->dbs[i].name, err))
            return false;
        if (!move->dbs[i].name)
            return err_fail(err, ERR_STATE, "the journal lacks %s", key);
        if (!load_database(move, &move->dbs[i], err))
            return false;
    }
    return true;
}

bool move_source(Move *move, const MoveDb *db, Pg *pg, Err *err)
{
    PgOptions options = {.stop = move->stop};

    if (!pg_open(pg, db ? db->source_dsn : move->source_maintenance, ERR_SOURCE, &options, err))
        return db ? err_context(err, "database %s", db->name) : false;
    return true;
}

bool move_target(Move *move, const MoveDb *db, Pg *pg, Err *err)
{
    PgOptions options = {.stop = move->stop};

    if (!db->target_dsn)
        return err_fail(err, ERR_STATE, "the new instance isn't known yet");
    return pg_open(pg, db->target_dsn, ERR_TARGET, &options, err) ||
           err_context(err, "database %s", db->name);
}

bool move_find_source(Move *move, Err *err)
{
    if (move->aws) {
        if (!rds_get_instance(move->aws, move->conf->aws_instance, &move->arena, &move->source,
                              err))
            return false;
        if (!move->source->host && !move->conf->source) {
            err_fail(err, ERR_AWS, "instance %s has no address: it is %s", move->source->name,
                     move->source->status);
            return err_hint(err, "start it and wait until it is available");
        }
        move->ends.old_host = move->source->host;
        move->ends.old_port = (unsigned)move->source->port;
    }
    move->source_maintenance = side_dsn(move, move->conf->source, move->source, "template1", err);
    return move->source_maintenance != NULL;
}

bool move_find_target(Move *move, Err *err)
{
    if (!move->aws)
        return true;
    if (!rds_find_instance(move->aws, move->target_name, &move->arena, &move->target, err))
        return false;
    if (move->target) {
        move->ends.new_host = move->target->host;
        move->ends.new_port = (unsigned)move->target->port;
    }
    return true;
}
