#include "engine/cmd/cmd.h"

static bool config_run(const Conf *conf, const Stop *stop, int argc, char **argv, Err *err)
{
    (void)conf;
    (void)stop;
    (void)argc;
    (void)argv;
    (void)err;
    return true;
}

const Command cmd_config = {
    .name = "config",
    .summary =
        "show the options in force and where each comes from; print a sample file or the manual",
    .operands = "[ini|markdown|man]",
    .sections = "",
    .run = config_run,
};
