#include "engine/move/preflight.h"

#include "engine/base/log.h"
#include "engine/move/origin.h"

#define NAMES_MOST 8

static const char *const level_names[] = {"note", "warning", "refused"};

const char *finding_level_name(FindingLevel level)
{
    return level_names[level];
}

void finding_add(Findings *findings, FindingLevel level, const char *database, const char *check,
                 const char *text, const char *hint)
{
    Finding *finding = arena_new(findings->arena, Finding);

    *finding = (Finding){.level = level,
                         .database = arena_strdup(findings->arena, database),
                         .check = check,
                         .text = arena_strdup(findings->arena, text),
                         .hint = hint ? arena_strdup(findings->arena, hint) : ""};
    if (findings->last)
        findings->last->next = finding;
    else
        findings->first = finding;
    findings->last = finding;
    findings->refusals += level == FINDING_REFUSE;
}

/* One row per offender, its name in the first column; no row: all is well. $1 is the publication in
 * a database's checks, the number of slots in the server's. */
typedef struct Check {
    const char *name;
    FindingLevel level;
    const char *sql;
    const char *text; /* what is said before the names */
    const char *hint;
} Check;

#define TABLE_NAME "quote_ident(n.nspname) || '.' || quote_ident(c.relname)"
#define USER_TABLES                                                                                           \
    " from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relkind = 'r' and c.oid >= 16384" \
    " and n.nspname not in ('pg_catalog', 'information_schema') "
/* No identity: an UPDATE or DELETE is refused by the source itself as soon as the table is
 * published. */
#define NO_IDENTITY                                                                                \
    " and c.relpersistence = 'p' and (c.relreplident = 'n' or c.relreplident = 'd' and not exists" \
    " (select from pg_index i where i.indrelid = c.oid and i.indisprimary and i.indisvalid))"
#define CHANGES "coalesce(pg_stat_get_tuples_updated(c.oid) + pg_stat_get_tuples_deleted(c.oid), 0)"

static const Check database_checks[] = {
    {"keyless updated", FINDING_REFUSE,
     "select " TABLE_NAME USER_TABLES NO_IDENTITY " and " CHANGES " > 0 order by 1",
     "tables without a primary key or replica identity get updates or deletes, which the source would refuse once they are "
     "published",
     "ALTER TABLE … REPLICA IDENTITY FULL (or USING INDEX, or add a primary key) on each"},
    {"keyless", FINDING_WARN,
     "select " TABLE_NAME USER_TABLES NO_IDENTITY " and " CHANGES " = 0 order by 1",
     "tables without a primary key or replica identity: inserts are carried, an update or delete would be refused by the "
     "source while the migration runs",
     "ALTER TABLE … REPLICA IDENTITY FULL if they can get any"},
    {"own schema", FINDING_REFUSE, "select nspname from pg_namespace where nspname = 'keybridge'",
     "the source holds the schema of an earlier migration, in which it was the target",
     "DROP SCHEMA keybridge CASCADE in that database, once that migration is over"},
    {"subscription", FINDING_REFUSE,
     "select subname from pg_subscription where subenabled and subdbid = (select oid from pg_database where datname ="
     " current_database()) order by 1",
     "enabled subscriptions: the restored copy would start to pull from the same publisher before anybody can stop it",
     "ALTER SUBSCRIPTION … DISABLE until the copy is restored"},
    {"not readable", FINDING_REFUSE,
     "select " TABLE_NAME USER_TABLES
     " and not has_table_privilege(c.oid, 'SELECT') and not" ORIGIN_NOT_OURS " order by 1",
     "tables that the user may not read, so they can't be compared",
     "GRANT pg_read_all_data TO the user"},
    {"not lockable", FINDING_REFUSE,
     "select " TABLE_NAME USER_TABLES " and not" ORIGIN_NOT_OURS
     " and c.relpersistence = 'p' and not has_table_privilege(c.oid, 'UPDATE, DELETE,"
     " TRUNCATE') order by 1",
     "tables that the user may not lock, so they can't be fenced",
     "GRANT pg_write_all_data TO the user"},
    {"owner", FINDING_REFUSE,
     "select 'owned by ' || quote_ident(pg_get_userbyid(datdba)) from pg_database where datname = current_database()"
     " and not pg_has_role(current_user, datdba, 'USAGE')",
     "the user doesn't own the database, so it can't close it for the application at the cut-over",
     "GRANT the owner's role TO the user"},
    {"trigger", FINDING_NOTE,
     "select " TABLE_NAME
     " || ' ' || quote_ident(t.tgname) from pg_trigger t join pg_class c on c.oid = t.tgrelid join"
     " pg_namespace n on n.oid = c.relnamespace where t.tgenabled in ('A', 'R') and not t.tgisinternal order by 1",
     "triggers that fire for a replica role too: disabled on the new side until it is opened", ""},
    {"extension's sequence", FINDING_WARN,
     "select " TABLE_NAME
     " from pg_sequence s join pg_class c on c.oid = s.seqrelid join pg_namespace n on n.oid ="
     " c.relnamespace join pg_depend e on e.classid = 'pg_class'::regclass and e.objid = s.seqrelid and e.deptype = 'e'"
     " where not has_sequence_privilege(s.seqrelid, 'UPDATE') order by 1",
     "sequences of extensions that the user may not set: they go on from where they were at the snapshot",
     "have them set on the new side, by whoever may, before it is opened"},
    {"event trigger", FINDING_NOTE,
     "select quote_ident(evtname) from pg_event_trigger where evtenabled in ('A', 'R') order by 1",
     "event triggers that fire for a replica role too: they fire for DDL that the stream applies",
     ""},
    {"prepared", FINDING_WARN,
     "select quote_literal(gid) || ' of ' || owner from pg_prepared_xacts where database = current_database() order by 1",
     "prepared transactions keep their locks: the slot and the fence wait for them",
     "COMMIT PREPARED or ROLLBACK PREPARED"},
    {"publication", FINDING_REFUSE, "select pubname from pg_publication where pubname = $1",
     "a publication of that name exists already and this migration didn't make it",
     "choose another name with --publication, or drop it if nobody uses it"},
};

