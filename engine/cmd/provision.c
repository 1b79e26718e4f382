#include "engine/cmd/cmd.h"
#include "engine/model/position.h"
#include "engine/move/entry.h"
#include "engine/move/phases.h"

static void print_text(const Move *move)
{
    char start[LSN_TEXT];

    printf("new instance %s (%s:%u), key %s, quiet and read-only\n\n", move->target_name,
           move->ends.new_host, move->ends.new_port, move->key_arn);
    for (size_t i = 0; i < move->db_count; i++)
        printf("keybridge replicate --slot %s --publication %s --start-lsn %s \\\n"
               "    --source postgres://%s:%u/%s --target postgres://%s:%u/%s\n",
               move->dbs[i].slot, move->publication, lsn_text(move->dbs[i].start, start),
               move->ends.old_host, move->ends.old_port, move->dbs[i].name, move->ends.new_host,
               move->ends.new_port, move->dbs[i].name);
}

static void print_json(const Move *move)
{
    AUTO_BUF out;
    char start[LSN_TEXT];

    buf_init(&out, MIB(16));
    buf_puts(&out, "{\"instance\":");
    buf_put_json(&out, span_str(move->target_name));
    buf_puts(&out, ",\"host\":");
    buf_put_json(&out, span_str(move->ends.new_host));
    buf_printf(&out, ",\"port\":%u,\"kms_key\":", move->ends.new_port);
    buf_put_json(&out, span_str(move->key_arn));
    buf_puts(&out, ",\"databases\":[");
    for (size_t i = 0; i < move->db_count; i++) {
        buf_puts(&out, i ? ",{\"database\":" : "{\"database\":");
        buf_put_json(&out, span_str(move->dbs[i].name));
        buf_puts(&out, ",\"slot\":");
        buf_put_json(&out, span_str(move->dbs[i].slot));
        buf_printf(&out, ",\"start_lsn\":\"%s\"}", lsn_text(move->dbs[i].start, start));
    }
    buf_puts(&out, "]}\n");
    fputs(buf_str(&out), stdout);
}

static bool provision_run(const Conf *conf, const Stop *stop, int argc, char **argv, Err *err)
{
    Move move;
    bool ok;

    (void)argc;
    (void)argv;
    ok = entry_open(&move, conf, stop, err) &&
         phases_run(&move, provision_phases, provision_phase_count, err);
    if (ok && conf->json)
        print_json(&move);
    else if (ok)
        print_text(&move);
    move_close(&move);
    return ok;
}

const Command cmd_provision = {
    .name = "provision",
    .summary = "only the copy under the new key, with its exact position",
    .about =
        "Publication, slot and marker on the source, snapshot, copy under the new key, restore with every setting, exact"
        " position, quiet target. Prints the replicate command that goes on from there; keybridge run does too.",
    .sections =
        "source.dsn tls stream.slot stream.slot-failover stream.publication stream.ddl state check.database aws switch apply.retry",
    .run = provision_run,
    .examples = "keybridge provision --instance orders --kms-key alias/new",
};
