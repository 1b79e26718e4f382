#include "engine/stream/source.h"

#include "engine/model/position.h"

static bool truth(const PGresult *res, int column)
{
    return span_is(pg_cell(res, 0, column), "t");
}

static bool parse_lsn_cell(const PGresult *res, int column, uint64_t *lsn, Err *err)
{
    return lsn_parse(pg_cell(res, 0, column), lsn, err);
}

const char *source_minor_trouble(int version)
{
    static const int fixed[] = {[13] = 21, [14] = 18, [15] = 13, [16] = 9, [17] = 5};
    int major = version / 10000, minor = version % 10000;

    if (major >= (int)ARRAY_LEN(fixed))
        return NULL;
    if (major < 13 || minor < fixed[major])
        return "rows of a transaction are lost when another one changes its table or the publication meanwhile";
    if (minor == fixed[major])
        return "much DDL beside open transactions needs memory without bound";
    return NULL;
}

const char *source_end_sql(bool is_standby)
{
    return is_standby ? "select coalesce(pg_catalog.pg_last_wal_replay_lsn(), '0/0')"
                      : "select pg_catalog.pg_current_wal_flush_lsn()";
}

static bool check_server(Pg *source, SourceFacts *facts, Err *err)
{
    AUTO_RESULT res = pg_rows(
        source, err,
        "select pg_catalog.current_setting('wal_level'), pg_catalog.pg_is_in_recovery(),"
        " (select setting from pg_catalog.pg_settings where name = 'wal_sender_timeout'),"
        " (select r.rolsuper or r.rolreplication or exists (select from pg_catalog.pg_roles g"
        "   where g.rolname in ('rds_replication', 'rds_superuser')"
        "    and pg_catalog.pg_has_role(r.oid, g.oid, 'member'))"
        "  from pg_catalog.pg_roles r where r.rolname = current_user), current_user,"
        " pg_catalog.current_database()");

    if (!res)
        return false;
    facts->version = source->version;
    facts->is_standby = truth(res, 1);
    facts->sender_timeout_ms = (unsigned)strtoul(PQgetvalue(res, 0, 2), NULL, 10);
    if (facts->is_standby && source->version < 160000) {
        err_fail(err, ERR_SOURCE, "the source is a standby, and version %d can't decode on one",
                 source->version / 10000);
        return err_hint(
            err, "connect to the primary (on Aurora and Multi-AZ clusters: the writer's endpoint)");
    }
    if (!span_is(pg_cell(res, 0, 0), "logical")) {
        err_fail(err, ERR_SOURCE, "wal_level of the source is %s", PQgetvalue(res, 0, 0));
        return err_hint(
            err,
            "set wal_level = logical (on RDS rds.logical_replication = 1) and restart the source");
    }
    if (!truth(res, 3)) {
        err_fail(err, ERR_SOURCE, "user %s of the source may not replicate", PQgetvalue(res, 0, 4));
        err_code(err, "42501");
        return err_hint(err, "ALTER ROLE %s REPLICATION, on RDS GRANT rds_replication TO %s",
                        PQgetvalue(res, 0, 4), PQgetvalue(res, 0, 4));
    }
    return true;
}

/* Newer minors have a list of the plugins that may be used. */
static bool check_plugin(Pg *source, Err *err)
{
    AUTO_RESULT res = pg_rows(
        source, err,
        "select setting from pg_catalog.pg_settings where name = 'output_plugin_libraries'"
        " and not exists (select from pg_catalog.unnest(pg_catalog.string_to_array(setting, ',')) p"
        "  where pg_catalog.btrim(p, ' \"') in ('pgoutput', '$libdir/pgoutput', '*'))");

    if (!res || PQntuples(res) == 0)
        return res != NULL;
    err_fail(err, ERR_SOURCE, "output_plugin_libraries of the source is '%s', without pgoutput",
             PQgetvalue(res, 0, 0));
    return err_hint(err, "add pgoutput to output_plugin_libraries and reload the source");
}