/* What is there that a stream doesn't carry. */
static const Check uncarried_checks[] = {
    {"unlogged", FINDING_WARN,
     "select " TABLE_NAME USER_TABLES " and c.relpersistence = 'u' order by 1",
     "unlogged tables: empty on the new side, as after a crash",
     "fill them again after the cut-over, or SET LOGGED now"},
    {"large objects", FINDING_WARN,
     "select count(*) || ' large objects' from pg_largeobject_metadata having count(*) > 0",
     "large objects are in the copy; what changes in them later isn't carried by logical replication",
     "don't write large objects until the cut-over, or move them into bytea columns"},
    {"materialized view", FINDING_NOTE,
     "select quote_ident(schemaname) || '.' || quote_ident(matviewname) from pg_matviews order by 1",
     "materialized views hold what they held when the copy was made",
     "REFRESH them on the new side after the cut-over"},
    {"foreign table", FINDING_NOTE,
     "select " TABLE_NAME
     " from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relkind = 'f' order by 1",
     "foreign tables point at the same remote data from both sides", ""},
};

static const Check server_checks[] = {
    {"standby", FINDING_REFUSE, "select 'read only' where pg_is_in_recovery()",
     "the server is a standby or a reader; a logical slot is made on the writer",
     "connect to the writer's endpoint"},
    {"wal_level", FINDING_REFUSE,
     "select 'wal_level is ' || current_setting('wal_level') where current_setting('wal_level') <> 'logical'",
     "logical replication is off",
     "set wal_level = logical (on RDS rds.logical_replication = 1 in the parameter group) and restart"},
    {"replication right", FINDING_REFUSE,
     "select quote_ident(current_user) where not (select rolsuper or rolreplication from pg_roles where rolname ="
     " current_user) and not exists (select from pg_roles r where r.rolname = 'rds_replication' and"
     " pg_has_role(current_user, r.oid, 'MEMBER'))",
     "the user may not replicate", "ALTER ROLE … REPLICATION, on RDS GRANT rds_replication TO …"},
    {"signal right", FINDING_REFUSE,
     "select quote_ident(current_user) from pg_roles where rolname = current_user and not rolsuper and not"
     " pg_has_role(current_user, 'pg_signal_backend', 'USAGE')",
     "the user may not end other users' sessions, so it can't close the source at the cut-over",
     "GRANT pg_signal_backend TO the user"},
    {"slots", FINDING_REFUSE,
     "select (current_setting('max_replication_slots')::int - count(*)) || ' free of ' || current_setting("
     "'max_replication_slots') || ', ' || $1::text || ' needed' from pg_replication_slots having"
     " current_setting('max_replication_slots')::int - count(*) < $1::int",
     "not enough replication slots",
     "raise max_replication_slots (a restart), or drop slots that nobody uses"},
    {"senders", FINDING_REFUSE,
     "select (current_setting('max_wal_senders')::int - count(*)) || ' free of ' || current_setting('max_wal_senders')"
     " || ', ' || $1::text || ' needed' from pg_stat_replication having current_setting('max_wal_senders')::int"
     " - count(*) < $1::int",
     "not enough walsenders", "raise max_wal_senders (a restart)"},
    {"slot retention", FINDING_NOTE,
     "select 'max_slot_wal_keep_size is ' || current_setting('max_slot_wal_keep_size') where"
     " current_setting('max_slot_wal_keep_size') <> '-1'",
     "the server throws a slot away that falls too far behind",
     "make sure that it covers the time of snapshot, copy and restore"},
    {"long transaction", FINDING_WARN,
     "select 'pid ' || pid || ' ' || coalesce(usename, '?') || ', open ' || round(extract(epoch from clock_timestamp() -"
     " xact_start)) || ' s' from pg_stat_activity where backend_xid is not null and xact_start < clock_timestamp() -"
     " interval '10 s' order by xact_start limit 9",
     "transactions that have been open for long: making the slot waits for them",
     "end them, or wait"},
};

