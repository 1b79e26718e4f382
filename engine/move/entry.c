#include "engine/move/entry.h"

#include "engine/model/position.h"
#include "engine/move/dsn.h"
#include "engine/move/receipt.h"
#include "engine/move/switch_route53.h"

static bool open_aws(Move *move, Err *err)
{
    const Conf *conf = move->conf;
    AwsOptions options = {.region = conf->aws_region,
                          .profile = conf->aws_profile,
                          .run = move->id,
                          .stop = move->stop,
                          .poll_ms = (unsigned)conf->aws_poll};

    move->aws = aws_open(&options, err);
    return move->aws != NULL;
}

static bool choose_switch(Move *move, Err *err)
{
    const Conf *conf = move->conf;

    if (conf->switch_record && conf->switch_command) {
        err_fail(err, ERR_USAGE, "both --record and --switch-command say how clients are moved");
        return err_hint(err, "give one of them");
    }
    if (conf->switch_record) {
        if (!move->aws && !open_aws(move, err))
            return false;
        move->mover = switch_route53(move->aws, conf->switch_zone, conf->switch_record,
                                     (unsigned)conf->switch_ttl);
    } else if (conf->switch_command) {
        move->mover = switch_command(conf->switch_command, move->stop);
    } else {
        move->mover = switch_none();
    }
    return move_put(move, "", "switch",
                    conf->switch_record
                        ? arena_printf(&move->arena, "Route 53 CNAME %s", conf->switch_record)
                    : conf->switch_command ? "command"
                                           : "by hand",
                    err);
}

static bool require(const char *value, const char *flag, const char *what, Err *err)
{
    if (value)
        return true;
    err_fail(err, ERR_USAGE, "%s is missing: %s", flag, what);
    return err_hint(err, "give %s on the command line, in the environment or in the ini file",
                    flag);
}

static bool choose_target_name(Move *move, Err *err)
{
    const char *wanted = move->conf->aws_target_instance;

    if (!move_get(move, "", "target", &move->target_name, err))
        return false;
    if (move->target_name && wanted && strcmp(wanted, move->target_name) != 0)
        return err_fail(err, ERR_STATE, "this migration's new instance is %s, not %s",
                        move->target_name, wanted);
    if (move->target_name)
        return true;
    move->target_name =
        wanted ? wanted : arena_printf(&move->arena, "%s-kb", move->conf->aws_instance);
    return move_put(move, "", "target", move->target_name, err);
}

/* Said before anything is begun. */
static bool check_positions(const Conf *conf, Err *err)
{
    uint64_t lsn;

    return !conf->ddl_applied || lsn_parse(span_str(conf->ddl_applied), &lsn, err) ||
           err_context(err, "--ddl-applied");
}

bool entry_open(Move *move, const Conf *conf, const Stop *stop, Err *err)
{
    char what[1024];

    *move = (Move){0};
    if (!check_positions(conf, err) ||
        !require(conf->aws_instance, "--instance", "the RDS instance to move", err) ||
        !require(conf->aws_key, "--kms-key", "the new KMS key", err))
        return false;
    snprintf(what, sizeof(what), "instance %s to key %s", conf->aws_instance, conf->aws_key);
    return move_open(move, conf, stop, what, err) && open_aws(move, err) &&
           choose_target_name(move, err) && move_put(move, "", "source", conf->aws_instance, err) &&
           choose_switch(move, err) && move_find_source(move, err) && move_find_target(move, err) &&
           move_get(move, "", "key_arn", &move->key_arn, err) && move_load_databases(move, err);
}