static bool check_publication(Pg *source, const char *publication, SourceFacts *facts, Err *err)
{
    AUTO_RESULT res = pg_rows(
        source, err,
        "select (select pg_catalog.string_agg(pg_catalog.quote_ident(pubname), ', ' order by 1)"
        " from pg_catalog.pg_publication),"
        " exists (select from pg_catalog.pg_publication where pubname = $1),"
        " (select puballtables from pg_catalog.pg_publication where pubname = $1)",
        publication);

    if (!res)
        return false;
    facts->all_tables = truth(res, 2);
    if (truth(res, 1))
        return true;
    err_fail(err, ERR_SOURCE, "publication \"%s\" doesn't exist in the source database",
             publication);
    err_code(err, "42704");
    return PQgetisnull(res, 0, 0)
               ? err_hint(err, "CREATE PUBLICATION \"%s\" FOR ALL TABLES, before the slot is made",
                          publication)
               : err_hint(err, "give one of these with --publication: %s", PQgetvalue(res, 0, 0));
}

enum {
    SLOT_TYPE,
    SLOT_PLUGIN,
    SLOT_DATABASE,
    SLOT_HERE,
    SLOT_PID,
    SLOT_CONFIRMED,
    SLOT_RESTART,
    SLOT_WAL,
    SLOT_TWO_PHASE,
    SLOT_REASON,
    SLOT_SYNCED
};

static bool slot_is_missing(const char *slot, Err *err)
{
    err_fail(err, ERR_SOURCE, "replication slot \"%s\" doesn't exist on the source", slot);
    err_code(err, "42704");
    return err_hint(
        err,
        "SELECT pg_create_logical_replication_slot('%s', 'pgoutput') before the copy is made; a slot made "
        "later misses what was written in between. If it was there: somebody dropped it, or a failover lost it "
        "(only slots with failover, from version 17 on, survive that), and the copy must be made again",
        slot);
}

static const struct {
    const char *reason;
    const char *text;
    const char *hint;
} losses[] = {
    {"wal_removed", "the source has removed WAL that it needed", "raise max_slot_wal_keep_size"},
    {"rows_removed", "the source has removed catalog rows that it needed",
     "turn hot_standby_feedback on, with a physical slot between primary and standby"},
    {"wal_level_insufficient", "wal_level of the source was lowered",
     "set wal_level = logical (on RDS rds.logical_replication = 1) and restart the source"},
    {"idle_timeout", "nobody read from it for idle_replication_slot_timeout",
     "raise idle_replication_slot_timeout"},
};

static bool slot_is_lost(const char *slot, const char *reason, Err *err)
{
    size_t i = 0;

    while (i + 1 < ARRAY_LEN(losses) && strcmp(losses[i].reason, reason) != 0)
        i++;
    if (strcmp(losses[i].reason, reason) != 0)
        i = 0; /* before version 17 there was no other reason on a primary */
    err_fail(err, ERR_FAITHFUL, "replication slot \"%s\" was invalidated: %s", slot,
             losses[i].text);
    err_code(err, "55000");
    return err_hint(
        err, "what it had can't be streamed any more: %s, drop the slot, and make the copy again",
        losses[i].hint);
}

/* A slot that a standby keeps for the day when it is promoted. */
static bool slot_is_synced(const char *slot, Err *err)
{
    err_fail(
        err, ERR_SOURCE,
        "replication slot \"%s\" of this standby is kept in step with its primary's and can't be read",
        slot);
    err_code(err, "55000");
    return err_hint(err, "connect to the primary");
}

static bool check_slot_kind(const PGresult *res, const char *slot, Err *err)
{
    if (!span_is(pg_cell(res, 0, SLOT_TYPE), "logical"))
        return err_fail(err, ERR_SOURCE, "replication slot \"%s\" is %s, a logical one is needed",
                        slot, PQgetvalue(res, 0, SLOT_TYPE));
    if (!span_is(pg_cell(res, 0, SLOT_PLUGIN), "pgoutput"))
        return err_fail(err, ERR_SOURCE,
                        "replication slot \"%s\" is for the plugin %s, pgoutput is needed", slot,
                        PQgetvalue(res, 0, SLOT_PLUGIN));
    if (!truth(res, SLOT_HERE))
        return err_fail(err, ERR_SOURCE, "replication slot \"%s\" is of database %s", slot,
                        PQgetvalue(res, 0, SLOT_DATABASE));
    return true;
}

