#include "engine/cmd/cmd.h"

#include <getopt.h>
#include <unistd.h>

enum { HELP = 2, VERSION, CONFIG, OPTION_FIRST = 256 }; /* 1 is an operand, see scan_line */
#define NEGATED    0x10000
#define FLAGS_MOST 256

/* getopt wants the names; what it answers is looked up again in the one table. */
typedef struct Flags {
    struct option options[FLAGS_MOST];
    const char *names[FLAGS_MOST]; /* for suggestions */
    char negated[FLAGS_MOST][64];  /* "no-" forms of yes-or-no options */
    size_t count;
} Flags;

static void add_flag(Flags *flags, const char *name, int has_arg, int value)
{
    if (flags->count + 1 == FLAGS_MOST)
        abort(); /* options.def outgrew the array */
    flags->names[flags->count] = name;
    flags->options[flags->count++] = (struct option){name, has_arg, NULL, value};
}

static void fill_flags(Flags *flags)
{
    add_flag(flags, "help", no_argument, HELP);
    add_flag(flags, "version", no_argument, VERSION);
    add_flag(flags, "config", required_argument, CONFIG);
    for (size_t i = 0; i < conf_count(); i++) {
        const ConfOption *option = conf_option(i);
        bool is_bool = option->kind == CONF_BOOL;

        add_flag(flags, option->flag, is_bool ? optional_argument : required_argument,
                 OPTION_FIRST + (int)i);
        if (is_bool) {
            char *negated = flags->negated[flags->count];

            snprintf(negated, sizeof(flags->negated[0]), "no-%s", option->flag);
            add_flag(flags, negated, no_argument, (OPTION_FIRST + (int)i) | NEGATED);
        }
    }
}

/* A secret stays in the process list no longer than this takes. The zeroes show as empty arguments.
 */
static void mask(char *text)
{
    size_t len = strlen(text);

    explicit_bzero(text, len);
    memcpy(text, "***", size_min(3, len));
}

static bool unknown_flag(const Flags *flags, const Command *command, const char *given, Err *err)
{
    int len = (int)strcspn(given, "=");
    int dashes = (int)strspn(given, "-");
    char name[64];
    const char *near;

    snprintf(name, sizeof(name), "%.*s", len - dashes, given + dashes);
    err_fail(err, ERR_USAGE, "unknown option %.*s", len, given);
    near = conf_nearest(name, flags->names, flags->count);
    if (near)
        return err_hint(err, "did you mean --%s?", near);
    return command ? err_hint(err, "keybridge help %s lists the options", command->name)
                   : err_hint(err, "keybridge --help lists the commands");
}

/* getopt also takes beginnings of names. A script that uses them breaks when an option is added, so
 * no. */
static bool is_whole(const char *given, const char *name)
{
    size_t len = strcspn(given, "=");

    return len == strlen(name) + 2 && memcmp(given + 2, name, len - 2) == 0;
}

static bool not_taken(const Command *command, const ConfOption *option, Err *err)
{
    err_fail(err, ERR_USAGE, "%s doesn't take --%s", command->name, option->flag);
    return err_hint(err, "keybridge help %s lists its options", command->name);
}

typedef struct Given {
    const ConfOption *option;
    char *value; /* in argv; NULL: yes */
    bool negated;
} Given;

typedef struct Scan {
    Flags flags;
    Given given[FLAGS_MOST];
    size_t count;
} Scan;

static bool keep(Scan *scan, int got, Err *err)
{
    const ConfOption *option = conf_option((size_t)((got & ~NEGATED) - OPTION_FIRST));

    for (size_t i = 0; i < scan->count; i++)
        if (scan->given[i].option == option)
            return err_fail(err, ERR_USAGE, "--%s is given twice", option->flag);
    scan->given[scan->count++] = (Given){option, optarg, (got & NEGATED) != 0};
    return true;
}

static bool on_option(Scan *scan, CommandLine *line, int got, int which, char *given, Err *err)
{
    if (got == '?' || got == ':') {
        /* Known, but the value is missing or too many; or not known at all. */
        for (size_t i = 0; i < scan->flags.count; i++)
            if (is_whole(given, scan->flags.names[i]))
                return err_fail(err, ERR_USAGE,
                                got == ':' ? "--%s needs a value" : "--%s takes no value",
                                scan->flags.names[i]);
        return unknown_flag(&scan->flags, line->command, given, err);
    }
    if (got == 'h')
        line->help = true;
    else if (!is_whole(given, scan->flags.names[which]))
        return unknown_flag(&scan->flags, line->command, given, err);
    else if (got == HELP)
        line->help = true;
    else if (got == VERSION)
        line->version = true;
    else if (got == CONFIG)
        line->config = optarg;
    else
        return keep(scan, got, err);
    return true;
}