static bool set_pair(Move *move, Err *err)
{
    const char *name = move->conf->database ? move->conf->database
                                            : dsn_part(&move->arena, move->conf->source, "dbname");
    MoveDb *db = arena_new(&move->arena, MoveDb);
    const char *port_old = dsn_part(&move->arena, move->conf->source, "port");
    const char *port_new = dsn_part(&move->arena, move->conf->target, "port");

    if (!name)
        name = dsn_part(&move->arena, move->conf->source, "user");
    if (!name) {
        err_fail(err, ERR_CONFIG, "--source names no database");
        return err_hint(err, "end the connection string with /database");
    }
    *db = (MoveDb){.name = name,
                   .slot = move->conf->slot,
                   .source_dsn = move->conf->source,
                   .target_dsn = move->conf->target};
    if (move->conf->database) {
        db->source_dsn = dsn_with_database(&move->arena, move->conf->source, name, err);
        db->target_dsn = dsn_with_database(&move->arena, move->conf->target, name, err);
    }
    move->dbs = db;
    move->db_count = 1;
    move->ends = (SwitchEnds){
        .old_host = dsn_part(&move->arena, move->conf->source, "host"),
        .old_port = port_old ? (unsigned)strtoul(port_old, NULL, 10) : 5432,
        .new_host = dsn_part(&move->arena, move->conf->target, "host"),
        .new_port = port_new ? (unsigned)strtoul(port_new, NULL, 10) : 5432,
    };
    return db->source_dsn && db->target_dsn;
}

bool entry_open_pair(Move *move, const Conf *conf, const Stop *stop, Err *err)
{
    AUTO_BUF what;

    *move = (Move){0};
    buf_init(&what, 4096);
    if (!check_positions(conf, err) ||
        !require(conf->source, "--source", "the old database", err) ||
        !require(conf->target, "--target", "the new database", err))
        return false;
    buf_puts(&what, "from ");
    if (!pg_place(conf->source, &what, err))
        return false;
    buf_puts(&what, " to ");
    if (!pg_place(conf->target, &what, err))
        return false;
    return move_open(move, conf, stop, buf_str(&what), err) && set_pair(move, err) &&
           choose_switch(move, err) && move_find_source(move, err) &&
           move_put(move, "", "source", move->ends.old_host ? move->ends.old_host : "local", err) &&
           move_put(move, "", "target", move->ends.new_host ? move->ends.new_host : "local", err) &&
           move_put(move, move->dbs[0].name, "slot", move->dbs[0].slot, err) &&
           move_save_databases(move, &move->dbs[0].name, 1, err);
}

/* Transactions that an operator let the stream skip, in this or any earlier run: the table on the
 * target is what knows them all. */
static bool note_dead_letters(Move *move, const MoveDb *db, Err *err)
{
    PgOptions options = {.stop = move->stop};
    AUTO_PG pg = {0};
    AUTO_RESULT there = NULL;
    AUTO_RESULT res = NULL;

    if (!db->target_dsn || !pg_open(&pg, db->target_dsn, ERR_TARGET, &options, err))
        return !db->target_dsn;
    there = pg_rows(&pg, err, "select pg_catalog.to_regclass('keybridge.dead_letter') is not null");
    if (!there || *PQgetvalue(there, 0, 0) != 't')
        return there != NULL;
    res = pg_rows(
        &pg, err,
        "select commit_position, pg_catalog.format('transaction %s committed at %s, %s: %s',"
        " xid, commit_position, commit_time, error) from keybridge.dead_letter"
        " where stream = $1 and part = 1 order by id limit 999",
        db->slot);
    for (int row = 0; res && row < PQntuples(res); row++) {
        char key[32];

        snprintf(key, sizeof(key), "dead_letter.%03d", row + 1);
        if (!move_put(move, db->name, key, PQgetvalue(res, row, 1), err))
            return false;
    }
    return res != NULL;
}

bool entry_receipt(Move *move, Err *err)
{
    AUTO_BUF text;

    buf_init(&text, MIB(64));
    for (size_t i = 0; i < move->db_count; i++)
        if (!note_dead_letters(move, &move->dbs[i], err))
            return err_context(err, "reading keybridge.dead_letter of database %s",
                               move->dbs[i].name);
    if (!receipt_write(move->journal, move->audit, &text, err))
        return false;
    if (move->conf->json) {
        AUTO_BUF json;

        buf_init(&json, MIB(256));
        if (!receipt_json(move->journal, audit_head(move->audit), &json, err))
            return false;
        fputs(buf_str(&json), stdout);
        return true;
    }
    fputs(buf_str(&text), stdout);
    printf("\nkept in %s/receipt.json and receipt.txt\n", journal_dir(move->journal));
    return true;
}
