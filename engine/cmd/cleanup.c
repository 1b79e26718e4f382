#include "engine/cmd/cmd.h"
#include "engine/move/entry.h"
#include "engine/move/tidy.h"

static bool cleanup_run(const Conf *conf, const Stop *stop, int argc, char **argv, Err *err)
{
    Move move;
    TidyReport report;
    bool ok;

    (void)argc;
    (void)argv;
    ok = conf->aws_instance ? entry_open(&move, conf, stop, err)
                            : entry_open_pair(&move, conf, stop, err);
    ok = ok && tidy_run(&move, conf->dry_run, &report, err);
    if (ok && report.done == 0)
        printf("nothing to clean up\n");
    move_close(&move);
    return ok;
}

const Command cmd_cleanup = {
    .name = "cleanup",
    .summary = "remove what the migration left; report what still uses the old key",
    .about =
        "Before the cut-over: slots, publications, snapshots and the new instance go, a half-made fence is opened, and run"
        " can begin anew.\nAfter it: slots, snapshots and keybridge's schema on the new side go; the old instance stays for"
        " you to delete.\nOnly what this migration made is touched.",
    .sections =
        "source.dsn target.dsn tls stream.slot stream.publication spool.dir state check.database aws cutover.dry-run",
    .run = cleanup_run,
    .examples = "keybridge cleanup --instance orders --kms-key alias/new --dry-run",
};