static bool run_check(Pg *pg, const Check *check, const char *database, const char *param,
                      Findings *findings, Err *err)
{
    AUTO_RESULT res = strstr(check->sql, "$1") ? pg_rows(pg, err, check->sql, param)
                                               : pg_rows(pg, err, check->sql);
    AUTO_BUF text;

    buf_init(&text, 65536);
    if (!res)
        return err_context(err, "preflight, %s", check->name);
    if (PQntuples(res) == 0)
        return true;
    buf_printf(&text, "%s: ", check->text);
    for (int i = 0; i < PQntuples(res) && i < NAMES_MOST; i++)
        buf_printf(&text, "%s%s", i ? ", " : "", PQgetvalue(res, i, 0));
    if (PQntuples(res) > NAMES_MOST)
        buf_printf(&text, " and %d more", PQntuples(res) - NAMES_MOST);
    finding_add(findings, check->level, database, check->name, buf_str(&text), check->hint);
    return true;
}

bool preflight_server(Pg *pg, const PreflightNeeds *needs, Findings *findings, Err *err)
{
    char slots[24];

    snprintf(slots, sizeof(slots), "%zu", needs->slots);
    if (pg->version < 130000) {
        char text[128];

        snprintf(text, sizeof(text),
                 "the server is PostgreSQL %d; 13 is the oldest that keybridge moves",
                 pg->version / 10000);
        finding_add(findings, FINDING_REFUSE, "", "version", text, "upgrade first");
        return true;
    }
    for (size_t i = 0; i < ARRAY_LEN(server_checks); i++) {
        size_t before = findings->refusals;

        if (!run_check(pg, &server_checks[i], "", slots, findings, err))
            return false;
        if (i == 0 && findings->refusals > before)
            return true; /* nothing else can be asked of a standby */
    }
    return true;
}

static bool check_jobs(Pg *pg, const char *database, Findings *findings, Err *err)
{
    static const Check jobs = {
        "cron job", FINDING_NOTE,
        "select 'job ' || jobid || ' (' || schedule || ')' from cron.job where active order by jobid",
        "scheduled jobs go on running here and stand still on the new side until it is opened", ""};
    AUTO_RESULT there = pg_rows(pg, err, "select 1 where to_regclass('cron.job') is not null");

    if (!there || PQntuples(there) == 0)
        return there != NULL;
    /* Its policy shows everybody their own jobs, and RDS's master all. */
    return pg_exec(pg, "set row_security = on", err) &&
           run_check(pg, &jobs, database, NULL, findings, err) &&
           pg_exec(pg, "set row_security = off", err);
}

bool preflight_uncarried(Pg *pg, Findings *findings, Err *err)
{
    const char *database = PQdb(pg->conn);

    for (size_t i = 0; i < ARRAY_LEN(uncarried_checks); i++)
        if (!run_check(pg, &uncarried_checks[i], database, NULL, findings, err))
            return false;
    return check_jobs(pg, database, findings, err);
}

bool preflight_database(Pg *pg, const PreflightNeeds *needs, Findings *findings, Err *err)
{
    const char *database = PQdb(pg->conn);

    for (size_t i = 0; i < ARRAY_LEN(database_checks); i++)
        if (!run_check(pg, &database_checks[i], database, needs->publication, findings, err))
            return err_context(err, "database %s", database);
    return preflight_uncarried(pg, findings, err) || err_context(err, "database %s", database);
}

bool preflight_databases(Pg *pg, const char *only, Arena *arena, const char ***names, size_t *count,
                         Err *err)
{
    AUTO_RESULT res = pg_rows(
        pg, err,
        "select datname from pg_database where datallowconn and not datistemplate and datname <>"
        " 'rdsadmin' and ($1::text is null or datname = $1) order by datname",
        only);

    if (!res)
        return false;
    *count = (size_t)PQntuples(res);
    if (*count == 0) {
        err_fail(err, ERR_SOURCE, "the source has no database%s%s that takes connections",
                 only ? " " : "", only ? only : "");
        return err_hint(
            err,
            "check --database, and that an aborted cut-over didn't leave it closed: keybridge cleanup");
    }
    *names = arena_array(arena, const char *, *count);
    for (size_t i = 0; i < *count; i++)
        (*names)[i] = arena_strdup(arena, PQgetvalue(res, (int)i, 0));
    return true;
}

bool preflight_verdict(const Findings *findings, Err *err)
{
    AUTO_BUF text;
    const char *hint = "";

    buf_init(&text, 65536);
    if (findings->refusals == 0)
        return true;
    for (const Finding *f = findings->first; f; f = f->next) {
        if (f->level != FINDING_REFUSE)
            continue;
        if (!*hint)
            hint = f->hint;
        buf_printf(&text, "%s%s%s%s", text.len ? "; " : "", f->database, *f->database ? ": " : "",
                   f->text);
    }
    err_fail(err, ERR_FAITHFUL, "%s", buf_str(&text));
    return err_hint(err, "%s", hint);
}