/* Otherwise it holds the slot until wal_sender_timeout. */
static void end_own(Pg *source, const char *pid, int own_pid)
{
    Err ignored = ERR_INIT;

    if (own_pid && strtol(pid, NULL, 10) == own_pid)
        PQclear(pg_rows(source, &ignored, "select pg_catalog.pg_terminate_backend($1::int)", pid));
}

static bool check_slot(Pg *source, const char *slot, int own_pid, bool relaying, SourceFacts *facts,
                       Err *err)
{
    static const char *const more[] = {
        [0] = "null, false, null, false",
        [13] = "wal_status, false, null, false",
        [14] = "wal_status, two_phase, null, false",
        [16] = "wal_status, two_phase, case when conflicting then 'rows_removed' end, false",
        [17] = "wal_status, two_phase, invalidation_reason, synced",
    };
    size_t at = size_min((size_t)source->version / 10000, ARRAY_LEN(more) - 1);
    char sql[512];

    while (!more[at])
        at--;
    snprintf(
        sql, sizeof(sql),
        "select slot_type, plugin, database, database = pg_catalog.current_database(), active_pid,"
        " confirmed_flush_lsn, restart_lsn, %s from pg_catalog.pg_replication_slots where slot_name = $1",
        more[at]);
    AUTO_RESULT res = pg_rows(source, err, sql, slot);

    if (!res)
        return false;
    if (PQntuples(res) == 0)
        return slot_is_missing(slot, err);
    if (!check_slot_kind(res, slot, err))
        return false;
    if (span_is(pg_cell(res, 0, SLOT_WAL), "lost") || PQgetisnull(res, 0, SLOT_RESTART) ||
        !PQgetisnull(res, 0, SLOT_REASON))
        return slot_is_lost(slot, PQgetvalue(res, 0, SLOT_REASON), err);
    if (facts->is_standby && truth(res, SLOT_SYNCED))
        return slot_is_synced(slot, err);
    if (PQgetisnull(res, 0, SLOT_CONFIRMED)) {
        err_fail(err, ERR_SOURCE,
                 "replication slot \"%s\" has no confirmed position: it isn't complete", slot);
        return err_hint(
            err,
            "its creation waits for open transactions, or it came here by a failover: make it again and the copy too");
    }
    if (!PQgetisnull(res, 0, SLOT_PID) && !relaying) {
        end_own(source, PQgetvalue(res, 0, SLOT_PID), own_pid);
        err_fail(err, ERR_SOURCE, "replication slot \"%s\" is in use by process %s of the source",
                 slot, PQgetvalue(res, 0, SLOT_PID));
        err_code(err, "55006");
        err_hint(err,
                 "another keybridge or subscription reads it; it is tried again until that ends");
        return err_transient(err);
    }
    /* Version 14 has the slots but its pgoutput can't do it. */
    facts->two_phase = source->version >= 150000 && truth(res, SLOT_TWO_PHASE);
    return parse_lsn_cell(res, SLOT_CONFIRMED, &facts->confirmed, err);
}

static bool ask_end(Pg *source, SourceFacts *facts, Err *err)
{
    AUTO_RESULT res = pg_rows(source, err, source_end_sql(facts->is_standby));

    return res && parse_lsn_cell(res, 0, &facts->flushed, err);
}

bool source_check(Pg *source, const char *slot, const char *publication, int own_pid, bool relaying,
                  SourceFacts *facts, Err *err)
{
    *facts = (SourceFacts){0};
    if (source->version < 100000)
        return err_fail(err, ERR_SOURCE,
                        "the source's version %d has no pgoutput; 10 is the oldest that has",
                        source->version / 10000);
    return check_server(source, facts, err) && check_plugin(source, err) &&
           check_publication(source, publication, facts, err) &&
           check_slot(source, slot, own_pid, relaying, facts, err) && ask_end(source, facts, err);
}
