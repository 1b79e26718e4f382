#include "engine/cmd/cmd.h"

#define OUT_MOST MIB(4)

/* CHOICE lists stand at the start of the help, for the parser; readers get them as "kind". */
static const char *help_text(const ConfOption *option)
{
    const char *help = option->help;

    if (option->kind == CONF_CHOICE) {
        help += strcspn(help, ".");
        help += strspn(help, ". ");
    }
    return help;
}

static void put_kind(Buf *out, const ConfOption *option)
{
    if (option->kind == CONF_CHOICE)
        buf_printf(out, "%.*s", (int)strcspn(option->help, "."), option->help);
    else
        buf_puts(out, conf_kind_name(option->kind));
}

static void put_number(Buf *out, const ConfOption *option, uint64_t value)
{
    if (option->kind == CONF_SIZE)
        conf_put_size(out, value);
    else if (option->kind == CONF_MS)
        conf_put_ms(out, value);
    else
        buf_printf(out, "%" PRIu64, value);
}

static bool has_range(const ConfOption *option)
{
    return option->kind == CONF_COUNT || option->kind == CONF_SIZE || option->kind == CONF_MS;
}

static void put_range(Buf *out, const ConfOption *option)
{
    put_number(out, option, option->least);
    buf_puts(out, " to ");
    put_number(out, option, option->most);
}

/* Commands that take the option by name; "every command" for those that all take. */
static void put_takers(Buf *out, const ConfOption *option)
{
    size_t takers = 0;
    size_t start = out->len;

    for (size_t i = 0; i < command_count(); i++) {
        const Command *command = command_at(i);

        if (!command_takes(command, option) || strcmp(command->sections, "*") == 0)
            continue;
        buf_printf(out, "%s%s", takers++ ? ", " : "", command->name);
    }
    if (takers + 1 >= command_count()) {
        out->len = start;
        buf_puts(out, "every command");
    } else if (takers == 0) {
        buf_puts(out, "no command yet");
    }
}

static bool starts_section(size_t index)
{
    return index == 0 || strcmp(conf_option(index)->section, conf_option(index - 1)->section) != 0;
}

/* the sample file */

static void put_comment(Buf *out, const char *text)
{
    size_t at = 0;

    buf_putc(out, '#');
    while (*text) {
        size_t len = strcspn(text, " ");

        if (at > 0 && at + len > 96) {
            buf_puts(out, "\n#");
            at = 0;
        }
        buf_printf(out, " %.*s", (int)len, text);
        at += len + 1;
        text += len;
        text += strspn(text, " ");
    }
    buf_putc(out, '\n');
}

static void put_ini_option(Buf *out, const ConfOption *option)
{
    buf_putc(out, '\n');
    put_comment(out, help_text(option));
    buf_puts(out, "# ");
    put_kind(out, option);
    if (has_range(option)) {
        buf_puts(out, ", ");
        put_range(out, option);
    }
    buf_printf(out, "; also --%s, %s\n#%s =%s%s\n", option->flag, option->env, option->key,
               option->standard ? " " : "", option->standard ? option->standard : "");
}

static void put_ini(Buf *out)
{
    buf_puts(
        out,
        "# keybridge.ini - every option with its default. Read from --config FILE, KEYBRIDGE_CONFIG,\n"
        "# ./keybridge.ini, $XDG_CONFIG_HOME/keybridge.ini or ~/.config/keybridge.ini, the first that is there.\n"
        "# Flags win over the environment, that over this file. Values may stand in \"quotes\" with \\\" \\\\ \\n "
        "\\t.\n# A file with passwords must not be readable by everybody: chmod 600.\n");
    for (size_t i = 0; i < conf_count(); i++) {
        if (starts_section(i))
            buf_printf(out, "\n[%s]\n", conf_option(i)->section);
        put_ini_option(out, conf_option(i));
    }
}

/* docs/options.md */

static void put_cell(Buf *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '|' || *text == '<')
            buf_putc(out, '\\');
        buf_putc(out, *text);
    }
}