static bool unknown_command(const char *name, Err *err)
{
    const char *names[64];
    size_t count = 0;
    const char *near;

    while (count < command_count() && count < ARRAY_LEN(names) - 1) {
        names[count] = command_at(count)->name;
        count++;
    }
    names[count++] = "help";
    /* A connection string in the wrong place is not repeated: it may hold a password. */
    err_fail(err, ERR_USAGE, "unknown command %s", strpbrk(name, ":/@=") ? "(not a name)" : name);
    near = conf_nearest(name, names, count);
    return near ? err_hint(err, "did you mean keybridge %s?", near)
                : err_hint(err, "keybridge --help lists the commands");
}

static bool on_operand(CommandLine *line, char *word, Err *err)
{
    line->argv[line->argc++] = word;
    if (line->argc > 1 || strcmp(word, "help") == 0)
        return true;
    line->command = command_find(word);
    return line->command || unknown_command(word, err);
}

static bool scan_line(Scan *scan, CommandLine *line, int argc, char **argv, Err *err)
{
    line->argc = 0;
    optind = 0; /* glibc: start afresh, also forget an earlier argv */
    opterr = 0;
    for (;;) {
        int which = 0;
        int before = optind ? optind : 1;
        /* '-': operands come in their order as option 1, so that argv[before] is what was taken. */
        int got = getopt_long(argc, argv, "-:h", scan->flags.options, &which);

        if (got == -1)
            break;
        if (got == 1 ? !on_operand(line, optarg, err)
                     : !on_option(scan, line, got, which, argv[before], err))
            return false;
    }
    while (optind < argc) /* behind "--" */
        if (!on_operand(line, argv[optind++], err))
            return false;
    line->argv[line->argc] = NULL;
    return true;
}

static bool help_command(CommandLine *line, Err *err)
{
    line->help = true;
    if (line->argc < 2 || strcmp(line->argv[1], "help") == 0)
        return true;
    line->command = command_find(line->argv[1]);
    return line->command || unknown_command(line->argv[1], err);
}

static bool read_usual_file(Conf *conf, Err *err)
{
    const char *home = getenv("HOME");
    const char *xdg = getenv("XDG_CONFIG_HOME");
    const char *named = getenv("KEYBRIDGE_CONFIG");
    char path[4096];

    if (named && *named)
        return conf_read_file(conf, named, err);
    if (access("keybridge.ini", F_OK) == 0)
        return conf_read_file(conf, "keybridge.ini", err);
    if (xdg && *xdg)
        snprintf(path, sizeof(path), "%s/keybridge.ini", xdg);
    else if (home && *home)
        snprintf(path, sizeof(path), "%s/.config/keybridge.ini", home);
    else
        return true;
    return access(path, F_OK) != 0 || conf_read_file(conf, path, err);
}

static bool apply_flags(const Scan *scan, const Command *command, Conf *conf, Err *err)
{
    static const ConfOrigin origin = {.from = CONF_FROM_FLAG};

    for (size_t i = 0; i < scan->count; i++) {
        const Given *given = &scan->given[i];
        const char *value = given->value ? given->value : given->negated ? "no" : "yes";

        if (!command_takes(command, given->option))
            return not_taken(command, given->option, err);
        if (!conf_set(conf, given->option, value, origin, err))
            return false;
    }
    return true;
}

static void mask_secrets(Scan *scan)
{
    for (size_t i = 0; i < scan->count; i++)
        if (scan->given[i].option->kind == CONF_SECRET && scan->given[i].value)
            mask(scan->given[i].value);
}

static bool read_layers(const Scan *scan, CommandLine *line, Conf *conf, char **env, Err *err)
{
    if (!(line->config ? conf_read_file(conf, line->config, err) : read_usual_file(conf, err)))
        return false;
    return conf_read_env(conf, env, err) && apply_flags(scan, line->command, conf, err);
}

static bool finish_line(Scan *scan, CommandLine *line, Conf *conf, char **env, Err *err)
{
    if (line->argc > 0 && !line->command)
        return help_command(line, err);
    if (line->help || line->version)
        return true;
    if (!line->command) {
        err_fail(err, ERR_USAGE, "no command given");
        return err_hint(err, "keybridge --help lists the commands");
    }
    if (line->argc > 1 && !line->command->operands)
        return command_misused(line->command, err);
    return read_layers(scan, line, conf, env, err);
}

bool command_line_read(CommandLine *line, Conf *conf, int argc, char **argv, char **env, Err *err)
{
    Scan *scan = calloc(1, sizeof(*scan));
    bool done;

    *line = (CommandLine){.argv = calloc((size_t)argc + 1, sizeof(char *))};
    if (!scan || !line->argv)
        abort();
    fill_flags(&scan->flags);
    done = scan_line(scan, line, argc, argv, err) && finish_line(scan, line, conf, env, err);
    mask_secrets(scan);
    free(scan);
    return done;
}
