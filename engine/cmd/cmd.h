/* cmd.h - what a subcommand is.
 *
 * One file per command, engine/cmd/<name>.c, which defines `const Command cmd_<name>`; one line in
 * commands.def makes it known. main.c owns the process: options, signals, logging, TLS and curl
 * set-up, the report of the error, the exit code.
 */
#ifndef CMD_H
#define CMD_H

#include "engine/base/stop.h"
#include "engine/conf/conf.h"

typedef struct Command {
    const char *name;
    const char *summary;  /* one line, lower case, for the list */
    const char *operands; /* "check|sync", what may follow the options; NULL: nothing may */
    const char *about;    /* paragraphs of the help, each one line, separated by "\n" */
    /* Option sections it takes, separated by blanks; "output.json" takes one option, "*" all. [log]
     * and
     * --json are always taken; what the environment and the ini file say about others is fine and
     * ignored. */
    const char *sections;
    const char *examples; /* one a line; may be NULL */
    /* argv[0] is the command's name, what follows are the operands: no options are left. stop is
     * requested by the first SIGINT, SIGTERM or SIGHUP. Results go to stdout; false leaves the
     * report to main. */
    bool (*run)(const Conf *conf, const Stop *stop, int argc, char **argv, Err *err);
} Command;

#define COMMAND(name) extern const Command cmd_##name;
#include "engine/cmd/commands.def"
#undef COMMAND

size_t command_count(void);
const Command *command_at(size_t index);
const Command *command_find(const char *name); /* NULL: there is none */
bool command_takes(const Command *command, const ConfOption *option);

/* Usage error that names the command's operands, for run. Returns false. */
bool command_misused(const Command *command, Err *err);

/* Help of one command or, with NULL, of the program. */
void help_print(FILE *out, const Command *command);
/* One option as its flag is written: "--lanes N". */
void help_put_flag(Buf *out, const ConfOption *option);

/* What a command line says, taken apart. */
typedef struct CommandLine {
    const Command *command; /* NULL with help or version */
    const char *config;     /* --config; NULL: the usual places */
    bool help;
    bool version;
    int argc;    /* command's name and operands */
    char **argv; /* NULL behind the last; free it */
} CommandLine;

/* Reads argv into line and, after the file and the environment, into conf. Secrets in argv are
 * overwritten, so that the process list shows them no longer than this takes. */
MUST_USE bool command_line_read(CommandLine *line, Conf *conf, int argc, char **argv, char **env,
                                Err *err);

#endif