static void put_markdown_option(Buf *out, const ConfOption *option)
{
    AUTO_BUF kind;

    buf_init(&kind, 4096);
    put_kind(&kind, option);
    buf_printf(out, "| `%s` | `--%s`<br>`%s` | ", option->key, option->flag, option->env);
    put_cell(out, buf_str(&kind));
    if (has_range(option)) {
        buf_puts(out, "<br>");
        put_range(out, option);
    }
    buf_puts(out, " | ");
    if (option->standard)
        buf_printf(out, "`%s`", option->standard);
    buf_puts(out, " | ");
    put_cell(out, help_text(option));
    buf_puts(out, " | ");
    put_takers(out, option);
    buf_puts(out, " |\n");
}

static void put_markdown(Buf *out)
{
    buf_puts(
        out,
        "# Options\n\n"
        "Written by `make docs` from `engine/conf/options.def`; don't edit.\n\n"
        "Every option can be given on the command line, in the environment or in the ini file, and is checked "
        "the same way\neverywhere: flag > environment > file > default. `keybridge config` shows what is in "
        "force and where each value comes\nfrom. Unknown and duplicate keys in the file are errors; unknown "
        "`KEYBRIDGE_…` variables are warned of.\n\n"
        "The file is `--config FILE`, else `KEYBRIDGE_CONFIG`, else the first of `./keybridge.ini`,\n"
        "`$XDG_CONFIG_HOME/keybridge.ini`, `~/.config/keybridge.ini` that is there. "
        "[keybridge.ini](keybridge.ini) is a sample.\n\n"
        "Sizes are bytes or have a unit: `KiB`, `MiB`, `GiB`, `TiB`. Times have one: `ms`, `s`, `min`, `h`, `d`. "
        "Yes or no is\n`yes`, `on`, `true`, `1` or `no`, `off`, `false`, `0`; as a flag `--json`, `--json=no` or "
        "`--no-json`. Secrets are never\nprinted or logged.\n");
    for (size_t i = 0; i < conf_count(); i++) {
        if (starts_section(i))
            buf_printf(
                out,
                "\n## [%s]\n\n| key | also | kind | default | what | used by |\n| --- | --- | --- | --- | --- | --- |\n",
                conf_option(i)->section);
        put_markdown_option(out, conf_option(i));
    }
}

/* man pages, as scdoc reads them */

static void put_scdoc(Buf *out, const char *text)
{
    for (; *text; text++) {
        if (strchr("_*\\<>#[]|`~", *text))
            buf_putc(out, '\\');
        buf_putc(out, *text);
    }
}

static void put_man_option(Buf *out, const ConfOption *option)
{
    buf_printf(out, "*%s* (", option->key);
    {
        AUTO_BUF kind;

        buf_init(&kind, 4096);
        put_kind(&kind, option);
        put_scdoc(out, buf_str(&kind));
    }
    buf_puts(out, ")\n\t");
    put_scdoc(out, help_text(option));
    buf_puts(out, "\n\n\tFlag *--");
    put_scdoc(out, option->flag);
    buf_puts(out, "*, variable *");
    put_scdoc(out, option->env);
    buf_puts(out, "*.");
    if (option->standard) {
        buf_puts(out, " Default: ");
        put_scdoc(out, option->standard);
        buf_putc(out, '.');
    }
    if (has_range(option)) {
        buf_puts(out, " From ");
        put_range(out, option);
        buf_putc(out, '.');
    }
    buf_puts(out, "\n\n");
}

static void put_man(Buf *out)
{
    for (size_t i = 0; i < conf_count(); i++) {
        if (starts_section(i))
            buf_printf(out, "## [%s]\n\n", conf_option(i)->section);
        put_man_option(out, conf_option(i));
    }
}

static void put_man_commands(Buf *out)
{
    for (size_t i = 0; i < command_count(); i++) {
        const Command *command = command_at(i);

        buf_printf(out, "*%s*", command->name);
        if (command->operands) {
            buf_puts(out, " _");
            put_scdoc(out, command->operands);
            buf_putc(out, '_');
        }
        buf_puts(out, "\n\t");
        put_scdoc(out, command->summary);
        for (const char *line = command->about ? command->about : ""; *line;) {
            size_t len = strcspn(line, "\n");
            AUTO_BUF text;

            buf_init(&text, 65536);
            buf_put(&text, line, len);
            buf_puts(out, "\n\n\t");
            put_scdoc(out, buf_str(&text));
            line += len + (line[len] == '\n');
        }
        buf_puts(out, "\n\n");
    }
}

/* what is in force */

static void put_origin(Buf *out, const Conf *conf, const ConfOption *option)
{
    ConfOrigin origin = conf_origin(conf, option);

    if (origin.from == CONF_FROM_FLAG)
        buf_printf(out, "--%s", option->flag);
    else if (origin.from == CONF_FROM_ENV)
        buf_puts(out, option->env);
    else if (origin.from == CONF_FROM_FILE)
        buf_printf(out, "%s:%u", origin.file, origin.line);
    else
        buf_puts(out, "default");
}

static void put_in_force(Buf *out, const Conf *conf)
{
    for (size_t i = 0; i < conf_count(); i++) {
        const ConfOption *option = conf_option(i);
        size_t start;

        if (starts_section(i))
            buf_printf(out, "%s[%s]\n", i ? "\n" : "", option->section);
        start = out->len;
        buf_printf(out, "%s = ", option->key);
        conf_put_value(out, conf, option);
        buf_printf(out, "%*s  # ", (int)(out->len - start < 40 ? 40 - (out->len - start) : 0), "");
        put_origin(out, conf, option);
        buf_putc(out, '\n');
    }
}

static void put_json(Buf *out, const Conf *conf)
{
    AUTO_BUF text;

    buf_init(&text, MIB(1));
    buf_puts(out, "[");
    for (size_t i = 0; i < conf_count(); i++) {
        const ConfOption *option = conf_option(i);

        buf_printf(
            out,
            "%s{\"section\":\"%s\",\"key\":\"%s\",\"flag\":\"--%s\",\"env\":\"%s\",\"kind\":\"%s\",\"value\":",
            i ? ",\n " : "", option->section, option->key, option->flag, option->env,
            conf_kind_name(option->kind));
        buf_clear(&text);
        conf_put_value(&text, conf, option);
        if (text.len)
            buf_put_json(out, buf_span(&text));
        else
            buf_puts(out, "null");
        buf_puts(out, ",\"from\":");
        buf_clear(&text);
        put_origin(&text, conf, option);
        buf_put_json(out, buf_span(&text));
        buf_putc(out, '}');
    }
    buf_puts(out, "]\n");
}

static const struct {
    const char *name;
    void (*put)(Buf *out);
} papers[] = {
    {"ini", put_ini}, {"markdown", put_markdown}, {"man", put_man}, {"commands", put_man_commands}};

static bool print(const Conf *conf, const char *what, const Command *self, Err *err)
{
    AUTO_BUF out;

    buf_init(&out, OUT_MOST);
    if (!what && conf->json)
        put_json(&out, conf);
    else if (!what)
        put_in_force(&out, conf);
    for (size_t i = 0; what && i < ARRAY_LEN(papers); i++)
        if (strcmp(what, papers[i].name) == 0)
            papers[i].put(&out);
    if (what && out.len == 0)
        return command_misused(self, err);
    if (!buf_ok(&out, "the options", err))
        return false;
    fwrite(out.at, 1, out.len, stdout);
    return true;
}

static bool config_run(const Conf *conf, const Stop *stop, int argc, char **argv, Err *err)
{
    (void)stop;
    if (argc > 2)
        return command_misused(&cmd_config, err);
    return print(conf, argc == 2 ? argv[1] : NULL, &cmd_config, err);
}

const Command cmd_config = {
    .name = "config",
    .summary =
        "show the options in force and where each comes from, or print a sample file or the manual",
    .operands = "[ini|markdown|man|commands]",
    .about =
        "Without an operand: every option's value and its origin, a flag, a variable, a line of a file or the "
        "default. Secrets are shown as (secret).\n"
        "ini prints a sample file, markdown the manual's chapter of options, man and commands the generated parts "
        "of the man pages.",
    .sections = "*",
    .examples = "  keybridge config\n  keybridge config ini > keybridge.ini\n",
    .run = config_run,
};
